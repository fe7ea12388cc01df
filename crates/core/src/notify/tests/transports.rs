//! Clients that are heard over one transport alone, and services of which one address is ready alone.

use super::*;

/// The messages that a client's host lets through: its rpcbind, and its status monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    rpcbind: Transport,
    /// The registrations that rpcbind tells.
    registered: [bool; 2],
    monitor: Transport,
}

const BOTH: [bool; 2] = [true, true];

/// A message that left, and its answer; a connection without one comes to its end.
type Coming = (Transmit, Option<Vec<u8>>);

/// Runs clients that answer after 2 ms, or never, until all living clients are told or `end` has come. Says when the
/// last was told, and how many messages left over UDP and over TCP.
fn run(clients: &[Option<Heard>], connections_max: usize, end: Moment) -> (usize, Moment, [usize; 2]) {
    let count = u32::try_from(clients.len()).unwrap();
    let mut notifier = Notifier::new(Plan { connections_max, ..plan(count) });
    let living = clients.iter().flatten().count();
    let (mut now, mut sent, mut told, mut last) = (Moment::START, [0, 0], 0, Moment::START);
    // An event and its time: an answer, or the end of a connection.
    let mut coming: BTreeMap<(Moment, u32), Coming> = BTreeMap::new();
    let mut open = 0;
    while told < living && now < end {
        while let Some(transmit) = notifier.poll_transmit(now) {
            let is_tcp = transmit.transport == TCP;
            sent[usize::from(is_tcp)] += 1;
            open += usize::from(is_tcp);
            assert!(open <= connections_max, "{open}");
            let IpAddr::V4(ip) = transmit.to.ip() else { panic!() };
            let client = clients[usize::try_from(u32::from(ip) - 0x7f4d_0000).unwrap()];
            let answer = client.and_then(|heard| reply(heard, &transmit));
            let time = if answer.is_some() { Duration::from_millis(2) } else { transmit.time_max };
            if answer.is_some() || is_tcp {
                coming.insert((now + time, transmit.xid), (transmit, answer));
            }
        }
        let next = coming.keys().next().map(|(when, _)| *when).into_iter().chain(notifier.next_timeout());
        now = next.min().expect("something is awaited").max(now);
        while let Some(entry) = coming.first_entry().filter(|entry| entry.key().0 <= now) {
            let (transmit, answer) = entry.remove();
            open -= usize::from(transmit.transport == TCP);
            match answer {
                Some(bytes) => notifier.handle_reply(now, transmit.transport, transmit.to, &bytes),
                None => notifier.handle_failure(transmit.xid, "time is up".into()),
            }
        }
        // A connection for which nothing is awaited any more is closed.
        coming.retain(|_, (transmit, answer)| {
            let stays = answer.is_some() || notifier.is_awaited(transmit.xid);
            open -= usize::from(!stays && transmit.transport == TCP);
            stays
        });
        while let Some(event) = notifier.poll_event() {
            if matches!(event, Event::Acknowledged(_)) {
                told += 1;
                last = now;
            }
        }
    }
    (told, last, sent)
}

fn reply(heard: Heard, transmit: &Transmit) -> Option<Vec<u8>> {
    let call = Call::decode(&transmit.payload).unwrap();
    let result = match call.prog {
        rpcbind::PROGRAM if transmit.transport == heard.rpcbind => {
            let wanted = usize::from(asks_for(transmit) == 6);
            rpcbind::encode_getport_result(heard.registered[wanted].then_some(NSM_PORT))
        }
        sm::PROGRAM if transmit.transport == heard.monitor => Vec::new(),
        _ => return None,
    };
    Some(encode_success(call.xid, &result))
}

#[test]
fn a_client_whose_rpcbind_is_heard_over_tcp_alone_is_told_without_delay() {
    for (registered, monitor) in [(BOTH, TCP), ([false, true], TCP), ([true, false], UDP)] {
        let (told, last, _) = run(&[Some(Heard { rpcbind: TCP, registered, monitor })], 64, at(60_000));
        assert_eq!(told, 1, "{registered:?}");
        assert!(last < at(100), "{registered:?}: {last:?}");
    }
}

#[test]
fn a_status_monitor_that_is_heard_over_the_other_transport_alone_is_told_over_that() {
    // Its rpcbind names both, and a firewall lets one through.
    let over_tcp = Heard { rpcbind: UDP, registered: BOTH, monitor: TCP };
    let (told, last, _) = run(&[Some(over_tcp)], 64, at(60_000));
    assert!(told == 1 && last < at(2_500), "{told} {last:?}");
    let over_udp = Heard { rpcbind: TCP, registered: BOTH, monitor: UDP };
    let (told, last, _) = run(&[Some(over_udp)], 64, at(60_000));
    assert!(told == 1 && last < at(20_000), "{told} {last:?}");
}

