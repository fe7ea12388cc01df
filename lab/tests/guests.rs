//! The properties of guests that every scenario relies on.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../../crates/heirlock/tests/left_out/mod.rs"]
mod left_out;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use heirlock_lab::capture::{Capture, WATCH_ALONE};
use heirlock_lab::cluster::{CLIENT1, Cluster, NFS_A, NFS_B, NFS_C};
use heirlock_lab::release::Release;
use heirlock_lab::runner::{Plan, run};
use heirlock_lab::scenario::{EVERYWHERE, Scenario};
use heirlock_lab::stop::Stop;

const FURNITURE: Scenario = Scenario {
    name: "furniture",
    about: "guests have what scenarios need",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: WATCH_ALONE,
    run: furniture,
};

fn furniture(lab: &mut Cluster) -> anyhow::Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1])?;
    // The programs under test are on the path; here stand-ins.
    for program in ["heirlock", "heirlock-callout"] {
        let found = lab.ok(NFS_A, &format!("command -v {program}; {program} it runs"))?;
        ensure!(found == format!("/usr/local/bin/{program}\nit runs\n"), "{found}");
    }
    let config = "[services.homes]\naddresses = ['10.99.0.10'] # it's \"quoted\" $HOME\n";
    lab.write_file(NFS_A, "/etc/heirlock/heirlock.toml", config)?;
    ensure!(lab.ok(NFS_A, "cat /etc/heirlock/heirlock.toml")? == config);
    for folder in ["/etc", "/run", "/var/lib/nfs/sm", "/var/lib/heirlock", "/srv", "/mnt", "/tmp"] {
        lab.ok(NFS_A, &format!("touch {folder}/x && rm {folder}/x"))?;
    }
    ensure!(lab.ok(NFS_A, "hostname; getent hosts nfs-b homes")?.starts_with("nfs-a\n10.99.0.2"));

    // One folder for all, in which link(2) lets one win.
    lab.ok(NFS_A, "echo a > /srv/store/mine && ln /srv/store/mine /srv/store/claim")?;
    ensure!(lab.ok(NFS_B, "cat /srv/store/claim")? == "a\n");
    ensure!(lab.ok(NFS_B, "ln /srv/store/mine /srv/store/claim 2>/dev/null || echo lost")? == "lost\n");
    ensure!(fs::read_to_string(lab.store().join("claim"))? == "a\n");

    // A guest that loses power keeps nothing of its own, and comes back.
    lab.ok(NFS_A, "touch /var/lib/nfs/sm/x")?;
    lab.power_loss(NFS_A)?;
    let error = lab.ok(NFS_A, "true").unwrap_err().to_string();
    ensure!(error.contains("nfs-a is off"), "{error}");
    lab.switch_on(&[NFS_A])?;
    ensure!(lab.ok(NFS_A, "ls /var/lib/nfs/sm; cat /srv/store/claim")? == "a\n");

    lab.cable(NFS_B, false)?;
    let error = lab.run(NFS_B, "true", Duration::from_secs(1)).unwrap_err().to_string();
    ensure!(error.contains("nfs-b gave no answer"), "{error}");
    lab.cable(NFS_B, true)?;
    lab.wait_until(NFS_B, "true")?;

    lab.without_statd();
    lab.switch_on(&[NFS_C])?;
    ensure!(lab.ok(NFS_C, "rpcinfo -p | grep -c status || true")? == "0\n");
    ensure!(lab.ok(NFS_A, "rpcinfo -p | grep -c status")? != "0\n");
    Ok(())
}

#[test]
fn guests_have_what_scenarios_need() {
    let here = rustix::process::geteuid().is_root()
        && Path::new("/dev/net/tun").exists()
        && Path::new("/usr/bin/linux.uml").exists();
    if !here {
        left_out::leave_out("root, /dev/net/tun and the package user-mode-linux");
        return;
    }
    let built = tempfile::tempdir().unwrap();
    for program in ["heirlock", "heirlock-callout"] {
        fs::copy("/bin/echo", built.path().join(program)).unwrap();
    }
    let plan = Plan {
        scenarios: vec![(&FURNITURE, Capture::Watch)],
        release: Release::Bookworm,
        root: Release::Bookworm.root(None).unwrap(),
        jobs: 1,
        keep: false,
        program: PathBuf::from(env!("CARGO_BIN_EXE_heirlock-lab")),
        heirlock: Some(built.path().join("heirlock")),
    };
    let outcomes = run(&plan, &Stop::on_signals().unwrap());
    assert_eq!(outcomes.len(), 1);
    assert!(outcomes[0].passed, "{:?}", outcomes[0]);
}
