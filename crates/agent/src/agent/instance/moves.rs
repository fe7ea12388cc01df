//! Planned moves: a caller on any server has a service moved to a server that lives.
//!
//! The server that is to have the service does the work (`wishes.rs`). Where the caller asked on another one, that one's heartbeat asks
//! for it, and the heartbeat of the first says how far it is ([`heirlock_core::planned_move`]).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use heirlock_core::planned_move::{MoveEnd, MoveProgress, MoveRequest, may_move};
use heirlock_core::store::StoreError;
use heirlock_core::{Moment, ServerName, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::Outside;
use crate::agent::put_off::{Later, Tries};
use crate::agent::waiting::Waiting;
use crate::agent::wishes::Why;
use crate::control::{Answer, AnswerWhen, Failure, Progress, Request, Respond, Responder, Wait};
use crate::limits;

/// The moves that callers on this server asked other servers for, and those that callers on other servers ask this one for.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    asked: Vec<Asked>,
    /// By the numbers of the requests.
    here: BTreeMap<u64, Here>,
}

impl Moves {
    /// No caller on this server waits for another one.
    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// The server that a service is to move to, by the word of a caller on this one.
    pub(crate) fn target_of(&self, service: &ServiceName) -> Option<&ServerName> {
        self.asked.iter().find(|asked| asked.service == *service).map(|asked| &asked.to)
    }
}

/// A caller on this server, who waits for another server to have a service.
#[derive(Debug)]
struct Asked {
    service: ServiceName,
    to: ServerName,
    asked: u64,
    /// Until when the other server has to have answered, or to have answered again: its agent may be started anew meanwhile, and takes
    /// the request up once more.
    until: Moment,
    is_taken_up: bool,
    waiting: Waiting,
}

/// A move that a caller on another server asks for.
#[derive(Debug)]
struct Here {
    by: ServerName,
    service: ServiceName,
    /// How it ended, once it has.
    end: Arc<OnceLock<MoveEnd>>,
}

/// The end of the connection to a caller on another server. That one reads in the heartbeat how far it is.
#[derive(Debug)]
struct Relay(Arc<OnceLock<MoveEnd>>);

impl Respond for Relay {
    fn progress(&mut self, _: &Progress) -> bool {
        true
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        let end = match answer {
            Ok(Answer::Adoption(report)) => MoveEnd::Done { changed: report.changed.unwrap_or(true) },
            Ok(Answer::Verb { changed, .. }) => MoveEnd::Done { changed },
            Ok(_) => MoveEnd::Done { changed: true },
            Err(Failure { message, refused, .. }) => MoveEnd::Failed { why: message, refused },
        };
        let _ = self.0.set(end);
    }
}

/// What becomes of a caller's request at one look.
enum Fate {
    Waits(Progress),
    Ends(Result<Answer, Failure>),
}

