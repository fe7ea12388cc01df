//! What the resource agents say of themselves, as ra-api-1.dtd has it.

use super::Agent;

/// The answer to `meta-data`. Its encoding is not named: crmsh refuses a text that names one.
pub(super) fn of(agent: Agent) -> String {
    let (name, short, long) = (agent.name(), agent.short(), agent.long());
    let (start, stop) = match agent {
        Agent::Service => ("90s", "90s"),
        Agent::Notify => ("90s", "20s"),
    };
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
<parameter name="service" unique="0" required="1">
<longdesc lang="en">
The name of the service, as heirlock's configuration on all nodes has it.
</longdesc>
<shortdesc lang="en">The service</shortdesc>
<content type="string"/>
</parameter>
<parameter name="config" unique="0" required="0">
<longdesc lang="en">
The configuration of heirlock on the node.
</longdesc>
<shortdesc lang="en">The configuration</shortdesc>
<content type="string" default="{configuration}"/>
</parameter>
</parameters>
<actions>
<action name="start" timeout="{start}"/>
<action name="stop" timeout="{stop}"/>
<action name="monitor" timeout="20s" interval="5s" depth="0"/>
<action name="meta-data" timeout="5s"/>
<action name="validate-all" timeout="20s"/>
</actions>
</resource-agent>
"#,
        version = env!("CARGO_PKG_VERSION"),
        configuration = crate::cli::CONFIGURATION,
    )
}
