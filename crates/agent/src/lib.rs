//! heirlock's agent, as far as it touches nothing by itself: no thread, file, socket, clock or random number is here.

pub mod config;
pub mod control;
pub mod limits;
pub mod status_monitor;
pub mod store_memory;
pub mod survey;
pub mod words;
