//! heirlock's surfaces: the functions that read foreign bytes. Each function takes any bytes and fails where the code
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

/// A surface.
pub struct Surface {
    /// That of its target and of its corpus.
    pub name: &'static str,
    /// Reads the bytes.
    pub read: fn(&[u8]),
}

const fn surface(name: &'static str, read: fn(&[u8])) -> Surface {
    Surface { name, read }
}

/// All of them.
pub const SURFACES: [Surface; 10] = [
    surface("config", config),
    surface("deframer", deframer),
    surface("nlm", nlm),
    surface("notifier", notifier),
    surface("nsm", nsm),
    surface("population", population),
    surface("record", record),
    surface("rpc", rpc),
    surface("rpcbind", rpcbind),
    surface("state", state),
];
