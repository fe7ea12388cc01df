//! `heirlock ocf AGENT ACTION`: the actions of the resource agents `ocf:heirlock:service` and `ocf:heirlock:notify`, which
//! Pacemaker runs. The scripts under /usr/lib/ocf call it, and decide nothing.
//!
//! The resources of one service stand in a group in this order: volume, NFS server, exports, `service`, address, `notify`. So the
//! address comes up when grace is open, and clients are told from it.
//!
//! | file | holds |
//! |---|---|
//! | `decide.rs` | the decisions, as functions of the agent's status and of the cluster's word |
//! | `mark.rs` | the note that a resource was started |
//! | `times.rs` | how long the actions may take |
//! | `metadata.rs`, `code.rs` | the forms of the standard (OCF Resource Agent API 1.1) |

mod code;
mod decide;
mod mark;
mod metadata;
mod times;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use heirlock_core::{ServerName, ServiceName};

use crate::config::{self, Command, Hook, Mode, Settings};
use crate::control::report::StatusReport;
use crate::control::{self, Answer, AnswerWhen, AskError, Fenced, Request};
use crate::{hooks, host, pacemaker};

use code::{Code, Verdict};
use decide::{Before, Telling};
use mark::Mark;
pub(crate) use metadata::{Action, PARAMETERS, actions};
pub(crate) use times::times;

/// How often the status is looked at while something is waited for. Pacemaker ends an action that takes too long.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long systemd has to bring an agent back that a stop needs.
const AGENT_START_TIME_MAX: Duration = Duration::from_secs(20);

/// How long a start waits for a store that fails. A start that fails keeps the service off this node, and a disk is busiest when
/// a node has just died.
const STORE_FAILS_TIME_MAX: Duration = Duration::from_secs(30);

/// Which of the two resource agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    /// `ocf:heirlock:service`
    Service,
    /// `ocf:heirlock:notify`
    Notify,
}

impl Agent {
    /// As its type in a cluster's configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Notify => "notify",
        }
    }

    /// What it does, in one line.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Service => "Takes an NFS service over, with the locks of its clients",
            Self::Notify => "Tells the clients of an NFS service to get their locks back",
        }
    }

    /// The same, with what an administrator must know.
    pub(crate) fn long(self) -> &'static str {
        match self {
            Self::Service => {
                "\
Adopts a service of heirlock on this node as far as its grace period is open, and
releases it. In a group it stands behind the volume, the NFS server and the
exports, and before the address: a client that reached the server before grace is
open could take a lock that another client holds.

A service whose owner is another node is adopted only where the cluster confirms
that this node is off: by a fence that worked, or by 'stonith_admin --confirm'.

The resource is degraded while clients are at risk, or while no agent of heirlock
answers on the node. It fails only where another node has the service."
            }
            Self::Notify => {
                "\
Has the clients of a service told that they must get their locks back. In a group
it stands behind the address. ocf:heirlock:service comes earlier in the same group,
and heartbeat:nfsnotify stands in no group that has this one.

The resource is degraded while clients are lost or unreachable:
'heirlock report SERVICE' names them."
            }
        }
    }
}

/// The parts of the environment that Pacemaker sets for an action (OCF_RESKEY_*).
struct Asked {
    agent: Agent,
    service: ServiceName,
    settings: Settings,
}

/// A start that came to nothing.
struct NotStarted {
    verdict: Verdict,
    /// The agent refused it, so nothing was changed.
    is_refused: bool,
}

impl From<Verdict> for NotStarted {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, is_refused: false }
    }
}

impl From<AskError> for NotStarted {
    fn from(error: AskError) -> Self {
        let is_refused = matches!(&error, AskError::Failed(failure) if failure.refused);
        Self { verdict: Verdict::failed(error.to_string()), is_refused }
    }
}

/// Does an action, and answers as the standard says: the reason goes to standard error, the number is the exit code.
pub(crate) fn run(agent: Agent, action: &str, config: &Path) -> u8 {
    if action == "meta-data" {
        print!("{}", metadata::of(agent));
        return Code::Success.number();
    }
    let verdict = match action {
        "start" | "stop" | "monitor" | "validate-all" => {
            Asked::read(agent, config).map_or_else(|refused| refused, |asked| asked.answer(action))
        }
        _ => Verdict::of(
            Code::Unimplemented,
            format!("no action {action:?}: start, stop, monitor, meta-data, validate-all"),
        ),
    };
    if let Some(why) = &verdict.why {
        eprintln!("ocf-exit-reason:{}", code::in_one_line(why));
    }
    verdict.code.number()
}

