//! The few calls of the network lock manager that a failover needs: NLM version 4, program 100021 (X/Open XNFS;
//! Linux fs/lockd/xdr4.c).

use std::fmt;

use crate::limits;
use crate::rpc::{Credential, encode_call};
use crate::xdr::{DecodeError, Problem, Reader, Writer};

/// The program.
pub const PROGRAM: u32 = 100_021;
/// The version with 64-bit offsets.
pub const VERSION_4: u32 = 4;
/// The procedure of lockd that the status monitor calls when a client was restarted (private, local only).
pub const SM_NOTIFY: u32 = 16;

/// The procedures of a lock manager, as far as they are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Procedure {
    /// Nothing.
    Null = 0,
    /// NLM4_LOCK
    Lock = 2,
    /// NLM4_CANCEL
    Cancel = 3,
    /// NLM4_UNLOCK
    Unlock = 4,
}

impl Procedure {
    /// The procedure of this number, if it is one of those needed.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        [Self::Null, Self::Lock, Self::Cancel, Self::Unlock].into_iter().find(|p| *p as u32 == number)
    }
}

/// nlm4_stats
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nlm4Status {
    /// NLM4_GRANTED
    Granted = 0,
    /// NLM4_DENIED
    Denied = 1,
    /// NLM4_DENIED_NOLOCKS
    DeniedNoLocks = 2,
    /// NLM4_BLOCKED
    Blocked = 3,
    /// NLM4_DENIED_GRACE_PERIOD
    DeniedGracePeriod = 4,
    /// NLM4_DEADLCK
    Deadlock = 5,
    /// NLM4_ROFS
    Rofs = 6,
    /// NLM4_STALE_FH
    StaleFh = 7,
    /// NLM4_FBIG
    Fbig = 8,
    /// NLM4_FAILED
    Failed = 9,
}

impl Nlm4Status {
    /// The status of this number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        use Nlm4Status::{
            Blocked, Deadlock, Denied, DeniedGracePeriod, DeniedNoLocks, Failed, Fbig, Granted, Rofs, StaleFh,
        };
        [Granted, Denied, DeniedNoLocks, Blocked, DeniedGracePeriod, Deadlock, Rofs, StaleFh, Fbig, Failed]
            .into_iter()
            .find(|status| *status as u32 == number)
    }
}

impl fmt::Display for Nlm4Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({self:?})", *self as u32)
    }
}

/// nlm4_lock: a lock, as its holder names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock4<'a> {
    /// the client's own name
    pub caller_name: &'a str,
    /// the file
    pub fh: &'a [u8],
    /// the owner, opaque
    pub oh: &'a [u8],
    /// the process
    pub svid: u32,
    /// first byte
    pub offset: u64,
    /// bytes; 0 means to the end of the file
    pub length: u64,
}

/// nlm4_lockargs
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockArgs<'a> {
    /// comes back in the result
    pub cookie: &'a [u8],
    /// wait for it
    pub block: bool,
    /// for writing
    pub exclusive: bool,
    /// the lock
    pub lock: Lock4<'a>,
    /// it was held before the server was restarted
    pub reclaim: bool,
    /// the client's own NSM state number
    pub state: u32,
}

/// nlm4_unlockargs
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlockArgs<'a> {
    /// comes back in the result
    pub cookie: &'a [u8],
    /// the lock
    pub lock: Lock4<'a>,
}

/// nlm4_cancargs
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelArgs<'a> {
    /// comes back in the result
    pub cookie: &'a [u8],
    /// as in the lock that is cancelled
    pub block: bool,
    /// as in the lock that is cancelled
    pub exclusive: bool,
    /// the lock
    pub lock: Lock4<'a>,
}

/// nlm4_res
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nlm4Result<'a> {
    /// that of the call
    pub cookie: &'a [u8],
    /// what came of it
    pub status: Nlm4Status,
}

/// Encodes a whole NLM4_LOCK call.
#[must_use]
pub fn encode_lock_call(xid: u32, credential: &Credential<'_>, args: &LockArgs<'_>) -> Vec<u8> {
    encode_call(xid, PROGRAM, VERSION_4, Procedure::Lock as u32, credential, &args.encode())
}

