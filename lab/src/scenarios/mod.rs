//! The scenarios, one file each or one for a family.

pub mod control;
pub mod selftest;
