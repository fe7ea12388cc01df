use super::*;

const SAMPLE: &str = include_str!("../../../../../dist/heirlock.toml");

fn load(text: &str) -> Result<Settings, ConfigError> {
    parse(Path::new("/etc/heirlock/heirlock.toml"), text)
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
    assert_eq!(settings.host.names.len(), 1, "an empty list stands for the server's name");
    let keys = keys_of(SAMPLE);
    for expected in ["store.path", "service.addresses", "hooks.fence", "capture.mon-timeout"] {
        assert!(keys.contains(expected), "{keys:?}");
    }
    for key in keys {
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
    assert!(hook.contains("line 5: there is no key \"fense\" here; did you mean \"fence\"?"), "{hook}");
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_what_was_expected_and_found() {
    for (text, part) in [
        ("server = \"a/b\"\n[store]\npath = \"/x\"\n", "server: a server name is made of letters"),
        ("server = \"a\"\n", "store: the section is missing"),
        ("server = \"a\"\n[store]\npath = \"x\"\n", "store.path: expected a path from the root, found \"x\""),
        (
            "server = \"a\"\n[store]\ntype = \"redis\"\npath = \"/x\"\n",
            "expected dir or etcd, found \"redis\"",
        ),
        ("server = \"a\"\n[store]\npath = \"/x\"\nuser = \"u\"\n", "store of type \"dir\" has no such key"),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[capture]\nmode = \"magic\"\n", "watch, callout or nsm"),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[capture]\nmon-timeout = \"501ms\"\n", "at most \"500ms\""),
        (
            "server = \"a\"\n[store]\npath = \"/x\"\n[capture]\nwhen-unprotected = \"pray\"\n",
            "refuse or grant",
        ),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[capture]\ntombstone-delay = \"soon\"\n", "found \"soon\""),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[heartbeat]\ndead-after = \"1s\"\n", "at least \"3s\""),
        ("server = \"a\"\n[store]\npath = \"/x\"\n[lock-manager]\nstrategy = \"magic\"\n", "strategy"),
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

fn with_candidates(candidates: &str, more: &str) -> String {
    format!(
        "{LEAST}shared = true\n[hooks]\nfence = {{ command = [\"/sbin/fence\"], time-limit = \"40s\" }}\n{more}\
         [[service]]\nname = \"nfs\"\naddresses = [\"10.0.0.10\"]\nmode = \"automatic\"\ncandidates = {candidates}\n"
    )
}

#[test]
fn candidates_are_an_order_and_a_list_in_it_has_equals() {
    for (written, shown) in [
        ("[\"nfs-b\", \"nfs-c\"]", "nfs-b > nfs-c"),
        ("[[\"nfs-c\", \"nfs-b\"], \"nfs-d\"]", "nfs-b = nfs-c > nfs-d"),
        ("[[\"nfs-b\", \"nfs-c\"]]", "nfs-b = nfs-c"),
    ] {
        let settings = load(&with_candidates(written, "")).unwrap();
        assert_eq!(settings.services[0].candidates.as_ref().unwrap().to_string(), shown);
        // Twice the default of dead-after, and the fence's time.
        assert_eq!(settings.heartbeat.candidate_time, Duration::from_secs(60));
    }
    let set = load(&with_candidates("[\"nfs-b\"]", "[heartbeat]\ncandidate-time = \"2m\"\n")).unwrap();
    assert_eq!(set.heartbeat.candidate_time, Duration::from_secs(120));
}

