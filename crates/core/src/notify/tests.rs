use heirlock_nsm::rpc::{Call, ReplyError, encode_error, encode_success};
use heirlock_nsm::{rpcbind, sm};
use proptest::prelude::*;

use super::*;

const STATE: StateNumber = StateNumber(13);
const NSM_PORT: u16 = 40_000;
const UDP: Transport = Transport::Udp;
const TCP: Transport = Transport::Tcp;

fn at(ms: u64) -> Moment {
    Moment::at(Duration::from_millis(ms))
}

fn address(client: u32) -> IpAddr {
    IpAddr::from(std::net::Ipv4Addr::from(0x7f4d_0000 + client))
}

fn key(client: u32) -> MonName {
    MonName::from_address(address(client))
}

fn plan(clients: u32) -> Plan {
    Plan {
        words: Words::Restart {
            names: ["nfs.example.test", "nfs"].map(|n| MyName::parse(n).unwrap()).to_vec(),
            state: STATE,
        },
        clients: (0..clients).map(|c| (key(c), vec![address(c).into()])).collect(),
        sources: vec![std::net::Ipv4Addr::UNSPECIFIED.into(), std::net::Ipv6Addr::UNSPECIFIED.into()],
        rpcbind_port: 111,
        in_flight_max: 4096,
        connections_max: 64,
        seed: 7,
    }
}

/// How a client treats a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Living,
    Dead,
    Garbage,
    WrongXid,
    WrongSource,
    Unregistered,
    Refuses,
}

/// The notifications that a client got, and its answer.
#[derive(Debug, Default, Clone)]
struct Told(Vec<(String, StateNumber)>);

fn answer(habit: Habit, to: SocketAddr, payload: &[u8], told: &mut Told) -> Option<(SocketAddr, Vec<u8>)> {
    let call = Call::decode(payload).expect("a call");
    let result = match call.prog {
        rpcbind::PROGRAM => {
            assert_eq!(to.port(), 111);
            rpcbind::encode_getport_result((habit != Habit::Unregistered).then_some(NSM_PORT))
        }
        sm::PROGRAM => {
            assert_eq!(to.port(), NSM_PORT);
            let notify = sm::Notify::decode(call.args).unwrap();
            told.0.push((notify.mon_name.to_owned(), notify.state));
            Vec::new()
        }
        other => panic!("a call of program {other}"),
    };
    match habit {
        Habit::Dead => None,
        Habit::Living | Habit::Unregistered => Some((to, encode_success(call.xid, &result))),
        Habit::Garbage => Some((to, [&call.xid.to_be_bytes()[..], &[0, 0, 0, 1, 9, 9]].concat())),
        Habit::WrongXid => Some((to, encode_success(call.xid.wrapping_add(1), &result))),
        Habit::WrongSource => {
            Some((SocketAddr::new(address(65_000), to.port()), encode_success(call.xid, &result)))
        }
        Habit::Refuses => Some((to, encode_error(call.xid, &ReplyError::ProgUnavailable))),
    }
}

/// Runs a notifier against clients of these habits until `end`, over a network that loses, doubles, delays and so reorders.
/// Where `noisy`, every call also brings what a third party may send.
struct Network {
    notifier: Notifier,
    habits: Vec<Habit>,
    told: Vec<Told>,
    random: u64,
    loss_percent: u64,
    late_percent: u64,
    noisy: bool,
    acknowledged: BTreeMap<MonName, Moment>,
    sent: usize,
}

