//! The agent's control socket: requests and answers in JSON, one line each. A request is answered by any number of `progress`
//! lines and then by exactly one `done` or `failed`.

mod client;
mod listener;
mod outbox;
pub(crate) mod read_only;
pub(crate) mod trust;

use heirlock_core::limits::RECORDS_MAX;
use heirlock_nsm::limits::FILE_NAME_BYTES_MAX;

pub(crate) use client::{AskError, ask, ask_at, ask_read_only, how_to_start};
pub(crate) use heirlock_agent::control::{
    Answer, AnswerWhen, Failure, Fenced, Line, Missing, Progress, Request, Respond, Responder, Wait, report,
};
pub(crate) use listener::Listener;
#[cfg(test)]
pub(crate) use listener::heard;
pub(crate) use outbox::Outbox;

/// The socket's name in the runtime directory.
pub(crate) const SOCKET: &str = "control.sock";

/// Bytes of one line of an answer: a report that names all clients there may be, and why each was not told.
pub(crate) const LINE_BYTES_MAX: usize = RECORDS_MAX * (FILE_NAME_BYTES_MAX + 257);
