//! Adoptions that meet on one lock manager: they claim together, or one after the other, each in the place of the run that is on.
//! `heirlock_core::takeover` decides which ([`Turn`]).

use heirlock_core::planted::{Bug, planted};
use heirlock_core::takeover::{Action, Event, Standing, Turn};
use heirlock_core::{Moment, ServiceName, limits};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::running::Running;
use crate::agent::status;
use crate::agent::waiting::Waiting;
use crate::agent::work::RunNumber;

impl<O: Outside> Instance<O> {
    /// Lets the adoptions claim that may, as one run, and says of the others for what they wait.
    pub(crate) fn claim_in_turn(&mut self, server: &mut Common<O>) {
        let now = server.now();
        if self.is_claiming() {
            // They go on behind it.
            for asked in self.asked.iter_mut().filter(|asked| asked.in_line.is_some()) {
                asked.in_line = Some(("the store to work again for another adoption".to_owned(), None));
            }
            return;
        }
        let turns: Vec<Option<Turn>> = self.asked.iter().map(|asked| self.turn_of(now, asked)).collect();
        for (asked, turn) in self.asked.iter_mut().zip(&turns) {
            let before = asked.in_line.take();
            asked.in_line = turn.and_then(|turn| waits_for(turn, self.run.as_ref()));
            if let Some((why, _)) = asked.in_line.as_ref().filter(|waits| before.as_ref() != Some(waits)) {
                tracing::info!(
                    run = asked.machine.run(),
                    why,
                    "{}: its adoption waits for {why}",
                    status::names(asked.machine.targets())
                );
                asked.say_progress(now, server.settings());
            }
        }
        let Some(first) = turns.iter().position(|turn| *turn == Some(Turn::Claims)) else { return };
        let number = self.asked[first].number;
        let may_join = |turn: &Option<Turn>| matches!(turn, Some(Turn::Claims | Turn::WaitsForOthers(_)));
        let ready: Vec<RunNumber> = self
            .asked
            .iter()
            .zip(&turns)
            .filter(|(_, turn)| may_join(turn))
            .map(|(asked, _)| asked.number)
            .collect();
        for other in ready.into_iter().filter(|other| *other != number && !planted(Bug::RestartForEach)) {
            self.join_runs(server, number, other);
        }
        self.go_on_claiming(server, number);
    }

    fn turn_of(&self, now: Moment, asked: &Running) -> Option<Turn> {
        let others = self.asked.iter().filter(|other| other.number != asked.number);
        let others = others.map(|other| &other.machine);
        asked.machine.turn(now, self.run.as_ref().map(|running| &running.machine), others)
    }

    /// Two adoptions that may claim are one run from now on.
    fn join_runs(&mut self, server: &mut Common<O>, number: RunNumber, other: RunNumber) {
        let Some(mut joining) = self.take_asked(other) else { return };
        let now = server.now();
        server.counts_mut().phases.passed(joining.said, &mut joining.in_phase_since, now);
        let Some(asked) = self.asked_for(number) else { return };
        tracing::info!(
            run = asked.machine.run(),
            joining = joining.machine.run(),
            "{}: its adoption and that of {} go on as one, run {}",
            status::names(asked.machine.targets()),
            status::names(joining.machine.targets()),
            asked.machine.run()
        );
        let Running { machine, waiting, told, in_line: _, .. } = joining;
        asked.machine.joined_by(machine);
        asked.waiting.extend(waiting);
        asked.told.extend(told);
        asked.in_line = None;
    }

    /// Whether the store keeps an adoption from claiming that has begun to.
    fn is_claiming(&self) -> bool {
        self.asked.iter().any(|asked| asked.claim_waits_for.is_some())
    }

    /// What the run that is on hands on, and what this server holds: as a run has to know it that claims now.
    pub(super) fn prepares_to_claim(&mut self, server: &Common<O>, run: RunNumber) {
        let standing: Standing = self.standing(server);
        let is_on = self.run.as_ref().is_some_and(|running| running.number == run);
        let on = self.run.as_ref().filter(|_| !is_on);
        let before = on.map(|running| running.machine.hands_on()).unwrap_or_default();
        if let Some(running) = self.running(run) {
            running.machine.stands(standing);
            running.machine.takes_place_of(before);
        }
    }

