//! ocf_heirlock_service(7) and ocf_heirlock_notify(7), made from what the resource agents say of themselves, in the form that the
//! pages of other resource agents have.

use super::page::{Page, lower_first, see_also, title};
use super::roff::{Lines, escape};
use crate::ocf::{Action, Agent, PARAMETERS, actions};

/// The section of resource agents' pages.
const SECTION: &str = "7";

/// Both pages.
pub(super) fn pages() -> [Page; 2] {
    [Agent::Service, Agent::Notify].map(page)
}

fn page(agent: Agent) -> Page {
    let name = format!("ocf_heirlock_{}", agent.name());
    let mut lines = Lines::default();
    lines.request(&title(&name, SECTION, "OCF resource agents"));
    lines.section("name");
    // What comes before the dash is what man and apropos look for, so it stays bare.
    lines.request(&format!("{name} \\- {}", escape(&lower_first(agent.short()))));
    lines.section("synopsis");
    lines.filled(&format!("ocf:heirlock:{} service=NAME [config=PATH]", agent.name()));
    lines.section("description");
    lines.text(agent.long());
    lines.section("supported parameters");
    for parameter in &PARAMETERS {
        lines.item(parameter.name, &said_of(parameter.long, parameter.default));
    }
    lines.section("supported actions");
    lines.filled("The times are those that a cluster should be configured with, at least:");
    for action in actions(agent) {
        let Action { name, timeout, interval } = action;
        let interval = interval.map(|interval| format!(" interval={interval}")).unwrap_or_default();
        lines.item(name, &format!("timeout={}s{interval}", timeout.as_secs()));
    }
    lines.section("exit status");
    for (code, meaning) in codes(agent) {
        lines.item(code, meaning);
    }
    lines.section("examples");
    lines.filled("As crm(8) takes it:");
    lines.verbatim(example(agent, "primitive", "params ").iter().map(String::as_str));
    lines.request(".PP");
    lines.filled("As pcs(8) takes it:");
    lines.verbatim(example(agent, "pcs resource create", "").iter().map(String::as_str));
    lines.request(".PP");
    lines.filled("Complete configurations are in docs/guide/pacemaker.md, among the package's documents.");
    let other = match agent {
        Agent::Service => "ocf_heirlock_notify(7)",
        Agent::Notify => "ocf_heirlock_service(7)",
    };
    see_also(&mut lines, &["heirlock(8)", "heirlock-ocf(8)", other, "heirlock.toml(5)"]);
    Page { name, section: SECTION, text: lines.finish() }
}

fn said_of(long: &str, default: Option<&str>) -> String {
    match default {
        Some(default) => format!("{long} Default: {default}"),
        None => format!("{long} It must be given."),
    }
}

/// The codes that say more than "done" and "failed".
fn codes(agent: Agent) -> [(&'static str, &'static str); 5] {
    let degraded = match agent {
        Agent::Service => {
            "The resource is active and degraded: clients are at risk, the store fails, or no agent of heirlock answers. Nothing is \
             stopped or moved for it."
        }
        Agent::Notify => {
            "The resource is active and degraded: clients are lost or unreachable. Nothing is stopped or moved for it."
        }
    };
    [
        ("0", "Done; or the resource is active."),
        ("1", "It failed, for the reason that is printed: Pacemaker tries again, here or on another node."),
        ("2", "The configuration of this node can't be."),
        ("7", "The resource is not active on this node."),
        ("190", degraded),
    ]
}

fn example(agent: Agent, command: &str, parameters: &str) -> Vec<String> {
    let mut lines = vec![
        format!("{command} homes-{name} ocf:heirlock:{name} \\", name = agent.name()),
        format!("    {parameters}service=homes \\"),
    ];
    let ordered =
        actions(agent).into_iter().filter(|action| ["start", "stop", "monitor"].contains(&action.name));
    let operations: Vec<String> = ordered
        .map(|action| {
            format!(
                "    op {} timeout={}s interval={}",
                action.name,
                action.timeout.as_secs(),
                action.interval.unwrap_or("0")
            )
        })
        .collect();
    lines.push(operations.join(" \\\n"));
    lines.join("\n").lines().map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_the_agent_says_of_itself() {
        for (page, agent) in pages().iter().zip([Agent::Service, Agent::Notify]) {
            assert_eq!(page.place(), format!("man7/ocf_heirlock_{}.7", agent.name()));
            for parameter in &PARAMETERS {
                assert!(page.text.contains(&format!(".TP\n\\fB{}\\fR", parameter.name)), "{}", page.text);
            }
            for action in actions(agent) {
                let heading =
                    format!(".TP\n\\fB{}\\fR\ntimeout={}s", escape(action.name), action.timeout.as_secs());
                assert!(page.text.contains(&heading), "{heading}: {}", page.text);
            }
            assert!(page.text.contains(&format!("op stop timeout={}s", actions(agent)[1].timeout.as_secs())));
            for line in agent.long().lines().filter(|line| !line.is_empty()) {
                assert!(page.text.contains(&escape(line)), "{line}");
            }
        }
    }
}
