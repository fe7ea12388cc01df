//! `[store]`: where records are kept. The keys of one type are refused beside another one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::super::reader::{Located, Section};
use super::super::{EtcdSettings, StoreSettings};
use super::{absolute, values};
use crate::limits as bounds;

/// The types of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dir,
    Etcd,
}

/// Keys that a folder alone has, and keys that etcd alone has.
const OF_DIR: [&str; 2] = ["path", "shared"];
const OF_ETCD: [&str; 9] = [
    "endpoints",
    "prefix",
    "ca",
    "certificate",
    "key",
    "user",
    "password-file",
    "connect-time-limit",
    "answer-time-limit",
];

/// Where nothing else is said.
const PREFIX: &str = "/heirlock/";
const CONNECT_TIME: Duration = Duration::from_millis(300);
const ANSWER_TIME: Duration = Duration::from_secs(1);

pub(super) fn store(file: &Section<'_, '_>) -> StoreSettings {
    let section = file.section("store");
    if !section.exists() {
        let example = "[store], and below it path = \"/srv/heirlock\"";
        file.missing(
            "store",
            format!("the section is missing, which says where records are kept; for example: {example}"),
        );
    }
    let kind = section.word("type", &[("dir", Kind::Dir), ("etcd", Kind::Etcd)]).unwrap_or(Kind::Dir);
    if kind == Kind::Etcd && !cfg!(feature = "etcd") {
        section.wrong("type", "this program was built without the store in etcd, which the packages have; for example: type = \"dir\"");
    }
    let path = absolute(&section, "path", "/srv/heirlock");
    let shared = section.boolean("shared").unwrap_or(false);
    let etcd = etcd(&section, kind);
    let (others, this) = match kind {
        Kind::Dir => (OF_ETCD.as_slice(), "dir"),
        Kind::Etcd => (OF_DIR.as_slice(), "etcd"),
    };
    for key in others.iter().filter(|key| section.has(key)) {
        section.wrong(key, format!("a store of type {this:?} has no such key; take it out, or set the type"));
    }
    if kind == Kind::Dir && section.exists() {
        section.missing("path", "it is missing; for example: path = \"/srv/heirlock\"");
    }
    section.finish();
    match kind {
        Kind::Dir => StoreSettings { path: path.unwrap_or_default(), shared, etcd: None },
        // All servers see it at the same time.
        Kind::Etcd => StoreSettings { path: PathBuf::new(), shared: true, etcd: Some(etcd) },
    }
}

fn etcd(section: &Section<'_, '_>, kind: Kind) -> EtcdSettings {
    let endpoints = values(section.list("endpoints", "https://192.0.2.1:2379", endpoint, |a, b| a == b));
    let file = |key| absolute(section, key, &format!("/etc/heirlock/etcd-{key}.pem"));
    let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
    let prefix = section.string("prefix").and_then(|prefix| checked(section, "prefix", prefix, is_prefix));
    let user = section.string("user").and_then(|user| checked(section, "user", user, is_user));
    let password_file = absolute(section, "password-file", "/etc/heirlock/etcd-password");
    let why =
        "another endpoint is asked when it is over, and the agent waits for a call no longer than 0.8 s";
    let time = |key, example, usual| section.duration(key, &bounds::ETCD_TIME, why, example).unwrap_or(usual);
    let settings = EtcdSettings {
        prefix: prefix.unwrap_or_else(|| PREFIX.to_owned()),
        connect_time: time("connect-time-limit", "300ms", CONNECT_TIME),
        answer_time: time("answer-time-limit", "1s", ANSWER_TIME),
        certificate: certificate.zip(key),
        user: user.zip(password_file),
        ca,
        endpoints,
    };
    if kind == Kind::Etcd {
        complete(section, &settings);
    }
    settings
}

