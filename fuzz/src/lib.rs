//! heirlock's surfaces: what reads bytes that somebody else wrote. Each function takes any bytes and fails where the code
//! behind it panics or contradicts itself.
//!
//! The fuzz targets call them, and so does an ordinary test of the `heirlock` crate with the seed corpus: this file may
//! use nothing but heirlock's own crates.

mod decisions;
mod formats;
mod messages;

pub use decisions::{notifier, population};
pub use formats::{config, record, state};
pub use messages::{deframer, nlm, nsm, rpc, rpcbind};

/// All of them: the name, which is that of a target and of its corpus, and the function.
pub const SURFACES: [(&str, fn(&[u8])); 10] = [
    ("config", config),
    ("deframer", deframer),
    ("nlm", nlm),
    ("notifier", notifier),
    ("nsm", nsm),
    ("population", population),
    ("record", record),
    ("rpc", rpc),
    ("rpcbind", rpcbind),
    ("state", state),
];
