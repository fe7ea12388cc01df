//! heirlock's Debian package on a server that systemd runs: what its scripts do to a running status monitor.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use heirlock_nsm::nlm::Nlm4Status;

use crate::capture::NSM_ALONE;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, SETUP};
use crate::crowd::{Answer, Crowd};
use crate::scenario::{EVERYWHERE, Scenario};
use crate::wire::Ending;

/// Installed, upgraded while clients come, kept where locks depend on it, removed.
pub const PACKAGE_UPGRADE: Scenario = Scenario {
    name: "package-upgrade",
    about: "the package is upgraded on a running server: no lock is granted without a record, and no client is refused",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: NSM_ALONE,
    run: upgrade,
};

/// The same upgrade by scripts that stop the units before it, and start them after it, as many packages have them.
pub const PACKAGE_UPGRADE_CONTROL: Scenario = Scenario {
    name: "package-upgrade-control",
    about: "control: an upgrade that stops heirlock's units meanwhile; a client is refused, or its lock has no record",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: NSM_ALONE,
    run: control,
};

/// The version that is installed, and the one that it is upgraded to.
const VERSIONS: [&str; 2] = ["0.0.1", "0.0.2"];

/// Where guests see the packages.
const PACKAGES: &str = "/srv/store/packages";

/// How long dpkg may take in a guest: it starts some hundred processes.
const DPKG_TIME_MAX: Duration = Duration::from_secs(240);

/// How long the lab waits for an answer that should have come long ago.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);

/// How many clients may come meanwhile.
const CLIENTS: usize = 200;

/// Without what is about other packages; its own log would be on the machine's disk.
const DPKG: &str = "dpkg --no-triggers --force-unsafe-io --log=/run/lab/dpkg.log";

/// The units of monitoring, which a person turns on.
const EXPORTER: &str = "heirlock-exporter.service";
const EXPORTER_LINK: &str = "/etc/systemd/system/multi-user.target.wants/heirlock-exporter.service";
const DRILLS: &str = "heirlock-drill.timer";

/// The exporter may ask the agent, and tells what it said. Not every guest has a program for HTTP.
const SCRAPED: &str = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/9842 && printf \"GET /metrics HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n\" >&3 && \
                       cat <&3' 2> /dev/null | grep -qx 'heirlock_up 1'";

/// What 'heirlock enable' changes on a host.
const HOST: &str = "find /etc/systemd /etc/nfs.conf.d /etc/tmpfiles.d /var/lib/heirlock -printf '%p %y %m %l\\n' -type f -exec md5sum {} ';' 2>/dev/null | sort
    for unit in heirlock.service heirlock.socket rpc-statd.service rpc-statd-notify.service; do systemctl is-active $unit; done; true";

fn upgrade(lab: &mut Cluster) -> Result<()> {
    let mut crowd = installed(lab)?;
    let exporter = watched(lab)?;
    let mut newcomers = 1..CLIENTS;
    let before = lab.agent_pid(NFS_A)?;
    lab.ok(
        NFS_A,
        &format!(
            "(setsid sh -c '{DPKG} -i {PACKAGES}/{}; echo $? > /run/lab/upgraded' > /run/lab/upgrade 2>&1 < /dev/null & true)",
            file(VERSIONS[1])
        ),
    )?;
    let mut slow = Slow::default();
    let mut answers = Vec::new();
    // It is asked before each client, so that one comes after the end as well.
    loop {
        let is_over = lab.run(NFS_A, "cat /run/lab/upgraded", ANSWER_TIME_MAX)?;
        let client = newcomers.next().context("no client is left, and the upgrade is not over")?;
        answers.push(slow.lock(lab, &mut crowd, client)?);
        if is_over.ending == Ending::Exit(0) {
            let said = lab.ok(NFS_A, "cat /run/lab/upgrade")?;
            ensure!(is_over.output.trim() == "0", "the upgrade failed: {said}");
            break;
        }
    }
    let slowest = answers.iter().map(|answer| answer.took).max().unwrap_or_default();
    lab.say(format!(
        "{} clients came during the upgrade; the slowest waited {slowest:.2?}; the store was slow for {}",
        answers.len(),
        slow.refused
    ));
    ensure!(lab.agent_pid(NFS_A)? != before, "the agent of the old program still runs");
    let program = lab.ok(NFS_A, &format!("readlink /proc/{}/exe", lab.agent_pid(NFS_A)?))?;
    ensure!(program.trim() == "/usr/bin/heirlock", "expected the new program, found {program}");
    lab.wait_for_agent(NFS_A)?;
    lab.wait_until(NFS_A, SCRAPED)?;
    ensure!(lab.main_process(NFS_A, EXPORTER)? != exporter, "the exporter of the old program still runs");
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    removed(lab)
}

