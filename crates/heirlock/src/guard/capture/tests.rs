use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::super::finding::Severity;
use super::super::statd;
use super::*;
use crate::fake_programs::rpcbind;
use crate::guard::testing::{Tree, in_mode, settings};

/// The findings by check, without those that are well.
fn wrong(findings: &[Finding]) -> Vec<(&'static str, Severity)> {
    let wrong = findings.iter().filter(|finding| finding.severity > Severity::Note);
    wrong.map(|finding| (finding.check, finding.severity)).collect()
}

fn with(mode: &str, more: &str) -> Settings {
    settings(&format!("[capture]\nmode = \"{mode}\"\n{more}"))
}

/// A process that holds the socket with this number of an inode.
fn holder(tree: &Tree, pid: u32, name: &str, inode: u32) {
    tree.process(pid, &format!("/usr/bin/{name}"), 0);
    tree.folder(&format!("/proc/{pid}/fd"));
    symlink(format!("socket:[{inode}]"), tree.host().at(format!("/proc/{pid}/fd/7"))).unwrap();
}

/// As `enable` leaves a host under nsm, with an agent that listens at port 662.
fn monitored() -> Tree {
    let tree = Tree::debian();
    symlink("/dev/null", tree.host().at("/etc/systemd/system").join(statd::UNIT)).unwrap();
    tree.put(
        "/proc/net/tcp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
         0: 00000000:0296 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5001 1 0 100\n\
         1: 0100007F:0296 0100007F:0300 01 00000000:00000000 00:00000000 00000000     0        0 5002 1 0 100\n",
    );
    holder(&tree, 1, "systemd", 5001);
    holder(&tree, 900, "heirlock", 5001);
    holder(&tree, 901, "other", 5002);
    tree
}

fn under_nsm(tree: &Tree) -> Vec<Finding> {
    let port = rpcbind("127.0.0.1", 0, Some(662));
    live(&tree.host(), &with("nsm", &format!("[notify]\nrpcbind-port = {port}\n")))
}

#[test]
fn each_mode_says_what_it_promises() {
    for (mode, more, severity, words) in [
        ("watch", "", Severity::Note, "lost with the server"),
        ("callout", "callout-timeout = \"2s\"\n", Severity::Note, "no longer than 2000 ms"),
        ("nsm", "", Severity::Ok, "no lock is granted that is not on record"),
        ("nsm", "when-unprotected = \"grant\"\n", Severity::Note, "'heirlock status' names them"),
    ] {
        let found = configured(&with(mode, more));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].severity == severity && found[0].found.contains(words), "{}", found[0]);
    }
}

