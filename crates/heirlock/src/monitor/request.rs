//! From bytes to a request to the status monitor, or straight to an answer. Raw bytes from the network or from another program
//! end here: past this point names are names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use heirlock_core::log_limit::cut;
use heirlock_core::monitor::Caller;
use heirlock_nsm::rpc::{Call, ReplyError, encode_error, encode_success};
use heirlock_nsm::sm::{
    self, MonArgs, MonId, MyId, Notify, Procedure, StatResult, decode_stat_args, encode_state_result,
};
use heirlock_nsm::{MonName, MonitorLine, MyName, StateNumber, nlm};

use crate::from_elsewhere;

/// The procedures of the lock manager that a registration may ask for: Linux's, and the one that others use.
const DOWNCALL_PROCEDURES: [u32; 2] = [nlm::SM_NOTIFY, 24];

/// The number in a STAT_FAIL.
const NO_STATE: StateNumber = StateNumber(u32::MAX);

/// The senders that are taken for this server's own lock manager: they ask from exactly 127.0.0.1 over IPv4, as rpc.statd has
/// it (utils/statd/monitor.c), and from a port below this one.
///
/// rpc.statd looks at no port, so any user of the server may take registrations away from it. lockd and Ganesha ask from ports
/// below 1024, which only root may have (docs/decisions/0010-who-speaks-for-the-lock-manager.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trust {
    /// The first port that every user may have.
    pub(crate) ports_below: u32,
}

impl Trust {
    /// Root's ports.
    pub(crate) const PRIVILEGED: Self = Self { ports_below: 1024 };

    /// Any program that asks from 127.0.0.1, whatever its port.
    #[cfg(test)]
    pub(crate) const ANY_PORT: Self = Self { ports_below: 65_536 };

    pub(super) fn check(self, from: SocketAddr) -> Result<(), String> {
        if from.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return Err("only this server's own lock manager may ask for it, from 127.0.0.1".into());
        }
        if u32::from(from.port()) >= self.ports_below {
            return Err(format!(
                "only this server's own lock manager may ask for it: expected a source port below {}, found {} (lockd's come from sunrpc.min_resvport and sunrpc.max_resvport)",
                self.ports_below,
                from.port()
            ));
        }
        Ok(())
    }

    /// The same for requests that are answered in any case, and carried out for the lock manager alone.
    fn hears(self, from: SocketAddr, what: &'static str) -> bool {
        match self.check(from) {
            Ok(()) => true,
            Err(why) => {
                if from_elsewhere::may_say(what, from.ip()) {
                    tracing::warn!(%from, why, "{what}, asked by {from}, is answered and not done: {why}");
                }
                false
            }
        }
    }
}

/// A request, as the machine takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// It needs no decision: here is the answer.
    Answered(Vec<u8>),
    /// SM_MON.
    Mon { xid: u32, line: MonitorLine },
    /// SM_UNMON, and its answer.
    Unmon { mon_name: MonName, caller: Caller, answer: Vec<u8> },
    /// SM_UNMON_ALL, and its answer.
    UnmonAll { caller: Caller, answer: Vec<u8> },
    /// SM_NOTIFY.
    Notified { xid: u32, name: String, state: StateNumber },
    /// No call at all; not worth an answer.
    Nothing,
}

/// Reads one message. `own` is this server's number.
pub(super) fn read(message: &[u8], from: SocketAddr, own: StateNumber, trust: Trust) -> Asked {
    let Ok(call) = Call::decode(message) else { return Asked::Nothing };
    match accept(&call, from, own, trust) {
        Ok(asked) => asked,
        Err(error) => Asked::Answered(encode_error(call.xid, &error)),
    }
}

/// The answer to an SM_MON.
pub(super) fn mon_answer(xid: u32, granted: bool, own: StateNumber) -> Vec<u8> {
    let state = if granted { own } else { NO_STATE };
    encode_success(xid, &StatResult { ok: granted, state }.encode())
}

/// The answer to an SM_NOTIFY.
pub(super) fn notify_answer(xid: u32) -> Vec<u8> {
    encode_success(xid, &[])
}

