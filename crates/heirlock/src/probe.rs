//! Asks a lock manager whether it is in grace, and whether it can be reached at all.
//!
//! The files under /proc lie both ways; a request tells the truth. An NLM4 UNLOCK or CANCEL with a made-up handle
//! is answered by 4 in grace and by something else outside (Linux fs/lockd/svc4proc.c checks grace before it looks for
//! the file), and has no side effect.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use heirlock_core::grace::Probe;
use heirlock_nsm::nlm::{self, CancelArgs, Lock4, Nlm4Result, Nlm4Status, UnlockArgs};
use heirlock_nsm::rpc::Credential;
use heirlock_nsm::rpcbind::Transport;

use crate::limits;
use crate::rpc_client::{Rpcbind, call_any, call_null, find_over};

/// NFS, which is registered while the server serves.
const NFS: (u32, u32) = (100_003, 3);
/// The lock manager.
pub(crate) const NLM: (u32, u32) = (nlm::PROGRAM, nlm::VERSION_4);

/// No file has this handle.
const MADE_UP_HANDLE: [u8; 28] = [0; 28];

/// Whether the lock manager at this address is in grace, and what made us say so.
pub(crate) fn grace(at: IpAddr, rpcbind_port: u16, limit: Duration) -> (Probe, String) {
    let places = match Rpcbind::new(at, rpcbind_port, limit).places(NLM) {
        Ok(places) => places,
        Err(why) => return (Probe::NoAnswer, why),
    };
    let lock = Lock4 {
        caller_name: "heirlock-probe",
        fh: &MADE_UP_HANDLE,
        oh: b"probe",
        svid: 1,
        offset: 0,
        length: 1,
    };
    let unlock = UnlockArgs { cookie: b"grac", lock: lock.clone() };
    let cancel = CancelArgs { cookie: b"grac", block: false, exclusive: true, lock };
    let questions = [
        nlm::encode_unlock_call(fastrand::u32(..), &credential(), &unlock),
        nlm::encode_cancel_call(fastrand::u32(..), &credential(), &cancel),
    ];
    let mut why = String::new();
    for question in questions {
        match call_any(&places, &question, limit).and_then(|bytes| status(&bytes)) {
            Ok(Nlm4Status::DeniedGracePeriod) => {
                return (Probe::InGrace, "it answers that it is in grace".into());
            }
            Ok(other) => return (Probe::NotInGrace, format!("it answers {other}: no grace period is open")),
            Err(reason) => why = reason,
        }
    }
    if why.contains("auth_stat") {
        why.push_str("; export the volume to the server's own addresses as well, so that it may ask itself");
    }
    (Probe::NoAnswer, why)
}

/// Whether NFS and NLM are registered at this address and answer.
///
/// # Errors
/// The missing registrations, in words.
pub(crate) fn registered(at: IpAddr, rpcbind_port: u16, limit: Duration) -> Result<(), String> {
    let mut rpcbind = Rpcbind::new(at, rpcbind_port, limit);
    for program in [NLM, NFS] {
        let mut answer = Ok(());
        for (server, transport) in rpcbind.places(program)? {
            answer = call_null(server, transport, program, limit);
            if answer.is_ok() {
                break; // over either transport
            }
        }
        answer?;
    }
    Ok(())
}

/// The TCP port of NLM on this host; none where it is not registered.
pub(crate) fn ports(rpcbind_port: u16) -> Vec<u16> {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let found = find_over(here, rpcbind_port, NLM, Transport::Tcp, limits::PROBE_TIME_MAX);
    found.ok().flatten().into_iter().collect()
}

/// lockd takes AUTH_SYS and AUTH_NONE; other servers only the former.
fn credential() -> Credential<'static> {
    Credential::Sys { stamp: 0, machine: "heirlock", uid: 0, gid: 0, gids: Vec::new() }
}

fn status(result: &[u8]) -> Result<Nlm4Status, String> {
    Nlm4Result::decode(result).map(|result| result.status).map_err(|error| error.to_string())
}
