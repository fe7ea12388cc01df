//! Other programs that may notify this host's clients: stock sm-notify, which nfs-server, rpc.statd and the boot start.
//!
//! With an empty list it ends the grace period of an adoption, seen on real kernels; with conveyed records it notifies from
//! the wrong address for fifteen minutes. Three locks keep it out, and each holds where the others were left open: its unit
//! is masked, `lift-grace=n` takes its worst weapon, and its own guard file says that it ran already.

use std::path::{Path, PathBuf};

use super::finding::{Finding, Severity};
use super::statd;
use crate::config::Settings;
use crate::host::nfs_conf::{self, NfsConf};
use crate::host::process;
use crate::host::{Host, Unit};

/// Its unit: nfs-server and rpc-statd want it.
pub(super) const UNIT: &str = "rpc-statd-notify.service";

/// The file by which sm-notify makes sure to run once a boot; it never removes it.
pub(super) const GUARD_FILE: &str = "/run/sm-notify.pid";

/// The check of that file.
pub(super) const GUARD_FILE_CHECK: &str = "sm-notify-pid";

/// The program.
const PROGRAM: &str = "sm-notify";

/// The settings of nfs-utils that are looked at here.
const KEYS: [nfs_conf::Key; 3] =
    [("sm-notify", "lift-grace"), ("sm-notify", "force"), ("statd", "state-directory-path")];

const REMEDY: &str = "run 'heirlock enable', which keeps every other sender from starting";

/// The findings that lose locks.
pub(super) fn hazards(host: &Host, settings: &Settings) -> Vec<Finding> {
    let mut findings = check(host, settings);
    findings.retain(|finding| finding.severity == Severity::LosesLocks);
    findings
}

/// Everything about other senders.
pub(super) fn check(host: &Host, settings: &Settings) -> Vec<Finding> {
    let conf = NfsConf::read_some(host, &KEYS);
    if !matters(host, settings, &conf) {
        return vec![Finding::ok("other-sender", "no stock sm-notify shares this lock manager's clients")];
    }
    let unit = host.systemctl.as_ref().map(|_| host.unit(UNIT));
    let mut findings = vec![
        Finding::ok("nfs-conf", conf.asked.to_string()),
        lift_grace(&conf),
        guard_file(host, &conf, unit.as_ref()),
    ];
    findings.extend(deaf(host, unit.as_ref()));
    findings.extend(unit.map(|unit| unit_state(&unit)));
    findings.extend(running(host, settings));
    findings.extend(directory(host, settings, &conf));
    findings.extend(conf.to_come.iter().map(|what| {
        Finding::warning(
            "nfs-conf",
            what.clone(),
            "take it out there, or set the key in /etc before the update",
        )
    }));
    findings.extend(conf.problems.iter().map(|problem| {
        Finding::warning("nfs-conf", problem.clone(), "mend it: nfs-utils' own programs read the same files")
    }));
    findings
}

/// Whether stock sm-notify is here, and would hit the lock manager that we look after.
fn matters(host: &Host, settings: &Settings, conf: &NfsConf) -> bool {
    let installed = host.installed(PROGRAM).is_some();
    let is_of_nfs_utils = settings.lock_manager.kind.properties().is_of_nfs_utils;
    installed && (is_of_nfs_utils || directories(conf).contains(&settings.state_directory))
}

fn directories(conf: &NfsConf) -> Vec<PathBuf> {
    match conf.get("statd", "state-directory-path") {
        Some(set) => vec![PathBuf::from(set.text)],
        None => statd::DIRECTORIES.iter().map(PathBuf::from).collect(),
    }
}

