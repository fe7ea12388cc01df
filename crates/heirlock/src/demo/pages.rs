//! The status page of each of the demo's agents, for a browser: meanwhile, and afterwards for as long as the demo stays.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::{Context, Result};

use super::Serve;
use super::stage::Host;
use super::story::{Cast, LOOK_INTERVAL};

/// The pages, and the agents that tell what is on them.
pub(crate) struct Pages {
    cast: Cast,
    at: Vec<(&'static str, SocketAddr)>,
}

/// Serves a page for each of these.
pub(super) fn serve(serve: Serve, hosts: [&Host; 2]) -> Result<Vec<(&'static str, SocketAddr)>> {
    let page = |host: &Host| {
        let at =
            serve(&host.socket()).with_context(|| format!("the page of {} can't be served", host.name))?;
        Ok((host.name, at))
    };
    hosts.into_iter().map(page).collect()
}

/// Where they are, in words.
pub(super) fn told(at: &[(&str, SocketAddr)]) -> String {
    let pages: Vec<String> = at.iter().map(|(name, at)| format!("of {name} at http://{at}/")).collect();
    format!("the status pages: {}", pages.join(", "))
}

impl Pages {
    pub(super) fn new(cast: Cast, at: Vec<(&'static str, SocketAddr)>) -> Self {
        Self { cast, at }
    }

    /// Waits until the demo is interrupted.
    pub(crate) fn stay(&self) {
        while !self.cast.interrupted.load(Ordering::SeqCst) {
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, until Ctrl-C", told(&self.at))
    }
}
