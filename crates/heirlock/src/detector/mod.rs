//! The detector: notices what happens in the status monitor's directory. The scan is the truth; inotify only says
//! when to look (I6).

mod hints;
mod memory;
mod scan;
#[cfg(test)]
mod tests;

pub(crate) use hints::Hints;
pub(crate) use memory::Memory;
pub(crate) use scan::{look, scan};
