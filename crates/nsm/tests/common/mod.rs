//! Values of every type, for the property tests.
#![allow(dead_code)] // each test takes what it needs

use heirlock_nsm::nlm::Lock4;
use heirlock_nsm::rpc::ReplyError;
use heirlock_nsm::{MonName, MonitorLine, MyName};
use proptest::collection::vec;
use proptest::prelude::*;

/// A name as a client may have it.
pub(crate) fn mon_name() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<std::net::IpAddr>().prop_map(|address| address.to_string()),
        "[!-.0-~]{1,255}".prop_filter("a name", |text| MonName::parse(text).is_ok()),
    ]
}

/// A name as a server may have it.
pub(crate) fn my_name() -> impl Strategy<Value = String> {
    prop_oneof!["[!-~]{1,300}", "[!-~äß漢]{1,64}"].prop_filter("a name", |text| MyName::parse(text).is_ok())
}

/// A string as NSM and NLM carry it, a name or not.
pub(crate) fn string() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,40}", "\\PC{0,200}", Just("x".repeat(1024))]
}

/// One line of a monitor record.
pub(crate) fn line() -> impl Strategy<Value = MonitorLine> {
    (any::<[u32; 4]>(), any::<[u8; 16]>(), mon_name(), my_name()).prop_map(
        |([my_addr, prog, vers, proc_], cookie, mon_name, my_name)| MonitorLine {
            my_addr,
            prog,
            vers,
            proc_,
            cookie,
            mon_name: mon_name.parse().unwrap(),
            my_name: my_name.parse().unwrap(),
        },
    )
}

/// A netobj.
pub(crate) fn netobj() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..70), vec(any::<u8>(), 1024)]
}

/// The fields of an AUTH_SYS credential: stamp, machine, uid, gid, gids.
pub(crate) fn auth_sys() -> impl Strategy<Value = (u32, String, u32, u32, Vec<u32>)> {
    (any::<u32>(), "[ -~]{0,255}", any::<u32>(), any::<u32>(), vec(any::<u32>(), 0..=16))
}

/// Why a call is not carried out, with an `auth_stat` that RFC 1831 knows.
pub(crate) fn reply_error() -> impl Strategy<Value = ReplyError> {
    prop_oneof![
        Just(ReplyError::ProgUnavailable),
        any::<(u32, u32)>().prop_map(|(low, high)| ReplyError::ProgMismatch { low, high }),
        Just(ReplyError::ProcUnavailable),
        Just(ReplyError::GarbageArgs),
        Just(ReplyError::SystemErr),
        any::<(u32, u32)>().prop_map(|(low, high)| ReplyError::RpcMismatch { low, high }),
        (0_u32..8).prop_map(ReplyError::AuthError),
    ]
}

/// A lock that owns its parts.
#[derive(Debug, Clone)]
pub(crate) struct OwnedLock {
    pub(crate) caller_name: String,
    pub(crate) fh: Vec<u8>,
    pub(crate) oh: Vec<u8>,
    pub(crate) svid: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl OwnedLock {
    pub(crate) fn borrow(&self) -> Lock4<'_> {
        let Self { caller_name, fh, oh, svid, offset, length } = self;
        Lock4 { caller_name, fh, oh, svid: *svid, offset: *offset, length: *length }
    }
}

/// A lock.
pub(crate) fn lock() -> impl Strategy<Value = OwnedLock> {
    (string(), netobj(), netobj(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(
        |(caller_name, fh, oh, svid, offset, length)| OwnedLock { caller_name, fh, oh, svid, offset, length },
    )
}
