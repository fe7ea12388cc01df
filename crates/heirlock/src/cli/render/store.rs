//! A store that was moved, as text.

use super::super::store::StoreMoved;
use super::{Look, counted, plain, wrapped};

/// What was done, and what is left to do on each server.
pub(in crate::cli) fn store_moved(moved: &StoreMoved, _: &Look) -> String {
    let StoreMoved { identity, from, to, configuration, .. } = moved;
    let holds = match (moved.services, moved.generations, moved.records) {
        (Some(services), Some(generations), Some(records)) => format!(
            ", with {}, {} and {}, all read back and compared",
            counted(services, "service"),
            counted(generations, "generation"),
            counted(records, "record")
        ),
        _ => ", and was so before".to_owned(),
    };
    let done = format!("store {identity} is in {}{holds}.", plain(to));
    let left = format!("{} is left behind: every agent refuses it, and names the new place.", plain(from));
    let next = format!(
        "Next, on each server: take [store] of {} into its configuration, say 'heirlock check-config', and restart its agent (systemctl \
         restart heirlock). Until then that server keeps no new client. Then 'heirlock doctor' on each.",
        plain(configuration)
    );
    [done, left, next].map(|text| wrapped("", &text)).join("\n")
}

/// The copy was taken back.
pub(in crate::cli) fn store_taken_back(moved: &StoreMoved, _: &Look) -> String {
    let StoreMoved { identity, from, to, .. } = moved;
    let said = format!(
        "store {identity} is in {}, as before; {} holds an unfinished copy, which no agent uses.",
        plain(from),
        plain(to)
    );
    wrapped("", &said)
}
