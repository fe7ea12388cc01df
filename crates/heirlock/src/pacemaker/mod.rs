//! What Pacemaker knows: of a node, and of its own configuration; asked of it by its programs `cibadmin` and `crm_node`.

pub(crate) mod cib;

use std::path::Path;
use std::time::Duration;

use heirlock_core::cluster::Configuration;
use roxmltree::Document;

use crate::config::Command;
use crate::{hooks, limits};

/// A query of the cluster's configuration and state takes some milliseconds, and on a busy guest some hundreds.
const QUERY_TIME_MAX: Duration = Duration::from_secs(10);

/// crm_errno_t of a query that finds nothing (`CRM_EX_NOSUCH`, crm/common/results.h).
const NO_SUCH: i32 = 105;

/// The setting by which a cluster fences. There may be several sets of them.
const STONITH_ENABLED: &str = "//crm_config//nvpair[@name='stonith-enabled']";

/// A node, as the cluster sees it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// It has one of this name.
    Known {
        /// Its Pacemaker is a member of the cluster.
        is_online: bool,
        /// It left in order, a fence has confirmed that it is off, or a person has.
        is_expected_down: bool,
    },
    /// It has none.
    Unknown,
}

/// Whether the cluster fences, and the state of a node: both by one query, for an adoption waits for it, and each starts a process. The
/// name is a server's, so it has no character that means anything in XPath.
///
/// # Errors
/// Where the cluster can't be asked; in words.
pub(crate) fn fences_and_node(node: &str) -> Result<(bool, NodeState), String> {
    let found = query(&format!("{STONITH_ENABLED}|//node_state[@uname='{node}']"))?;
    found.map_or(Ok((true, NodeState::Unknown)), |xml| Ok((parse_fences(&xml)?, parse_node_state(&xml)?)))
}

/// Whether the cluster fences: without that it starts a service elsewhere although its owner may live.
///
/// # Errors
/// As [`fences_and_node`].
pub(crate) fn fences() -> Result<bool, String> {
    query(STONITH_ENABLED)?.map_or(Ok(true), |xml| parse_fences(&xml))
}

/// Why a cluster's configuration is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The program that is asked did not answer: Pacemaker does not run here, as a rule.
    NoAnswer(String),
    /// Its answer can't be read.
    Unreadable(String),
}

/// The cluster's whole configuration, from a `cibadmin`.
///
/// # Errors
/// Where it does not answer in time, prints more than [`limits::CIB_BYTES_MAX`], or something else than a CIB.
pub(crate) fn configuration(cibadmin: &Path) -> Result<Configuration, Unknown> {
    let argv = vec![cibadmin.display().to_string(), "--query".to_owned()];
    let command = Command { argv, time_limit: QUERY_TIME_MAX };
    let printed =
        hooks::read(&command, limits::CIB_BYTES_MAX).map_err(|error| Unknown::NoAnswer(error.to_string()))?;
    let bytes = printed.ok_or_else(|| {
        Unknown::Unreadable(format!("it is larger than {} MiB", limits::CIB_BYTES_MAX / 1024 / 1024))
    })?;
    cib::parse(&bytes).map_err(Unknown::Unreadable)
}

/// The name of this node in the cluster, from a `crm_node`; `None` where it does not say.
pub(crate) fn own_name(crm_node: &Path) -> Option<String> {
    let argv = vec![crm_node.display().to_string(), "--name".to_owned()];
    let command = Command { argv, time_limit: QUERY_TIME_MAX };
    let printed = hooks::read(&command, limits::CIB_BYTES_MAX).ok().flatten()?;
    let name = String::from_utf8(printed).ok()?.trim().to_owned();
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
}

