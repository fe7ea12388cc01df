//! The phases of an adoption, resumable after every step.

mod strategy;

pub use strategy::{Conveyance, Strategy, UnknownWord};
