//! Certificates for an etcd of the tests' own, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the tests have members.
const MEMBERS: &str = "subjectAltName=IP:127.0.0.1,IP:192.0.2.1,IP:192.0.2.2,IP:192.0.2.3\n";

/// Whether certificates can be made here; where not, that is noted.
pub(crate) fn can_be_made() -> bool {
    let can = Command::new("openssl").arg("version").output().is_ok();
    if !can {
        crate::left_out::leave_out("openssl, for certificates");
    }
    can
}

/// Makes the authority of this folder: `ca.crt`.
pub(crate) fn authority(folder: &Path) -> PathBuf {
    let path = |name: &str| folder.join(name);
    let text = |name: &str| path(name).display().to_string();
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &text("ca.key")]);
    let words = ["req", "-x509", "-new", "-key", &text("ca.key"), "-subj", "/O=lab", "-days", "2", "-out"];
    openssl(&[&words[..], &[&text("ca.crt")]].concat());
    path("ca.crt")
}

/// A certificate and its key, signed by the authority in this folder; with a common name or without.
pub(crate) fn certificate(folder: &Path, name: &str, subject: &str) -> (PathBuf, PathBuf) {
    let path = |end: &str| folder.join(format!("{name}.{end}"));
    let text = |path: PathBuf| path.display().to_string();
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &text(path("key"))]);
    openssl(&["req", "-new", "-key", &text(path("key")), "-subj", subject, "-out", &text(path("csr"))]);
    std::fs::write(path("ext"), MEMBERS).unwrap();
    let (ca, ca_key) = (text(folder.join("ca.crt")), text(folder.join("ca.key")));
    let [request, extensions, made] = ["csr", "ext", "crt"].map(|end| text(path(end)));
    let words =
        ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2"];
    openssl(&[&words[..], &["-extfile", &extensions, "-out", &made]].concat());
    (path("crt"), path("key"))
}

fn openssl(arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}
