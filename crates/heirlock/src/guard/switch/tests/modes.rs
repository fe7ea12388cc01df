//! The same with rpc.statd's place, or its callout, taken and given back.

use std::collections::BTreeSet;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;

use super::super::nsm::{SOCKET_FILE, SOCKET_TEXT, socket_unit};
use super::*;
use crate::config::CaptureMode;
use crate::guard::testing::in_mode;

fn modes() -> [&'static str; 3] {
    CaptureMode::ALL.all().map(CaptureMode::as_str)
}

fn enter(tree: &Tree, mode: &str) -> Vec<Step> {
    enable(&tree.host(), &in_mode(mode), false).unwrap()
}

fn leave(tree: &Tree, mode: &str) -> Vec<Step> {
    disable(&tree.host(), &in_mode(mode), false).unwrap()
}

/// The book of the last agent of this boot.
fn book(tree: &Tree, lines: &[&str]) {
    let boot = tree.host().text("/proc/sys/kernel/random/boot_id").unwrap();
    let lines: String = lines.iter().map(|line| format!("+{line}")).collect();
    tree.put("/run/heirlock/registrations", format!("{boot}{lines}"));
}

fn line(client: &str, cookie: char) -> String {
    let cookie = cookie.to_string().repeat(32);
    format!("0100007f 000186b5 00000003 00000010 {cookie} {client} nfs-a\n")
}

#[test]
fn in_every_mode_a_host_comes_back_to_the_byte_and_twice_is_once() {
    for mode in modes() {
        let tree = Tree::with_statd();
        let before = tree.listing();
        let plan = enable(&tree.host(), &in_mode(mode), true).unwrap();
        assert_eq!((tree.listing(), tree.calls()), (before.clone(), vec![]), "{mode}");
        let done = enter(&tree, mode);
        assert_eq!(outcomes(&plan, StepOutcome::Planned), outcomes(&done, StepOutcome::Done), "{mode}");
        assert_eq!(rivals::hazards(&tree.host(), &in_mode(mode)), [], "{mode}");
        let again = enter(&tree, mode);
        assert!(again.iter().all(|step| step.outcome == StepOutcome::AlreadySo), "{mode}: {again:?}");
        let (under_guard, calls) = (tree.listing(), tree.calls());
        let plan = disable(&tree.host(), &in_mode(mode), true).unwrap();
        assert_eq!((tree.listing(), tree.calls()), (under_guard, calls), "{mode}");
        let done = leave(&tree, mode);
        // Folders that turn out to be empty are removed besides.
        let done = outcomes(&done, StepOutcome::Done);
        let done: Vec<&str> = done
            .into_iter()
            .filter(|what| !what.starts_with("remove the folder") || what.ends_with("is empty"))
            .collect();
        assert_eq!(outcomes(&plan, StepOutcome::Planned), done, "{mode}");
        assert_eq!(tree.listing(), before, "{mode}");
    }
}

#[test]
fn a_capture_mode_names_all_units_that_it_starts_and_masks() {
    for mode in modes() {
        let tree = Tree::with_statd();
        enter(&tree, mode);
        let units = mode_of(&in_mode(mode)).units();
        let calls = tree.calls();
        let with =
            |verb: &str| calls.iter().filter_map(|call| call.strip_prefix(verb)).collect::<BTreeSet<_>>();
        let started = units_at_boot(&in_mode(mode));
        assert_eq!(with("enable --now "), started.into_iter().collect(), "{mode}");
        assert_eq!(with("mask "), [&[rivals::UNIT], units.masked].concat().into_iter().collect(), "{mode}");
    }
}

