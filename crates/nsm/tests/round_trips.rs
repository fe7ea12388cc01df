//! Every value that is written is read back as it was, all bytes that are read are written back as they were, and no bytes
//! upset anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

use common::{auth_sys, line, lock, netobj, reply_error, string};
use heirlock_nsm::nlm::{CancelArgs, LockArgs, Nlm4Result, Nlm4Status, UnlockArgs};
use heirlock_nsm::record::{FileKind, classify_file_name, parse_record, render_record};
use heirlock_nsm::rpc::{
    Call, Credential, Deframer, Reply, encode_call, encode_error, encode_success, frame,
};
use heirlock_nsm::rpcbind::{self, Transport};
use heirlock_nsm::sm::{self, Downcall, MonArgs, MonId, MyId, Notify, StatResult};
use heirlock_nsm::{MonName, MonitorLine, MyName, StateNumber};
use proptest::collection::vec;
use proptest::prelude::*;

/// Encodes a value and decodes it: both must be the same.
macro_rules! same {
    ($decode:expr, $encoded:expr, $value:expr) => {{
        let encoded = &$encoded;
        prop_assert_eq!($decode(encoded), Ok($value));
    }};
}

proptest! {
    #[test]
    fn records(lines in vec(line(), 1..8), unended in any::<bool>()) {
        let mut bytes = render_record(&lines);
        if unended {
            bytes.pop();
        }
        let parsed = parse_record(&bytes).unwrap();
        prop_assert_eq!(&parsed.lines, &lines);
        prop_assert_eq!(parsed.problems, []);
        same!(MonitorLine::parse, render_record(&lines[..1]), lines[0].clone());
    }

    /// A record with one byte changed is either read as what it now says, or refused: never read as something else.
    #[test]
    fn records_with_a_changed_byte(line in line(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = render_record(&[line]);
        let at = at.index(bytes.len() - 1);
        bytes[at] = byte;
        if let Ok(parsed) = parse_record(&bytes) && parsed.problems.is_empty() {
            prop_assert_eq!(render_record(&parsed.lines), bytes);
        }
    }

    #[test]
    fn states(number in any::<u32>()) {
        let state = StateNumber(number);
        same!(StateNumber::parse_file, state.render_file(), state);
        for next in [state.next_odd(), StateNumber::after_restart(Some(state))] {
            prop_assert!(next.is_odd());
            prop_assert_ne!(next, state);
        }
    }

    #[test]
    fn rpc_calls_survive_a_round_trip(xid in any::<u32>(), to in any::<[u32; 3]>(), sys in auth_sys(), args in vec(any::<u8>(), 0..80)) {
        let [prog, vers, proc_] = to;
        let (stamp, machine, uid, gid, gids) = &sys;
        let short = machine.as_bytes();
        for credential in [
            Credential::None,
            Credential::Sys { stamp: *stamp, machine, uid: *uid, gid: *gid, gids: gids.clone() },
            Credential::Other { flavor: 6, body: short },
        ] {
            let bytes = encode_call(xid, prog, vers, proc_, &credential, &args);
            let expected = Call { xid, prog, vers, proc_, credential, args: &args };
            same!(Call::decode, bytes, expected);
            prop_assert!(Reply::decode(&bytes).is_err() && Reply::xid_of(&bytes).is_none());
        }
    }

    #[test]
    fn rpc_replies_survive_a_round_trip(xid in any::<u32>(), result in vec(any::<u8>(), 0..80), error in reply_error(), why in any::<u32>()) {
        let bytes = encode_success(xid, &result);
        same!(Reply::decode, bytes, Reply { xid, outcome: Ok(&result) });
        prop_assert_eq!(Reply::xid_of(&bytes), Some(xid));
        for error in [error, heirlock_nsm::rpc::ReplyError::AuthError(why)] {
            let bytes = encode_error(xid, &error);
            same!(Reply::decode, bytes, Reply { xid, outcome: Err(error) });
            prop_assert!(Call::decode(&bytes).is_err());
        }
    }

    /// Messages in several fragments, of which the last may be empty, and which come in pieces of any size, are the messages
    /// that were sent.
    #[test]
    fn messages_over_tcp(
        messages in vec((vec(vec(any::<u8>(), 1..50), 0..4), vec(any::<u8>(), 0..50)), 1..6),
        pieces in vec(1_usize..40, 1..20),
    ) {
        let with_last = |(mut fragments, last): (Vec<Vec<u8>>, Vec<u8>)| { fragments.push(last); fragments };
        let messages: Vec<Vec<Vec<u8>>> = messages.into_iter().map(with_last).collect();
        let mut sent = Vec::new();
        for fragments in &messages {
            for (at, fragment) in fragments.iter().enumerate() {
                let mut framed = frame(fragment);
                if at + 1 < fragments.len() {
                    framed[0] &= 0x7f;
                }
                sent.extend(framed);
            }
        }
        let (mut deframer, mut came, mut rest) = (Deframer::new(), Vec::new(), sent.as_slice());
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            deframer.push(now);
            while let Some(message) = deframer.next_record().unwrap() {
                came.push(message);
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(came, messages.iter().map(|fragments| fragments.concat()).collect::<Vec<_>>());
    }

    #[test]
    fn rpcbind_version_2(xid in any::<u32>(), prog in any::<u32>(), vers in any::<u32>(), port in 1_u16.., tcp in any::<bool>()) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let question = rpcbind::encode_getport_call(xid, prog, vers, transport);
        let call = Call::decode(&question).unwrap();
        prop_assert_eq!((call.xid, call.prog, call.vers, call.proc_), (xid, 100_000, 2, 3));
        let protocol = if tcp { 6 } else { 17 };
        prop_assert_eq!(rpcbind::decode_getport_args(call.args), Ok(rpcbind::GetportArgs { prog, vers, protocol }));
        for port in [Some(port), None] {
            prop_assert_eq!(rpcbind::decode_getport_result(&rpcbind::encode_getport_result(port)), Ok(port));
        }
    }

    #[test]
    fn rpcbind_versions_3_and_4(
        xid in any::<u32>(), prog in any::<u32>(), vers in any::<u32>(), ip in any::<IpAddr>(), port in any::<u16>(),
        netid in prop::sample::select(vec!["udp", "tcp", "udp6", "tcp6"]),
    ) {
        let question = rpcbind::encode_getaddr_call(xid, prog, vers, netid);
        let call = Call::decode(&question).unwrap();
        prop_assert_eq!((call.xid, call.prog, call.vers, call.proc_), (xid, 100_000, 4, 3));
        prop_assert_eq!(rpcbind::decode_getaddr_args(call.args), Ok(rpcbind::GetaddrArgs { prog, vers, netid }));
        let address = SocketAddr::new(ip, port);
        for address in [Some(address), None] {
            prop_assert_eq!(rpcbind::decode_getaddr_result(&rpcbind::encode_getaddr_result(address)), Ok(address));
        }
        prop_assert_eq!(rpcbind::parse_universal_address(&rpcbind::encode_universal_address(address)), Ok(address));
    }

    #[test]
    fn arguments_of_every_nsm_procedure_survive_a_round_trip(
        mon_name in string(), my_name in string(), ids in any::<[u32; 3]>(), cookie in any::<[u8; 16]>(),
        state in any::<u32>(), ok in any::<bool>(), xid in any::<u32>(),
    ) {
        let ([prog, vers, proc_], state) = (ids, StateNumber(state));
        let my_id = MyId { my_name: &my_name, prog, vers, proc_ };
        let mon_id = MonId { mon_name: &mon_name, my_id: my_id.clone() };
        let mon = MonArgs { mon_id: mon_id.clone(), cookie };
        let notify = Notify { mon_name: &mon_name, state };
        let downcall = Downcall { mon_name: &mon_name, state, cookie };
        let stat = StatResult { ok, state };
        same!(sm::decode_stat_args, sm::encode_stat_args(&mon_name), mon_name.as_str());
        same!(MonArgs::decode, mon.encode(), mon.clone());
        same!(MonId::decode, mon_id.encode(), mon_id);
        same!(MyId::decode, my_id.encode(), my_id);
        same!(Notify::decode, notify.encode(), notify.clone());
        same!(Downcall::decode, downcall.encode(), downcall.clone());
        same!(StatResult::decode, stat.encode(), stat);
        same!(sm::decode_state_result, sm::encode_state_result(state), state);
        let whole = sm::encode_notify_call(xid, &mon_name, state);
        prop_assert_eq!(Notify::decode(Call::decode(&whole).unwrap().args), Ok(notify));
        // One byte less or more is no longer any of them.
        for encoded in [mon.encode(), downcall.encode()] {
            let longer = [&encoded[..], &[0]].concat();
            let shorter = &encoded[..encoded.len() - 1];
            prop_assert!(MonArgs::decode(&longer).is_err() && MonArgs::decode(shorter).is_err());
            prop_assert!(Downcall::decode(&longer).is_err() && Downcall::decode(shorter).is_err());
        }
    }

    #[test]
    fn nlm_calls_survive_a_round_trip(
        lock in lock(), cookie in netobj(), flags in any::<[bool; 3]>(), state in any::<u32>(), status in 0_u32..10,
    ) {
        let ([block, exclusive, reclaim], lock) = (flags, lock.borrow());
        let args = LockArgs { cookie: &cookie, block, exclusive, lock: lock.clone(), reclaim, state };
        same!(LockArgs::decode, args.encode(), args.clone());
        let args = CancelArgs { cookie: &cookie, block, exclusive, lock: lock.clone() };
        same!(CancelArgs::decode, args.encode(), args.clone());
        let args = UnlockArgs { cookie: &cookie, lock };
        same!(UnlockArgs::decode, args.encode(), args.clone());
        let result = Nlm4Result { cookie: &cookie, status: Nlm4Status::of(status).unwrap() };
        same!(Nlm4Result::decode, result.encode(), result.clone());
    }

    #[test]
    fn names_that_are_accepted_are_safe_file_names(bytes in vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
        for name in [OsStr::from_bytes(&bytes), OsStr::new(&text)] {
            if let FileKind::Record(name) = classify_file_name(name) {
                let path = std::path::Path::new(name.as_str());
                prop_assert_eq!(path.file_name(), Some(OsStr::new(name.as_str())));
                prop_assert!(name.as_str().len() <= 255 && !name.as_str().contains(|c: char| c.is_control() || c == ' '));
                prop_assert_eq!(MonName::parse(name.as_str()), Ok(name.clone()));
            }
        }
        if let Ok(name) = MyName::parse(&text) {
            prop_assert!(!name.as_str().contains([' ', '\n']));
        }
    }

    #[test]
    fn no_bytes_upset_a_reader_of_rpc_and_xdr(bytes in vec(any::<u8>(), 0..400)) {
        upset_nothing(&bytes)?;
    }

    /// Bytes that begin like a message come further in than others.
    #[test]
    fn no_bytes_after_a_good_beginning_upset_a_reader(good in any::<[u8; 4]>(), words in vec(0_u32..20, 0..40), bytes in vec(any::<u8>(), 0..60)) {
        let mut long = good.to_vec();
        long.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        long.extend(bytes);
        upset_nothing(&long)?;
    }
}

/// Every reader of the crate: none panics, and what one accepts it writes back as it was.
fn upset_nothing(bytes: &[u8]) -> Result<(), TestCaseError> {
    let same = |again: Vec<u8>| prop_assert_same(again, bytes);
    if let Ok(parsed) = parse_record(bytes)
        && parsed.problems.is_empty()
        && bytes.ends_with(b"\n")
    {
        same(render_record(&parsed.lines))?;
    }
    let mut deframer = Deframer::new();
    deframer.push(bytes);
    while let Ok(Some(message)) = deframer.next_record() {
        prop_assert!(message.len() < bytes.len());
    }
    if let Ok(call) = Call::decode(bytes) {
        let again = encode_call(call.xid, call.prog, call.vers, call.proc_, &call.credential, call.args);
        same!(Call::decode, again, call);
    }
    if let Ok(reply) = Reply::decode(bytes) {
        let again = match &reply.outcome {
            Ok(result) => encode_success(reply.xid, result),
            Err(error) => encode_error(reply.xid, error),
        };
        same!(Reply::decode, again, reply);
    }
    MonArgs::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    MonId::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    MyId::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    Notify::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    Downcall::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    StatResult::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    sm::decode_stat_args(bytes).map_or(Ok(()), |v| same(sm::encode_stat_args(v)))?;
    sm::decode_state_result(bytes).map_or(Ok(()), |v| same(sm::encode_state_result(v)))?;
    LockArgs::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    UnlockArgs::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    CancelArgs::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    Nlm4Result::decode(bytes).map_or(Ok(()), |v| same(v.encode()))?;
    rpcbind::decode_getport_result(bytes).map_or(Ok(()), |v| same(rpcbind::encode_getport_result(v)))?;
    let _ = (rpcbind::decode_getport_args(bytes), rpcbind::decode_getaddr_args(bytes));
    if let Ok(address) = rpcbind::decode_getaddr_result(bytes) {
        let again = rpcbind::encode_getaddr_result(address);
        prop_assert_eq!(rpcbind::decode_getaddr_result(&again), Ok(address));
    }
    StateNumber::parse_file(bytes).map_or(Ok(()), |v| same(v.render_file().to_vec()))
}

fn prop_assert_same(again: Vec<u8>, bytes: &[u8]) -> Result<(), TestCaseError> {
    prop_assert_eq!(again, bytes);
    Ok(())
}
