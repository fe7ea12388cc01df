//! The keys of the store: where each thing lies below the prefix, and what a key that was found stands for.
//!
//! | key below the prefix | value |
//! |---|---|
//! | `format` | which kind of store it is, and of which format; made with it, never changed |
//! | `identity` | the identity of the store; made with it, never changed |
//! | `claims/<service>/<n>` | the owner of generation `n`; made under the condition that there is none, never changed |
//! | `claims/<service>/<n>.released` | it was given up in order |
//! | `begun/<service>/<n>` | generation `n` is whole |
//! | `turns/<service>/<n>` | the mark of the last transaction that changed generation `n` |
//! | `generations/<service>/<n>/sm/<address>` | a client's record, in statd's own lines |
//! | `generations/<service>/<n>/state` | the state number, as statd's `state` |
//! | `generations/<service>/<n>/journal.json` | how far the adoption that began it has come |
//! | `generations/<service>/<n>/outcomes/<m>` | outcomes, a line each, of the commit with this number |
//! | `history/<service>/<n>` | the account of generation `n` after it was removed |
//! | `servers/<server>` | heartbeat, pause, incarnation, health |
//! | `probe` | what the last proof wrote that the store can be written |
//!
//! Numbers have twenty digits, so that their order as text is that of the numbers: etcd knows no other. What a folder keeps
//! below a service lies here the other way round, so that one question shows the claims of all services, and none of it shows
//! their records.

use heirlock_core::{Generation, RecordKey, ServerName, ServiceName};
use heirlock_nsm::MonName;

use super::wire::Span;

/// Digits of a number.
const DIGITS: usize = 20;

/// The end of the key that says that a claim was given up.
const RELEASED: &str = ".released";

