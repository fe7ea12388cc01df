//! The configurations that the guide gives, as Pacemaker's own tools write them down, are free of findings. What an administrator may
//! do to them is found. (The lab's scenario `documented-clusters` makes the files of `cibs/` from the guide, and compares.)

use std::collections::BTreeSet;
use std::path::Path;

use heirlock_core::cluster::Subject;
use proptest::prelude::*;

use super::*;
use crate::config;
use crate::guard::testing::Tree;
use crate::pacemaker::cib;
use crate::store::dir::DirStore;

const GUIDE: &str = include_str!("../../../../../docs/guide/pacemaker.md");
const DRBD_GUIDE: &str = include_str!("../../../../../docs/guide/drbd.md");

macro_rules! cibs {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("cibs/", $name, ".xml")))),*] };
}

/// Made by both tools from all pages of the guide.
const DOCUMENTED: [(&str, &str); 8] = cibs!(
    "form-a-crmsh",
    "form-a-pcs",
    "form-b-crmsh",
    "form-b-pcs",
    "drbd-crmsh",
    "drbd-pcs",
    "three-nodes-crmsh",
    "three-nodes-pcs"
);

/// Made with other names, another layout and other means.
const OTHERS: [(&str, &str); 2] = cibs!("constraints-crmsh", "two-groups-pcs");

/// The block of a page that begins with this line, as far as it is indented, and what follows it.
fn block(page: &str, first: &str) -> String {
    let lines = page.lines().skip_while(|line| line.trim() != first);
    let block = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    block.map(|line| format!("{}\n", line.trim_start())).collect()
}

fn settings_of(cib: &str) -> Settings {
    let two_nodes = block(GUIDE, "server = \"nfs-a\"");
    let text = match cib {
        _ if cib.starts_with("form-b") => {
            two_nodes.replace("strategy = \"restart-nfs\"", "strategy = \"notify\"")
        }
        _ if cib.starts_with("drbd") => {
            format!("server = \"nfs-a\"\n{}", block(DRBD_GUIDE, "[store]"))
        }
        _ if cib.starts_with("two-groups") || cib.starts_with("constraints") => OTHER_NAMES.to_owned(),
        _ => two_nodes,
    };
    config::parse(Path::new("heirlock.toml"), &text).unwrap()
}

/// Services whose names are no names of the cluster's.
const OTHER_NAMES: &str = "server = \"nfs-a\"\n[store]\npath = \"/srv/heirlock\"\nshared = true\n\
    [[service]]\nname = \"alpha\"\naddresses = [\"192.0.2.20\"]\nnames = [\"alpha.example.com\"]\nexports = [\"/exports/a\"]\n\
    [[service]]\nname = \"beta\"\naddresses = [\"192.0.2.21\", \"2001:db8::21\"]\nnames = [\"beta.example.com\"]\n";

fn text_of(cib: &str) -> &'static str {
    DOCUMENTED.iter().chain(&OTHERS).find(|(name, _)| *name == cib).unwrap().1
}

/// All that is found in a configuration, by a server of the guide that has changed in some way.
fn found_by(cib: &str, text: &str, change: impl FnOnce(&mut Settings, &mut Expected)) -> Vec<Finding> {
    let mut settings = settings_of(cib);
    let tree = Tree::new();
    let host = tree.host();
    let expected = |settings: &Settings| Expected {
        servers: None,
        ..expected(&host, settings, Path::new("/etc/heirlock/heirlock.toml"), Some("nfs-a".into()))
    };
    let mut wanted = expected(&settings);
    change(&mut settings, &mut wanted);
    let again = expected(&settings);
    wanted.services = again.services;
    wanted.hooks = again.hooks;
    wanted.store = again.store;
    of(&cib::parse(text.as_bytes()).unwrap(), &wanted)
}

/// The words and weights of what is worse than a note.
fn complaints(found: &[Finding]) -> Vec<(&'static str, Severity)> {
    let wrong = found.iter().filter(|finding| finding.severity > Severity::Note);
    wrong.map(|finding| (finding.check, finding.severity)).collect()
}

