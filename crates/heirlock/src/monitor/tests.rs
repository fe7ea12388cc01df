//! The status monitor over real sockets, with a stand-in for the agent, which owns the store.

mod against_statd;

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_core::monitor::{Event, Rules, WhenUnprotected};
use heirlock_nsm::rpc::{Call, Credential, encode_call, frame};
use heirlock_nsm::rpcbind::Transport;
use heirlock_nsm::sm::{self, Downcall, MonArgs, MonId, MyId, Procedure, StatResult};

use super::directory::Directory;
use super::*;
use crate::{fake_programs, rpc_client};

const PATIENCE: Duration = Duration::from_secs(120);

/// A status monitor in a folder of its own.
struct Stand {
    _directory: tempfile::TempDir,
    options: Options,
    port: u16,
    monitor: SharedMonitor,
    commits: Arc<AtomicUsize>,
}

/// How the store behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StoreIs {
    Well,
    Slow,
    Hanging,
}

fn rules() -> Rules {
    Rules { mon_timeout: Duration::from_millis(300), when_unprotected: WhenUnprotected::Refuse }
}

fn stand(store: StoreIs) -> Stand {
    stand_trusting(store, Trust::ANY_PORT)
}

fn stand_trusting(store: StoreIs, trust: Trust) -> Stand {
    let directory = tempfile::tempdir().unwrap();
    for folder in ["nfs/sm", "run"] {
        fs::create_dir_all(directory.path().join(folder)).unwrap();
    }
    let options = Options {
        rules: rules(),
        state_directory: directory.path().join("nfs"),
        runtime_directory: directory.path().join("run"),
        host: Host::here(),
        rpcbind_port: 9,
        rpcbind_socket: directory.path().join("rpcbind.sock"),
        trust,
    };
    start_stand(directory, options, store)
}

fn start_stand(directory: tempfile::TempDir, options: Options, store: StoreIs) -> Stand {
    let sockets = Sockets::bind(0).unwrap();
    let port = sockets.port();
    let commits = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = channel();
    let (monitor, _) =
        serve(&options, options.host.peers(), sockets, |_| Ok(()), Turns::unwatched(), wanted_by(sender))
            .unwrap();
    record(monitor.clone(), options.clone(), receiver, store, Arc::clone(&commits));
    Stand { _directory: directory, options, port, monitor, commits }
}

/// Hands on what the monitor wants.
fn wanted_by(agent: Sender<Wanted>) -> impl Fn(Wanted) + Send + 'static {
    move |wanted| {
        let _ = agent.send(wanted);
    }
}

/// Plays the agent, without a store.
fn record(
    monitor: SharedMonitor,
    options: Options,
    wanted: Receiver<Wanted>,
    store: StoreIs,
    commits: Arc<AtomicUsize>,
) {
    thread::spawn(move || {
        let (mut directory, _) = Directory::open(&Host::here(), &options.state_directory).unwrap();
        for wanted in wanted {
            match wanted {
                Wanted::Commit { batch, .. } => {
                    commits.fetch_add(1, Ordering::SeqCst);
                    match store {
                        StoreIs::Well => {}
                        StoreIs::Slow => thread::sleep(Duration::from_millis(20)),
                        StoreIs::Hanging => continue,
                    }
                    monitor.tell(Event::Committed { batch, durable: true });
                }
                Wanted::Probe => monitor.tell(Event::Probed(store != StoreIs::Hanging)),
                Wanted::Changed(client) => {
                    directory.update(&client, &monitor.lines(&client), &Default::default()).unwrap();
                }
            }
        }
    });
}

fn mon_args<'a>(mon_name: &'a str, my_name: &'a str, cookie: u8) -> MonArgs<'a> {
    let my_id = MyId { my_name, prog: 100_021, vers: 3, proc_: 16 };
    MonArgs { mon_id: MonId { mon_name, my_id }, cookie: [cookie; 16] }
}

fn message(procedure: Procedure, args: &[u8]) -> Vec<u8> {
    encode_call(fastrand::u32(..), sm::PROGRAM, sm::VERSION, procedure as u32, &Credential::None, args)
}

fn ask(port: u16, transport: Transport, procedure: Procedure, args: &[u8]) -> Vec<u8> {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    rpc_client::call(to, transport, &message(procedure, args), PATIENCE).unwrap()
}

