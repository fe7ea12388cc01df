//! ONC RPC version 2 (RFC 5531): calls, replies, and record marking over TCP.

use std::fmt;

use crate::limits;
use crate::xdr::{DecodeError, Problem, Reader, Writer};

const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;

/// The identity of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential<'a> {
    /// AUTH_NONE: what NSM and rpcbind take.
    None,
    /// AUTH_SYS: what lockd wants for NLM calls.
    Sys {
        /// an arbitrary number
        stamp: u32,
        /// the caller's name, at most 255 bytes
        machine: &'a str,
        /// its user
        uid: u32,
        /// its group
        gid: u32,
        /// its other groups, at most 16
        gids: Vec<u32>,
    },
    /// A flavour that is not looked into.
    Other {
        /// its number
        flavor: u32,
        /// its body
        body: &'a [u8],
    },
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    /// The transaction, repeated in the reply.
    pub xid: u32,
    /// The program.
    pub prog: u32,
    /// Its version.
    pub vers: u32,
    /// Its procedure.
    pub proc_: u32,
    /// The identity of the caller.
    pub credential: Credential<'a>,
    /// The arguments, not yet looked into.
    pub args: &'a [u8],
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The transaction.
    pub xid: u32,
    /// The result, not yet looked into, or why there is none.
    pub outcome: Result<&'a [u8], ReplyError>,
}

/// Why a call was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyError {
    /// PROG_UNAVAIL.
    ProgUnavailable,
    /// PROG_MISMATCH.
    ProgMismatch {
        /// the lowest version there is
        low: u32,
        /// the highest
        high: u32,
    },
    /// PROC_UNAVAIL.
    ProcUnavailable,
    /// GARBAGE_ARGS.
    GarbageArgs,
    /// SYSTEM_ERR.
    SystemErr,
    /// RPC_MISMATCH.
    RpcMismatch {
        /// the lowest RPC version there is
        low: u32,
        /// the highest
        high: u32,
    },
    /// AUTH_ERROR with its reason.
    AuthError(u32),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::ProgUnavailable => f.write_str("the program is not served there"),
            ReplyError::ProgMismatch { low, high } => {
                write!(f, "only versions {low} to {high} are served there")
            }
            ReplyError::ProcUnavailable => f.write_str("the procedure is not served there"),
            ReplyError::GarbageArgs => f.write_str("the arguments were not understood there"),
            ReplyError::SystemErr => f.write_str("a system error there"),
            ReplyError::RpcMismatch { low, high } => {
                write!(f, "only RPC versions {low} to {high} are spoken there")
            }
            ReplyError::AuthError(why) => write!(f, "the credential was refused there (auth_stat {why})"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// Encodes a call.
#[must_use]
pub fn encode_call(
    xid: u32,
    prog: u32,
    vers: u32,
    proc_: u32,
    credential: &Credential<'_>,
    args: &[u8],
) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(xid).u32(CALL).u32(RPC_VERSION).u32(prog).u32(vers).u32(proc_);
    encode_credential(&mut writer, credential);
    writer.u32(AUTH_NONE).u32(0).raw(args);
    writer.into_bytes()
}

fn encode_credential(writer: &mut Writer, credential: &Credential<'_>) {
    match credential {
        Credential::None => {
            writer.u32(AUTH_NONE).u32(0);
        }
        Credential::Sys { stamp, machine, uid, gid, gids } => {
            let mut body = Writer::new();
            body.u32(*stamp).string(machine).u32(*uid).u32(*gid);
            let gids = &gids[..gids.len().min(limits::GROUPS_MAX)];
            body.u32(u32::try_from(gids.len()).unwrap_or(0));
            for gid in gids {
                body.u32(*gid);
            }
            writer.u32(AUTH_SYS).opaque(&body.into_bytes());
        }
        Credential::Other { flavor, body } => {
            writer.u32(*flavor).opaque(body);
        }
    }
}

impl<'a> Call<'a> {
    /// Decodes a call.
    ///
    /// # Errors
    /// Where the bytes are no RPC version 2 call.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let xid = reader.u32("call xid")?;
        expect(&mut reader, "message type", "0 (a call)", CALL)?;
        expect(&mut reader, "RPC version", "2", RPC_VERSION)?;
        let prog = reader.u32("program")?;
        let vers = reader.u32("program version")?;
        let proc_ = reader.u32("procedure")?;
        let credential = decode_credential(&mut reader)?;
        reader.u32("verifier flavour")?;
        reader.opaque("verifier", limits::AUTH_BYTES_MAX)?;
        Ok(Self { xid, prog, vers, proc_, credential, args: reader.rest() })
    }
}