/// The keys below one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// Below this prefix, which ends with a slash.
    pub(super) fn below(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The prefix.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key that says what the store is.
    pub(super) fn format(&self) -> Vec<u8> {
        self.at("format")
    }

    /// The key of the store's identity.
    pub(super) fn identity(&self) -> Vec<u8> {
        self.at("identity")
    }

    /// The key of a proof that the store can be written.
    pub(super) fn probe(&self) -> Vec<u8> {
        self.at("probe")
    }

    /// All of the store.
    pub(super) fn all(&self) -> Span {
        below(&self.prefix)
    }

    /// The parts that have something only where something was kept.
    pub(super) fn kept(&self) -> [Span; 6] {
        ["claims/", "begun/", "turns/", "generations/", "history/", "servers/"]
            .map(|part| below(&format!("{}{part}", self.prefix)))
    }

    /// The claims of all services.
    pub(super) fn all_claims(&self) -> Span {
        below(&format!("{}claims/", self.prefix))
    }

    /// The marks of the whole generations of all services.
    pub(super) fn all_begun(&self) -> Span {
        below(&format!("{}begun/", self.prefix))
    }

    /// The claims of a service.
    pub(super) fn claims(&self, service: &ServiceName) -> Span {
        below(&format!("{}claims/{service}/", self.prefix))
    }

    /// The claims of a service from a generation on, with the marks that they were given up.
    pub(super) fn claims_from(&self, service: &ServiceName, from: Generation) -> Span {
        Span { from: self.claim(service, from), ..self.claims(service) }
    }

    /// The claims of a service that are newer than a generation's.
    pub(super) fn claims_after(&self, service: &ServiceName, generation: Generation) -> Span {
        // The mark of that generation's own claim comes before it.
        self.claims_from(service, generation.next())
    }

    /// The claims of a service before a generation's.
    pub(super) fn claims_before(&self, service: &ServiceName, generation: Generation) -> Span {
        Span { to: Some(self.claim(service, generation)), ..self.claims(service) }
    }

    /// A claim.
    pub(super) fn claim(&self, service: &ServiceName, generation: Generation) -> Vec<u8> {
        self.at(&format!("claims/{service}/{}", digits(generation.0)))
    }

    /// The mark that a claim was given up.
    pub(super) fn released(&self, service: &ServiceName, generation: Generation) -> Vec<u8> {
        self.at(&format!("claims/{service}/{}{RELEASED}", digits(generation.0)))
    }

    /// The marks of the whole generations of a service.
    pub(super) fn all_begun_of(&self, service: &ServiceName) -> Span {
        below(&format!("{}begun/{service}/", self.prefix))
    }

    /// Those at or below a generation.
    pub(super) fn begun_up_to(&self, service: &ServiceName, at_most: Generation) -> Span {
        let mut after = self.begun(service, at_most);
        after.push(0);
        Span { to: Some(after), ..self.all_begun_of(service) }
    }

    /// Those before a generation.
    pub(super) fn begun_before(&self, service: &ServiceName, generation: Generation) -> Span {
        Span { to: Some(self.begun(service, generation)), ..self.all_begun_of(service) }
    }

    /// The mark that a generation is whole.
    pub(super) fn begun(&self, service: &ServiceName, generation: Generation) -> Vec<u8> {
        self.at(&format!("begun/{service}/{}", digits(generation.0)))
    }

    /// The mark of the last transaction that changed a generation.
    pub(super) fn turn(&self, service: &ServiceName, generation: Generation) -> Vec<u8> {
        self.at(&format!("turns/{service}/{}", digits(generation.0)))
    }

    /// Those of the generations before this one.
    pub(super) fn turns_before(&self, service: &ServiceName, generation: Generation) -> Span {
        let all = below(&format!("{}turns/{service}/", self.prefix));
        Span { to: Some(self.turn(service, generation)), ..all }
    }

    /// All of a generation.
    pub(super) fn generation(&self, service: &ServiceName, generation: Generation) -> Span {
        below(&self.generation_place(service, generation))
    }

    /// All of the generations before this one.
    pub(super) fn generations_before(&self, service: &ServiceName, generation: Generation) -> Span {
        let to = self.generation_place(service, generation).into_bytes();
        Span { to: Some(to), ..below(&format!("{}generations/{service}/", self.prefix)) }
    }

    /// The records of a generation.
    pub(super) fn records(&self, service: &ServiceName, generation: Generation) -> Span {
        below(&format!("{}sm/", self.generation_place(service, generation)))
    }

    /// A record.
    pub(super) fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Vec<u8> {
        let name = match key {
            RecordKey::Nsm(client) => client.as_str(),
        };
        format!("{}sm/{name}", self.generation_place(service, generation)).into_bytes()
    }

    /// The state number of a generation.
    pub(super) fn state(&self, service: &ServiceName, generation: Generation) -> Vec<u8> {
        format!("{}state", self.generation_place(service, generation)).into_bytes()
    }

    /// The journal of a generation.
    pub(super) fn journal(&self, service: &ServiceName, generation: Generation) -> Vec<u8> {
        format!("{}journal.json", self.generation_place(service, generation)).into_bytes()
    }

    /// The outcomes of a generation.
    pub(super) fn outcomes(&self, service: &ServiceName, generation: Generation) -> Span {
        below(&format!("{}outcomes/", self.generation_place(service, generation)))
    }

    /// The outcomes that one commit appends, or a part of those that a generation begins with.
    pub(super) fn outcome(&self, service: &ServiceName, generation: Generation, place: [u64; 2]) -> Vec<u8> {
        let [commit, part] = place.map(digits);
        format!("{}outcomes/{commit}.{part}", self.generation_place(service, generation)).into_bytes()
    }

    /// The accounts of a service's removed generations.
    pub(super) fn tenures(&self, service: &ServiceName) -> Span {
        below(&format!("{}history/{service}/", self.prefix))
    }

    /// The account of a generation.
    pub(super) fn tenure(&self, service: &ServiceName, generation: Generation) -> Vec<u8> {
        self.at(&format!("history/{service}/{}", digits(generation.0)))
    }

    /// The heartbeats.
    pub(super) fn servers(&self) -> Span {
        below(&format!("{}servers/", self.prefix))
    }

    /// A server's heartbeat.
    pub(super) fn server(&self, server: &ServerName) -> Vec<u8> {
        self.at(&format!("servers/{server}"))
    }

    /// The place of a generation, which all its keys begin with.
    pub(super) fn generation_place(&self, service: &ServiceName, generation: Generation) -> String {
        format!("{}generations/{service}/{}/", self.prefix, digits(generation.0))
    }

    fn at(&self, below: &str) -> Vec<u8> {
        format!("{}{below}", self.prefix).into_bytes()
    }
}

