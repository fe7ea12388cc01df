//! The store, as every part of heirlock knows it, whatever it is made of.

mod error;

pub use error::{StoreError, StoreErrorKind};
