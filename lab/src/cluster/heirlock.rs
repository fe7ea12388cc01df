//! heirlock as its users have it: installed, configured by a file, run as an agent, spoken to by its command line.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

use super::configuration::{FENCED, START_STATUS_MONITOR, START_WITH_CALLOUT, STOP_STATUS_MONITOR, STORE};
use super::report::{AdoptionReport, DrillReport, Failure, HistoryReport, ServiceStatus, StatusReport};
use super::{Cluster, HOMES, Name, Service, configuration, etcd, quoted};
use crate::capture::Capture;
use crate::limits::{ADOPTION_TIME_MAX, COMMAND_TIME_MAX, SILENCE_TIME_MAX};
use crate::wire::Ending;

/// The exit code of heirlock that means: refused, and nothing was changed.
pub const REFUSED: i32 = 3;

/// The exit code of heirlock that means: it failed.
pub const FAILED: i32 = 1;

/// The exit code of heirlock that means: done, but some clients were not told.
pub const UNTOLD: i32 = 6;

/// How heirlock is configured on all servers of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The services that move.
    pub services: &'static [Service],
    /// Where they are at home; nowhere where a cluster manager places them.
    pub home: Option<Name>,
    /// Services that are at home elsewhere: their names and their homes.
    pub elsewhere: &'static [(&'static str, Name)],
    /// `lock-manager.strategy`.
    pub strategy: &'static str,
    /// `lock-manager.convey`.
    pub convey: &'static str,
    /// Whether heirlock has hooks that move volumes and addresses, or the scenario is the cluster manager.
    pub hooks: bool,
    /// Whether it has a hook that asks for the owner's power, or a cluster manager fences.
    pub fence: bool,
    /// Whether services move by themselves; this needs hooks.
    pub automatic: bool,
    /// `candidates` of each service; none: whichever server claims first.
    pub candidates: &'static [Name],
    /// `heartbeat.interval` and `heartbeat.dead-after`.
    pub heartbeat: [&'static str; 2],
    /// `capture.when-unprotected`.
    pub when_unprotected: &'static str,
    /// `capture.tombstone-delay`.
    pub tombstone_delay: &'static str,
}

/// The setup of most scenarios: all by the operator's word.
pub const SETUP: Setup = Setup {
    services: &[HOMES],
    home: Some(super::NFS_A),
    elsewhere: &[],
    strategy: "restart-nfs",
    convey: "generate",
    hooks: false,
    fence: true,
    automatic: false,
    candidates: &[],
    heartbeat: ["500ms", "3s"],
    when_unprotected: "refuse",
    tombstone_delay: "120s",
};

/// How a call of the command line ended.
#[derive(Clone, Debug)]
pub struct Called {
    /// How it ended.
    pub ending: Ending,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}

impl Called {
    /// The document that it printed (`--json`).
    ///
    /// # Errors
    /// When it printed none, or another one.
    pub fn parsed<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.output).with_context(|| format!("expected a report, found {self:?}"))
    }
}

impl Cluster {
    /// Configures heirlock on a server, puts it under guard and starts its agent; waits until that is ready.
    ///
    /// # Errors
    /// When a step fails.
    pub fn protect(&self, server: Name, setup: &Setup) -> Result<()> {
        self.configure(server, setup)?;
        if !self.is_run_by_systemd(server) {
            self.make_room(server)?;
        }
        let enabled = self.heirlock(server, "enable")?;
        ensure!(enabled.ending == Ending::Exit(0), "heirlock enable on {server}: {enabled:?}");
        // Where systemd runs, it has started the agent, and made room for it.
        if self.is_run_by_systemd(server) { self.wait_for_agent(server) } else { self.start_agent(server) }
    }

