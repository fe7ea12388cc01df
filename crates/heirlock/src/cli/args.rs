//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use heirlock_core::store_identity::Word;
use heirlock_core::{ServerName, ServiceName};

use super::exporter::Exporter;
use super::notify::Notify;
use super::{exit, help};
use crate::config::CONFIGURATION;
use crate::control::{AnswerWhen, Fenced};
use crate::ocf;

/// Makes NFS file locks survive the server they were taken on.
#[derive(Debug, Parser)]
#[command(name = "heirlock", version, after_help = exit::HELP, after_long_help = exit::HELP, max_term_width = 100)]
#[command(arg_required_else_help = true, infer_long_args = false)]
pub(crate) struct Cli {
    /// The configuration
    #[arg(long, value_name = "FILE", global = true, env = "HEIRLOCK_CONFIG")]
    #[arg(default_value = CONFIGURATION)]
    pub(super) config: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the agent of this server
    #[command(after_help = help::AGENT)]
    Agent {
        /// Log level: error, warn, info, debug, trace, or a filter such as info,heirlock::store=debug
        #[arg(long, value_name = "LEVEL", env = "HEIRLOCK_LOG", default_value = "info")]
        log: String,
        /// The parent process with which this agent ends; for the demo
        #[arg(long, value_name = "PID", hide = true)]
        ends_with: Option<i32>,
    },
    /// Hold the status monitor's sockets and keep an agent running, where no systemd does
    #[command(after_help = help::SUPERVISE)]
    Supervise {
        /// Log level, as with 'agent'
        #[arg(long, value_name = "LEVEL", env = "HEIRLOCK_LOG", default_value = "info")]
        log: String,
    },
    /// Run by rpc.statd for each client (statd -H); see capture.mode "callout"
    // Carried out before the command line is read (main.rs); it is here to be listed.
    #[command(disable_help_flag = true, after_help = help::CALLOUT)]
    Callout {
        /// The event, as rpc.statd says it
        #[arg(value_name = "EVENT", trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Run by Pacemaker's resource agents ocf:heirlock:service and ocf:heirlock:notify
    #[command(after_help = help::OCF)]
    Ocf {
        /// Which of the two
        #[arg(value_enum)]
        agent: OcfAgent,
        /// The action: start, stop, monitor, meta-data or validate-all
        action: String,
    },
    /// Take a service over, with the locks of its clients
    #[command(after_help = help::ADOPT, mut_arg("given", moves))]
    Adopt(Adopt),
    /// Give a service away in order
    #[command(after_help = help::RELEASE, mut_arg("given", moves))]
    Release {
        #[command(flatten)]
        service: ServiceArgument,
    },
    /// Bring a service home to this server
    #[command(after_help = help::FAILBACK, mut_arg("given", moves))]
    Failback {
        #[command(flatten)]
        service: ServiceArgument,
        #[command(flatten)]
        wait: Wait,
    },
    /// Move a service to another server that lives, in order; on any server
    // An argument that is changed comes last, unless it says its place.
    #[command(after_help = help::MOVE, mut_arg("given", |given| moves(given).index(1)))]
    Move {
        #[command(flatten)]
        service: ServiceArgument,
        /// The server that is to have it, by its name in the store
        #[arg(value_name = "SERVER", index = 2)]
        to: ServerName,
        #[command(flatten)]
        wait: Wait,
    },
    /// Find out what would come of an adoption by this server, without one: nothing is changed
    #[command(after_help = help::DRILL)]
    Drill(Drill),
    /// Say that this server's silence is no reason to adopt its services, or is one again
    #[command(after_help = help::MAINTENANCE)]
    Maintenance {
        /// Whether it is being maintained
        #[arg(value_enum)]
        switch: Switch,
    },
    /// Show how the agent, its store and its services are
    #[command(after_help = format!("{}\n{}", help::STATUS, help::CHECK))]
    Status(Status),
    /// Show the past of a service, or of all: its owners, when and why, and how long clients were without it
    #[command(after_help = help::HISTORY)]
    History {
        /// The service; without it all that the store holds
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Show what became of an adoption of a service, the last one or a generation's
    #[command(after_help = help::REPORT)]
    Report(Report),
    /// Look at monitor records, bring them in and out
    #[command(subcommand, after_help = help::RECORDS)]
    Records(Records),
    /// Move the store to another place
    #[command(subcommand, after_help = help::STORE)]
    Store(Store),
    /// Check what the configuration says
    #[command(after_help = help::CHECK_CONFIG)]
    CheckConfig,
    /// Check whether an adoption would work on this host
    #[command(after_help = help::DOCTOR)]
    Doctor,
    /// Put this host under guard: heirlock alone notifies its clients
    #[command(after_help = help::ENABLE, after_long_help = format!("{}\n\n{}", Enable::HELP, help::ENABLE))]
    Enable(Enable),
    /// Give this host back as it was before 'enable'
    #[command(after_help = help::DISABLE)]
    Disable(Disable),
    /// Tell the clients of a status monitor's directory of a restart, as sm-notify does
    #[command(after_help = help::NOTIFY)]
    Notify(Notify),
    /// Serve a status page and metrics for Prometheus, or write metrics into a file for node_exporter
    #[command(after_help = help::EXPORTER)]
    Exporter(Exporter),
    /// Show a failover with simulated clients; needs no root and no configuration
    #[command(after_help = help::DEMO)]
    Demo(Demo),
    /// Print what a shell reads to complete this command line
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: CompletionShell,
    },
    /// Print a sample of the configuration, with all keys
    #[command(after_help = help::SAMPLE_CONFIG)]
    SampleConfig,
    /// Print a manual page, or write all of them below a folder
    #[command(after_help = help::MAN)]
    Man(Man),
}

#[derive(Debug, Args)]
pub(super) struct Enable {
    /// Only say what would be done
    #[arg(long)]
    pub(super) plan: bool,
    /// Use the store that the configuration names, whichever it is and whatever it lacks, or make a new one there
    #[arg(long, conflicts_with = "without_store")]
    new_store: bool,
    /// Put the host under guard although its store is not here now: its volume comes with an adoption
    #[arg(long)]
    without_store: bool,
}

impl Enable {
    /// The choice of the store, and when one is made.
    const HELP: &str = "\
The store:
  A store has an identity, made with it, and each server remembers the
  identity of its store. A server that never had a store uses the one that
  lies in store.path (in etcd, below store.prefix), or makes one there and
  says so. After that another store, a new one or an older copy in its place
  is refused, by 'enable' and by every other verb: most often its volume is
  not mounted. Where /etc/fstab or a mount unit names a volume for store.path
  and it is not mounted, no store is made either. --new-store says that what
  lies there is the store from now on, and makes one where none lies; numbers
  of generations and state numbers go on above all that this server remembers.";