fn accept(call: &Call<'_>, from: SocketAddr, own: StateNumber, trust: Trust) -> Result<Asked, ReplyError> {
    if call.prog != sm::PROGRAM {
        return Err(ReplyError::ProgUnavailable);
    }
    if call.vers != sm::VERSION {
        return Err(ReplyError::ProgMismatch { low: sm::VERSION, high: sm::VERSION });
    }
    let procedure = Procedure::of(call.proc_).ok_or(ReplyError::ProcUnavailable)?;
    let garbage = |_| ReplyError::GarbageArgs;
    let state_answer = || encode_success(call.xid, &encode_state_result(own));
    Ok(match procedure {
        Procedure::Null => Asked::Answered(encode_success(call.xid, &[])),
        Procedure::Stat => {
            // Whether a name can be resolved does not matter here: no DNS on the way.
            let ok = MonName::parse(decode_stat_args(call.args).map_err(garbage)?).is_ok();
            Asked::Answered(mon_answer(call.xid, ok, own))
        }
        Procedure::Mon => mon(call, &MonArgs::decode(call.args).map_err(garbage)?, from, trust),
        Procedure::Unmon => {
            let asked = MonId::decode(call.args).map_err(garbage)?;
            match (MonName::parse(asked.mon_name), caller(&asked.my_id)) {
                (Ok(mon_name), Some(caller)) if trust.hears(from, "SM_UNMON") => {
                    Asked::Unmon { mon_name, caller, answer: state_answer() }
                }
                _ => Asked::Answered(state_answer()),
            }
        }
        Procedure::UnmonAll => match caller(&MyId::decode(call.args).map_err(garbage)?) {
            Some(caller) if trust.hears(from, "SM_UNMON_ALL") => {
                Asked::UnmonAll { caller, answer: state_answer() }
            }
            _ => Asked::Answered(state_answer()),
        },
        Procedure::SimuCrash => {
            if from_elsewhere::may_say("SM_SIMU_CRASH", from.ip()) {
                let trusted = trust.check(from).is_ok();
                tracing::warn!(%from, trusted, "{from} asked to simulate a crash; nothing is forgotten, and no client is told");
            }
            Asked::Answered(encode_success(call.xid, &[]))
        }
        Procedure::Notify => {
            let notify = Notify::decode(call.args).map_err(garbage)?;
            Asked::Notified { xid: call.xid, name: notify.mon_name.to_owned(), state: notify.state }
        }
    })
}

fn mon(call: &Call<'_>, asked: &MonArgs<'_>, from: SocketAddr, trust: Trust) -> Asked {
    let line = trust.check(from).and_then(|()| registration(asked));
    match line {
        Ok(line) => Asked::Mon { xid: call.xid, line },
        Err(why) => {
            if from_elsewhere::may_say("refused to monitor", from.ip()) {
                tracing::warn!(%from, name = cut(asked.mon_id.mon_name), why, "{from} asked to monitor {}, which is refused: {why}", cut(asked.mon_id.mon_name));
            }
            Asked::Answered(mon_answer(call.xid, false, NO_STATE))
        }
    }
}

fn registration(asked: &MonArgs<'_>) -> Result<MonitorLine, String> {
    let MyId { prog, proc_, .. } = asked.mon_id.my_id;
    if prog != nlm::PROGRAM || !DOWNCALL_PROCEDURES.contains(&proc_) {
        return Err(format!(
            "expected program {} and procedure 16 or 24, found {prog} and {proc_}",
            nlm::PROGRAM
        ));
    }
    let mon_name = MonName::parse(asked.mon_id.mon_name).map_err(|error| error.to_string())?;
    let caller = caller(&asked.mon_id.my_id).ok_or("the server's own name is none")?;
    let mut line = MonitorLine::generated(mon_name, caller.my_name);
    (line.prog, line.vers, line.proc_) = (caller.prog, caller.vers, caller.proc_);
    line.cookie = asked.cookie;
    Ok(line)
}

/// rpc.statd writes `_` for a character that would break its line; so do we, and look for it under that name again.
fn caller(id: &MyId<'_>) -> Option<Caller> {
    let my_name = id.my_name.replace([' ', '\t', '\r', '\n'], "_");
    Some(Caller { my_name: MyName::parse(&my_name).ok()?, prog: id.prog, vers: id.vers, proc_: id.proc_ })
}

#[cfg(test)]
mod tests {
    use heirlock_nsm::rpc::{Credential, Reply, encode_call};
    use proptest::prelude::*;

    use super::*;

    const OWN: StateNumber = StateNumber(7);

    fn here() -> SocketAddr {
        "127.0.0.1:700".parse().unwrap()
    }

    fn args<'a>(mon_name: &'a str, my_name: &'a str) -> MonArgs<'a> {
        let my_id = MyId { my_name, prog: 100_021, vers: 3, proc_: 16 };
        MonArgs { mon_id: MonId { mon_name, my_id }, cookie: [9; 16] }
    }

    fn call(procedure: Procedure, args: &[u8]) -> Vec<u8> {
        encode_call(5, sm::PROGRAM, sm::VERSION, procedure as u32, &Credential::None, args)
    }

    fn stat(answer: Asked) -> StatResult {
        let Asked::Answered(bytes) = answer else { panic!("{answer:?}") };
        StatResult::decode(Reply::decode(&bytes).unwrap().outcome.unwrap()).unwrap()
    }

