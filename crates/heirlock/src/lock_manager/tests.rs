//! Another kind of lock manager is one implementation: the agent and the guard ask it everything by the trait.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_agent::{InstanceOutside, Message, News, RunNumber, RunWork, Work};
use heirlock_core::grace::{Grace, Leave, Probe};
use heirlock_core::incarnation::{Incarnation, Observation};
use heirlock_core::takeover::Strategy;

use super::{Fsids, Lack, LockManager, LockManagerError, Nlm, Recognised};
use crate::agent::testing::{Place, place, service};
use crate::config::Settings;
use crate::host::Peers;
use crate::host::testing::Tree;
use crate::this_server::proofs::Proofs;

/// A lock manager of a kind of its own, as NFS-Ganesha will be: it has another question for grace, other ports, its own table of
/// exports and facts of its own.
#[derive(Default)]
struct StandIn {
    asked: Mutex<Vec<String>>,
    hides_its_exports: Mutex<bool>,
    /// Held while it lets go of nothing.
    keeps_locks: Mutex<()>,
    /// How often it was asked whether it is in grace.
    asked_for_grace: AtomicUsize,
    /// Held while it does not answer that.
    keeps_silent: Mutex<()>,
}

impl StandIn {
    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }

    fn look() -> Observation {
        Observation { boot: "b00t".into(), start: Some("epoch 7".into()), in_grace: None, serving: true }
    }
}

impl LockManager for StandIn {
    fn describe(&self) -> String {
        "a stand-in".into()
    }

    fn observe(&self) -> Result<Observation, LockManagerError> {
        Ok(Self::look())
    }

    fn usable(&self, strategy: Strategy) -> Result<(), LockManagerError> {
        self.note(format!("usable {strategy}"));
        Ok(())
    }

    fn missing(&self, _strategy: Strategy, _exports: &[PathBuf]) -> Vec<Lack> {
        vec![Lack::new("bus", "the bus does not answer", "start it")]
    }

    fn remarks(&self, _strategy: Strategy) -> Vec<Lack> {
        Vec::new()
    }

    fn recognise(&self, strategy: Strategy) -> Result<Recognised, LockManagerError> {
        self.note(format!("recognise {strategy}"));
        Ok(Recognised { observation: Self::look(), in_place: false })
    }

    fn let_go(&self, address: IpAddr) -> Result<(), LockManagerError> {
        self.note(format!("let go {address}"));
        let _kept = self.keeps_locks.lock().unwrap();
        Ok(())
    }

    fn let_go_of_file_system(&self, path: &Path) -> Result<(), LockManagerError> {
        self.note(format!("let go of {}", path.display()));
        Ok(())
    }

    fn nlm(&self) -> &Nlm {
        unreachable!("it has an answer of its own to each question that would be asked there")
    }

    fn in_grace_at(&self, address: IpAddr, _limit: Duration) -> (Probe, String) {
        self.asked_for_grace.fetch_add(1, Ordering::Relaxed);
        let _silent = self.keeps_silent.lock().unwrap();
        (Probe::InGrace, format!("{address} answers its own question"))
    }

    fn serves_at(&self, _address: IpAddr) -> Result<(), String> {
        Ok(())
    }

    fn ports(&self) -> Vec<u16> {
        vec![38_465]
    }

    fn peers(&self) -> Peers {
        Tree::new().host().peers()
    }

    fn exported(&self) -> Result<Vec<PathBuf>, LockManagerError> {
        match *self.hides_its_exports.lock().unwrap() {
            true => {
                let source = io::Error::other("the table is gone");
                Err(LockManagerError::Read { what: "its exports".into(), source })
            }
            false => Ok(Vec::new()),
        }
    }

    fn fsids(&self) -> Fsids {
        Fsids::default()
    }

    fn facts(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("server-scope".to_owned(), "site".to_owned())])
    }

    fn grace_length(&self) -> Result<Duration, LockManagerError> {
        Ok(Duration::from_secs(60))
    }

    fn grace_age(&self) -> Result<Option<Duration>, LockManagerError> {
        Ok(None)
    }
}

fn with_stand_in() -> (Place, Arc<StandIn>) {
    let mut place = place();
    let stand_in = Arc::new(StandIn::default());
    let shared: Arc<dyn LockManager> = Arc::clone(&stand_in) as Arc<dyn LockManager>;
    place.agent.lock_manager_mut().workshop.lock_manager = shared;
    (place, stand_in)
}

#[test]
fn a_kind_of_lock_manager_tells_the_needs_of_an_adoption_itself() {
    let (mut place, stand_in) = with_stand_in();
    let work = RunWork::CheckFit { targets: vec![service("nfs")], insists: false, brings: false };
    place.agent.lock_manager_mut().begin_for(RunNumber::default(), work);
    let fit = place.next_that(|message| match message {
        News::Fit(_, fit) => Some(fit),
        _ => None,
    });
    assert!(
        fit.missing.iter().any(|one| one.check == "bus" && one.found == "the bus does not answer"),
        "{fit:?}"
    );
    assert_eq!(*stand_in.asked.lock().unwrap(), ["usable command"]);
}

