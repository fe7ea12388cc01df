//! Which server may act for a service (I3: one adopter).
//!
//! A claim is created once, by compare-and-swap in the store, and never changes; giving a service away adds a
//! mark beside it. The newest claim names the owner. A server that sees a newer claim than its own stops.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::{Generation, ServerName, ServiceName};
use crate::planted::{Bug, planted};

/// The durable, exclusive right of one server to act for one service in one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Claim {
    /// The generation.
    pub generation: Generation,
    /// The server that owns it.
    pub owner: ServerName,
    /// The run of the agent that made it, so that two agents under one name don't take each other's for theirs.
    pub agent: String,
    /// When, in seconds since 1970 by the owner's clock. For people; nothing is decided by it.
    pub claimed_at_s: u64,
    /// The owner gave it up in order.
    #[serde(default)]
    pub released: bool,
    /// It takes the service over, from another owner or after it was given up: no lock of its clients lives in the owner's
    /// lock manager. Else it follows a claim of the same owner.
    #[serde(default)]
    pub adopts: bool,
    /// Why the claim itself can't be read, where what it said is known from the generation that it began.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

impl Claim {
    /// A claim as it is made by the owner itself: not given up, and nothing is taken over.
    #[must_use]
    pub fn new(generation: Generation, owner: &ServerName, agent: &str, claimed_at_s: u64) -> Self {
        let (owner, agent) = (owner.clone(), agent.to_owned());
        Self { generation, owner, agent, claimed_at_s, released: false, adopts: false, unreadable: None }
    }

    /// The same where `newest` is the newest claim before it: it takes the service over unless that is its owner's own, and
    /// was not given up.
    #[must_use]
    pub fn following(self, newest: Option<&Self>) -> Self {
        let adopts = newest.is_none_or(|newest| !newest.is_held_by(&self.owner));
        Self { adopts, ..self }
    }

    /// Whether this server owns it, and has not given it up.
    #[must_use]
    pub fn is_held_by(&self, who: &ServerName) -> bool {
        self.owner == *who && !self.released
    }

    /// Whether the service is another server's now, where `newest` is the newest claim of it. The server that made this claim
    /// then changes nothing any more of the generation that it began (I3). A claim that its owner gave up gives way to no other
    /// claim before another server makes one.
    #[must_use]
    pub fn gives_way_to(&self, newest: &Self) -> bool {
        newest.owner != self.owner && newest.generation >= self.generation
    }

    /// Whether this claim, which the store has, is the one that was made, by the same run of the same server's agent. A
    /// claim whose creation seemed to fail may be there all the same. A claim that was given up since then has no holder.
    #[must_use]
    pub fn is_still(&self, made: &Self) -> bool {
        self.is_held_by(&made.owner) && self.agent == made.agent
    }
}

/// One server's knowledge of the owner's heart. No clock is compared: only changes that were seen count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerHeart {
    /// Its beat changed this long ago, by our own clock.
    Beating {
        /// since the last change that was seen
        last_change: Duration,
    },
    /// No change was seen for this long, which is longer than `dead-after`.
    Silent {
        /// since the last change, or since watching began
        for_time: Duration,
    },
    /// It has not been watched for long enough to say.
    Unknown {
        /// how long it has been watched
        watched: Duration,
        /// how long it must be
        needed: Duration,
    },
    /// It said that it stops in order.
    Paused,
    /// It never wrote a heartbeat.
    NeverSeen,
}

/// The grounds on which a claim is permitted while the owner lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Authority {
    /// The cluster manager says that this server is off (`--owner-fenced`). It permits nothing over another one that has
    /// become the owner meanwhile.
    pub fenced: Option<ServerName>,
    /// The operator insists (`--force`).
    pub insisted: bool,
    /// A fence confirms before the claim that the owner is off. It permits nothing over one that is seen to live.
    #[serde(default)]
    pub confirmed: bool,
}