fn mon(stand: &Stand, transport: Transport, client: &str) -> bool {
    let args = mon_args(client, "nfs-a", 1).encode();
    StatResult::decode(&ask(stand.port, transport, Procedure::Mon, &args)).unwrap().ok
}

fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < end, "{what} did not come about");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_is_registered_over_both_transports_and_lies_in_the_directory() {
    let stand = stand(StoreIs::Well);
    assert!(mon(&stand, Transport::Udp, "10.0.0.1"));
    assert!(mon(&stand, Transport::Tcp, "10.0.0.2"));
    for client in ["10.0.0.1", "10.0.0.2"] {
        let path = stand.options.state_directory.join("sm").join(client);
        wait_until("the file", || {
            fs::read_to_string(&path).is_ok_and(|text| text.ends_with(&format!(" {client} nfs-a\n")))
        });
    }
    let unmon = mon_args("10.0.0.1", "nfs-a", 1).mon_id.encode();
    let answer = ask(stand.port, Transport::Tcp, Procedure::Unmon, &unmon);
    assert_eq!(sm::decode_state_result(&answer).unwrap(), StateNumber(3), "the first number of a server");
    wait_until("its removal", || !stand.options.state_directory.join("sm/10.0.0.1").exists());
}

#[test]
fn clients_that_register_at_once_share_few_commits_and_known_ones_cost_none() {
    let stand = stand(StoreIs::Slow);
    let round = || {
        let ask_one = |i: usize| mon(&stand, Transport::Tcp, &format!("10.0.1.{i}"));
        thread::scope(|scope| {
            let asked: Vec<_> = (0..64).map(|i| scope.spawn(move || ask_one(i))).collect();
            assert!(asked.into_iter().all(|thread| thread.join().unwrap()));
        });
    };
    round();
    let first = stand.commits.load(Ordering::SeqCst);
    assert!((1..32).contains(&first), "{first} commits for 64 clients");
    round();
    assert_eq!(stand.commits.load(Ordering::SeqCst), first, "durable already");
}

#[test]
fn a_store_that_hangs_refuses_new_clients_in_time_and_no_known_one_waits() {
    // On a machine that does much else some rounds are slow, and not all.
    let rounds = (0..8).map(|_| {
        let stand = stand(StoreIs::Hanging);
        stand.monitor.tell(Event::Durable([MonName::parse("10.0.0.9").unwrap()].into()));
        let began = Instant::now();
        assert!(!mon(&stand, Transport::Tcp, "10.0.0.1"));
        let first = began.elapsed();
        assert!(first >= rules().mon_timeout, "{first:?}");
        let began = Instant::now();
        assert!(!mon(&stand, Transport::Udp, "10.0.0.2"), "refused at once");
        assert!(mon(&stand, Transport::Udp, "10.0.0.9"), "known");
        assert_eq!(stand.monitor.standing().refused, 2);
        (first, began.elapsed())
    });
    let (first, then): (Vec<Duration>, Vec<Duration>) = rounds.unzip();
    assert!(first.iter().min().is_some_and(|quickest| *quickest < Duration::from_millis(500)), "{first:?}");
    assert!(then.iter().min().is_some_and(|quickest| *quickest < Duration::from_millis(150)), "{then:?}");
}

#[test]
fn garbage_disturbs_no_client() {
    let stand = stand(StoreIs::Well);
    let to = SocketAddr::from(([127, 0, 0, 1], stand.port));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut open = Vec::new();
    for i in 0..200_u32 {
        let mut bytes = vec![0_u8; usize::try_from(i).unwrap() * 7];
        bytes.fill_with(|| fastrand::u8(..));
        udp.send_to(&bytes, to).unwrap();
        let mut tcp = TcpStream::connect(to).unwrap();
        // Half of them well framed, half of them not; a connection that is cut off may fail to write.
        let framed = if i % 2 == 0 { frame(&bytes) } else { bytes };
        let _ = std::io::Write::write_all(&mut tcp, &framed);
        open.push(tcp);
    }
    assert!(mon(&stand, Transport::Tcp, "10.0.0.1"));
    assert!(mon(&stand, Transport::Udp, "10.0.0.2"));
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let stand = stand(StoreIs::Well);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = SocketAddr::from(([127, 0, 0, 77], stand.port));
    udp.send_to(&message(Procedure::Null, &[]), asked).unwrap();
    assert_eq!(udp.recv_from(&mut [0; 512]).unwrap().1, asked);
}

