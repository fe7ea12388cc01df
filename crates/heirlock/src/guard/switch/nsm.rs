//! Mode `nsm`: heirlock takes rpc.statd's place. systemd holds the sockets, where it runs, and rpc.statd's unit is masked.

use std::os::unix::net::UnixStream;
use std::path::Path;

use super::super::statd;
use super::mode::{ModeOnHost, Units};
use super::{GuardError, OurFile, Run, StepOutcome, UNIT, failed, unit_file};
use crate::config::Settings;
use crate::host::{ADMINISTRATORS_UNITS, Host, Unit};
use crate::{control, monitor};

/// It holds the status monitor's sockets while the agent is restarted (`capture.mode = "nsm"`).
const SOCKET: &str = "heirlock.socket";
pub(super) const SOCKET_FILE: &str = "/etc/systemd/system/heirlock.socket";
pub(super) const SOCKET_TEXT: &str = include_str!("../../../../../dist/systemd/heirlock.socket");

/// The port that the shipped unit names, as its lines end.
const SOCKET_PORT: &str = ":662\n";

pub(super) struct Nsm;

impl ModeOnHost for Nsm {
    fn is_of_the_first_alone(&self) -> Option<&'static str> {
        Some(
            "heirlock.socket holds the sockets of one status monitor, that of the host's own network namespace",
        )
    }

    fn units(&self) -> Units {
        Units { ours: &[SOCKET], masked: &[statd::UNIT] }
    }

    fn files(&self, host: &Host, settings: &Settings) -> Vec<OurFile> {
        let text = socket_unit(host, settings);
        let ours = || OurFile::whole(SOCKET_FILE, text.clone());
        unit_file(host, SOCKET, SOCKET_FILE, text.clone())
            .or_else(|| package_says_otherwise(host, &text).then(ours))
            .into_iter()
            .collect()
    }

    fn leave_for_another(&self, run: &mut Run<'_>) -> Result<(), GuardError> {
        if !run.memory.replaces_statd {
            return Ok(());
        }
        self.check_leave(run)?;
        self.stop(run)?;
        run.stop(UNIT)?;
        self.hand_back(run)?;
        run.give_back_file(Path::new(SOCKET_FILE))?;
        self.give_back(run)
    }

    /// Takes rpc.statd's place: sockets first, so that lockd is never told that there is no status monitor.
    fn enter(&self, run: &mut Run<'_>) -> Result<(), GuardError> {
        if !run.memory.replaces_statd && !run.plan {
            run.memory.replaces_statd = true;
            run.remember()?;
        }
        if run.host.systemctl.is_none() {
            let what = "systemd doesn't run here: have 'heirlock supervise' started at boot, before NFS, in rpc.statd's place; it holds the status monitor's sockets while the agent is restarted";
            run.say(StepOutcome::Left, what);
            say_statd_runs(run, "end it, and keep it from being started");
            return Ok(());
        }
        if run.is_enabled(SOCKET) {
            run.say(StepOutcome::AlreadySo, format!("{SOCKET} is enabled"));
        } else {
            if run.is_enabled(UNIT) {
                // systemd gives sockets to an agent when it starts it, and to none that runs already.
                run.stop(UNIT)?;
            }
            run.act(format!("enable and start {SOCKET}, which holds the status monitor's sockets"), |run| {
                run.memory.units.insert(SOCKET.into());
                run.remember()?;
                run.systemctl(&["daemon-reload"])?;
                run.systemctl(&["enable", "--now", SOCKET])
            })?;
        }
        run.mask(statd::UNIT)?;
        if statd::running(run.host, run.settings).is_some() {
            run.stop(statd::UNIT)?;
        }
        if !run.plan {
            say_statd_runs(run, "it was not started by systemd: end it (kill its process)");
        }
        Ok(())
    }

    /// Refuses to hand registrations back while an agent that `disable` can't stop still takes new ones.
    fn check_leave(&self, run: &Run<'_>) -> Result<(), GuardError> {
        let socket = run.host.at(run.settings.runtime_directory.join(control::SOCKET));
        if run.host.systemctl.is_some() || !run.memory.replaces_statd || UnixStream::connect(socket).is_err()
        {
            return Ok(());
        }
        let what = "heirlock is still the status monitor here, and only its last registrations can be handed back; end 'heirlock supervise' (or the agent) first, then repeat";
        Err(GuardError::Refused { what: what.into() })
    }

    fn stop(&self, run: &mut Run<'_>) -> Result<(), GuardError> {
        if !run.memory.units.contains(SOCKET) || !run.is_known(SOCKET) {
            return Ok(());
        }
        run.act(format!("stop and disable {SOCKET}"), |run| run.systemctl(&["disable", "--now", SOCKET]))
    }

    /// Makes the status monitor's directory say all that the agent was told, for rpc.statd to read at its start.
    fn hand_back(&self, run: &mut Run<'_>) -> Result<(), GuardError> {
        if !run.memory.replaces_statd {
            return Ok(());
        }
        let state_directory = run.settings.state_directory.clone();
        let what = format!("hand all registrations back in {}", state_directory.join("sm").display());
        run.act(what, |run| {
            let [state, runtime, local] =
                [&state_directory, &run.settings.runtime_directory, &run.settings.local_directory]
                    .map(|path| run.host.at(path));
            let left =
                monitor::hand_back(run.host, &state, &runtime, &local, run.settings.notify.rpcbind_port)
                    .map_err(failed("write", &state.join("sm")))?;
            for (client, why) in left {
                // The file that is in the way is an administrator's to look at; the others are handed back.
                run.say(StepOutcome::Left, format!("{}/{client}: {why}", state.join("sm").display()));
            }
            Ok(())
        })
    }

    fn give_back(&self, run: &mut Run<'_>) -> Result<(), GuardError> {
        if run.memory.replaces_statd { return_statd(run) } else { Ok(()) }
    }
}