#[test]
fn a_mistake_in_candidates_is_said_with_how_they_are_written() {
    for (written, part) in [
        ("\"nfs-b\"", "expected a list, found \"nfs-b\""),
        ("[]", "expected at least one server, found an empty list"),
        ("[[], \"nfs-b\"]", "expected at least one server, found an empty list"),
        ("[\"nfs-b\", [\"nfs-c\", \"nfs-b\"]]", "nfs-b is there twice"),
        ("[[[\"nfs-b\"]]]", "expected a string, found something in brackets"),
        ("[\"a/b\"]", "a server name is made of letters"),
        ("[nfs-b]", "expected a string: candidates = [\"nfs-b\"], found nfs-b"),
    ] {
        let said = error(&with_candidates(written, ""));
        assert!(said.contains("service nfs: candidates: ") && said.contains(part), "{written}\n→ {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = error(&with_candidates("[]", ""));
    assert!(
        said.contains("candidates = [[\"nfs-b\", \"nfs-c\"], \"nfs-d\"] where nfs-b and nfs-c share"),
        "{said}"
    );
    let manual = error(&with_candidates("[\"nfs-b\"]", "").replace("\"automatic\"", "\"manual\""));
    assert!(manual.contains("candidates: they are followed only where the agents decide"), "{manual}");
    let wrong = error(&with_candidates("[\"nfs-b\"]", "").replace("\"automatic\"", "\"automatik\""));
    assert_eq!(wrong.lines().count(), 1, "one mistake is said once: {wrong}");
}

#[test]
fn two_services_share_neither_name_nor_address() {
    let service = "[[service]]\nname = \"nfs\"\naddresses = [\"10.0.0.10\"]\n";
    assert!(error(&format!("{LEAST}{service}{service}")).contains("two of this name"));
    let in_capitals = service.replace("nfs", "NFS").replace("0.10", "0.11");
    let said = error(&format!("{LEAST}{service}{in_capitals}"));
    assert!(
        said.contains("service NFS: name: it differs from that of service nfs in its case alone"),
        "{said}"
    );
    let other = service.replace("nfs", "home");
    assert!(error(&format!("{LEAST}{service}{other}")).contains("belongs to another service too"));
}

#[test]
fn a_folder_that_outlives_another_lies_not_in_it() {
    for (key, folder, part) in [
        (
            "local-directory",
            "/srv/heirlock",
            "line 1: local-directory: expected a folder that belongs to this server alone",
        ),
        ("local-directory", "/srv/heirlock/./a", "which is in the store (store.path = \"/srv/heirlock\")"),
        ("runtime-directory", "/srv/heirlock/run", "for example: runtime-directory = \"/run/heirlock\""),
        ("state-directory", "/srv/heirlock", "state-directory: expected a folder that belongs"),
        ("local-directory", "/run/heirlock", "local-directory: expected a folder that outlives a reboot"),
        ("local-directory", "/run/heirlock/local", "(runtime-directory = \"/run/heirlock\")"),
    ] {
        let said = error(&format!("{key} = \"{folder}\"\n{LEAST}"));
        assert!(said.contains(part) && said.lines().count() == 1, "{key} = {folder}\n→ {said}");
    }
    let everything = error("server = \"nfs-a\"\n[store]\npath = \"/\"\n");
    assert_eq!(everything.lines().count(), 3, "{everything}");
    for apart in ["state-directory = \"/srv\"", "local-directory = \"/srv/heirlock-local\""] {
        load(&format!("{apart}\n{LEAST}")).unwrap();
    }
}

#[test]
fn a_path_leads_nowhere_else_and_holds_nothing_that_acts() {
    for (path, part) in [
        ("/srv/heirlock/../../etc", "expected a path without \"..\", found"),
        ("/srv/a\\u0000b", "expected a path without control characters"),
        ("/srv/\\u001b[31m", "with '\\u{1b}'"),
    ] {
        for key in ["local-directory", "runtime-directory", "state-directory"] {
            let said = error(&format!("{key} = \"{path}\"\n{LEAST}"));
            assert!(said.contains(part) && said.contains("line 1: "), "{path}\n→ {said}");
        }
        let store = error(&format!("server = \"a\"\n[store]\npath = \"{path}\"\n"));
        assert!(store.contains(part), "{store}");
        let export = error(&format!(
            "{LEAST}[[service]]\nname = \"nfs\"\naddresses = [\"10.0.0.1\"]\nexports = [\"{path}\"]\n"
        ));
        assert!(export.contains(part), "{export}");
    }
}

#[test]
fn a_command_may_have_a_time_limit_of_its_own() {
    let text =
        format!("{LEAST}[hooks]\nfence = {{ command = [\"/sbin/fence\", \"-x\"], time-limit = \"90s\" }}\n");
    let fence = load(&text).unwrap().hooks.fence.unwrap();
    assert_eq!((fence.argv.len(), fence.time_limit), (2, Duration::from_secs(90)));
}

/// The error for a configuration of the least that is needed and this line.
fn said_of(line: &str) -> String {
    error(&format!("{LEAST}{line}\n"))
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_line_its_key_and_an_example() {
    let text = "server = nfs-a\n[store]\npath = srv/heirlock\nshared = \"yes\"\n[capture]\nmode = \"wach\"\n\
                scan-interval = 10\nport = \"662\"\n[notify]\nrpcbind-port = 0\n[hooks]\nfence = \"/sbin/fence -x\"\n\
                volume-up = [\"./up\"]\n[[service]]\nname = \"nfs\"\naddresses = [192.0.2.10]\nhom = \"nfs-a\"\n\
                [[service]]\naddresses = \"192.0.2.11\"\nmode = \"automatic\"\n";
    let said = error(text);
    let expected = [
        "1: server: expected a string: server = \"nfs-a\", found nfs-a",
        "3: store.path: expected a string: path = \"srv/heirlock\", found srv/heirlock",
        "3: store.path: expected a path from the root, found \"srv/heirlock\"; for example: path = \"/srv/heirlock\"",
        "4: store.shared: expected true or false, without quotes: shared = true, found \"yes\"",
        "6: capture.mode: expected watch, callout or nsm, found \"wach\"; for example: mode = \"watch\"",
        "7: capture.scan-interval: expected a string: scan-interval = \"10\", found 10",
        "7: capture.scan-interval: expected a number and a unit (ms, s, m, h or d), found \"10\"; for example: scan-interval = \"10s\"",
        "8: capture.port: expected a port from 0 to 65535, without quotes: port = 662, found \"662\"",
        "10: notify.rpcbind-port: expected a port from 1 to 65535, without quotes: rpcbind-port = 111, found 0",
        "12: hooks.fence: expected a program and its arguments, without a shell: fence = [\"/sbin/fence\", \"-x\"], found \"/sbin/fence -x\"",
        "13: hooks.volume-up: expected a program's path from the root, found \"./up\", which means another file in every folder; for example: volume-up = [\"/usr/local/sbin/volume-up\"]",
        "16: service nfs: addresses: expected a string: addresses = [\"192.0.2.10\"], found 192.0.2.10",
        "17: there is no key \"hom\" here; did you mean \"home\"?",
        "18: service.name: it is missing; for example: name = \"nfs\"",
        "19: service.addresses: expected a list of strings: addresses = [\"192.0.2.11\"], found \"192.0.2.11\"",
        "20: service.mode: \"automatic\" needs a store that all servers see at the same time",
        "20: service.mode: \"automatic\" needs hooks.fence",
    ];
    let lines: Vec<&str> = said.lines().collect();
    for expected in expected {
        let line = format!("/etc/heirlock/heirlock.toml, line {expected}");
        assert!(lines.iter().any(|said| said.starts_with(&line)), "{line}\nis not in\n{said}");
    }
    let numbers: Vec<usize> =
        lines.iter().filter_map(|line| line.split_once("line ")?.1.split(':').next()?.parse().ok()).collect();
    assert!(numbers.is_sorted(), "in the order of the file:\n{said}");
    assert!(lines.len() <= expected.len() + 1, "{said}");
}

#[test]
fn a_fault_of_toml_is_said_once_and_not_all_that_follows_from_it() {
    for (text, expected) in [
        ("server nfs-a\n[store]\npath = \"/x\"\n", &["line 1: this is no TOML: key with no value"][..]),
        (
            "server = \"nfs-a\n[store]\npath = \"/x\"\n",
            &["line 1: server: expected a string: server = \"nfs-a\""],
        ),
        (
            "server = \"a\"\nserver = \"b\"\n[store]\npath = \"/x\"\n",
            &["line 2: this is no TOML: duplicate key"],
        ),
        (
            "server = \"a\"\n[host]\nnames = [\"a\"\n[store]\npath = \"/x\"\n[[service]]\nname = \"nfs\"\n",
            &["line 4: this is no TOML: missing comma"],
        ),
        ("server = \"a\"\n[store\npath = \"/x\"\n", &["line 2: this is no TOML: unclosed table"]),
        (
            "server = \"a\"\n[store]\npath = \"/x\"\n[service]\nname = \"nfs\"\n",
            &["line 4: service: expected sections that are each written [[service]]"],
        ),
    ] {
        let said = error(text);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{said}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line}\n{expected}");
        }
    }
}

#[test]
fn a_duration_that_is_absurd_is_refused_at_both_ends_and_the_ends_are_accepted() {
    for (section, key, bounds) in [
        ("capture", "scan-interval", bounds::SCAN_INTERVAL),
        ("capture", "tombstone-delay", bounds::TOMBSTONE_DELAY),
        ("capture", "forget-after", bounds::FORGET_AFTER),
        ("capture", "mon-timeout", bounds::MON_TIMEOUT),
        ("capture", "callout-timeout", bounds::CALLOUT_TIMEOUT),
        ("lock-manager", "settle-margin", bounds::SETTLE_MARGIN),
        ("lock-manager", "prepared-time", bounds::PREPARED_TIME),
        ("lock-manager", "grace-period", bounds::GRACE_PERIOD),
        ("heartbeat", "interval", bounds::HEARTBEAT_INTERVAL),
        ("heartbeat", "dead-after", limits::DEAD_AFTER_MIN..=bounds::DEAD_AFTER_MAX),
        ("heartbeat", "candidate-time", limits::DEAD_AFTER_MIN..=bounds::CANDIDATE_TIME_MAX),
    ] {
        for absurd in ["1ms", "1000000000d", "365000000000d", "0s", "99999999999999999999s"] {
            let said = said_of(&format!("[{section}]\n{key} = \"{absurd}\""));
            let line = format!("line 5: {section}.{key}: expected ");
            assert!(said.contains(&line) && said.contains("for example: "), "{said}");
        }
        for end in [*bounds.start(), *bounds.end()] {
            let slow = if key == "interval" { "dead-after = \"1h\"\n" } else { "" };
            load(&format!("{LEAST}[{section}]\n{slow}{key} = \"{}\"\n", Spelled(end))).unwrap();
        }
    }
    let said = said_of("[hooks]\nfence = { command = [\"/sbin/fence\"], time-limit = \"2d\" }");
    assert!(
        said.contains("hooks.fence.time-limit: expected at least \"100ms\" and at most \"1h\""),
        "{said}"
    );
    let said = said_of("[heartbeat]\ninterval = \"20s\"");
    assert!(said.contains("expected at least three beats") && said.contains("dead-after = \"1m\""), "{said}");
}

#[test]
fn an_address_that_no_server_can_have_is_refused() {
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "::ffff:255.255.255.255",
        "::ffff:224.0.0.1",
    ] {
        for section in [
            format!("[[service]]\nname = \"nfs\"\naddresses = [\"{address}\"]"),
            format!("[host]\naddresses = [\"{address}\"]"),
        ] {
            let said = said_of(&section);
            assert!(
                said.contains("which no server can have") && said.contains(&format!("{address:?}")),
                "{said}"
            );
        }
    }
    let said = said_of("[[service]]\nname = \"nfs\"\naddresses = [\"192.0.2.10/24\"]");
    assert!(said.contains("expected an IP address without \"/24\""), "{said}");
}