#[test]
fn a_status_monitor_that_was_killed_knows_its_registrations_and_number_again() {
    let first = stand(StoreIs::Well);
    assert!(mon(&first, Transport::Tcp, "10.0.0.1"));
    let options = first.options.clone();
    let again = start_stand(first._directory, options, StoreIs::Hanging);
    let lines = again.monitor.lines(&MonName::parse("10.0.0.1").unwrap());
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].cookie, [1; 16]);
}

/// An rpcbind that knows the lock manager only, and that lock manager.
struct FakeLockManager {
    rpcbind_port: u16,
    calls: Receiver<(SocketAddr, u32, String, StateNumber, [u8; 16])>,
    mute: Arc<Mutex<usize>>,
}

fn fake_lock_manager() -> FakeLockManager {
    let (sender, calls) = channel();
    let mute = Arc::new(Mutex::new(0));
    let muted = Arc::clone(&mute);
    let port = fake_programs::program("127.0.0.1", 0, move |call, from| took(call, from, &sender, &muted));
    let rpcbind_port = fake_programs::rpcbind("127.0.0.1", 0, Some(port));
    FakeLockManager { rpcbind_port, calls, mute }
}

fn took(
    call: &Call<'_>,
    from: SocketAddr,
    sender: &Sender<(SocketAddr, u32, String, StateNumber, [u8; 16])>,
    mute: &Mutex<usize>,
) -> Option<Vec<u8>> {
    let told = Downcall::decode(call.args).unwrap();
    let _ = sender.send((from, call.proc_, told.mon_name.to_owned(), told.state, told.cookie));
    let mut mute = mute.lock().unwrap();
    *mute = mute.saturating_sub(1);
    (*mute == 0).then(Vec::new)
}

#[test]
fn a_notification_reaches_the_lock_manager_with_its_cookie_once() {
    let lock_manager = fake_lock_manager();
    let directory = tempfile::tempdir().unwrap();
    for folder in ["nfs/sm", "run"] {
        fs::create_dir_all(directory.path().join(folder)).unwrap();
    }
    let options = Options {
        rules: rules(),
        state_directory: directory.path().join("nfs"),
        runtime_directory: directory.path().join("run"),
        host: Host::here(),
        rpcbind_port: lock_manager.rpcbind_port,
        rpcbind_socket: directory.path().join("none"),
        trust: Trust::ANY_PORT,
    };
    let stand = start_stand(directory, options, StoreIs::Well);
    assert!(mon(&stand, Transport::Tcp, "127.0.0.1"));
    // The first answer of the lock manager is lost.
    *lock_manager.mute.lock().unwrap() = 2;
    let notify = sm::Notify { mon_name: "client.example", state: StateNumber(9) }.encode();
    assert!(ask(stand.port, Transport::Udp, Procedure::Notify, &notify).is_empty());
    for _ in 0..2 {
        let (from, procedure, name, state, cookie) = lock_manager.calls.recv_timeout(PATIENCE).unwrap();
        assert_eq!((procedure, name.as_str(), state, cookie), (16, "127.0.0.1", StateNumber(9), [1; 16]));
        assert_eq!(from.ip().to_string(), "127.0.0.1");
    }
    let again = ask(stand.port, Transport::Tcp, Procedure::Notify, &notify);
    assert!(again.is_empty(), "answered; and the lock manager is not told of the same number again");
    let other = sm::Notify { mon_name: "client.example", state: StateNumber(11) }.encode();
    ask(stand.port, Transport::Udp, Procedure::Notify, &other);
    assert_eq!(lock_manager.calls.recv_timeout(PATIENCE).unwrap().3, StateNumber(11));
}

