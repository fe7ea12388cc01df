//! Is a lock manager in grace? The files under /proc lie both ways; an NLM call to the service's address
//! tells the truth.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Tried locally before it is sent: the socket must come from a privileged port, as lockd's clients do.
const PRIVILEGED_PORTS: std::ops::Range<u16> = 700..1000;

/// What a lock manager says about itself.
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
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let port = lock_manager_port(&socket, address)?;
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

fn privileged_socket() -> Result<UdpSocket> {
    let first = fastrand::u16(PRIVILEGED_PORTS);
    (first..PRIVILEGED_PORTS.end)
        .chain(PRIVILEGED_PORTS.start..first)
        .find_map(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).ok())
        .context("no privileged port is free")
}

/// PMAPPROC_GETPORT (RFC 1833, 3): NLM version 4 over UDP.
fn lock_manager_port(socket: &UdpSocket, address: Ipv4Addr) -> Result<u16> {
    let arguments: Vec<u8> = [100_021_u32, 4, 17, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
    let reply = call(socket, address, 111, [100_000, 2, 3], &arguments)?;
    match word(&reply, 24).map(u16::try_from) {
        Some(Ok(port)) if port > 0 => Ok(port),
        _ => bail!("no lock manager is registered at {address}"),
    }
}

/// nlm4_unlockargs: cookie, then nlm4_lock: caller_name, fh, oh, svid, offset, length.
fn unlock_arguments() -> Vec<u8> {
    let opaque = |bytes: &[u8]| {
        let mut xdr = (bytes.len() as u32).to_be_bytes().to_vec();
        xdr.extend_from_slice(bytes);
        xdr.resize(xdr.len().next_multiple_of(4), 0);
        xdr
    };
    let mut arguments = [opaque(b"lab"), opaque(b"lab"), opaque(&[0; 28]), opaque(b"lab")].concat();
    arguments.extend_from_slice(&1_u32.to_be_bytes());
    arguments.extend_from_slice(&0_u64.to_be_bytes());
    arguments.extend_from_slice(&1_u64.to_be_bytes());
    arguments
}

/// An ONC RPC call with AUTH_NONE (RFC 5531); gives the whole reply where it was accepted and carried out.
fn call(
    socket: &UdpSocket,
    address: Ipv4Addr,
    port: u16,
    procedure: [u32; 3],
    arguments: &[u8],
) -> Result<Vec<u8>> {
    let xid = fastrand::u32(..);
    let [program, version, number] = procedure;
    let mut message: Vec<u8> = [xid, 0, 2, program, version, number, 0, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    message.extend_from_slice(arguments);
    socket.send_to(&message, (address, port))?;
    let mut reply = vec![0; 4096];
    let (length, from) =
        socket.recv_from(&mut reply).with_context(|| format!("no answer from {address}:{port}"))?;
    reply.truncate(length);
    let accepted = (1..6).all(|index| word(&reply, index * 4) == Some(u32::from(index == 1)));
    if from.ip() != address || word(&reply, 0) != Some(xid) || !accepted {
        bail!("expected an accepted reply to {xid:08x} from {address}, found {reply:02x?} from {from}");
    }
    Ok(reply)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
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
