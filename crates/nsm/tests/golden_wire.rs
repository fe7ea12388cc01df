//! RPC messages as real programs sent them: each decodes to what it says, and is encoded back to the byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;

use heirlock_nsm::nlm::{self, LockArgs, Nlm4Result, Nlm4Status, UnlockArgs};
use heirlock_nsm::rpc::{
    Call, Credential, Deframer, Reply, ReplyError, encode_call, encode_error, encode_success, frame,
};
use heirlock_nsm::rpcbind::{self, GetaddrArgs, GetportArgs, Transport};
use heirlock_nsm::sm::{self, Downcall, MonArgs, MonId, MyId, Notify, Procedure, StatResult};
use heirlock_nsm::{StateNumber, xdr::Writer};

/// One captured message, without what TCP needs around it.
struct Packet {
    number: u32,
    tcp: bool,
    bytes: Vec<u8>,
}

fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn capture(name: &str) -> Vec<Packet> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/captures")
        .join(name)
        .with_extension("hex");
    let text = fs::read_to_string(path).unwrap();
    let packets: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(packet).collect();
    assert!(!packets.is_empty(), "{name}");
    packets
}

fn packet(line: &str) -> Packet {
    let [number, transport, _, _, digits] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let (number, tcp, sent) = (number.parse().unwrap(), transport == "tcp", unhex(digits));
    if !tcp {
        return Packet { number, tcp, bytes: sent };
    }
    let mut deframer = Deframer::new();
    deframer.push(&sent);
    let bytes = deframer.next_record().unwrap().expect("one message");
    assert_eq!(deframer.next_record(), Ok(None), "packet {number}");
    assert_eq!(frame(&bytes), sent, "packet {number}");
    Packet { number, tcp, bytes }
}

fn numbered(packets: &[Packet], number: u32) -> &[u8] {
    &packets.iter().find(|p| p.number == number).unwrap_or_else(|| panic!("no packet {number}")).bytes
}

fn call(packets: &[Packet], number: u32) -> Call<'_> {
    Call::decode(numbered(packets, number)).unwrap_or_else(|error| panic!("packet {number}: {error}"))
}

fn result(packets: &[Packet], number: u32) -> &[u8] {
    let reply =
        Reply::decode(numbered(packets, number)).unwrap_or_else(|error| panic!("packet {number}: {error}"));
    reply.outcome.unwrap_or_else(|error| panic!("packet {number}: {error}"))
}

fn asked(call: &Call<'_>) -> (u32, u32, u32) {
    (call.prog, call.vers, call.proc_)
}

#[test]
fn every_message_is_encoded_back_to_the_byte() {
    let (mut calls, mut replies, mut over_tcp) = (0, 0, 0);
    for name in ["nsm_calls", "smnotify_two_names", "nlm_reclaim_ganesha"] {
        for Packet { number, tcp, bytes } in &capture(name) {
            over_tcp += usize::from(*tcp);
            let again = match (Call::decode(bytes), Reply::decode(bytes)) {
                (Ok(call), Err(_)) => {
                    calls += 1;
                    encode_call(call.xid, call.prog, call.vers, call.proc_, &call.credential, call.args)
                }
                (Err(_), Ok(reply)) => {
                    replies += 1;
                    assert_eq!(Reply::xid_of(bytes), Some(reply.xid));
                    encode_success(reply.xid, reply.outcome.expect("all of them succeeded"))
                }
                both => panic!("{name}, packet {number}: {both:?}"),
            };
            assert_eq!(again, *bytes, "{name}, packet {number}");
        }
    }
    assert_eq!((calls, replies, over_tcp), (31, 31, 16), "all of them");
}

