//! The kernel lab: real Linux NFS servers and clients on one machine, and the scenarios that prove heirlock
//! on them.
//!
//! Each guest is a User-Mode Linux kernel with Debian's own nfs-utils, so a lock that survives here survives
//! on real servers. The files in reading order: [`scenario`] (what is told), [`cluster`] (the words it is
//! told in), [`documented`] (Pacemaker as the guide configures it), [`guest`], [`network`] and [`release`] (what it is told on), [`runner`] (several at a time,
//! results, logs). [`bench`] measures heirlock beside Debian's programs.
//!
//! Nothing is left of a run, however it ends: namespaces have no names, mounts are private to the guest that
//! needs them, every kernel is ended by id until none of its processes is left, and ends with the thread that
//! started it even when the lab itself is killed.

pub mod bench;
pub mod busy;
pub mod capture;
pub mod cluster;
pub mod crowd;
pub mod documented;
pub mod grace;
pub mod guest;
pub mod guest_program;
pub mod limits;
pub mod network;
pub mod process;
pub mod release;
pub mod rpc;
pub mod runner;
pub mod scenario;
pub mod scenarios;
pub mod stop;
pub mod wire;
pub mod witness;