    /// The operator's word on the store.
    pub(super) fn word(&self) -> Word {
        match (self.new_store, self.without_store) {
            (true, _) => Word::NewStore,
            (false, true) => Word::WithoutStore,
            (false, false) => Word::None,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Show one service alone
    #[arg(value_name = "SERVICE", conflicts_with = "check")]
    pub(super) service: Option<String>,
    /// Say in one line whether all is well, as monitoring systems expect it; their exit codes are 0, 1, 2 and 3
    #[arg(long)]
    pub(super) check: bool,
    /// Show it anew every 2 seconds, until Ctrl-C; on a terminal
    #[arg(long, conflicts_with_all = ["check", "json"])]
    pub(super) watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct Drill {
    /// The service
    #[arg(value_name = "SERVICE", required_unless_present = "all", conflicts_with = "all")]
    pub(super) service: Option<String>,
    /// Drill each service of the configuration that this server does not hold
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Report {
    #[command(flatten)]
    pub(super) service: ServiceArgument,
    /// Which generation's; 'heirlock history SERVICE' lists them
    #[arg(long, value_name = "N")]
    pub(super) generation: Option<u64>,
    /// Name each client and what became of it
    #[arg(long)]
    pub(super) clients: bool,
}

#[derive(Debug, Args)]
pub(super) struct Disable {
    /// Only say what would be done
    #[arg(long)]
    pub(super) plan: bool,
    /// Refuse while a service that has clients is this server's, or while clients are being told
    #[arg(long)]
    pub(super) if_idle: bool,
}

/// The word after the option is always the server's name, so a service stands before it.
const OWNER_FENCED: &str = "The owner is known to be off: its claim doesn't count any more. With a name, as the store \
    spells it, nothing is taken from any other server. Say the service before this option";

#[derive(Debug, Args)]
pub(super) struct Adopt {
    #[command(flatten)]
    pub(super) service: ServiceArgument,
    /// Stop when the grace period is proved to be open; bring the address up, then say --finish
    #[arg(long, conflicts_with = "finish")]
    pub(super) prepare: bool,
    /// Go on where --prepare stopped: tell the clients
    #[arg(long)]
    pub(super) finish: bool,
    #[arg(long, value_name = "SERVER", num_args = 0..=1, default_missing_value = Fenced::OWNER, help = OWNER_FENCED)]
    pub(super) owner_fenced: Option<Fenced>,
    /// Adopt in spite of what speaks against it; locks may be lost, or granted twice
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) wait: Wait,
}

/// How long a verb that has clients told waits. The adoption that it began goes on in any case.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// When to return: when every client has answered or was called at least 3 times (notified: some seconds), or when it
    /// is known what became of each of them, after the grace period at the latest (settled)
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = WaitUntil::Settled)]
    until: WaitUntil,
    /// Return as soon as nothing can refuse it any more; 'heirlock report SERVICE' says how it goes on
    #[arg(long, conflicts_with = "until")]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WaitUntil {
    Notified,
    Settled,
}

impl Wait {
    /// As the agent is told.
    pub(super) fn answer_when(&self) -> AnswerWhen {
        match self.until {
            _ if self.no_wait => AnswerWhen::Accepted,
            WaitUntil::Notified => AnswerWhen::Notified,
            WaitUntil::Settled => AnswerWhen::Settled,
        }
    }
}

/// The implicit service of a server does not move.
fn moves(argument: clap::Arg) -> clap::Arg {
    argument.help("The service")
}

#[derive(Debug, Args)]
pub(super) struct ServiceArgument {
    /// The service; 'host' is what this server serves under its own name
    #[arg(value_name = "SERVICE")]
    given: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum Records {
    /// List services and how many records each has, or one service's records
    #[command(after_help = help::RECORDS_LIST)]
    List {
        /// The service whose records are listed
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Show the record of a client
    #[command(after_help = help::RECORDS_SHOW)]
    Show {
        #[command(flatten)]
        service: ServiceArgument,
        /// Its address, or a name that it registered under
        client: String,
    },
    /// Write a service's records into an NSM state directory, as 'sm-notify -P DIRECTORY' takes it
    #[command(after_help = help::RECORDS_EXPORT)]
    Export {
        #[command(flatten)]
        service: ServiceArgument,
        /// An empty directory, or one that doesn't exist yet
        directory: PathBuf,
    },
    /// Forget a client: it will not be told of an adoption
    #[command(after_help = help::RECORDS_FORGET)]
    Forget {
        #[command(flatten)]
        service: ServiceArgument,
        /// Its address, or a name that it registered under
        client: String,
    },
    /// Bring the records of a status monitor's directory into the store, for 'adopt' to take over
    #[command(after_help = help::RECORDS_IMPORT)]
    Import {
        #[command(flatten)]
        service: ServiceArgument,
        /// A directory with sm, sm.bak and state, such as /var/lib/nfs
        directory: PathBuf,
        #[arg(long, value_name = "SERVER", num_args = 0..=1, default_missing_value = Fenced::OWNER, help = OWNER_FENCED)]
        owner_fenced: Option<Fenced>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// Copy the store to another place while agents run, and make that the place that counts
    #[command(after_help = help::STORE_COPY)]
    Copy {
        /// The configuration of this server, with the store as it is now
        from: PathBuf,
        /// The same configuration with another [store], where nothing lies yet
        to: PathBuf,
        /// Take a copy back that has not ended: the store of FROM counts again
        #[arg(long)]
        give_up: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// The resource agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OcfAgent {
    Service,
    Notify,
}

impl From<OcfAgent> for ocf::Agent {
    fn from(agent: OcfAgent) -> Self {
        match agent {
            OcfAgent::Service => Self::Service,
            OcfAgent::Notify => Self::Notify,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// How many clients are simulated
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(super) clients: usize,
    /// How many of them are dead
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) unreachable: usize,
    /// Keep the folder with the store and the logs
    #[arg(long)]
    pub(super) keep: bool,
    /// Serve the status page of each server meanwhile, and afterwards until the demo is interrupted
    #[arg(long)]
    pub(super) page: bool,
    /// Where the agents keep their records: in a folder, or in an etcd of the demo's own
    #[arg(long, value_enum, default_value_t = crate::demo::StoreKind::Dir)]
    pub(super) store: crate::demo::StoreKind,
    /// The process that a demo starts beside itself: becomes the member of etcd with this folder and these addresses
    #[arg(long, value_names = ["FOLDER", "URL", "URL"], num_args = 3, hide = true)]
    pub(super) etcd: Option<Vec<PathBuf>>,
    /// The same: ends with this process
    #[arg(long, value_name = "PID", hide = true)]
    pub(super) ends_with: Option<i32>,
    /// The process that a demo starts beside itself: removes its folder when the demo is gone
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub(super) sweep: Option<PathBuf>,
}

impl ServiceArgument {
    /// The service that is meant; `host` is the one of `server`.
    pub(super) fn name(&self, server: &ServerName) -> Result<ServiceName, exit::Failed> {
        service_name(&self.given, server)
    }
}

/// The shells whose completions are tried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The page: a verb, heirlock or heirlock.toml; without it heirlock's
    #[arg(value_name = "PAGE", num_args = 0..=2, conflicts_with = "all")]
    pub(super) page: Vec<String>,
    /// Write every page below this folder, where man looks for it: man5, man7 and man8. They are made where they are not there
    #[arg(long, value_name = "FOLDER")]
    pub(super) all: Option<PathBuf>,
}

/// See [`ServiceArgument::name`].
pub(super) fn service_name(given: &str, server: &ServerName) -> Result<ServiceName, exit::Failed> {
    if given == "host" {
        return Ok(ServiceName::host(server));
    }
    // Other servers' implicit services can be looked at as well.
    ServiceName::try_from(given.to_owned()).map_err(|error| exit::Failed::new(exit::Exit::Usage, error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// All verbs, those of `records` as well.
    fn verbs(command: &clap::Command) -> Vec<(String, clap::Command)> {
        let mut all = Vec::new();
        for verb in command.get_subcommands() {
            all.push((verb.get_name().to_owned(), verb.clone()));
            all.extend(
                verbs(verb).into_iter().map(|(name, inner)| (format!("{} {name}", verb.get_name()), inner)),
            );
        }
        all
    }

    #[test]
    fn every_verbs_help_has_an_example_and_its_exit_codes() {
        let all = verbs(&Cli::command());
        assert!(all.len() > 20, "{all:?}");
        for (name, verb) in all {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.split("Exit codes:").next().unwrap_or_default();
            assert!(
                example.contains("Example") && example.contains(&format!("heirlock {name}"))
                    || name == "callout" && example.contains("heirlock-callout"),
                "{name}: {help}"
            );
            assert!(help.contains("Exit codes:") && help.contains("\n  0  "), "{name}: {help}");
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{name}: {help}");
        }
    }

    /// The examples can be typed.
    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for (name, verb) in verbs(&Cli::command()) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  heirlock ")) {
                // What comes after is the shell's.
                let words = line.split(['#', '>', '|']).next().unwrap_or_default().split_whitespace();
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn host_is_this_servers_own_service_and_a_path_is_none() {
        let server = ServerName::parse("nfs-a").unwrap();
        assert_eq!(service_name("host", &server).unwrap().as_str(), "host.nfs-a");
        assert_eq!(service_name("host.nfs-b", &server).unwrap().as_str(), "host.nfs-b");
        let refused = service_name("../nfs", &server).unwrap_err();
        assert_eq!(refused.exit, exit::Exit::Usage);
    }

    #[test]
    fn an_adoption_is_prepared_or_finished_but_not_both() {
        assert!(Cli::try_parse_from(["heirlock", "adopt", "nfs", "--prepare", "--finish"]).is_err());
        assert!(Cli::try_parse_from(["heirlock", "adopt", "nfs", "--finish", "--json"]).unwrap().json);
    }
}
