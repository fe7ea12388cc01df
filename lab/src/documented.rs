//! The configurations of Pacemaker that the guide gives, made into what a cluster of the lab starts with: so a scenario proves
//! what an administrator types.
//!
//! The listing is fed to the tool that it is written for, on this machine and without a cluster, as both tools work on a file
//! too. The lab puts its own addresses, device and fence in the place of the guide's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{Name, Service};
use crate::process;

/// A page of the guide with configurations of Pacemaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Two nodes.
    Pacemaker,
    /// Two nodes, with DRBD.
    Drbd,
    /// Three nodes.
    ThreeNodes,
}

impl Page {
    fn text(self) -> &'static str {
        match self {
            Self::Pacemaker => include_str!("../../docs/guide/pacemaker.md"),
            Self::Drbd => include_str!("../../docs/guide/drbd.md"),
            Self::ThreeNodes => include_str!("../../docs/guide/three-nodes.md"),
        }
    }
}

/// The script of both resource agents.
pub(crate) const RESOURCE_AGENT: &str = include_str!("../../dist/ocf/heirlock");

/// The fence agent.
pub(crate) const FENCE_AGENT: &str = include_str!("guest/fence_lab");

/// Makes the file, in a mount namespace of its own: both tools ask the agents for their metadata, and this machine has none of
/// heirlock's.
const MAKE: &str = r#"set -e
folder=$1 tool=$2
shift 2
mkdir -p "$folder/cib"
mount -t tmpfs tmpfs "$folder/cib"
for part in usr/lib/ocf usr/sbin; do
    mkdir -p "$folder/cib/$part/upper" "$folder/cib/$part/work"
    mount -t overlay overlay -o "lowerdir=/$part,upperdir=$folder/cib/$part/upper,workdir=$folder/cib/$part/work" "/$part"
done
mkdir -p /usr/lib/ocf/resource.d/heirlock
for agent in service notify; do install -m 755 "$folder/ocf-heirlock" /usr/lib/ocf/resource.d/heirlock/$agent; done
install -m 755 "$folder/fence_lab" /usr/sbin/fence_lab
# pcs gives agents a search path of its own.
ln -s "$folder/bin/heirlock" /usr/sbin/heirlock
export HOME="$folder/cib" XDG_CONFIG_HOME="$folder/cib" XDG_CACHE_HOME="$folder/cib" LC_ALL=C
export CIB_file="$folder/cib.xml"
cibadmin --empty > "$CIB_file"
# Guests are slow, and their first election need not wait as long as between real nodes.
own="dc-deadtime=5s load-threshold=400%"
case $tool in
    crmsh)
        crm configure load update "$folder/listing"
        crm configure property $own
        ;;
    pcs)
        pcs() { command pcs -f "$CIB_file" "$@"; }
        . "$folder/listing"
        pcs property set $own
        ;;
esac
crm_verify --xml-file "$CIB_file"
# Nodes that are not there are no fault of the configuration.
number=0
for node; do
    number=$((number + 1))
    cibadmin --create --scope nodes --xml-text "<node id=\"$number\" uname=\"$node\"/>"
done
"#;

/// The tool that a listing is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// crm(8).
    Crmsh,
    /// pcs(8).
    Pcs,
}

impl Tool {
    fn word(self) -> &'static str {
        match self {
            Self::Crmsh => "crmsh",
            Self::Pcs => "pcs",
        }
    }
}

/// A configuration of the guide: its statements, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documented {
    tool: Tool,
    statements: Vec<String>,
}

impl Documented {
    /// The listings of these titles, of the page for two nodes.
    ///
    /// # Errors
    /// When it has none of them.
    pub fn listings(tool: Tool, titles: &[&str]) -> Result<Self> {
        Self::of_page(Page::Pacemaker, tool, titles)
    }

    /// The listings of these titles, of this page.
    ///
    /// # Errors
    /// When it has none of them.
    pub fn of_page(page: Page, tool: Tool, titles: &[&str]) -> Result<Self> {
        let mut statements = Vec::new();
        for title in titles {
            statements.extend(listing(page.text(), tool, title)?);
        }
        Ok(Self { tool, statements })
    }

    /// The file that a page shows from this line on: an indented block.
    ///
    /// # Errors
    /// When the page has no such line.
    pub fn block(page: Page, first: &str) -> Result<String> {
        let lines = page.text().lines().skip_while(|line| line.trim() != first);
        let block: Vec<&str> = lines.map_while(|line| line.strip_prefix("    ")).collect();
        ensure!(!block.is_empty(), "the guide has no block that begins with {first:?}");
        Ok(block.join("\n") + "\n")
    }

