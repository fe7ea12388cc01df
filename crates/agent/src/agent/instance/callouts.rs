//! rpc.statd's callouts: each client is made durable before rpc.statd, and lockd behind it, goes on.

use heirlock_core::Moment;
use heirlock_core::log_limit::cut;
use heirlock_core::planted::{Bug, planted};
use heirlock_nsm::MyName;

use super::Instance;
use crate::agent::Answered;
use crate::agent::common::Common;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::put_off::Later;
use crate::status_monitor::Said;
use crate::words::counted;

impl<O: Outside> Instance<O> {
    /// rpc.statd says something, and waits. `heard`: since when.
    pub(crate) fn called_out(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        heard: Moment,
        said: Said,
        answered: Answered,
    ) {
        let done = match &said {
            Said::Add { .. } if planted(Bug::CalloutFirst) => Ok(()),
            Said::Add { .. } => self.add_client(server, now, &said),
            // Judged by the next look, and not before: a client that lockd unmonitors may hold locks all the same (I2).
            Said::Del { mon_name } => {
                tracing::debug!(client = cut(mon_name.as_str()), "rpc.statd monitors it no more");
                Ok(())
            }
            Said::Notified(what) => {
                if server.outside().may_say("notified by rpc.statd") {
                    tracing::info!(
                        what = cut(&format!("{what:?}")),
                        "a client says that it was restarted: {what:?}"
                    );
                }
                Ok(())
            }
        };
        if done.is_err() && server.store().is_busy() {
            return self.put_off(Later::Callout(heard, said, answered));
        }
        if matches!(said, Said::Add { .. }) {
            server.answered_registrations(heard, 1, done.is_ok());
        }
        answered(&done);
    }

    /// Takes in the notes of callouts that found no agent. It is tried again until the store has taken it in, in every capture
    /// mode: the mode may have been changed since, and until it is restarted rpc.statd runs the callout all the same.
    pub(crate) fn take_in_spool(&mut self, server: &mut Common<O>, now: Moment) {
        let noted = match self.outside.noted_by_callouts() {
            Ok(noted) if noted.is_empty() => return,
            Ok(noted) => noted,
            Err(error) => {
                tracing::warn!(%error, "what callouts noted can't be read: {error}");
                return;
            }
        };
        for said in &noted {
            if let Err(why) = self.add_client(server, now, said) {
                if server.outside().may_say("noted callouts") {
                    tracing::warn!(why, "what callouts noted is not durable yet: {why}");
                }
                return;
            }
        }
        tracing::error!(
            clients = noted.len(),
            "{} got locks before they were durable, since no agent answered in time; they are durable now",
            counted(noted.len(), "client")
        );
        if let Err(error) = self.outside.noted_is_durable() {
            tracing::warn!(%error, "what callouts noted could not be put away, and will be read again: {error}");
        }
    }

    fn add_client(&mut self, server: &mut Common<O>, now: Moment, said: &Said) -> Result<(), String> {
        let Said::Add { mon_name, my_name } = said else { return Ok(()) };
        let here = || MyName::parse(server.server().as_str()).map_err(|error| error.to_string());
        let my_name = my_name.clone().map_or_else(here, Ok)?;
        self.protect(server, now, mon_name, &my_name)
    }
}
