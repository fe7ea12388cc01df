//! How long the actions of the resource agents may take, by the configuration of a server.

use std::time::Duration;

use heirlock_core::cluster::Times;

use super::{AGENT_START_TIME_MAX, Agent, actions};
use crate::config::{Command, Settings};
use crate::limits;

/// As long as their descriptions ask for; longer where a command of the configuration, by which the lock manager is made to
/// recognise or a service is given up, may take longer than the ones that heirlock has itself.
pub(crate) fn times(settings: &Settings) -> Times {
    let asked = |agent, name| {
        let all = actions(agent).into_iter();
        all.filter(|action| action.name == name).map(|action| action.timeout).max().unwrap_or_default()
    };
    let hook = |command: &Option<Command>| {
        command.as_ref().map_or(Duration::ZERO, |command| command.time_limit + limits::KILLED_TIME_MAX)
    };
    let hooks = &settings.hooks;
    let recognition = settings.lock_manager.commands_time_max().unwrap_or_default();
    let start = hook(&hooks.volume_up) + recognition + limits::PROVE_TIME_MAX;
    let stop = AGENT_START_TIME_MAX
        + hook(&hooks.address_down)
        + limits::ADDRESS_GONE_TIME_MAX
        + limits::LET_GO_TIME_MAX
        + hook(&hooks.volume_down);
    Times {
        service_start: asked(Agent::Service, "start").max(start),
        service_stop: asked(Agent::Service, "stop").max(stop),
        notify_start: asked(Agent::Notify, "start").max(hook(&hooks.address_up)),
        notify_stop: asked(Agent::Notify, "stop"),
        monitor: asked(Agent::Service, "monitor").max(asked(Agent::Notify, "monitor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::settings;

    #[test]
    fn actions_take_as_long_as_they_ask_for_unless_a_command_of_the_configuration_may_take_longer() {
        let plain = times(&settings(""));
        let seconds = |times: Times| {
            let Times { service_start, service_stop, notify_start, notify_stop, monitor } = times;
            [service_start, service_stop, notify_start, notify_stop, monitor].map(|time| time.as_secs())
        };
        assert_eq!(seconds(plain), [90, 90, 90, 20, 20]);
        let quick = times(&settings("[lock-manager]\nrestart-nfs = [\"restart\"]\n"));
        assert_eq!(quick, plain, "a command of the usual minute");
        let slow = "[lock-manager]\nrestart-nfs = { command = [\"restart\"], time-limit = \"2m\" }\n\
                    [hooks]\nvolume-down = { command = [\"down\"], time-limit = \"40s\" }\n";
        assert_eq!(seconds(times(&settings(slow))), [132, 107, 90, 20, 20]);
    }
}