#[test]
fn rpc_statds_place_is_taken_sockets_first_and_given_back_before_sm_notify_is() {
    let tree = Tree::with_statd();
    enter(&tree, "nsm");
    leave(&tree, "nsm");
    let enabled = [
        "mask rpc-statd-notify.service",
        "daemon-reload",
        "enable --now heirlock.socket",
        "mask rpc-statd.service",
        "stop rpc-statd.service",
        "daemon-reload",
        "enable --now heirlock.service",
    ];
    let disabled = [
        "disable --now heirlock.socket",
        "disable --now heirlock.service",
        "unmask rpc-statd.service",
        "start rpc-statd.service",
        "unmask rpc-statd-notify.service",
        "daemon-reload",
    ];
    assert_eq!(tree.calls(), [&enabled[..], &disabled].concat());
}

#[test]
fn every_registration_is_handed_back_to_rpc_statd_and_nothing_else_is_taken() {
    let tree = Tree::with_statd();
    enter(&tree, "nsm");
    let (known, newer, unwritten) = (line("10.0.0.1", '1'), line("10.0.0.2", '3'), line("10.0.0.3", '4'));
    let (older, foreign) = (line("10.0.0.2", '2'), line("10.0.0.9", '9'));
    for (client, text) in [("10.0.0.1", &known), ("10.0.0.2", &older), ("10.0.0.9", &foreign)] {
        tree.put(&format!("/var/lib/nfs/sm/{client}"), text);
    }
    book(&tree, &[&known, &newer, &unwritten]);
    leave(&tree, "nsm");
    for (client, text) in
        [("10.0.0.1", known), ("10.0.0.2", newer), ("10.0.0.3", unwritten), ("10.0.0.9", foreign)]
    {
        let found = fs::read_to_string(tree.host().at(format!("/var/lib/nfs/sm/{client}"))).unwrap();
        assert_eq!(found, text);
    }
    assert!(!tree.exists("/run/heirlock/registrations"), "who is told from now on is not we");
}

#[test]
fn a_callout_is_linked_named_and_rpc_statd_restarted_after_the_agent() {
    let tree = Tree::with_statd();
    enter(&tree, "callout");
    let link = tree.host().at("/usr/local/lib/heirlock/heirlock-callout");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/usr/bin/heirlock"));
    tree.put("/usr/bin/heirlock-callout", "program\n");
    enable(&tree.host(), &in_mode("callout"), false).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/usr/bin/heirlock-callout"));
    let named = NfsConf::read(&tree.host()).get("statd", "ha-callout").unwrap();
    assert_eq!(named.text, "/usr/local/lib/heirlock/heirlock-callout");
    tree.put("/var/lib/nfs/sm/.heirlock-callouts", "add-client\0x\n");
    leave(&tree, "callout");
    assert!(!tree.exists("/var/lib/nfs/sm/.heirlock-callouts"));
    let calls = tree.calls();
    let expected = ["enable --now heirlock.service", "try-restart rpc-statd.service"];
    assert_eq!(calls[calls.len() - 6..][..2], expected);
    let expected = ["try-restart rpc-statd.service", "unmask rpc-statd-notify.service", "daemon-reload"];
    assert_eq!(calls[calls.len() - 3..], expected);
}

#[test]
fn a_package_brings_its_own_callout_and_socket() {
    let tree = Tree::debian();
    tree.put("/usr/lib/heirlock/heirlock-callout", "program\n");
    tree.put("/lib/systemd/system/heirlock.socket", SOCKET_TEXT);
    tree.put("/proc/self/net/if_inet6", "");
    let before = tree.listing();
    enter(&tree, "callout");
    assert!(
        nfs_conf_file::ours(&tree.host(), &in_mode("callout"))
            .text
            .ends_with("ha-callout=/usr/lib/heirlock/heirlock-callout\n")
    );
    assert!(!tree.exists("/usr/local/lib/heirlock"));
    enter(&tree, "nsm");
    assert!(!tree.exists(SOCKET_FILE));
    tree.put(SOCKET_FILE, "x"); // systemctl of the test looks for a unit there alone
    leave(&tree, "nsm");
    tree.remove(SOCKET_FILE);
    assert_eq!(tree.listing(), before.into_iter().chain(statd_runs(&tree)).collect());
}