/// Why a service can't be claimed now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClaimRefusal {
    /// The owner lives.
    #[error(
        "{service} belongs to {owner}, whose heartbeat changed {ago_ms} ms ago: two servers that serve it would \
         both grant its locks; release it there, or make sure that {owner} is off and say '--owner-fenced {owner}'"
    )]
    OwnerAlive {
        /// what was to be claimed
        service: ServiceName,
        /// whose it is
        owner: ServerName,
        /// age of the last beat
        ago_ms: u64,
    },
    /// The owner said that its silence means nothing.
    #[error(
        "{service} belongs to {owner}, whose agent was stopped in order or is in maintenance: {owner} may serve it all \
         the same, and both would grant its locks; release it there, or make sure that {owner} is off and say \
         '--owner-fenced {owner}'"
    )]
    OwnerPaused {
        /// what was to be claimed
        service: ServiceName,
        /// whose it is
        owner: ServerName,
    },
    /// It is too early to say whether the owner lives.
    #[error(
        "{owner}, the owner of {service}, has been watched for only {watched_ms} of {needed_ms} ms: too short to \
         say that it is dead; make sure that it is off and say '--owner-fenced {owner}'"
    )]
    OwnerUnknown {
        /// what was to be claimed
        service: ServiceName,
        /// whose it is
        owner: ServerName,
        /// how long it has been watched
        watched_ms: u64,
        /// how long it must be
        needed_ms: u64,
    },
    /// The owner is silent, and nothing says that it is off.
    #[error(
        "{service} belongs to {owner}, whose heart is still: that alone doesn't say that it is off, for a server that \
         lost only the store serves on, and both would grant its locks; make sure that {owner} is off and say \
         '--owner-fenced {owner}', or set hooks.fence, which is asked in your place"
    )]
    OwnerNotFenced {
        /// what was to be claimed
        service: ServiceName,
        /// whose it is
        owner: ServerName,
    },
    /// Another server is said to be off than the one whose it is.
    #[error("{service} belongs to {owner}, and --owner-fenced speaks of {named}{}; nothing was changed", hint(.owner, .named))]
    OtherFenced {
        /// what was to be claimed
        service: ServiceName,
        /// whose it is
        owner: ServerName,
        /// which one is said to be off
        named: ServerName,
    },
    /// Another server is taking it over, or has taken it over.
    #[error(
        "{service} was claimed by {owner} as generation {generation} at the same moment; nothing was changed"
    )]
    Overtaken {
        /// what was to be claimed
        service: ServiceName,
        /// the server that was faster
        owner: ServerName,
        /// under which number
        generation: Generation,
    },
    /// The store never saw it, and it is at home elsewhere.
    #[error(
        "nothing in the store says that {service} ever existed, and it is at home on {home}: none of its clients is on \
         record, so none would be told; see that this is the right store and that the agent of {home} runs, or say --force"
    )]
    NeverSeen {
        /// what was to be claimed
        service: ServiceName,
        /// where it is at home
        home: ServerName,
    },
}

/// Whether `who` may be the first to claim a service. A service that is at home elsewhere was claimed by its home as soon as
/// the agent there began: a store that shows no claim of it is hardly the store that its clients are on record in.
///
/// # Errors
/// Where it never was claimed, is at home on another server, and the operator does not insist.
pub fn check_first(
    service: &ServiceName,
    newest: Option<&Claim>,
    who: &ServerName,
    home: Option<&ServerName>,
    authority: &Authority,
) -> Result<(), ClaimRefusal> {
    match home {
        Some(home) if newest.is_none() && home != who && !authority.insisted => {
            Err(ClaimRefusal::NeverSeen { service: service.clone(), home: home.clone() })
        }
        _ => Ok(()),
    }
}

/// The hint after an `--owner-fenced` that names another server than the owner. Two spellings of one name are told apart all
/// the same: `nfs-a` of one domain is not `nfs-a` of another, and a guess would take a service from a server that serves it.
fn hint(owner: &ServerName, named: &ServerName) -> String {
    if is_spelt_alike(owner.as_str(), named.as_str()) {
        format!(": if {owner} is meant, say '--owner-fenced {owner}', as the store spells it")
    } else {
        format!(": make sure that {owner} is off and say '--owner-fenced {owner}'")
    }
}

/// The same name but for its case and its domain.
fn is_spelt_alike(a: &str, b: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_same = a.eq_ignore_ascii_case(b);
    is_same || ((!a.contains('.') || !b.contains('.')) && short(a) == short(b))
}

