//! rpcbind (RFC 1833), program 100000: version 2 for IPv4, versions 3 and 4 for IPv6.

use std::net::{IpAddr, SocketAddr};

use crate::limits;
use crate::rpc::{Credential, encode_call};
use crate::xdr::{DecodeError, Problem, Reader, Writer};

/// The program.
pub const PROGRAM: u32 = 100_000;
/// The port mapper's version.
pub const VERSION_2: u32 = 2;
/// rpcbind's first version.
pub const VERSION_3: u32 = 3;
/// rpcbind's second version.
pub const VERSION_4: u32 = 4;
/// PMAPPROC_GETPORT, and RPCBPROC_GETADDR of the later versions.
pub const GETPORT: u32 = 3;
/// PMAPPROC_SET, and RPCBPROC_SET of the later versions: only from the machine itself.
pub const SET: u32 = 1;
/// PMAPPROC_UNSET, and RPCBPROC_UNSET of the later versions: only from the machine itself.
pub const UNSET: u32 = 2;
/// RPCBPROC_DUMP: all that is registered.
pub const DUMP: u32 = 4;
/// rpcbind's own port.
pub const PORT: u16 = 111;

/// How much of a text that is no universal address an error shows.
const SHOWN_CHARS_MAX: usize = 60;

/// How a program is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// IPPROTO_UDP
    Udp,
    /// IPPROTO_TCP
    Tcp,
}

impl Transport {
    /// The protocol's number, as version 2 has it.
    #[must_use]
    pub fn protocol(self) -> u32 {
        match self {
            Transport::Udp => 17,
            Transport::Tcp => 6,
        }
    }
}

/// The arguments of GETPORT, in version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetportArgs {
    /// which program
    pub prog: u32,
    /// in which version
    pub vers: u32,
    /// protocol number: 17 or 6
    pub protocol: u32,
}

/// The arguments of GETADDR, in versions 3 and 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetaddrArgs<'a> {
    /// which program
    pub prog: u32,
    /// in which version
    pub vers: u32,
    /// `udp`, `tcp`, `udp6`, `tcp6`
    pub netid: &'a str,
}

/// Asks version 2 for a port.
#[must_use]
pub fn encode_getport_call(xid: u32, prog: u32, vers: u32, transport: Transport) -> Vec<u8> {
    let mut args = Writer::new();
    args.u32(prog).u32(vers).u32(transport.protocol()).u32(0);
    encode_call(xid, PROGRAM, VERSION_2, GETPORT, &Credential::None, &args.into_bytes())
}

/// The port that was asked for; `None` where the program is not registered.
///
/// # Errors
/// Where the bytes are no port.
pub fn decode_getport_result(result: &[u8]) -> Result<Option<u16>, DecodeError> {
    let mut reader = Reader::new(result);
    let found = reader.u32("port")?;
    reader.finish("port")?;
    let problem = Problem::Value { expected: "a port up to 65535", found };
    let port = u16::try_from(found).map_err(|_| DecodeError { type_name: "port", problem })?;
    Ok((port != 0).then_some(port))
}

/// Decodes the arguments of GETPORT.
///
/// # Errors
/// Where the bytes are no such question.
pub fn decode_getport_args(args: &[u8]) -> Result<GetportArgs, DecodeError> {
    let mut reader = Reader::new(args);
    let asked = GetportArgs {
        prog: reader.u32("mapping")?,
        vers: reader.u32("mapping")?,
        protocol: reader.u32("mapping")?,
    };
    reader.u32("mapping")?;
    reader.finish("mapping")?;
    Ok(asked)
}

/// Answers version 2.
#[must_use]
pub fn encode_getport_result(port: Option<u16>) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(u32::from(port.unwrap_or(0)));
    writer.into_bytes()
}