    /// Writes heirlock's configuration and the scripts that it names.
    ///
    /// # Errors
    /// When a step fails.
    pub fn configure(&self, server: Name, setup: &Setup) -> Result<()> {
        let address = self.address(server)?;
        let store = match &self.etcd {
            Some(_) => etcd::settings(),
            None => configuration::in_folder(),
        };
        self.write_file(
            server,
            "/etc/heirlock/heirlock.toml",
            &configuration::of_server(
                server,
                &address,
                setup,
                self.capture,
                self.is_run_by_systemd(server),
                &store,
            ),
        )?;
        for (name, script) in configuration::scripts(self.capture, self.switch.is_some()) {
            let path = format!("/etc/heirlock/{name}");
            self.write_file(server, &path, &script)?;
            self.ok(server, &format!("chmod 755 {path}"))?;
        }
        Ok(())
    }

    /// rpc.statd ends, as an administrator ends it to make heirlock the status monitor, or begins anew with heirlock's
    /// callout.
    fn make_room(&self, server: Name) -> Result<()> {
        let stop = match self.capture {
            Capture::Watch => return Ok(()),
            Capture::Nsm => STOP_STATUS_MONITOR.to_owned(),
            Capture::Callout => format!("{STOP_STATUS_MONITOR}; {START_WITH_CALLOUT}"),
        };
        self.ok(server, &stop).map(drop)
    }

    /// Starts the agent and waits until it serves its store.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_agent(&self, server: Name) -> Result<()> {
        self.begin_agent(server)?;
        self.wait_for_agent(server)
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// When a step fails.
    pub fn begin_agent(&self, server: Name) -> Result<()> {
        let verb = if self.capture == Capture::Nsm { "supervise" } else { "agent" };
        self.ok(
            server,
            &format!(
                "(setsid heirlock {verb} >> /run/heirlock.log 2>&1 < /dev/null & echo $! > /run/lab/agent.pid)"
            ),
        )
        .map(drop)
    }

    /// Waits until the agent serves its store.
    ///
    /// # Errors
    /// When it does not, or when one that the lab has started ends.
    pub fn wait_for_agent(&self, server: Name) -> Result<()> {
        let alive = match self.is_run_by_systemd(server) {
            true => "true", // systemd starts another
            false => "kill -0 \"$(cat /run/lab/agent.pid)\" || { tail -n 5 /run/heirlock.log; false; }",
        };
        self.wait_for("an agent that is ready", COMMAND_TIME_MAX, || {
            self.ok(server, alive)?;
            let called = self.heirlock(server, "status --json")?;
            let ready = called.parsed::<StatusReport>().is_ok_and(|status| {
                status.store.well && status.services.iter().any(|s| s.held && s.service.starts_with("host."))
            });
            Ok(ready.then_some(()))
        })?;
        self.say(format!("{server} runs heirlock's agent"));
        Ok(())
    }