impl Asked {
    fn read(agent: Agent, config: &Path) -> Result<Self, Verdict> {
        let given = parameter("service").ok_or_else(|| {
            Verdict::of(Code::Configured, "the parameter 'service' is not set: it names the service")
        })?;
        let service = ServiceName::try_from(given)
            .map_err(|error| Verdict::of(Code::Configured, format!("the parameter 'service': {error}")))?;
        let settings =
            config::load(config).map_err(|error| Verdict::of(Code::Arguments, error.to_string()))?;
        if settings.service(&service).is_none() {
            let why = format!("no service {service} is in {}", config.display());
            return Err(Verdict::of(Code::Arguments, why));
        }
        if let Some(node) = parameter("CRM_meta_on_node").filter(|node| *node != settings.server.as_str()) {
            let why = format!(
                "this node is {node} to the cluster and {} to heirlock: set server = {node:?} in {}",
                settings.server,
                config.display()
            );
            return Err(Verdict::of(Code::Arguments, why));
        }
        Ok(Self { agent, service, settings })
    }

    fn answer(&self, action: &str) -> Verdict {
        let done = match (self.agent, action) {
            (_, "validate-all") => self.validate(),
            (Agent::Service, "start") => self.start_service(),
            (Agent::Service, "stop") => self.stop_service(),
            (Agent::Notify, "start") => self.start_notify(),
            (Agent::Notify, "stop") => self.mark().clear().map_err(Verdict::failed),
            _ => self.monitor(),
        };
        done.map_or_else(|verdict| verdict, |()| Verdict::success())
    }

    fn mark(&self) -> Mark {
        Mark::of(self.agent.name(), &self.service)
    }

    fn ask(&self, request: &Request) -> Result<Answer, AskError> {
        control::ask(&self.settings.runtime_directory, request, |_| {})
    }

    fn status(&self) -> Result<StatusReport, AskError> {
        match self.ask(&Request::Status)? {
            Answer::Status(report) => Ok(*report),
            _ => Err(AskError::Gone { why: "it answered another question".into() }),
        }
    }

