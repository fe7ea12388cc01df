//! The resource agents of Pacemaker, on real agents: the script, the program, and a `cibadmin` of the test that says what the
//! cluster knows of a node. On a real cluster they are shown by the lab.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the tests that ill-treat agents use the rest")]
mod harness;
#[path = "left_out/mod.rs"]
mod left_out;
#[path = "crashes/network.rs"]
#[expect(dead_code, reason = "the tests that kill it at every step look at what clients were told")]
mod network;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Server, Site};
use network::Network;

const FENCED: &str = r#"in_ccm="false" crmd="offline" expected="down""#;
const LOST: &str = r#"in_ccm="false" crmd="offline" expected="member""#;
const MEMBER: &str = r#"in_ccm="true" crmd="online" expected="member""#;

/// The answer of an action.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    reason: String,
}

/// A node of a cluster, in a folder: the resource agents, their notes, and the cluster's word.
struct Node {
    folder: PathBuf,
    config: PathBuf,
}

impl Node {
    fn new(server: &Server) -> Self {
        let folder = server.path("node");
        fs::create_dir(&folder).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/ocf/heirlock");
        for agent in ["service", "notify"] {
            symlink(&script, folder.join(agent)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_heirlock"), folder.join("heirlock")).unwrap();
        Self { folder, config: server.path("heirlock.toml") }
    }

    /// From now on the cluster says this of the node nfs-a, and fences or not.
    fn cluster_says(&self, node: &str, fences: bool) {
        let setting = format!("<nvpair id=\"x\" name=\"stonith-enabled\" value=\"{fences}\"/>");
        let state = format!("<node_state id=\"1\" uname=\"nfs-a\" {node}/>");
        let script = format!(
            "#!/bin/sh\ncase $* in\n\
             *stonith-enabled*node_state*nfs-a*) echo '<xpath-query>{setting}{state}</xpath-query>';;\n\
             *stonith-enabled*) echo '{setting}';;\n\
             *) echo 'No such device or address' >&2; exit 105;;\nesac\n"
        );
        let path = self.folder.join("cibadmin");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, agent: &str, action: &str) -> Command {
        let mut command = Command::new(self.folder.join(agent));
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.folder.display());
        command.arg(action).env("PATH", path).env("HA_RSCTMP", &self.folder);
        command.env("OCF_RESKEY_service", "nfs").env("OCF_RESKEY_config", &self.config);
        command
    }

    fn said(command: &mut Command) -> Said {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let err = text(&output.stderr);
        let reason = err.lines().find_map(|line| line.strip_prefix("ocf-exit-reason:")).unwrap_or_default();
        Said { code: output.status.code().unwrap(), out: text(&output.stdout), reason: reason.to_owned() }
    }

    /// On a busy machine the store fails for a moment, which an action that only looks says as it is: it is asked again.
    fn does(&self, agent: &str, action: &str) -> Said {
        loop {
            let said = Self::said(&mut self.command(agent, action));
            if action != "monitor" || !said.reason.starts_with("the store fails") {
                return said;
            }
        }
    }

    fn codes(&self, agent: &str, actions: &[&str]) -> Vec<i32> {
        let codes = actions.iter().map(|action| {
            let said = self.does(agent, action);
            // Shown where the test fails.
            eprintln!("{agent} {action}: {said:?}");
            said.code
        });
        codes.collect()
    }
}

/// nfs-a held the service with two clients, of which one comes back, and is dead; nfs-b is up.
fn after_a_death(site: &Site, back: usize) -> (Server, Node, Network) {
    let clients = ["127.0.0.3", "127.0.0.4"];
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    let network = Network::new(&clients[..back], "nfs-b", b.path(""));
    b.configure("rpcbind-port = 9", &format!("rpcbind-port = {}", network.rpcbind_port));
    let life = b.path("life").display().to_string();
    b.configure("[\"true\"]", &format!("[\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]"));
    let node = Node::new(&a);
    node.cluster_says(MEMBER, true);
    a.up();
    assert_eq!(node.codes("service", &["monitor", "start", "monitor"]), [7, 0, 0]);
    for client in clients {
        a.register(client);
    }
    a.wait_until_captured("nfs", 2);
    b.up();
    b.wait_until_it_hears_the_other();
    a.kill();
    let node = Node::new(&b);
    (b, node, network)
}

#[test]
fn a_service_is_adopted_once_the_cluster_confirms_the_fence_and_its_clients_are_told_behind_the_address() {
    let site = Site::new();
    let (b, node, network) = after_a_death(&site, 2);
    let claims = || harness::names(&site.store().join("services/nfs/claims"));
    for (state, why) in [(LOST, "no fence has confirmed"), (MEMBER, "is a member of the cluster")] {
        node.cluster_says(state, true);
        let refused = node.does("service", "start");
        assert!(refused.code == 1 && refused.reason.contains(why), "{refused:?}");
    }
    node.cluster_says(FENCED, false);
    assert!(node.does("service", "start").reason.contains("stonith-enabled is false"));
    assert_eq!(claims().len(), 1, "nothing was claimed");
    assert_eq!(node.codes("service", &["monitor"]), [7], "and nothing was started");

    node.cluster_says(FENCED, true);
    let started = node.does("service", "start");
    assert_eq!(started.code, 0, "{started:?}");
    assert!(network.told("127.0.0.3").is_empty(), "the address is not up yet");
    assert_eq!(node.codes("service", &["start", "monitor"]), [0, 0], "said twice, it is done");
    assert_eq!(node.codes("notify", &["monitor", "start", "monitor", "start"]), [7, 0, 0, 0]);
    b.wait_for("clients that were told", |_| {
        ["127.0.0.3", "127.0.0.4"].iter().all(|client| !network.told(client).is_empty()).then_some(())
    });
    assert_eq!(claims(), ["1", "2"], "it is adopted once");
    assert_eq!(node.codes("notify", &["stop", "monitor", "stop"]), [0, 7, 0]);
}

#[test]
fn a_stop_releases_the_service_and_where_no_agent_answers_it_fails() {
    let site = Site::new();
    let mut a = site.server("a", "nfs-a");
    let node = Node::new(&a);
    node.cluster_says(MEMBER, true);
    assert_eq!(
        node.codes("service", &["stop", "start"]),
        [0, 1],
        "it was never started, and no agent is here"
    );
    a.up();
    assert_eq!(node.codes("service", &["start", "monitor"]), [0, 0]);
    a.kill();
    let degraded = node.does("service", "monitor");
    assert!(degraded.code == 190 && degraded.reason.starts_with("no agent answers"), "{degraded:?}");
    if !Path::new("/run/systemd/system").exists() {
        let stopped = node.does("service", "stop");
        assert!(
            stopped.code == 1 && stopped.reason.starts_with("no agent of heirlock answers"),
            "{stopped:?}"
        );
    }
    a.up();
    // Its address is an address of every host, so it can't go.
    let stopped = node.does("service", "stop");
    assert!(stopped.code == 1 && stopped.reason.contains("address"), "{stopped:?}");
    assert_eq!(node.codes("service", &["monitor"]), [0], "it is still here");
}

/// A start that fails keeps the service off this node, and a disk is busiest when a node has just died.
#[test]
fn a_start_waits_for_a_store_that_fails_for_a_moment() {
    let site = Site::new();
    let (b, node, _network) = after_a_death(&site, 2);
    node.cluster_says(FENCED, true);
    let (store, away) = (site.store(), site.store().with_extension("away"));
    fs::rename(&store, &away).unwrap();
    b.wait_for("a store that fails", |b| (b.try_status()?["store"]["well"] == false).then_some(()));
    let mut start = node.command("service", "start").stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(start.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = said
        .inspect(|line| {
            if line.starts_with("waiting: the store fails") {
                fs::rename(&away, &store).unwrap();
            }
        })
        .collect();
    assert!(start.wait().unwrap().success() && store.exists(), "{said:?}");
    assert_eq!(node.codes("service", &["monitor"]), [0]);
}

#[test]
fn clients_that_were_not_told_degrade_the_notify_resource() {
    let site = Site::new();
    let (b, node, _network) = after_a_death(&site, 1);
    node.cluster_says(FENCED, true);
    assert_eq!((node.codes("service", &["start"]), node.codes("notify", &["start"])), (vec![0], vec![0]));
    b.wait_for("a client that did not answer", |_| {
        let said = node.does("notify", "monitor");
        (said.code == 190 && said.reason.starts_with("clients of nfs: 1 unreachable")).then_some(())
    });
}

#[test]
fn a_configuration_that_cannot_work_is_refused_before_anything_is_claimed() {
    let site = Site::new();
    let server = site.server("a", "nfs-a");
    let node = Node::new(&server);
    node.cluster_says(MEMBER, true);
    let home = node.does("service", "validate-all");
    assert!(home.code == 2 && home.reason.contains("'home'"), "{home:?}");
    server.configure("home = \"nfs-a\"\n", "");
    assert_eq!(node.does("service", "validate-all").code, 0);
    let renamed = Node::said(node.command("service", "start").env("OCF_RESKEY_CRM_meta_on_node", "alpha"));
    assert!(renamed.code == 2 && renamed.reason.starts_with("this node is alpha"), "{renamed:?}");
    let unknown = Node::said(node.command("notify", "start").env("OCF_RESKEY_service", "projects"));
    assert!(unknown.code == 2 && unknown.reason.contains("no service projects"), "{unknown:?}");
    let unnamed = Node::said(node.command("service", "monitor").env_remove("OCF_RESKEY_service"));
    assert_eq!(unnamed.code, 6, "{unnamed:?}");
    assert_eq!(node.does("service", "promote").code, 3);
    node.cluster_says(MEMBER, false);
    assert_eq!(node.does("service", "validate-all").code, 6, "a cluster that does not fence");
    server.configure("[heartbeat]", "[hooks]\naddress-up = [\"true\"]\n[heartbeat]");
    let hook = node.does("service", "validate-all");
    assert!(hook.code == 2 && hook.reason.contains("hooks.address-up"), "{hook:?}");
}

/// The document type is that of resource-agents (ra-api-1.dtd), which ocf-tester holds every agent against.
#[test]
fn the_metadata_is_what_the_standard_allows() {
    let site = Site::new();
    let node = Node::new(&site.server("a", "nfs-a"));
    let dtd = Path::new("/usr/share/resource-agents/ra-api-1.dtd");
    let has_linter = Command::new("xmllint").arg("--version").output().is_ok();
    for agent in ["service", "notify"] {
        let said = node.does(agent, "meta-data");
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains(&format!("<resource-agent name=\"{agent}\"")), "{}", said.out);
        // As the stock agents begin: crmsh (lxml) takes no text that names its encoding, and needs none where all is ASCII.
        assert!(said.out.starts_with("<?xml version=\"1.0\"?>\n") && said.out.is_ascii(), "{}", said.out);
        if !dtd.exists() || !has_linter {
            left_out::leave_out("ra-api-1.dtd and xmllint (Debian: resource-agents, libxml2-utils)");
            continue;
        }
        let file = site.store().join(format!("{agent}.xml"));
        fs::write(&file, said.out).unwrap();
        let linted =
            Command::new("xmllint").arg("--noout").arg("--dtdvalid").arg(dtd).arg(&file).output().unwrap();
        assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stderr));
    }
}