impl<O: Outside> Instance<O> {
    /// A caller has a service moved. `until`: so long a call of the store that fails is made again for it.
    pub(crate) fn move_service(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: ServiceName,
        to: ServerName,
        waiting: Waiting,
        until: Moment,
    ) {
        if let Err(why) = self.check_known(server, &service) {
            return waiting.responder.failed(&why, true);
        }
        if let Some(target) = self.moves.target_of(&service) {
            let why =
                format!("{service} is being moved to {target} already; 'heirlock status' says whose it is");
            return waiting.responder.failed(&why, true);
        }
        match may_be_moved(server, now, &service, &to) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return waiting.responder.failed(&why, true),
            Err(error) => {
                let Some(tries) = Tries::after(&error, server.now(), until) else {
                    return waiting.responder.failed(&error.to_string(), true);
                };
                let Waiting { responder, until: answer_when, .. } = waiting;
                let request = Box::new(Request::Move { service, to, answer_when });
                return self.put_off(Later::Request(request, responder, tries));
            }
        }
        if to == *server.server() {
            return self.wish_for(server, now, service, Why::Move, waiting);
        }
        tracing::info!(%service, %to, "{service}: {to} is asked to have it moved there");
        // Zero is said of nothing that was asked for.
        let asked = server.outside_mut().random().max(1);
        server.pulse_mut().ask_for_move(&service, Some(MoveRequest { to: to.clone(), asked }));
        server.beat_at(now);
        let until = answered_by(server, now);
        self.moves.asked.push(Asked { service, to, asked, until, is_taken_up: false, waiting });
    }

    /// Does what the other servers' heartbeats ask for, and tells callers what they say.
    pub(crate) fn follow_moves(&mut self, server: &mut Common<O>, now: Moment) {
        self.take_up_moves(server, now);
        for mut asked in std::mem::take(&mut self.moves.asked) {
            match fate_of(server, now, &mut asked) {
                Fate::Waits(progress) => {
                    // The caller may be gone; the service is moved all the same.
                    asked.waiting.responder.progress(&progress);
                    self.moves.asked.push(asked);
                }
                Fate::Ends(answer) => {
                    server.pulse_mut().ask_for_move(&asked.service, None);
                    server.beat_at(now);
                    if let Err(Failure { message: why, .. }) = &answer {
                        let (service, to) = (&asked.service, &asked.to);
                        tracing::error!(%service, %to, why, "{service}: it was not moved to {to}: {why}");
                    }
                    asked.waiting.responder.end(&answer);
                }
            }
        }
        self.say_moves(server, now);
    }

    /// Takes up what callers on other servers ask this one for.
    fn take_up_moves(&mut self, server: &mut Common<O>, now: Moment) {
        self.moves.here.retain(|asked, here| {
            let is_over = here.end.get().is_some();
            server.pulse().asks_for_move(&here.by, *asked)
                && (!is_over || server.pulse().beats(&here.by, now))
        });
        for (service, by, asked) in server.pulse().moves_here() {
            let is_mine = server.settings().instance_of(&service) == self.number;
            // What a dead server asked for was perhaps long ago.
            if !is_mine || self.moves.here.contains_key(&asked) || !server.pulse().beats(&by, now) {
                continue;
            }
            tracing::info!(%service, %by, "{service}: a caller on {by} has it moved to this server");
            let end = Arc::default();
            let responder = Responder::new(Relay(Arc::clone(&end)));
            self.moves.here.insert(asked, Here { by, service: service.clone(), end });
            let waiting = Waiting { service: service.clone(), responder, until: AnswerWhen::Settled };
            let us = server.server().clone();
            let until = server.patience_with_the_store();
            self.move_service(server, now, service, us, waiting, until);
        }
    }

    /// Says in the next heartbeat how far the moves are that other servers ask for; at once where that is news.
    fn say_moves(&self, server: &mut Common<O>, now: Moment) {
        let is_of_this = |service: &ServiceName| server.settings().instance_of(service) == self.number;
        let said = server.pulse().moves_said().iter();
        let mut moving: BTreeMap<u64, MoveProgress> = said
            .filter(|(_, said)| !is_of_this(&said.service))
            .map(|(asked, said)| (*asked, said.clone()))
            .collect();
        moving.extend(self.moves.here.iter().map(|(asked, here)| (*asked, self.how_far(server, now, here))));
        let said = server.pulse().moves_said();
        let is_news =
            |(asked, now): (&u64, &MoveProgress)| said.get(asked).is_none_or(|said| now.is_news_after(said));
        if moving.len() != said.len() || moving.iter().any(is_news) {
            server.beat_at(now);
        }
        server.pulse_mut().say_moves(moving);
    }

    fn how_far(&self, server: &Common<O>, now: Moment, here: &Here) -> MoveProgress {
        let begun = MoveProgress::begun(here.service.clone());
        if let Some(end) = here.end.get() {
            return MoveProgress { end: Some(end.clone()), ..begun };
        }
        let Some(running) = self.run_with(&here.service) else {
            return MoveProgress {
                waits_for: self.wishes.waits_for(&here.service).map(str::to_owned),
                ..begun
            };
        };
        let Progress { phase, clients, answered, wait, .. } = running.progress(now, server.settings());
        let at_most_ms = wait.as_ref().and_then(|wait| wait.at_most_ms);
        let machine = &running.machine;
        let tried_all = machine.has_tried_all_of(&here.service) && !machine.is_placing();
        MoveProgress {
            tried_all,
            phase,
            clients,
            answered,
            waits_for: wait.map(|wait| wait.for_what),
            at_most_ms,
            ..begun
        }
    }
}

