//! What a capture mode wants of the host besides our own unit, and how that is given back: rpc.statd's place for `nsm`, its
//! callout for `callout`, nothing for `watch`.
//!
//! rpc.statd is started before anybody unmasks sm-notify's unit: it wants that one, and a notification in no grace period
//! loses the locks of whoever gets it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::super::host::Unit;
use super::super::memory;
use super::super::statd;
use super::{GuardError, Run, SOCKET, SOCKET_FILE, StepOutcome, UNIT, failed, nfs_conf_file};
use crate::callout::Spool;
use crate::config::{CaptureMode, Properties};
use crate::control;
use crate::files::{self, trusted};
use crate::monitor;

impl Run<'_> {
    /// Refuses what can't become of this host, before the first change.
    pub(super) fn check_mode(&self) -> Result<(), GuardError> {
        let refuse = |what: String| Err(GuardError::Refused { what });
        if self.properties().has_callout {
            let named = statd::named_callout(self.host, self.settings);
            if let Some(other) = named.filter(|named| !statd::is_our_callout(self.host, &named.text)) {
                return refuse(format!(
                    "{} says ha-callout={}, and rpc.statd runs one callout only; take it out there, or use capture.mode = \"nsm\" or \"watch\"",
                    other.file.display(),
                    other.text.escape_debug()
                ));
            }
            if let Err(why) = statd::may_run(self.host, self.settings, &statd::callout_program(self.host)) {
                return refuse(format!(
                    "{why}; install heirlock where everybody may run it (cargo install --root /usr/local), and enable it from there"
                ));
            }
        }
        Ok(())
    }

    /// Refuses to hand registrations back while an agent that nobody here can stop still takes new ones.
    pub(super) fn check_agent_ended(&self) -> Result<(), GuardError> {
        let socket = self.host.at(self.settings.runtime_directory.join(control::SOCKET));
        if self.host.systemctl.is_some()
            || !self.memory.replaces_statd
            || UnixStream::connect(socket).is_err()
        {
            return Ok(());
        }
        let what = "heirlock is still the status monitor here, and only its last registrations can be handed back; end 'heirlock supervise' (or the agent) first, then repeat";
        Err(GuardError::Refused { what: what.into() })
    }

    pub(super) fn mode(&self) -> CaptureMode {
        self.settings.capture.mode
    }

    pub(super) fn properties(&self) -> &'static Properties {
        self.mode().properties()
    }

    /// Gives back what another mode needed and this one doesn't.
    pub(super) fn leave_other_modes(&mut self) -> Result<(), GuardError> {
        if self.memory.replaces_statd && !self.properties().is_status_monitor {
            self.check_agent_ended()?;
            self.stop_socket()?;
            self.stop(UNIT)?;
            self.hand_back()?;
            self.give_back_file(Path::new(SOCKET_FILE))?;
            self.return_statd()?;
        }
        if !self.properties().has_callout {
            self.remove_links()?;
        }
        Ok(())
    }

    /// Takes rpc.statd's place: sockets first, so that nobody is ever told that there is none.
    pub(super) fn take_statds_place(&mut self) -> Result<(), GuardError> {
        if !self.memory.replaces_statd && !self.plan {
            self.memory.replaces_statd = true;
            self.remember()?;
        }
        if self.host.systemctl.is_none() {
            let what = "systemd doesn't run here: have 'heirlock supervise' started at boot, before NFS, in rpc.statd's place; it holds the status monitor's sockets while the agent is restarted";
            self.say(StepOutcome::Left, what);
            self.say_statd_runs("end it, and keep it from being started");
            return Ok(());
        }
        if self.is_enabled(SOCKET) {
            self.say(StepOutcome::AlreadySo, format!("{SOCKET} is enabled"));
        } else {
            if self.is_enabled(UNIT) {
                // systemd gives sockets to an agent when it starts it, and to none that runs already.
                self.stop(UNIT)?;
            }
            self.act(
                format!("enable and start {SOCKET}, which holds the status monitor's sockets"),
                |run| {
                    run.memory.units.insert(SOCKET.into());
                    run.remember()?;
                    run.systemctl(&["daemon-reload"])?;
                    run.systemctl(&["enable", "--now", SOCKET])
                },
            )?;
        }
        self.mask(statd::UNIT)?;
        if statd::running(self.host, self.settings).is_some() {
            self.stop(statd::UNIT)?;
        }
        if !self.plan {
            self.say_statd_runs("it was not started by systemd: end it (kill its process)");
        }
        Ok(())
    }

    fn say_statd_runs(&mut self, remedy: &str) {
        if let Some(running) = statd::running(self.host, self.settings) {
            let (pid, remedy) = match running.in_container {
                true => (running.pid, "it is a container's: end it with that one's tools"),
                false => (running.pid, remedy),
            };
            self.say(
                StepOutcome::Left,
                format!("rpc.statd runs as process {pid}, in heirlock's place; {remedy}"),
            );
        }
    }

    /// The name under which rpc.statd runs us, since it gives a callout no arguments of ours.
    pub(super) fn link_callout(&mut self) -> Result<(), GuardError> {
        let link = statd::callout(self.host);
        let at = self.host.at(&link);
        let program = statd::callout_program(self.host);
        match trusted::read_link(&at) {
            Ok(to) if to == program => {
                self.say(StepOutcome::AlreadySo, format!("{} is there", link.display()));
                return Ok(());
            }
            Ok(_) if !self.memory.links.contains(&link) => {
                self.say(StepOutcome::AlreadySo, format!("{} is there, and not from us", link.display()));
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.say(StepOutcome::AlreadySo, format!("{} is there, and not from us", link.display()));
                return Ok(());
            }
            _ => {}
        }
        self.act(format!("link {} to {}", link.display(), program.display()), |run| {
            if let Some(folder) = link.parent().filter(|folder| !run.host.at(folder).is_dir()) {
                run.create_folder(folder, 0o755)?;
            }
            run.memory.links.insert(link.clone());
            run.remember()?;
            let made = remove_if(&at).and_then(|()| trusted::make_link(&program, &at));
            made.and_then(|()| memory::sync_folder_of(&at)).map_err(failed("make the link", &at))
        })
    }

    /// rpc.statd reads its callout's name when it starts.
    pub(super) fn tell_statd(&mut self, why: &str) -> Result<(), GuardError> {
        if statd::running(self.host, self.settings).is_none() {
            return if self.plan { Ok(()) } else { self.statd_knows() };
        }
        if self.host.systemctl.is_none() {
            self.say(StepOutcome::Left, format!("restart rpc.statd, {why}"));
            return self.statd_knows();
        }
        self.act(format!("restart {}, {why}", statd::UNIT), |run| {
            run.systemctl(&["try-restart", statd::UNIT])?;
            run.statd_knows()
        })
    }

    fn statd_knows(&mut self) -> Result<(), GuardError> {
        self.memory.statd_behind = false;
        self.remember()
    }

    /// Everything of a mode, when heirlock is left.
    pub(super) fn give_back_statd(&mut self) -> Result<(), GuardError> {
        if self.memory.replaces_statd {
            self.return_statd()?;
        }
        let was_callout = self.memory.files.values().any(nfs_conf_file::names_callout);
        self.remove_links()?;
        if !was_callout {
            return Ok(());
        }
        self.tell_statd("which has no callout any more")?;
        if self.plan {
            return Ok(());
        }
        let state_directory = self.host.at(&self.settings.state_directory);
        Spool::in_state_directory(&state_directory).remove().map_err(failed("tidy", &state_directory))
    }

    pub(super) fn stop_socket(&mut self) -> Result<(), GuardError> {
        if !self.memory.units.contains(SOCKET) || !self.is_known(SOCKET) {
            return Ok(());
        }
        self.act(format!("stop and disable {SOCKET}"), |run| run.systemctl(&["disable", "--now", SOCKET]))
    }

    fn stop(&mut self, unit: &str) -> Result<(), GuardError> {
        if self.host.systemctl.is_none() {
            return Ok(());
        }
        self.act(format!("stop {unit}"), |run| run.systemctl(&["stop", unit]))
    }

    /// Makes the status monitor's directory say all that the agent was told, for rpc.statd to read at its start.
    pub(super) fn hand_back(&mut self) -> Result<(), GuardError> {
        if !self.memory.replaces_statd {
            return Ok(());
        }
        let state_directory = self.settings.state_directory.clone();
        let what = format!("hand all registrations back in {}", state_directory.join("sm").display());
        self.act(what, |run| {
            let [state, runtime, local] =
                [&state_directory, &run.settings.runtime_directory, &run.settings.local_directory]
                    .map(|path| run.host.at(path));
            let left = monitor::hand_back(&state, &runtime, &local, run.settings.notify.rpcbind_port)
                .map_err(failed("write", &state.join("sm")))?;
            for (client, why) in left {
                // The file that is in the way is an administrator's to look at; the others are handed back.
                run.say(StepOutcome::Left, format!("{}/{client}: {why}", state.join("sm").display()));
            }
            Ok(())
        })
    }

    fn return_statd(&mut self) -> Result<(), GuardError> {
        if self.host.systemctl.is_none() {
            let what = "start rpc.statd now (rpc.statd --no-notify): without a status monitor lockd grants locks that nobody knows of";
            self.say(StepOutcome::Left, what);
            return self.statd_is_back();
        }
        self.unmask(statd::UNIT)?;
        let will_be_there = self.plan || matches!(self.host.unit(statd::UNIT), Unit::Present(_));
        if will_be_there && self.host.unit(statd::UNIT) != Unit::Absent {
            self.act(format!("start {}", statd::UNIT), |run| run.systemctl(&["start", statd::UNIT]))?;
        }
        self.statd_is_back()
    }

    fn statd_is_back(&mut self) -> Result<(), GuardError> {
        if self.plan {
            return Ok(());
        }
        self.memory.replaces_statd = false;
        self.remember()
    }

    fn remove_links(&mut self) -> Result<(), GuardError> {
        for link in self.memory.links.clone() {
            let at = self.host.at(&link);
            if trusted::read_link(&at).is_err() {
                continue;
            }
            self.act(format!("remove {}", link.display()), |_| {
                remove_if(&at).and_then(|()| memory::sync_folder_of(&at)).map_err(failed("remove", &at))
            })?;
        }
        if self.plan || self.memory.links.is_empty() {
            return Ok(());
        }
        self.memory.links.clear();
        self.remember()
    }

    pub(super) fn give_back_file(&mut self, path: &Path) -> Result<(), GuardError> {
        let Some(remembered) = self.memory.files.get(path).cloned() else { return Ok(()) };
        self.give_back(path, &remembered)?;
        if self.plan {
            return Ok(());
        }
        self.memory.files.remove(path);
        self.remember()
    }

    fn is_known(&self, unit: &str) -> bool {
        self.is_enabled(unit) || self.host.unit(unit) != Unit::Absent
    }
}

fn remove_if(path: &Path) -> io::Result<()> {
    files::unless_absent(trusted::remove(path))
}
