//! The services in the store and their past: read only, on any server, whether an agent runs there or not.

pub(crate) mod past;
pub(crate) mod present;