/// The elements, without those inside them; none where nothing is found. `cibadmin` prints one by itself, and several inside another.
fn query(xpath: &str) -> Result<Option<String>, String> {
    let argv = ["cibadmin", "--query", "--no-children", "--xpath", xpath];
    let command = Command { argv: argv.map(str::to_owned).to_vec(), time_limit: QUERY_TIME_MAX };
    match hooks::run(&command, &[]) {
        Ok(output) => Ok(Some(output.0)),
        Err(error) if error.exit_status() == Some(NO_SUCH) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Up to Pacemaker 2.1.6 `crmd` is `online` or `offline`; later it is when the node joined, in seconds since 1970, and 0 where it
/// has left (crm_feature_set 3.18.0).
fn parse_node_state(xml: &str) -> Result<NodeState, String> {
    let document = document(xml)?;
    let Some(node) = document.descendants().find(|element| element.has_tag_name("node_state")) else {
        return Ok(NodeState::Unknown);
    };
    let attribute = |name| node.attribute(name).ok_or_else(|| format!("cibadmin printed no {name}: {xml:?}"));
    let is_online = match attribute("crmd")? {
        "online" => true,
        "offline" => false,
        time => time.parse::<u64>().map_err(|_| format!("cibadmin printed crmd={time:?}"))? > 0,
    };
    let is_expected_down = node.attribute("expected") == Some("down");
    Ok(NodeState::Known { is_online, is_expected_down })
}

/// A cluster fences unless that is switched off, in any of the sets that have the setting: which of them counts depends on the time. A
/// truth value is read as Pacemaker does it (crm_str_to_boolean, lib/common/strings.c).
fn parse_fences(xml: &str) -> Result<bool, String> {
    let document = document(xml)?;
    let mut settings = document.descendants().filter(|element| element.has_tag_name("nvpair"));
    settings.try_fold(true, |fences, setting| {
        let value = setting.attribute("value").unwrap_or_default().to_ascii_lowercase();
        match value.as_str() {
            "true" | "on" | "yes" | "y" | "1" => Ok(fences),
            "false" | "off" | "no" | "n" | "0" => Ok(false),
            other => Err(format!("stonith-enabled is {other:?}")),
        }
    })
}

/// The answer to such a query, and nothing else. Warnings may stand before it and after it: they come from another stream.
fn document(xml: &str) -> Result<Document<'_>, String> {
    let element =
        xml.find('<').zip(xml.rfind('>')).and_then(|(from, to)| xml.get(from..=to)).unwrap_or_default();
    let document =
        Document::parse(element).map_err(|error| format!("cibadmin printed no XML ({error}): {xml:?}"))?;
    match document.root_element().tag_name().name() {
        "nvpair" | "node_state" | "xpath-query" => Ok(document),
        other => Err(format!("cibadmin printed {other:?}, expected a setting and a node's state: {xml:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(attributes: &str) -> Result<NodeState, String> {
        parse_node_state(&format!("<node_state id=\"1\" uname=\"nfs-a\" {attributes}/>\n"))
    }

    /// As printed by Pacemaker 2.1.5 for a member, a node that is lost while its fence is pending, one that was fenced, and one
    /// that a person confirmed; and the form with times.
    #[test]
    fn a_node_is_online_lost_or_confirmed_off() {
        let known = |is_online, is_expected_down| Ok(NodeState::Known { is_online, is_expected_down });
        assert_eq!(
            state(r#"in_ccm="true" crmd="online" join="member" expected="member""#),
            known(true, false)
        );
        assert_eq!(
            state(r#"in_ccm="false" crmd="offline" join="down" expected="member""#),
            known(false, false)
        );
        assert_eq!(state(r#"in_ccm="false" crmd="offline" join="down" expected="down""#), known(false, true));
        assert_eq!(state(r#"in_ccm="1710000000" crmd="1710000001" expected="member""#), known(true, false));
        assert_eq!(state(r#"in_ccm="0" crmd="0" expected="down""#), known(false, true));
        assert_eq!(state(r#"crmd="offline""#), known(false, false));
        let warned = "warning: no log file\n<node_state crmd=\"online\"/>\nmore\n";
        assert_eq!(parse_node_state(warned), known(true, false));
    }

    #[test]
    fn an_answer_that_is_not_understood_is_an_error_and_no_permission() {
        for xml in ["", "Could not connect", "<html/>", "<node_state/>", "<node_state crmd=\"sometimes\"/>"] {
            assert!(parse_node_state(xml).is_err(), "{xml}");
        }
        for xml in [
            "",
            "Could not connect",
            "<html/>",
            "<nvpair/>",
            "<nvpair name=\"stonith-enabled\" value=\"perhaps\"/>",
        ] {
            assert!(parse_fences(xml).is_err(), "{xml}");
        }
    }

    /// As printed by Pacemaker 2.1.5 for the query of both.
    #[test]
    fn the_setting_and_the_node_are_read_from_one_answer() {
        let node = r#"<node_state id="1" uname="nfs-a" in_ccm="false" crmd="offline" expected="down"/>"#;
        let set = |value: &str| format!(r#"<nvpair id="o-s" name="stonith-enabled" value="{value}"/>"#);
        let read = |inside: &str| {
            let xml = format!("<xpath-query>\n  {inside}\n</xpath-query>\n");
            (parse_fences(&xml), parse_node_state(&xml))
        };
        let off = NodeState::Known { is_online: false, is_expected_down: true };
        assert_eq!(read(&format!("{}{node}", set("true"))), (Ok(true), Ok(off)));
        assert_eq!(read(&format!("{}{}{node}", set("true"), set("false"))), (Ok(false), Ok(off)));
        assert_eq!(
            (parse_fences(node), parse_node_state(node)),
            (Ok(true), Ok(off)),
            "the setting is not there"
        );
        let alone = set("false");
        assert_eq!((parse_fences(&alone), parse_node_state(&alone)), (Ok(false), Ok(NodeState::Unknown)));
    }

    #[test]
    fn a_cluster_fences_unless_that_is_switched_off() {
        let of = |value: &str| parse_fences(&format!("<nvpair name=\"stonith-enabled\" value=\"{value}\"/>"));
        assert_eq!((of("true"), of("False"), of("0")), (Ok(true), Ok(false), Ok(false)));
    }
}
