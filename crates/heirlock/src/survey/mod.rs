//! The services in the store and their past: read only, on any server, whether an agent runs there or not.

pub(crate) mod adoptions;

pub(crate) use heirlock_agent::survey::{past, present};

#[cfg(test)]
mod tests;