#[test]
fn lockd_registers_a_client_over_tcp_and_its_arguments_are_those_of_the_record() {
    let packets = capture("nsm_calls");
    for mon in [10, 23] {
        let call = call(&packets, mon);
        assert_eq!(asked(&call), (sm::PROGRAM, sm::VERSION, Procedure::Mon as u32));
        assert_eq!(call.credential, Credential::None);
        let args = MonArgs::decode(call.args).unwrap();
        let mon_name = if mon == 10 { "127.1.0.1" } else { "127.1.0.2" };
        let my_id = MyId { my_name: "primary.example.test", prog: nlm::PROGRAM, vers: 3, proc_: 16 };
        assert_eq!(args.mon_id, MonId { mon_name, my_id });
        assert_eq!(args.cookie[..8], [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        assert_eq!(args.encode(), call.args);
    }
    for answer in [16, 28] {
        let registered = StatResult::decode(result(&packets, answer)).unwrap();
        assert_eq!(registered, StatResult { ok: true, state: StateNumber(3) });
        assert_eq!(registered.encode(), result(&packets, answer));
    }
}

#[test]
fn a_status_monitor_is_asked_whether_it_could_watch() {
    let packets = capture("nsm_calls");
    let call = call(&packets, 31);
    assert_eq!(asked(&call), (sm::PROGRAM, sm::VERSION, Procedure::Stat as u32));
    assert_eq!(sm::decode_stat_args(call.args), Ok("127.1.0.1"));
    assert_eq!(sm::encode_stat_args("127.1.0.1"), call.args);
    assert!(StatResult::decode(result(&packets, 36)).unwrap().ok);
}

#[test]
fn a_notification_leads_to_a_downcall_with_the_number_and_the_cookie() {
    let packets = capture("nsm_calls");
    let told = Notify { mon_name: "127.1.0.1", state: StateNumber(5) };
    assert_eq!(Notify::decode(call(&packets, 39).args), Ok(told));
    assert_eq!(
        sm::encode_notify_call(0x063b_b006, "127.1.0.1", StateNumber(5)),
        numbered(&packets, 39),
        "the whole datagram"
    );
    assert_eq!(result(&packets, 44), b"", "it has no result");

    let call = call(&packets, 47);
    assert_eq!(asked(&call), (nlm::PROGRAM, 3, nlm::SM_NOTIFY), "as SM_MON asked for");
    let downcall = Downcall::decode(call.args).unwrap();
    assert_eq!((downcall.mon_name, downcall.state), ("127.1.0.1", StateNumber(5)));
    assert_eq!(downcall.cookie[..4], [0x11, 0x22, 0x33, 0x44]);
    assert_eq!(downcall.encode(), call.args);
}

#[test]
fn ports_are_asked_for_before_anything_is_called() {
    let packets = capture("nsm_calls");
    let expected = [
        (5, 6, GetportArgs { prog: sm::PROGRAM, vers: 1, protocol: 6 }, 43_455),
        (21, 22, GetportArgs { prog: sm::PROGRAM, vers: 1, protocol: 17 }, 50_690),
        (45, 46, GetportArgs { prog: nlm::PROGRAM, vers: 3, protocol: 17 }, 40_021),
    ];
    for (question, answer, args, port) in expected {
        let call = call(&packets, question);
        assert_eq!(asked(&call), (rpcbind::PROGRAM, rpcbind::VERSION_2, rpcbind::GETPORT));
        assert_eq!(rpcbind::decode_getport_args(call.args), Ok(args));
        let transport = if args.protocol == 6 { Transport::Tcp } else { Transport::Udp };
        let whole = rpcbind::encode_getport_call(call.xid, args.prog, args.vers, transport);
        assert_eq!(whole, numbered(&packets, question), "the whole message");
        assert_eq!(rpcbind::decode_getport_result(result(&packets, answer)), Ok(Some(port)));
        assert_eq!(rpcbind::encode_getport_result(Some(port)), result(&packets, answer));
    }
    // The mapping that PMAPPROC_SET brings has a port as well, which a question has not.
    let set = call(&packets, 1);
    assert_eq!(asked(&set), (rpcbind::PROGRAM, rpcbind::VERSION_2, 1));
    assert_eq!(
        rpcbind::decode_getport_args(set.args),
        Ok(GetportArgs { prog: nlm::PROGRAM, vers: 3, protocol: 17 })
    );
}

#[test]
fn sm_notify_tells_a_client_under_every_name_it_has_a_line_for() {
    let packets = capture("smnotify_two_names");
    let mut names = Vec::new();
    for number in [5, 6, 8, 10] {
        let call = call(&packets, number);
        assert_eq!(asked(&call), (sm::PROGRAM, sm::VERSION, Procedure::Notify as u32));
        let notify = Notify::decode(call.args).unwrap();
        assert_eq!(notify.state, StateNumber(3));
        let whole = sm::encode_notify_call(call.xid, notify.mon_name, notify.state);
        assert_eq!(whole, numbered(&packets, number));
        names.push(notify.mon_name);
    }
    assert_eq!(names, ["a.example.test", "b.example.test", "a", "b"]);
}

#[test]
fn ganesha_registers_and_unregisters_over_tcp() {
    let packets = capture("nlm_reclaim_ganesha");
    let my_id = || MyId { my_name: "primary.example.test", prog: nlm::PROGRAM, vers: 4, proc_: 16 };
    let mon = call(&packets, 65);
    assert_eq!(asked(&mon), (sm::PROGRAM, sm::VERSION, Procedure::Mon as u32));
    let args = MonArgs { mon_id: MonId { mon_name: "127.1.0.2", my_id: my_id() }, cookie: [0; 16] };
    assert_eq!(args.encode(), mon.args);
    assert_eq!(MonArgs::decode(mon.args), Ok(args));

    let unmon = call(&packets, 125);
    assert_eq!(asked(&unmon), (sm::PROGRAM, sm::VERSION, Procedure::Unmon as u32));
    let args = MonId { mon_name: "127.1.0.2", my_id: my_id() };
    assert_eq!(args.encode(), unmon.args);
    assert_eq!(MonId::decode(unmon.args), Ok(args));
    assert_eq!(sm::decode_state_result(result(&packets, 126)), Ok(StateNumber(3)));
    assert_eq!(sm::encode_state_result(StateNumber(3)), result(&packets, 126));
}

#[test]
fn a_lock_is_refused_in_grace_a_reclaim_is_granted_and_both_are_understood() {
    let packets = capture("nlm_reclaim_ganesha");
    let in_grace = Nlm4Status::DeniedGracePeriod;
    let locks = [(40, 42, false, in_grace), (50, 69, true, Nlm4Status::Granted), (113, 115, true, in_grace)];
    for (question, answer, reclaim, status) in locks {
        let call = call(&packets, question);
        assert_eq!(asked(&call), (nlm::PROGRAM, nlm::VERSION_4, nlm::Procedure::Lock as u32));
        let Credential::Sys { machine, uid, .. } = &call.credential else { panic!("{:?}", call.credential) };
        assert_eq!((*machine, *uid), ("client2.example.test", 0));
        let args = LockArgs::decode(call.args).unwrap();
        assert_eq!((args.reclaim, args.block, args.exclusive, args.state), (reclaim, false, true, 1));
        assert_eq!(args.lock.caller_name, "client2.example.test");
        assert_eq!(args.lock.oh, b"owner@client2.example.test");
        assert_eq!((args.lock.svid, args.lock.offset, args.lock.length), (4242, 0, 100));
        assert_eq!(args.lock.fh.len(), 28);
        let whole = nlm::encode_lock_call(call.xid, &call.credential, &args);
        assert_eq!(whole, numbered(&packets, question), "the whole message");
        let answer = result(&packets, answer);
        let decoded = Nlm4Result::decode(answer).unwrap();
        assert_eq!(decoded, Nlm4Result { cookie: args.cookie, status });
        assert_eq!(decoded.encode(), answer);
    }
}

#[test]
fn an_unlock_is_encoded_as_the_client_did() {
    let packets = capture("nlm_reclaim_ganesha");
    let call = call(&packets, 121);
    assert_eq!(asked(&call), (nlm::PROGRAM, nlm::VERSION_4, nlm::Procedure::Unlock as u32));
    let args = UnlockArgs::decode(call.args).unwrap();
    assert_eq!((args.lock.svid, args.lock.length), (4242, 100));
    assert_eq!(nlm::encode_unlock_call(call.xid, &call.credential, &args), numbered(&packets, 121));
    assert_eq!(Nlm4Result::decode(result(&packets, 128)).unwrap().status, Nlm4Status::Granted);
}

/// Messages that no capture shows, written out by hand from the protocols' definitions.
mod by_definition {
    use super::*;

    /// nfs-utils support/nsm/sm_inter.x: SM_UNMON_ALL takes my_id, SM_SIMU_CRASH nothing; a failure has state -1.
    #[test]
    fn unmon_all_simu_crash_and_a_refusal() {
        let my_id = MyId { my_name: "nfs-a", prog: 100_021, vers: 4, proc_: 16 };
        let words = "00000005 6e66732d61000000 000186b5 00000004 00000010";
        let args = unhex(&words.replace(' ', ""));
        assert_eq!(my_id.encode(), args);
        assert_eq!(MyId::decode(&args), Ok(my_id));

        let crash =
            encode_call(7, sm::PROGRAM, sm::VERSION, Procedure::SimuCrash as u32, &Credential::None, b"");
        let words =
            "00000007 00000000 00000002 000186b8 00000001 00000005 00000000 00000000 00000000 00000000";
        assert_eq!(crash, unhex(&words.replace(' ', "")));

        let refused = StatResult { ok: false, state: StateNumber(u32::MAX) };
        assert_eq!(refused.encode(), unhex("00000001ffffffff"));
        assert_eq!(StatResult::decode(&refused.encode()), Ok(refused));
    }

    #[test]
    fn every_procedure_has_its_number() {
        let numbers: Vec<_> = (0..9).map(|n| Procedure::of(n).map(|p| format!("{p:?}"))).collect();
        let named = ["Null", "Stat", "Mon", "Unmon", "UnmonAll", "SimuCrash", "Notify"];
        assert_eq!(numbers[..7], named.map(|n| Some(n.to_owned())));
        assert_eq!(numbers[7..], [None, None]);
        let nlm: Vec<_> = (0..24).filter_map(nlm::Procedure::of).map(|p| p as u32).collect();
        assert_eq!(nlm, [0, 2, 3, 4]);
        assert_eq!((0..12).filter_map(Nlm4Status::of).count(), 10);
    }

    /// RFC 1833, section 2.2: `rpcb` is two numbers and three strings, and is the same in versions 3 and 4.
    #[test]
    fn rpcbind_of_later_versions_is_asked_for_an_address() {
        let whole = rpcbind::encode_getaddr_call(9, sm::PROGRAM, sm::VERSION, "udp6");
        let head =
            "00000009 00000000 00000002 000186a0 00000004 00000003 00000000 00000000 00000000 00000000";
        let rpcb = "000186b8 00000001 00000004 75647036 00000000 00000000";
        assert_eq!(whole, unhex(&format!("{head}{rpcb}").replace(' ', "")));
        let call = Call::decode(&whole).unwrap();
        let args = GetaddrArgs { prog: sm::PROGRAM, vers: sm::VERSION, netid: "udp6" };
        assert_eq!(rpcbind::decode_getaddr_args(call.args), Ok(args));

        let address = "[2001:db8::5]:700".parse().unwrap();
        let mut result = Writer::new();
        result.string("2001:db8::5.2.188");
        let result = result.into_bytes();
        assert_eq!(rpcbind::decode_getaddr_result(&result), Ok(Some(address)));
        assert_eq!(rpcbind::encode_getaddr_result(Some(address)), result);
        assert_eq!(rpcbind::decode_getaddr_result(&[0; 4]), Ok(None), "not registered");
        assert_eq!(rpcbind::encode_getaddr_result(None), [0; 4]);
        assert_eq!(rpcbind::encode_universal_address("127.0.0.1:40021".parse().unwrap()), "127.0.0.1.156.85");
    }

    /// RFC 5531, section 9: how a call that is not carried out is answered.
    #[test]
    fn refusals_of_an_rpc_call_are_read() {
        let refusals = [
            (ReplyError::ProgUnavailable, "00000000 00000000 00000000 00000001"),
            (
                ReplyError::ProgMismatch { low: 2, high: 4 },
                "00000000 00000000 00000000 00000002 00000002 00000004",
            ),
            (ReplyError::ProcUnavailable, "00000000 00000000 00000000 00000003"),
            (ReplyError::GarbageArgs, "00000000 00000000 00000000 00000004"),
            (ReplyError::SystemErr, "00000000 00000000 00000000 00000005"),
            (ReplyError::RpcMismatch { low: 2, high: 2 }, "00000001 00000000 00000002 00000002"),
            (ReplyError::AuthError(5), "00000001 00000001 00000005"),
        ];
        for (error, words) in refusals {
            let bytes = unhex(&format!("0000000a 00000001 {words}").replace(' ', ""));
            assert_eq!(encode_error(10, &error), bytes, "{error}");
            assert_eq!(Reply::decode(&bytes), Ok(Reply { xid: 10, outcome: Err(error) }));
        }
    }
}
