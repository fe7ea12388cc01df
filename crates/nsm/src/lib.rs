//! Monitor records, NSM, and what of NLM and rpcbind a lock failover needs.
//!
//! Bytes become typed values or an error that names the type, what was expected and what was found; typed values
//! become the same bytes again. This crate does no I/O, has no dependencies, allocates nothing by what the wire says
//! before it has checked it, and panics on no input.
//!
//! | module | holds | source |
//! |---|---|---|
//! | [`name`] | names that are safe as file names | nfs-utils utils/statd/monitor.c |
//! | [`record`] | the status monitor's records, to the byte | nfs-utils support/nsm/file.c |
//! | [`state`] | state numbers and the `state` file | nfs-utils support/nsm/file.c |
//! | [`xdr`], [`rpc`] | RFC 4506, RFC 5531 | |
//! | [`rpcbind`] | program 100000 | RFC 1833, RFC 5665 |
//! | [`sm`] | program 100024 | X/Open XNFS, nfs-utils support/nsm/sm_inter.x |
//! | [`nlm`] | program 100021 | X/Open XNFS, Linux fs/lockd |

pub mod limits;
pub mod name;
pub mod nlm;
pub mod record;
pub mod rpc;
pub mod rpcbind;
pub mod sm;
pub mod state;
pub mod xdr;

pub use name::{MonName, MyName};
pub use record::MonitorLine;
pub use state::StateNumber;
