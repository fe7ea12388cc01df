//! Other people's codecs as witnesses: onc-rpc and nfs3_types decode our bytes to the same values, and the other way
//! round. nfs3_types has neither NSM nor NLM; its XDR codec, with the types declared here after the protocols'
//! definitions, stands for both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::borrow::Cow;

use common::{OwnedLock, auth_sys, lock, netobj, reply_error, string};
use heirlock_nsm::nlm::{CancelArgs, LockArgs, Nlm4Result, Nlm4Status, UnlockArgs};
use heirlock_nsm::rpc::{
    Call, Credential, Reply, ReplyError, encode_call, encode_error, encode_success, frame,
};
use heirlock_nsm::rpcbind::{self, Transport};
use heirlock_nsm::sm::{self, Downcall, MonArgs, MonId, MyId, Notify, StatResult};
use heirlock_nsm::{StateNumber, xdr::Reader};
use nfs3_types::portmap;
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack, XdrCodec};
use onc_rpc::auth::{AuthFlavor, AuthUnixParams};
use onc_rpc::{
    AcceptedReply, AcceptedStatus, AuthError, CallBody, MessageType, RejectedReply, ReplyBody, RpcMessage,
};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireMyId<'a> {
    my_name: Opaque<'a>,
    prog: u32,
    vers: u32,
    proc_: u32,
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireMonId<'a> {
    mon_name: Opaque<'a>,
    my_id: WireMyId<'a>,
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireMon<'a> {
    mon_id: WireMonId<'a>,
    cookie: [u8; 16],
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireNotify<'a> {
    mon_name: Opaque<'a>,
    state: u32,
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireDowncall<'a> {
    mon_name: Opaque<'a>,
    state: u32,
    cookie: [u8; 16],
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireLock<'a> {
    caller_name: Opaque<'a>,
    fh: Opaque<'a>,
    oh: Opaque<'a>,
    svid: u32,
    offset: u64,
    length: u64,
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireLockArgs<'a> {
    cookie: Opaque<'a>,
    block: bool,
    exclusive: bool,
    lock: WireLock<'a>,
    reclaim: bool,
    state: u32,
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireCancelArgs<'a> {
    cookie: Opaque<'a>,
    block: bool,
    exclusive: bool,
    lock: WireLock<'a>,
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireUnlockArgs<'a> {
    cookie: Opaque<'a>,
    lock: WireLock<'a>,
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireResult<'a> {
    cookie: Opaque<'a>,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, XdrCodec)]
struct WireRpcb<'a> {
    prog: u32,
    vers: u32,
    netid: Opaque<'a>,
    address: Opaque<'a>,
    owner: Opaque<'a>,
}

fn packed(value: &impl Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = value.pack(&mut bytes).unwrap();
    assert_eq!(length, bytes.len());
    bytes
}

/// Decodes all of the bytes.
fn unpacked<T: Unpack>(mut bytes: &[u8]) -> T {
    let (value, _) = T::unpack(&mut bytes).unwrap();
    assert_eq!(bytes, b"", "bytes are left over");
    value
}

fn text(text: &str) -> Opaque<'_> {
    Opaque::borrowed(text.as_bytes())
}

fn wire_lock(lock: &OwnedLock) -> WireLock<'_> {
    let OwnedLock { caller_name, fh, oh, svid, offset, length } = lock;
    WireLock {
        caller_name: text(caller_name),
        fh: Opaque::borrowed(fh),
        oh: Opaque::borrowed(oh),
        svid: *svid,
        offset: *offset,
        length: *length,
    }
}

/// Both sides agree on a value: the same bytes, and each reads the other's.
macro_rules! agree {
    ($ours:expr, $encoded:expr, $decode:expr, $theirs:expr, $their_type:ty) => {{
        let (encoded, theirs): (Vec<u8>, $their_type) = ($encoded, $theirs);
        let packed = packed(&theirs);
        prop_assert_eq!(&encoded, &packed);
        prop_assert_eq!($decode(&packed), Ok($ours));
        prop_assert_eq!(unpacked::<$their_type>(&encoded), theirs);
    }};
}

fn auth_error(number: u32) -> AuthError {
    match number {
        0 => AuthError::Success,
        1 => AuthError::BadCredentials,
        2 => AuthError::RejectedCredentials,
        3 => AuthError::BadVerifier,
        4 => AuthError::RejectedVerifier,
        5 => AuthError::TooWeak,
        6 => AuthError::InvalidResponseVerifier,
        _ => AuthError::Failed,
    }
}

fn reply_body(error: ReplyError) -> ReplyBody<&'static [u8], &'static [u8]> {
    let accepted = |status| ReplyBody::Accepted(AcceptedReply::new(AuthFlavor::AuthNone(None), status));
    match error {
        ReplyError::ProgUnavailable => accepted(AcceptedStatus::ProgramUnavailable),
        ReplyError::ProgMismatch { low, high } => accepted(AcceptedStatus::ProgramMismatch { low, high }),
        ReplyError::ProcUnavailable => accepted(AcceptedStatus::ProcedureUnavailable),
        ReplyError::GarbageArgs => accepted(AcceptedStatus::GarbageArgs),
        ReplyError::SystemErr => accepted(AcceptedStatus::SystemError),
        ReplyError::RpcMismatch { low, high } => {
            ReplyBody::Denied(RejectedReply::RpcVersionMismatch { low, high })
        }
        ReplyError::AuthError(why) => ReplyBody::Denied(RejectedReply::AuthError(auth_error(why))),
    }
}