    /// A configuration that stands in no page.
    #[must_use]
    pub fn written(tool: Tool, text: &str) -> Self {
        Self { tool, statements: joined(text) }
    }

    /// With another text in place of one that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn with(mut self, documented: &str, ours: &str) -> Result<Self> {
        ensure!(
            self.statements.iter().any(|statement| statement.contains(documented)),
            "{documented:?} is not in the guide's listing for {}",
            self.tool.word()
        );
        for statement in &mut self.statements {
            *statement = statement.replace(documented, ours);
        }
        Ok(self)
    }

    /// With another configuration beside it; what both say is said once.
    ///
    /// # Errors
    /// When the other one is for another tool.
    pub fn and(mut self, other: Self) -> Result<Self> {
        ensure!(
            self.tool == other.tool,
            "a listing for {} and one for {}",
            self.tool.word(),
            other.tool.word()
        );
        for statement in other.statements {
            if !self.statements.contains(&statement) {
                self.statements.push(statement);
            }
        }
        Ok(self)
    }

    /// With a further node: each statement about `like` is said about the node too.
    ///
    /// # Errors
    /// When none is about it.
    pub fn with_node(mut self, node: Name, like: Name) -> Result<Self> {
        let about = |statement: &&String| statement.contains(&format!("fence-{like}"));
        let more: Vec<String> =
            self.statements.iter().filter(about).map(|statement| statement.replace(like, node)).collect();
        ensure!(!more.is_empty(), "no statement is about {like}");
        self.statements.extend(more);
        Ok(self)
    }

    /// For a service of the lab, on the lab's network.
    ///
    /// # Errors
    /// As `with`.
    pub fn for_service(self, service: &Service) -> Result<Self> {
        self.with("homes", service.name)?.with("/dev/drbd0", service.disk)?.for_network(service)
    }

    /// For the lab's network, with the names and the device of the guide.
    ///
    /// # Errors
    /// As `with`.
    pub fn for_network(self, service: &Service) -> Result<Self> {
        self.with("192.0.2.10 ", &format!("{} ", service.address))?
            .with("fsid=77 ", &format!("fsid={} ", service.fsid))?
            .with("192.0.2.0/24", "10.99.0.0/16")?
            .with("options=rw ", "options=rw,no_root_squash,insecure ")?
            // A look of the stock agents is some dozen processes, which a guest has less time for than a server. Two looks of one
            // resource must differ in their intervals.
            .with(" interval=10s", " interval=110s")?
            .with(" interval=20s", " interval=120s")
    }

    /// With the lab's power switch.
    ///
    /// # Errors
    /// As `with`.
    pub fn with_power_switch(mut self, nodes: &[Name]) -> Result<Self> {
        self = self.with("fence_ipmilan", "fence_lab")?;
        for (index, node) in nodes.iter().enumerate() {
            let documented = format!(
                "ip=192.0.2.{} lanplus=1 username=fence password_script=/etc/pacemaker/fence-secret",
                201 + index
            );
            self = self.with(&documented, &format!("plug={node}"))?;
        }
        Ok(self)
    }

    /// Without a resource, as a cluster that has none of this kind.
    ///
    /// # Errors
    /// When none has that name.
    pub fn without(mut self, resource: &str) -> Result<Self> {
        let before = self.statements.len();
        let names = |statement: &str| statement.split(' ').nth(1) == Some(resource);
        self.statements.retain(|statement| !(statement.starts_with("primitive ") && names(statement)));
        ensure!(self.statements.len() < before, "no resource {resource} is in the guide's listing");
        for statement in &mut self.statements {
            if statement.starts_with("group ") {
                *statement = statement.replace(&format!(" {resource}"), "");
            }
        }
        Ok(self)
    }

    /// Writes the file that Pacemaker starts with, `cib.xml` in the scenario's folder. The programs are there already. A cluster that
    /// is to run gets to know its nodes by itself; for one that is only looked at they are `nodes`.
    ///
    /// # Errors
    /// When a tool is missing, or finds fault with the listing.
    pub(crate) fn make_cib(&self, folder: &Path, nodes: &[Name]) -> Result<()> {
        fs::write(folder.join("ocf-heirlock"), RESOURCE_AGENT)?;
        fs::write(folder.join("fence_lab"), FENCE_AGENT)?;
        fs::write(folder.join("listing"), self.statements.join("\n") + "\n")?;
        let output = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", MAKE, "lab-cib"])
            .arg(folder)
            .arg(self.tool.word())
            .args(nodes)
            .output()
            .context("can't start setpriv")?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        fs::write(folder.join("listing.log"), &said)?;
        ensure!(output.status.success(), "{} refuses the guide's listing: {said}", self.tool.word());
        // The tools warn where a time is shorter than an agent advises.
        for fault in ["ERROR", "Error", "smaller than"] {
            ensure!(
                !said.contains(fault),
                "{} finds fault with the guide's listing: {said}",
                self.tool.word()
            );
        }
        Ok(())
    }
}

