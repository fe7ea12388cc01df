//! What the store says of services and of their past: read only, on any server, whether an agent runs there or not.

pub(crate) mod past;
pub(crate) mod present;
