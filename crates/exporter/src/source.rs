//! Where an exporter has its knowledge from.

use heirlock_agent::control::report::{AdoptionReport, Next, Problem, ServiceStatus, StatusReport};

/// An agent, as an exporter asks it, and the words for what it tells. Each call ends in time, and may be made by several threads at
/// once.
pub trait Source: Send + Sync + 'static {
    /// The status as the agent tells it now.
    ///
    /// # Errors
    /// Why no agent told any, in words for an administrator.
    fn status(&self) -> Result<StatusReport, String>;

    /// The last adoptions of all services, the newest first.
    ///
    /// # Errors
    /// Why they are not told.
    fn past(&self) -> Result<Vec<AdoptionReport>, String>;

    /// A problem in a sentence, as the command line has it: commands are in single quotes.
    fn problem(&self, problem: &Problem) -> String;

    /// A step for an administrator, where one is to be taken.
    fn next(&self, next: Next, service: &ServiceStatus) -> Option<String>;
}
