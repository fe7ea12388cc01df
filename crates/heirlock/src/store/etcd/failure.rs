//! Failures of a call to etcd: of which kind each is, and the sentence that a person is told.

use heirlock_core::store::{StoreError, StoreErrorKind};

use super::wire::Refusal;

/// A call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallError {
    /// Why.
    pub(super) ill: Ill,
    /// What was asked may have been carried out.
    pub(super) may_be_done: bool,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ill {
    /// No endpoint answered; the last one's failure in words.
    Unreachable(String),
    /// Its answer is longer than any that is read, or than etcd sends.
    TooLong,
    /// Its answer makes no sense.
    Senseless(String),
    /// The user's password can't be read.
    Credentials(String),
    /// etcd refused it.
    Refused {
        /// The number of HTTP.
        status: u16,
        /// Its words.
        refusal: Refusal,
    },
}

// Numbers of gRPC (google/rpc/code.proto).
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const ABORTED: u32 = 10;
const OUT_OF_RANGE: u32 = 11;
const UNAVAILABLE: u32 = 14;
const DATA_LOSS: u32 = 15;
const UNAUTHENTICATED: u32 = 16;
const UNKNOWN: u32 = 2;
const CANCELLED: u32 = 1;

impl CallError {
    /// Before any endpoint was asked.
    pub(super) fn none_asked() -> Self {
        Self::not_done(Ill::Unreachable("no endpoint was asked".to_owned()))
    }

    /// Nothing was carried out.
    pub(super) fn not_done(ill: Ill) -> Self {
        Self { ill, may_be_done: false }
    }

    /// It may have been carried out.
    pub(super) fn lost(ill: Ill) -> Self {
        Self { ill, may_be_done: true }
    }

    /// etcd said no. A refusal after which the transaction may be carried out all the same is one that comes from a member's own
    /// trouble: it has given the transaction to the leader, perhaps, and not heard of it again.
    pub(super) fn refused(status: u16, refusal: Refusal) -> Self {
        let is_unsure = matches!(
            refusal.code,
            CANCELLED | UNKNOWN | DEADLINE_EXCEEDED | ABORTED | UNAVAILABLE | DATA_LOSS
        ) || (refusal.code == 0 && status >= 500);
        Self { ill: Ill::Refused { status, refusal }, may_be_done: is_unsure }
    }

    /// The same where what was asked is known not to have been carried out.
    pub(super) fn undone(self) -> Self {
        Self { may_be_done: false, ..self }
    }

    /// The same after attempts that may have been carried out.
    pub(super) fn after(self, may_be_done: bool) -> Self {
        Self { may_be_done: self.may_be_done || may_be_done, ..self }
    }

    /// Another member may answer: this one has trouble of its own. A refusal that etcd gives for what was asked, every member
    /// would give.
    pub(super) fn is_of_one_member(&self) -> bool {
        match &self.ill {
            Ill::Unreachable(_) | Ill::Senseless(_) => true,
            Ill::TooLong | Ill::Credentials(_) => false,
            Ill::Refused { refusal, .. } => self.may_be_done || refusal.message.contains("learner"),
        }
    }

    /// The token has ended, or the users were changed since it was given.
    pub(super) fn is_of_the_token(&self) -> bool {
        let Ill::Refused { refusal, .. } = &self.ill else { return false };
        let message = refusal.message.as_str();
        message.contains("invalid auth token") || message.contains("revision of auth store is old")
            || message.contains("revision in header is old")
            // A token is asked for where there is a user: "user name is empty" means that auth was switched on since then.
            || message.contains("user name is empty")
    }

    /// The user may not do it.
    pub(super) fn is_denied(&self) -> bool {
        matches!(&self.ill, Ill::Refused { refusal, .. } if refusal.code == PERMISSION_DENIED)
    }

    /// etcd has no users: it needs no token.
    pub(super) fn is_auth_off(&self) -> bool {
        matches!(&self.ill, Ill::Refused { refusal, .. } if refusal.message.contains("authentication is not enabled"))
    }

    /// A part of what was read has been compacted away: it is read anew.
    pub(super) fn is_compacted(&self) -> bool {
        matches!(&self.ill, Ill::Refused { refusal, .. } if refusal.code == OUT_OF_RANGE
            && (refusal.message.contains("compacted") || refusal.message.contains("future revision")))
    }

    /// The answer is too long: fewer keys are to be asked for.
    pub(super) fn is_too_long(&self) -> bool {
        match &self.ill {
            Ill::TooLong => true,
            Ill::Refused { refusal, .. } => {
                refusal.code == RESOURCE_EXHAUSTED && refusal.message.contains("message larger than max")
            }
            _ => false,
        }
    }

    /// The failure of the store at this place.
    pub(super) fn at(self, place: &str) -> StoreError {
        StoreError::new(self.kind(), format!("{place}: {}", self.sentence()))
    }

    fn kind(&self) -> StoreErrorKind {
        match &self.ill {
            Ill::TooLong | Ill::Senseless(_) => StoreErrorKind::Unexpected,
            // A person may mend these while an agent tries on: the next call may find them mended.
            Ill::Unreachable(_) | Ill::Credentials(_) | Ill::Refused { .. } => StoreErrorKind::Unavailable,
        }
    }

    /// The finding alone, for a sentence that says the rest.
    pub(super) fn why(&self) -> String {
        match &self.ill {
            Ill::Unreachable(why) => why.clone(),
            Ill::Refused { refusal, .. } => refusal.message.clone(),
            Ill::TooLong | Ill::Senseless(_) | Ill::Credentials(_) => self.sentence(),
        }
    }

