//! The prose of the manual pages: a verb's description is longer there than in its `--help`. An empty line begins a paragraph.

/// The words of a verb's page.
#[derive(Debug)]
pub(super) struct Words {
    verb: &'static str,
    /// In place of the command line's own.
    pub(super) synopsis: Option<&'static str>,
    pub(super) description: &'static str,
    /// Paths, and what lies there.
    pub(super) files: &'static [(&'static str, &'static str)],
    pub(super) see_also: &'static [&'static str],
}

/// The words of a verb; of `records list` as `records-list`.
pub(super) fn of(verb: &str) -> Option<&'static Words> {
    VERBS.iter().find(|words| words.verb == verb)
}

const CONFIGURED: (&str, &str) = ("/etc/heirlock/heirlock.toml", "The configuration, see heirlock.toml(5).");
const CONTROL: (&str, &str) = ("/run/heirlock/control.sock", "The socket at which the agent is asked.");
const RUNTIME: (&str, &str) = (
    "/run/heirlock",
    "What must survive a restart of the agent, but not one of the server, and the agent's sockets.",
);
const LOCAL: (&str, &str) = (
    "/var/lib/heirlock",
    "What concerns this server alone and must outlive a reboot: what 'heirlock enable' has changed, which store is this server's, and how far each service had come.",
);

pub(super) const PROGRAM: &str = "\
When an NFS server dies, the locks of its NFSv3 clients die with it. The server that takes over does not know the clients, and does
not tell them to reclaim their locks. heirlock keeps the status monitor's records of every server in a store that outlives the server,
hands them to the adoptive server, makes its lock manager recognise them, tells every client to reclaim its locks, and reports the
outcome of each client.

An agent runs on each server. The other verbs ask it, or look at the store by themselves where no agent is needed. A service is the unit
that moves: a floating address, the names clients mount it by, its exports. One server at a time may act for a service; each tenure is a
generation.

With --json each verb prints one document without prose.

NFSv4 clients are not protected.";

pub(super) const PROGRAM_FILES: &[(&str, &str)] = &[
    CONFIGURED,
    RUNTIME,
    LOCAL,
    (
        "/run/heirlock-status/status.sock",
        "The socket at which a group that [control] read-group names may ask for the status.",
    ),
    (
        "heirlock.service, heirlock.socket",
        "The units of systemd: the agent, and for capture.mode = \"nsm\" the status monitor's sockets. 'heirlock enable' enables them.",
    ),
];

pub(super) const PROGRAM_ENVIRONMENT: &[(&str, &str)] = &[
    ("HEIRLOCK_CONFIG", "The configuration, unless --config names one."),
    ("HEIRLOCK_LOG", "What the agent logs, unless --log says it."),
    ("NO_COLOR", "Where it is set to anything, no colours are used; see https://no-color.org."),
];

pub(super) const PROGRAM_EXAMPLES: &str = "\
Two servers, with a volume for the store that both see. On both of them:

    heirlock sample-config > /etc/heirlock/heirlock.toml
    editor /etc/heirlock/heirlock.toml
    heirlock check-config
    heirlock enable
    heirlock doctor
    heirlock status

When the one that has the service nfs is gone, and is known to be off, on the other one:

    heirlock adopt nfs --owner-fenced";

pub(super) const CONFIGURATION: &str = "\
The configuration is a file in TOML. 'heirlock sample-config' prints a sample with all keys, from which this page is made;
'heirlock check-config' names all mistakes in a configuration, each with its line, before anything happens. A key that is misspelt is
one of them. After a change say 'heirlock enable' where capture.mode or capture.port has changed, and restart the agent otherwise.

The value beside each key below is the sample's: its default, or an example where the text says that it must be set or has another
default.";