#[test]
fn a_client_that_answers_nothing_over_udp_is_asked_over_tcp() {
    let heard = Heard { rpcbind: UDP, registered: BOTH, monitor: UDP };
    let (told, _, [udp, tcp]) = run(&vec![Some(heard); 3_000], 64, at(60_000));
    assert_eq!((told, udp, tcp), (3_000, 9_000, 0));
}

/// Ten thousand clients of which none is heard over UDP, and half are switched off: the others are told in a fraction of
/// the shortest grace period that is used.
#[test]
fn a_crowd_that_is_silent_over_udp_is_told_within_grace_beside_as_many_dead() {
    let heard = Heard { rpcbind: TCP, registered: BOTH, monitor: TCP };
    let clients: Vec<_> = (0..10_000).map(|i| (i % 2 == 0).then_some(heard)).collect();
    let (told, last, _) = run(&clients, limits::NOTIFY_CONNECTIONS_MAX, at(60_000));
    assert_eq!(told, 5_000);
    assert!(last < at(10_000), "{last:?}");
}

#[test]
fn a_connection_whose_answer_came_over_udp_is_of_no_use_any_more() {
    let mut notifier = Notifier::new(plan(1));
    let asked = notifier.poll_transmit(Moment::START).unwrap();
    assert_eq!(notifier.poll_transmit(Moment::START), None);
    let now = Moment::START + limits::NOTIFY_BURST;
    let beside = notifier.poll_transmit(now).unwrap();
    assert_eq!((beside.transport, beside.to, asks_for(&beside)), (TCP, asked.to, 6));
    assert!(notifier.is_awaited(beside.xid));
    answer_port(&mut notifier, now, &asked, UDP, Some(NSM_PORT));
    assert!(!notifier.is_awaited(beside.xid));
    // Nor does its answer count.
    answer_port(&mut notifier, now, &beside, TCP, Some(9));
    assert_eq!(notifier.poll_transmit(now).unwrap().to.port(), NSM_PORT);
}

#[test]
fn a_client_waits_for_an_address_of_its_family_and_the_others_do_not() {
    let v6: IpAddr = "2001:db8::21".parse().unwrap();
    let mut plan = plan(1);
    plan.clients.push((MonName::from_address(v6), vec![v6.into()]));
    plan.sources = vec!["192.0.2.10".parse().unwrap()];
    let mut notifier = Notifier::new(plan);
    let first = notifier.poll_transmit(Moment::START).unwrap();
    assert_eq!((first.from, first.to.ip()), ("192.0.2.10".parse().unwrap(), address(0)));
    assert_eq!(notifier.poll_transmit(Moment::START), None);
    let left = notifier.clients[1].left_over("2001:db8::10 is not there").unwrap();
    let why = "no IPv6 address of the service was ready to tell it from: 2001:db8::10 is not there";
    assert_eq!((left.1, left.2.as_str()), (Outcome::Lost, why));
    let source: IpAddr = "2001:db8::10".parse().unwrap();
    notifier.add_source(source);
    notifier.add_source(source);
    let second = notifier.poll_transmit(Moment::START).unwrap();
    assert_eq!((second.from, second.to.ip()), (source, v6));
    assert_eq!(notifier.poll_transmit(Moment::START), None);
}

#[test]
fn a_client_that_does_not_answer_one_address_of_the_service_is_told_from_the_next() {
    let mut plan = plan(1);
    plan.sources = ["127.0.0.10", "192.0.2.10"].map(|a| a.parse().unwrap()).to_vec();
    let mut notifier = Notifier::new(plan);
    let first = notifier.poll_transmit(Moment::START).unwrap();
    assert_eq!(first.from.to_string(), "127.0.0.10", "it is on that network");
    assert_eq!(next_over(&mut notifier, UDP).0.from.to_string(), "192.0.2.10");
}

#[test]
fn an_address_that_means_all_hosts_or_this_one_is_never_called_and_named() {
    for unusable in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"] {
        let address: IpAddr = unusable.parse().unwrap();
        let mut notifier = Notifier::new(Plan {
            clients: vec![(MonName::parse(unusable).unwrap(), vec![address.into()])],
            ..plan(0)
        });
        assert_eq!(notifier.poll_transmit(Moment::START), None, "{unusable}");
        let left = notifier.stop("");
        assert_eq!(left[0].1, Outcome::Unreachable);
        assert!(left[0].2.starts_with("no client can be told there: it is "), "{left:?}");
    }
}
