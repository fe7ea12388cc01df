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
//!
//! A file of rpc.statd's, read and written again to the byte:
//!
//! ```
//! use heirlock_nsm::record::{parse_record, render_record};
//!
//! let file = b"0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-b\n";
//! let record = parse_record(file)?;
//! assert_eq!(record.lines[0].mon_name.address(), Some("10.0.0.1".parse().unwrap()));
//! assert_eq!(record.lines[0].my_name.as_str(), "nfs-b");
//! assert_eq!(render_record(&record.lines), file);
//! # Ok::<(), heirlock_nsm::record::RecordError>(())
//! ```
//!
//! An error says what was expected, and a name that could leave its directory is no name:
//!
//! ```
//! use heirlock_nsm::MonName;
//!
//! assert!(MonName::parse("client.example.org").is_ok());
//! assert!(MonName::parse("../../etc/passwd").is_err());
//! ```

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