/// The exporter and the weekly drill are turned on, as the guide has it. Gives the exporter's process.
fn watched(lab: &Cluster) -> Result<String> {
    lab.ok(NFS_A, "groupadd --system monitoring")?;
    lab.ok(NFS_A, "printf '[control]\nread-group = \"monitoring\"\n' >> /etc/heirlock/heirlock.toml")?;
    lab.ok(NFS_A, "systemctl restart heirlock.service")?;
    lab.wait_for_agent(NFS_A)?;
    lab.ok(NFS_A, &format!("systemctl enable --now {EXPORTER} {DRILLS}"))?;
    lab.wait_until(NFS_A, SCRAPED)?;
    let exporter = lab.main_process(NFS_A, EXPORTER)?;
    lab.ok(NFS_A, &format!("[ \"$(stat -c %u /proc/{exporter})\" != 0 ]")).context("it must not be root")?;
    lab.say("the exporter tells metrics, as a user of its own");
    Ok(exporter)
}

fn control(lab: &mut Cluster) -> Result<()> {
    let mut crowd = installed(lab)?;
    lab.ok(NFS_A, "systemctl stop heirlock.service heirlock.socket")?;
    crowd.begin(1)?;
    // As long as unpacking takes on a slow disk. How the client fares is not decided by the time, but by what is gone.
    lab.ok_within(NFS_A, &format!("{DPKG} --unpack {PACKAGES}/{}", file(VERSIONS[1])), DPKG_TIME_MAX)?;
    let harmed = match crowd.answer(1, ANSWER_TIME_MAX) {
        Ok(Answer { status: Nlm4Status::Granted, .. }) => !is_recorded(lab, &crowd, 1)?,
        Ok(_) => true,
        Err(error) => {
            lab.say(format!("the client waits still: {error:#}"));
            true
        }
    };
    ensure!(harmed, "a client was served as if the status monitor were there: the scenario shows nothing");
    lab.say("with the units stopped, a client was not served");
    lab.ok_within(NFS_A, &format!("{DPKG} --configure heirlock"), DPKG_TIME_MAX)?;
    lab.ok(NFS_A, "systemctl start heirlock.socket heirlock.service")?;
    lab.wait_for_agent(NFS_A)
}

/// A server that has the package and is under guard, with a client that holds a lock, and a crowd that may come.
fn installed(lab: &mut Cluster) -> Result<Crowd> {
    make_packages(lab)?;
    lab.with_writable_programs();
    lab.under_systemd(NFS_A);
    lab.switch_on(&[NFS_A, CLIENT1, CLIENT2])?;
    // What the lab has put before the packages' program, and what keeps packages from starting anything.
    lab.ok(NFS_A, "rm -f /usr/local/bin/heirlock /usr/local/bin/heirlock-callout /usr/sbin/policy-rc.d")?;
    let before = lab.ok(NFS_A, HOST)?;
    lab.ok_within(NFS_A, &format!("{DPKG} -i {PACKAGES}/{}", file(VERSIONS[0])), DPKG_TIME_MAX)?;
    let after = lab.ok(NFS_A, HOST)?;
    ensure!(after == before, "installing must change nothing, found\n{before}\nand then\n{after}");

    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    lab.protect(NFS_A, &SETUP)?;
    lab.ok(NFS_A, "[ ! -e /etc/systemd/system/heirlock.service ]")
        .context("the package's unit must serve")?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    let mut crowd = Crowd::gather(CLIENTS, HOMES.address, "/srv/homes", "g")?;
    Slow::default().lock(lab, &mut crowd, 0)?;
    lab.say("the package is installed, and heirlock is the status monitor");
    Ok(crowd)
}