/// A key that was found in a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A record, or why its name is none of a record.
    Record(Result<RecordKey, String>),
    /// The state number.
    State,
    /// The journal.
    Journal,
    /// Outcomes.
    Outcomes,
    /// None of the store's.
    Stray,
}

/// What a key stands for, by what follows the place of its generation.
pub(super) fn part(below: &[u8]) -> Part {
    let Ok(text) = std::str::from_utf8(below) else {
        return match below.strip_prefix(b"sm/") {
            Some(_) => Part::Record(Err("expected a client's name, found bytes that are no text".to_owned())),
            None => Part::Stray,
        };
    };
    match (text, text.split_once('/')) {
        ("state", _) => Part::State,
        ("journal.json", _) => Part::Journal,
        (_, Some(("outcomes", _))) => Part::Outcomes,
        (_, Some(("sm", name))) => {
            let key = MonName::parse(name).map(RecordKey::Nsm);
            Part::Record(key.map_err(|error| error.to_string()))
        }
        _ => Part::Stray,
    }
}

/// A key that was found among the claims of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimKey {
    /// A claim.
    Claim(Generation),
    /// The mark that it was given up.
    Released(Generation),
}

/// What a key among the claims of a service stands for; nothing where it is none of the store's.
pub(super) fn claim_key(span: &Span, key: &[u8]) -> Option<ClaimKey> {
    let name = std::str::from_utf8(key.strip_prefix(&*span.from)?).ok()?;
    match name.strip_suffix(RELEASED) {
        Some(number) => parse_digits(number).map(ClaimKey::Released),
        None => parse_digits(name).map(ClaimKey::Claim),
    }
}

/// The number that a key ends with, of those that lie below a place.
pub(super) fn number(span: &Span, key: &[u8]) -> Option<Generation> {
    std::str::from_utf8(key.strip_prefix(&*span.from)?).ok().and_then(parse_digits)
}

/// The service that a key below `claims/` or `begun/` is of.
pub(super) fn service_of(span: &Span, key: &[u8]) -> Option<ServiceName> {
    let below = std::str::from_utf8(key.strip_prefix(&*span.from)?).ok()?;
    let (service, number) = below.split_once('/')?;
    parse_digits(number.strip_suffix(RELEASED).unwrap_or(number))?;
    ServiceName::try_from(service.to_owned()).ok()
}

fn digits(number: u64) -> String {
    format!("{number:0DIGITS$}")
}

fn parse_digits(text: &str) -> Option<Generation> {
    let is_number = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).map(Generation)
}