pub(super) const CONFIGURATION_SECTIONS: &[(&str, &str)] = &[
    (
        "files",
        "/etc/heirlock/heirlock.toml is read unless --config or the environment variable HEIRLOCK_CONFIG names another file.",
    ),
    (
        "examples",
        "\
The least that can be said of a server with one service:

    server = \"nfs-a\"
    [store]
    path = \"/srv/heirlock\"
    [[service]]
    name = \"nfs\"
    addresses = [\"192.0.2.10\"]
    names = [\"nfs.example.com\"]
    exports = [\"/srv/nfs\"]
    home = \"nfs-a\"",
    ),
];

const VERBS: &[Words] = &[
    Words {
        verb: "agent",
        synopsis: None,
        description: "\
Runs the agent of this server in the foreground. systemd runs it as heirlock.service; elsewhere the host's init starts it before NFS.

The agent notices the records of clients and keeps them in the store, adopts services when it is asked to, or by itself where
mode = \"automatic\", and tells clients. It needs root. Where a service of its own or its lock manager was restarted, it tells the clients of
that. SIGTERM ends it in order; no server takes that for its death.",
        files: &[CONFIGURED, RUNTIME, LOCAL],
        see_also: &["heirlock(8)", "heirlock-supervise(8)", "heirlock-status(8)", "heirlock.toml(5)"],
    },
    Words {
        verb: "supervise",
        synopsis: None,
        description: "\
Holds the sockets of the status monitor, runs 'heirlock agent', and starts another one when the agent ends or hangs. It is for
capture.mode = \"nsm\" on hosts without systemd: while no status monitor is there, lockd grants locks without a record after a minute. Where
systemd runs, heirlock.socket does the same.

SIGHUP starts a new agent in place of the one that runs, after an upgrade for example. SIGTERM ends both.",
        files: &[CONFIGURED, RUNTIME],
        see_also: &["heirlock(8)", "heirlock-agent(8)", "heirlock.toml(5)"],
    },
    Words {
        verb: "ocf",
        synopsis: None,
        description: "\
Carries out an action of the resource agents ocf:heirlock:service and ocf:heirlock:notify, which Pacemaker runs. The scripts in
/usr/lib/ocf/resource.d/heirlock call it. In a group the resources of a service stand in this order: volume, NFS server, exports,
service, address, notify.

service start adopts the service until its grace period is open; stop releases it. Where another node owns the service, it is adopted only
if the cluster confirms that this node is off. notify start has the clients told; its monitor says 190 (degraded) while clients are lost or
unreachable.

The parameters service and config come in the environment, as OCF_RESKEY_service. The name of the server in heirlock.toml must be the
name of its node.",
        files: &[CONFIGURED, CONTROL, ("/run/resource-agents", "The notes that a resource was started on this node.")],
        see_also: &[
            "heirlock(8)",
            "heirlock-adopt(8)",
            "heirlock-release(8)",
            "ocf_heirlock_service(7)",
            "ocf_heirlock_notify(7)",
            "pacemaker-execd(7)",
        ],
    },
    Words {
        verb: "exporter",
        synopsis: None,
        description: "\
Serves metrics for Prometheus and a page that says how the agent, its store and its services are, over HTTP and on loopback unless --listen
says otherwise. It asks the agent at the read-only socket, so it needs no root: its user is a member of the group that [control] read-group
names. With --textfile it writes the metrics into a folder of node_exporter instead.",
        files: &[("/run/heirlock-status/status.sock", "The socket at which the agent is asked.")],
        see_also: &["heirlock(8)", "heirlock-status(8)", "heirlock.toml(5)"],
    },
    Words {
        verb: "callout",
        synopsis: Some(crate::callout::SYNOPSIS),
        description: "\
rpc.statd runs heirlock-callout for each client, where capture.mode = \"callout\", and waits for it before it answers lockd. The callout
asks the agent to put the client on record, and waits until the record is durable, no longer than capture.callout-timeout. Then
rpc.statd goes on, and the lock is granted.

A client that the agent did not acknowledge in time is noted beside the records of rpc.statd. The agent puts it on record as soon as it
can, and reports it.

'heirlock enable' names the callout in /etc/nfs.conf.d, and 'heirlock disable' takes it out again. rpc.statd has one callout, so no other
program may use it. rpc.statd runs it as its own user, who must be able to run the program.",
        files: &[
            CONFIGURED,
            ("/usr/lib/heirlock/heirlock-callout", "The program, as the packages install it."),
            ("/run/heirlock/callout.sock", "The socket at which the agent is told."),
            (
                "/var/lib/nfs/sm/.heirlock-callouts",
                "Beside rpc.statd's records: the clients that the agent did not acknowledge.",
            ),
        ],
        see_also: &["heirlock(8)", "heirlock-enable(8)", "heirlock.toml(5)", "rpc.statd(8)", "nfs.conf(5)"],
    },
    Words {
        verb: "adopt",
        synopsis: None,
        description: "\
Takes a service over from the server that had it: claims it in the store, places the records of its clients, makes the lock manager of
this host recognise them, waits until the grace period is proved to be open, and tells every client to reclaim its locks.

The owner of the service must have released it or be known to be off: --owner-fenced says so, or the fence hook confirms it. A server that
has lost only the store still serves, and a second one beside it would grant the same lock twice. An adoption whose needs are not met
on this host is refused before anything is changed, with a line for each missing need.

An address that is up before grace is open lets other clients steal locks. So a cluster manager says --prepare first, brings the address
up when that has ended, and then says --finish. Without a cluster manager the hooks in the configuration move volume and address.

A service that is adopted here already is left as it is, so the verb may be repeated.",
        files: &[CONFIGURED, CONTROL],
        see_also: &["heirlock(8)", "heirlock-release(8)", "heirlock-failback(8)", "heirlock-report(8)"],
    },
    Words {
        verb: "release",
        synopsis: None,
        description: "\
Gives a service away in order: the address goes first, then the claim, then the locks, then the volume. Another server may adopt the
service then without --owner-fenced, and tells its clients.

Without the hooks address-down and volume-down an administrator or a cluster manager takes address and volume away; heirlock waits for
the address, and says how long.",
        files: &[CONFIGURED, CONTROL],
        see_also: &["heirlock(8)", "heirlock-adopt(8)", "heirlock-failback(8)"],
    },
    Words {
        verb: "failback",
        synopsis: None,
        description: "\
Brings a service home, on the server that home names in the configuration: asks the owner, by the store, to release it, and adopts it. The
owner says at once where it can't, and for how long.",
        files: &[CONFIGURED, CONTROL],
        see_also: &["heirlock(8)", "heirlock-adopt(8)", "heirlock-release(8)"],
    },
    Words {
        verb: "move",
        synopsis: None,
        description: "\
Moves a service to another server, in order and with the locks of its clients, as a maintenance wants it. It may be said on any server that
shares the store. The server that is to have the service looks first whether it could adopt it; then its owner is asked, by the store, to
release it; then it is adopted there, and every client is told. The verb says how far that is, and in the end what became of the clients
and how long they were without the service, which is also kept in the history.

Nothing is changed where the other server does not live, is in maintenance or could not adopt the service, or where the owner can't give
it up now: each is said. Once the owner has released the service, an adoption that fails leaves it with no server. The same command goes
on from there, and from wherever a server that was started again has left it. A service that is there already is left as it is.

Volume and address move by the hooks of both servers, or by the hand of a person meanwhile.",
        files: &[CONFIGURED, CONTROL],
        see_also: &["heirlock(8)", "heirlock-adopt(8)", "heirlock-release(8)", "heirlock-failback(8)", "heirlock-history(8)"],
    },
    Words {
        verb: "drill",
        synopsis: None,
        description: "\
Finds out what would come of an adoption of a service by this server, without one, and changes nothing: no claim is made, NFS is not
restarted, no hook is run but fence-check, and no client is told of a restart. Say it on the server that would adopt.

The store is read, the needs of an adoption are looked for on this host, and every client on record is asked: its rpcbind for the port of
its status monitor, and that for an empty answer, by the same ways as an adoption would tell it. The answer is one table: whether the
adoption would work, how long it would take by the last ones and by the answers of this drill, and which clients it would not reach and
why. What only an adoption does is named as not tried.

On a standby the service's address is not there, so the clients are asked from its own: a client whose firewall knows the service's
address alone is named as not reached. On the server that holds the service the clients are asked from the service's address, and
nothing else is looked at.

A drill is refused while an adoption is on, and while another drill is; it makes way for an adoption that begins. The last result of each
service is kept, and shown by heirlock-status(8), in the metrics and on the status page. The timer heirlock-drill.timer, which is off
until it is enabled, says 'heirlock drill --all' each week.",
        files: &[
            CONFIGURED,
            CONTROL,
            ("/var/lib/heirlock/drills.json", "The results of the last drills on this server."),
        ],
        see_also: &["heirlock(8)", "heirlock-doctor(8)", "heirlock-adopt(8)", "heirlock-status(8)"],
    },
    Words {
        verb: "maintenance",
        synopsis: None,
        description: "\
Says that this server's silence is no reason for an automatic adoption, until it is switched off again. The word lies in the store and
outlives a reboot. Adoptions that are asked for are not affected.",
        files: &[CONFIGURED, CONTROL],
        see_also: &["heirlock(8)", "heirlock-status(8)"],
    },
    Words {
        verb: "status",
        synopsis: None,
        description: "\
Shows the services, their owners and clients, the store, and the problems that an administrator should know of, with what to type next.
Where no agent answers, the store is read.

With --check it prints one line for a monitoring system, and its exit status has the meaning that monitoring systems expect. The status is
root's; a group that [control] read-group names may read it too.",
        files: &[
            CONFIGURED,
            CONTROL,
            ("/run/heirlock-status/status.sock", "The socket of the group that may read the status."),
        ],
        see_also: &["heirlock(8)", "heirlock-doctor(8)", "heirlock-report(8)", "heirlock-history(8)"],
    },
    Words {
        verb: "history",
        synopsis: None,
        description: "\
Lists the generations of a service, or of all: their owners, when and why each began, and how long clients were without the service. The
account of a generation is kept after its records were removed.",
        files: &[CONFIGURED],
        see_also: &["heirlock(8)", "heirlock-report(8)", "heirlock-status(8)"],
    },
    Words {
        verb: "report",
        synopsis: None,
        description: "\
Shows the adoption that began a generation: its phases and their times, and how many clients were told. With --clients it names each
client and its outcome: re-registered, acknowledged, unreachable or lost.",
        files: &[CONFIGURED],
        see_also: &["heirlock(8)", "heirlock-adopt(8)", "heirlock-history(8)"],
    },
    Words {
        verb: "records",
        synopsis: None,
        description: "\
Looks at the monitor records in the store: one for each client that an adoption must tell. All but 'forget' work without an agent.",
        files: &[CONFIGURED],
        see_also: &["heirlock(8)", "heirlock-notify(8)", "sm-notify(8)"],
    },
    Words {
        verb: "records-list",
        synopsis: None,
        description: "Lists the services in the store and how many records each has, or the clients of one service, their names, since when \
they are on record, and their last outcomes.",
        files: &[CONFIGURED],
        see_also: &["heirlock-records(8)", "heirlock(8)"],
    },
    Words {
        verb: "records-show",
        synopsis: None,
        description: "Shows the record of one client as the status monitor wrote it.",
        files: &[CONFIGURED],
        see_also: &["heirlock-records(8)", "heirlock(8)"],
    },
    Words {
        verb: "records-export",
        synopsis: None,
        description: "\
Writes the records of a service into an empty directory, with its state number, as nfs-utils has them. With heirlock gone
'sm-notify -f -P DIRECTORY -v ADDRESS' tells the clients from there.",
        files: &[CONFIGURED],
        see_also: &["heirlock-records(8)", "heirlock(8)", "sm-notify(8)"],
    },
    Words {
        verb: "records-forget",
        synopsis: None,
        description: "\
Removes the record of a client that is gone for good. No adoption tells it then. A client that locks again is put on record again.",
        files: &[CONFIGURED, CONTROL],
        see_also: &["heirlock-records(8)", "heirlock(8)"],
    },
    Words {
        verb: "records-import",
        synopsis: None,
        description: "\
Brings the records of another server's status monitor into the store, so that an adoption takes them over: of a server that died before
it had heirlock, for example, from its disk. It may be repeated after it was interrupted. Servers that this one mounts from are left out,
for they are no clients.",
        files: &[CONFIGURED],
        see_also: &["heirlock-records(8)", "heirlock(8)", "heirlock-adopt(8)"],
    },
    Words {
        verb: "store",
        synopsis: None,
        description: "Moves the store to another place: from a folder to etcd, or back.",
        files: &[CONFIGURED],
        see_also: &["heirlock-store-copy(8)", "heirlock(8)"],
    },
    Words {
        verb: "store-copy",
        synopsis: None,
        description: "\
Copies the store of one configuration to the place that another one names, while agents run, and then makes that place the one that counts.
Both are files as an agent reads them, so that an agent that is started with TO uses what was written there.

The store keeps its identity. It is copied in passes, until little is left to do. Then FROM is closed: its agents keep no new client from
that moment on, as where a store is away, and say so. The rest is copied, all of it is read back and compared, and TO is opened. Then give
each server the [store] of TO, and restart its agent. An agent that is left on FROM, or started on it again, refuses it by name.

A copy that is interrupted leaves FROM as it was. Where it is killed between closing FROM and opening TO, no store is in force: the same
command goes on with it, and --give-up takes it back.",
        files: &[CONFIGURED],
        see_also: &["heirlock(8)", "heirlock-enable(8)", "heirlock-doctor(8)"],
    },
    Words {
        verb: "check-config",
        synopsis: None,
        description: "\
Reads the configuration and names all mistakes in it, each with its line and with what was expected. Then it names what the configuration
would lose locks by, although it can be read. Nothing is changed, and no agent is needed.",
        files: &[CONFIGURED],
        see_also: &["heirlock.toml(5)", "heirlock-doctor(8)", "heirlock(8)"],
    },
    Words {
        verb: "doctor",
        synopsis: None,
        description: "\
Looks at this host, its NFS server, its status monitor, its store and its network, and lists what would go wrong at a failover, each with
a remedy; among it all that 'heirlock adopt' would refuse for. Nothing is changed.",
        files: &[CONFIGURED],
        see_also: &["heirlock(8)", "heirlock-check-config(8)", "heirlock-status(8)"],
    },
    Words {
        verb: "enable",
        synopsis: None,
        description: "\
Puts this host under guard: makes the store where there is none yet, keeps sm-notify from ending grace and from notifying clients, takes
what the capture mode needs (rpc.statd's callout, or rpc.statd's place), and enables and starts the agent where systemd runs. A package
that is installed changes nothing before that.

All that is changed is remembered first, and 'heirlock disable' takes it back. --plan says what would be changed. After a change of
capture.mode the verb is said again.",
        files: &[
            CONFIGURED,
            LOCAL,
            ("/etc/nfs.conf.d", "heirlock's lines for sm-notify and rpc.statd."),
            ("/etc/tmpfiles.d/heirlock.conf", "Keeps sm-notify out at boot."),
        ],
        see_also: &["heirlock(8)", "heirlock-disable(8)", "heirlock-doctor(8)", "heirlock.toml(5)"],
    },
    Words {
        verb: "disable",
        synopsis: None,
        description: "\
Gives this host back as it was before 'heirlock enable': stops the agent, raises the state number of the status monitor above all that was
sent, hands all registrations back to rpc.statd and starts it, and only then lets sm-notify loose. The records in the store stay. The
weekly drill (heirlock-drill.timer) is turned off, where a person has turned it on.

A package that is removed says 'heirlock disable --if-idle' first. That refuses, with nothing changed, where clients on record would
lose what protects their locks: where a service is this server's and has clients, or where a run is on. Release the service, or wait; or
say 'heirlock disable' yourself, and the package can be removed.",
        files: &[CONFIGURED, LOCAL],
        see_also: &["heirlock(8)", "heirlock-enable(8)", "heirlock-release(8)"],
    },
    Words {
        verb: "notify",
        synopsis: None,
        description: "\
Tells the clients of a status monitor's directory of a restart, in place of sm-notify, on a host that may have no agent and no
configuration: records move from sm to sm.bak, the number in state is counted up durably, and then every client is called in parallel until
it answers. A record that is answered for is removed.",
        files: &[("/var/lib/nfs", "sm, sm.bak and state, unless --state-directory names another directory.")],
        see_also: &["heirlock(8)", "sm-notify(8)", "rpc.statd(8)"],
    },
    Words {
        verb: "demo",
        synopsis: None,
        description: "\
Shows a failover on this machine, without root and without a configuration: first the harm without heirlock, then two real agents with a
store in a temporary folder and simulated clients that speak the real protocols on loopback. The agent of the primary is killed; the
standby adopts, and tells every client.",
        files: &[],
        see_also: &["heirlock(8)"],
    },
    Words {
        verb: "completions",
        synopsis: None,
        description: "Prints what a shell reads to complete heirlock's command line. The packages bring it for all three shells.",
        files: &[
            ("/usr/share/bash-completion/completions/heirlock", "where bash looks for it"),
            ("/usr/share/zsh/vendor-completions/_heirlock", "where zsh looks for it on Debian"),
            ("/usr/share/fish/vendor_completions.d/heirlock.fish", "where fish looks for it"),
        ],
        see_also: &["heirlock(8)", "bash(1)"],
    },
    Words {
        verb: "sample-config",
        synopsis: None,
        description: "\
Prints a configuration with all keys and what each one means. What must be set in it is marked with SET.",
        files: &[("/etc/heirlock/heirlock.toml", "where the configuration belongs")],
        see_also: &["heirlock.toml(5)", "heirlock-check-config(8)", "heirlock(8)"],
    },
    Words {
        verb: "man",
        synopsis: None,
        description: "\
Prints one of heirlock's manual pages, as man(7) has it, or writes all of them below a folder: heirlock(8), one page for each verb, and
heirlock.toml(5). The packages bring them.

The date of the pages is today's, or that of SOURCE_DATE_EPOCH, for builds that must be repeatable.",
        files: &[],
        see_also: &["heirlock(8)", "man(1)"],
    },
];

/// All verbs that have words.
#[cfg(test)]
pub(super) fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|words| words.verb)
}