/// Asks version 4 for an address. rpcbind ignores the netid of the question and answers for the transport it came
/// over, so ask over the transport that is wanted.
#[must_use]
pub fn encode_getaddr_call(xid: u32, prog: u32, vers: u32, netid: &str) -> Vec<u8> {
    let mut args = Writer::new();
    args.u32(prog).u32(vers).string(netid).string("").string("");
    encode_call(xid, PROGRAM, VERSION_4, GETPORT, &Credential::None, &args.into_bytes())
}

/// The address that was asked for; `None` where the program is not registered.
///
/// # Errors
/// Where the bytes are no universal address.
pub fn decode_getaddr_result(result: &[u8]) -> Result<Option<SocketAddr>, DecodeError> {
    let mut reader = Reader::new(result);
    let text = reader.string("universal address", limits::STRING_BYTES_MAX)?;
    reader.finish("universal address")?;
    if text.is_empty() { Ok(None) } else { parse_universal_address(text).map(Some) }
}

/// Decodes the arguments of GETADDR.
///
/// # Errors
/// Where the bytes are no such question.
pub fn decode_getaddr_args(args: &[u8]) -> Result<GetaddrArgs<'_>, DecodeError> {
    let mut reader = Reader::new(args);
    let prog = reader.u32("rpcb")?;
    let vers = reader.u32("rpcb")?;
    let netid = reader.string("rpcb netid", limits::STRING_BYTES_MAX)?;
    reader.string("rpcb address", limits::STRING_BYTES_MAX)?;
    reader.string("rpcb owner", limits::STRING_BYTES_MAX)?;
    reader.finish("rpcb")?;
    Ok(GetaddrArgs { prog, vers, netid })
}

/// Answers versions 3 and 4.
#[must_use]
pub fn encode_getaddr_result(address: Option<SocketAddr>) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.string(&address.map(encode_universal_address).unwrap_or_default());
    writer.into_bytes()
}

/// Registers a program with version 4. The owner is the user that rpcbind sees at the other end of its local socket.
#[must_use]
pub fn encode_set_call(xid: u32, prog: u32, vers: u32, netid: &str, address: SocketAddr) -> Vec<u8> {
    let address = encode_universal_address(address);
    encode_registration(xid, SET, prog, vers, netid, &address)
}

/// Takes the registration of a program over one transport away, with version 4.
#[must_use]
pub fn encode_unset_call(xid: u32, prog: u32, vers: u32, netid: &str) -> Vec<u8> {
    encode_registration(xid, UNSET, prog, vers, netid, "")
}

fn encode_registration(xid: u32, proc_: u32, prog: u32, vers: u32, netid: &str, address: &str) -> Vec<u8> {
    let mut args = Writer::new();
    args.u32(prog).u32(vers).string(netid).string(address).string("");
    encode_call(xid, PROGRAM, VERSION_4, proc_, &Credential::None, &args.into_bytes())
}

/// One program that is registered over one transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// which program
    pub prog: u32,
    /// in which version
    pub vers: u32,
    /// `udp`, `tcp`, `udp6`, `tcp6`, `local`
    pub netid: String,
    /// its universal address, or the path of a local socket
    pub address: String,
}

/// Asks version 4 for all that is registered, over any transport. rpcbind itself is among it, once for each transport
/// that it serves.
#[must_use]
pub fn encode_dump_call(xid: u32) -> Vec<u8> {
    encode_call(xid, PROGRAM, VERSION_4, DUMP, &Credential::None, &[])
}