#[test]
fn a_kind_of_lock_manager_has_its_own_facts_and_its_own_question_for_grace() {
    let (mut place, _) = with_stand_in();
    place.agent.lock_manager_mut().begin(Work::GatherFacts);
    let facts = place.next_that(|message| match message {
        News::Facts(facts) => Some(facts.unwrap()),
        _ => None,
    });
    assert_eq!(facts.get("server-scope").map(String::as_str), Some("site"));
    let life = Incarnation { boot: "b00t".into(), start: "epoch 7".into(), reopened: 0 };
    place.agent.lock_manager_mut().begin(Work::AskGrace(life));
    let answer = place.next_that(|message| match message {
        News::GraceAsked(_, answer) => Some(answer),
        _ => None,
    });
    assert_eq!(answer.0, Probe::InGrace);
    assert!(answer.1.ends_with("answers its own question"), "{}", answer.1);
}

#[test]
fn a_kind_of_lock_manager_recognises_and_lets_go_in_its_own_way() {
    let (mut place, stand_in) = with_stand_in();
    let work = RunWork::Recognise {
        strategy: Strategy::Command,
        targets: vec![service("nfs")],
        grace_seen: None,
        owes: false,
    };
    place.agent.lock_manager_mut().begin_for(RunNumber::default(), work);
    let done = place.next_that(|message| match message {
        News::Recognised(_, done) => Some(done.unwrap()),
        _ => None,
    });
    assert_eq!(
        (done.observation.start.as_deref(), done.grace_length),
        (Some("epoch 7"), Duration::from_secs(60))
    );
    place.agent.lock_manager_mut().begin(Work::TakeVolumeAway(service("nfs")));
    place.next_that(|message| matches!(message, News::VolumeGone(..)).then_some(()));
    assert_eq!(*stand_in.asked.lock().unwrap(), ["recognise command", "let go 127.0.0.1"]);
}

#[test]
fn a_lock_manager_that_hangs_while_it_lets_go_keeps_the_volume_and_not_its_own_turn() {
    let (mut place, stand_in) = with_stand_in();
    let kept = stand_in.keeps_locks.lock().unwrap();
    let workshop = &mut place.agent.lock_manager_mut().workshop;
    workshop.let_go_time_max = Duration::from_millis(50);
    let turn = Arc::clone(&workshop.turn);
    place.agent.lock_manager_mut().begin(Work::TakeVolumeAway(service("nfs")));
    // It is looked at all the same, as the thread `watch` does.
    let end = Instant::now() + Duration::from_secs(60);
    while stand_in.asked.lock().unwrap().is_empty() || turn.try_lock().is_err() {
        assert!(Instant::now() < end, "its turn does not end");
        thread::sleep(Duration::from_millis(5));
    }
    let is_gone = |message: Message| matches!(message, Message::Of(_, News::VolumeGone(..)));
    assert!(!place.messages.try_iter().any(is_gone), "it may drop locks yet");
    drop(kept);
    place.next_that(|message| matches!(message, News::VolumeGone(..)).then_some(()));
    assert_eq!(*stand_in.asked.lock().unwrap(), ["let go 127.0.0.1"]);
}

#[test]
fn a_release_lets_go_of_no_file_system_while_its_other_exports_are_unknown() {
    let volume = tempfile::tempdir().unwrap();
    for (hides, lets_go) in [(false, true), (true, false)] {
        let (mut place, stand_in) = with_stand_in();
        *stand_in.hides_its_exports.lock().unwrap() = hides;
        let mut settings = Settings::clone(&place.agent.lock_manager().workshop.settings);
        settings.services[0].exports = vec![volume.path().to_owned()];
        place.agent.lock_manager_mut().workshop.settings = Arc::new(settings);
        place.agent.lock_manager_mut().begin(Work::TakeVolumeAway(service("nfs")));
        place.next_that(|message| matches!(message, News::VolumeGone(..)).then_some(()));
        let asked = stand_in.asked.lock().unwrap();
        assert_eq!(asked[0], "let go 127.0.0.1", "what came in by its address goes with that");
        let file_system = format!("let go of {}", volume.path().display());
        assert_eq!(asked.contains(&file_system), lets_go, "{asked:?}");
    }
}

#[test]
fn a_question_for_grace_that_has_no_answer_holds_up_neither_the_notifier_nor_the_next_question() {
    let (mut place, stand_in) = with_stand_in();
    let shop = &place.agent.lock_manager_mut().workshop;
    let grace = Grace::new(shop.clock.now(), Duration::from_secs(3_600), Duration::from_secs(1));
    let (asked, here) = (Arc::clone(&stand_in), IpAddr::from([127, 0, 0, 1]));
    let ask = move |_: &[IpAddr]| asked.in_grace_at(here, Duration::from_secs(1)).0;
    let mut proofs = Proofs::of(grace, &shop.host, shop.clock, ask);
    let silent = stand_in.keeps_silent.lock().unwrap();
    while stand_in.asked_for_grace.load(Ordering::Relaxed) < 3 {
        assert_eq!(proofs.leave(Vec::new), Leave::ProveFirst);
    }
    drop(silent);
    while proofs.leave(Vec::new) != Leave::Granted {}
}
