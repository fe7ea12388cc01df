//! Tests that change mounts, the network or processes run in namespaces of their own: only root can make them.

use std::process::Command;

/// Set where a test runs in its namespaces.
const INSIDE: &str = "HEIRLOCK_TEST_INSIDE";

/// `true` where the test runs in namespaces of its own. Elsewhere it is run there, and this returns `false` when that run
/// has passed. Without root, or where `others_are_here` is `false`, the test is left out; `needs` names all that it needs.
///
/// # Panics
/// Where the test failed in its namespaces, or `unshare` (util-linux) can't be run.
pub(crate) fn is_inside(test: &str, others_are_here: bool, needs: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !rustix::process::geteuid().is_root() || !others_are_here {
        crate::left_out::leave_out(needs);
        return false;
    }
    let ran = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare (util-linux)");
    assert!(ran.success(), "see above");
    false
}
