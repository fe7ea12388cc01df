//! The decisions on foreign bytes: the notifier's on datagrams, and the ledger's on a scan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{
    Addresses, Folder, Ledger, Problem, Roles, Scan, ScannedFile, population as clients_of,
};
use heirlock_core::notify::{Event, Notifier, Plan, Transmit, Words};
use heirlock_core::store::RecordChange;
use heirlock_core::{Moment, Records};
use heirlock_nsm::record::parse_record;
use heirlock_nsm::rpc::{Call, encode_success};
use heirlock_nsm::{MonName, MyName, StateNumber, rpcbind, sm};

/// Datagrams that come while three clients are told. The input is a list of steps, each a byte that says what comes, a byte
/// for its length or the time that passes, and its bytes.
pub fn notifier(bytes: &[u8]) {
    let addresses: [IpAddr; 3] =
        [[127, 0, 0, 1].into(), [127, 0, 0, 2].into(), "2001:db8::3".parse().expect("one")];
    let clients: Vec<_> = addresses.iter().map(|a| (MonName::from_address(*a), vec![(*a).into()])).collect();
    let names: Vec<_> =
        ["nfs.example.test", "nfs"].iter().map(|n| MyName::parse(n).expect("a name")).collect();
    let state = StateNumber(13);
    let plan = Plan {
        words: Words::Restart { names, state },
        clients: clients.clone(),
        sources: vec![[127, 0, 0, 9].into(), "2001:db8::9".parse().expect("one")],
        rpcbind_port: 111,
        in_flight_max: 64,
        connections_max: 2,
        seed: 7,
    };
    let (mut notifier, mut now) = (Notifier::new(plan), Moment::START);
    let (mut calls, mut acknowledged): (Vec<Transmit>, _) = (Vec::new(), BTreeSet::new());
    let mut rest = bytes;
    while let [what, length, more @ ..] = rest {
        while let Some(transmit) = notifier.poll_transmit(now) {
            let call = Call::decode(&transmit.payload).expect("it sends calls");
            assert!(addresses.contains(&transmit.to.ip()) && transmit.to.port() != 0, "{}", transmit.to);
            if call.prog == sm::PROGRAM {
                assert_eq!(sm::Notify::decode(call.args).map(|notify| notify.state), Ok(state));
            }
            calls.push(transmit);
        }
        let (came, later) = more.split_at(more.len().min(usize::from(*length)));
        rest = if what & 7 == 0 { more } else { later };
        let Transmit { to: from, transport, xid: number, payload: call, .. } =
            &calls[usize::from(what >> 3) % calls.len()];
        let xid = &call[..4];
        let elsewhere = SocketAddr::new(addresses[0], 9);
        match what & 7 {
            0 => now = now + Duration::from_millis(u64::from(*length) * 16),
            1 => notifier.handle_reply(now, *transport, *from, came),
            2 => notifier.handle_reply(now, *transport, *from, &[xid, &[0, 0, 0, 1], came].concat()),
            3 => notifier.handle_reply(now, *transport, elsewhere, &[xid, &[0, 0, 0, 1], came].concat()),
            4 => {
                notifier.handle_reply(now, *transport, *from, &[xid, &[0; 3], &[1], &[0; 16], came].concat());
            }
            5 if *length % 2 == 0 => notifier.handle_failure(*number, "refused".into()),
            5 => notifier.handle_reply(now, *transport, elsewhere, &good_answer(*from, call)),
            _ => notifier.handle_reply(now, *transport, *from, &good_answer(*from, call)),
        }
        while let Some(event) = notifier.poll_event() {
            if let Event::Acknowledged(client) = event {
                assert!(acknowledged.insert(client), "a client acknowledged twice");
            }
        }
    }
    assert_eq!(notifier.is_done(), acknowledged.len() == clients.len());
    let left: BTreeSet<MonName> = notifier.stop("").into_iter().map(|(client, ..)| client).collect();
    assert!(left.is_disjoint(&acknowledged));
    assert_eq!(left.len() + acknowledged.len(), clients.len(), "a client has no outcome");
}

fn good_answer(from: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let call = Call::decode(bytes).expect("a call");
    let result = match (call.prog, from) {
        (rpcbind::PROGRAM, SocketAddr::V4(_)) => rpcbind::encode_getport_result(Some(700)),
        (rpcbind::PROGRAM, _) => rpcbind::encode_getaddr_result(Some(SocketAddr::new(from.ip(), 700))),
        _ => Vec::new(),
    };
    encode_success(call.xid, &result)
}

/// A status monitor's directory. The input is a list of files, each ended by a NUL: a byte that says what it is, its name
/// up to a newline, its bytes.
pub fn population(bytes: &[u8]) {
    let (mut scan, mut conveyed, mut addresses) = (Scan::default(), BTreeMap::new(), Addresses::new());
    for file in bytes.split(|b| *b == 0) {
        let Some((what, file)) = file.split_first() else { continue };
        let (name, bytes) =
            file.split_at(file.iter().position(|b| *b == b'\n').map_or(file.len(), |at| at + 1));
        let name = String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(name));
        let folder = if what & 1 == 0 { Folder::Sm } else { Folder::SmBak };
        match (what % 8, MonName::parse(&name)) {
            (0..4, Ok(name)) => scan.files.push(ScannedFile { folder, name, bytes: bytes.into() }),
            (4 | 5, Ok(name)) => drop(conveyed.insert(name, bytes.to_vec())),
            (6, Ok(name)) => drop(addresses.insert(name, vec![IpAddr::from([10, 0, 0, *what])])),
            (_, _) => {
                scan.problems.push(Problem {
                    path: format!("sm/{name}"),
                    why: "odd".into(),
                    may_be_in_the_making: false,
                });
            }
        }
    }
    let found = clients_of(&scan, &conveyed, &addresses);
    no_client_is_lost(&scan, &conveyed, &found.clients);
    let life = Incarnation { boot: "b".into(), start: "1".into(), reopened: 0 };
    let mut ledger = Ledger::new(Records::new(), false, Duration::from_secs(120));
    let entries = ledger.compare(Moment::START, &found, &Roles::default(), Some(&life));
    assert!(entries.iter().all(|entry| matches!(entry, RecordChange::Put(..))), "{entries:?}");
    ledger.committed(&entries);
    // A client with several addresses is stored with a line for each of them.
    let expected: Records =
        found.clients.iter().map(|(key, lines)| (key.clone(), found.record_of(key, lines))).collect();
    assert_eq!(ledger.stored(), &expected, "the store holds the clients that are there");
    assert_eq!(ledger.compare(Moment::START, &found, &Roles::default(), Some(&life)), [], "written twice");
}

/// Every line that can be read, and that we did not place ourselves, is some client's, and there is no other client.
fn no_client_is_lost(scan: &Scan, conveyed: &BTreeMap<MonName, Vec<u8>>, clients: &Records) {
    let lines = |bytes: &[u8]| parse_record(bytes).map(|parsed| parsed.lines).unwrap_or_default();
    let kept: Vec<_> = clients.iter().flat_map(|(_, record)| lines(record)).collect();
    assert!(clients.iter().all(|(_, record)| !lines(record).is_empty()), "a client without a line");
    for file in &scan.files {
        let placed = conveyed.get(&file.name).filter(|_| file.folder == Folder::Sm);
        let placed = placed.map(|bytes| lines(bytes)).unwrap_or_default();
        for line in lines(&file.bytes) {
            assert!(
                placed.contains(&line) || kept.contains(&line),
                "{line:?} of {} is no client's",
                file.name
            );
        }
    }
}