/// Whether a service may be moved, or why not.
///
/// # Errors
/// Where that can't be read.
fn may_be_moved<O: Outside>(
    server: &Common<O>,
    now: Moment,
    service: &ServiceName,
    to: &ServerName,
) -> Result<Result<(), String>, StoreError> {
    let newest = server.store().newest_claim(service)?;
    let known: Vec<&ServerName> = server.pulse().servers().keys().collect();
    let heart = |of: &ServerName| server.pulse().heart_of(of, now);
    let may = may_move(service, newest.as_ref(), server.server(), to, heart, &known);
    Ok(may.map_err(|refusal| refusal.to_string()))
}

fn fate_of<O: Outside>(server: &Common<O>, now: Moment, asked: &mut Asked) -> Fate {
    let said = server.pulse().move_progress(&asked.to, asked.asked).cloned();
    let was_taken_up = asked.is_taken_up;
    let beats = server.pulse().beats(&asked.to, now);
    if said.is_some() && beats {
        (asked.is_taken_up, asked.until) = (true, answered_by(server, now));
    }
    let Asked { service, to, until, .. } = &*asked;
    let fails = |message: String, refused| {
        Fate::Ends(Err(Failure { message, refused, report: None, missing: Vec::new() }))
    };
    let again = format!(
        "'heirlock status' says whose {service} is: say the same again, or move it to another server"
    );
    let Some(said) = said else {
        if now < *until && (beats || was_taken_up) {
            let for_what = format!("the agent of {to} to take it up");
            return Fate::Waits(Progress::waiting(Wait::new(for_what, now, Some(*until))));
        }
        let why = match was_taken_up {
            true => "began to take it over, and says nothing of it any more",
            false => "did not take it up: its agent is dead, or of an earlier version",
        };
        return fails(format!("{to} {why}; {again}"), false);
    };
    match &said.end {
        Some(MoveEnd::Failed { why, refused }) => return fails(format!("{to}: {why}"), *refused),
        Some(MoveEnd::Done { changed }) => return Fate::Ends(Ok(moved(service, to, *changed))),
        None if now >= *until => {
            return fails(format!("{to}, which was taking it over, says nothing any more; {again}"), false);
        }
        None => {}
    }
    match asked.waiting.until {
        AnswerWhen::Accepted => {
            let text = format!("{to} takes {service} over; 'heirlock status' says whose it is");
            Fate::Ends(Ok(Answer::changed(Some(service), text)))
        }
        AnswerWhen::Prepared | AnswerWhen::Notified if said.tried_all => {
            Fate::Ends(Ok(moved(service, to, true)))
        }
        _ => {
            let MoveProgress { phase, clients, answered, waits_for, at_most_ms, .. } = said;
            let wait = waits_for.map(|for_what| Wait { for_what, at_most_ms });
            Fate::Waits(Progress { phase, clients, answered, wait, told: Vec::new() })
        }
    }
}

/// Until when a server has to say something of a move.
fn answered_by<O: Outside>(server: &Common<O>, now: Moment) -> Moment {
    now + server.settings().heartbeat.dead_after + limits::MOVE_ANSWER_TIME_MAX
}

fn moved(service: &ServiceName, to: &ServerName, changed: bool) -> Answer {
    Answer::Moved { service: service.clone(), to: to.clone(), changed }
}
