//! Where an exporter has its knowledge from.

use heirlock_agent::control::report::StatusReport;

/// An agent, as an exporter asks it. Each call ends in time, and may be made by several threads at once.
pub trait Source: Send + Sync + 'static {
    /// The status as the agent tells it now.
    ///
    /// # Errors
    /// Why no agent told any, in words for an administrator.
    fn status(&self) -> Result<StatusReport, String>;
}