    #[test]
    fn a_registration_is_the_line_that_statd_writes() {
        let message = call(Procedure::Mon, &args("10.0.0.1", "nfs a").encode());
        let Asked::Mon { xid: 5, line } = read(&message, here(), OWN, Trust::PRIVILEGED) else { panic!() };
        let mut bytes = Vec::new();
        line.render(&mut bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "0100007f 000186b5 00000003 00000010 09090909090909090909090909090909 10.0.0.1 nfs_a\n"
        );
    }

    #[test]
    fn only_this_servers_own_lock_manager_registers() {
        let refused = StatResult { ok: false, state: NO_STATE };
        let message = call(Procedure::Mon, &args("10.0.0.1", "nfs-a").encode());
        for from in ["127.0.0.2:700", "10.0.0.5:700", "[::1]:700", "[::ffff:127.0.0.1]:700", "127.0.0.1:1024"]
        {
            assert_eq!(
                stat(read(&message, from.parse().unwrap(), OWN, Trust::PRIVILEGED)),
                refused,
                "{from}"
            );
        }
        let mut other = args("10.0.0.1", "nfs-a");
        other.mon_id.my_id.prog = 100_003;
        assert_eq!(
            stat(read(&call(Procedure::Mon, &other.encode()), here(), OWN, Trust::PRIVILEGED)),
            refused
        );
    }

    #[test]
    fn an_unmon_that_another_sender_asks_for_is_answered_and_not_done() {
        let asked = args("10.0.0.1", "nfs-a").mon_id;
        let messages =
            [call(Procedure::Unmon, &asked.encode()), call(Procedure::UnmonAll, &asked.my_id.encode())];
        for message in messages {
            for from in ["10.0.0.5:700", "127.0.0.1:1024", "127.0.0.1:40000", "[::1]:700"] {
                let answered = read(&message, from.parse().unwrap(), OWN, Trust::PRIVILEGED);
                assert!(matches!(answered, Asked::Answered(_)), "{from}: {answered:?}");
            }
            let heard = read(&message, here(), OWN, Trust::PRIVILEGED);
            assert!(matches!(heard, Asked::Unmon { .. } | Asked::UnmonAll { .. }), "{heard:?}");
        }
    }

    #[test]
    fn a_name_that_could_leave_the_directory_is_refused() {
        for bad in ["", "../etc/passwd", ".hidden", "a b", "a\nb", "x.new", &"x".repeat(300)] {
            let message = call(Procedure::Mon, &args(bad, "nfs-a").encode());
            assert!(!stat(read(&message, here(), OWN, Trust::PRIVILEGED)).ok, "{bad:?}");
        }
    }

    #[test]
    fn a_procedure_that_is_not_served_is_refused_by_name() {
        let refusal = |message: &[u8]| match read(message, here(), OWN, Trust::PRIVILEGED) {
            Asked::Answered(bytes) => Reply::decode(&bytes).unwrap().outcome.unwrap_err(),
            other => panic!("{other:?}"),
        };
        let call_of = |prog, vers, proc_| encode_call(5, prog, vers, proc_, &Credential::None, &[]);
        assert_eq!(refusal(&call_of(100_003, 1, 0)), ReplyError::ProgUnavailable);
        assert_eq!(refusal(&call_of(sm::PROGRAM, 2, 0)), ReplyError::ProgMismatch { low: 1, high: 1 });
        assert_eq!(refusal(&call_of(sm::PROGRAM, 1, 7)), ReplyError::ProcUnavailable);
        assert_eq!(refusal(&call_of(sm::PROGRAM, 1, 2)), ReplyError::GarbageArgs);
    }

    #[test]
    fn a_simulated_crash_is_survived() {
        assert!(matches!(
            read(&call(Procedure::SimuCrash, &[]), here(), OWN, Trust::PRIVILEGED),
            Asked::Answered(_)
        ));
    }

    proptest! {
        /// Any bytes, and any damage to a whole call, are read without a panic, and every registered name is safe.
        #[test]
        fn garbage_in_a_request_is_survived(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..200, value in any::<u8>(), procedure in 0_u32..8, cut in 0_usize..200
        ) {
            read(&bytes, here(), OWN, Trust::PRIVILEGED);
            let whole = args("10.0.0.1", "nfs-a").encode();
            let mut damaged =
                encode_call(5, sm::PROGRAM, sm::VERSION, procedure, &Credential::None, &whole);
            let end = damaged.len();
            damaged[at % end] = value;
            damaged.truncate(end - cut % end);
            if let Asked::Mon { line, .. } = read(&damaged, here(), OWN, Trust::PRIVILEGED) {
                prop_assert!(!line.mon_name.as_str().contains('/') && !line.mon_name.as_str().starts_with('.'));
            }
        }
    }
}