/// Whether `who` may claim the next generation of `service`, and which one that is.
///
/// The silence of an owner is never enough by itself: an administrator or a fence must know that it is off ([`Authority`]).
///
/// # Errors
/// Where the newest claim belongs to another server that lives or may live.
pub fn next_generation(
    service: &ServiceName,
    newest: Option<&Claim>,
    who: &ServerName,
    heart: OwnerHeart,
    authority: &Authority,
) -> Result<Generation, ClaimRefusal> {
    let Some(claim) = newest else { return Ok(Generation::FIRST) };
    let next = claim.generation.next();
    if claim.owner == *who || claim.released || authority.insisted {
        return Ok(next);
    }
    match &authority.fenced {
        Some(named) if *named == claim.owner => return Ok(next),
        Some(named) => {
            return Err(ClaimRefusal::OtherFenced {
                service: service.clone(),
                owner: claim.owner.clone(),
                named: named.clone(),
            });
        }
        None => {}
    }
    match heart {
        OwnerHeart::Silent { .. } | OwnerHeart::NeverSeen if authority.confirmed => Ok(next),
        OwnerHeart::Silent { .. } | OwnerHeart::NeverSeen => {
            Err(ClaimRefusal::OwnerNotFenced { service: service.clone(), owner: claim.owner.clone() })
        }
        // A pause stops the automatic from acting; it does not say that the service was given away.
        OwnerHeart::Paused => {
            Err(ClaimRefusal::OwnerPaused { service: service.clone(), owner: claim.owner.clone() })
        }
        OwnerHeart::Beating { .. } if planted(Bug::ClaimOverLiving) => Ok(next),
        OwnerHeart::Beating { last_change } => Err(ClaimRefusal::OwnerAlive {
            service: service.clone(),
            owner: claim.owner.clone(),
            ago_ms: millis(last_change),
        }),
        OwnerHeart::Unknown { watched, needed } => Err(ClaimRefusal::OwnerUnknown {
            service: service.clone(),
            owner: claim.owner.clone(),
            watched_ms: millis(watched),
            needed_ms: millis(needed),
        }),
    }
}

/// Whether the owner of a service may be fenced now: once that is confirmed, the service can be claimed. The silence of the
/// owner may be of long ago, where the agent stood still since the run was asked for.
///
/// # Errors
/// The refusal of the claim that would follow.
pub fn may_fence(
    service: &ServiceName,
    newest: Option<&Claim>,
    who: &ServerName,
    heart: OwnerHeart,
    authority: &Authority,
) -> Result<(), ClaimRefusal> {
    let confirmed = Authority { confirmed: true, ..authority.clone() };
    next_generation(service, newest, who, heart, &confirmed).map(|_| ())
}

/// Whether a claim whose generation was never begun changed nothing: the outcomes in the generation `base` are still true of
/// the clients' locks. So where it directly follows a claim of the same owner that was not given up.
#[must_use]
pub fn goes_on(claim: &Claim, base: Generation) -> bool {
    !claim.adopts && base.next() == claim.generation
}

/// Whether a generation that is held is another's now, or needs to be looked up anew.
///
/// `run_of` is the agent (this very run of it) whose adoption or recovery of the service is on: until the generation that
/// it claimed is begun, the newest claim is its own, and not another adopter's.
#[must_use]
pub fn is_overtaken(held: Generation, newest: &Claim, run_of: Option<&str>) -> bool {
    newest.generation > held && run_of != Some(newest.agent.as_str()) && !planted(Bug::IgnoreOvertaken)
}

/// How a service that a server holds stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As it should.
    Whole,
    /// It was given up: the store has taken that, and this server was told that it failed.
    GivenUp,
    /// Another claim counts now.
    Overtaken,
    /// The claim or its generation is gone.
    Vanished,
}

