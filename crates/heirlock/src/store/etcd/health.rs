//! The findings on a cluster of etcd: what `check-config` and `doctor` say of its members, of the certificates and of the
//! user's role, beside whether the store works.

use super::super::on_host::{Said, Weight};
use super::wire::MemberStatus;
use super::x509::Certificate;
use crate::words::counted;

/// The oldest version that is asked: before it the JSON gateway lies elsewhere, and transactions compare no range of keys.
const VERSION_MIN: [u64; 2] = [3, 4];

/// Bytes of its database that etcd takes by default (--quota-backend-bytes).
const QUOTA_USUAL: u64 = 2 * 1024 * 1024 * 1024;

/// The share of the quota above which it is nearly full, in hundredths.
const QUOTA_NEAR: u64 = 80;

/// How long before its end a certificate is spoken of.
const CERTIFICATE_ENDS_SOON_S: i64 = 30 * 86_400;

/// What an endpoint said of its member, or why it said nothing.
pub(super) type Asked = (String, Result<MemberStatus, String>);

/// The findings on the members.
pub(super) fn of_members(asked: &[Asked]) -> Vec<Said> {
    let answered = asked.iter().filter(|(_, status)| status.is_ok()).count();
    let mut told: Vec<Said> =
        asked.iter().filter_map(|(endpoint, status)| of_member(endpoint, status)).collect();
    if asked.len() == 1 {
        told.push(Said::new(
            Weight::Note,
            format!("{} is the only endpoint: while it is away, so is the store", asked[0].0),
            "name the endpoints of all members in store.endpoints",
        ));
    }
    if told.is_empty() && answered > 0 {
        told.push(Said::new(Weight::Well, format!("all {answered} endpoints of etcd answer"), ""));
    }
    told
}

fn of_member(endpoint: &str, status: &Result<MemberStatus, String>) -> Option<Said> {
    let told =
        |weight, found: String, remedy: &str| Some(Said::new(weight, format!("{endpoint}: {found}"), remedy));
    let status = match status {
        Ok(status) => status,
        Err(why) => {
            let remedy = "see that this member runs and can be reached from here; take its endpoint out where it is no member any more";
            return told(Weight::Warning, format!("expected an answer, found none: {why}"), remedy);
        }
    };
    if version(&status.version).is_none_or(|version| version < VERSION_MIN) {
        let [major, minor] = VERSION_MIN;
        let found = format!("expected etcd {major}.{minor} or newer, found {:?}", status.version);
        return told(Weight::LosesLocks, found, "upgrade it");
    }
    if !status.errors.is_empty() {
        let found = format!("it has an alarm or a fault: {}", status.errors.join(", "));
        let remedy = "where its space is exceeded, compact and defragment it, switch its automatic compaction on, then clear the alarm \
                      (etcdctl alarm disarm): until then no new client can be kept";
        return told(Weight::LosesLocks, found, remedy);
    }
    if status.is_learner {
        return told(
            Weight::Warning,
            "it only learns, and answers nothing".to_owned(),
            "promote it, or take its endpoint out",
        );
    }
    if status.leader == 0 {
        let remedy = "see that a majority of etcd's members runs, and that they reach each other";
        return told(Weight::LosesLocks, "it knows of no leader: no majority is there".to_owned(), remedy);
    }
    let near = QUOTA_USUAL / 100 * QUOTA_NEAR;
    (status.bytes >= near).then(|| {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let found = format!(
            "its database has {} MiB; by default etcd takes nothing more from {} MiB on",
            mib(status.bytes),
            mib(QUOTA_USUAL)
        );
        let remedy = "switch its automatic compaction on (--auto-compaction-retention=1h), defragment it, or raise \
                      --quota-backend-bytes; where that is raised already, all is well";
        Said::new(Weight::Warning, format!("{endpoint}: {found}"), remedy)
    })
}

fn version(text: &str) -> Option<[u64; 2]> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??])
}

/// The finding on a certificate in this file, at this moment. `has_user`: etcd is asked as a user.
pub(super) fn of_certificate(
    file: &str,
    found: Option<Certificate>,
    now_s: i64,
    has_user: bool,
    is_own: bool,
) -> Vec<Said> {
    let Some(found) = found else {
        let said = format!("{file}: expected a certificate, found none that can be read");
        return vec![Said::new(Weight::LosesLocks, said, "put a certificate (PEM) there")];
    };
    let mut told = Vec::new();
    let days = |seconds: i64| counted(usize::try_from(seconds / 86_400).unwrap_or_default(), "day");
    if found.until_s <= now_s {
        let said = format!("{file}: it ended {} ago", days(now_s - found.until_s));
        told.push(Said::new(
            Weight::LosesLocks,
            said,
            "put a new one there; the agent takes it at its next connection",
        ));
    } else if found.from_s > now_s {
        let said = format!(
            "{file}: it is good in {} only, by this host's clock",
            days(found.from_s - now_s + 86_400)
        );
        told.push(Said::new(Weight::LosesLocks, said, "set this host's clock"));
    } else if found.until_s - now_s < CERTIFICATE_ENDS_SOON_S {
        let said = format!("{file}: it ends in {}", days(found.until_s - now_s));
        told.push(Said::new(
            Weight::Warning,
            said,
            "put a new one there; the agent takes it at its next connection",
        ));
    }
    if is_own && has_user && found.has_common_name {
        let said = format!(
            "{file}: its subject has a common name (CN): with users switched on, etcd's gateway refuses it"
        );
        told.push(Said::new(
            Weight::LosesLocks,
            said,
            "make a certificate whose subject has none (its SAN stays)",
        ));
    }
    told
}