    /// The store has answered. Where all needs of the run are met, all further work is done for it alone.
    pub(crate) fn claim_answered(&mut self, server: &mut Common<O>, run: RunNumber, claimed: Event) {
        self.prepares_to_claim(server, run);
        let Some(asked) = self.asked_for(run) else { return };
        let refused = match &claimed {
            Event::Claimed { refused, .. } => refused.clone(),
            _ => Vec::new(),
        };
        let batch = asked.machine.step(server.now(), claimed);
        if let [Action::Over(end)] = batch.then.as_slice() {
            return self.refused(server, run, end);
        }
        let Some(mut asked) = self.take_asked(run) else { return };
        asked.in_line = None;
        if let Some(before) = self.run.take() {
            self.make_way(server, before, &mut asked);
        }
        for (service, why) in &refused {
            answer_each_of(&mut asked, service, |waiting| waiting.responder.failed(why, true));
        }
        asked.reborn = self.lives.is_reborn();
        self.run = Some(asked);
        self.carry_on(server, batch);
    }

    /// The run that is on ends here, and the adoption that has claimed tells its clients.
    fn make_way(&mut self, server: &mut Common<O>, mut before: Running, next: &mut Running) {
        tracing::info!(
            run = before.machine.run(),
            next = next.machine.run(),
            "{}: the run {} makes way for the adoption that was asked for, run {}, which tells its clients",
            status::names(before.machine.targets()),
            before.machine.run(),
            next.machine.run()
        );
        self.outside.stop_telling();
        let now = server.now();
        server.counts_mut().phases.passed(before.said, &mut before.in_phase_since, now);
        next.waiting.append(&mut before.waiting);
        next.told.append(&mut before.told);
    }

    /// Whether the run that is on holds its next step, which restarts the lock manager: an adoption that was asked for may join it yet.
    pub(super) fn holds_recognition(&mut self, now: Moment) -> bool {
        let restarts = |running: &Running| {
            running.machine.is_before_recognition()
                && running.todo.is_to_recognise()
                && !running.machine.is_first_start()
        };
        if planted(Bug::RestartForEach) || self.asked.is_empty() || !self.run.as_ref().is_some_and(restarts) {
            self.held_until = None;
            return false;
        }
        let until = *self.held_until.get_or_insert(now + limits::JOINING_TIME_MAX);
        // The end of a claim that has begun is waited for as long as the store takes: it may have come about.
        let holds = self.is_claiming() || now < until;
        if !holds {
            self.held_until = None;
        }
        holds
    }

    /// When that is over.
    pub(super) fn held_until(&self) -> Option<Moment> {
        self.held_until.filter(|_| !self.is_claiming())
    }

    /// Callers that wait for a service which the run does not take over any more are told so at once, where it goes on for others.
    pub(super) fn answer_those_left(&mut self, service: &ServiceName, why: &str) {
        let Some(running) = &mut self.run else { return };
        let is_left = !running.machine.has_member(service);
        if is_left && !running.machine.targets().is_empty() {
            answer_each_of(running, service, |waiting| waiting.responder.failed(why, false));
        }
    }
}

/// Answers each caller that waits for this service.
pub(super) fn answer_each_of(running: &mut Running, service: &ServiceName, answer: impl Fn(Waiting)) {
    running.waiting.extract_if(.., |waiting| waiting.service == *service).for_each(answer);
}

/// What an adoption waits for that may claim and does not, and until when where that is known.
fn waits_for(turn: Turn, run: Option<&Running>) -> Option<(String, Option<Moment>)> {
    let targets = || run.map(|running| status::names(running.machine.targets())).unwrap_or_default();
    match turn {
        Turn::Claims => None,
        Turn::WaitsForOthers(until) => Some((
            "the needs of other adoptions to be looked for, so that the lock manager is restarted once for all".to_owned(),
            Some(until),
        )),
        Turn::WaitsForRecognition => Some((
            format!("the lock manager to be restarted for {} first; then it is restarted once more", targets()),
            None,
        )),
        Turn::WaitsForEnd => Some((
            format!("the adoption of {} to settle: a first start restarts nothing, and is not worth another restart", targets()),
            None,
        )),
    }
}
