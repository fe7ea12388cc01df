//! What the store says of services and of their past: read only, on any server, whether an agent runs there or not.

pub mod past;
pub mod present;