#[test]
fn an_acknowledged_notification_reaches_the_lock_manager_also_after_a_kill() {
    let first = stand(StoreIs::Well);
    assert!(mon(&first, Transport::Tcp, "127.0.0.1"));
    // No rpcbind answers: the lock manager is not told.
    let notify = sm::Notify { mon_name: "client.example", state: StateNumber(9) }.encode();
    assert!(ask(first.port, Transport::Udp, Procedure::Notify, &notify).is_empty(), "acknowledged");
    assert_eq!(first.monitor.standing().owed, 1);
    let kept = fs::read_to_string(first.options.runtime_directory.join("registrations")).unwrap();
    assert!(kept.ends_with(">127.0.0.1 9\n"), "{kept}");
    let lock_manager = fake_lock_manager();
    let options = Options { rpcbind_port: lock_manager.rpcbind_port, ..first.options.clone() };
    let again = start_stand(first._directory, options, StoreIs::Well);
    let (_, _, name, state, cookie) = lock_manager.calls.recv_timeout(PATIENCE).unwrap();
    assert_eq!((name.as_str(), state, cookie), ("127.0.0.1", StateNumber(9), [1; 16]));
    wait_until("the end of what is owed", || again.monitor.standing().owed == 0);
    let kept = fs::read_to_string(again.options.runtime_directory.join("registrations")).unwrap();
    assert!(kept.ends_with("<127.0.0.1\n"), "{kept}");
}

#[test]
fn a_call_that_is_owed_is_made_before_the_registrations_are_handed_back() {
    let first = stand(StoreIs::Well);
    assert!(mon(&first, Transport::Tcp, "127.0.0.1"));
    let notify = sm::Notify { mon_name: "client.example", state: StateNumber(9) }.encode();
    ask(first.port, Transport::Udp, Procedure::Notify, &notify);
    let Options { state_directory, runtime_directory, .. } = &first.options;
    let local = first._directory.path().join("local");
    fs::create_dir(&local).unwrap();
    let lock_manager = fake_lock_manager();
    *lock_manager.mute.lock().unwrap() = 1_000;
    let hand_back =
        || hand_back(&Host::here(), state_directory, runtime_directory, &local, lock_manager.rpcbind_port);
    let error = hand_back().unwrap_err();
    assert!(error.to_string().contains("127.0.0.1 was restarted"), "{error}");
    assert!(runtime_directory.join("registrations").exists(), "it may be repeated");
    *lock_manager.mute.lock().unwrap() = 0;
    hand_back().unwrap();
    assert_eq!(lock_manager.calls.recv_timeout(PATIENCE).unwrap().3, StateNumber(9));
    assert!(!runtime_directory.join("registrations").exists());
}

#[test]
fn a_sender_that_is_not_the_lock_manager_takes_nothing_away() {
    let stand = stand_trusting(StoreIs::Well, Trust { ports_below: 0 });
    stand.monitor.tell(Event::Durable([MonName::parse("10.0.0.9").unwrap()].into()));
    assert!(!mon(&stand, Transport::Tcp, "10.0.0.9"), "not from this port");
    assert_eq!(stand.monitor.standing().registered, 0);
}

#[test]
fn a_flood_costs_one_call_a_client_and_is_answered() {
    let lock_manager = fake_lock_manager();
    *lock_manager.mute.lock().unwrap() = usize::MAX;
    let first = stand(StoreIs::Well);
    let options = Options { rpcbind_port: lock_manager.rpcbind_port, ..first.options.clone() };
    let stand = start_stand(first._directory, options, StoreIs::Well);
    assert!(mon(&stand, Transport::Tcp, "127.0.0.1"));
    for number in 0..2_000 {
        let notify = sm::Notify { mon_name: "client.example", state: StateNumber(number) }.encode();
        ask(stand.port, Transport::Udp, Procedure::Notify, &notify);
    }
    assert_eq!(stand.monitor.standing().owed, 1);
    let kept = fs::read_to_string(stand.options.runtime_directory.join("registrations")).unwrap();
    assert_eq!(kept.matches('>').count(), 1, "{kept}");
}

#[test]
fn a_number_that_cannot_be_read_is_none_that_was_never_sent() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    for bytes in [&b"5\0"[..], b"101       ", b"12345\n"] {
        fs::write(&state, bytes).unwrap();
        let error = format!("{:#}", OwnState::open(directory.path()).unwrap_err());
        assert!(error.contains("expected 4 bytes") && error.contains("last life"), "{error}");
        assert_eq!(fs::read(&state).unwrap(), bytes, "it stays to be looked at");
    }
    fs::write(&state, "").unwrap();
    assert_eq!(OwnState::open(directory.path()).unwrap().get(), StateNumber(3), "as Debian ships it");
}