/// All that is registered.
///
/// # Errors
/// Where the bytes are no such list, or one of more than [`limits::REGISTERED_MAX`].
pub fn decode_dump_result(result: &[u8]) -> Result<Vec<Registered>, DecodeError> {
    let mut reader = Reader::new(result);
    let mut registered = Vec::new();
    while reader.bool("registered programs")? {
        if registered.len() >= limits::REGISTERED_MAX {
            let registered_count = u32::try_from(registered.len() + 1).unwrap_or(u32::MAX);
            let problem = Problem::TooMany { max: limits::REGISTERED_MAX, found: registered_count };
            return Err(DecodeError { type_name: "registered programs", problem });
        }
        let (prog, vers) = (reader.u32("rpcb")?, reader.u32("rpcb")?);
        let mut text = |what| reader.string(what, limits::STRING_BYTES_MAX).map(str::to_owned);
        let (netid, address) = (text("rpcb netid")?, text("rpcb address")?);
        text("rpcb owner")?;
        registered.push(Registered { prog, vers, netid, address });
    }
    reader.finish("registered programs")?;
    Ok(registered)
}

/// Whether a registration was made, or taken away.
///
/// # Errors
/// Where the bytes are no such answer.
pub fn decode_registration_result(result: &[u8]) -> Result<bool, DecodeError> {
    let mut reader = Reader::new(result);
    let done = reader.bool("registration result")?;
    reader.finish("registration result")?;
    Ok(done)
}

/// An address as text: `h1.h2.h3.h4.p1.p2`, and for IPv6 `x:x::x.p1.p2` (RFC 5665).
#[must_use]
pub fn encode_universal_address(address: SocketAddr) -> String {
    let [high, low] = address.port().to_be_bytes();
    format!("{}.{high}.{low}", address.ip())
}

/// Reads an address from its text.
///
/// # Errors
/// Where it is none.
pub fn parse_universal_address(text: &str) -> Result<SocketAddr, DecodeError> {
    let parts = || {
        let (rest, low) = text.rsplit_once('.')?;
        let (ip, high) = rest.rsplit_once('.')?;
        let octet =
            |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u8>().ok())?;
        let port = u16::from_be_bytes([octet(high)?, octet(low)?]);
        Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port))
    };
    parts().ok_or_else(|| {
        let expected = "an address and two octets of a port (h1.h2.h3.h4.p1.p2)";
        let found = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_default).collect();
        DecodeError { type_name: "universal address", problem: Problem::Text { expected, found } }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_universal_address_is_shown_with_an_example() {
        let error = |text: &str| parse_universal_address(text).unwrap_err().to_string();
        let expected = "universal address: expected an address and two octets of a port (h1.h2.h3.h4.p1.p2)";
        assert_eq!(error("127.0.0.1.3"), format!("{expected}, found \"127.0.0.1.3\""));
        assert_eq!(error("127.0.0.1.3.256"), format!("{expected}, found \"127.0.0.1.3.256\""));
        assert_eq!(error("\u{1b}[2J"), format!("{expected}, found \"\\u{{1b}}[2J\""));
        assert!(error(&"x".repeat(1000)).len() < 200, "it is not repeated at length");
    }

    #[test]
    fn a_dump_of_rpcbind_is_read_whole_and_one_without_end_is_refused() {
        let mut writer = Writer::new();
        for (netid, address) in [("tcp", "0.0.0.0.0.111"), ("local", "/run/rpcbind.sock")] {
            writer.u32(1).u32(PROGRAM).u32(VERSION_4).string(netid).string(address).string("superuser");
        }
        let more = writer.into_bytes();
        let registered = decode_dump_result(&[&more[..], &[0; 4]].concat()).unwrap();
        let read: Vec<_> = registered.iter().map(|one| (one.netid.as_str(), one.address.as_str())).collect();
        assert_eq!(read, [("tcp", "0.0.0.0.0.111"), ("local", "/run/rpcbind.sock")]);
        assert!(decode_dump_result(&more).is_err(), "cut short");
        let endless = more.repeat(limits::REGISTERED_MAX);
        assert!(decode_dump_result(&[&endless[..], &[0; 4]].concat()).is_err());
    }

    #[test]
    fn a_port_beyond_16_bits_is_none() {
        let error = decode_getport_result(&65_536_u32.to_be_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "port: expected a port up to 65535, found 65536");
    }
}
