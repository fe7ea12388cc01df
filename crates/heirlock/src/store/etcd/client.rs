//! Questions to etcd as a whole: an endpoint that fails gives way to the next one, and a token that has ended is renewed.
//!
//! A transaction whose answer was lost is asked again, of the next endpoint. So every transaction must bear being repeated: either
//! it does the same a second time, or its condition fails then, and its caller recognises in the answer that it was carried out
//! before. [`Answered::was_repeated`] says that this may be so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::endpoints::Endpoints;
use super::failure::{CallError, Ill};
use super::http::{Exchange, NoReply, Question, Reply};
use super::secret::Secret;
use super::wire::{MemberStatus, Refusal, Txn, TxnAnswer, decode_token, encode_credentials};

/// The user that etcd is asked as. The password is read when a token is needed, so that a new one needs no restart.
pub(super) struct User {
    /// The name.
    pub(super) name: String,
    /// Reads the password.
    pub(super) password: Box<dyn Fn() -> Result<Secret, String> + Send + Sync>,
}

/// A client.
pub(super) struct Client {
    exchange: Box<dyn Exchange>,
    endpoints: Mutex<Endpoints>,
    count: usize,
    user: Option<User>,
    token: Mutex<Option<Secret>>,
    began: Instant,
    /// How long an endpoint may take to answer.
    answer_max: Duration,
    /// Questions that were begun and answers that came, but for those of heartbeats.
    progress: AtomicU64,
}

/// What a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A heartbeat, which is no progress of the call that is on.
    Heartbeat,
    /// Any other call.
    Call,
}

/// An answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answered {
    /// The answer.
    pub(super) answer: TxnAnswer,
    /// The answer to an earlier attempt was lost: that may have been carried out before.
    pub(super) was_repeated: bool,
}

/// The result of one attempt, as far as it is none.
enum Attempt {
    /// Another endpoint may answer.
    Next(CallError),
    /// No other one would.
    Last(CallError),
}

const TXN: &str = "/v3/kv/txn";
const AUTHENTICATE: &str = "/v3/auth/authenticate";
const STATUS: &str = "/v3/maintenance/status";

/// How often each endpoint is asked at most, for one call: a connection that was kept may have ended.
const ROUNDS: usize = 2;

/// How often a token is renewed at most, for one call.
const RENEWALS_MAX: usize = 2;

impl Client {
    /// One that asks so many endpoints.
    pub(super) fn new(
        exchange: Box<dyn Exchange>,
        count: usize,
        user: Option<User>,
        answer_max: Duration,
    ) -> Self {
        Self {
            exchange,
            endpoints: Mutex::new(Endpoints::new(count)),
            count,
            user,
            token: Mutex::default(),
            began: Instant::now(),
            answer_max,
            progress: AtomicU64::new(0),
        }
    }

    /// See [`heirlock_core::store::Store::progress`].
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Makes a transaction.
    ///
    /// # Errors
    /// Where no endpoint answered, or etcd refused it. [`CallError::may_be_done`] tells whether it may have been carried out.
    pub(super) fn txn(&self, txn: &Txn, purpose: Purpose) -> Result<Answered, CallError> {
        let decode = |bytes: &[u8]| TxnAnswer::decode(bytes, txn);
        let (answer, was_repeated) = self.ask_any(TXN, &txn.encode(), purpose, &decode)?;
        Ok(Answered { answer, was_repeated })
    }

    /// How each member is, in the order of the endpoints.
    pub(super) fn statuses(&self) -> Vec<Result<MemberStatus, CallError>> {
        let ask = |place| {
            let asked = self.ask_one(place, STATUS, b"{}", self.deadline(), &MemberStatus::decode);
            asked.map_err(|(Attempt::Next(error) | Attempt::Last(error))| error)
        };
        (0..self.count).map(ask).collect()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.answer_max
    }