#[test]
fn a_packages_socket_gives_way_where_another_port_is_configured_or_the_kernel_has_no_ipv6() {
    let tree = Tree::debian();
    tree.put("/lib/systemd/system/heirlock.socket", SOCKET_TEXT);
    enter(&tree, "nsm");
    let text = fs::read_to_string(tree.host().at(SOCKET_FILE)).unwrap();
    assert!(text.contains("=0.0.0.0:662\n") && !text.contains("=[::]:"), "{text}");
    leave(&tree, "nsm");

    let tree = Tree::debian();
    tree.put("/lib/systemd/system/heirlock.socket", SOCKET_TEXT);
    tree.put("/proc/self/net/if_inet6", "");
    let at_port = |port: u16| settings(&format!("[capture]\nmode = \"nsm\"\nport = {port}\n{SERVICE}"));
    enable(&tree.host(), &at_port(700), false).unwrap();
    let text = fs::read_to_string(tree.host().at(SOCKET_FILE)).unwrap();
    assert!(text.contains("ListenStream=0.0.0.0:700\n") && !text.contains(":662\n"), "{text}");
    disable(&tree.host(), &at_port(700), false).unwrap();
    assert!(!tree.exists(SOCKET_FILE));
}

/// rpc.statd was started, as it must be where heirlock was the status monitor until now.
fn statd_runs(tree: &Tree) -> Vec<(PathBuf, (u32, Vec<u8>))> {
    let mut found: Vec<_> = tree.listing().into_iter().collect();
    found.retain(|(path, _)| path.starts_with("proc/4711"));
    assert!(!found.is_empty());
    found
}

#[test]
fn from_each_mode_to_each_other_nothing_of_the_old_one_stays() {
    for (from, to) in
        modes().into_iter().flat_map(|from| modes().map(|to| (from, to))).filter(|(from, to)| from != to)
    {
        let (tree, fresh) = (Tree::with_statd(), Tree::with_statd());
        let before = tree.listing();
        enter(&tree, from);
        enter(&tree, to);
        enter(&fresh, to);
        let without_memory = |tree: &Tree| {
            let mut listing = tree.listing();
            listing.remove(Path::new("var/lib/heirlock/enabled.json"));
            // Folders stay until heirlock is left.
            listing.retain(|path, _| !path.ends_with("heirlock-store") && !tree.host().at(path).is_dir());
            listing
        };
        assert_eq!(
            without_memory(&tree).keys().collect::<Vec<_>>(),
            without_memory(&fresh).keys().collect::<Vec<_>>(),
            "{from} to {to}"
        );
        let text = |tree: &Tree| tree.host().text(NFS_CONF_FILE);
        assert_eq!(text(&tree), text(&fresh), "{from} to {to}");
        let again = tree
            .calls()
            .iter()
            .any(|call| call == "restart heirlock.service" || call == "stop heirlock.service");
        assert!(again, "{from} to {to}: the agent goes by the old mode still: {:?}", tree.calls());
        leave(&tree, to);
        assert_eq!(tree.listing(), before, "{from} to {to}");
    }
}

#[test]
fn a_run_that_failed_at_any_step_is_taken_back_and_one_of_giving_back_is_finished() {
    for (mode, verb, after) in modes().into_iter().flat_map(|mode| {
        ["mask", "daemon-reload", "enable", "stop", "disable", "unmask", "start", "try-restart"]
            .into_iter()
            .flat_map(move |verb| [(mode, verb, false), (mode, verb, true)])
    }) {
        let tree = Tree::with_statd();
        let before = tree.listing();
        let whole = fs::read_to_string(tree.host().systemctl.unwrap()).unwrap();
        break_systemctl(&tree, verb, after);
        let settings = in_mode(mode);
        let entered = enable(&tree.host(), &settings, false);
        let left = entered.and_then(|_| disable(&tree.host(), &settings, false));
        fs::write(tree.host().systemctl.unwrap(), whole).unwrap();
        if left.is_err() {
            leave(&tree, mode);
        }
        assert_eq!(tree.listing(), before, "{mode}: {verb} failed, after its work: {after}");
    }
}

