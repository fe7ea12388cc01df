//! Is a lock manager in grace? The files under /proc lie both ways; an NLM call to the service's address
//! tells the truth.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use crate::rpc::{call, opaque, port_of, privileged_socket, word};

/// The grace period by the lock manager's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// It grants reclaims alone: NLM4_DENIED_GRACE_PERIOD (X/Open XNFS, chapter 10; RFC 1813, appendix II).
    Open,
    /// It grants what is asked for: the made-up file handle was looked at and refused.
    Over,
}

/// Asks with an NLM4 UNLOCK of a made-up file handle, which has no side effect. To be called in the
/// scenario's network.
///
/// # Errors
/// When no lock manager answers there within a second.
pub fn probe(address: Ipv4Addr) -> Result<Grace> {
    let socket = privileged_socket()?;
    let port = port_of(&socket, address, 100_021, 4)?;
    let reply = call(&socket, address, port, [100_021, 4, 4], &unlock_arguments())?;
    // nlm4_res: the cookie, then the status, at the end.
    match word(&reply, reply.len().saturating_sub(4)) {
        Some(4) => Ok(Grace::Open),
        Some(9 | 7) => Ok(Grace::Over), // STALE_FH, FBIG: judged, hence not in grace
        other => {
            bail!("expected NLM status 4 (in grace) or 9 (stale handle) from {address}, found {other:?}")
        }
    }
}

/// nlm4_unlockargs: cookie, then nlm4_lock: caller_name, fh, oh, svid, offset, length.
fn unlock_arguments() -> Vec<u8> {
    let mut arguments = [opaque(b"lab"), opaque(b"lab"), opaque(&[0; 28]), opaque(b"lab")].concat();
    arguments.extend_from_slice(&1_u32.to_be_bytes());
    arguments.extend_from_slice(&0_u64.to_be_bytes());
    arguments.extend_from_slice(&1_u64.to_be_bytes());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unlock_is_laid_out_as_rfc_1813_says() {
        let arguments = unlock_arguments();
        // cookie 8, caller_name 8, fh 32, oh 8, svid 4, offset and length 16
        assert_eq!(arguments.len(), 76);
        assert_eq!(&arguments[..8], b"\0\0\0\x03lab\0");
        assert_eq!(word(&arguments, 16), Some(28));
    }
}