impl Network {
    fn new(habits: &[Habit], loss_percent: u64, seed: u64) -> Self {
        let clients = u32::try_from(habits.len()).unwrap();
        Self {
            notifier: Notifier::new(Plan { seed, ..plan(clients) }),
            habits: habits.to_vec(),
            told: vec![Told::default(); habits.len()],
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            loss_percent,
            late_percent: 5,
            noisy: false,
            acknowledged: BTreeMap::new(),
            sent: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// Good answers from hosts that were not asked, or to what was not asked, and garbage from hosts that were.
    fn noise(&mut self, transmit: &Transmit) -> Vec<(SocketAddr, Vec<u8>)> {
        let Transmit { to, payload, .. } = transmit;
        let (other_host, other_port) =
            (SocketAddr::new(address(65_000), to.port()), SocketAddr::new(to.ip(), 9));
        let good = |xid: u32| encode_success(xid, &rpcbind::encode_getport_result(Some(9)));
        let xid = u32::from_be_bytes(*payload.first_chunk().unwrap());
        let guessed = xid.wrapping_add(1 + u32::try_from(self.draw(1_000)).unwrap());
        let cut = usize::try_from(self.draw(20)).unwrap();
        vec![
            (other_host, good(xid)),
            (other_port, good(xid)),
            (*to, good(guessed)),
            (*to, good(xid)[..cut].to_vec()),
            (*to, payload.clone()),
        ]
    }

    fn run(&mut self, end: Moment) {
        let mut flying: BTreeMap<(Moment, usize), (SocketAddr, Vec<u8>)> = BTreeMap::new();
        let mut now = Moment::START;
        while now < end && !self.notifier.is_done() {
            while let Some(transmit) = self.notifier.poll_transmit(now) {
                if transmit.transport == TCP {
                    self.notifier.handle_failure(transmit.xid, "refused".into());
                    continue;
                }
                self.sent += 1;
                let IpAddr::V4(ip) = transmit.to.ip() else { panic!() };
                let client = usize::try_from(u32::from(ip) - 0x7f4d_0000).unwrap();
                if self.noisy {
                    let delay = Duration::from_millis(self.draw(5));
                    for (at, noise) in self.noise(&transmit).into_iter().enumerate() {
                        flying.insert((now + delay, usize::MAX - self.sent * 8 - at), noise);
                    }
                }
                if self.draw(100) < self.loss_percent {
                    continue;
                }
                let Some((from, bytes)) =
                    answer(self.habits[client], transmit.to, &transmit.payload, &mut self.told[client])
                else {
                    continue;
                };
                for _ in 0..=u64::from(self.draw(100) < 5) {
                    if self.draw(100) >= self.loss_percent {
                        let slowest = if self.draw(100) < self.late_percent { 700 } else { 3 };
                        let delay = Duration::from_millis(self.draw(slowest));
                        flying.insert((now + delay, self.sent * 2 + flying.len() % 2), (from, bytes.clone()));
                    }
                }
            }
            let arrival = flying.keys().next().map(|(when, _)| *when);
            let Some(next) = arrival.into_iter().chain(self.notifier.next_timeout()).min() else { return };
            now = next.max(now);
            while let Some(entry) = flying.first_entry().filter(|entry| entry.key().0 <= now) {
                let (from, bytes) = entry.remove();
                self.notifier.handle_reply(now, UDP, from, &bytes);
            }
            while let Some(event) = self.notifier.poll_event() {
                if let Event::Acknowledged(client) = event {
                    assert!(self.acknowledged.insert(client, now).is_none(), "acknowledged twice");
                }
            }
        }
    }
}

#[test]
fn a_living_client_is_told_under_every_name_in_order_and_once() {
    let mut network = Network::new(&[Habit::Living], 0, 1);
    network.run(at(1_000));
    assert!(network.notifier.is_done());
    assert_eq!(network.told[0].0, [("nfs.example.test".to_owned(), STATE), ("nfs".to_owned(), STATE)]);
    assert_eq!(network.sent, 3);
}

#[test]
fn all_clients_are_tried_once_each_has_answered_or_had_its_first_round_and_the_silent_ones_are_called_on() {
    for habit in [Habit::Dead, Habit::Garbage, Habit::Unregistered, Habit::Refuses] {
        let nowhere = (MonName::parse("nowhere").unwrap(), Vec::new());
        let others = [1, 2, 3, 4].map(|client| address(client).into()).to_vec();
        let clients = vec![(key(0), vec![address(0).into()]), (key(1), others), nowhere];
        let mut notifier = Notifier::new(Plan { clients, ..plan(0) });
        let (mut now, mut told, mut calls) = (Moment::START, Told::default(), BTreeMap::new());
        while !notifier.has_tried_all_with_a_route() {
            while let Some(transmit) = notifier.poll_transmit(now) {
                *calls.entry(transmit.to.ip()).or_insert(0) += 1;
                if transmit.transport == TCP {
                    notifier.handle_failure(transmit.xid, "no program listens".into());
                } else if let Some((from, bytes)) = answer(habit, transmit.to, &transmit.payload, &mut told) {
                    notifier.handle_reply(now, UDP, from, &bytes);
                }
            }
            now = notifier.next_timeout().expect("it goes on asking").max(now + Duration::from_millis(1));
        }
        assert!(calls[&address(0)] >= limits::NOTIFY_ROUND_CALLS, "{habit:?}: {calls:?}");
        assert!(habit != Habit::Dead || calls.len() == 5, "each address was tried: {calls:?}");
        assert!(now < at(12_000), "{habit:?}: not after the whole of a grace period: {now:?}");
        assert!(!notifier.has_tried_all(), "to one of them there is no route");
        assert!(!notifier.is_done() && notifier.next_timeout().is_some());
    }
    let mut network = Network::new(&[Habit::Living, Habit::Living], 0, 1);
    assert!(!network.notifier.has_tried_all());
    network.run(at(1_000));
    assert!(network.notifier.is_done() && network.notifier.has_tried_all());
    assert!(Notifier::new(plan(0)).has_tried_all(), "there is no client to tell");
}

#[test]
fn a_client_that_does_not_answer_as_asked_is_not_acknowledged_and_the_reason_is_known() {
    let habits = [
        Habit::Dead,
        Habit::Garbage,
        Habit::WrongXid,
        Habit::WrongSource,
        Habit::Unregistered,
        Habit::Refuses,
        Habit::Living,
    ];
    let mut network = Network::new(&habits, 0, 1);
    network.run(at(8_000));
    assert_eq!(network.acknowledged.keys().collect::<Vec<_>>(), [&key(6)]);
    let left = network.notifier.stop("");
    let why = |client: u32| left.iter().find(|(k, ..)| *k == key(client)).unwrap().2.clone();
    assert!(left.iter().all(|(_, outcome, _)| *outcome == Outcome::Unreachable));
    assert!(why(0).starts_with("it does not answer ("), "{}", why(0));
    assert!(why(1).contains("accept status") || why(1).contains("reply"), "{}", why(1));
    assert!(why(2).starts_with("it does not answer ("), "{}", why(2));
    assert!(why(3).contains("which was not asked"), "{}", why(3));
    assert!(why(4).contains("no status monitor is registered"), "{}", why(4));
    assert!(why(5).contains("refused the call"), "{}", why(5));
}

/// Each kind of bad answer by itself: the notifier says at once what came, goes on asking, and reports the client in the end.
mod bad_answers {
    use super::*;

    /// The reports on a client of this habit while it is called, and in the end.
    fn said_of(habit: Habit) -> (Vec<String>, Outcome, String) {
        let mut notifier = Notifier::new(plan(1));
        let (mut now, mut told, mut said) = (Moment::START, Told::default(), Vec::new());
        while now < at(10_000) {
            while let Some(transmit) = notifier.poll_transmit(now) {
                if transmit.transport == TCP {
                    notifier.handle_failure(transmit.xid, "refused".into());
                } else if let Some((from, bytes)) = answer(habit, transmit.to, &transmit.payload, &mut told) {
                    notifier.handle_reply(now, UDP, from, &bytes);
                }
            }
            while let Some(event) = notifier.poll_event() {
                match event {
                    Event::Strange(client, why) => {
                        assert_eq!(client, key(0));
                        said.push(why);
                    }
                    Event::Acknowledged(client) => panic!("{client} did not answer as it should"),
                }
            }
            now = notifier.next_timeout().expect("it goes on asking");
        }
        assert!(told.0.is_empty(), "{told:?}");
        match <[_; 1]>::try_from(notifier.stop("")) {
            Ok([(_, outcome, why)]) => (said, outcome, why),
            Err(left) => panic!("{left:?}"),
        }
    }

    #[test]
    fn a_client_that_answers_garbage() {
        let (said, outcome, why) = said_of(Habit::Garbage);
        let garbage = "reply status: expected 4 more bytes, found 2";
        assert_eq!((said, outcome, why.as_str()), (vec![garbage.to_owned()], Outcome::Unreachable, garbage));
    }

    #[test]
    fn a_client_that_answers_with_a_wrong_xid() {
        let (said, outcome, why) = said_of(Habit::WrongXid);
        assert_eq!(
            (said, outcome),
            (Vec::new(), Outcome::Unreachable),
            "the answer can't be matched to a call"
        );
        assert_eq!(why, "it does not answer (6 calls); over TCP: refused");
    }

    #[test]
    fn a_client_that_answers_from_a_wrong_address() {
        let (said, outcome, why) = said_of(Habit::WrongSource);
        let wrong = format!("an answer came from {}:111, which was not asked", address(65_000));
        assert_eq!(
            (said, outcome, why.as_str()),
            (vec![wrong.clone()], Outcome::Unreachable, wrong.as_str())
        );
    }

    #[test]
    fn a_client_that_never_answers() {
        let (said, outcome, why) = said_of(Habit::Dead);
        assert_eq!((said, outcome), (Vec::new(), Outcome::Unreachable));
        assert_eq!(why, "it does not answer (6 calls); over TCP: refused");
    }

    #[test]
    fn a_client_without_a_status_monitor() {
        let (said, outcome, why) = said_of(Habit::Unregistered);
        let none = "its rpcbind answers, but no status monitor is registered there";
        assert_eq!((said, outcome, why.as_str()), (vec![none.to_owned()], Outcome::Unreachable, none));
    }

    #[test]
    fn a_client_that_refuses_the_call() {
        let (said, outcome, why) = said_of(Habit::Refuses);
        let refused = "it refused the call: the program is not served there";
        assert_eq!((said, outcome, why.as_str()), (vec![refused.to_owned()], Outcome::Unreachable, refused));
    }
}

#[test]
fn dead_clients_cost_the_living_ones_nothing() {
    let dead_first: Vec<Habit> =
        (0..6_000).map(|i| if i < 5_000 { Habit::Dead } else { Habit::Living }).collect();
    let mut network = Network::new(&dead_first, 0, 3);
    network.late_percent = 0;
    network.run(at(10_000));
    assert_eq!(network.acknowledged.len(), 1_000);
    let last = network.acknowledged.values().max().unwrap();
    // 5,000 dead fill the window five times, for 50 ms each.
    assert!(*last < at(300), "the last living client was told at {last:?}");
}

#[test]
fn a_client_that_is_slower_than_the_first_waits_is_told_all_the_same() {
    let mut notifier = Notifier::new(plan(1));
    let (mut now, mut told) = (Moment::START, Told::default());
    let mut flying: VecDeque<(Moment, SocketAddr, Vec<u8>)> = VecDeque::new();
    while !notifier.is_done() && now < at(60_000) {
        while let Some(transmit) = notifier.poll_transmit(now) {
            if transmit.transport == TCP {
                notifier.handle_failure(transmit.xid, "refused".into());
                continue;
            }
            let (from, bytes) = answer(Habit::Living, transmit.to, &transmit.payload, &mut told).unwrap();
            flying.push_back((now + Duration::from_millis(1_900), from, bytes));
        }
        let next = flying.front().map(|f| f.0).into_iter().chain(notifier.next_timeout()).min().unwrap();
        now = next;
        while let Some((_, from, bytes)) = flying.pop_front_if(|f| f.0 <= now) {
            notifier.handle_reply(now, UDP, from, &bytes);
        }
    }
    assert!(notifier.is_done() && now < at(20_000), "{now:?}");
}

#[test]
fn a_client_that_was_not_called_is_lost_and_not_unreachable() {
    let left = Notifier::new(plan(2)).stop("");
    assert!(left.iter().all(|(_, outcome, _)| *outcome == Outcome::Lost), "{left:?}");
}

#[test]
fn a_client_without_an_address_is_named_and_holds_no_other_up() {
    let mut network = Network::new(&[Habit::Living; 3], 0, 1);
    network.late_percent = 0;
    let without = MonName::parse("client7").unwrap();
    let mut plan = plan(3);
    plan.clients.insert(1, (without.clone(), Vec::new()));
    network.notifier = Notifier::new(plan);
    network.run(at(5_000));
    let told: Vec<&MonName> = network.acknowledged.keys().collect();
    assert_eq!(told, [&key(0), &key(1), &key(2)], "the clients before it and after it");
    assert!(network.acknowledged.values().all(|when| *when < at(400)), "no client waited for a retry");
    assert_eq!(network.sent, 9, "nothing was sent in vain");
    let left = network.notifier.stop("");
    assert!(
        matches!(left.as_slice(), [(client, _, why)] if *client == without && why.contains("no numeric address"))
    );
}

#[test]
fn the_next_address_is_tried_at_once_when_one_does_not_answer() {
    let mut plan = plan(1);
    plan.clients = vec![(key(0), vec![address(8).into(), address(9).into()])];
    let mut notifier = Notifier::new(plan);
    let first = notifier.poll_transmit(Moment::START).unwrap();
    let (second, now) = next_over(&mut notifier, UDP);
    assert_eq!((first.to.ip(), second.to.ip()), (address(8), address(9)));
    assert!(now < at(600), "{now:?}");
    // The first answers late: it counts, and is told where it answered.
    answer_port(&mut notifier, now, &first, UDP, Some(NSM_PORT));
    assert_eq!(notifier.poll_transmit(now).unwrap().to, SocketAddr::new(address(8), NSM_PORT));
}

/// The next message over this transport, and when it leaves. Others come to nothing.
fn next_over(notifier: &mut Notifier, transport: Transport) -> (Transmit, Moment) {
    let mut now = Moment::START;
    loop {
        match notifier.poll_transmit(now) {
            Some(transmit) if transmit.transport == transport => return (transmit, now),
            Some(transmit) => notifier.handle_failure(transmit.xid, "refused".into()),
            None => now = notifier.next_timeout().expect("it goes on asking"),
        }
    }
}

/// Answers a question for a port.
fn answer_port(notifier: &mut Notifier, now: Moment, asked: &Transmit, over: Transport, port: Option<u16>) {
    let call = Call::decode(&asked.payload).unwrap();
    let result = match asked.to {
        SocketAddr::V4(_) => rpcbind::encode_getport_result(port),
        SocketAddr::V6(to) => {
            rpcbind::encode_getaddr_result(port.map(|port| SocketAddr::new((*to.ip()).into(), port)))
        }
    };
    notifier.handle_reply(now, over, asked.to, &encode_success(call.xid, &result));
}

/// For which transport rpcbind version 2 is asked.
fn asks_for(asked: &Transmit) -> u32 {
    rpcbind::decode_getport_args(Call::decode(&asked.payload).unwrap().args).unwrap().protocol
}

#[test]
fn where_rpcbind_knows_only_tcp_the_client_is_told_over_tcp() {
    let mut notifier = Notifier::new(plan(1));
    let now = Moment::START;
    let asked = notifier.poll_transmit(now).unwrap();
    assert_eq!((asked.transport, asks_for(&asked)), (UDP, 17));
    answer_port(&mut notifier, now, &asked, UDP, None);
    let asked = notifier.poll_transmit(now).unwrap();
    assert_eq!((asked.transport, asks_for(&asked)), (UDP, 6));
    answer_port(&mut notifier, now, &asked, UDP, Some(NSM_PORT));
    for name in ["nfs.example.test", "nfs"] {
        let told = notifier.poll_transmit(now).unwrap();
        let call = Call::decode(&told.payload).unwrap();
        assert_eq!((told.transport, told.to.port()), (TCP, NSM_PORT));
        assert_eq!(sm::Notify::decode(call.args).unwrap().mon_name, name);
        // The same bytes over the other transport are no answer.
        notifier.handle_reply(now, UDP, told.to, &encode_success(call.xid, &[]));
        assert_eq!(notifier.poll_transmit(now), None);
        notifier.handle_reply(now, TCP, told.to, &encode_success(call.xid, &[]));
    }
    assert!(notifier.is_done());
}

#[test]
fn over_ipv6_rpcbind_is_asked_over_the_transport_that_is_wanted() {
    let client: IpAddr = "2001:db8::5".parse().unwrap();
    let mut notifier = Notifier::new(Plan {
        clients: vec![(MonName::from_address(client), vec![client.into()])],
        ..plan(0)
    });
    let now = Moment::START;
    let asked = notifier.poll_transmit(now).unwrap();
    answer_port(&mut notifier, now, &asked, UDP, None);
    let asked = notifier.poll_transmit(now).unwrap();
    let netid =
        rpcbind::decode_getaddr_args(Call::decode(&asked.payload).unwrap().args).unwrap().netid.to_owned();
    assert_eq!((asked.transport, netid.as_str()), (TCP, "tcp6"));
    answer_port(&mut notifier, now, &asked, TCP, Some(700));
    let told = notifier.poll_transmit(now).unwrap();
    assert_eq!((told.transport, told.to), (TCP, SocketAddr::new(client, 700)));
}

/// Has every client named over TCP alone.
fn all_over_tcp(clients: u32) -> Notifier {
    let mut notifier = Notifier::new(plan(clients));
    for port in [None, Some(NSM_PORT)] {
        let asked: Vec<_> = std::iter::from_fn(|| notifier.poll_transmit(Moment::START)).collect();
        assert_eq!(asked.len(), usize::try_from(clients).unwrap());
        asked.iter().for_each(|asked| answer_port(&mut notifier, Moment::START, asked, UDP, port));
    }
    notifier
}

#[test]
fn connections_are_few_and_those_that_fail_make_room_for_others() {
    let mut notifier = all_over_tcp(200);
    let now = Moment::START;
    let open: Vec<_> = std::iter::from_fn(|| notifier.poll_transmit(now)).collect();
    assert_eq!(open.len(), 64);
    for (count, one) in open.iter().enumerate() {
        notifier.handle_failure(one.xid, "refused".into());
        let next = notifier.poll_transmit(now).expect("another client's turn");
        assert!(open.iter().all(|o| o.to != next.to), "{count}: called again at once");
    }
    assert_eq!(notifier.poll_transmit(now), None);
    // A silent client makes room when its wait is over.
    let now = at(5_000);
    let later = std::iter::from_fn(|| notifier.poll_transmit(now)).count();
    assert_eq!(later, 64);
    let left = notifier.stop("");
    assert!(left.iter().any(|(_, _, why)| why == "refused"), "{left:?}");
}

#[test]
fn no_more_calls_are_out_than_the_socket_holds_answers_and_answers_open_the_window() {
    let mut small = Notifier::new(Plan { in_flight_max: 100, ..plan(300) });
    assert_eq!(std::iter::from_fn(|| small.poll_transmit(Moment::START)).count(), 100);
    assert_eq!(small.next_timeout(), Some(Moment::START + limits::NOTIFY_BURST));

    let mut large = Notifier::new(plan(5_000));
    let first: Vec<_> = std::iter::from_fn(|| large.poll_transmit(Moment::START)).collect();
    assert_eq!(first.len(), limits::NOTIFY_IN_FLIGHT_AT_FIRST);
    first.iter().for_each(|asked| answer_port(&mut large, Moment::START, asked, UDP, Some(NSM_PORT)));
    let second = std::iter::from_fn(|| large.poll_transmit(Moment::START)).count();
    assert_eq!(second, 2 * limits::NOTIFY_IN_FLIGHT_AT_FIRST);
}

#[test]
fn dead_clients_are_called_again_at_a_bounded_rate() {
    let mut network = Network::new(&vec![Habit::Dead; 20_000], 0, 5);
    network.run(at(10_000));
    // 20,000 first calls, and then 5,000 a second.
    assert!(network.sent > 20_000 + 30_000, "{}", network.sent);
    assert!(network.sent < 20_000 + 51_000, "{}", network.sent);
}

#[test]
fn a_client_whose_name_is_resolved_late_is_told_then() {
    let mut plan = plan(0);
    let name = MonName::parse("client7.example.test").unwrap();
    plan.clients = vec![(name.clone(), Vec::new())];
    let mut notifier = Notifier::new(plan);
    assert_eq!(notifier.poll_transmit(Moment::START), None);
    notifier.add_addresses(&name, &[address(7).into()]);
    notifier.add_addresses(&name, &[address(7).into()]);
    assert_eq!(notifier.poll_transmit(at(10)).unwrap().to.ip(), address(7));
    assert_eq!(notifier.poll_transmit(at(10)), None);
}

#[test]
fn ipv6_clients_are_asked_by_rpcbind_version_4() {
    let mut plan = plan(0);
    let client: IpAddr = "2001:db8::5".parse().unwrap();
    plan.clients = vec![(MonName::from_address(client), vec![client.into()])];
    let mut notifier = Notifier::new(plan);
    let asked = notifier.poll_transmit(Moment::START).unwrap();
    let call = Call::decode(&asked.payload).unwrap();
    assert_eq!((call.vers, rpcbind::decode_getaddr_args(call.args).unwrap().netid), (4, "udp6"));
    let at = SocketAddr::new(client, 700);
    notifier.handle_reply(
        Moment::START,
        UDP,
        asked.to,
        &encode_success(call.xid, &rpcbind::encode_getaddr_result(Some(at))),
    );
    assert_eq!(notifier.poll_transmit(Moment::START).unwrap().to, at);
}

mod announcing;
mod drill;
mod transports;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn on_a_lossy_network_every_living_client_is_told_and_no_other(
        seed in any::<u64>(), loss in 0_u64..35, living in proptest::collection::vec(any::<bool>(), 1..200),
    ) {
        let habits: Vec<Habit> = living.iter().map(|l| if *l { Habit::Living } else { Habit::Dead }).collect();
        let mut network = Network::new(&habits, loss, seed);
        // At so much loss a client may miss every call of some minutes.
        network.run(at(900_000));
        for (client, lives) in (0_u32..).zip(&living) {
            prop_assert_eq!(network.acknowledged.contains_key(&key(client)), *lives);
            if *lives {
                let told = &network.told[usize::try_from(client).unwrap()].0;
                prop_assert!(told.iter().all(|(_, state)| *state == STATE));
                let names: BTreeSet<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
                prop_assert_eq!(names.len(), 2);
            }
        }
    }

    #[test]
    fn whatever_others_send_each_client_has_one_outcome_and_it_is_the_right_one(
        seed in any::<u64>(), loss in 0_u64..25,
        habits in proptest::collection::vec(
            prop_oneof![
                4 => Just(Habit::Living), 1 => Just(Habit::Dead), 1 => Just(Habit::Garbage), 1 => Just(Habit::WrongXid),
                1 => Just(Habit::WrongSource), 1 => Just(Habit::Unregistered), 1 => Just(Habit::Refuses),
            ],
            1..60,
        ),
    ) {
        let mut network = Network::new(&habits, loss, seed);
        network.noisy = true;
        network.run(at(120_000));
        let left: BTreeMap<_, _> =
            network.notifier.stop("").into_iter().map(|(client, outcome, why)| (client, (outcome, why))).collect();
        for (client, habit) in (0_u32..).zip(&habits) {
            let key = key(client);
            let told = &network.told[usize::try_from(client).unwrap()].0;
            prop_assert!(told.iter().all(|(_, state)| *state == STATE));
            prop_assert_eq!(network.acknowledged.contains_key(&key), *habit == Habit::Living, "{}: {:?}", key, habit);
            match (habit, left.get(&key)) {
                (Habit::Living, None) => prop_assert_eq!(told.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), 2),
                (Habit::Living, Some(left)) => prop_assert!(false, "{} lives: {:?}", key, left),
                (_, Some((outcome, why))) => {
                    prop_assert_eq!(*outcome, Outcome::Unreachable);
                    prop_assert!(!why.is_empty());
                }
                (_, None) => prop_assert!(false, "{} has no outcome", key),
            }
        }
    }

    #[test]
    fn no_datagram_upsets_the_notifier(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut notifier = Notifier::new(plan(3));
        let asked = notifier.poll_transmit(Moment::START).unwrap();
        notifier.handle_reply(Moment::START, UDP, asked.to, &bytes);
        let with_xid = [&asked.payload[..4], &[0, 0, 0, 1], &bytes[..]].concat();
        notifier.handle_reply(Moment::START, UDP, asked.to, &with_xid);
        let _ = notifier.stop("");
    }
}