    /// What a start rests upon on every node, besides the rest of the configuration: 'heirlock doctor' looks at that.
    fn validate(&self) -> Result<(), Verdict> {
        let service = &self.service;
        let configured = self.settings.service(service);
        if configured.is_some_and(|configured| configured.home.is_some()) {
            let why = format!(
                "{service} has a 'home': where it goes is Pacemaker's decision, so take that line away"
            );
            return Err(Verdict::of(Code::Arguments, why));
        }
        if configured.is_some_and(|configured| configured.mode == Mode::Automatic) {
            let why =
                format!("{service} has mode = \"automatic\": Pacemaker decides here, so set \"manual\"");
            return Err(Verdict::of(Code::Arguments, why));
        }
        let hooks = &self.settings.hooks;
        if let Some(hook) = Hook::ALL.into_iter().find(|hook| hooks.command(*hook).is_some()) {
            let key = hook.as_str();
            let why = format!("hooks.{key} is set: Pacemaker has resources for that, so take that line away");
            return Err(Verdict::of(Code::Arguments, why));
        }
        match pacemaker::fences() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Verdict::of(
                Code::Configured,
                "stonith-enabled is false: without a fence two nodes may grant the same locks",
            )),
            // crm_resource --validate works without a cluster.
            Err(why) => {
                eprintln!("whether the cluster fences is not known: {why}");
                Ok(())
            }
        }
    }

    fn start_service(&self) -> Result<(), Verdict> {
        let until = Instant::now() + STORE_FAILS_TIME_MAX;
        loop {
            let status = self.wait_for_store(until)?;
            match self.prepare(&status) {
                // The store has begun to fail meanwhile, and that may be the reason.
                Err(not) if not.is_refused && Instant::now() < until && !self.is_store_well() => {}
                done => return done.map_err(|not| not.verdict),
            }
        }
    }

    fn is_store_well(&self) -> bool {
        self.status().is_ok_and(|status| status.store.well)
    }

    /// The status, when the store works again or the time is over. A service that is prepared already waits for nothing.
    fn wait_for_store(&self, until: Instant) -> Result<StatusReport, Verdict> {
        let mut is_said = false;
        loop {
            let status = self.status().map_err(|error| Verdict::failed(error.to_string()))?;
            let is_prepared = decide::before_start(&status, self.service.as_str()) == Before::Prepared;
            if status.store.well || is_prepared || Instant::now() >= until {
                return Ok(status);
            }
            if !is_said {
                is_said = true;
                let why = status.store.error.unwrap_or_default();
                eprintln!(
                    "waiting: the store fails, for {} s at most: {why}",
                    STORE_FAILS_TIME_MAX.as_secs()
                );
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn prepare(&self, status: &StatusReport) -> Result<(), NotStarted> {
        let service = &self.service;
        let fenced = match decide::before_start(status, service.as_str()) {
            Before::Unknown => {
                let why = format!(
                    "the agent knows no service {service}: restart it, its configuration has changed"
                );
                return Err(Verdict::of(Code::Arguments, why).into());
            }
            Before::Prepared => return Ok(self.mark().set().map_err(Verdict::failed)?),
            Before::Free => None,
            Before::Owned(owner) => Some(self.confirm_off(&owner)?),
        };
        // Before anything is claimed: a start that is interrupted is stopped by a release.
        self.mark().set().map_err(Verdict::failed)?;
        let request = Request::Adopt {
            service: service.clone(),
            prepare: true,
            finish: false,
            fenced,
            force: false,
            answer_when: AnswerWhen::default(),
        };
        match self.ask(&request) {
            Ok(Answer::Adoption(report)) if report.failure.is_some() => {
                Err(Verdict::failed(report.failure.unwrap_or_default()).into())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The owner is named, so that nothing is taken from another server that comes to own the service meanwhile.
    fn confirm_off(&self, owner: &str) -> Result<Fenced, Verdict> {
        let asked =
            |why: String| Verdict::failed(format!("the cluster can't say whether {owner} is off: {why}"));
        let server = ServerName::parse(owner).map_err(|error| asked(error.to_string()))?;
        let (fences, node) = pacemaker::fences_and_node(owner).map_err(asked)?;
        if !fences {
            return Err(Verdict::failed(format!(
                "{owner} owns {}, and stonith-enabled is false: nothing confirms that it is off",
                self.service
            )));
        }
        decide::confirmed_off(owner, self.service.as_str(), &node)?;
        eprintln!("{owner} is off by the cluster's word: {} is adopted", self.service);
        Ok(Fenced::Server(server))
    }

    fn stop_service(&self) -> Result<(), Verdict> {
        let service = &self.service;
        let mark = self.mark();
        match self.status() {
            Ok(_) => {}
            // It was never started here in this boot.
            Err(_) if !mark.is_set() => return Ok(()),
            Err(AskError::NoAgent { .. }) => self.bring_agent_back()?,
            Err(error) => return Err(Verdict::failed(error.to_string())),
        }
        // Also where it is not held: an adoption that has claimed nothing yet is ended by it.
        match self.ask(&Request::Release { service: service.clone() }) {
            Ok(Answer::Verb { troubles, .. }) if !troubles.is_empty() => {
                eprintln!("{} entries of the store can't be read; see 'heirlock status'", troubles.len());
            }
            Ok(_) => {}
            Err(error) => return Err(Verdict::failed(error.to_string())),
        }
        mark.clear().map_err(Verdict::failed)
    }

    /// Without an agent it is not known which clients are on record: a node that can't say it must be fenced, which is what a
    /// stop that fails leads to.
    fn bring_agent_back(&self) -> Result<(), Verdict> {
        let fail = |why: &str| Verdict::failed(format!("no agent of heirlock answers here: {why}"));
        if !host::runs_systemd() {
            return Err(fail("and no systemd is here to start it"));
        }
        let argv = ["systemctl", "start", "heirlock"].map(str::to_owned).to_vec();
        let start = Command { argv, time_limit: AGENT_START_TIME_MAX };
        hooks::run(&start, &[]).map_err(|error| fail(&error.to_string()))?;
        let until = Instant::now() + AGENT_START_TIME_MAX;
        loop {
            match self.status() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= until => return Err(fail(&error.to_string())),
                Err(_) => thread::sleep(LOOK_INTERVAL),
            }
        }
    }

    fn start_notify(&self) -> Result<(), Verdict> {
        let mut is_asked = false;
        loop {
            let status = self.status().map_err(|error| Verdict::failed(error.to_string()))?;
            match decide::telling(&status, self.service.as_str()) {
                Telling::Told => return self.mark().set().map_err(Verdict::failed),
                Telling::Never(why) => return Err(Verdict::failed(why)),
                Telling::Waits if !is_asked => {
                    is_asked = true;
                    self.finish()?;
                }
                Telling::Waits | Telling::Begins => thread::sleep(LOOK_INTERVAL),
            }
        }
    }

    /// An action that lasts as long as grace would hold up the rest of the cluster.
    fn finish(&self) -> Result<(), Verdict> {
        let request = Request::Adopt {
            service: self.service.clone(),
            prepare: false,
            finish: true,
            fenced: None,
            force: false,
            answer_when: AnswerWhen::Accepted,
        };
        self.ask(&request).map(drop).map_err(|error| Verdict::failed(error.to_string()))
    }

    fn monitor(&self) -> Result<(), Verdict> {
        if !self.mark().is_set() {
            return Err(Verdict { code: Code::NotRunning, why: None });
        }
        let verdict = match self.status() {
            // systemd or its supervisor brings the agent back, and the clients keep their locks meanwhile.
            Err(error) => Verdict::of(Code::Degraded, error.to_string()),
            Ok(status) => match self.agent {
                Agent::Service => decide::monitor_service(&status, self.service.as_str()),
                Agent::Notify => decide::monitor_notify(&status, self.service.as_str()),
            },
        };
        if verdict.code == Code::Success { Ok(()) } else { Err(verdict) }
    }
}

/// A parameter of the resource, or of its environment.
fn parameter(name: &str) -> Option<String> {
    std::env::var(format!("OCF_RESKEY_{name}")).ok().filter(|value| !value.is_empty())
}
