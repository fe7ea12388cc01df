use super::super::file::KEYS;
use super::*;

const SAMPLE: &str = include_str!("../../../../../dist/heirlock.toml");

fn load(text: &str) -> Result<Settings, ConfigError> {
    Settings::parse(Path::new("/etc/heirlock/heirlock.toml"), text)
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

const LEAST: &str = "server = \"nfs-a\"\n[store]\npath = \"/srv/heirlock\"\n";

#[test]
fn the_least_that_can_be_said_has_the_documented_defaults() {
    let settings = load(LEAST).unwrap();
    assert_eq!(settings.state_directory, Path::new("/var/lib/nfs"));
    assert_eq!(settings.capture.tombstone_delay, Duration::from_secs(120));
    assert_eq!(settings.capture.forget_after, Duration::from_secs(7 * 86_400));
    assert_eq!(settings.lock_manager.strategy, Strategy::RestartNfs);
    assert_eq!(settings.lock_manager.settle_margin, Duration::from_secs(5));
    assert_eq!(settings.heartbeat.dead_after, Duration::from_secs(10));
    assert_eq!(settings.notify.rpcbind_port, 111);
}

#[test]
fn the_shipped_sample_loads_and_documents_every_key() {
    let settings = load(SAMPLE).expect("the sample is a configuration");
    assert!(!settings.services.is_empty());
    for key in KEYS {
        let last = key.rsplit('.').next().unwrap();
        let documented = [format!("{last} = "), format!("[{last}]"), format!("[[{last}]]")];
        assert!(documented.iter().any(|text| SAMPLE.contains(text)), "{key} is not in the sample");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_a_suggestion() {
    let text = format!("{LEAST}[[service]]\nname = \"nfs\"\nadresses = [\"10.0.0.10\"]\n");
    assert_eq!(
        error(&text),
        "/etc/heirlock/heirlock.toml, line 6: there is no key \"adresses\" here; did you mean \"addresses\"?"
    );
    let hook = error(&format!("{LEAST}[hooks]\nfense = [\"/bin/true\"]\n"));
    assert!(hook.contains("hooks.fense: there is no such hook; did you mean \"fence\"?"), "{hook}");
}

#[test]
fn what_is_wrong_is_said_with_what_was_expected_and_found() {
    for (text, part) in [
        ("server = \"a/b\"\n[store]\npath = \"/x\"\n", "server: a server name is made of letters"),
        ("server = \"a\"\n", "store: the section is missing"),
        ("server = \"a\"\n[store]\npath = \"x\"\n", "store.path: expected a path from the root, found \"x\""),
        ("server = \"a\"\n[store]\ntype = \"etcd\"\npath = \"/x\"\n", "not part of this version"),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[capture]\nmode = \"magic\"\n", "watch, callout or nsm"),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[capture]\nmon-timeout = \"501ms\"\n", "at most 500 ms"),
        (
            "server = \"a\"\n[store]\npath = \"/x\"\n[capture]\nwhen-unprotected = \"pray\"\n",
            "refuse or grant",
        ),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[capture]\ntombstone-delay = \"soon\"\n", "found \"soon\""),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[heartbeat]\ndead-after = \"1s\"\n", "at least 3 s"),
        (
            "server = \"a\"\n[store]\npath = \"/x\"\n[lock-manager]\nstrategy = \"magic\"\n",
            "expected one of notify",
        ),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[hooks]\nfence = []\n", "expected a program"),
        (
            "server = \"a\"\n[store]\npath = \"/x\"\n[[service]]\nname = \"host\"\naddresses = [\"10.0.0.1\"]\n",
            "reserved",
        ),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[[service]]\nname = \"n\"\n", "at least one"),
        (
            "server = \"a\"\n[store]\npath = \"/x\"\n[[service]]\nname = \"n\"\naddresses = [\"nfs\"]\n",
            "an IP address",
        ),
    ] {
        let said = error(text);
        assert!(said.contains(part), "{text}\n→ {said}");
    }
}

#[test]
fn automatic_needs_a_fence_and_a_store_that_all_see() {
    let service = "[[service]]\nname = \"nfs\"\naddresses = [\"10.0.0.10\"]\nmode = \"automatic\"\n";
    let unshared = error(&format!("{LEAST}{service}"));
    assert!(unshared.contains("store.shared = true"), "{unshared}");
    let unfenced = error(&format!("{LEAST}shared = true\n{service}"));
    assert!(unfenced.contains("hooks.fence"), "{unfenced}");
    load(&format!("{LEAST}shared = true\n{service}[hooks]\nfence = [\"/sbin/fence\"]\n")).unwrap();
}

#[test]
fn two_services_share_neither_name_nor_address() {
    let service = "[[service]]\nname = \"nfs\"\naddresses = [\"10.0.0.10\"]\n";
    assert!(error(&format!("{LEAST}{service}{service}")).contains("two of this name"));
    let other = service.replace("nfs", "home");
    assert!(error(&format!("{LEAST}{service}{other}")).contains("belongs to another service too"));
}

#[test]
fn a_command_may_have_a_time_limit_of_its_own() {
    let text =
        format!("{LEAST}[hooks]\nfence = {{ command = [\"/sbin/fence\", \"-x\"], time-limit = \"90s\" }}\n");
    let fence = load(&text).unwrap().hooks.fence.unwrap();
    assert_eq!((fence.argv.len(), fence.time_limit), (2, Duration::from_secs(90)));
}