proptest! {
    #[test]
    fn onc_rpc_agrees_on_calls(
        xid in any::<u32>(), to in any::<[u32; 3]>(), sys in auth_sys(), none in any::<bool>(), short in 0_usize..100,
        // onc-rpc reads its message from one record, and wants whole words.
        words in vec(any::<u32>(), 0..20),
    ) {
        let [prog, vers, proc_] = to;
        let args: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        // onc-rpc takes credentials of at most 200 bytes, RFC 5531 those of 400.
        let (stamp, machine, uid, gid, gids) = &sys;
        let machine = &machine[..short.min(machine.len())];
        let (ours, theirs) = if none {
            (Credential::None, AuthFlavor::AuthNone(None))
        } else {
            let params = AuthUnixParams::new(*stamp, machine.as_bytes(), *uid, *gid, gids.iter().copied());
            let ours = Credential::Sys { stamp: *stamp, machine, uid: *uid, gid: *gid, gids: gids.clone() };
            (ours, AuthFlavor::AuthUnix(params))
        };
        let body = CallBody::new(prog, vers, proc_, theirs, AuthFlavor::AuthNone(None), args.as_slice());
        let message = RpcMessage::new(xid, MessageType::Call(body));
        let framed = frame(&encode_call(xid, prog, vers, proc_, &ours, &args));
        prop_assert_eq!(&framed, &message.serialise().unwrap());
        prop_assert_eq!(RpcMessage::try_from(framed.as_slice()).unwrap(), message);
        let expected = Call { xid, prog, vers, proc_, credential: ours, args: &args };
        prop_assert_eq!(Call::decode(&framed[4..]), Ok(expected));
    }

    #[test]
    fn onc_rpc_agrees_on_replies(xid in any::<u32>(), words in vec(any::<u32>(), 0..20), error in reply_error()) {
        let result: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let accepted = AcceptedReply::new(AuthFlavor::AuthNone(None), AcceptedStatus::Success(result.as_slice()));
        let bodies = [(ReplyBody::Accepted(accepted), Ok(result.as_slice())), (reply_body(error), Err(error))];
        for (body, outcome) in bodies {
            let message: RpcMessage<&[u8], &[u8]> = RpcMessage::new(xid, MessageType::Reply(body));
            let ours = match &outcome {
                Ok(result) => encode_success(xid, result),
                Err(error) => encode_error(xid, error),
            };
            let framed = frame(&ours);
            prop_assert_eq!(&framed, &message.serialise().unwrap());
            prop_assert_eq!(RpcMessage::try_from(framed.as_slice()).unwrap(), message);
            prop_assert_eq!(Reply::decode(&ours), Ok(Reply { xid, outcome }));
        }
    }

    /// Where both accept the same bytes they read the same from them.
    #[test]
    fn onc_rpc_reads_no_other_call_from_any_bytes(
        head in vec(prop_oneof![3 => Just(0_u32), 1 => 0_u32..6], 7..12), tail in vec(any::<u8>(), 0..40),
    ) {
        let words = [7, 0, 2].into_iter().chain(head).flat_map(u32::to_be_bytes);
        let bytes: Vec<u8> = words.chain(tail).collect();
        let framed = frame(&bytes);
        let theirs = RpcMessage::try_from(framed.as_slice());
        match (Call::decode(&bytes), theirs.as_ref().ok().and_then(|m| m.call_body())) {
            (Ok(ours), Some(theirs)) => {
                let read = (theirs.program(), theirs.program_version(), theirs.procedure());
                prop_assert_eq!((ours.prog, ours.vers, ours.proc_), read);
                prop_assert_eq!(ours.args, *theirs.payload());
            }
            // Theirs looks into the verifier, and refuses bodies above 200 bytes; ours refuses padding that isn't zero.
            (Ok(_), None) | (Err(_), _) => {}
        }
    }

    #[test]
    fn nfs3_types_agrees_on_rpcbind(xid in any::<u32>(), prog in any::<u32>(), vers in any::<u32>(), port in any::<u16>(), netid in "[a-z0-9]{0,8}") {
        let question = rpcbind::encode_getport_call(xid, prog, vers, Transport::Udp);
        let call = Call::decode(&question).unwrap();
        let mapping: portmap::mapping = unpacked(call.args);
        prop_assert_eq!((call.prog, call.vers), (portmap::PROGRAM, portmap::VERSION));
        prop_assert_eq!(call.proc_, portmap::PMAP_PROG::PMAPPROC_GETPORT as u32);
        prop_assert_eq!((mapping.prog, mapping.vers, mapping.prot, mapping.port), (prog, vers, portmap::IPPROTO_UDP, 0));
        prop_assert_eq!(packed(&mapping), call.args);
        let answer = rpcbind::encode_getport_result(Some(port));
        prop_assert_eq!(unpacked::<u32>(&answer), u32::from(port));

        let question = rpcbind::encode_getaddr_call(xid, prog, vers, &netid);
        let rpcb = WireRpcb { prog, vers, netid: text(&netid), address: text(""), owner: text("") };
        prop_assert_eq!(packed(&rpcb), Call::decode(&question).unwrap().args);
        let filled = WireRpcb { address: text("::.0.111"), owner: text("superuser"), ..rpcb };
        let filled = packed(&filled);
        let read = rpcbind::decode_getaddr_args(&filled).unwrap();
        prop_assert_eq!((read.prog, read.vers, read.netid), (prog, vers, netid.as_str()));
    }

    #[test]
    fn nfs3_types_agrees_on_nsm(
        mon_name in string(), my_name in string(), ids in any::<[u32; 3]>(), cookie in any::<[u8; 16]>(),
        number in any::<u32>(), ok in any::<bool>(),
    ) {
        let ([prog, vers, proc_], state) = (ids, StateNumber(number));
        let my_id = || MyId { my_name: &my_name, prog, vers, proc_ };
        let mon_id = || MonId { mon_name: &mon_name, my_id: my_id() };
        let wire_my_id = || WireMyId { my_name: text(&my_name), prog, vers, proc_ };
        let wire_mon_id = || WireMonId { mon_name: text(&mon_name), my_id: wire_my_id() };
        agree!(my_id(), my_id().encode(), MyId::decode, wire_my_id(), WireMyId<'_>);
        agree!(mon_id(), mon_id().encode(), MonId::decode, wire_mon_id(), WireMonId<'_>);
        let mon = MonArgs { mon_id: mon_id(), cookie };
        agree!(mon.clone(), mon.encode(), MonArgs::decode, WireMon { mon_id: wire_mon_id(), cookie }, WireMon<'_>);
        let notify = Notify { mon_name: &mon_name, state };
        let theirs = WireNotify { mon_name: text(&mon_name), state: number };
        agree!(notify.clone(), notify.encode(), Notify::decode, theirs, WireNotify<'_>);
        let downcall = Downcall { mon_name: &mon_name, state, cookie };
        let theirs = WireDowncall { mon_name: text(&mon_name), state: number, cookie };
        agree!(downcall.clone(), downcall.encode(), Downcall::decode, theirs, WireDowncall<'_>);
        agree!(mon_name.as_str(), sm::encode_stat_args(&mon_name), sm::decode_stat_args, text(&mon_name), Opaque<'_>);
        agree!(state, sm::encode_state_result(state), sm::decode_state_result, number, u32);
        let stat = StatResult { ok, state };
        let words = [u32::from(!ok), number];
        prop_assert_eq!(stat.encode(), words.iter().flat_map(packed).collect::<Vec<_>>());
    }

    #[test]
    fn nfs3_types_agrees_on_nlm(
        lock in lock(), cookie in netobj(), flags in any::<[bool; 3]>(), state in any::<u32>(), status in 0_u32..10,
    ) {
        let ([block, exclusive, reclaim], theirs) = (flags, Opaque::borrowed(&cookie));
        let ours = LockArgs { cookie: &cookie, block, exclusive, lock: lock.borrow(), reclaim, state };
        let wire = WireLockArgs { cookie: theirs.clone(), block, exclusive, lock: wire_lock(&lock), reclaim, state };
        agree!(ours.clone(), ours.encode(), LockArgs::decode, wire, WireLockArgs<'_>);
        let ours = CancelArgs { cookie: &cookie, block, exclusive, lock: lock.borrow() };
        let wire = WireCancelArgs { cookie: theirs.clone(), block, exclusive, lock: wire_lock(&lock) };
        agree!(ours.clone(), ours.encode(), CancelArgs::decode, wire, WireCancelArgs<'_>);
        let ours = UnlockArgs { cookie: &cookie, lock: lock.borrow() };
        let wire = WireUnlockArgs { cookie: theirs.clone(), lock: wire_lock(&lock) };
        agree!(ours.clone(), ours.encode(), UnlockArgs::decode, wire, WireUnlockArgs<'_>);
        let ours = Nlm4Result { cookie: &cookie, status: Nlm4Status::of(status).unwrap() };
        agree!(ours.clone(), ours.encode(), Nlm4Result::decode, WireResult { cookie: theirs, status }, WireResult<'_>);
    }

    #[test]
    fn nfs3_types_agrees_on_opaque_bytes(bytes in vec(any::<u8>(), 0..70)) {
        let theirs = packed(&Opaque(Cow::Borrowed(bytes.as_slice())));
        let mut reader = Reader::new(&theirs);
        prop_assert_eq!(reader.opaque("bytes", 70), Ok(bytes.as_slice()));
        prop_assert_eq!(reader.finish("bytes"), Ok(()));
    }
}
