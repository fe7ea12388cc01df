//! systemd's watchdog (sd_notify(3), `WatchdogSec=` in heirlock.service). An agent that hangs is as bad as one that is dead,
//! and where it is the status monitor worse: lockd waits a minute for it in its only thread. So systemd is told that
//! it lives only as long as it answers. `heirlock supervise` does the same where no systemd does.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::monitor;

/// How often systemd is told within the time after which it takes the agent for dead: one answer may be late.
const TOLD_WITHIN_LIMIT: u32 = 4;

/// Tells systemd that the agent lives, as long as it does.
pub(crate) struct Watchdog {
    /// The status monitor's port, once it answers there.
    port: Arc<OnceLock<u16>>,
}

impl Watchdog {
    /// Begins to tell, where systemd wants to hear. As long as nobody is there to be asked it is enough that the process runs:
    /// before the agent answers for the first time it reads all records of its services.
    pub(crate) fn start() -> Self {
        let port = Arc::new(OnceLock::new());
        if let Some(limit) = sd_notify::watchdog_enabled() {
            let port = Arc::clone(&port);
            thread::spawn(move || {
                let interval = limit / TOLD_WITHIN_LIMIT;
                loop {
                    if lives(port.get().copied(), interval) {
                        tell();
                    }
                    thread::sleep(interval);
                }
            });
        }
        Self { port }
    }

    /// From now on the status monitor must answer here.
    pub(crate) fn follow(&self, port: u16) {
        // There is one in the life of an agent.
        let _ = self.port.set(port);
    }
}

fn lives(port: Option<u16>, patience: Duration) -> bool {
    port.is_none_or(|port| monitor::answers(port, patience))
}

fn tell() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
        tracing::warn!(%error, "systemd can't be told that the agent lives");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;

    #[test]
    fn one_that_does_not_answer_is_not_alive() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let patience = Duration::from_millis(20);
        assert!(lives(None, patience), "it has not begun yet");
        assert!(!lives(silent.local_addr().ok().map(|address| address.port()), patience));
    }
}
