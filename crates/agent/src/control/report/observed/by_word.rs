//! The words by which counts are told apart, and the place of each count. Metrics have these words as labels.

use heirlock_core::Outcome;
use heirlock_core::takeover::{Cause, Phase};

use super::{Answers, Calls, Ends, Hooks, Outcomes, Phases, Requests, Runs, Times};
use crate::config::Hook;

/// Words, in the order in which they are shown, and how each is spelled.
macro_rules! words {
    ($(#[$about:meta])* $list:ident { $($(#[$meaning:meta])* $word:ident: $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $list {
            $($(#[$meaning])* $word,)*
        }

        impl $list {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$word,)*];

            /// As requests and metrics spell it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)*
                }
            }
        }
    };
}

words! {
    /// A verb of the control socket that is counted.
    Verb {
        /// `adopt`, also with `--prepare` and `--finish`.
        Adopt: "adopt",
        /// `release`.
        Release: "release",
        /// `failback`.
        Failback: "failback",
        /// `move`.
        Move: "move",
        /// `maintenance`.
        Maintenance: "maintenance",
        /// `records forget`.
        Forget: "forget",
        /// `report`.
        Report: "report",
    }
}

words! {
    /// How a verb was answered.
    VerbEnd {
        /// It is done.
        Done: "done",
        /// There was nothing to do.
        Unchanged: "unchanged",
        /// It was refused; nothing was changed.
        Refused: "refused",
        /// It failed.
        Failed: "failed",
    }
}

words! {
    /// How a run ended.
    RunEnd {
        /// Every client's outcome is known.
        Settled: "settled",
        /// It could not go on.
        Failed: "failed",
        /// It changed nothing.
        Refused: "refused",
    }
}

words! {
    /// How a call ended.
    CallEnd {
        /// It succeeded.
        Done: "done",
        /// It failed.
        Failed: "failed",
    }
}

/// Where each word has its count.
macro_rules! counted {
    ($counts:ident of $word:ty => $count:ty { $($pattern:pat => $field:ident,)* }) => {
        impl $counts {
            /// The count of this word.
            #[must_use]
            pub fn of(&self, word: $word) -> &$count {
                match word {
                    $($pattern => &self.$field,)*
                }
            }

            /// The same, to count something.
            pub(crate) fn of_mut(&mut self, word: $word) -> &mut $count {
                match word {
                    $($pattern => &mut self.$field,)*
                }
            }
        }
    };
    ($counts:ident of $word:ty => $count:ty { $($pattern:pat => $field:ident,)* } and not $none:pat) => {
        impl $counts {
            /// The count of this word, where it has one.
            #[must_use]
            pub fn of(&self, word: $word) -> Option<&$count> {
                match word {
                    $($pattern => Some(&self.$field),)*
                    $none => None,
                }
            }

            /// The same, to count something.
            pub(crate) fn of_mut(&mut self, word: $word) -> Option<&mut $count> {
                match word {
                    $($pattern => Some(&mut self.$field),)*
                    $none => None,
                }
            }
        }
    };
}

counted! {
    Outcomes of Option<Outcome> => u64 {
        Some(Outcome::ReRegistered) => re_registered_total,
        Some(Outcome::Acknowledged) => acknowledged_total,
        Some(Outcome::Unreachable) => unreachable_total,
        Some(Outcome::Lost) => lost_total,
        None => unknown_total,
    }
}

counted! {
    Runs of Cause => Ends {
        Cause::Asked => asked,
        Cause::OwnerDead => owner_dead,
        Cause::OwnRestart => own_restart,
    }
}

counted! {
    Ends of RunEnd => u64 {
        RunEnd::Settled => settled_total,
        RunEnd::Failed => failed_total,
        RunEnd::Refused => refused_total,
    }
}

counted! {
    Phases of Phase => Times {
        Phase::Intent => intent,
        Phase::Fenced => fenced,
        Phase::Claimed => claimed,
        Phase::Conveyed => conveyed,
        Phase::Recognised => recognised,
        Phase::Proved => proved,
        Phase::Ready => ready,
        Phase::Notifying => notifying,
        Phase::Settling => settling,
    } and not Phase::Settled | Phase::Failed
}

counted! {
    Hooks of Hook => Calls {
        Hook::Fence => fence,
        Hook::VolumeUp => volume_up,
        Hook::AddressUp => address_up,
        Hook::AddressDown => address_down,
        Hook::VolumeDown => volume_down,
    }
}

