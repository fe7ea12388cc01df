use super::*;
use std::fs;

use crate::host::testing::Tree;

/// A host whose /proc the test writes.
struct FakeProc(Tree);

impl FakeProc {
    fn new() -> Self {
        let fake = Self(Tree::new());
        fake.put("sys/kernel/random/boot_id", "b00t\n");
        fake.put("self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
        fake.put("uptime", "100.50 300.00\n");
        fake.put("sys/fs/nfs/nlm_grace_period", "15\n");
        fake
    }

    fn put(&self, path: &str, text: &str) {
        self.0.put(&format!("/proc/{path}"), text);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.host().proc(path)
    }

    fn lockd(&self, pid: u32, started: u64, ignored: &str) {
        let stat = format!("{pid} (lockd) I 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0 0\n");
        self.put(&format!("{pid}/stat"), &stat);
        self.put(&format!("{pid}/status"), &format!("Name:\tlockd\nSigIgn:\t{ignored}\n"));
    }

    fn kernel(&self) -> Kernel {
        let settings = LockManagerSettings {
            kind: crate::config::LockManagerKind::Kernel,
            strategy: Strategy::RestartNfs,
            convey: heirlock_core::takeover::Conveyance::Generate,
            settle_margin: Duration::from_secs(5),
            prepared_time: Duration::from_secs(30),
            restart_nfs: None,
            restart_status_monitor: None,
            recognise: None,
            incarnation: None,
            grace_period: None,
        };
        let host = self.0.host();
        Kernel {
            settings,
            exports: Exports::new(&host, Path::new("/")),
            nlm: Nlm { host, rpcbind_port: 111 },
            is_status_monitor: false,
            last_seen: AtomicU32::new(NONE),
        }
    }
}

fn script(text: String) -> Command {
    Command { argv: vec!["sh".into(), "-c".into(), text], time_limit: Duration::from_secs(5) }
}

fn refusal(kernel: &Kernel, strategy: Strategy) -> String {
    kernel.usable(strategy).unwrap_err().to_string()
}

#[test]
fn needs_of_an_adoption_on_the_host_are_looked_for_before() {
    let proc = FakeProc::new();
    let mut kernel = proc.kernel();
    kernel.nlm.rpcbind_port = 9;
    kernel.settings.restart_nfs =
        Some(Command { argv: vec!["/no/such/program".into()], time_limit: Duration::from_secs(5) });
    proc.0.put("/etab", "/srv/here\t*(rw)\n");
    let exports = ["/srv/here", "/srv/elsewhere"].map(PathBuf::from);
    let checks = |strategy| {
        let missing = kernel.missing(strategy, &exports);
        missing.into_iter().map(|one| (one.check, one.found)).collect::<Vec<_>>()
    };
    let found = checks(Strategy::RestartNfs);
    assert_eq!(found.iter().map(|one| one.0).collect::<Vec<_>>(), ["command", "rpcbind", "export"]);
    assert!(found[0].1.contains("restart-nfs: /no/such/program") && found[2].1.contains("/srv/elsewhere"));
    let found = checks(Strategy::Notify);
    assert_eq!(found.iter().map(|one| one.0).collect::<Vec<_>>(), ["rpcbind", "export"]);
}

#[test]
fn a_look_finds_the_kernels_lockd_and_no_program_of_that_name() {
    let proc = FakeProc::new();
    proc.put("77/stat", "77 (lockd) S 1 77 77 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 50 0 0\n");
    assert_eq!(proc.kernel().observe().unwrap().start, None, "a process that calls itself so");
    proc.lockd(91, 8_000, "ffffffffffffffff");
    proc.put("fs/nfsd/threads", "8\n");
    proc.put("fs/lockd/nlm_end_grace", "N\n\0"); // as Linux 6.1 gives it
    let seen = proc.kernel().observe().unwrap();
    let start = Some("91@8000".to_owned());
    assert_eq!(seen, Observation { boot: "b00t".into(), start, in_grace: Some(true), serving: true });
}

#[test]
fn a_lockd_that_ended_is_not_taken_for_the_process_that_has_its_number_now() {
    let proc = FakeProc::new();
    proc.lockd(91, 8_000, "0");
    let kernel = proc.kernel();
    let start = || kernel.observe().unwrap().start;
    assert_eq!(start().as_deref(), Some("91@8000"));
    proc.put("91/stat", "91 (sh) S 1 91 91 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 9000 0 0\n");
    assert_eq!(start(), None);
    proc.lockd(95, 9_100, "0");
    assert_eq!(start().as_deref(), Some("95@9100"), "and the next one is found");
    proc.lockd(95, 9_200, "0");
    assert_eq!(start().as_deref(), Some("95@9200"));
}

#[test]
fn grace_is_as_long_as_lockd_says_and_as_old_as_its_thread() {
    let proc = FakeProc::new();
    proc.lockd(91, 8_000, "0");
    assert_eq!(proc.kernel().grace_length().unwrap(), Duration::from_secs(15));
    proc.put("sys/fs/nfs/nlm_timeout", "10\n");
    assert_eq!(proc.kernel().grace_length().unwrap(), Duration::from_secs(20), "in whole timeouts");
    assert_eq!(proc.kernel().grace_age().unwrap(), Some(Duration::from_millis(20_500)));
    proc.put("sys/fs/nfs/nlm_grace_period", "0\n");
    assert_eq!(proc.kernel().grace_length().unwrap(), Duration::from_secs(50));
}

#[test]
fn a_lockd_that_ignores_sigkill_is_refused_by_name_and_the_way_out_is_named() {
    let proc = FakeProc::new();
    let kernel = proc.kernel();
    let stopped = refusal(&kernel, Strategy::RestartLockManager);
    assert!(stopped.contains("lockd doesn't run"), "{stopped}");
    proc.lockd(91, 8_000, "ffffffffffffffff");
    let ignores = refusal(&kernel, Strategy::RestartLockManager);
    assert!(ignores.contains("ignores SIGKILL") && ignores.contains("'restart-nfs' can"), "{ignores}");
    proc.lockd(91, 8_000, "fffffffffffffeff");
    kernel.usable(Strategy::RestartLockManager).unwrap();
}

#[test]
fn a_mount_that_holds_lockd_up_refuses_a_restart_of_nfs() {
    let proc = FakeProc::new();
    let mut kernel = proc.kernel();
    kernel.settings.restart_nfs = Some(script("true".into()));
    kernel.usable(Strategy::RestartNfs).unwrap();
    proc.put("self/mounts", "f:/x /mnt/x nfs rw,vers=3,addr=10.0.0.9 0 0\n");
    let held = refusal(&kernel, Strategy::RestartNfs);
    assert!(held.contains("/mnt/x is mounted here by NFSv3"), "{held}");
    proc.put("self/mounts", "f:/x /mnt/x nfs rw,vers=3,nolock 0 0\nf:/y /mnt/y nfs4 rw,vers=4.2 0 0\n");
    kernel.usable(Strategy::RestartNfs).unwrap();
}

#[test]
fn a_mount_that_holds_lockd_up_is_said_where_the_strategy_does_not_refuse_it() {
    let proc = FakeProc::new();
    let said = |strategy| proc.kernel().remarks(strategy).iter().map(|one| one.check).collect::<Vec<_>>();
    let nothing: Vec<&str> = Vec::new();
    assert_eq!((said(Strategy::RestartNfs), said(Strategy::Notify)), (nothing.clone(), nothing.clone()));
    proc.put("self/mounts", "f:/x /mnt/x nfs rw,vers=3 0 0\n");
    assert_eq!((said(Strategy::RestartNfs), said(Strategy::Notify)), (nothing.clone(), vec!["nfs-mount"]));
    proc.put("self/mounts", "f:/x /mnt/x nfs rw,vers=3,nolock 0 0\nf:/y /mnt/y nfs4 rw,vers=4.2 0 0\n");
    assert_eq!(said(Strategy::Notify), nothing);
}

#[test]
fn a_path_with_a_blank_is_exported_as_it_is_spelt_on_the_disk() {
    let proc = FakeProc::new();
    proc.0.put("/etab", "/srv/homes\t*(rw)\n/srv/a\\040b\t*(rw)\n");
    assert_eq!(proc.kernel().exported().unwrap(), ["/srv/homes", "/srv/a b"].map(PathBuf::from));
    proc.0.remove("/etab");
    assert!(proc.kernel().exported().unwrap().is_empty(), "nothing was exported yet");
    proc.0.folder("/etab");
    assert!(proc.kernel().exported().is_err(), "what is exported is unknown");
}

#[test]
fn without_systemd_or_a_command_nfs_cannot_be_restarted() {
    let refused = refusal(&FakeProc::new().kernel(), Strategy::RestartNfs);
    assert!(
        refused.contains("systemd doesn't run here") && refused.contains("lock-manager.restart-nfs"),
        "{refused}"
    );
}

#[test]
fn a_restart_is_believed_only_when_another_lockd_serves() {
    let proc = FakeProc::new();
    proc.lockd(91, 8_000, "0");
    let at = proc.path("");
    let at = at.display();
    let mut kernel = proc.kernel();
    kernel.settings.restart_nfs = Some(script(format!(
        "mv {at}/91 {at}/92; sed -i 's/91 (lockd)/92 (lockd)/; s/ 8000 / 9000 /' {at}/92/stat; mkdir -p {at}/fs/nfsd; echo 8 > {at}/fs/nfsd/threads"
    )));
    let recognised = kernel.recognise(Strategy::RestartNfs).unwrap();
    assert_eq!(recognised.observation.start.as_deref(), Some("92@9000"));
    assert!(!recognised.in_place);
}

#[test]
fn the_error_of_a_command_that_fails_holds_its_output() {
    let proc = FakeProc::new();
    let mut kernel = proc.kernel();
    kernel.settings.restart_nfs = Some(script("echo no such device >&2; exit 1".into()));
    let error = kernel.recognise(Strategy::RestartNfs).unwrap_err().to_string();
    assert!(error.contains("exit status 1") && error.contains("no such device"), "{error}");
}

#[test]
fn an_address_to_let_go_is_written_in_one_line_and_without_nfsd_there_is_nothing() {
    let proc = FakeProc::new();
    let path = Path::new("/srv/nfs");
    proc.kernel().let_go_of_file_system(path).unwrap();
    assert!(!proc.path("fs/nfsd/unlock_filesystem").exists());
    proc.put("fs/nfsd/unlock_ip", "");
    proc.put("fs/nfsd/unlock_filesystem", "");
    proc.kernel().let_go("192.0.2.10".parse().unwrap()).unwrap();
    proc.kernel().let_go_of_file_system(path).unwrap();
    let written = |name: &str| fs::read_to_string(proc.path("fs/nfsd").join(name)).unwrap();
    assert_eq!(
        (written("unlock_ip"), written("unlock_filesystem")),
        ("192.0.2.10\n".into(), "/srv/nfs\n".into())
    );
}