#[test]
fn one_address_or_name_in_two_spellings_is_one() {
    for (one, other) in [
        ("192.0.2.10", "192.0.2.10"),
        ("192.0.2.10", "::ffff:192.0.2.10"),
        ("2001:db8::10", "2001:DB8:0:0::10"),
    ] {
        let said = said_of(&format!("[[service]]\nname = \"nfs\"\naddresses = [\"{one}\", \"{other}\"]"));
        assert!(
            said.contains("line 6: service nfs: addresses: ") && said.contains("is there twice"),
            "{said}"
        );
        let two = format!(
            "[[service]]\nname = \"nfs\"\naddresses = [\"{one}\"]\n[[service]]\nname = \"home\"\naddresses = [\"{other}\"]"
        );
        let said = said_of(&two);
        assert!(
            said.contains("line 9: service home: addresses: ")
                && said.contains("another service too, to nfs"),
            "{said}"
        );
    }
    let said = said_of(
        "[[service]]\nname = \"nfs\"\naddresses = [\"192.0.2.10\"]\nnames = [\"nfs.example.com\", \"NFS.example.com\"]",
    );
    assert!(said.contains("names: \"NFS.example.com\" is there twice"), "{said}");
    let mapped =
        load(&format!("{LEAST}[[service]]\nname = \"nfs\"\naddresses = [\"::ffff:192.0.2.10\"]\n")).unwrap();
    assert_eq!(mapped.services[0].addresses, ["192.0.2.10".parse::<IpAddr>().unwrap()]);
}

