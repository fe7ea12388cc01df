//! The last adoptions, for a reader of the status page. They are read from the store beside the loop, once for all readers of a
//! while, and never twice at once: a reader needs no rights for this, and a store may hang.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::control::report::AdoptionReport;
use crate::host::Host;
use crate::limits::{LOOK_PAUSE, PAST_AGE_MAX, STORE_LOOK_TIME_MAX};
use crate::store::StoreError;
use crate::store::memory::open_ours;
use crate::survey::adoptions;
use crate::threads;

/// The answer, or why there is none.
type Told = Result<Vec<AdoptionReport>, String>;

/// Reads them.
type Look = dyn Fn() -> Result<Vec<AdoptionReport>, StoreError> + Send + Sync;

/// The last adoptions.
#[derive(Clone)]
pub(super) struct Past {
    look: Arc<Look>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    told: Option<Told>,
    /// When they were read.
    at: Option<Instant>,
    /// How long that took.
    took: Duration,
    /// They are being read.
    is_looking: bool,
}

impl Past {
    pub(super) fn new(host: &Host, settings: &Settings) -> Self {
        let (host, settings) = (host.clone(), settings.clone());
        Self::of(move || adoptions::last(open_ours(&host, &settings)?.0.as_ref()))
    }

    fn of(look: impl Fn() -> Result<Vec<AdoptionReport>, StoreError> + Send + Sync + 'static) -> Self {
        Self { look: Arc::new(look), known: Arc::default() }
    }

    /// As they are now, or were a moment ago.
    ///
    /// # Errors
    /// Why they can't be told, for an administrator.
    pub(super) fn adoptions(&self) -> Told {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = PAST_AGE_MAX.max(known.took.saturating_mul(LOOK_PAUSE));
        let is_fresh = known.at.is_some_and(|at| at.elapsed() < pause);
        if let (true, Some(told)) = (is_fresh || known.is_looking, &known.told) {
            return told.clone();
        }
        let not_yet = "the store has not told the last adoptions yet; ask again later";
        if known.is_looking {
            return Err(not_yet.to_owned());
        }
        known.is_looking = true;
        drop(known);
        let past = self.clone();
        threads::within("past", STORE_LOOK_TIME_MAX, move || past.look()).unwrap_or_else(|error| {
            if error.kind() != std::io::ErrorKind::TimedOut {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).is_looking = false;
            }
            Err(format!("the store does not tell the last adoptions: {error}"))
        })
    }

    fn look(&self) -> Told {
        let began = Instant::now();
        let told = (self.look)().map_err(|error| error.to_string());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Known {
            told: Some(told.clone()),
            at: Some(Instant::now()),
            took: began.elapsed(),
            is_looking: false,
        };
        told
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn the_store_is_read_once_for_all_that_ask_in_a_while() {
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let past = Past::of(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(Vec::new())
        });
        assert_eq!((past.adoptions(), past.adoptions()), (Ok(Vec::new()), Ok(Vec::new())));
        assert_eq!(looks.load(Ordering::SeqCst), 1);
        past.known.lock().unwrap().at = None;
        past.adoptions().unwrap();
        assert_eq!(looks.load(Ordering::SeqCst), 2, "an answer that is too old is read anew");
    }

    #[test]
    fn a_store_that_hangs_is_read_by_one_thread_however_many_ask() {
        let looks = Arc::new(AtomicUsize::new(0));
        let (go, gone) = channel::<()>();
        let (counted, gone) = (Arc::clone(&looks), Mutex::new(gone));
        let past = Past::of(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = gone.lock().unwrap().recv();
            Ok(Vec::new())
        });
        let why = past.adoptions().unwrap_err();
        assert!(why.starts_with("the store does not tell the last adoptions"), "{why}");
        for _ in 0..100 {
            assert!(past.adoptions().unwrap_err().contains("not told the last adoptions yet"));
        }
        assert_eq!(looks.load(Ordering::SeqCst), 1);
        drop(go);
        while past.adoptions().is_err() {
            std::thread::yield_now();
        }
    }
}
