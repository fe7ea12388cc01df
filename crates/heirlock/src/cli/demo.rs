//! `heirlock demo`: hands over to the demonstration.

use crate::demo;
use crate::host::Host;

use super::agent::end_with;
use super::args::Demo;
use super::exit::{Exit, Failed};
use super::exporter;
use super::output::Output;

pub(super) fn run(options: &Demo, host: &Host, output: &Output) -> Result<Exit, Failed> {
    if let Some(folder) = &options.sweep {
        demo::sweep(folder)?;
        return Ok(Exit::Done);
    }
    if let Some([folder, endpoint, peer]) = options.etcd.as_deref() {
        options.ends_with.map_or(Ok(()), end_with)?;
        return Err(demo::become_member(folder, &endpoint.to_string_lossy(), &peer.to_string_lossy()).into());
    }
    let Demo { clients, unreachable, keep, page, store, .. } = *options;
    let page: Option<demo::Serve> = page.then_some(exporter::begin);
    let (report, pages) =
        demo::run(host, &demo::Options { clients, unreachable, keep, page, store }, output.is_json())?;
    let well = report.all_is_well();
    output.print(&report, |report, look| {
        let verdict = if well { look.good(report.verdict()) } else { look.bad(report.verdict()) };
        format!("{}\n{verdict}\n", report.text())
    })?;
    if let Some(pages) = pages {
        output.warn(&pages);
        pages.stay();
    }
    Ok(if well { Exit::Done } else { Exit::Failed })
}