/// Not while clients' locks depend on it; and it gives the host back where they don't.
fn removed(lab: &Cluster) -> Result<()> {
    let refused = lab.run(NFS_A, &format!("{DPKG} -r heirlock 2>&1"), DPKG_TIME_MAX)?;
    ensure!(refused.ending != Ending::Exit(0), "expected the package to stay, found {refused:?}");
    for part in ["homes is this server's", "heirlock release homes", "the package stays installed"] {
        ensure!(refused.output.contains(part), "{part:?} is not in {}", refused.output);
    }
    lab.ok(NFS_A, "systemctl is-active heirlock.service && systemctl is-active heirlock.socket")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.say("the package stays as long as clients depend on it");

    lab.ok(NFS_A, &format!("systemctl is-active {DRILLS}"))?;
    lab.heirlock_ok(NFS_A, "disable")?;
    lab.ok(NFS_A, &format!("! systemctl is-active {DRILLS} && ! systemctl is-enabled {DRILLS}"))
        .context("the drill's timer must be off")?;
    lab.ok_within(NFS_A, &format!("{DPKG} -P heirlock"), DPKG_TIME_MAX)?;
    lab.ok(NFS_A, &format!("! systemctl is-active {EXPORTER} && [ ! -e {EXPORTER_LINK} ]"))
        .context("the exporter must be gone")?;
    lab.ok(NFS_A, "systemctl is-active rpc-statd.service && [ ! -e /usr/bin/heirlock ]")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.say("the package is gone, rpc.statd is back, and the lock is held");
    Ok(())
}

/// On a machine that does much else a commit may take longer than `mon-timeout`, and its client is refused, upgrade or not. The
/// agent counts such refusals; the client asks again.
#[derive(Default)]
struct Slow {
    /// The agent that was asked last, and how many it had refused for that reason.
    known: (String, u64),
    /// All of them.
    refused: u64,
}

impl Slow {
    /// A client gets its first lock, and the store has its record. A refusal that was not the store's slowness is the upgrade's.
    fn lock(&mut self, lab: &Cluster, crowd: &mut Crowd, client: usize) -> Result<Answer> {
        loop {
            let answer = crowd.lock(client, ANSWER_TIME_MAX)?;
            if answer.status == Nlm4Status::Granted {
                ensure!(is_recorded(lab, crowd, client)?, "a lock was granted without a record: {answer:?}");
                return Ok(answer);
            }
            let agent = lab.agent_pid(NFS_A)?;
            let observed = lab.status(NFS_A)?.observed.context("expected the counts of the agent")?;
            let counted = observed.monitor.refused_late_total + observed.monitor.refused_store_fails_total;
            let before = if self.known.0 == agent { self.known.1 } else { 0 };
            ensure!(counted > before, "a client was refused, and not for a slow store: {answer:?}");
            self.known = (agent, counted);
            self.refused += 1;
        }
    }
}

fn is_recorded(lab: &Cluster, crowd: &Crowd, client: usize) -> Result<bool> {
    Ok(lab.stored(&HOMES)?.contains_key(&crowd.address(client)))
}

/// Makes both packages of the program under test, for guests to see.
fn make_packages(lab: &Cluster) -> Result<()> {
    let folder = lab.store().join("packages");
    let programs = lab.programs();
    for version in VERSIONS {
        let made = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/package"))
            .args(["deb", "--fast", "--version", version])
            .arg("--programs")
            .arg(&programs)
            .arg("--output")
            .arg(&folder)
            .output()
            .context("can't run dist/package")?;
        ensure!(made.status.success(), "dist/package: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}

/// The file's name; the lab's machine and its guests are of one architecture.
fn file(version: &str) -> String {
    format!("heirlock_{version}_*.deb")
}