fn decode_credential<'a>(reader: &mut Reader<'a>) -> Result<Credential<'a>, DecodeError> {
    let flavor = reader.u32("credential flavour")?;
    let body = reader.opaque("credential", limits::AUTH_BYTES_MAX)?;
    match flavor {
        AUTH_NONE if body.is_empty() => Ok(Credential::None),
        AUTH_SYS => {
            let mut reader = Reader::new(body);
            let stamp = reader.u32("AUTH_SYS stamp")?;
            let machine = reader.string("AUTH_SYS machine name", 255)?;
            let (uid, gid) = (reader.u32("AUTH_SYS uid")?, reader.u32("AUTH_SYS gid")?);
            let count = reader.u32("AUTH_SYS groups")?;
            if usize::try_from(count).map_or(true, |count| count > limits::GROUPS_MAX) {
                let problem = Problem::TooMany { max: limits::GROUPS_MAX, found: count };
                return Err(DecodeError { type_name: "AUTH_SYS groups", problem });
            }
            let gids = (0..count).map(|_| reader.u32("AUTH_SYS group")).collect::<Result<_, _>>()?;
            reader.finish("AUTH_SYS")?;
            Ok(Credential::Sys { stamp, machine, uid, gid, gids })
        }
        flavor => Ok(Credential::Other { flavor, body }),
    }
}

impl<'a> Reply<'a> {
    /// The transaction that these bytes answer, if they are a reply at all.
    #[must_use]
    pub fn xid_of(bytes: &[u8]) -> Option<u32> {
        let mut reader = Reader::new(bytes);
        let xid = reader.u32("xid").ok()?;
        (reader.u32("message type").ok()? == REPLY).then_some(xid)
    }

    /// Decodes a reply.
    ///
    /// # Errors
    /// Where the bytes are no reply.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let xid = reader.u32("reply xid")?;
        expect(&mut reader, "message type", "1 (a reply)", REPLY)?;
        let outcome = match reader.u32("reply status")? {
            MSG_ACCEPTED => decode_accepted(&mut reader)?,
            MSG_DENIED => Err(decode_denied(&mut reader)?),
            found => return Err(value("reply status", "0 or 1", found)),
        };
        Ok(Self { xid, outcome })
    }
}

fn decode_accepted<'a>(reader: &mut Reader<'a>) -> Result<Result<&'a [u8], ReplyError>, DecodeError> {
    reader.u32("verifier flavour")?;
    reader.opaque("verifier", limits::AUTH_BYTES_MAX)?;
    let error = match reader.u32("accept status")? {
        0 => return Ok(Ok(reader.rest())),
        1 => ReplyError::ProgUnavailable,
        2 => ReplyError::ProgMismatch {
            low: reader.u32("lowest version")?,
            high: reader.u32("highest version")?,
        },
        3 => ReplyError::ProcUnavailable,
        4 => ReplyError::GarbageArgs,
        5 => ReplyError::SystemErr,
        found => return Err(value("accept status", "0 to 5", found)),
    };
    reader.clone().finish("reply")?;
    Ok(Err(error))
}

fn decode_denied(reader: &mut Reader<'_>) -> Result<ReplyError, DecodeError> {
    let error = match reader.u32("reject status")? {
        0 => ReplyError::RpcMismatch {
            low: reader.u32("lowest version")?,
            high: reader.u32("highest version")?,
        },
        1 => ReplyError::AuthError(reader.u32("auth status")?),
        found => return Err(value("reject status", "0 or 1", found)),
    };
    reader.clone().finish("reply")?;
    Ok(error)
}

/// Encodes a reply with its result.
#[must_use]
pub fn encode_success(xid: u32, result: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(xid).u32(REPLY).u32(MSG_ACCEPTED).u32(AUTH_NONE).u32(0).u32(0).raw(result);
    writer.into_bytes()
}

/// Encodes a reply without one.
#[must_use]
pub fn encode_error(xid: u32, error: &ReplyError) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(xid).u32(REPLY);
    let accepted = |writer: &mut Writer, status: u32| {
        writer.u32(MSG_ACCEPTED).u32(AUTH_NONE).u32(0).u32(status);
    };
    match error {
        ReplyError::ProgUnavailable => accepted(&mut writer, 1),
        ReplyError::ProgMismatch { low, high } => {
            accepted(&mut writer, 2);
            writer.u32(*low).u32(*high);
        }
        ReplyError::ProcUnavailable => accepted(&mut writer, 3),
        ReplyError::GarbageArgs => accepted(&mut writer, 4),
        ReplyError::SystemErr => accepted(&mut writer, 5),
        ReplyError::RpcMismatch { low, high } => {
            writer.u32(MSG_DENIED).u32(0).u32(*low).u32(*high);
        }
        ReplyError::AuthError(why) => {
            writer.u32(MSG_DENIED).u32(1).u32(*why);
        }
    }
    writer.into_bytes()
}

const LAST_FRAGMENT: u32 = 0x8000_0000;

/// Marks a message for TCP, as one fragment (RFC 5531, section 11).
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(LAST_FRAGMENT | u32::try_from(message.len()).unwrap_or(0)).raw(message);
    writer.into_bytes()
}

/// Finds the messages in what comes over TCP, in however many fragments up to [`limits::FRAGMENTS_MAX`]. Its work and its
/// memory grow with the bytes that came, however they are cut into fragments.
#[derive(Debug, Clone, Default)]
pub struct Deframer {
    bytes: Vec<u8>,
    /// How many of them are done with.
    done: usize,
    joined: Vec<u8>,
    fragments: usize,
}

