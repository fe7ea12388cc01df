use jiff::tz::TimeZone;

use heirlock_agent::control::report::{LockManagerStatus, NamedLockManager};

use super::*;
use crate::testing::{HOSTILE, Told, adoption, status};

fn shown(status: Result<&StatusReport, &str>, past: Result<&[AdoptionReport], &str>) -> String {
    let words = Told::new(Err(String::new()));
    let now = Now { s: 1_800_000_120, zone: TimeZone::UTC };
    page(&Known { status, past, words: &words, now, is_still: false })
}

/// The names of all elements, as a browser that knows nothing of this page would read them. Each must be closed.
fn elements(page: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for piece in page.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').unwrap_or_else(|| panic!("{piece}"));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{piece}");
            continue;
        }
        let name = tag.split(' ').next().unwrap().to_owned();
        if !matches!(name.as_str(), "!DOCTYPE" | "meta" | "link") {
            open.push(name.clone());
        }
        all.push(name);
    }
    assert!(open.is_empty(), "{open:?}");
    all
}

#[test]
fn the_lock_manager_that_does_not_serve_is_named_where_there_are_several() {
    let mut status = status();
    status.lock_manager.serving = false;
    assert!(shown(Ok(&status), Ok(&[])).contains("no lock manager serves"));
    let named = |name: &str, serving| NamedLockManager {
        name: name.into(),
        status: LockManagerStatus { serving, ..status.lock_manager.clone() },
        ..NamedLockManager::default()
    };
    status.lock_managers = vec![named("host", true), named("two", false)];
    let page = shown(Ok(&status), Ok(&[]));
    assert!(page.contains("the lock manager two does not serve"), "{page}");
    assert!(!page.contains("lock manager host") && !page.contains("no lock manager serves"), "{page}");
}

#[test]
fn a_hostile_name_is_text_and_nothing_else() {
    let page = shown(Ok(&status()), Ok(&[adoption()]));
    let mut with_plain_names = status();
    let plain = |text: &mut String| *text = text.replace(HOSTILE, "x");
    for client in with_plain_names.at_risk.iter_mut().chain(&mut with_plain_names.services[0].missed) {
        plain(&mut client.client);
        client.names.iter_mut().chain(&mut client.why).for_each(plain);
    }
    with_plain_names.drills[0].unreached.iter_mut().for_each(plain);
    let other = shown(Ok(&with_plain_names), Ok(&[adoption()]));
    assert_eq!(elements(&page), elements(&other), "no name makes or ends an element");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"), "{page}");
    assert!(!page.contains("<script") && !page.contains(" onload") && !page.contains("style="), "{page}");
}

#[test]
fn clients_in_trouble_come_first_and_by_name() {
    let page = shown(Ok(&status()), Ok(&[]));
    let places = [
        "role=\"status\"",
        "id=\"clients\"",
        "id=\"next\"",
        "id=\"services\"",
        "id=\"servers\"",
        "id=\"drills\"",
        "id=\"adoptions\"",
    ];
    let found: Vec<usize> =
        places.iter().map(|place| page.find(place).unwrap_or_else(|| panic!("{place}"))).collect();
    assert!(found.is_sorted(), "{found:?}");
    assert!(page.contains("at risk: has locks that are not on record"), "{page}");
    assert!(page.contains("unreachable in the last adoption of homes"), "{page}");
    assert!(page.contains("An adoption of homes is on: 199 of 200 clients told"), "{page}");
    assert!(page.contains("12.5 s of the grace period left"), "{page}");
    assert!(page.contains("<code>heirlock doctor</code>"), "{page}");
}