/// A package's unit names one port, and both families of addresses. Where another one is needed, ours stands before it.
fn package_says_otherwise(host: &Host, wanted: &str) -> bool {
    let Unit::Present(at) = host.unit(SOCKET) else { return false };
    at.parent() != Some(Path::new(ADMINISTRATORS_UNITS)) && host.text(&at).is_some_and(|text| text != wanted)
}

/// systemd opens all of a unit's sockets or none, so what this kernel doesn't have must not be in it.
pub(super) fn socket_unit(host: &Host, settings: &Settings) -> String {
    let has_v6 = host.table("if_inet6").is_some();
    let lines = SOCKET_TEXT.lines().filter(|line| has_v6 || !line.contains("=[::]:"));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    match settings.capture.port {
        0 => text,
        port => text.replace(SOCKET_PORT, &format!(":{port}\n")),
    }
}

fn say_statd_runs(run: &mut Run<'_>, remedy: &str) {
    if let Some(running) = statd::running(run.host, run.settings) {
        let (pid, remedy) = match running.in_container {
            true => (running.pid, "it is a container's: end it with that one's tools"),
            false => (running.pid, remedy),
        };
        run.say(StepOutcome::Left, format!("rpc.statd runs as process {pid}, in heirlock's place; {remedy}"));
    }
}

fn return_statd(run: &mut Run<'_>) -> Result<(), GuardError> {
    if run.host.systemctl.is_none() {
        let what = "start rpc.statd now (rpc.statd --no-notify): without a status monitor lockd grants locks without a record of them";
        run.say(StepOutcome::Left, what);
        return statd_is_back(run);
    }
    run.unmask(statd::UNIT)?;
    let will_be_there = run.plan || matches!(run.host.unit(statd::UNIT), Unit::Present(_));
    if will_be_there && run.host.unit(statd::UNIT) != Unit::Absent {
        run.act(format!("start {}", statd::UNIT), |run| run.systemctl(&["start", statd::UNIT]))?;
    }
    statd_is_back(run)
}

fn statd_is_back(run: &mut Run<'_>) -> Result<(), GuardError> {
    if run.plan {
        return Ok(());
    }
    run.memory.replaces_statd = false;
    run.remember()
}
