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

/// Asks for the state of a node. The name is a server's, so it has no character that means anything in XPath.
///
/// # Errors
/// Where the cluster can't be asked; in words.
pub(crate) fn node_state(node: &str) -> Result<NodeState, String> {
    let found = query(&format!("//node_state[@uname='{node}']"))?;
    found.map_or(Ok(NodeState::Unknown), |xml| parse_node_state(&xml))
}

/// Whether the cluster fences: without that it starts a service elsewhere although its owner may live.
///
/// # Errors
/// As [`node_state`].
pub(crate) fn fences() -> Result<bool, String> {
    let found = query("//crm_config//nvpair[@name='stonith-enabled']")?;
    // It is on unless it is switched off.
    found.map_or(Ok(true), |xml| parse_fences(&xml))
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

/// The element, without those inside it; none where nothing is found.
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
    let node = document.root_element();
    let attribute = |name| node.attribute(name).ok_or_else(|| format!("cibadmin printed no {name}: {xml:?}"));
    let is_online = match attribute("crmd")? {
        "online" => true,
        "offline" => false,
        time => time.parse::<u64>().map_err(|_| format!("cibadmin printed crmd={time:?}"))? > 0,
    };
    let is_expected_down = node.attribute("expected") == Some("down");
    Ok(NodeState::Known { is_online, is_expected_down })
}

/// As Pacemaker reads a truth value (crm_str_to_boolean, lib/common/strings.c).
fn parse_fences(xml: &str) -> Result<bool, String> {
    let document = document(xml)?;
    let value = document.root_element().attribute("value").unwrap_or_default().to_ascii_lowercase();
    match value.as_str() {
        "true" | "on" | "yes" | "y" | "1" => Ok(true),
        "false" | "off" | "no" | "n" | "0" => Ok(false),
        other => Err(format!("stonith-enabled is {other:?}")),
    }
}

/// Warnings may stand before the element and after it: they come from another stream.
fn document(xml: &str) -> Result<Document<'_>, String> {
    let element =
        xml.find('<').zip(xml.rfind('>')).and_then(|(from, to)| xml.get(from..=to)).unwrap_or_default();
    Document::parse(element).map_err(|error| format!("cibadmin printed no XML ({error}): {xml:?}"))
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
        for xml in ["", "Could not connect", "<node_state/>", "<node_state crmd=\"sometimes\"/>"] {
            assert!(parse_node_state(xml).is_err(), "{xml}");
        }
        assert!(parse_fences("<nvpair name=\"stonith-enabled\" value=\"perhaps\"/>").is_err());
    }

    #[test]
    fn a_cluster_fences_unless_that_is_switched_off() {
        let of = |value: &str| parse_fences(&format!("<nvpair name=\"stonith-enabled\" value=\"{value}\"/>"));
        assert_eq!((of("true"), of("False"), of("0")), (Ok(true), Ok(false), Ok(false)));
    }
}
