//! The page: one look answers whether a failover would work now, which clients are at risk, and what happened last.
//!
//! It works without scripts, and loads itself anew. Everything that a colour says is said in words beside it.

mod adoptions;
mod drills;
mod now;
mod tables;
mod verdict;

use heirlock_agent::control::report::{AdoptionReport, Level, StatusReport, level};

use crate::Source;
use crate::html::Html;
use crate::limits::{ATTENTIVE_RELOAD_S, RELOAD_S};

pub(crate) use now::Now;
use verdict::Verdict;

/// The style of the page, on every device.
pub(crate) const STYLE: &str = include_str!("style.css");

/// Nothing but this page and its style is loaded, and no script runs.
pub(crate) const SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The knowledge that a page is made of.
pub(crate) struct Known<'a> {
    pub(crate) status: Result<&'a StatusReport, &'a str>,
    pub(crate) past: Result<&'a [AdoptionReport], &'a str>,
    pub(crate) words: &'a dyn Source,
    pub(crate) now: Now,
    /// It is not loaded anew.
    pub(crate) is_still: bool,
}

/// The page.
pub(crate) fn page(known: &Known) -> String {
    let mut html = Html::default();
    let server = known.status.map_or("", |status| status.server.as_str());
    let title = if server.is_empty() { "heirlock".to_owned() } else { format!("heirlock on {server}") };
    let verdict = Verdict::of(known.status);
    html.within("html", &[("lang", "en")], |html| {
        html.within("head", &[], |html| head(html, known, &title, &verdict));
        html.within("body", &[], |html| {
            html.within("header", &[], |html| {
                html.element("h1", &[], &title);
                verdict.write(html);
            });
            html.within("main", &[], |html| match known.status {
                Ok(status) => {
                    tables::clients(html, status, known);
                    tables::steps(html, status, known);
                    tables::services(html, status, known);
                    tables::servers(html, status);
                    drills::section(html, status, &known.now);
                    adoptions::section(html, known);
                }
                Err(_) => adoptions::section(html, known),
            });
            html.within("footer", &[], |html| footer(html, known));
        });
    });
    html.finish()
}

fn head(html: &mut Html, known: &Known, title: &str, verdict: &Verdict) {
    html.void("meta", &[("charset", "utf-8")]);
    html.void("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
    html.void("meta", &[("name", "color-scheme"), ("content", "light dark")]);
    if !known.is_still {
        let is_moving =
            known.status.is_ok_and(|status| status.services.iter().any(|s| s.clients_to_tell.is_some()));
        let seconds = if is_moving { ATTENTIVE_RELOAD_S } else { RELOAD_S };
        html.void("meta", &[("http-equiv", "refresh"), ("content", &seconds.to_string())]);
    }
    html.element("title", &[], &format!("{}: {title}", verdict.word()));
    html.void("link", &[("rel", "stylesheet"), ("href", "/style.css")]);
}

fn footer(html: &mut Html, known: &Known) {
    html.within("p", &[], |html| {
        html.text(&format!("As of {}. ", known.now.time(known.now.s)));
        if let Ok(status) = known.status {
            html.text(&format!("Told by agent {}, heirlock {}. ", status.agent, status.version));
        }
        match known.is_still {
            true => html.element("a", &[("href", "/")], "Load this page anew by itself"),
            false => html.element("a", &[("href", "/?still")], "Stop loading this page anew"),
        }
        html.text(" · ");
        html.element("a", &[("href", "/metrics")], "Metrics");
    });
}

/// How bad a status is, where there is one.
fn level_of(status: Result<&StatusReport, &str>) -> Level {
    status.map_or(Level::Unprotected, level)
}

#[cfg(test)]
mod tests;