#[test]
fn however_many_mistakes_there_are_some_are_told() {
    let many: String = (0..200).map(|n| format!("frobnicate{n} = 1\n")).collect();
    let said = error(&format!("{many}{LEAST}"));
    assert_eq!(said.lines().count(), MISTAKES_TOLD_MAX + 1);
    assert!(said.ends_with("150 more mistakes, which are told when these are mended"), "{said}");
}

#[test]
fn a_text_that_is_no_toml_is_never_taken_for_a_configuration() {
    let whole = format!(
        "{LEAST}shared = true\n[host]\nnames = [\"a\", \"b\"]\n[hooks]\nfence = {{ command = [\"/f\"], time-limit = \"9s\" }}\n"
    );
    load(&whole).unwrap();
    for (at, byte) in whole.char_indices() {
        for other in ["", "[", "]", "\"", ",", "=", "x", "\n"] {
            let torn = format!("{}{other}{}", &whole[..at], &whole[at + byte.len_utf8()..]);
            if toml::from_str::<toml::Table>(&torn).is_err() {
                let said = error(&torn);
                assert!(!said.is_empty(), "{torn}");
            }
        }
    }
}

#[test]
fn a_configuration_that_is_no_file_or_has_no_end_is_refused_at_once() {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe.toml");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let sparse = place.path().join("sparse.toml");
    std::fs::File::create(&sparse).unwrap().set_len(8 << 30).unwrap();
    let link = place.path().join("link.toml");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    for (path, expected) in [
        (pipe.as_path(), "found a pipe"),
        (Path::new("/dev/zero"), "found a device"),
        (link.as_path(), "found a device"),
        (place.path(), "found a folder"),
        (sparse.as_path(), "at most 1048576 bytes"),
    ] {
        let said = super::load(path).unwrap_err().to_string();
        assert!(said.contains(expected) && said.contains(&path.display().to_string()), "{said}");
    }
    std::fs::write(link.with_extension("real"), LEAST).unwrap();
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(link.with_extension("real"), &link).unwrap();
    super::load(&link).expect("an administrator's link is followed");
}

