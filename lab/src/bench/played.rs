//! The kernel's part on an adoptive server, played: NFS is there, and the lock manager is in grace. It needs a kernel of
//! its own otherwise, which the scenarios have and a bench would only wait for.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::rpc::{call, privileged_socket, word};

const NLM: [u32; 2] = [100_021, 4];
const NFS: [u32; 2] = [100_003, 3];

/// Denied because of the grace period (NLM4_DENIED_GRACE_PERIOD).
const IN_GRACE: u32 = 4;

/// The thread that plays it.
pub(super) struct Kernel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Registers at this network's rpcbind, and answers until it is dropped.
    pub(super) fn start() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let port = u32::from(socket.local_addr()?.port());
        let asking = privileged_socket()?;
        for [program, version] in [NLM, NFS] {
            let arguments = [program, version, 17, port].map(u32::to_be_bytes).concat();
            let reply = call(&asking, Ipv4Addr::LOCALHOST, 111, [100_000, 2, 1], &arguments)?;
            ensure!(word(&reply, 24) == Some(1), "rpcbind does not register program {program}");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || answer_all(&socket, &asked));
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer_all(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = answer(&buffer[..length]) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// To be there is all that NULL asks; any other request to the lock manager is denied.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let (xid, program, procedure) = (word(question, 0)?, word(question, 12)?, word(question, 20)?);
    let mut answer = [xid, 1, 0, 0, 0, 0].map(u32::to_be_bytes).concat();
    if program == NLM[0] && procedure != 0 {
        let credential = usize::try_from(word(question, 28)?).ok()?.next_multiple_of(4);
        let cookie = question.get(credential.checked_add(40)?..)?;
        let length = usize::try_from(word(cookie, 0)?).ok()?.next_multiple_of(4);
        answer.extend(cookie.get(..length.checked_add(4)?)?);
        answer.extend(IN_GRACE.to_be_bytes());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlock_is_denied_with_its_own_cookie() {
        // AUTH_SYS of 4 bytes, no verifier, the cookie "grac", and what else an UNLOCK has.
        let question =
            [7, 0, 2, 100_021, 4, 4, 1, 4, 9, 0, 0, 4, 0x6772_6163, 5, 5].map(u32::to_be_bytes).concat();
        let expected = [7, 1, 0, 0, 0, 0, 4, 0x6772_6163, 4].map(u32::to_be_bytes).concat();
        assert_eq!(answer(&question).unwrap(), expected);
        assert_eq!(answer(&question[..30]), None);
    }
}
