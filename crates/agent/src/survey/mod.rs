//! The store's view of services and of their past: read only, on any server, whether an agent runs there or not.

pub mod past;
pub mod present;