    /// The finding and the remedy.
    fn sentence(&self) -> String {
        match &self.ill {
            Ill::Unreachable(why) => format!(
                "expected an answer of etcd, found none: {why}; see that a majority of its members runs and can be reached, and \
                 that the certificates are right ('heirlock doctor' asks each endpoint)"
            ),
            Ill::TooLong => "expected an answer of etcd within its bound, found a longer one; see what else lies below the \
                             prefix, which must be heirlock's alone"
                .to_owned(),
            Ill::Senseless(found) => {
                format!("{found}; see that the endpoints are those of etcd 3.4 or newer, with its JSON gateway")
            }
            Ill::Credentials(why) => {
                format!("expected the password of etcd's user, found none: {why}; name it in store.password-file")
            }
            Ill::Refused { status, refusal } => {
                let remedy = remedy(refusal);
                format!("expected that etcd does what it is asked, found {:?} (HTTP {status}); {remedy}", refusal.message)
            }
        }
    }
}

/// What an administrator can do.
fn remedy(refusal: &Refusal) -> &'static str {
    let says = |text: &str| refusal.message.contains(text);
    match refusal.code {
        _ if says("CommonName") => {
            "with users switched on, etcd's gateway takes no client certificate that has a common name (CN): make one whose subject \
             has none, and name the user in store.user and store.password-file"
        }
        _ if says("user name is empty") => {
            "etcd has its users switched on: name one in store.user and store.password-file"
        }
        _ if says("authentication failed") => {
            "see that store.user and the password in store.password-file are right"
        }
        PERMISSION_DENIED => {
            "give the user's role the right to read and write all keys that begin with store.prefix"
        }
        UNAUTHENTICATED => "see that store.user and the password in store.password-file are right",
        RESOURCE_EXHAUSTED if says("space exceeded") => {
            "its database is full: compact and defragment it, switch its automatic compaction on, then clear the alarm (etcdctl \
             alarm disarm): clients are unprotected until then"
        }
        RESOURCE_EXHAUSTED => "it is asked more than it can do: see what else uses it",
        UNAVAILABLE => "see that a majority of its members runs and has a leader (etcdctl endpoint status)",
        _ if refusal.code == 0 => {
            "see that the endpoints are those of etcd 3.4 or newer, with its JSON gateway"
        }
        _ => "see etcd's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: u32, message: &str) -> CallError {
        CallError::refused(status, Refusal { code, message: message.to_owned() })
    }

    /// The texts are those of etcd 3.4 and 3.5 (api/v3rpc/rpctypes/error.go).
    #[test]
    fn a_refusal_tells_whether_another_member_may_answer_and_whether_it_may_be_done() {
        let all = [
            (503, 14, "etcdserver: request timed out", true, true),
            (503, 14, "etcdserver: no leader", true, true),
            (503, 14, "etcdserver: rpc not supported for learner", true, true),
            (504, 4, "context deadline exceeded", true, true),
            (400, 3, "etcdserver: too many operations in txn request", false, false),
            (403, 7, "etcdserver: permission denied", false, false),
            (429, 8, "etcdserver: mvcc: database space exceeded", false, false),
            (401, 16, "etcdserver: invalid auth token", false, false),
            (502, 0, "<html>Bad Gateway</html>", true, true),
            (404, 0, "404 page not found", false, false),
        ];
        for (status, code, message, next, may_be_done) in all {
            let error = refused(status, code, message);
            assert_eq!((error.is_of_one_member(), error.may_be_done), (next, may_be_done), "{message}");
        }
    }

    #[test]
    fn the_sentence_of_a_refusal_says_what_to_do() {
        let all = [
            (403, 7, "etcdserver: permission denied", "all keys that begin with store.prefix"),
            (
                400,
                3,
                "CommonName of client sending a request against gateway will be ignored and not used as expected",
                "(CN)",
            ),
            (400, 3, "etcdserver: user name is empty", "store.user"),
            (400, 3, "etcdserver: authentication failed, invalid user ID or password", "store.password-file"),
            (429, 8, "etcdserver: mvcc: database space exceeded", "alarm disarm"),
            (503, 14, "etcdserver: no leader", "majority"),
            (404, 0, "404 page not found", "JSON gateway"),
        ];
        for (status, code, message, expected) in all {
            let error = refused(status, code, message).at("etcd at https://a:2379");
            let said = error.to_string();
            assert!(
                said.starts_with("etcd at https://a:2379: expected ") && said.contains(expected),
                "{said}"
            );
            assert!(error.may_pass(), "an agent tries on: {said}");
        }
    }

    #[test]
    fn a_token_that_ended_is_renewed_and_no_other_refusal_asks_for_that() {
        for message in [
            "etcdserver: invalid auth token",
            "etcdserver: revision of auth store is old",
            "etcdserver: user name is empty",
        ] {
            assert!(refused(401, 16, message).is_of_the_token(), "{message}");
        }
        assert!(!refused(403, 7, "etcdserver: permission denied").is_of_the_token());
        assert!(refused(400, 9, "etcdserver: authentication is not enabled").is_auth_off());
    }

    #[test]
    fn an_answer_that_is_too_long_and_a_revision_that_is_gone_are_told_from_other_refusals() {
        let large = "grpc: received message larger than max (5000000 vs. 4194304)";
        assert!(refused(429, 8, large).is_too_long() && CallError::lost(Ill::TooLong).is_too_long());
        assert!(!refused(429, 8, "etcdserver: mvcc: database space exceeded").is_too_long());
        assert!(refused(400, 11, "etcdserver: mvcc: required revision has been compacted").is_compacted());
        assert!(!refused(400, 11, "other").is_compacted());
    }
}