/// The keys that belong together.
fn complete(section: &Section<'_, '_>, settings: &EtcdSettings) {
    let example = "for example: endpoints = [\"https://192.0.2.1:2379\", \"https://192.0.2.2:2379\"]";
    if section.is_empty_list("endpoints") || !section.has("endpoints") {
        section.wrong("endpoints", format!("expected the client URL of at least one member; {example}"));
    }
    if settings.endpoints.len() > bounds::ETCD_ENDPOINTS_MAX {
        let (max, found) = (bounds::ETCD_ENDPOINTS_MAX, settings.endpoints.len());
        section.wrong("endpoints", format!("expected at most {max}, found {found}"));
    }
    let is_secured = settings.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    if is_secured && !section.has("ca") {
        section.missing("ca", "with https it says whose signature makes a member's certificate a good one; for example: ca = \"/etc/heirlock/etcd-ca.pem\"");
    }
    for (one, other, example) in [
        ("certificate", "key", "/etc/heirlock/etcd-key.pem"),
        ("key", "certificate", "/etc/heirlock/etcd-certificate.pem"),
        ("user", "password-file", "/etc/heirlock/etcd-password"),
        ("password-file", "user", "nfs-a"),
    ] {
        if section.has(one) {
            section.missing(other, format!("{one} needs it; for example: {other} = {example:?}"));
        }
    }
}

fn checked(
    section: &Section<'_, '_>,
    key: &'static str,
    found: Located<String>,
    check: fn(&str) -> Result<(), String>,
) -> Option<String> {
    match check(&found.value) {
        Ok(()) => Some(found.value),
        Err(why) => {
            section.wrong_at(Some(found.at), key, why);
            None
        }
    }
}

fn is_prefix(text: &str) -> Result<(), String> {
    let is_one = text.len() > 1
        && text.len() <= bounds::ETCD_PREFIX_BYTES_MAX
        && text.ends_with('/')
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_one {
        true => Ok(()),
        false => Err(format!(
            "expected the beginning of all keys, which ends with a slash and has at most {} letters, found {text:?}; for example: \
             prefix = {PREFIX:?}",
            bounds::ETCD_PREFIX_BYTES_MAX
        )),
    }
}

fn is_user(text: &str) -> Result<(), String> {
    let is_one = !text.is_empty()
        && text.len() <= bounds::ETCD_USER_BYTES_MAX
        && !text.chars().any(|letter| letter.is_control() || letter.is_whitespace());
    match is_one {
        true => Ok(()),
        false => {
            Err(format!("expected the name of a user of etcd, found {text:?}; for example: user = \"nfs-a\""))
        }
    }
}

/// The client URL of a member. What goes over the network unsecured could be changed on its way, and records with it.
fn endpoint(text: &str) -> Result<String, String> {
    let expected = || format!("expected https:// or http://, a host and a port, found {text:?}");
    let text = text.strip_suffix('/').unwrap_or(text);
    let (scheme, place) = text.split_once("://").ok_or_else(expected)?;
    let (host, port) = place.rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(expected)?;
    let address: Option<IpAddr> = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => Some(IpAddr::V6(v6.parse().map_err(|_| expected())?)),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    };
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
    let is_name = !host.is_empty() && host.len() <= 253 && host.chars().all(is_letter);
    if address.is_none() && !is_name {
        return Err(expected());
    }
    match (scheme, address) {
        ("https", _) => Ok(format!("https://{host}:{port}")),
        ("http", Some(address)) if address.is_loopback() => Ok(format!("http://{host}:{port}")),
        ("http", _) => Err(format!(
            "expected https://, found {text:?}: unsecured, it may lie on this host alone (127.0.0.1)"
        )),
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_secured_one_or_on_this_host() {
        for good in
            ["https://192.0.2.1:2379", "https://[2001:db8::1]:2379", "https://etcd-1.example.org:2379"]
        {
            assert_eq!(endpoint(good).as_deref(), Ok(good));
            assert_eq!(endpoint(&format!("{good}/")).as_deref(), Ok(good));
        }
        assert_eq!(endpoint("http://127.0.0.1:2379").as_deref(), Ok("http://127.0.0.1:2379"));
        assert_eq!(endpoint("http://[::1]:2379").as_deref(), Ok("http://[::1]:2379"));
        for unsecured in ["http://192.0.2.1:2379", "http://localhost:2379", "http://[2001:db8::1]:2379"] {
            assert!(endpoint(unsecured).unwrap_err().contains("unsecured"), "{unsecured}");
        }
        for bad in [
            "",
            "192.0.2.1:2379",
            "https://192.0.2.1",
            "https://192.0.2.1:0",
            "https://192.0.2.1:99999",
            "ftp://192.0.2.1:21",
            "https://user@192.0.2.1:2379",
            "https://192.0.2.1:2379/v3",
            "https://2001:db8::1:2379",
            "https://a b:2379",
            "https://:2379",
            "https://[192.0.2.1]:2379",
        ] {
            assert!(endpoint(bad).unwrap_err().starts_with("expected https://"), "{bad}");
        }
    }
}
