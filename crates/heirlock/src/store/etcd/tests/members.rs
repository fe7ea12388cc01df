//! Several members, certificates and users.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use heirlock_core::store::StoreErrorKind;

use super::*;
use crate::store::etcd::http::{Exchange, Http, Question, TlsFiles};
use crate::store::etcd::testing::certificates::{authority, can_be_made, certificate};
use crate::store::{PlaceFinding, Weight};

#[test]
fn of_three_members_one_may_die_and_the_store_goes_on_and_without_a_majority_it_is_away() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let mut settings = etcd.settings(PREFIX);
    let store = EtcdStore::at(&settings);
    store.set_up().unwrap();
    begun(&store, 300);
    let by = claim(1, "a");
    store.commit(&nfs(), &by, &[put("all")]).unwrap();
    // Each of them once: among them is the leader, and the one that was asked so far.
    for member in 0..3 {
        etcd.kill(member);
        let client = format!("without-{member}");
        store.commit(&nfs(), &by, &[put(&client)]).unwrap();
        assert!(records(&store).contains_key(&key(&client)));
        store
            .beat(&ServerReport { beat: member as u64 + 1, ..ServerReport::new(server("a"), "run") })
            .unwrap();
        etcd.restart(member);
        etcd.wait_for(member);
    }
    etcd.kill(0);
    etcd.kill(1);
    // A member without a majority never answers: here it is asked for a little while.
    settings.answer_time = Duration::from_millis(300);
    let impatient = EtcdStore::at(&settings);
    let failures = [
        impatient.newest_claim(&nfs()).err(),
        impatient.claim(&nfs(), &claim(2, "b")).err(),
        impatient.commit(&nfs(), &by, &[put("lost")]).err(),
        impatient.load(&nfs(), Generation(1)).err(),
        impatient.hearts().err(),
    ];
    for (call, error) in failures.into_iter().enumerate() {
        let error = error.unwrap();
        assert_eq!(*error.kind(), StoreErrorKind::Unavailable, "call {call}: {error}");
        assert!(error.to_string().contains("majority"), "call {call}: {error}");
    }
    etcd.restart(0);
    etcd.wait_for(0);
    store.commit(&nfs(), &by, &[put("back")]).unwrap();
    assert_eq!(
        store.newest_claim(&nfs()).unwrap(),
        Some(by),
        "the claim that got no answer was not made later"
    );
    assert_eq!(records(&store).len(), 300 + 1 + 3 + 1);
}