/// The one complaint about a configuration in which these texts are replaced.
fn one(cib: &str, replaced: &[(&str, &str)]) -> Finding {
    let mut text = text_of(cib).to_owned();
    for (from, to) in replaced {
        assert!(text.contains(from), "{from} is not in {cib}");
        text = text.replace(from, to);
    }
    one_of(found_by(cib, &text, |_, _| ()))
}

fn one_of(found: Vec<Finding>) -> Finding {
    let mut wrong: Vec<Finding> =
        found.into_iter().filter(|finding| finding.severity > Severity::Note).collect();
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    wrong.remove(0)
}

/// A primitive with all that is in it.
fn primitive<'a>(text: &'a str, id: &str) -> &'a str {
    let from = text.find(&format!("<primitive id=\"{id}\"")).unwrap();
    let to = from + text[from..].find("</primitive>").unwrap() + "</primitive>".len();
    &text[from..to]
}

/// A configuration without a resource, and without constraints on it.
fn without(text: &str, id: &str) -> String {
    let rest = text.replace(primitive(text, id), "");
    let about = |line: &&str| !(line.contains("<rsc_") && line.contains(&format!("\"{id}\"")));
    rest.lines().filter(about).map(|line| format!("{line}\n")).collect()
}

fn assert_is(finding: &Finding, subject: Subject, severity: Severity, words: &[&str]) {
    assert_eq!((finding.check, finding.severity), (subject.as_str(), severity), "{finding}");
    let said = finding.to_string();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

#[test]
fn the_clusters_of_the_guide_are_free_of_findings() {
    for (name, text) in DOCUMENTED.iter().chain(&OTHERS) {
        let found = found_by(name, text, |_, _| ());
        let bad: Vec<&Finding> = found.iter().filter(|finding| finding.severity > Severity::Ok).collect();
        assert!(bad.is_empty(), "{name}: {bad:#?}");
        let services = settings_of(name).services.len();
        let well = found.iter().filter(|finding| finding.check == Subject::Service.as_str()).count();
        assert_eq!(well, services, "{name}: {found:#?}");
    }
}

#[test]
fn a_cluster_that_does_not_fence_is_found() {
    let stonith = "name=\"stonith-enabled\" value=\"true\"";
    for cib in ["form-a-crmsh", "form-a-pcs", "drbd-pcs", "three-nodes-crmsh", "two-groups-pcs"] {
        let off = one(cib, &[(stonith, "name=\"stonith-enabled\" value=\"Off\"")]);
        assert_is(&off, Subject::Fence, Severity::LosesLocks, &["pcs property set stonith-enabled=true"]);
    }
    let text = text_of("form-a-pcs");
    let alone = without(text, "fence-nfs-b");
    let uncovered = one_of(found_by("form-a-pcs", &alone, |_, _| ()));
    assert_is(&uncovered, Subject::Fence, Severity::LosesLocks, &["no fence device is for the node nfs-b"]);
    let none = one_of(found_by("form-a-pcs", &without(&alone, "fence-nfs-a"), |_, _| ()));
    assert_is(&none, Subject::Fence, Severity::LosesLocks, &["there is no fence device"]);
    let watchdog = without(&alone, "fence-nfs-a").replace(
        stonith,
        &format!("{stonith}/><nvpair id=\"w\" name=\"stonith-watchdog-timeout\" value=\"10s\""),
    );
    assert_eq!(complaints(&found_by("form-a-pcs", &watchdog, |_, _| ())), []);
}

#[test]
fn an_agent_that_is_missing_is_found_with_the_command_that_creates_it_in_its_place() {
    for (cib, service, notify, group, address) in [
        ("form-a-crmsh", "homes-service", "homes-notify", "homes", "homes-address"),
        ("form-b-pcs", "homes-service", "homes-notify", "homes", "homes-address"),
        ("drbd-crmsh", "homes-service", "homes-notify", "homes", "homes-address"),
        ("two-groups-pcs", "keeper1", "teller1", "g1", "ip1"),
    ] {
        let text = text_of(cib);
        let missing = one_of(found_by(cib, &without(text, service), |_, _| ()));
        let pcs = format!("--group {group} --before {address}");
        let crmsh = format!("crm configure modgroup {group} add ");
        let words = ["no ocf:heirlock:service", &pcs, &crmsh, "op start timeout=90s interval=0"];
        assert_is(&missing, Subject::Agents, Severity::LosesLocks, &words);
        let untold = one_of(found_by(cib, &without(text, notify), |_, _| ()));
        assert_is(&untold, Subject::Agents, Severity::LosesLocks, &["no ocf:heirlock:notify", "never told"]);
    }
    // Outside of a group constraints do it.
    let lone = without(text_of("constraints-crmsh"), "guard-a");
    let missing = one_of(found_by("constraints-crmsh", &lone, |_, _| ()));
    let words = ["pcs constraint order start alpha-service then start addr-a", "inf: addr-a alpha-service"];
    assert_is(&missing, Subject::Agents, Severity::LosesLocks, &words);
}

#[test]
fn an_agent_for_a_service_that_this_server_does_not_know_is_found_and_one_of_another_file_is_left_alone() {
    let service = "name=\"service\" value=\"homes\"";
    let found = found_by(
        "form-a-pcs",
        &text_of("form-a-pcs").replace(service, "name=\"service\" value=\"home\""),
        |_, _| (),
    );
    let unknown: Vec<_> = found.iter().filter(|one| one.found.contains("has no such service")).collect();
    assert_eq!(unknown.len(), 2, "{found:#?}");
    assert!(
        found
            .iter()
            .any(|one| one.found.starts_with("homes: the cluster moves it, and has no ocf:heirlock:service"))
    );
    let elsewhere = format!("{service}/><nvpair id=\"c\" name=\"config\" value=\"/etc/other.toml\"");
    let found = found_by("form-a-pcs", &text_of("form-a-pcs").replace(service, &elsewhere), |_, _| ());
    assert_eq!(complaints(&found), []);
    assert!(
        found.iter().any(|one| one.found.contains("goes by the configuration /etc/other.toml")),
        "{found:#?}"
    );
}

#[test]
fn a_resource_that_starts_in_the_wrong_place_of_its_group_is_found() {
    let swapped = |cib: &str, one: &str, other: &str| {
        let text = text_of(cib);
        let (a, b) = (primitive(text, one), primitive(text, other));
        let text = text.replace(a, "\u{1}").replace(b, a).replace('\u{1}', b);
        found_by(cib, &text, |_, _| ())
    };
    for (cib, first, then, words) in [
        ("form-a-crmsh", "homes-service", "homes-address", "may take a lock that another client still holds"),
        ("form-a-pcs", "homes-exports", "homes-service", "the adoption is refused"),
        ("form-a-pcs", "homes-address", "homes-notify", "clients are told from the address"),
        ("form-b-crmsh", "homes-server", "homes-exports", "drops all exports"),
        ("two-groups-pcs", "keeper1", "ip1", "may take a lock that another client still holds"),
    ] {
        let found = one_of(swapped(cib, first, then));
        let remedy = format!("{first} --before {then}");
        assert_is(&found, Subject::Order, Severity::LosesLocks, &[words, &remedy, "crm configure modgroup"]);
    }
    let found = swapped("form-a-pcs", "homes-volume", "homes-service");
    let orders = complaints(&found);
    assert_eq!(
        orders,
        [(Subject::Order.as_str(), Severity::LosesLocks); 2],
        "volume and exports: {found:#?}"
    );
}

#[test]
fn what_only_constraints_hold_together_is_found_where_one_of_them_is_missing_or_too_weak() {
    let cib = "constraints-crmsh";
    let order = "<rsc_order id=\"addr-last\" kind=\"Mandatory\"";
    let weak = one(cib, &[(order, "<rsc_order id=\"addr-last\" kind=\"Optional\"")]);
    let words = [
        "nothing has addr-a wait until guard-a is started",
        "pcs constraint order start guard-a then start addr-a",
    ];
    assert_is(&weak, Subject::Order, Severity::LosesLocks, &words);
    let together = "<rsc_colocation id=\"addr-there\" score=\"INFINITY\"";
    let preferred =
        found_by(cib, &text_of(cib).replace(together, &together.replace("INFINITY", "100")), |_, _| ());
    let apart: Vec<_> =
        preferred.iter().filter(|one| one.found.contains("nothing keeps addr-a on the node of")).collect();
    assert_eq!(apart.len(), 1, "{preferred:#?}");
    // DRBD's device is below the whole group.
    let unpromoted = "with-rsc-role=\"Promoted\"";
    assert_eq!(
        complaints(&found_by("drbd-pcs", &text_of("drbd-pcs").replace(unpromoted, ""), |_, _| ())),
        []
    );
}

#[test]
fn stock_agents_that_tell_clients_as_well_are_found() {
    let silent = "name=\"nfs_no_notify\" value=\"true\"";
    for cib in ["form-b-crmsh", "form-b-pcs"] {
        let loud = one(cib, &[(silent, "name=\"nfs_no_notify\" value=\"false\"")]);
        assert_is(&loud, Subject::NfsServer, Severity::LosesLocks, &["homes-server", "nfs_no_notify=true"]);
        let parameters = "<instance_attributes id=\"homes-server-instance_attributes\">";
        let more =
            format!("{parameters}<nvpair id=\"s\" name=\"nfs_shared_infodir\" value=\"/srv/homes/info\"/>");
        let shared = one(cib, &[(parameters, &more)]);
        let words = [
            "nfs_shared_infodir=/srv/homes/info",
            "crm resource param homes-server delete nfs_shared_infodir",
        ];
        assert_is(&shared, Subject::NfsServer, Severity::LosesLocks, &words);
    }
    let notify = "<primitive id=\"extra\" class=\"ocf\" provider=\"heartbeat\" type=\"nfsnotify\"/></group>";
    let teller = one("form-a-pcs", &[("</group>", notify)]);
    assert_is(&teller, Subject::NfsServer, Severity::LosesLocks, &["nfsnotify", "pcs resource delete extra"]);
}

#[test]
fn a_capture_mode_or_a_strategy_that_the_group_contradicts_is_found() {
    let with = |cib: &str, change: fn(&mut Settings)| {
        one_of(found_by(cib, text_of(cib), |settings, _| change(settings)))
    };
    let monitor =
        with("form-b-pcs", |settings| settings.capture = crate::guard::testing::in_mode("nsm").capture);
    assert_is(&monitor, Subject::NfsServer, Severity::LosesLocks, &["rpc.statd does not run"]);
    let twice =
        with("form-b-pcs", |settings| settings.lock_manager.strategy = "restart-nfs".parse().unwrap());
    assert_is(&twice, Subject::NfsServer, Severity::Warning, &["strategy = \"notify\""]);
    let never = with("form-a-pcs", |settings| settings.lock_manager.strategy = "notify".parse().unwrap());
    assert_is(&never, Subject::NfsServer, Severity::LosesLocks, &["no grace period is open"]);
}

#[test]
fn a_server_whose_name_is_not_its_nodes_is_found() {
    let text = text_of("form-a-pcs");
    let named =
        one_of(found_by("form-a-pcs", text, |_, expected| expected.node = Some("nfs-a.example.com".into())));
    assert_is(&named, Subject::Node, Severity::LosesLocks, &["set server = \"nfs-a.example.com\""]);
    let unsaid = one_of(found_by("form-a-pcs", text, |_, expected| {
        expected.node = None;
        expected.server = "nfs-x".parse().unwrap();
    }));
    assert_is(&unsaid, Subject::Node, Severity::LosesLocks, &["no node nfs-x, but nfs-a, nfs-b"]);
    let known = BTreeSet::from(["nfs-a".parse().unwrap()]);
    let silent = one_of(found_by("form-a-pcs", text, |_, expected| expected.servers = Some(known.clone())));
    assert_is(&silent, Subject::Node, Severity::Warning, &["Pacemaker may start homes on the node nfs-b"]);
    let kept_away = "<constraints><rsc_location id=\"x\" rsc=\"homes\" node=\"nfs-b\" score=\"-INFINITY\"/>";
    let text = text.replace("<constraints>", kept_away);
    let found = found_by("form-a-pcs", &text, |_, expected| expected.servers = Some(known));
    assert_eq!(complaints(&found), []);
}

#[test]
fn a_store_that_comes_with_a_volume_says_nothing_of_servers_that_never_had_it() {
    let tree = Tree::debian();
    DirStore::create(&tree.host().at("/srv/heirlock")).unwrap();
    let servers = |shared: bool| {
        let settings = crate::guard::testing::settings(&format!(
            "shared = {shared}\n{}",
            crate::guard::testing::SERVICE
        ));
        expected(&tree.host(), &settings, Path::new("heirlock.toml"), None).servers
    };
    assert_eq!(servers(true), Some(BTreeSet::from(["nfs-a".parse().unwrap()])));
    assert_eq!(servers(false), None);
}

#[test]
fn decisions_that_pacemaker_makes_as_well_are_found() {
    let with = |change: fn(&mut Settings)| {
        one_of(found_by("form-a-crmsh", text_of("form-a-crmsh"), |settings, _| change(settings)))
    };
    let home = with(|settings| settings.services[0].home = Some("nfs-a".parse().unwrap()));
    assert_is(&home, Subject::Decisions, Severity::Warning, &["homes: 'home' is set"]);
    let both = with(|settings| settings.services[0].mode = config::Mode::Automatic);
    assert_is(&both, Subject::Decisions, Severity::LosesLocks, &["mode = \"manual\""]);
    let hook = with(|settings| {
        let up = "[hooks]\naddress-up = [\"/usr/local/sbin/up\"]\n";
        settings.hooks = crate::guard::testing::settings(up).hooks;
    });
    assert_is(&hook, Subject::Decisions, Severity::Warning, &["hooks.address-up is set", "Pacemaker"]);
}

#[test]
fn time_outs_that_are_shorter_than_the_actions_are_found_with_both_figures() {
    let text = text_of("form-a-crmsh");
    let of = |id: &str, from: &str, to: &str| {
        let changed = primitive(text, id).replace(from, to);
        assert_ne!(changed, primitive(text, id));
        one_of(found_by("form-a-crmsh", &text.replace(primitive(text, id), &changed), |_, _| ()))
    };
    let start = of("homes-service", "name=\"start\" timeout=\"90s\"", "name=\"start\" timeout=\"30\"");
    let words = [
        "waits 30 s for the start of homes-service, which may take 90 s",
        "pcs resource update homes-service op start timeout=90s interval=0",
        "crm configure set homes-service.start.timeout 90s",
    ];
    assert_is(&start, Subject::Times, Severity::Warning, &words);
    let stop = of("homes-service", "name=\"stop\" timeout=\"90s\"", "name=\"other\" timeout=\"90s\"");
    assert_is(
        &stop,
        Subject::Times,
        Severity::Warning,
        &["waits 20 s for the stop of homes-service", "fenced"],
    );
    let unread = of("homes-notify", "name=\"start\" timeout=\"90s\"", "name=\"start\" timeout=\"soon\"");
    assert_is(&unread, Subject::Times, Severity::Warning, &["is no time that can be read"]);
    let blind = of("homes-notify", "name=\"monitor\"", "enabled=\"false\" name=\"monitor\"");
    assert_is(
        &blind,
        Subject::Times,
        Severity::Warning,
        &["has no monitor", "pcs resource op add homes-notify"],
    );

    let slow = one_of(found_by("form-a-crmsh", text, |settings, _| {
        let restart = "[lock-manager]\nrestart-nfs = { command = [\"restart\"], time-limit = \"3m\" }\n";
        settings.lock_manager = crate::guard::testing::settings(restart).lock_manager;
    }));
    assert_is(&slow, Subject::Times, Severity::Warning, &["waits 90 s for the start", "may take 192 s"]);
    let cloud = one_of(found_by("form-a-crmsh", text, |settings, _| {
        settings.lock_manager.prepared_time = std::time::Duration::from_secs(200);
    }));
    assert_is(&cloud, Subject::Times, Severity::Warning, &["up to 200 s", "waits 150 s", "homes-address"]);
}

#[test]
fn what_is_switched_off_is_found() {
    let off = |id: &str, name: &str, value: &str| {
        let text = text_of("form-a-pcs");
        let found = primitive(text, id);
        let meta = format!(
            "<meta_attributes id=\"m\"><nvpair id=\"n\" name=\"{name}\" value=\"{value}\"/></meta_attributes></primitive>"
        );
        let changed = found.replace("</primitive>", &meta);
        one_of(found_by("form-a-pcs", &text.replace(found, &changed), |_, _| ()))
    };
    let untold = off("homes-notify", "target-role", "Stopped");
    assert_is(
        &untold,
        Subject::State,
        Severity::LosesLocks,
        &["clients are never told", "pcs resource enable homes-notify"],
    );
    let alone = off("homes-address", "is-managed", "false");
    assert_is(
        &alone,
        Subject::State,
        Severity::Warning,
        &["leaves homes-address alone", "crm resource manage homes-address"],
    );
    let fence = off("fence-nfs-b", "target-role", "stopped");
    let words = ["fence-nfs-b, the only fence device for the node nfs-b", "crm resource start fence-nfs-b"];
    assert_is(&fence, Subject::Fence, Severity::LosesLocks, &words);

    let properties = "<cluster_property_set id=\"cib-bootstrap-options\">";
    let on = format!("{properties}<nvpair id=\"p\" name=\"maintenance-mode\" value=\"true\"/>");
    let maintained = one("form-a-pcs", &[(properties, &on)]);
    assert_is(&maintained, Subject::State, Severity::Warning, &["maintenance-mode=false"]);
    let whole = "<group id=\"homes\"><meta_attributes id=\"g\"><nvpair id=\"t\" name=\"target-role\" value=\"Stopped\"/></meta_attributes>";
    let text = text_of("form-a-pcs").replace("<group id=\"homes\">", whole);
    let found = found_by("form-a-pcs", &text, |_, _| ());
    assert_eq!(complaints(&found), [], "a service that is switched off as a whole is meant to be");
    assert!(found.iter().any(|one| one.found.contains("all its resources are switched off")), "{found:#?}");
}

#[test]
fn constraints_that_a_move_or_drbd_left_behind_are_found() {
    let left = "<constraints><rsc_location id=\"cli-prefer-homes\" rsc=\"homes\" role=\"Started\" node=\"nfs-b\" score=\"INFINITY\"/>";
    let found = found_by("form-a-pcs", &text_of("form-a-pcs").replace("<constraints>", left), |_, _| ());
    let note = found.iter().find(|one| one.severity == Severity::Note).unwrap();
    assert_is(
        note,
        Subject::State,
        Severity::Note,
        &["binds it to nfs-b", "crm_resource --resource homes --clear"],
    );
    // As crm-fence-peer.sh makes it.
    let by_drbd = "<constraints><rsc_location rsc=\"homes-disks\" id=\"drbd-fence-by-handler-homes-homes-disks\">\
        <rule role=\"Master\" score=\"-INFINITY\" id=\"drbd-fence-by-handler-homes-rule-homes-disks\">\
        <expression attribute=\"#uname\" operation=\"ne\" value=\"nfs-a\" id=\"e\"/></rule></rsc_location>";
    let old = one("drbd-crmsh", &[("<constraints>", by_drbd)]);
    assert_is(&old, Subject::State, Severity::Warning, &["no other node can take the service over"]);
}

#[test]
fn an_agent_or_an_address_that_is_cloned_or_doubled_is_found() {
    let text = text_of("form-a-pcs");
    let service = primitive(text, "homes-service");
    let double = service.replace("homes-service", "second");
    let text_of_two = text.replace("</group>", &format!("</group><clone id=\"c\">{double}</clone>"));
    let found = found_by("form-a-pcs", &text_of_two, |_, _| ());
    let said: String = found.iter().map(ToString::to_string).collect();
    for words in [
        "second is in the clone c",
        "both homes-service and second are ocf:heirlock:service",
        "pcs resource unclone c",
    ] {
        assert!(said.contains(words), "{words:?}: {found:#?}");
    }
}

#[test]
fn a_store_on_a_volume_of_the_cluster_must_be_there_before_the_service() {
    let alone = found_by("drbd-pcs", text_of("drbd-pcs"), |settings, _| {
        assert!(settings.store.path.starts_with("/srv/homes"), "it lies on the service's own volume");
    });
    assert_eq!(complaints(&alone), []);
    let found = found_by("two-groups-pcs", text_of("two-groups-pcs"), |settings, _| {
        settings.store.path = "/exports/a/heirlock".into();
    });
    let said: Vec<_> = found.iter().filter(|one| one.found.contains("beta")).collect();
    assert!(said.iter().any(|one| one.found.contains("heirlock's store lies on that volume")), "{found:#?}");
    assert!(said.iter().any(|one| one.found.contains("nothing keeps")), "{found:#?}");
}

#[test]
fn a_service_that_the_cluster_does_not_move_is_told_and_no_more() {
    let found = found_by("form-a-pcs", text_of("form-a-pcs"), |settings, _| {
        let mut other = settings.services[0].clone();
        (other.name, other.addresses) = ("other".parse().unwrap(), vec!["198.51.100.1".parse().unwrap()]);
        other.exports.clear();
        settings.services.push(other);
    });
    assert_eq!(complaints(&found), []);
    assert!(found.iter().any(|one| one.found.starts_with("other: no resource of the cluster")), "{found:#?}");
    assert_eq!(
        found_by("form-a-pcs", text_of("form-a-pcs"), |settings, _| settings.services.clear()).len(),
        2
    );
}

#[test]
fn a_cluster_that_can_not_be_asked_is_said_and_one_that_is_not_there_is_not() {
    let tree = Tree::new();
    let settings = settings_of("form-a-pcs");
    let said = |tree: &Tree| {
        let found = check(&tree.host(), &settings, Path::new("heirlock.toml"));
        found.into_iter().map(|one| (one.check, one.severity, one.found)).collect::<Vec<_>>()
    };
    assert_eq!(said(&tree), []);
    tree.tool("cibadmin", "echo 'cibadmin: Connection to local CIB failed' >&2; exit 102");
    let found = said(&tree);
    assert!(
        found.len() == 1 && found[0].1 == Severity::Note && found[0].2.contains("was not checked"),
        "{found:?}"
    );
    tree.put(KEPT_CIB, "<cib/>");
    assert_eq!(said(&tree)[0].1, Severity::Warning, "it is a node");
    tree.tool("cibadmin", "echo '<html/>'");
    assert!(said(&tree)[0].2.contains("can't be read, and was not checked: expected the element cib"));
    tree.tool("cibadmin", "yes '<cib>' | head -c 20000000");
    assert!(said(&tree)[0].2.contains("larger than 16 MiB"), "{:?}", said(&tree));
    tree.put("/cib.xml", text_of("form-a-pcs"));
    let file = tree.host().at("/cib.xml");
    tree.tool("cibadmin", &format!("echo warning >&2; cat {}", file.display()));
    tree.tool("crm_node", "echo nfs-b");
    let found = said(&tree);
    let wrong: Vec<_> = found.iter().filter(|(_, severity, _)| *severity > Severity::Ok).collect();
    assert!(wrong.len() == 1 && wrong[0].2.contains("this node is nfs-b to the cluster"), "{found:#?}");
    tree.tool("crm_node", "exit 1");
    assert!(said(&tree).iter().all(|(_, severity, _)| *severity == Severity::Ok), "{:#?}", said(&tree));
}

proptest! {
    /// Elements of a CIB may be missing, doubled, or where nobody expects them.
    #[test]
    fn a_cluster_of_elements_in_disorder_is_judged(
        which in 0..DOCUMENTED.len() + OTHERS.len(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let (name, text) = DOCUMENTED.iter().chain(&OTHERS).nth(which).unwrap();
        let elements: Vec<&str> = text.lines().filter(|line| line.trim_end().ends_with("/>")).collect();
        let inside: String = picks.iter().map(|pick| elements[pick.index(elements.len())]).collect();
        let text = text
            .replace("<constraints>", &format!("<constraints>{inside}"))
            .replace("<constraints", &format!("<tags><tag id=\"homes\">{inside}</tag></tags><constraints"))
            .replace("<resources>", &format!("<resources>{inside}"));
        let found = found_by(name, &text, |_, _| ());
        prop_assert!(found.len() >= settings_of(name).services.len(), "nothing is silent: {found:?}");
    }
}