/// How the generation that `who` holds stands in a store whose newest claim is `newest`, and whose newest generation up to
/// the held one is `begun`. For `run_of` see [`is_overtaken`]. `was_here`: the held one was seen in this very store, and not
/// only in one before it.
#[must_use]
pub fn standing(
    held: Generation,
    who: &ServerName,
    newest: Option<&Claim>,
    begun: Option<Generation>,
    run_of: Option<&str>,
    was_here: bool,
) -> Standing {
    match newest {
        // The server that has it in the store that was accepted may be serving it.
        Some(claim) if !was_here && claim.owner != *who && !claim.released => Standing::Overtaken,
        Some(claim) if is_overtaken(held, claim, run_of) => Standing::Overtaken,
        // In an older copy of the store the number was free for another server.
        Some(claim) if claim.generation == held && claim.owner != *who => Standing::Overtaken,
        Some(claim) if claim.generation == held && claim.released => Standing::GivenUp,
        Some(claim) if claim.generation >= held && begun == Some(held) => Standing::Whole,
        _ => Standing::Vanished,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(
        newest: Option<&Claim>,
        heart: OwnerHeart,
        authority: &Authority,
    ) -> Result<Generation, ClaimRefusal> {
        let service = ServiceName::parse("nfs").unwrap();
        next_generation(&service, newest, &ServerName::parse("nfs-b").unwrap(), heart, authority)
    }

    fn claim(owner: &str, released: bool) -> Claim {
        Claim {
            generation: Generation(4),
            owner: ServerName::parse(owner).unwrap(),
            agent: "a".into(),
            claimed_at_s: 0,
            released,
            adopts: false,
            unreadable: None,
        }
    }

    #[test]
    fn the_claim_that_the_store_has_is_the_one_that_was_made_where_the_same_run_made_it_and_holds_it() {
        let made = claim("nfs-b", false);
        assert!(
            made.is_still(&made) && Claim { adopts: true, claimed_at_s: 9, ..made.clone() }.is_still(&made)
        );
        for other in
            [claim("nfs-a", false), claim("nfs-b", true), Claim { agent: "b".into(), ..made.clone() }]
        {
            assert!(!other.is_still(&made), "{other:?}");
        }
    }

    #[test]
    fn a_claim_takes_over_what_is_not_its_owners_own() {
        let ours = claim("nfs-b", false);
        let follows = |newest: Option<&Claim>| ours.clone().following(newest).adopts;
        assert!(!follows(Some(&claim("nfs-b", false))));
        assert!(follows(Some(&claim("nfs-b", true))), "it was given up, and others may have served it");
        assert!(follows(Some(&claim("nfs-a", false))) && follows(None));
    }

    #[test]
    fn a_claim_goes_on_where_it_follows_our_own_alone() {
        let own = claim("nfs-a", false);
        assert!(goes_on(&own, Generation(3)));
        assert!(!goes_on(&own, Generation(2)), "the one between took it over, perhaps");
        assert!(!goes_on(&Claim { adopts: true, ..own }, Generation(3)));
    }

    #[test]
    fn a_claim_of_our_own_run_does_not_overtake_it_and_any_other_does() {
        let newest = claim("nfs-a", false);
        assert!(!is_overtaken(Generation(4), &newest, None));
        assert!(!is_overtaken(Generation(3), &newest, Some("a")), "claimed, and not begun yet");
        assert!(is_overtaken(Generation(3), &newest, None), "by a run that ended before it was begun");
        assert!(is_overtaken(Generation(3), &newest, Some("another")));
    }

    #[test]
    fn a_claim_or_a_generation_that_vanished_is_no_claim_that_goes_on() {
        let us = ServerName::parse("nfs-a").unwrap();
        let (ours, theirs) = (claim("nfs-a", false), claim("nfs-b", false));
        let stands = |held, newest: Option<&Claim>, begun: Option<u64>, run_of| {
            standing(Generation(held), &us, newest, begun.map(Generation), run_of, true)
        };
        assert_eq!(stands(4, Some(&ours), Some(4), None), Standing::Whole);
        assert_eq!(stands(4, Some(&ours), Some(3), None), Standing::Vanished);
        assert_eq!(stands(4, None, Some(4), None), Standing::Vanished);
        assert_eq!(stands(5, Some(&theirs), Some(5), None), Standing::Vanished, "an older copy of the store");
        assert_eq!(stands(4, Some(&theirs), Some(4), None), Standing::Overtaken);
        assert_eq!(stands(3, Some(&theirs), Some(3), None), Standing::Overtaken);
        assert_eq!(stands(3, Some(&ours), Some(3), Some("a")), Standing::Whole, "its own run has claimed on");
        let accepted = |newest: Option<&Claim>| standing(Generation(9), &us, newest, None, None, false);
        assert_eq!(
            accepted(Some(&theirs)),
            Standing::Overtaken,
            "who has it in the accepted store may serve it"
        );
        assert_eq!(accepted(Some(&claim("nfs-b", true))), Standing::Vanished);
        assert_eq!(accepted(None), Standing::Vanished);
    }

    #[test]
    fn a_server_that_is_first_to_claim_away_from_the_services_home_must_insist() {
        let nfs = ServiceName::parse("nfs").unwrap();
        let [us, home] = ["nfs-b", "nfs-a"].map(|name| ServerName::parse(name).unwrap());
        let first = |newest: Option<&Claim>, home: Option<&ServerName>, insisted| {
            check_first(&nfs, newest, &us, home, &Authority { insisted, ..Authority::default() })
        };
        let refused = first(None, Some(&home), false).unwrap_err().to_string();
        assert!(refused.contains("at home on nfs-a") && refused.contains("--force"), "{refused}");
        for (newest, home, insisted) in [
            (None, Some(&home), true),
            (None, Some(&us), false),
            (None, None, false),
            (Some(&claim("nfs-a", false)), Some(&home), false),
        ] {
            assert_eq!(first(newest, home, insisted), Ok(()));
        }
    }

    const BEATING: OwnerHeart = OwnerHeart::Beating { last_change: Duration::from_millis(300) };
    const SILENT: OwnerHeart = OwnerHeart::Silent { for_time: Duration::from_secs(20) };

    #[test]
    fn the_first_claim_of_a_service_needs_no_owners_leave() {
        assert_eq!(ask(None, OwnerHeart::NeverSeen, &Authority::default()), Ok(Generation(1)));
    }

    #[test]
    fn a_living_owner_keeps_its_service() {
        let refused = ask(Some(&claim("nfs-a", false)), BEATING, &Authority::default()).unwrap_err();
        assert!(
            refused.to_string().contains("nfs-a") && refused.to_string().contains("--owner-fenced"),
            "{refused}"
        );
        let unknown = OwnerHeart::Unknown { watched: Duration::from_secs(1), needed: Duration::from_secs(6) };
        assert!(ask(Some(&claim("nfs-a", false)), unknown, &Authority::default()).is_err());
        let paused =
            ask(Some(&claim("nfs-a", false)), OwnerHeart::Paused, &Authority::default()).unwrap_err();
        let paused = paused.to_string();
        assert!(paused.contains("stopped in order") && !paused.contains("0 ms"), "it has no beat: {paused}");
    }

    #[test]
    fn a_service_given_up_or_fenced_or_silent_or_our_own_can_be_claimed() {
        let fenced = fenced("nfs-a");
        let insisted = Authority { insisted: true, ..Authority::default() };
        let confirmed = Authority { confirmed: true, ..Authority::default() };
        for (newest, heart, authority) in [
            (claim("nfs-a", true), BEATING, Authority::default()),
            (claim("nfs-a", false), BEATING, fenced),
            (claim("nfs-a", false), BEATING, insisted),
            (claim("nfs-a", false), SILENT, confirmed.clone()),
            (claim("nfs-a", false), OwnerHeart::NeverSeen, confirmed),
            (claim("nfs-b", false), BEATING, Authority::default()),
        ] {
            assert_eq!(ask(Some(&newest), heart, &authority), Ok(Generation(5)), "{newest:?}");
        }
    }

    fn fenced(server: &str) -> Authority {
        Authority { fenced: Some(ServerName::parse(server).unwrap()), ..Authority::default() }
    }

    #[test]
    fn a_silent_owner_keeps_its_service_until_it_is_known_to_be_off() {
        for heart in [SILENT, OwnerHeart::NeverSeen] {
            let refused = ask(Some(&claim("nfs-a", false)), heart, &Authority::default()).unwrap_err();
            let said = refused.to_string();
            assert!(said.contains("'--owner-fenced nfs-a'") && said.contains("hooks.fence"), "{said}");
        }
    }

    #[test]
    fn a_fences_word_permits_nothing_over_an_owner_that_is_seen_to_live() {
        let confirmed = Authority { confirmed: true, ..Authority::default() };
        assert!(ask(Some(&claim("nfs-a", false)), BEATING, &confirmed).is_err());
        assert!(ask(Some(&claim("nfs-a", false)), OwnerHeart::Paused, &confirmed).is_err());
    }

    #[test]
    fn a_name_that_is_not_the_owners_is_refused_and_both_are_said_whatever_the_owners_heart_does() {
        for (owner, named, is_spelling) in [
            ("nfs-a", "nfs-c", false),
            ("nfs-a", "NFS-A", true),
            ("nfs-a", "nfs-a.example.com", true),
            ("nfs-a.example.com", "Nfs-A", true),
            ("nfs-a.one.example", "nfs-a.two.example", false),
        ] {
            for heart in [BEATING, SILENT, OwnerHeart::NeverSeen, OwnerHeart::Paused] {
                let refused = ask(Some(&claim(owner, false)), heart, &fenced(named)).unwrap_err();
                let said = refused.to_string();
                assert!(said.contains(&format!("belongs to {owner}, and --owner-fenced speaks of {named}")));
                assert!(said.contains(&format!("say '--owner-fenced {owner}'")), "{said}");
                assert_eq!(said.contains("as the store spells it"), is_spelling, "{said}");
            }
        }
    }

    #[test]
    fn a_service_that_was_given_up_is_claimed_without_a_fenced_owner_and_a_wrong_one_does_no_harm() {
        for (owner, released) in [("nfs-a", true), ("nfs-b", false)] {
            let newest = claim(owner, released);
            for authority in [Authority::default(), fenced("nfs-c")] {
                assert_eq!(ask(Some(&newest), SILENT, &authority), Ok(Generation(5)));
            }
        }
    }

    #[test]
    fn the_fence_of_one_server_permits_nothing_over_the_next_owner() {
        let newest = claim("nfs-c", false);
        assert!(ask(Some(&newest), BEATING, &fenced("nfs-a")).is_err());
        assert!(ask(Some(&newest), BEATING, &fenced("nfs-c")).is_ok());
    }
}
