//! What the resource agents say of themselves: as ra-api-1.dtd has it, and for their manual pages.

use std::time::Duration;

use super::Agent;

/// A parameter of a resource.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// Its value where none is given; a parameter without one must be given.
    pub(crate) default: Option<&'static str>,
    pub(crate) short: &'static str,
    pub(crate) long: &'static str,
}

/// An action that Pacemaker may ask for.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) name: &'static str,
    /// How long Pacemaker should wait for it.
    pub(crate) timeout: Duration,
    /// How often it should be asked for; none where that is once.
    pub(crate) interval: Option<&'static str>,
}

/// Of both agents.
pub(crate) const PARAMETERS: [Parameter; 2] = [
    Parameter {
        name: "service",
        default: None,
        short: "The service",
        long: "The name of the service, as heirlock's configuration on all nodes has it.",
    },
    Parameter {
        name: "config",
        default: Some(crate::config::CONFIGURATION),
        short: "The configuration",
        long: "The configuration of heirlock on the node.",
    },
];

/// What an agent can be asked for.
pub(crate) fn actions(agent: Agent) -> [Action; 5] {
    let once = |name, timeout_s| Action { name, timeout: Duration::from_secs(timeout_s), interval: None };
    let stop_s = match agent {
        Agent::Service => 90,
        Agent::Notify => 20,
    };
    [
        once("start", 90),
        once("stop", stop_s),
        Action { interval: Some("5s"), ..once("monitor", 20) },
        once("meta-data", 5),
        once("validate-all", 20),
    ]
}

/// The answer to `meta-data`. Its encoding is not named: crmsh refuses a text that names one.
pub(super) fn of(agent: Agent) -> String {
    let (name, short, long) = (agent.name(), agent.short(), agent.long());
    let version = env!("CARGO_PKG_VERSION");
    let parameters: String = PARAMETERS.iter().map(parameter).collect();
    let actions: String = actions(agent).iter().map(action).collect();
    format!(
        r#"<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="{name}" version="{version}">
<version>1.1</version>
<longdesc lang="en">
{long}
</longdesc>
<shortdesc lang="en">{short}</shortdesc>
<parameters>
{parameters}</parameters>
<actions>
{actions}</actions>
</resource-agent>
"#
    )
}

fn parameter(parameter: &Parameter) -> String {
    let Parameter { name, default, short, long } = parameter;
    let required = u8::from(default.is_none());
    let default = default.map(|value| format!(" default=\"{value}\"")).unwrap_or_default();
    format!(
        r#"<parameter name="{name}" unique="0" required="{required}">
<longdesc lang="en">
{long}
</longdesc>
<shortdesc lang="en">{short}</shortdesc>
<content type="string"{default}/>
</parameter>
"#
    )
}

fn action(action: &Action) -> String {
    let Action { name, timeout, interval } = action;
    let interval =
        interval.map(|interval| format!(" interval=\"{interval}\" depth=\"0\"")).unwrap_or_default();
    format!("<action name=\"{name}\" timeout=\"{}s\"{interval}/>\n", timeout.as_secs())
}