#[test]
fn another_callout_is_named_and_nothing_is_touched() {
    let tree = Tree::debian();
    tree.put("/etc/nfs.conf.d/ctdb.conf", "[statd]\nha-callout=/usr/libexec/ctdb/statd-callout\n");
    let before = tree.listing();
    let refused = enable(&tree.host(), &in_mode("callout"), false).unwrap_err().to_string();
    assert!(refused.starts_with("/etc/nfs.conf.d/ctdb.conf says ha-callout=/usr/libexec/ctdb/"), "{refused}");
    assert_eq!((tree.listing(), tree.calls()), (before, vec![]));
    enter(&tree, "watch");
}

#[test]
fn a_callout_that_rpc_statds_user_could_not_run_is_refused() {
    let tree = Tree::debian();
    let mode = |path: &str, mode| {
        fs::set_permissions(tree.host().at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("/", 0o755);
    mode("/usr/bin/heirlock", 0o755);
    mode("/usr/bin", 0o700);
    if chown(tree.host().at("/var/lib/nfs/sm"), Some(4711), None).is_err() {
        return crate::left_out::leave_out("root, which alone can give a folder away, for its last part");
    }
    let refused = enable(&tree.host(), &in_mode("callout"), true).unwrap_err().to_string();
    let expected = "/usr/bin/heirlock can't be run by rpc.statd, for /usr/bin has mode 0700 and is not open to its user 4711;";
    assert!(refused.starts_with(expected), "{refused}");
    mode("/usr/bin", 0o755);
    enable(&tree.host(), &in_mode("callout"), true).unwrap();
}

#[test]
fn without_systemd_it_is_said_what_to_start_and_no_agent_is_robbed_of_its_registrations() {
    let tree = Tree::with_statd();
    let mut host = tree.host();
    host.systemctl = None;
    let (settings, before) = (in_mode("nsm"), tree.listing());
    let steps = enable(&host, &settings, false).unwrap();
    let left = outcomes(&steps, StepOutcome::Left);
    assert!(left[0].contains("have 'heirlock supervise' started at boot"), "{left:?}");
    assert!(left[1].starts_with("rpc.statd runs as process 4711, in heirlock's place"), "{left:?}");
    let socket = host.at("/run/heirlock/control.sock");
    let agent = UnixListener::bind(&socket).unwrap();
    let refused = disable(&host, &settings, false).unwrap_err().to_string();
    assert!(refused.contains("end 'heirlock supervise'"), "{refused}");
    drop(agent);
    fs::remove_file(socket).unwrap();
    let steps = disable(&host, &settings, false).unwrap();
    assert!(outcomes(&steps, StepOutcome::Left)[0].starts_with("start rpc.statd now"), "{steps:?}");
    assert_eq!((tree.listing(), tree.calls()), (before, vec![]));
}

#[test]
fn the_socket_unit_names_the_configured_port_and_what_the_kernel_has() {
    let tree = Tree::debian();
    let listens = |port: u16| {
        let settings = settings(&format!("[capture]\nmode = \"nsm\"\nport = {port}\n"));
        let text = socket_unit(&tree.host(), &settings);
        let lines = text.lines().filter(|line| line.starts_with("Listen"));
        lines.map(|line| line.rsplit_once('=').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listens(0), ["0.0.0.0:662", "0.0.0.0:662"], "no IPv6 in this kernel");
    tree.put("/proc/self/net/if_inet6", "");
    assert_eq!(listens(0), ["0.0.0.0:662", "0.0.0.0:662", "[::]:662", "[::]:662"]);
    assert_eq!(listens(4000), ["0.0.0.0:4000", "0.0.0.0:4000", "[::]:4000", "[::]:4000"]);
    assert_eq!(socket_unit(&tree.host(), &in_mode("nsm")), SOCKET_TEXT);
    let before = SOCKET_TEXT.lines().find_map(|line| line.strip_prefix("Before=")).unwrap();
    assert!(before.contains("nfs-server.service"), "{before}");
}
