use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::testing::{Told, status};

/// An exporter on a free port, until the tests end.
fn begin(source: Arc<dyn Source>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || serve(listener, source));
    address
}

/// Says these words, and returns all that is answered.
fn say(address: SocketAddr, words: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(words.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: SocketAddr, path: &str) -> String {
    say(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

#[test]
fn metrics_are_served_and_tell_whether_the_agent_answers() {
    let told = Arc::new(Told::new(Ok(status())));
    let address = begin(told.clone());
    let answer = get(address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(
        answer.contains("\nheirlock_up 1\n")
            && answer.contains("\nheirlock_service_clients{service=\"homes\"} 200\n")
    );
    *told.0.lock().unwrap() = Err("no agent answers".into());
    while !get(address, "/metrics").contains("\nheirlock_up 0\n") {
        std::thread::sleep(ANSWER_AGE_MAX);
    }
}

#[test]
fn only_what_is_there_can_be_asked_for() {
    let address = begin(Arc::new(Told::new(Ok(status()))));
    assert!(get(address, "/etc/passwd").starts_with("HTTP/1.1 404 "));
    let posted =
        say(address, &format!("POST /metrics HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"));
    assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD\r\n"), "{posted}");
    let head = say(address, &format!("HEAD /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let long =
        say(address, &format!("GET /{} HTTP/1.1\r\nHost: {address}\r\n\r\n", "x".repeat(REQUEST_BYTES_MAX)));
    assert!(long.starts_with("HTTP/1.1 431 ") || long.starts_with("HTTP/1.1 414 "), "{long}");
}

#[test]
fn on_loopback_another_sites_name_is_refused() {
    let address = begin(Arc::new(Told::new(Ok(status()))));
    let of = |host: &str| say(address, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for host in ["localhost", "LocalHost:9842", "127.0.0.1:9842", "[::1]:9842", "[::1]", "192.0.2.1"] {
        assert!(of(host).starts_with("HTTP/1.1 200 "), "{host}: {}", of(host));
    }
    for host in ["evil.example", "evil.example:9842", "localhost.evil.example", ""] {
        assert!(of(host).starts_with("HTTP/1.1 421 "), "{host}: {}", of(host));
    }
}

#[test]
fn clients_that_say_nothing_make_others_wait_and_not_for_ever() {
    let address = begin(Arc::new(Told::new(Ok(status()))));
    let silent: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(address).unwrap()).collect();
    // It is answered when the first of them has had its time.
    let answer = get(address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let waited =
        answer.lines().find_map(|line| line.strip_prefix("heirlock_exporter_connections_delayed_total "));
    assert!(waited.unwrap().parse::<u64>().unwrap() > 0, "{answer}");
    drop(silent);
}
