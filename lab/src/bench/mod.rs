//! Benches: heirlock beside Debian's own programs, run as they would be run in production, in private namespaces.
//!
//! | file | holds |
//! |---|---|
//! | `mon/`, `callout.rs`, `capture.rs`, `notify/`, `adopt.rs`, `scale.rs`, `churn.rs`, `idle.rs` | one bench each |
//! | `ground.rs`, `site.rs`, `agent.rs`, `etcd.rs`, `played.rs` | what they run on: folders, namespaces, programs, and the parts that are played |
//! | `report.rs`, `plot.rs`, `document.rs` | how figures are shown: tables, JSON, plots, `docs/benchmarks.md` |

pub mod adopt;
mod agent;
pub mod callout;
pub mod capture;
pub mod churn;
mod clients;
pub mod command;
pub mod document;
mod etcd;
mod ground;
pub mod idle;
pub mod mon;
pub mod notify;
mod played;
pub mod plot;
pub mod report;
pub mod scale;
mod site;

use std::path::PathBuf;
use std::time::Duration;

/// Where heirlock keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum StoreKind {
    /// In a folder on the disk of the site.
    #[default]
    Dir,
    /// In a member of etcd, whose data lie on the same disk, beside a folder.
    Etcd,
}

/// The options of all benches.
#[derive(Debug, Clone)]
pub struct Options {
    /// Numbers of clients, where others than the bench's own are wanted.
    pub clients: Option<Vec<usize>>,
    /// How often quick cases are measured, in turn with what they are compared with; the median counts.
    pub repeat: usize,
    /// How long one of the other programs may take.
    pub patience: Duration,
    /// For how many seconds clients come and leave.
    pub seconds: u64,
    /// The heirlock program.
    pub heirlock: PathBuf,
    /// Where heirlock keeps its records, beside what it is compared with.
    pub store: StoreKind,
}