/// An etcd over TLS, whose users are switched on: `agent` may read and write below the prefix, and nothing else.
fn secured(folder: &Path) -> Option<Etcd> {
    if !can_be_made() {
        return None;
    }
    authority(folder);
    let (own, own_key) = certificate(folder, "own", "/O=heirlock");
    let mut etcd = Etcd::start_secured(1, Some(&[folder.join("ca.crt"), own, own_key]))?;
    let settings = etcd.settings(PREFIX);
    etcd.store(PREFIX).set_up().unwrap();
    let files = TlsFiles { ca: settings.ca, own: settings.certificate };
    let http = Http::new(&settings.endpoints, files, settings.connect_time);
    let ask = |path: &'static str, body: &str| {
        let question = Question { path, body: body.as_bytes(), token: None, time_max: settings.answer_time };
        let reply = http.ask(0, &question).unwrap();
        assert_eq!(reply.status, 200, "{path} {body}: {}", String::from_utf8_lossy(&reply.body));
    };
    let [from, to] = ["/heirlock/", "/heirlock0"].map(|key| STANDARD.encode(key));
    ask("/v3/auth/user/add", r#"{"name":"root","password":"r"}"#);
    ask("/v3/auth/role/add", r#"{"name":"root"}"#);
    ask("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#);
    ask("/v3/auth/user/add", r#"{"name":"agent","password":"s3cret"}"#);
    ask("/v3/auth/role/add", r#"{"name":"heirlock"}"#);
    ask(
        "/v3/auth/role/grant",
        &format!(
            r#"{{"name":"heirlock","perm":{{"permType":"READWRITE","key":"{from}","range_end":"{to}"}}}}"#
        ),
    );
    ask("/v3/auth/user/grant", r#"{"user":"agent","role":"heirlock"}"#);
    ask("/v3/auth/enable", "{}");
    etcd.set_user("agent", password(folder, "password", "s3cret"));
    Some(etcd)
}

fn password(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, format!("{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn over_tls_with_a_user_the_store_works_and_each_thing_that_is_wrong_is_said_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let Some(mut etcd) = secured(folder) else { return };
    let settings = etcd.settings(PREFIX);
    let store = EtcdStore::at(&settings);
    begun(&store, 300);
    let by = claim(1, "a");
    store.commit(&nfs(), &by, &[put("first")]).unwrap();
    // A member that begins again has forgotten all tokens.
    etcd.kill(0);
    etcd.restart(0);
    etcd.wait_for(0);
    store.commit(&nfs(), &by, &[put("second")]).unwrap();
    assert_eq!(records(&store).len(), 302);

    let said = |change: &dyn Fn(&mut EtcdSettings)| {
        let mut wrong = settings.clone();
        wrong.answer_time = Duration::from_secs(5);
        change(&mut wrong);
        let error = EtcdStore::at(&wrong).services().unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        error
    };
    let wrong_password = password(folder, "wrong", "s3cret-and-more");
    let named = certificate(folder, "named", "/CN=agent");
    let foreign = tempfile::tempdir().unwrap();
    authority(foreign.path());
    let unreadable = folder.join("unreadable");
    std::fs::write(&unreadable, "s3cret\n").unwrap();
    let all: [(String, &str); 7] = [
        (said(&|settings| settings.user = None), "store.user"),
        (
            said(&|settings| settings.user = Some(("agent".into(), wrong_password.clone()))),
            "the password in store.password-file",
        ),
        (said(&|settings| settings.user = Some(("agent".into(), unreadable.clone()))), "chmod 0600"),
        (said(&|settings| settings.certificate = Some(named.clone())), "common name (CN)"),
        (said(&|settings| settings.certificate = None), "certificate"),
        (said(&|settings| settings.ca = Some(foreign.path().join("ca.crt"))), "certificate"),
        (said(&|settings| settings.prefix = "/another/".into()), "store.prefix"),
    ];
    for (error, part) in all {
        assert!(error.contains(part), "{part}: {error}");
    }
    let other = EtcdSettings { prefix: "/another/".into(), ..settings };
    let refused = EtcdStore::at(&other).set_up().unwrap_err().to_string();
    assert!(refused.contains("permission denied"), "no agent touches another cluster's keys: {refused}");
}

#[test]
fn doctor_names_what_ails_members_certificates_and_roles() {
    let tree = crate::host::testing::Tree::debian();
    tree.folder("/certificates");
    let (host, folder) = (tree.host(), tree.host().at("/certificates"));
    let folder = folder.as_path();
    let Some(etcd) = secured(folder) else { return };
    // As the host's configuration names them.
    let named_on_host = |path: PathBuf| Path::new("/").join(path.strip_prefix(host.at("/")).unwrap());
    let text = "server = \"nfs-a\"\n[store]\ntype = \"etcd\"\nendpoints = [\"http://127.0.0.1:1\"]\n";
    let settings = crate::config::parse(Path::new("test.toml"), text).unwrap();
    let said = |etcd: EtcdSettings| {
        let store = EtcdStore::at(&etcd);
        let mut settings = settings.clone();
        settings.store.etcd = Some(EtcdSettings {
            ca: etcd.ca.map(named_on_host),
            certificate: etcd.certificate.map(|(own, key)| (named_on_host(own), named_on_host(key))),
            user: etcd.user.map(|(name, password)| (name, named_on_host(password))),
            ..etcd
        });
        let found = store.check(&host, &settings).into_iter().map(|finding| match finding {
            PlaceFinding::Said(said) => said,
            other => panic!("{other:?}"),
        });
        found.map(|said| (said.weight, said.found)).collect::<Vec<_>>()
    };
    let has = |found: &[(Weight, String)], weight, part: &str| {
        let is = found.iter().any(|(found, said)| *found == weight && said.contains(part));
        assert!(is, "{part}: {found:?}");
    };
    let well = said(etcd.settings(PREFIX));
    has(&well, Weight::Note, "is the only endpoint");
    // Two days after it was made, to the second.
    has(&well, Weight::Warning, "own.crt: it ends in ");
    assert_eq!(well.len(), 3, "and the authority's: {well:?}");
    let root = password(folder, "root", "r");
    let wide = EtcdSettings { user: Some(("root".into(), root.clone())), ..etcd.settings(PREFIX) };
    has(&said(wide), Weight::Warning, "the user root may read keys beyond /heirlock/");
    let named = EtcdSettings {
        certificate: Some(certificate(folder, "named", "/CN=agent")),
        ..etcd.settings(PREFIX)
    };
    has(&said(named), Weight::LosesLocks, "common name (CN)");
    std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut away = etcd.settings(PREFIX);
    away.user = Some(("root".into(), root));
    away.endpoints.push("https://127.0.0.1:1".into());
    let found = said(away);
    has(&found, Weight::Warning, "https://127.0.0.1:1: expected an answer, found none");
    has(&found, Weight::Warning, "chmod 0600");
}
