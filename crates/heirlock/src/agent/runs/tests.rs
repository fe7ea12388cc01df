use std::fs;
use std::sync::Arc;
use std::time::Duration;

use heirlock_agent::agent::attempts::Attempts;
use heirlock_agent::agent::running::*;
use heirlock_agent::agent::waiting::Waiting;
use heirlock_agent::{InstanceOutside, Look, News, Outside, RunNumber};
use heirlock_core::claim::{Authority, Claim};
use heirlock_core::incarnation::Observation;
use heirlock_core::lives::Recognised;
use heirlock_core::records::AsKey as _;
use heirlock_core::takeover::{Event, Milestone, Order, Part, Phase};
use heirlock_core::{Generation, Outcome, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use crate::agent::shared::tests::about_to_tell;
use crate::agent::testing::{Place, place, service};
use crate::clock::Clock;
use crate::control::{AnswerWhen, Line};
use crate::store::dir::DirStore;
use crate::store::steered::Steered;
use crate::store::{Contents, ServerReport, StoreError, StoreErrorKind};

#[test]
fn findings_for_one_run_permit_nothing_to_the_next() {
    let mut place = place();
    place.begin("nfs");
    let late = place.next_that(|message| matches!(message, News::Fit(..)).then_some(message));
    assert!(matches!(&late, News::Fit(_, fit) if fit.missing.is_empty()));
    place.supersede();
    place.begin("new");
    place.hear(late);
    assert_eq!((place.phase(), place.claims("new")), (Some(Phase::Intent), 0), "it has not been looked for");
    place.drive(Phase::Conveyed);
    assert_eq!(place.claims("new"), 1);
}

/// The lock manager was restarted, for this run.
fn restarted(place: &Place, run: RunNumber, start: &str) -> News {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    let observation = Observation { boot, start: Some(start.into()), in_grace: None, serving: true };
    let done = Recognised {
        observation,
        in_place: false,
        grace_opened: place.agent.outside().now(),
        grace_length: Duration::from_secs(20),
        too_late_for_the_lost: false,
    };
    News::Recognised(run, Box::new(Ok(done)))
}

#[test]
fn a_restart_for_a_run_that_is_over_is_no_recognition_of_the_next_and_its_locks_are_gone_all_the_same() {
    let mut place = place();
    place.begin("nfs");
    let first = place.number();
    place.supersede();
    place.begin("new");
    place.drive(Phase::Conveyed);
    let late = restarted(&place, first, "2");
    place.hear(late);
    assert_eq!(place.phase(), Some(Phase::Conveyed), "its own is still to come");
    assert_eq!(place.agent.lives().current().unwrap().start, "2");
    assert!(place.agent.lives().is_reborn(), "what lived in the life before is owed a recovery");
}

#[test]
fn a_restart_for_a_run_that_is_over_ends_one_that_had_recognised_before_it() {
    let mut place = place();
    place.begin("nfs");
    let first = place.number();
    place.supersede();
    place.had_elsewhere("new");
    place.begin("new");
    place.drive(Phase::Recognised);
    let late = restarted(&place, first, "2");
    place.hear(late);
    assert_eq!(place.phase(), None, "its number belongs to a life that has ended");
    let journal = &place.agent.held()[&service("new")].journal;
    assert_eq!((journal.phase, &journal.life), (Phase::Settled, &None), "the next agent owes it all");
    assert!(journal.failure.as_ref().unwrap().contains("restarted meanwhile"), "{journal:?}");
}

const LATENCY: Duration = Duration::from_millis(40);

#[test]
fn each_milestone_has_the_time_at_which_it_was_reached() {
    let mut place = place();
    place.had_elsewhere("new");
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let before = |method| {
        if ["claim", "begin_generation"].contains(&method) {
            std::thread::sleep(LATENCY);
        }
        Ok(())
    };
    place.agent.replace_store(Box::new(Steered { store, before }));
    place.begin("new");
    place.drive(Phase::Conveyed);
    let timeline = place.agent.run().as_ref().unwrap().machine.timeline();
    let at_ms = |event| timeline.iter().find(|stamp| stamp.event == event).unwrap().at_ms;
    let latency_ms = i64::try_from(LATENCY.as_millis()).unwrap();
    let (claimed, conveyed) = (at_ms(Milestone::Claimed), at_ms(Milestone::Conveyed));
    assert!(claimed >= latency_ms, "the claim took {claimed} ms");
    assert!(conveyed >= claimed + latency_ms, "{claimed}, {conveyed}: its generation was begun in between");
}

#[test]
fn a_client_that_came_back_before_the_agent_was_killed_has_come_back_to_the_next_one() {
    let mut place = about_to_tell("watch");
    let clients = ["10.0.0.1", "10.0.0.2"].map(|name| MonName::parse(name).unwrap());
    place.event(Event::Acknowledged { service: service("nfs"), clients: clients.to_vec() });
    let life = place.agent.held()[&service("nfs")].journal.life.clone().unwrap();
    // It registers with this server's status monitor, and the agent is killed before it looks.
    let line = format!("0100007f 000186b5 00000003 00000010 {:032x} 10.0.0.2 nfs-b\n", 99);
    fs::write(place.directory.path().join("nfs/sm/10.0.0.2"), line).unwrap();
    place.start_again();
    let boot = life.boot.clone();
    let observation = Observation { boot, start: Some(life.start), in_grace: None, serving: true };
    let look = Look { at: place.agent.outside().now(), observation };
    place.hear(News::Observed(Box::new(Ok(look))));
    place.turn();
    assert_eq!(place.phase(), Some(Phase::Conveyed), "it goes on");
    while place.phase() == Some(Phase::Conveyed) {
        let message = place.next();
        place.agent.handle(message);
    }
    let held = &place.agent.held()[&service("nfs")];
    let known = |client: &MonName| held.last_outcomes()[&client.as_key()].outcome;
    assert_eq!(clients.each_ref().map(known), [Outcome::Acknowledged, Outcome::ReRegistered]);
}

/// Another server's service with three clients; the record of the third can't be read, nor can be what a stray file is.
fn damaged(place: &Place) {
    let line = "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-a\n";
    let records = ["10.0.0.1", "10.0.0.2"].map(|name| (MonName::parse(name).unwrap(), line));
    let claim = Claim::new(Generation(1), &"nfs-a".parse().unwrap(), "run-a", 0);
    let contents = Contents { records: records.into(), state: Some(StateNumber(7)), ..Contents::default() };
    place.agent.store().claim(&service("new"), &claim).unwrap();
    place.agent.store().begin_generation(&service("new"), Generation(1), &contents).unwrap();
    let sm = place.directory.path().join("store/services/new/1/sm");
    let (pipe, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, sm.join("10.0.0.3"), pipe, mode, 0).unwrap();
    fs::write(sm.join("no client"), line).unwrap();
}

#[test]
fn a_record_that_cant_be_read_or_placed_is_named_and_all_clients_are_told() {
    let mut place = place();
    damaged(&place);
    fs::create_dir(place.directory.path().join("nfs/sm/10.0.0.2")).unwrap();
    place.begin("new");
    place.drive(Phase::Conveyed);
    let held = &place.agent.held()[&service("new")];
    let clients: Vec<&str> = held.ledger.stored().clients().map(MonName::as_str).collect();
    assert_eq!(clients, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let machine = &place.agent.run().as_ref().unwrap().machine;
    let report = heirlock_agent::agent::status::of_run(
        place.agent.outside().now(),
        machine,
        &service("new"),
        place.agent.store(),
        &place.agent.lock_manager().unready(),
    );
    let named: Vec<(&str, &str)> =
        report.troubles.iter().map(|t| (t.entry.as_str(), t.why.as_str())).collect();
    let [unread, stray, unplaced] = named.as_slice() else { panic!("{named:?}") };
    assert!(unread.0.ends_with("/new/1/sm/10.0.0.3") && unread.1.contains("a pipe"), "{unread:?}");
    assert!(stray.0.ends_with("/no client") && stray.1.contains("was not told"), "{stray:?}");
    assert!(unplaced.0.ends_with("/nfs/sm/10.0.0.2") && unplaced.1.contains("a folder"), "{unplaced:?}");
    assert_eq!((report.clients, report.unknown), (4, 4), "the stray file may have been a client");
    assert_eq!(held.journal.troubles, machine.troubles(), "also after a kill");
    for client in ["10.0.0.1", "10.0.0.3"] {
        assert!(place.directory.path().join("nfs/sm").join(client).is_file(), "{client}");
    }
}

#[test]
fn a_journal_without_sense_of_the_generation_before_is_no_trouble_of_a_run() {
    let mut place = place();
    damaged(&place);
    let generation = place.directory.path().join("store/services/new/1");
    fs::remove_file(generation.join("sm/10.0.0.3")).unwrap();
    fs::remove_file(generation.join("sm/no client")).unwrap();
    fs::write(generation.join("journal.json"), "torn").unwrap();
    place.begin("new");
    place.drive(Phase::Conveyed);
    assert_eq!(place.agent.run().as_ref().unwrap().machine.troubles(), []);
    assert_eq!(place.agent.held()[&service("new")].ledger.stored().len(), 2);
}

#[test]
fn a_generation_of_this_server_whose_journal_has_no_sense_is_begun_anew_with_all_its_clients() {
    let mut place = place();
    damaged(&place);
    let claim = Claim::new(Generation(2), &"nfs-b".parse().unwrap(), "run-b", 0);
    place.agent.store().claim(&service("new"), &claim).unwrap();
    let records = place.agent.store().load(&service("new"), Generation(1)).unwrap().records;
    let contents = Contents { records, state: Some(StateNumber(9)), ..Contents::default() };
    place.agent.store().begin_generation(&service("new"), Generation(2), &contents).unwrap();
    let path = place.directory.path().join("store/services/new/2/journal.json");
    fs::write(&path, "torn").unwrap();
    place.agent.refresh_holdings(place.agent.outside().now());
    let held = &place.agent.held()[&service("new")];
    let (clients, journal) = (held.ledger.stored().len(), &held.journal);
    assert_eq!((clients, journal.phase, journal.troubles.len()), (2, Phase::Claimed, 0), "{journal:?}");
}

/// The troubles that `--force` accepts, and those that come after the adoption was accepted: neither needs a client.
#[test]
fn where_no_record_can_be_placed_or_remembered_all_clients_are_told_and_that_is_named() {
    for (what, named) in [("nfs/sm", "symbolic link"), ("local/conveyed.json", "conveyed.json")] {
        let mut place = place();
        damaged(&place);
        let path = place.directory.path().join(what);
        match what {
            "nfs/sm" => {
                fs::rename(&path, path.with_file_name("elsewhere")).unwrap();
                std::os::unix::fs::symlink("elsewhere", &path).unwrap();
            }
            _ => fs::create_dir(&path).unwrap(),
        }
        place.begin("new");
        place.drive(Phase::Conveyed);
        let machine = &place.agent.run().as_ref().unwrap().machine;
        let troubles = machine.troubles();
        assert!(troubles.iter().any(|trouble| trouble.why.contains(named)), "{what}: {troubles:?}");
        assert_eq!(place.agent.held()[&service("new")].ledger.stored().len(), 3, "{what}");
    }
}

#[test]
fn entries_that_could_not_be_read_are_still_named_where_the_claim_was_interrupted() {
    let mut place = place();
    damaged(&place);
    let claim = Claim::new(Generation(2), &"nfs-b".parse().unwrap(), "run-b", 0);
    place.agent.store().claim(&service("new"), &claim).unwrap();
    fs::write(place.directory.path().join("store/services/new/1/state"), "").unwrap();
    place.agent.refresh_holdings(place.agent.outside().now());
    let held = &place.agent.held()[&service("new")];
    assert_eq!(held.ledger.stored().len(), 3);
    assert_eq!(held.journal.troubles.len(), 3, "{:?}", held.journal.troubles);
    assert!(held.state.0 > 1000, "the number that was sent can't be read: {:?}", held.state);
    place.begin("new");
    place.drive(Phase::Conveyed);
    let machine = &place.agent.run().as_ref().unwrap().machine;
    assert_eq!(machine.troubles().len(), 3, "{:?}", machine.troubles());
}

#[test]
fn a_refusal_after_a_claim_does_not_say_that_nothing_was_changed() {
    let mut place = place();
    place.agent.refresh_holdings(place.agent.outside().now());
    damaged(&place);
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let before = |method| match method {
        "load" => {
            Err(StoreError::new(StoreErrorKind::Absent { is_remembered: false }, "store: found nothing"))
        }
        _ => Ok(()),
    };
    place.agent.replace_store(Box::new(Steered { store, before }));
    place.begin("new");
    let (responder, lines) = crate::control::heard();
    let asked = place.agent.asked_mut().first_mut().unwrap();
    asked.waiting.push(Waiting { service: service("new"), responder, until: AnswerWhen::Settled });
    while !place.agent.asked().is_empty() {
        let message = place.next();
        place.agent.handle(message);
    }
    let Some(Line::Failed(failure)) = lines.try_iter().last() else { panic!() };
    assert!(!failure.refused && failure.message.contains("new was claimed before that"), "{failure:?}");
    assert_eq!(place.claims("new"), 2);
}

#[test]
fn nothing_is_claimed_where_the_store_can_not_say_whose_a_service_of_our_own_is() {
    let mut place = place();
    place.turn();
    damaged(&place);
    let own = ServiceName::host(&place.agent.settings().server);
    assert!(place.agent.held().contains_key(&own));
    let services = place.directory.path().join("store/services");
    let claims = |of: &str| fs::read_dir(services.join(of).join("claims")).unwrap().count();
    let insists = Authority { insisted: true, ..Authority::default() };
    let both = [(service("new"), Part::Target), (own.clone(), Part::Own)];
    let claim = |place: &mut Place, authority: &Authority| match place
        .agent
        .try_to_claim(&both, authority, &mut Attempts::new())
        .unwrap()
    {
        Event::Claimed { won, refused, unread } => (won.len(), refused, unread.len()),
        other => panic!("{other:?}"),
    };
    for authority in [&Authority::default(), &insists] {
        let sm = services.join(own.as_str()).join("1/sm");
        fs::rename(&sm, sm.with_file_name("away")).unwrap();
        let (won, refused, unread) = claim(&mut place, authority);
        assert_eq!((won, refused.len(), unread), (0, 1, 0), "{refused:?}");
        assert!(refused[0].1.contains("/1/sm"), "{refused:?}");
        assert_eq!((claims("new"), claims(own.as_str())), (1, 1));
        fs::rename(sm.with_file_name("away"), &sm).unwrap();
    }
    let (won, ..) = claim(&mut place, &insists);
    assert_eq!((won, claims("new"), claims(own.as_str())), (2, 2, 2));
}

#[test]
fn a_heartbeat_that_goes_on_though_its_owner_was_said_to_be_off_is_said_once() {
    let mut place = place();
    let owner: ServerName = "nfs-a".parse().unwrap();
    let hears = |place: &mut Place, beat: u64| {
        let report = ServerReport { beat, ..ServerReport::new("nfs-a".parse().unwrap(), "run-a") };
        place.agent.store().put_server(&report).unwrap();
        place.agent.beat(place.agent.outside().now());
    };
    hears(&mut place, 1);
    hears(&mut place, 2);
    let authority = Authority { fenced: Some(owner), ..Authority::default() };
    let order = Order::asked(service("new"), false, authority, None);
    place.agent.begin_run(place.agent.outside().now(), Commission::unasked(order));
    let told = |place: &Place| place.agent.asked()[0].told.clone();
    for beat in [3, 3] {
        hears(&mut place, beat);
        assert_eq!(
            told(&place),
            [] as [&str; 0],
            "it may be the last one of a server that was switched off since"
        );
    }
    hears(&mut place, 4);
    hears(&mut place, 5);
    let told = told(&place);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("nfs-a was said to be off, and its heartbeat goes on: as long as it serves new,")
    );
}

const LONG: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_run_whose_needs_are_never_looked_up_is_refused_at_its_time_limit() {
    let mut place = place();
    place.begin_uninsisted("new");
    let (responder, lines) = crate::control::heard();
    let asked = place.agent.asked_mut().first_mut().unwrap();
    asked.waiting.push(Waiting { service: service("new"), responder, until: AnswerWhen::Settled });
    let limit = asked.due().unwrap();
    place.agent.tick_asked(place.agent.outside().now());
    assert!(!place.agent.asked().is_empty() && place.agent.next_due() <= limit);
    place.agent.outside_mut().clock = Clock::ahead(LONG);
    place.agent.tick_asked(place.agent.outside().now());
    let Some(Line::Failed(failure)) = lines.try_iter().last() else { panic!() };
    assert!(failure.refused && failure.message.contains("a thread hangs"), "{failure:?}");
    assert!(place.agent.asked().is_empty() && place.claims("new") == 0);
}

#[test]
fn a_recognition_that_hangs_fails_the_run_and_a_life_that_it_begins_later_is_seen() {
    let mut place = place();
    let turn = Arc::clone(&place.agent.lock_manager().workshop.turn);
    let hangs = turn.lock().unwrap();
    place.begin("new");
    place.drive(Phase::Conveyed);
    place.agent.tick_run(place.agent.outside().now());
    assert_eq!(place.phase(), Some(Phase::Conveyed), "it has time");
    place.agent.outside_mut().clock = Clock::ahead(LONG);
    place.agent.tick_run(place.agent.outside().now());
    assert!(place.agent.run().is_none());
    let journal = &place.agent.held()[&service("new")].journal;
    let why = journal.failure.as_deref().unwrap();
    assert!(journal.phase == Phase::Failed && why.contains("not made to recognise in time"), "{why}");
    drop(hangs);
    let done = place.next_that(|message| matches!(message, News::Recognised(..)).then_some(message));
    assert!(!place.agent.lives().is_reborn());
    place.hear(done);
    assert!(place.agent.lives().is_reborn(), "clients whose locks it dropped are told by a run of their own");
}