#[test]
fn where_the_lock_managers_port_says_nothing_or_is_not_taken_that_is_said() {
    let tree = monitored();
    let said = |first: &str, last: &str| {
        tree.put("/proc/sys/net/ipv4/ip_unprivileged_port_start", format!("{first}\n"));
        tree.put("/proc/sys/sunrpc/max_resvport", format!("{last}\n"));
        let found = under_nsm(&tree).into_iter().filter(|finding| finding.check == "lock-manager-port");
        found.map(|finding| (finding.severity, finding.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(said("1024", "1023"), []);
    let any_user = said("80", "1023");
    assert!(any_user[0].0 == Severity::Warning && any_user[0].1.contains("ports from 80 on"), "{any_user:?}");
    let refused = said("1024", "1024");
    assert!(refused[0].0 == Severity::LosesLocks && refused[0].1.contains("ports up to 1024"), "{refused:?}");
}

#[test]
fn keys_of_another_mode_are_said_with_the_mode_they_are_meant_for() {
    let keys =
        "mon-timeout = \"300ms\"\nwhen-unprotected = \"grant\"\nport = 700\ncallout-timeout = \"2s\"\n";
    let said = |mode: &str| {
        let found = configured(&with(mode, keys));
        let idle = found.iter().filter(|finding| finding.severity == Severity::Warning);
        idle.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!((said("watch").len(), said("callout").len(), said("nsm").len()), (4, 3, 1));
    assert!(
        said("nsm")[0].contains("capture.callout-timeout is set")
            && said("nsm")[0].contains("mode = \"callout\"")
    );
    // The shipped sample names every key with what it is anyway.
    let sample =
        crate::config::parse(Path::new("x"), include_str!("../../../../../dist/heirlock.toml")).unwrap();
    assert_eq!(wrong(&configured(&sample)), []);
}

#[test]
fn a_command_that_restarts_rpc_statd_has_no_place_beside_heirlock() {
    let restart = "[lock-manager]\nrestart-status-monitor = [\"restart\"]\n";
    assert_eq!(wrong(&configured(&with("nsm", restart))), [("capture", Severity::LosesLocks)]);
    assert_eq!(wrong(&configured(&with("callout", restart))), []);
}

#[test]
fn a_host_under_nsm_is_well_and_a_second_status_monitor_loses_locks() {
    let tree = monitored();
    let found = under_nsm(&tree);
    assert_eq!(wrong(&found), []);
    assert!(found.iter().any(|f| f.found.contains("held by systemd (1), heirlock (900)")), "{found:?}");
    tree.process(4711, "/usr/sbin/rpc.statd", 0);
    assert_eq!(wrong(&under_nsm(&tree)), [("rpc-statd", Severity::LosesLocks)]);
    tree.relink("/proc/4711/ns/net", "net:[2]");
    assert_eq!(wrong(&under_nsm(&tree)), [], "a container's");
    tree.remove("/etc/systemd/system/rpc-statd.service");
    let found = under_nsm(&tree);
    assert_eq!(wrong(&found), [("rpc-statd", Severity::LosesLocks)]);
    assert!(
        found[0].found.starts_with("/lib/systemd/system/rpc-statd.service is not masked"),
        "{}",
        found[0]
    );
}

#[test]
fn the_holder_of_the_socket_that_lockd_is_sent_to_is_named() {
    let tree = monitored();
    tree.remove("/proc/1/fd/7");
    let found = under_nsm(&tree);
    assert_eq!(wrong(&found), [("status-monitor-socket", Severity::Warning)]);
    assert!(found[0].found.contains("held by the agent alone, heirlock (900)"), "{}", found[0]);
    holder(&tree, 902, "heirlock", 5001);
    assert_eq!(wrong(&under_nsm(&tree)), [], "'heirlock supervise' holds it as well");
    tree.remove("/proc/900/fd/7");
    tree.process(902, "/usr/bin/unfsd", 0);
    tree.put("/proc/902/comm", "heirlock\n");
    let found = under_nsm(&tree);
    assert_eq!(wrong(&found), [("status-monitor-socket", Severity::LosesLocks)]);
    assert!(found[0].found.contains("held by unfsd (902) and not by heirlock"), "{}", found[0]);
    tree.remove("/proc/902/fd/7");
    let found = under_nsm(&tree);
    assert_eq!(wrong(&found), [("status-monitor-socket", Severity::LosesLocks)]);
    assert!(found[0].found.contains("where no process listens"), "{}", found[0]);
}

/// As `enable` leaves a host under callout, with an agent that listens; drop the listener and it is gone.
fn called_out() -> (Tree, UnixListener) {
    let tree = Tree::debian();
    tree.put(
        "/etc/nfs.conf.d/heirlock.conf",
        format!("[statd]\nha-callout={}\n", statd::callout(&tree.host()).display()),
    );
    tree.folder("/usr/local/lib/heirlock");
    symlink("/usr/bin/heirlock", tree.host().at(statd::callout(&tree.host()))).unwrap();
    // The link leads out of the tree; the test's own stands for it.
    tree.remove("/usr/local/lib/heirlock/heirlock-callout");
    tree.put("/usr/local/lib/heirlock/heirlock-callout", "program\n");
    for path in ["/usr/local/lib/heirlock/heirlock-callout", "/usr/bin/heirlock", "/"] {
        fs::set_permissions(tree.host().at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    tree.folder("/run/heirlock");
    let listener = UnixListener::bind(tree.host().at("/run/heirlock/callout.sock")).unwrap();
    (tree, listener)
}

fn under_callout(tree: &Tree) -> Vec<(&'static str, Severity)> {
    wrong(&live(&tree.host(), &in_mode("callout")))
}

#[test]
fn a_callout_that_is_not_named_or_not_ours_is_said() {
    let (tree, _listener) = called_out();
    assert_eq!(under_callout(&tree), []);
    tree.put("/etc/nfs.conf.d/zzz.conf", "[statd]\nha-callout=/usr/libexec/other\n");
    assert_eq!(under_callout(&tree), [("ha-callout", Severity::Warning)]);
    tree.put("/etc/nfs.conf.d/zzz.conf", "[statd]\nha-callout=/usr/local/lib/heirlock/heirlock-callout\n");
    assert_eq!(under_callout(&tree), [], "whichever file names it");
    tree.remove("/etc/nfs.conf.d/zzz.conf");
    tree.remove("/etc/nfs.conf.d/heirlock.conf");
    assert_eq!(under_callout(&tree), [("ha-callout", Severity::Warning)]);
}

#[test]
fn a_callout_that_rpc_statds_user_cannot_run_or_that_finds_no_agent_is_said() {
    let (tree, listener) = called_out();
    drop(listener);
    assert_eq!(under_callout(&tree), [("callout-socket", Severity::Warning)]);
    let (tree, _listener) = called_out();
    if chown(tree.host().at("/var/lib/nfs/sm"), Some(4711), None).is_err() {
        return crate::left_out::leave_out("root, which alone can give a folder away, for its last part");
    }
    fs::set_permissions(tree.host().at("/run/heirlock"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(under_callout(&tree), [("callout-socket", Severity::Warning)]);
    fs::set_permissions(tree.host().at("/run/heirlock"), fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(under_callout(&tree), []);
    let callout = tree.host().at("/usr/local/lib/heirlock/heirlock-callout");
    fs::set_permissions(callout, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(under_callout(&tree), [("ha-callout", Severity::Warning)]);
}

#[test]
fn an_rpc_statd_that_is_older_than_its_configuration_is_said() {
    let (tree, _listener) = called_out();
    tree.process(4711, "/usr/sbin/rpc.statd", 0);
    let written = fs::metadata(tree.host().at("/etc/nfs.conf.d/heirlock.conf")).unwrap().mtime();
    let ticks = i64::try_from(rustix::param::clock_ticks_per_second()).unwrap();
    let started = |seconds: i64| {
        let numbers = "0 ".repeat(19);
        tree.put("/proc/stat", format!("cpu 1\nbtime {}\n", written - 1000));
        tree.put("/proc/4711/stat", format!("4711 (rpc.statd) {numbers}{} 0\n", (1000 + seconds) * ticks));
    };
    started(5);
    assert_eq!(under_callout(&tree), []);
    started(-5);
    assert_eq!(under_callout(&tree), [("ha-callout", Severity::Warning)]);
}

#[test]
fn a_status_monitor_that_another_mode_keeps_away_is_said() {
    let tree = Tree::debian();
    for mode in ["watch", "callout"] {
        let found = |tree: &Tree| {
            wrong(&live(&tree.host(), &in_mode(mode))).contains(&("rpc-statd", Severity::LosesLocks))
        };
        assert!(!found(&tree), "{mode}");
        assert!(found(&monitored()), "{mode}");
    }
}

#[test]
fn rpc_statds_options_count_whatever_the_files_say() {
    let said = |tree: &Tree, mode: &str| wrong(&live(&tree.host(), &in_mode(mode)));
    let tree = Tree::with_statd();
    assert_eq!(said(&tree, "watch"), []);
    tree.relink("/proc/4711/cwd", "/var/lib/nfs/statd");
    assert_eq!(said(&tree, "watch"), [("state-directory", Severity::LosesLocks)]);
    // The same place under another name.
    symlink("nfs", tree.host().at("/var/lib/state")).unwrap();
    tree.relink("/proc/4711/cwd", "/var/lib/state");
    assert_eq!(said(&tree, "watch"), []);
    tree.put("/proc/4711/cmdline", "rpc.statd\0-n\x00192.0.2.10\0");
    assert_eq!(said(&tree, "watch"), [("status-monitor-address", Severity::Warning)]);
    let (tree, _listener) = called_out();
    tree.process(4711, "/usr/sbin/rpc.statd", 0);
    assert_eq!(said(&tree, "callout"), []);
    tree.put("/proc/4711/cmdline", "rpc.statd\0--ha-callout=/usr/sbin/other\0");
    let found = live(&tree.host(), &in_mode("callout"));
    assert_eq!(wrong(&found), [("ha-callout", Severity::Warning)]);
    assert!(found.iter().any(|f| f.found.contains("command line of rpc.statd (process 4711)")), "{found:?}");
}

#[test]
fn a_state_directory_of_another_user_is_said() {
    let tree = Tree::with_statd();
    // Only root can give a folder away.
    if chown(tree.host().at("/var/lib/nfs/sm"), Some(4711), None).is_err() {
        return;
    }
    tree.process(4711, "/usr/sbin/rpc.statd", 4711);
    assert_eq!(wrong(&live(&tree.host(), &in_mode("watch"))), []);
    tree.folder("/var/lib/nfs/statd/sm");
    chown(tree.host().at("/var/lib/nfs/statd/sm"), Some(4712), None).unwrap();
    tree.process(4711, "/usr/sbin/rpc.statd", 4712);
    assert_eq!(wrong(&live(&tree.host(), &in_mode("watch"))), [("state-directory", Severity::LosesLocks)]);
}