const ETCD: &str =
    "server = \"nfs-a\"\n[store]\ntype = \"etcd\"\nendpoints = [\"https://192.0.2.1:2379\"]\nca = \"/ca\"\n";

#[cfg(feature = "etcd")]
#[test]
fn a_store_in_etcd_has_the_documented_defaults_and_is_shared() {
    let settings = load(ETCD).unwrap();
    assert!(settings.store.shared);
    let etcd = settings.store.etcd.unwrap();
    assert_eq!((etcd.prefix.as_str(), etcd.certificate, etcd.user), ("/heirlock/", None, None));
    assert_eq!([etcd.connect_time, etcd.answer_time], [300, 1000].map(Duration::from_millis));
    let whole = format!(
        "{ETCD}prefix = \"/a/\"\ncertificate = \"/c\"\nkey = \"/k\"\nuser = \"u\"\npassword-file = \"/p\"\n"
    );
    let etcd = load(&whole).unwrap().store.etcd.unwrap();
    assert_eq!(etcd.certificate, Some(("/c".into(), "/k".into())));
    assert_eq!((etcd.prefix.as_str(), etcd.user), ("/a/", Some(("u".to_owned(), "/p".into()))));
}

#[cfg(not(feature = "etcd"))]
#[test]
fn a_program_without_the_store_in_etcd_says_so() {
    assert!(error(ETCD).contains("built without the store in etcd"), "{}", error(ETCD));
}

