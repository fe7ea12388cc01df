//! How servers learn of their clients: the value of `capture.mode` in heirlock's configuration.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// A capture mode of heirlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    /// heirlock follows the directory of rpc.statd.
    Watch,
    /// heirlock is the status monitor, under its own supervisor.
    Nsm,
    /// The same as `watch`, and rpc.statd waits for heirlock's callout.
    Callout,
}

impl fmt::Display for Capture {
    /// As heirlock's configuration spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Watch => "watch",
            Self::Nsm => "nsm",
            Self::Callout => "callout",
        })
    }
}

/// All of them.
const ALL: &[Capture] = &[Capture::Watch, Capture::Nsm, Capture::Callout];

/// Under which captures a scenario is told.
#[derive(Debug)]
pub struct Captures {
    /// Unless others are asked for.
    pub usual: &'static [Capture],
    /// All that it makes sense under.
    pub possible: &'static [Capture],
}

/// Scenarios in which every change of heirlock is seen, in all modes.
pub const EACH: Captures = Captures { usual: ALL, possible: ALL };

/// Scenarios that differ little between the modes: the others are for `./test --full`.
pub const MOSTLY_WATCH: Captures = Captures { usual: &[Capture::Watch], possible: ALL };

/// Scenarios about heirlock as status monitor.
pub const NSM_ALONE: Captures = Captures { usual: &[Capture::Nsm], possible: &[Capture::Nsm] };

/// Scenarios about rpc.statd, or without heirlock.
pub const WATCH_ALONE: Captures = Captures { usual: &[Capture::Watch], possible: &[Capture::Watch] };