/// Statements, one a line, where a backslash does not carry one on.
fn joined(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The statements below a mark, up to the next line that is not part of an indented block. A statement goes on after a backslash.
fn listing(guide: &str, tool: Tool, title: &str) -> Result<Vec<String>> {
    let mark = format!("<!-- {}: {title} -->", tool.word());
    let Some((_, below)) = guide.split_once(&mark) else { bail!("the guide has no mark {mark}") };
    let lines = below.lines().skip_while(|line| line.is_empty()).map_while(|line| line.strip_prefix("    "));
    let statements = joined(&lines.collect::<Vec<_>>().join("\n"));
    ensure!(!statements.is_empty(), "no listing follows {mark}");
    Ok(statements)
}

/// Whether this machine has the packages that a cluster of the lab needs.
///
/// # Errors
/// With their names, where it has not.
pub fn expect_pacemaker() -> Result<()> {
    process::run(Command::new("sh").args(["-c", "command -v corosync pacemakerd crm_verify"])).map(drop).context(
        "expected Pacemaker on this machine; install the packages pacemaker corosync resource-agents crmsh pcs drbd-utils",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{HOMES, NFS_A, NFS_B};

    const TEXT: &str = "text\n<!-- crmsh: x -->\n\n    primitive a ocf:b:c \\\n        params d=e\n    group g a b\n\nmore\n\n    no part\n";

    #[test]
    fn a_listing_ends_with_its_block_and_statements_go_on_after_a_backslash() {
        assert_eq!(
            listing(TEXT, Tool::Crmsh, "x").unwrap(),
            ["primitive a ocf:b:c params d=e", "group g a b"]
        );
        assert!(listing(TEXT, Tool::Pcs, "x").is_err());
    }

    #[test]
    fn a_text_that_the_lab_replaces_must_be_in_the_guide() {
        let found = Documented { tool: Tool::Crmsh, statements: listing(TEXT, Tool::Crmsh, "x").unwrap() };
        assert!(found.clone().with("z", "y").is_err());
        assert!(found.clone().without("z").is_err());
        assert_eq!(found.without("a").unwrap().statements, ["group g b"]);
    }

    #[test]
    fn both_forms_of_the_guide_differ_in_the_nfs_server_alone() {
        let form = |title| Documented::listings(Tool::Crmsh, &[title]).unwrap();
        assert_eq!(form("homes, form B").without("homes-server").unwrap(), form("homes"));
        let by_pcs = |title| Documented::listings(Tool::Pcs, &[title]).unwrap().statements;
        let mut b = by_pcs("homes, form B");
        b.retain(|statement| !statement.contains(" create homes-server "));
        assert_eq!(b, by_pcs("homes"));
    }

    /// The parameters, operations and meta attributes of all resources, sorted. The tools write constraints in ways of their own.
    fn words(documented: &Documented) -> Vec<String> {
        let is_constraint = |statement: &str| {
            ["location ", "order ", "colocation "].iter().any(|word| statement.starts_with(word))
        };
        let resources = documented
            .statements
            .iter()
            .filter(|statement| !is_constraint(statement) && !statement.contains(" constraint "));
        let words = resources.flat_map(|statement| statement.split(' '));
        // That a clone is promotable is a verb of pcs.
        let mut words: Vec<String> = words
            .filter(|word| (word.contains('=') || word.contains("ocf:")) && *word != "promotable=true")
            .map(str::to_owned)
            .collect();
        words.sort();
        words
    }

    #[test]
    fn the_guide_has_the_same_resources_for_both_tools() {
        for (page, titles) in [
            (Page::Pacemaker, &["fence", "homes"][..]),
            (Page::Pacemaker, &["homes, form B"]),
            (Page::Drbd, &["homes"]),
            (Page::ThreeNodes, &["third node"]),
        ] {
            let of = |tool| words(&Documented::of_page(page, tool, titles).unwrap());
            assert_eq!(of(Tool::Crmsh), of(Tool::Pcs), "{page:?}");
            assert!(of(Tool::Pcs).len() > 5, "{page:?}");
        }
        let documented = Documented::listings(Tool::Crmsh, &["fence", "homes"]).unwrap();
        let ours = documented.for_service(&HOMES).unwrap().with_power_switch(&[NFS_A, NFS_B]).unwrap();
        assert!(words(&ours).len() > 40, "{ours:?}");
    }
}
