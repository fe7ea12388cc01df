use std::net::TcpListener;
use std::thread;

use heirlock_nsm::rpc::{Call, encode_success};

use super::*;

const PROGRAM: (u32, u32) = (100_021, 4);
const LIMIT: Duration = Duration::from_secs(20);

/// rpcbind's answer: the program is at port 700 over UDP and 701 over TCP.
fn answer(call: &[u8], from_v6: Option<u16>) -> Vec<u8> {
    let call = Call::decode(call).unwrap();
    let result = match (call.proc_, call.vers) {
        (0, _) => Vec::new(),
        (_, rpcbind::VERSION_2) => {
            let udp = rpcbind::decode_getport_args(call.args).unwrap().protocol == 17;
            rpcbind::encode_getport_result(Some(if udp { 700 } else { 701 }))
        }
        _ => {
            let at = from_v6.map(|port| SocketAddr::new("::1".parse().unwrap(), port));
            rpcbind::encode_getaddr_result(at)
        }
    };
    encode_success(call.xid, &result)
}

fn over_tcp(at: IpAddr) -> u16 {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut deframer, mut buffer) = (Deframer::new(), [0; 512]);
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                deframer.push(&buffer[..count]);
                if let Some(call) = deframer.next_record().unwrap() {
                    stream.write_all(&frame(&answer(&call, Some(701)))).unwrap();
                }
            }
        }
    });
    port
}

/// Answers over UDP, or takes calls in and says nothing, as a firewall does.
fn over_udp(at: IpAddr, port: u16, answers: bool) -> u16 {
    let socket = UdpSocket::bind((at, port)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            if answers {
                socket.send_to(&answer(&buffer[..count], Some(700)), from).unwrap();
            }
        }
    });
    port
}

fn local(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() }
}

fn found(at: IpAddr, port: u16) -> Vec<(u16, Transport)> {
    let places = Rpcbind::new(at, port, LIMIT).places(PROGRAM).unwrap();
    places.into_iter().map(|(place, transport)| (place.port(), transport)).collect()
}

#[test]
fn an_rpcbind_that_is_heard_over_tcp_alone_is_asked_over_that_without_waiting_for_udp() {
    for v4 in [true, false] {
        for is_silent in [false, true] {
            let at = local(v4);
            let port = over_tcp(at);
            if is_silent {
                over_udp(at, port, false);
            }
            let began = Instant::now();
            let expected = match v4 {
                true => vec![(700, Transport::Udp), (701, Transport::Tcp)],
                // It speaks of the transport that it is asked over.
                false => vec![(701, Transport::Tcp)],
            };
            assert_eq!(found(at, port), expected, "{at} {is_silent}");
            assert_eq!(find_over(at, port, PROGRAM, Transport::Tcp, LIMIT), Ok(Some(701)));
            assert!(began.elapsed() < LIMIT / 2, "the limit is not waited for: {:?}", began.elapsed());
        }
    }
}

#[test]
fn an_rpcbind_that_is_heard_over_udp_alone_is_asked_over_that() {
    for v4 in [true, false] {
        let port = over_udp(local(v4), 0, true);
        let places = Rpcbind::new(local(v4), port, Duration::from_secs(2)).find(PROGRAM).unwrap();
        assert_eq!(places, (SocketAddr::new(local(v4), 700), Transport::Udp));
    }
}

#[test]
fn where_no_program_listens_that_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let began = Instant::now();
    let why = find(local(true), port, PROGRAM, LIMIT).unwrap_err();
    assert!(
        why.starts_with(&format!("no answer from 127.0.0.1:{port}: ")) && why.contains("refused"),
        "{why}"
    );
    assert!(began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
}

#[test]
fn an_answer_to_another_rpc_call_is_no_answer() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        let (count, from) = socket.recv_from(&mut buffer).unwrap();
        let mut other = answer(&buffer[..count], None);
        other[0] ^= 0xff;
        socket.send_to(&other, from).unwrap();
        socket.send_to(b"garbage", from).unwrap();
        socket.send_to(&answer(&buffer[..count], None), from).unwrap();
    });
    assert_eq!(call_null(to, Transport::Udp, PROGRAM, LIMIT), Ok(()));
}

/// lockd's sockets have rows of their own: behind the requests of many clients over one, a call over the other is answered first.
#[test]
fn a_program_that_is_silent_over_one_transport_is_heard_over_the_other() {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let at = |port| SocketAddr::new(here, port);
    let null = encode_call(7, PROGRAM.0, PROGRAM.1, 0, &Credential::None, &[]);
    let (silent, answers) = (over_udp(here, 0, false), over_udp(here, 0, true));
    // A connection is taken in, and nothing more.
    let taken_in = TcpListener::bind((here, 0)).unwrap();
    let mute = taken_in.local_addr().unwrap().port();
    for (udp, tcp) in [(silent, over_tcp(here)), (answers, mute)] {
        let places = [(at(udp), Transport::Udp), (at(tcp), Transport::Tcp)];
        assert_eq!(call_any(&places, &null, LIMIT), Ok(Vec::new()));
        assert_eq!(call_any(&[places[1], places[0]], &null, LIMIT), Ok(Vec::new()));
    }
    let why = call_any(
        &[(at(silent), Transport::Udp), (at(mute), Transport::Tcp)],
        &null,
        Duration::from_millis(200),
    );
    assert_eq!(why, Err(format!("no answer from {}: time is up", at(silent))));
}