#[test]
fn the_verdict_is_the_worst_that_is_known() {
    let mut well = status();
    well.services[0].clients_to_tell = None;
    well.services[0].missed.clear();
    (well.problems, well.at_risk) = (Vec::new(), Vec::new());
    well.protected_since_s = Some(1_800_000_000);
    let starts = |status: &StatusReport, with: &str| {
        let page = shown(Ok(status), Ok(&[]));
        assert!(page.contains(&format!("<b>{with}")), "{page}");
    };
    starts(&well, "Well: A failover would work now");
    let mut alone = well.clone();
    alone.servers.retain(|server| server.server != "nfs-c");
    starts(&alone, "Attention: A failover would not work now: no other server is ready");
    let page = shown(Ok(&alone), Ok(&[]));
    assert!(page.contains("<b>nfs-a: </b>bring it and its agent back"), "{page}");
    let mut blind = well.clone();
    blind.protected_since_s = None;
    starts(&blind, "Unprotected: A failover now could lose locks");
    let mut standby = well.clone();
    standby.services[0].held = false;
    starts(&standby, "Well: This server holds no service that moves, and is well");
    let page = shown(Err("no agent answers at /run/x"), Err("no agent answers at /run/x"));
    assert!(page.contains("<b>Unprotected: It is not known whether a failover would work"), "{page}");
    elements(&page);
}

#[test]
fn a_page_is_readable_without_colours_scripts_and_eyes() {
    let page = shown(Ok(&status()), Ok(&[adoption()]));
    let elements = elements(&page);
    for landmark in ["header", "main", "footer", "h1"] {
        assert_eq!(elements.iter().filter(|name| *name == landmark).count(), 1, "{landmark}");
    }
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">") && page.contains("name=\"viewport\""));
    let count = |what: &str| page.matches(what).count();
    assert!(count("<th scope=\"col\"") >= 13 && count("<th scope=\"row\">") >= 6, "{page}");
    assert_eq!(count("<th"), count("<th scope=\"col\"") + count("<th scope=\"row\"") + count("<thead"));
    assert!(
        page.contains("role=\"img\" aria-labelledby=\"picture-0\"")
            && page.contains("<title id=\"picture-0\">")
    );
    assert!(page.contains("From left to right: the owner is confirmed off (3.04 s)"), "{page}");
    assert!(page.contains("<meta http-equiv=\"refresh\" content=\"2\">"), "an adoption is on");
    // Nothing is loaded from elsewhere.
    assert_eq!(count("src=") + count("http://") + count("https://") + count("url("), 0, "{page}");
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
}

#[test]
fn a_picture_stays_within_its_frame_whatever_the_times_are() {
    let mut strange = adoption();
    for (at_ms, entry) in [i64::MIN / 4, 5, -7, i64::MAX / 1_000].into_iter().zip(&mut strange.timeline) {
        entry.at_ms = at_ms;
    }
    let page = shown(Ok(&status()), Ok(&[strange]));
    for x in
        page.split("<rect").skip(1).map(|rect| rect.split(" x=\"").nth(1).unwrap().split('"').next().unwrap())
    {
        assert!((0..420).contains(&x.parse::<i64>().unwrap()), "{x}");
    }
    let empty = AdoptionReport { timeline: Vec::new(), each_client: Vec::new(), ..adoption() };
    assert!(!shown(Ok(&status()), Ok(&[empty])).contains("<svg"));
}

#[test]
fn the_last_drill_of_a_service_says_whether_an_adoption_would_work_who_is_left_out_and_how_old_that_is() {
    let mut status = status();
    status.drills[0].unreached = vec!["192.0.2.21".into()];
    let page = shown(Ok(&status), Ok(&[]));
    for words in
        ["yes, but some clients would not be told", "2 of 40 clients: 192.0.2.21, …", "2.52 s", "3 days ago"]
    {
        assert!(page.contains(words), "{words} is not in {page}");
    }
    assert!(!page.contains("too old"), "{page}");
    status.drills[0].at_s -= 30 * 86_400;
    assert!(shown(Ok(&status), Ok(&[])).contains("33 days ago: too old"));
    status.drills.clear();
    assert!(!shown(Ok(&status), Ok(&[])).contains("Drills on this server"));
}
