//! Mode `callout`: rpc.statd's callout is our program, under a link of ours. nfs.conf names it (`nfs_conf_file.rs`), and rpc.statd
//! reads that when it starts.

use std::io;
use std::path::Path;

use super::super::{memory, statd};
use super::mode::ModeOnHost;
use super::{GuardError, Run, StepOutcome, failed, nfs_conf_file};
use crate::callout::Spool;
use crate::files::{self, trusted};

pub(super) struct Callout;

impl ModeOnHost for Callout {
    fn is_of_the_first_alone(&self) -> Option<&'static str> {
        Some(
            "the callout in this host's nfs.conf speaks to the lock manager of the host's own network namespace",
        )
    }

    fn check_enter(&self, run: &Run<'_>) -> Result<(), GuardError> {
        let refuse = |what: String| Err(GuardError::Refused { what });
        let named = statd::named_callout(run.host, run.settings);
        if let Some(other) = named.filter(|named| !statd::is_our_callout(run.host, &named.text)) {
            return refuse(format!(
                "{} says ha-callout={}, and rpc.statd runs one callout only; take it out there, or use capture.mode = \"nsm\" or \"watch\"",
                other.file.display(),
                other.text.escape_debug()
            ));
        }
        if let Err(why) = statd::may_run(run.host, run.settings, &statd::callout_program(run.host)) {
            return refuse(format!(
                "{why}; install heirlock where every user may run it (cargo install --root /usr/local), and enable it from there"
            ));
        }
        Ok(())
    }

    /// The callout in nfs.conf goes with the file that the other mode writes.
    fn leave_for_another(&self, run: &mut Run<'_>) -> Result<(), GuardError> {
        remove_links(run)
    }

    fn prepare(&self, run: &mut Run<'_>) -> Result<(), GuardError> {
        link_callout(run)
    }

    fn give_back(&self, run: &mut Run<'_>) -> Result<(), GuardError> {
        let was_callout = run.memory.files.values().any(nfs_conf_file::names_callout);
        remove_links(run)?;
        if !was_callout {
            return Ok(());
        }
        run.tell_statd("which has no callout any more")?;
        if run.plan {
            return Ok(());
        }
        let state_directory = run.host.at(&run.settings.state_directory);
        Spool::in_state_directory(&state_directory).remove().map_err(failed("tidy", &state_directory))
    }
}

impl Run<'_> {
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
}

/// The name under which rpc.statd runs us, since it gives a callout no arguments of ours.
fn link_callout(run: &mut Run<'_>) -> Result<(), GuardError> {
    let link = statd::callout(run.host);
    let at = run.host.at(&link);
    let program = statd::callout_program(run.host);
    match trusted::read_link(&at) {
        Ok(to) if to == program => {
            run.say(StepOutcome::AlreadySo, format!("{} is there", link.display()));
            return Ok(());
        }
        Ok(_) if !run.memory.links.contains(&link) => {
            run.say(StepOutcome::AlreadySo, format!("{} is there, and not from us", link.display()));
            return Ok(());
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            run.say(StepOutcome::AlreadySo, format!("{} is there, and not from us", link.display()));
            return Ok(());
        }
        _ => {}
    }
    run.act(format!("link {} to {}", link.display(), program.display()), |run| {
        if let Some(folder) = link.parent().filter(|folder| !run.host.at(folder).is_dir()) {
            run.create_folder(folder, 0o755)?;
        }
        run.memory.links.insert(link.clone());
        run.remember()?;
        let made = remove_if(&at).and_then(|()| trusted::make_link(&program, &at));
        made.and_then(|()| memory::sync_folder_of(&at)).map_err(failed("make the link", &at))
    })
}

fn remove_links(run: &mut Run<'_>) -> Result<(), GuardError> {
    for link in run.memory.links.clone() {
        let at = run.host.at(&link);
        if trusted::read_link(&at).is_err() {
            continue;
        }
        run.act(format!("remove {}", link.display()), |_| {
            remove_if(&at).and_then(|()| memory::sync_folder_of(&at)).map_err(failed("remove", &at))
        })?;
    }
    if run.plan || run.memory.links.is_empty() {
        return Ok(());
    }
    run.memory.links.clear();
    run.remember()
}

fn remove_if(path: &Path) -> io::Result<()> {
    files::unless_absent(trusted::remove(path))
}