    /// The agent gets a signal and ends by it. Its supervisor, where it has one, is killed before: it would start
    /// another.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end_agent(&self, server: Name, signal: &str) -> Result<()> {
        let agent = self.agent_pid(server)?;
        let supervisor = self.ok(server, "cat /run/lab/agent.pid")?.trim().to_owned();
        if supervisor != agent {
            self.ok(server, &format!("kill -KILL {supervisor}"))?;
        }
        self.ok(server, &format!("kill -{signal} {agent}"))?;
        self.wait_until(server, &format!("! kill -0 {agent} 2>/dev/null"))?;
        self.say(format!("{server}'s agent ended by SIG{signal}"));
        Ok(())
    }

    /// Heirlock is stopped for good: where it was the status monitor, rpc.statd takes its place, as an administrator who
    /// goes on without heirlock starts it.
    ///
    /// # Errors
    /// When a step fails.
    pub fn go_on_without_heirlock(&self, server: Name) -> Result<()> {
        self.end_agent(server, "TERM")?;
        if self.capture == Capture::Nsm {
            self.ok(server, START_STATUS_MONITOR)?;
        }
        Ok(())
    }

    /// The agent's process, whether a supervisor started it or the lab.
    ///
    /// # Errors
    /// When none runs.
    pub fn agent_pid(&self, server: Name) -> Result<String> {
        if self.is_run_by_systemd(server) {
            return self.main_process(server, "heirlock.service");
        }
        // Of a process, the line has its number first and its parent's fourth; no process of ours has a blank in
        // its name.
        const CHILD: &str = "started=$(cat /run/lab/agent.pid); kill -0 $started || exit 1
            [ \"$(tr '\\0' ' ' < /proc/$started/cmdline | cut -d' ' -f2)\" = supervise ] || { echo $started; exit; }
            grep -hs '(heirlock)' /proc/[0-9]*/stat | while read -r pid name state parent rest; do
                [ $parent != $started ] || echo $pid
            done";
        let found = self.ok(server, CHILD)?;
        let pid = found.split_whitespace().next().context("no agent runs")?;
        Ok(pid.to_owned())
    }

    /// Calls heirlock's command line.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn heirlock(&self, server: Name, arguments: &str) -> Result<Called> {
        const MARK: &str = "\n=== standard error\n";
        let command = format!(
            "errors=$(mktemp /run/lab/errors.XXXXXX); heirlock {arguments} 2> $errors; code=$?
             printf %s {}; cat $errors; exit $code",
            quoted(MARK)
        );
        let ran = self.run(server, &command, ADOPTION_TIME_MAX)?;
        let (output, errors) = ran.output.split_once(MARK).unwrap_or((&ran.output, ""));
        Ok(Called { ending: ran.ending, output: output.to_owned(), errors: errors.to_owned() })
    }

    /// `heirlock adopt`, which must succeed.
    ///
    /// # Errors
    /// When it does not, or its report can't be read.
    pub fn adopt(&self, server: Name, service: &Service, options: &str) -> Result<AdoptionReport> {
        let (report, ending) = self.adopt_anyhow(server, service, options)?;
        ensure!(ending == Ending::Exit(0), "expected exit code 0 of adopt, found {ending}: {report:?}");
        Ok(report)
    }

    /// `heirlock adopt`, however it ends, as long as it reports.
    ///
    /// # Errors
    /// When there is no report.
    pub fn adopt_anyhow(
        &self,
        server: Name,
        service: &Service,
        options: &str,
    ) -> Result<(AdoptionReport, Ending)> {
        self.say(format!("{server}: heirlock adopt {} {options}", service.name));
        let called = self.heirlock(server, &format!("adopt {} {options} --json", service.name))?;
        let report = if matches!(called.ending, Ending::Exit(0 | UNTOLD)) {
            called.parsed::<AdoptionReport>()?
        } else {
            called
                .parsed::<Failure>()?
                .report
                .with_context(|| format!("expected a report, found {called:?}"))?
        };
        self.say(format!("{server}: {}", report.in_words()));
        Ok((report, called.ending))
    }

    /// `heirlock adopt` for several services at the same moment, each of which must succeed.
    ///
    /// # Errors
    /// When one does not, or its report can't be read.
    pub fn adopt_at_once(
        &self,
        server: Name,
        services: &[&Service],
        options: &str,
    ) -> Result<Vec<AdoptionReport>> {
        let names: Vec<&str> = services.iter().map(|service| service.name).collect();
        let names = names.join(" ");
        self.say(format!("{server}: heirlock adopt {options}, at once for {names}"));
        let command = format!(
            "cd /run/lab; for name in {names}; do
                 (heirlock adopt $name {options} --json > $name.report 2> $name.errors; echo $? > $name.code) &
             done; wait; for name in {names}; do cat $name.errors; done"
        );
        let errors = self.ok_within(server, &command, ADOPTION_TIME_MAX)?;
        let report = |service: &&Service| {
            let name = service.name;
            let code = self.ok(server, &format!("cat /run/lab/{name}.code"))?;
            let output = self.ok(server, &format!("cat /run/lab/{name}.report"))?;
            ensure!(code.trim() == "0", "expected exit code 0 for {name}, found {code}: {output}{errors}");
            let report: AdoptionReport = serde_json::from_str(&output)
                .with_context(|| format!("expected a report, found {output}"))?;
            self.say(format!("{server}: {}", report.in_words()));
            Ok(report)
        };
        services.iter().map(report).collect()
    }

    /// `heirlock drill`, which must report.
    ///
    /// # Errors
    /// When there is no report.
    pub fn drill(&self, server: Name, service: &Service) -> Result<(DrillReport, Ending)> {
        self.say(format!("{server}: heirlock drill {}", service.name));
        let called = self.heirlock(server, &format!("drill {} --json", service.name))?;
        let report: DrillReport = called.parsed()?;
        let DrillReport { verdict, clients, answered, .. } = &report;
        self.say(format!("{server}: {verdict}, {answered} of {clients} clients answered"));
        Ok((report, called.ending))
    }

    /// `heirlock report`: the report of the last adoption of a service.
    ///
    /// # Errors
    /// When none is known.
    pub fn report(&self, server: Name, service: &str) -> Result<AdoptionReport> {
        let called = self.heirlock(server, &format!("report {service} --json"))?;
        let report: AdoptionReport = called.parsed()?;
        self.say(format!("{server}: {}", report.in_words()));
        Ok(report)
    }

    /// `heirlock adopt`, which must be refused with nothing changed; gives what it said.
    ///
    /// # Errors
    /// When it is not.
    pub fn adopt_refused(&self, server: Name, service: &Service, options: &str) -> Result<String> {
        let owner = |lab: &Self| Ok::<_, anyhow::Error>(lab.status(server)?.of(service)?.claim());
        let before = owner(self)?;
        let called = self.heirlock(server, &format!("adopt {} {options}", service.name))?;
        let said = format!("{}{}", called.output, called.errors);
        ensure!(
            called.ending == Ending::Exit(REFUSED),
            "expected a refusal, exit code {REFUSED}, found {}: {said}",
            called.ending
        );
        let after = owner(self)?;
        ensure!(
            before == after,
            "a refused adoption must claim nothing, found {before:?} and then {after:?}"
        );
        self.say(format!("{server} refuses: {}", said.trim()));
        Ok(said)
    }

    /// `heirlock move`, said on any server, which must succeed.
    ///
    /// # Errors
    /// When it does not, or its report can't be read.
    pub fn move_to(&self, said_on: Name, service: &Service, to: Name) -> Result<AdoptionReport> {
        self.say(format!("{said_on}: heirlock move {} {to}", service.name));
        let called = self.heirlock(said_on, &format!("move {} {to} --json", service.name))?;
        ensure!(called.ending == Ending::Exit(0), "expected exit code 0 of move, found {called:?}");
        let report: AdoptionReport = called.parsed()?;
        self.say(format!("{to}: {}", report.in_words()));
        Ok(report)
    }

    /// `heirlock history`: the past of a service, by any server that shares the store.
    ///
    /// # Errors
    /// When it can't be told.
    pub fn history(&self, server: Name, service: &Service) -> Result<HistoryReport> {
        let called = self.heirlock(server, &format!("history {} --json", service.name))?;
        let mut histories: Vec<HistoryReport> = called.parsed()?;
        let history = histories.pop().context("no history was told")?;
        ensure!(histories.is_empty() && history.service == service.name, "expected one history: {called:?}");
        Ok(history)
    }

    /// Starts a call in the background, for scenarios that do something meanwhile.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn heirlock_in_background(&self, server: Name, arguments: &str) -> Result<()> {
        self.say(format!("{server}: heirlock {arguments} &"));
        let command = format!("(setsid heirlock {arguments} > /run/lab/background 2>&1 < /dev/null & true)");
        self.ok(server, &command).map(drop)
    }

    /// Another verb, which must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn heirlock_ok(&self, server: Name, arguments: &str) -> Result<String> {
        self.say(format!("{server}: heirlock {arguments}"));
        let called = self.heirlock(server, arguments)?;
        ensure!(called.ending == Ending::Exit(0), "heirlock {arguments} on {server}: {called:?}");
        Ok(called.output)
    }

    /// Whether the store has a record of the client with this address for a service, as any server reads it.
    ///
    /// # Errors
    /// When the records can't be listed.
    pub fn is_on_record(&self, server: Name, service: &str, client: &str) -> Result<bool> {
        let called = self.heirlock(server, &format!("records list {service}"))?;
        ensure!(called.ending == Ending::Exit(0), "heirlock records list {service} on {server}: {called:?}");
        Ok(called.output.split_whitespace().any(|word| word == client))
    }

    /// The status of the agent.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, server: Name) -> Result<StatusReport> {
        self.heirlock(server, "status --json")?.parsed()
    }

    /// Waits until the store knows that many clients of a service.
    ///
    /// # Errors
    /// When it does not come to know them.
    pub fn wait_until_protected(&self, server: Name, service: &Service, clients: usize) -> Result<()> {
        let what = format!("{clients} clients of {} in the store", service.name);
        self.wait_for(&what, Duration::from_secs(10), || {
            let status = self.status(server)?;
            Ok((status.of(service)?.records == clients && status.store.well).then_some(()))
        })?;
        self.say(format!("the store knows {clients} clients of {}", service.name));
        Ok(())
    }

    /// Waits until a server's agent has seen the heart of another one beat: only a heart that was heard can be missed.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_until_it_hears(&self, server: Name, other: Name) -> Result<()> {
        self.wait_for(&format!("{server} to hear {other}"), ADOPTION_TIME_MAX, || {
            Ok(self.status(server)?.hears(other).then_some(()))
        })
    }

    /// Waits until the last adoption of a service on this server is over, and gives its status.
    ///
    /// # Errors
    /// When it does not come to an end.
    pub fn wait_until_settled(&self, server: Name, service: &str, after: u64) -> Result<()> {
        let what = format!("a settled generation of {service} after {after} on {server}");
        self.wait_for(&what, ADOPTION_TIME_MAX, || {
            let status = self.status(server)?;
            let settled = status.services.iter().any(|one| {
                one.service == service
                    && one.held
                    && one.generation.is_some_and(|generation| generation > after)
                    && one.phase.as_deref() == Some("settled")
            });
            Ok(settled.then_some(()))
        })?;
        self.say(format!("{server} has settled {service}"));
        Ok(())
    }

    /// The status of a server's implicit service, by its agent.
    ///
    /// # Errors
    /// When the agent does not answer, or does not hold it.
    pub fn own_service(&self, server: Name) -> Result<ServiceStatus> {
        let services = self.status(server)?.services;
        let own = services.into_iter().find(|one| one.held && one.service.starts_with("host."));
        own.with_context(|| format!("{server} does not hold its implicit service"))
    }

    /// Waits until each client of a server's own was told of a restart, or could not be; `before` is how its service was
    /// before that restart.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn wait_until_own_clients_are_told(&self, server: Name, before: &ServiceStatus) -> Result<()> {
        if before.records == 0 {
            return Ok(());
        }
        self.wait_for(&format!("the clients of {server}'s own to be told"), ADOPTION_TIME_MAX, || {
            let own = self.own_service(server)?;
            let is_new = own.generation > before.generation;
            let is_told = ["settling", "settled"].map(Some).contains(&own.phase.as_deref());
            ensure!(!is_new || own.failure.is_none(), "{server} could not tell its own clients: {own:?}");
            Ok((is_new && is_told).then_some(()))
        })?;
        self.say(format!("{server} has told its own clients of its restart"));
        Ok(())
    }

    /// The state number that the server's status monitor has.
    ///
    /// # Errors
    /// When the server does not answer or has none.
    pub fn state_number(&self, server: Name) -> Result<u32> {
        let text = self.ok(server, "od -An -tu4 -N4 /var/lib/nfs/state")?;
        text.trim().parse().with_context(|| format!("expected a state number, found {text:?}"))
    }

    /// The folder of the newest generation of a service, as guests see it.
    ///
    /// # Errors
    /// When there is none.
    pub fn newest_generation(&self, service: &Service) -> Result<String> {
        let folder = self.store().join("heirlock/services").join(service.name);
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
        let newest = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok()).max();
        let newest = newest.with_context(|| format!("no generation is in {}", folder.display()))?;
        Ok(format!("{STORE}/services/{}/{newest}", service.name))
    }

    /// The records of a service's clients in the store: file name to content. Read on the machine, also when all
    /// servers are off.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn stored(&self, service: &Service) -> Result<super::Records> {
        let generation = self.newest_generation(service)?;
        let inside =
            generation.strip_prefix("/srv/store/").context("the store is not in the shared folder")?;
        let folder = self.store().join(inside).join("sm");
        let mut records = super::Records::new();
        for entry in std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                records.insert(name, std::fs::read_to_string(entry.path())?);
            }
        }
        Ok(records)
    }

    /// Says, as a power switch would, whether a server is off: `fence` asks for it.
    ///
    /// # Errors
    /// When the shared folder can't be written.
    pub fn power_switch(&self, server: Name, off: bool) -> Result<()> {
        let folder = self.store().join("power");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(server), if off { "off\n" } else { "on\n" })?;
        Ok(())
    }

    /// Waits until a server holds another one's heart for silent, and says so.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_until_it_misses(&self, server: Name, other: Name) -> Result<()> {
        let said = format!("grep -q 'of its owner {other} says nothing' /run/heirlock.log");
        self.wait_until_within(server, &said, SILENCE_TIME_MAX)
    }

    /// Waits until a server has another one fenced: no third one did, and no more often than its adoptions began. One that meets a
    /// late beat before its claim is begun again, and so is its fence.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_until_it_fences(&self, server: Name, other: Name) -> Result<()> {
        let fences = self.wait_for(&format!("{server} to fence {other}"), SILENCE_TIME_MAX, || {
            let fences: Vec<_> = self.fenced()?.into_iter().filter(|(_, fenced)| fenced == other).collect();
            Ok((!fences.is_empty()).then_some(fences))
        })?;
        let begun = format!("adoption by {server} begins, for its owner.s heart is silent");
        let runs: usize = self.ok(server, &format!("grep -c '{begun}' /run/heirlock.log"))?.trim().parse()?;
        ensure!(
            fences.iter().all(|(by, _)| by == server) && fences.len() <= runs,
            "expected that {server} alone fences {other}, once for each of {runs} runs, found {fences:?}"
        );
        self.say(format!("{server} has {other} fenced"));
        Ok(())
    }

    /// Which server had which one fenced, in the order in which that was confirmed.
    ///
    /// # Errors
    /// When the shared folder can't be read.
    pub fn fenced(&self) -> Result<Vec<(String, String)>> {
        let file = self.store().join("power").join(FENCED);
        let lines = match std::fs::read_to_string(&file) {
            Ok(lines) => lines,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
        };
        let pair = |line: &str| {
            let (by, server) = line.split_once(' ').with_context(|| format!("found {line:?}"))?;
            Ok((by.to_owned(), server.to_owned()))
        };
        lines.lines().map(pair).collect()
    }
}

/// A state number that clients take for a new life of the server: odd, and not one that was sent before.
///
/// # Errors
/// When it is none.
pub fn check_new_number(number: u32, sent: &[u32]) -> Result<()> {
    if number.is_multiple_of(2) || sent.contains(&number) {
        bail!("expected an odd state number that is none of {sent:?}, found {number}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_number_must_be_odd_and_new() {
        assert!(check_new_number(7, &[3, 5]).is_ok());
        assert!(check_new_number(5, &[3, 5]).is_err());
        assert!(check_new_number(8, &[3, 5]).is_err());
    }
}
