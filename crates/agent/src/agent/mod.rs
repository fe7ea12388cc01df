//! The inside of an agent: it captures, keeps, takes over and tells.
//!
//! One loop owns all state: a [`Server`](server::Server) takes each [`Message`] in, does the work whose time has come, and says
//! when that is asked for again. The machines of `heirlock-core` decide, and their decisions are carried out here in the order
//! "durable, then told". Besides its store an agent touches only the things that `outside.rs` names.
//!
//! | file | holds |
//! |---|---|
//! | `outside.rs`, `work.rs`, `message.rs`, `look.rs` | the questions of an agent to its server, the work that it begins there, and what it is told |
//! | `server.rs` | a server, which owns its instances |
//! | `common.rs` | what the instances of a server have in common; of it `acquaintance.rs`, `health.rs` (the store) and `beat.rs` (the heart) |
//! | `instance/` | one lock manager and its services |
//! | `capture.rs`, `resolve.rs`, `monitoring.rs` | what is known of registrations |
//! | `holdings.rs` | the services that are held |
//! | `running.rs`, `waiting.rs`, `attempts.rs`, `shared.rs`, `conveying.rs`, `grace.rs` | what is known of runs, and the callers that wait for them |
//! | `releases.rs`, `wishes.rs`, `put_off.rs` | what was asked for and waits |
//! | `status.rs`, `facts.rs`, `tally.rs` | reports, and how requests were answered |
//! | `inside.rs` | what tests of the program see of it |

pub mod acquaintance;
pub mod attempts;
pub mod beat;
pub mod capture;
pub mod common;
pub mod conveying;
pub mod facts;
pub mod grace;
pub mod health;
pub mod holdings;
#[cfg(feature = "inside")]
mod inside;
pub mod instance;
pub mod look;
pub mod message;
pub mod monitoring;
pub mod outside;
pub mod put_off;
pub mod releases;
pub mod resolve;
pub mod running;
pub mod server;
pub mod shared;
pub mod status;
mod taken_away;
mod tally;
pub mod waiting;
pub mod wishes;
pub mod work;

pub use message::{Answered, Message, News, join_alike};