/// Encodes a whole NLM4_UNLOCK call.
#[must_use]
pub fn encode_unlock_call(xid: u32, credential: &Credential<'_>, args: &UnlockArgs<'_>) -> Vec<u8> {
    encode_call(xid, PROGRAM, VERSION_4, Procedure::Unlock as u32, credential, &args.encode())
}

/// Encodes a whole NLM4_CANCEL call.
#[must_use]
pub fn encode_cancel_call(xid: u32, credential: &Credential<'_>, args: &CancelArgs<'_>) -> Vec<u8> {
    encode_call(xid, PROGRAM, VERSION_4, Procedure::Cancel as u32, credential, &args.encode())
}

impl<'a> LockArgs<'a> {
    /// Encodes them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.opaque(self.cookie).bool(self.block).bool(self.exclusive);
        self.lock.write(&mut writer);
        writer.bool(self.reclaim).u32(self.state);
        writer.into_bytes()
    }

    /// Decodes them.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(args: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(args);
        let cookie = netobj(&mut reader, "nlm4_lockargs cookie")?;
        let block = reader.bool("nlm4_lockargs block")?;
        let exclusive = reader.bool("nlm4_lockargs exclusive")?;
        let lock = Lock4::read(&mut reader)?;
        let reclaim = reader.bool("nlm4_lockargs reclaim")?;
        let state = reader.u32("nlm4_lockargs state")?;
        reader.finish("nlm4_lockargs")?;
        Ok(Self { cookie, block, exclusive, lock, reclaim, state })
    }
}

impl<'a> UnlockArgs<'a> {
    /// Encodes them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.opaque(self.cookie);
        self.lock.write(&mut writer);
        writer.into_bytes()
    }

    /// Decodes them.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(args: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(args);
        let cookie = netobj(&mut reader, "nlm4_unlockargs cookie")?;
        let lock = Lock4::read(&mut reader)?;
        reader.finish("nlm4_unlockargs")?;
        Ok(Self { cookie, lock })
    }
}

impl<'a> CancelArgs<'a> {
    /// Encodes them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.opaque(self.cookie).bool(self.block).bool(self.exclusive);
        self.lock.write(&mut writer);
        writer.into_bytes()
    }

    /// Decodes them.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(args: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(args);
        let cookie = netobj(&mut reader, "nlm4_cancargs cookie")?;
        let block = reader.bool("nlm4_cancargs block")?;
        let exclusive = reader.bool("nlm4_cancargs exclusive")?;
        let lock = Lock4::read(&mut reader)?;
        reader.finish("nlm4_cancargs")?;
        Ok(Self { cookie, block, exclusive, lock })
    }
}

impl<'a> Nlm4Result<'a> {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.opaque(self.cookie).u32(self.status as u32);
        writer.into_bytes()
    }

    /// Decodes it.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(result: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(result);
        let cookie = netobj(&mut reader, "nlm4_res cookie")?;
        let found = reader.u32("nlm4_stats")?;
        let problem = Problem::Value { expected: "0 to 9", found };
        let status = Nlm4Status::of(found).ok_or(DecodeError { type_name: "nlm4_stats", problem })?;
        reader.finish("nlm4_res")?;
        Ok(Self { cookie, status })
    }
}

impl<'a> Lock4<'a> {
    fn write(&self, writer: &mut Writer) {
        writer.string(self.caller_name).opaque(self.fh).opaque(self.oh).u32(self.svid);
        writer.u64(self.offset).u64(self.length);
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            caller_name: reader.string("nlm4_lock caller_name", limits::STRING_BYTES_MAX)?,
            fh: netobj(reader, "nlm4_lock fh")?,
            oh: netobj(reader, "nlm4_lock oh")?,
            svid: reader.u32("nlm4_lock svid")?,
            offset: reader.u64("nlm4_lock l_offset")?,
            length: reader.u64("nlm4_lock l_len")?,
        })
    }
}

fn netobj<'a>(reader: &mut Reader<'a>, type_name: &'static str) -> Result<&'a [u8], DecodeError> {
    reader.opaque(type_name, limits::NETOBJ_BYTES_MAX)
}