impl Deframer {
    /// Nothing has come yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These bytes came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.done);
        self.done = 0;
        self.bytes.extend(bytes);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// Where a message is longer than [`limits::RECORD_BYTES_MAX`], has more than [`limits::FRAGMENTS_MAX`] fragments, or
    /// one that holds nothing and is not its last: the connection is to be closed. Nothing after it is believed.
    pub fn next_record(&mut self) -> Result<Option<Vec<u8>>, DecodeError> {
        while let Some((mark, rest)) = self.bytes.get(self.done..).and_then(<[u8]>::split_first_chunk::<4>) {
            let mark = u32::from_be_bytes(*mark);
            let (length, is_last) = (mark & !LAST_FRAGMENT, mark & LAST_FRAGMENT != 0);
            if length == 0 && !is_last {
                return Err(value("TCP fragment", "a length above 0", 0));
            }
            if self.fragments >= limits::FRAGMENTS_MAX {
                return Err(value("TCP record", "at most 64 fragments", 65));
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let whole = length.saturating_add(self.joined.len());
            if whole > limits::RECORD_BYTES_MAX {
                let found = u32::try_from(whole).unwrap_or(u32::MAX);
                let problem = Problem::TooLong { max: limits::RECORD_BYTES_MAX, found };
                return Err(DecodeError { type_name: "TCP record", problem });
            }
            let Some(fragment) = rest.get(..length) else { return Ok(None) };
            self.joined.extend(fragment);
            self.done += 4 + length;
            self.fragments += 1;
            if is_last {
                self.fragments = 0;
                return Ok(Some(std::mem::take(&mut self.joined)));
            }
        }
        Ok(None)
    }
}

const _: () = assert!(limits::FRAGMENTS_MAX == 64, "the error above says it");

fn expect(
    reader: &mut Reader<'_>,
    type_name: &'static str,
    expected: &'static str,
    wanted: u32,
) -> Result<(), DecodeError> {
    match reader.u32(type_name)? {
        found if found == wanted => Ok(()),
        found => Err(value(type_name, expected, found)),
    }
}

fn value(type_name: &'static str, expected: &'static str, found: u32) -> DecodeError {
    DecodeError { type_name, problem: Problem::Value { expected, found } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_too_long_is_refused_with_the_length_it_would_have() {
        let mut deframer = Deframer::new();
        let mut fragment = frame(&[0; 60_000]);
        fragment[0] &= 0x7f;
        deframer.push(&fragment);
        assert_eq!(deframer.next_record(), Ok(None), "its first fragment is within the bound");
        deframer.push(&10_000_u32.to_be_bytes());
        let error = deframer.next_record().unwrap_err();
        assert_eq!(error.to_string(), "TCP record: expected at most 65536 bytes, found 70000");
        deframer.push(&frame(b"more"));
        assert_eq!(deframer.next_record(), Err(error), "nothing after it is believed");
    }

    #[test]
    fn fragments_that_hold_nothing_or_are_too_many_are_refused() {
        let mut deframer = Deframer::new();
        deframer.push(&[0; 4]);
        let error = deframer.next_record().unwrap_err();
        assert_eq!(error.to_string(), "TCP fragment: expected a length above 0, found 0");
        deframer.push(&frame(b"more"));
        assert_eq!(deframer.next_record(), Err(error), "nothing after it is believed");

        let one_byte = |is_last: bool| [if is_last { 0x80 } else { 0 }, 0, 0, 1, b'a'];
        let mut fragments = [one_byte(false); limits::FRAGMENTS_MAX - 1].concat();
        fragments.extend(one_byte(true));
        let mut deframer = Deframer::new();
        deframer.push(&fragments);
        assert_eq!(
            deframer.next_record(),
            Ok(Some(vec![b'a'; limits::FRAGMENTS_MAX])),
            "as many as there may be"
        );
        deframer.push(&[one_byte(false); limits::FRAGMENTS_MAX + 1].concat());
        assert!(deframer.next_record().unwrap_err().to_string().contains("at most 64 fragments"));

        // A library that has just sent its full buffer ends its message with an empty one.
        let mut deframer = Deframer::new();
        deframer.push(&[&one_byte(false)[..], &[0x80, 0, 0, 0]].concat());
        assert_eq!(deframer.next_record(), Ok(Some(b"a".to_vec())));
    }

    #[test]
    fn too_many_groups_are_counted_as_groups() {
        let mut body = Writer::new();
        body.u32(0).string("client").u32(0).u32(0).u32(17);
        for group in 0..17 {
            body.u32(group);
        }
        let body = body.into_bytes();
        let call = encode_call(1, 2, 3, 4, &Credential::Other { flavor: AUTH_SYS, body: &body }, b"");
        let error = Call::decode(&call).unwrap_err();
        assert_eq!(error.to_string(), "AUTH_SYS groups: expected at most 16, found 17");
    }

    #[test]
    fn a_body_where_none_belongs_is_kept() {
        let odd = Credential::Other { flavor: AUTH_NONE, body: b"odd!" };
        let call = encode_call(1, 2, 3, 4, &odd, b"");
        assert_eq!(Call::decode(&call).unwrap().credential, odd);
    }
}
