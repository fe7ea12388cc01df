//! Metrics of an agent for Prometheus and a page for people, over HTTP: made from what the agent tells, and served by an own
//! process that needs no rights but those to ask.
//!
//! The crate touches nothing but the sockets that it serves. The program answers for the agent ([`Source`]), and writes files.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod html;
#[cfg(test)]
#[path = "../../heirlock/tests/left_out/mod.rs"]
mod left_out;
mod limits;
pub mod metrics;
mod page;
mod serve;
mod source;
#[cfg(test)]
mod testing;

pub use serve::serve;
pub use source::Source;