    fn moves(&self, purpose: Purpose) {
        if purpose == Purpose::Call {
            self.progress.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks one endpoint after the other. Besides the answer it says whether an earlier attempt may have been carried out.
    fn ask_any<T>(
        &self,
        path: &'static str,
        body: &[u8],
        purpose: Purpose,
        decode: &dyn Fn(&[u8]) -> Result<T, String>,
    ) -> Result<(T, bool), CallError> {
        self.moves(purpose);
        let order = self.endpoints().order(self.began.elapsed());
        // As long as it would take if each of them were silent once.
        let deadline =
            Instant::now() + self.answer_max * u32::try_from(order.len().max(ROUNDS)).unwrap_or(u32::MAX);
        let (mut may_be_done, mut last) = (false, CallError::none_asked());
        for place in order.iter().cycle().take(order.len() * ROUNDS).copied() {
            if Instant::now() >= deadline {
                break;
            }
            match self.ask_one(place, path, body, deadline, decode) {
                Ok(answer) => {
                    self.endpoints().answered(place);
                    self.moves(purpose);
                    return Ok((answer, may_be_done));
                }
                Err(Attempt::Last(error)) => {
                    self.endpoints().answered(place);
                    return Err(error.after(may_be_done));
                }
                Err(Attempt::Next(error)) => {
                    self.endpoints().failed(place, self.began.elapsed());
                    may_be_done |= error.may_be_done;
                    last = error;
                }
            }
        }
        Err(last.after(may_be_done))
    }

    fn ask_one<T>(
        &self,
        place: usize,
        path: &'static str,
        body: &[u8],
        deadline: Instant,
        decode: &dyn Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, Attempt> {
        let mut renewals = 0;
        loop {
            let token = self.token_for(place, deadline)?;
            let reply = self.post(place, path, body, token.as_ref(), deadline)?;
            if reply.status == OK {
                // It was carried out, and can't be told: another endpoint may be asked, as where the answer was lost.
                return decode(&reply.body)
                    .map_err(|found| Attempt::Next(CallError::lost(Ill::Senseless(found))));
            }
            let error = CallError::refused(reply.status, Refusal::decode(&reply.body));
            if error.is_of_the_token() && self.user.is_some() && renewals < RENEWALS_MAX {
                renewals += 1;
                self.forget_token(token.as_ref());
                continue;
            }
            return Err(if error.is_of_one_member() { Attempt::Next(error) } else { Attempt::Last(error) });
        }
    }

    fn post(
        &self,
        place: usize,
        path: &'static str,
        body: &[u8],
        token: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Reply, Attempt> {
        let left = deadline.saturating_duration_since(Instant::now()).max(TIME_MIN);
        let question = Question { path, body, token, time_max: self.answer_max.min(left) };
        self.exchange.ask(place, &question).map_err(|none| match none {
            NoReply::NotAsked(why) => Attempt::Next(CallError::not_done(Ill::Unreachable(why))),
            NoReply::Lost(why) => Attempt::Next(CallError::lost(Ill::Unreachable(why))),
            NoReply::TooLong => Attempt::Last(CallError::lost(Ill::TooLong)),
        })
    }

    /// The token of the user, which is asked for where there is none.
    fn token_for(&self, place: usize, deadline: Instant) -> Result<Option<Secret>, Attempt> {
        let Some(user) = &self.user else { return Ok(None) };
        if let Some(token) = self.token().clone() {
            return Ok(Some(token));
        }
        let wrong = |why| Attempt::Last(CallError::not_done(Ill::Credentials(why)));
        let password = (user.password)().map_err(wrong)?;
        let body = encode_credentials(&user.name, password.reveal()).map_err(wrong)?;
        let reply = self.post(place, AUTHENTICATE, &body, None, deadline).map_err(Attempt::not_done)?;
        if reply.status != OK {
            let error = CallError::refused(reply.status, Refusal::decode(&reply.body)).undone();
            if error.is_auth_off() {
                return Ok(None);
            }
            return Err(if error.is_of_one_member() { Attempt::Next(error) } else { Attempt::Last(error) });
        }
        let token = decode_token(&reply.body)
            .map_err(|found| Attempt::Next(CallError::not_done(Ill::Senseless(found))))?;
        let token = Secret::new(token);
        *self.token() = Some(token.clone());
        Ok(Some(token))
    }

    /// Forgets this token, unless another thread has renewed it.
    fn forget_token(&self, used: Option<&Secret>) {
        self.token().take_if(|kept| Some(&*kept) == used);
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        // Its contents are still true after a thread has panicked.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self) -> MutexGuard<'_, Option<Secret>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// The same where the question itself was never asked.
    fn not_done(self) -> Self {
        match self {
            Self::Next(error) => Self::Next(error.undone()),
            Self::Last(error) => Self::Last(error.undone()),
        }
    }
}

/// The number of HTTP for an answer.
const OK: u16 = 200;

/// How long an endpoint is waited for at least: a limit of nothing would be none.
const TIME_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
