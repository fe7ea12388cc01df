//! What the store says of services and of their past, as the agent's crate reads it. Tests read it from a folder.

pub(crate) use heirlock_agent::survey::{past, present};

#[cfg(test)]
mod tests;