#[test]
fn a_store_in_etcd_that_is_not_all_said_is_refused_with_what_is_missing() {
    for (more, part) in [
        ("path = \"/x\"\n", "store.path: a store of type \"etcd\" has no such key"),
        ("shared = true\n", "store.shared: a store of type \"etcd\" has no such key"),
        ("certificate = \"/c\"\n", "store.key: certificate needs it"),
        ("key = \"/c\"\n", "store.certificate: key needs it"),
        ("user = \"u\"\n", "store.password-file: user needs it"),
        ("password-file = \"/p\"\n", "store.user: password-file needs it"),
        ("user = \"a b\"\npassword-file = \"/p\"\n", "expected the name of a user of etcd"),
        ("prefix = \"/\"\n", "store.prefix: expected the beginning of all keys"),
        ("prefix = \"/heirlock\"\n", "store.prefix: expected the beginning of all keys"),
        ("answer-time-limit = \"1m\"\n", "store.answer-time-limit: "),
    ] {
        let said = error(&format!("{ETCD}{more}"));
        assert!(said.contains(part), "{more}: {said}");
    }
    let no_ca = error(&ETCD.replace("ca = \"/ca\"\n", ""));
    assert!(no_ca.contains("store.ca: with https"), "{no_ca}");
    for none in ["endpoints = []\n", ""] {
        let said = error(&ETCD.replace("endpoints = [\"https://192.0.2.1:2379\"]\n", none));
        assert!(said.contains("store.endpoints: expected the client URL of at least one member"), "{said}");
    }
    let unsecured = error(&ETCD.replace("https", "http"));
    assert!(unsecured.contains("line 4: store.endpoints: expected https://"), "{unsecured}");
}

#[test]
fn a_drill_can_never_be_made_to_run_the_fence_and_needs_one_to_check() {
    let hooks = |hooks: &str| load(&format!("{LEAST}[hooks]\n{hooks}")).map_err(|error| error.to_string());
    let fence = "fence = [\"/sbin/fence\", \"-x\"]\n";
    let checked = hooks(&format!("{fence}fence-check = [\"/sbin/fence\", \"--status\"]")).unwrap();
    assert_eq!(checked.hooks.fence_check.unwrap().argv, ["/sbin/fence", "--status"]);
    let same = hooks(&format!(
        "{fence}fence-check = {{ command = [\"/sbin/fence\", \"-x\"], time-limit = \"9s\" }}"
    ));
    let same = same.unwrap_err();
    assert!(same.contains("hooks.fence-check: expected another command than hooks.fence"), "{same}");
    let alone = hooks("fence-check = [\"/sbin/fence\", \"--status\"]").unwrap_err();
    assert!(alone.contains("expected hooks.fence beside it"), "{alone}");
}