/// All keys that begin with this text, which ends with a slash.
fn below(text: &str) -> Span {
    let mut after = text.as_bytes().to_vec();
    // A slash is followed by the digit 0: no text that begins with the place lies at or after that.
    if let Some(last) = after.last_mut() {
        *last += 1;
    }
    Span::between(text.as_bytes(), after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    fn has(span: &Span, key: &[u8]) -> bool {
        *span.from <= *key && span.to.as_ref().is_some_and(|to| key < to.as_slice())
    }

    proptest! {
        #[test]
        fn keys_are_in_the_order_of_their_numbers_and_tell_them(one: u64, other: u64) {
            let (keys, nfs) = (Keys::below("/heirlock/"), service("nfs"));
            let [first, second] = [one, other].map(|number| keys.claim(&nfs, Generation(number)));
            prop_assert_eq!(first.cmp(&second), one.cmp(&other));
            let all = keys.claims(&nfs);
            prop_assert_eq!(claim_key(&all, &first), Some(ClaimKey::Claim(Generation(one))));
            let mark = keys.released(&nfs, Generation(one));
            prop_assert_eq!(claim_key(&all, &mark), Some(ClaimKey::Released(Generation(one))));
            prop_assert_eq!(service_of(&keys.all_claims(), &mark), Some(nfs.clone()));
            let after = keys.claims_after(&nfs, Generation(one));
            prop_assert_eq!(has(&after, &second), other > one || (one == u64::MAX && other == one));
            prop_assert_eq!(has(&after, &mark), one == u64::MAX);
            prop_assert_eq!(has(&keys.claims_before(&nfs, Generation(one)), &second), other < one);
            let begun = keys.begun(&nfs, Generation(other));
            prop_assert_eq!(number(&keys.all_begun_of(&nfs), &begun), Some(Generation(other)));
            prop_assert_eq!(has(&keys.begun_up_to(&nfs, Generation(one)), &begun), other <= one);
            prop_assert_eq!(has(&keys.begun_before(&nfs, Generation(one)), &begun), other < one);
        }

        #[test]
        fn no_key_of_one_place_lies_in_another_one(a in "[a-z][a-z0-9.-]{0,8}", b in "[a-z][a-z0-9.-]{0,8}") {
            let keys = Keys::below("/heirlock/");
            if let (Ok(a), Ok(b)) = (ServiceName::parse(&a), ServiceName::parse(&b)) {
                prop_assert_eq!(has(&keys.claims(&a), &keys.claim(&b, Generation(7))), a == b);
                let record = keys.record(&b, Generation(7), &RecordKey::parse("10.0.0.1").unwrap());
                prop_assert_eq!(has(&keys.generation(&a, Generation(7)), &record), a == b);
                prop_assert!(!has(&keys.generation(&a, Generation(77)), &record));
                prop_assert!(!has(&keys.generations_before(&a, Generation(7)), &record));
                prop_assert_eq!(has(&keys.generations_before(&a, Generation(8)), &record), a == b);
            }
        }

        #[test]
        fn no_key_that_is_found_makes_it_panic(key: Vec<u8>) {
            let (keys, nfs) = (Keys::below("/heirlock/"), service("nfs"));
            let mut below = keys.claims(&nfs).from;
            below.extend_from_slice(&key);
            let _ = (claim_key(&keys.claims(&nfs), &below), service_of(&keys.all_claims(), &below), part(&key));
            let _ = (number(&keys.claims(&nfs), &below), number(&keys.claims(&nfs), &key));
        }
    }

    #[test]
    fn a_key_of_a_generation_tells_what_it_stands_for() {
        let (keys, nfs) = (Keys::below("/heirlock/"), service("nfs"));
        let place = keys.generation_place(&nfs, Generation(3));
        let of = |key: Vec<u8>| part(&key[place.len()..]);
        let client = RecordKey::parse("fe80::1%eth0").unwrap();
        assert_eq!(of(keys.record(&nfs, Generation(3), &client)), Part::Record(Ok(client)));
        assert_eq!(of(keys.state(&nfs, Generation(3))), Part::State);
        assert_eq!(of(keys.journal(&nfs, Generation(3))), Part::Journal);
        assert_eq!(of(keys.outcome(&nfs, Generation(3), [1, 0])), Part::Outcomes);
        assert!(matches!(part(b"sm/a b"), Part::Record(Err(_))));
        assert!(matches!(part(b"sm/../../x"), Part::Record(Err(_))), "a name is no path");
        assert_eq!(part(b"other"), Part::Stray);
    }
}
