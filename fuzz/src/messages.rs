//! Messages from the network. The decoders of arguments and results are exact: a value that one accepts has one encoding
//! alone.

use heirlock_nsm::nlm::{self, CancelArgs, LockArgs, Nlm4Result, UnlockArgs};
use heirlock_nsm::rpc::{Call, Deframer, Reply, encode_call, encode_error, encode_success, frame};
use heirlock_nsm::rpcbind as bind;
use heirlock_nsm::sm::{self, Downcall, MonArgs, MonId, MyId, Notify, StatResult};
use heirlock_nsm::{limits, xdr::DecodeError};

/// A call or a reply.
pub fn rpc(bytes: &[u8]) {
    if let Ok(call) = Call::decode(bytes) {
        let again = encode_call(call.xid, call.prog, call.vers, call.proc_, &call.credential, call.args);
        assert_eq!(Call::decode(&again), Ok(call));
        assert!(Reply::decode(bytes).is_err());
    }
    match Reply::decode(bytes) {
        Ok(reply) => {
            assert_eq!(Reply::xid_of(bytes), Some(reply.xid));
            let again = match &reply.outcome {
                Ok(result) => encode_success(reply.xid, result),
                Err(error) => encode_error(reply.xid, error),
            };
            assert_eq!(Reply::decode(&again), Ok(reply));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Bytes over TCP. The first one says in which pieces.
pub fn deframer(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else { return };
    let in_pieces = messages(stream.chunks(usize::from(*size).max(1)));
    let at_once = messages(std::iter::once(stream));
    assert_eq!(in_pieces, at_once, "pieces of {size} bytes make a difference");
    let (found, _) = at_once;
    assert_eq!(found, by_the_book(stream));
    let again: Vec<u8> = found.iter().flat_map(|message| frame(message)).collect();
    assert_eq!(messages(std::iter::once(again.as_slice())), (found, None));
}

/// RFC 5531, section 11, with the whole stream at hand, and with our bounds.
fn by_the_book(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut found, mut message, mut fragments) = (Vec::new(), Vec::new(), 0);
    while let [a, b, c, d, rest @ ..] = stream {
        let length = u32::from_be_bytes([a & 0x7f, *b, *c, *d]) as usize;
        if length + message.len() > limits::RECORD_BYTES_MAX || length > rest.len() {
            break;
        }
        fragments += 1;
        if fragments > limits::FRAGMENTS_MAX || (length == 0 && a & 0x80 == 0) {
            break;
        }
        message.extend(&rest[..length]);
        stream = &rest[length..];
        if a & 0x80 != 0 {
            fragments = 0;
            found.push(std::mem::take(&mut message));
        }
    }
    found
}

fn messages<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<DecodeError>) {
    let (mut deframer, mut found) = (Deframer::new(), Vec::new());
    for piece in pieces {
        deframer.push(piece);
        loop {
            match deframer.next_record() {
                Ok(Some(message)) => {
                    assert!(message.len() <= limits::RECORD_BYTES_MAX);
                    found.push(message);
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// Questions to rpcbind and its answers.
pub fn rpcbind(bytes: &[u8]) {
    if let Ok(port) = bind::decode_getport_result(bytes) {
        assert_eq!(bind::encode_getport_result(port), bytes);
    }
    if let Ok(address) = bind::decode_getaddr_result(bytes) {
        let again = bind::encode_getaddr_result(address);
        assert_eq!(bind::decode_getaddr_result(&again), Ok(address));
    }
    let _ = (bind::decode_getport_args(bytes), bind::decode_getaddr_args(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match bind::parse_universal_address(text) {
        Ok(address) => {
            let again = bind::encode_universal_address(address);
            assert_eq!(bind::parse_universal_address(&again), Ok(address));
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
    }
}

/// Every call of the status monitor's protocol and every result.
pub fn nsm(bytes: &[u8]) {
    same(MonArgs::decode(bytes).map(|args| args.encode()), bytes);
    same(MonId::decode(bytes).map(|args| args.encode()), bytes);
    same(MyId::decode(bytes).map(|args| args.encode()), bytes);
    same(Notify::decode(bytes).map(|args| args.encode()), bytes);
    same(Downcall::decode(bytes).map(|args| args.encode()), bytes);
    same(StatResult::decode(bytes).map(|result| result.encode()), bytes);
    same(sm::decode_stat_args(bytes).map(sm::encode_stat_args), bytes);
    same(sm::decode_state_result(bytes).map(sm::encode_state_result), bytes);
    if let Ok(call) = Call::decode(bytes) {
        let _ = sm::Procedure::of(call.proc_);
        nsm(call.args);
    }
}

/// The lock manager's calls and their result.
pub fn nlm(bytes: &[u8]) {
    same(LockArgs::decode(bytes).map(|args| args.encode()), bytes);
    same(UnlockArgs::decode(bytes).map(|args| args.encode()), bytes);
    same(CancelArgs::decode(bytes).map(|args| args.encode()), bytes);
    same(Nlm4Result::decode(bytes).map(|result| result.encode()), bytes);
    if let Ok(call) = Call::decode(bytes) {
        let _ = nlm::Procedure::of(call.proc_);
        nlm(call.args);
    }
    if let Ok(Reply { outcome: Ok(result), .. }) = Reply::decode(bytes) {
        nlm(result);
    }
}

fn same(again: Result<Vec<u8>, DecodeError>, bytes: &[u8]) {
    match again {
        Ok(again) => assert_eq!(again, bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