fn lift_grace(conf: &NfsConf) -> Finding {
    let check = "lift-grace";
    match conf.get("sm-notify", check) {
        Some(value) if value.as_bool() == Some(false) => {
            Finding::ok(check, format!("{} keeps sm-notify from ending grace", value.file.display()))
        }
        Some(value) => Finding::loses_locks(
            check,
            format!(
                "{} says lift-grace={}: sm-notify without clients to notify ends the grace period of an adoption",
                value.file.display(),
                value.text.escape_debug()
            ),
            if value.file.ends_with("heirlock.conf") {
                REMEDY.to_owned()
            } else {
                format!("{}, then {REMEDY}", value.remedy())
            },
        ),
        None => Finding::loses_locks(
            check,
            "[sm-notify] lift-grace is not set to n in nfs.conf: sm-notify without clients to notify ends the grace period of an adoption",
            REMEDY,
        ),
    }
}

/// An sm-notify that is older than the key goes by nothing that is said of it.
fn deaf(host: &Host, unit: Option<&Unit>) -> Option<Finding> {
    let program = host.installed(PROGRAM)?;
    let bytes = host.read(&program).ok().flatten()?;
    if holds(&bytes, b"lift-grace") {
        return None;
    }
    let found = format!(
        "{} is older than the key lift-grace and takes no notice of it: a start of it without clients to notify ends the grace period of an adoption",
        program.display()
    );
    let remedy = "update nfs-utils to 2.2 or newer";
    let kept_out = matches!(unit, Some(Unit::Masked(_))) && host.at(GUARD_FILE).exists();
    Some(if kept_out {
        Finding::warning("lift-grace", found, remedy)
    } else {
        Finding::loses_locks("lift-grace", found, format!("{REMEDY}; {remedy}"))
    })
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn guard_file(host: &Host, conf: &NfsConf, unit: Option<&Unit>) -> Finding {
    let check = GUARD_FILE_CHECK;
    let set = conf.get("sm-notify", "force").filter(|value| value.as_bool() == Some(true));
    let forced = set.is_some();
    if host.at(GUARD_FILE).exists() && !forced {
        return Finding::ok(check, format!("{GUARD_FILE} keeps sm-notify from running in this boot"));
    }
    let found = if forced {
        format!(
            "[sm-notify] force is set by {}, so sm-notify runs whether {GUARD_FILE} is there or not",
            set.as_ref().map(|value| value.file.display().to_string()).unwrap_or_default()
        )
    } else {
        format!("{GUARD_FILE} is missing: the next start of rpc.statd or sm-notify notifies once more")
    };
    let remedy = set.map_or_else(|| REMEDY.to_owned(), |value| value.remedy());
    match unit {
        // Then nothing that is installed starts it; a person still may.
        Some(Unit::Masked(_)) => Finding::warning(check, found, remedy),
        _ => Finding::loses_locks(check, found, remedy),
    }
}

fn unit_state(unit: &Unit) -> Finding {
    let check = "rpc-statd-notify";
    match unit {
        Unit::Absent => Finding::ok(check, format!("there is no {UNIT}")),
        Unit::Masked(at) => Finding::ok(check, format!("masked by {}", at.display())),
        Unit::Present(at) => Finding::loses_locks(
            check,
            format!(
                "{} is not masked, and nfs-server starts it: sm-notify then speaks to the clients of an adoption",
                at.display()
            ),
            REMEDY,
        ),
    }
}

/// An sm-notify that runs now goes on for fifteen minutes, also after `enable`.
fn running(host: &Host, settings: &Settings) -> Option<Finding> {
    let found = process::find(host, "sm-notify", &statd::users(host, settings))?;
    let (whose, remedy) = if found.in_container {
        (
            "of a container on this host's network ",
            "adopt after its end, or end it with the container's own tools".into(),
        )
    } else {
        ("", format!("adopt after its end, or end it: kill {}", found.pid))
    };
    Some(Finding::loses_locks(
        "sm-notify-running",
        format!(
            "sm-notify {whose}runs as process {} and notifies this host's clients, for fifteen minutes after its start",
            found.pid
        ),
        remedy,
    ))
}

/// Where the files say that rpc.statd keeps its records; one that runs is asked itself, by another check.
fn directory(host: &Host, settings: &Settings, conf: &NfsConf) -> Option<Finding> {
    let set = conf.get("statd", "state-directory-path")?;
    if !settings.lock_manager.kind.properties().is_of_nfs_utils
        || host.is_same(Path::new(&set.text), &settings.state_directory)
    {
        return None;
    }
    let harm = match settings.capture.mode.properties().is_status_monitor {
        true => "rpc.statd would know no client when heirlock is left",
        false => "no client is ever noticed",
    };
    Some(Finding::warning(
        "state-directory",
        format!(
            "rpc.statd keeps its records in {} ({}), and heirlock looks in {}: {harm}",
            set.text.escape_debug(),
            set.file.display(),
            settings.state_directory.display()
        ),
        format!("set state-directory = {:?}", set.text),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;
    use crate::guard::testing::{Tree, settings};

    fn found(tree: &Tree) -> Vec<&'static str> {
        hazards(&tree.host(), &settings("")).iter().map(|finding| finding.check).collect()
    }

    /// As `enable` leaves it.
    fn guarded() -> Tree {
        let tree = Tree::debian();
        tree.put("/etc/nfs.conf.d/heirlock.conf", "[sm-notify]\nlift-grace=n\n");
        tree.put(GUARD_FILE, "");
        symlink("/dev/null", tree.host().at("/etc/systemd/system").join(UNIT)).unwrap();
        tree
    }

    #[test]
    fn a_host_as_installed_has_three_doors_open_and_a_guarded_one_none() {
        assert_eq!(found(&Tree::debian()), ["lift-grace", "sm-notify-pid", "rpc-statd-notify"]);
        assert_eq!(found(&guarded()), Vec::<&str>::new());
    }

    #[test]
    fn each_hazard_of_sm_notify_is_found_by_itself() {
        let tree = guarded();
        tree.put("/etc/nfs.conf.d/zzz.conf", "[sm-notify]\nlift-grace=y\n");
        let hazard = &hazards(&tree.host(), &settings(""))[0];
        assert!(hazard.found.contains("zzz.conf says lift-grace=y"), "{hazard}");
        assert!(hazard.remedy.as_ref().unwrap().contains("zzz.conf"), "{hazard}");

        let tree = guarded();
        tree.remove("/etc/systemd/system/rpc-statd-notify.service");
        assert_eq!(found(&tree), ["rpc-statd-notify"]);

        let tree = guarded();
        tree.process(4711, "/usr/sbin/sm-notify", 0);
        assert_eq!(found(&tree), ["sm-notify-running"]);
        let remedy = |tree: &Tree| hazards(&tree.host(), &settings(""))[0].remedy.clone().unwrap();
        assert!(remedy(&tree).contains("kill 4711"), "{}", remedy(&tree));
        tree.relink("/proc/4711/ns/pid", "pid:[2]");
        assert!(!remedy(&tree).contains("kill"), "{}", remedy(&tree));
    }

    #[test]
    fn a_users_process_of_sm_notifys_name_stops_no_adoption() {
        let tree = guarded();
        tree.process(4711, "/home/user/sm-notify", 1000);
        tree.process(4712, "/usr/sbin/sm-notify", 0);
        tree.relink("/proc/4712/ns/net", "net:[2]");
        tree.process(4713, "/usr/bin/python3", 0);
        tree.put("/proc/4713/comm", "sm-notify\n");
        assert_eq!(found(&tree), Vec::<&str>::new());
    }

    #[test]
    fn the_guard_file_is_needed_where_no_mask_can_be() {
        let tree = guarded();
        tree.remove(GUARD_FILE);
        assert_eq!(found(&tree), Vec::<&str>::new(), "the mask still holds");
        let warned = check(&tree.host(), &settings("")).into_iter().find(|f| f.check == "sm-notify-pid");
        assert_eq!(warned.unwrap().severity, Severity::Warning);
        let mut host = tree.host();
        host.systemctl = None;
        assert_eq!(hazards(&host, &settings(""))[0].check, "sm-notify-pid");
        tree.put(GUARD_FILE, "");
        assert!(hazards(&host, &settings("")).is_empty());
        tree.put("/etc/nfs.conf", "[sm-notify]\nforce=1\n");
        assert!(hazards(&host, &settings(""))[0].found.contains("force is set by /etc/nfs.conf"));
    }

    #[test]
    fn an_sm_notify_that_is_older_than_the_key_is_kept_out_by_the_other_two_locks_alone() {
        let tree = guarded();
        tree.put("/usr/sbin/sm-notify", "an older program\n");
        let said = |tree: &Tree| {
            let found = check(&tree.host(), &settings(""));
            let deaf = found.into_iter().find(|f| f.found.contains("is older than the key"));
            deaf.map(|finding| finding.severity)
        };
        assert_eq!(said(&tree), Some(Severity::Warning));
        tree.remove(GUARD_FILE);
        assert_eq!(said(&tree), Some(Severity::LosesLocks));
        assert_eq!(said(&guarded()), None);
    }

    #[test]
    fn a_file_that_a_distribution_ships_below_usr_etc_counts_as_if_it_lay_in_etc() {
        let tree = guarded();
        tree.tool("rpc.statd", "echo rpc.statd version 2.8.3");
        tree.remove("/etc/nfs.conf");
        let site = "[statd]\nstate-directory-path=/srv/shared/nfs\n[sm-notify]\nforce=1\n";
        let said = |tree: &Tree| {
            let found = check(&tree.host(), &settings(""));
            let wrong = found.into_iter().filter(|finding| finding.severity > Severity::Note);
            wrong.map(|finding| (finding.check, finding.severity)).collect::<Vec<_>>()
        };
        tree.put("/etc/nfs.conf.d/site.conf", site);
        let in_etc = said(&tree);
        assert_eq!(in_etc, [("sm-notify-pid", Severity::Warning), ("state-directory", Severity::Warning)]);
        tree.remove("/etc/nfs.conf.d/site.conf");
        tree.put("/usr/etc/nfs.conf.d/site.conf", site);
        assert_eq!(said(&tree), in_etc);
    }

    #[test]
    fn where_sm_notify_can_do_no_harm_nothing_is_said() {
        let tree = Tree::debian();
        tree.remove("/usr/sbin/sm-notify");
        assert_eq!(found(&tree), Vec::<&str>::new());
        let elsewhere =
            "[lock-manager]\ntype = \"command\"\nincarnation = [\"true\"]\ngrace-period = \"90s\"\n";
        let mut settings = settings(elsewhere);
        assert_eq!(hazards(&Tree::debian().host(), &settings).len(), 3, "it reads the same directory");
        settings.state_directory = "/tmp/demo".into();
        assert_eq!(hazards(&Tree::debian().host(), &settings), []);
    }

    #[test]
    fn a_directory_of_statd_that_is_not_ours_is_said() {
        let tree = guarded();
        tree.put("/etc/nfs.conf", "[statd]\nstate-directory-path=/var/lib/nfs/statd\n");
        let said = check(&tree.host(), &settings("")).into_iter().find(|f| f.check == "state-directory");
        assert!(said.unwrap().found.contains("looks in /var/lib/nfs:"));
        tree.put("/etc/nfs.conf", "[statd]\nstate-directory-path=/var/lib/nfs\n");
        assert!(check(&tree.host(), &settings("")).iter().all(|f| f.check != "state-directory"));
    }

    #[test]
    fn a_look_for_hazards_takes_less_than_a_tenth_of_a_second_of_processor_time() {
        // The delay of a busy machine is no work of the check.
        let worked = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
        };
        let took = (0..20).map(|_| {
            let before = worked();
            hazards(&Host::here(), &settings(""));
            worked() - before
        });
        let quickest = took.min().unwrap();
        assert!(quickest < Duration::from_millis(100), "{quickest:?}");
    }
}