counted! {
    Calls of CallEnd => u64 {
        CallEnd::Done => done_total,
        CallEnd::Failed => failed_total,
    }
}

counted! {
    Requests of Verb => Answers {
        Verb::Adopt => adopt,
        Verb::Release => release,
        Verb::Failback => failback,
        Verb::Move => r#move,
        Verb::Maintenance => maintenance,
        Verb::Forget => forget,
        Verb::Report => report,
    }
}

counted! {
    Answers of VerbEnd => u64 {
        VerbEnd::Done => done_total,
        VerbEnd::Unchanged => unchanged_total,
        VerbEnd::Refused => refused_total,
        VerbEnd::Failed => failed_total,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::to_value;

    use super::*;
    use crate::control::Request;

    #[test]
    fn each_word_is_that_of_the_field_with_its_count() {
        let has = |counts: serde_json::Value, word: &str| {
            let field = word.replace('-', "_");
            counts.get(&field).or_else(|| counts.get(format!("{field}_total"))).is_some()
        };
        let outcomes = to_value(Outcomes::default()).unwrap();
        assert!(Outcome::ALL.iter().all(|word| has(outcomes.clone(), word.as_str())));
        assert!(Cause::ALL.iter().all(|word| has(to_value(Runs::default()).unwrap(), word.as_str())));
        assert!(RunEnd::ALL.iter().all(|word| has(to_value(Ends::default()).unwrap(), word.as_str())));
        assert!(Hook::ALL.iter().all(|word| has(to_value(Hooks::default()).unwrap(), word.as_str())));
        assert!(CallEnd::ALL.iter().all(|word| has(to_value(Calls::default()).unwrap(), word.as_str())));
        assert!(Verb::ALL.iter().all(|word| has(to_value(Requests::default()).unwrap(), word.as_str())));
        assert!(VerbEnd::ALL.iter().all(|word| has(to_value(Answers::default()).unwrap(), word.as_str())));
        let phases = Phase::ALL.into_iter().filter(|phase| !phase.is_over());
        assert!(phases.clone().all(|phase| Phases::default().of(phase).is_some()));
        assert!(phases.clone().all(|word| has(to_value(Phases::default()).unwrap(), word.as_str())));
    }

    #[test]
    fn a_verb_is_spelled_as_in_its_request() {
        let requests = [
            r#"{"verb":"adopt","service":"nfs","prepare":false,"finish":false,"fenced":null,"force":false}"#,
            r#"{"verb":"release","service":"nfs"}"#,
            r#"{"verb":"failback","service":"nfs"}"#,
            r#"{"verb":"move","service":"nfs","to":"nfs-b"}"#,
            r#"{"verb":"maintenance","on":true}"#,
            r#"{"verb":"forget","service":"nfs","client":"10.0.0.1"}"#,
            r#"{"verb":"report","service":"nfs"}"#,
        ];
        let request = |text: &str| serde_json::from_str::<Request>(text).unwrap();
        let verbs: Vec<Verb> = requests.iter().filter_map(|text| request(text).verb()).collect();
        assert_eq!(verbs, Verb::ALL);
        for (text, verb) in requests.iter().zip(Verb::ALL) {
            assert!(text.starts_with(&format!(r#"{{"verb":"{}""#, verb.as_str())), "{text}");
        }
    }

    #[test]
    fn each_word_counts_in_a_field_of_its_own() {
        let mut outcomes = Outcomes::default();
        let words = Outcome::ALL.into_iter().map(Some).chain([None]);
        words.clone().zip(1..).for_each(|(word, count)| *outcomes.of_mut(word) = count);
        assert!(words.zip(1..).all(|(word, count)| *outcomes.of(word) == count), "{outcomes:?}");
        let mut answers = Answers::default();
        VerbEnd::ALL.iter().zip(1..).for_each(|(word, count)| *answers.of_mut(*word) = count);
        assert!(VerbEnd::ALL.iter().zip(1..).all(|(word, count)| *answers.of(*word) == count), "{answers:?}");
        let mut requests = Requests::default();
        Verb::ALL.iter().zip(1..).for_each(|(word, count)| requests.of_mut(*word).asked_total = count);
        assert!(Verb::ALL.iter().zip(1..).all(|(word, count)| requests.of(*word).asked_total == count));
    }
}