/// A look at a key beyond the prefix, as the user: what etcd said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It may not be read: the role is as narrow as it should be.
    Denied,
    /// It may be read.
    Permitted,
    /// That can't be told now.
    Unknown,
}

/// The finding on the user's role.
pub(super) fn of_role(user: Option<&str>, beyond: Beyond, prefix: &str) -> Option<Said> {
    match (user, beyond) {
        (_, Beyond::Denied | Beyond::Unknown) => None,
        (Some(user), Beyond::Permitted) => Some(Said::new(
            Weight::Warning,
            format!("the user {user} may read keys beyond {prefix}, or etcd has its users switched off"),
            "give it a role that may read and write the keys that begin with the prefix, and nothing else; switch users on \
             (etcdctl auth enable)",
        )),
        (None, Beyond::Permitted) => Some(Said::new(
            Weight::Note,
            "etcd has its users switched off: each program that reaches it can change the store".to_owned(),
            "switch them on (etcdctl auth enable), and name one in store.user and store.password-file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> MemberStatus {
        MemberStatus { version: "3.4.23".into(), bytes: 20_480, leader: 7, ..MemberStatus::default() }
    }

    fn member(status: Result<MemberStatus, String>) -> (Weight, String) {
        let well = ("https://b:2379".to_owned(), Ok(self::status()));
        let told = of_members(&[("https://a:2379".to_owned(), status), well]);
        let [one] = told.as_slice() else { panic!("one finding: {told:?}") };
        (one.weight, one.found.clone())
    }

    #[test]
    fn each_member_that_is_not_well_is_named_with_what_ails_it() {
        assert_eq!(member(Ok(status())), (Weight::Well, "all 2 endpoints of etcd answer".into()));
        let all = [
            (Err("refused".to_owned()), Weight::Warning, "found none: refused"),
            (Ok(MemberStatus { version: "3.3.27".into(), ..status() }), Weight::LosesLocks, "3.4 or newer"),
            (Ok(MemberStatus { version: "x".into(), ..status() }), Weight::LosesLocks, "3.4 or newer"),
            (Ok(MemberStatus { leader: 0, ..status() }), Weight::LosesLocks, "no leader"),
            (Ok(MemberStatus { is_learner: true, ..status() }), Weight::Warning, "only learns"),
            (Ok(MemberStatus { errors: vec!["NOSPACE".into()], ..status() }), Weight::LosesLocks, "NOSPACE"),
            (Ok(MemberStatus { bytes: 1_800_000_000, ..status() }), Weight::Warning, "2048 MiB"),
        ];
        for (status, weight, part) in all {
            let (found, said) = member(status);
            assert!(found == weight && said.starts_with("https://a:2379: ") && said.contains(part), "{said}");
        }
        assert_eq!(member(Ok(MemberStatus { version: "3.10.0".into(), ..status() })).0, Weight::Well);
        let alone = of_members(&[("https://a:2379".to_owned(), Ok(status()))]);
        assert!(alone[0].weight == Weight::Note && alone[0].found.contains("only endpoint"));
    }

    #[test]
    fn a_certificate_is_spoken_of_before_it_ends_and_where_the_gateway_refuses_it() {
        let day = 86_400;
        let at = |from_s, until_s, has_common_name| Some(Certificate { from_s, until_s, has_common_name });
        let said = |found, has_user| {
            let told = of_certificate("/c", found, 100 * day, has_user, true);
            told.into_iter().map(|told| (told.weight, told.found)).collect::<Vec<_>>()
        };
        assert_eq!(said(at(0, 200 * day, false), true), []);
        assert_eq!(said(at(0, 200 * day, true), false), [], "without users it is no harm");
        assert!(said(at(0, 200 * day, true), true)[0].1.contains("(CN)"));
        for (found, weight, part) in [
            (at(0, 129 * day, false), Weight::Warning, "ends in 29 days"),
            (at(0, 98 * day, false), Weight::LosesLocks, "ended 2 days ago"),
            (at(101 * day, 200 * day, false), Weight::LosesLocks, "this host's clock"),
            (None, Weight::LosesLocks, "found none"),
        ] {
            let found = said(found, true);
            assert!(found.len() == 1 && found[0].0 == weight && found[0].1.contains(part), "{found:?}");
        }
    }

    #[test]
    fn a_role_that_is_too_wide_is_said_and_one_that_is_not_is_not() {
        assert_eq!(of_role(Some("u"), Beyond::Denied, "/h/"), None);
        assert_eq!(of_role(Some("u"), Beyond::Unknown, "/h/"), None);
        assert_eq!(of_role(Some("u"), Beyond::Permitted, "/h/").unwrap().weight, Weight::Warning);
        assert_eq!(of_role(None, Beyond::Permitted, "/h/").unwrap().weight, Weight::Note);
    }
}
