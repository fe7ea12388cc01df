//! Mode `nsm`: heirlock is the status monitor, in rpc.statd's place.

use heirlock_core::monitor::WhenUnprotected;

use super::{CaptureSettings, Key, Promise, Properties};

pub(super) const PROPERTIES: Properties = Properties {
    name: "nsm",
    keys: &[
        Key { name: "mon-timeout", is_same: |one, other| one.mon_timeout == other.mon_timeout },
        Key {
            name: "when-unprotected",
            is_same: |one, other| one.when_unprotected == other.when_unprotected,
        },
        Key { name: "port", is_same: |one, other| one.port == other.port },
    ],
    is_status_monitor: true,
    has_callout: false,
    // The agent itself writes the directory, and the next look finds the changes of other programs: no hint is needed
    // for each file.
    watches_directory: false,
    shares_before_telling: true,
    promise,
};

fn promise(settings: &CaptureSettings) -> Promise {
    let (is_whole, words) = match settings.when_unprotected {
        WhenUnprotected::Refuse => (
            true,
            "by \"nsm\", no lock is granted that is not on record; while the store is away new clients are refused",
        ),
        WhenUnprotected::Grant => (
            false,
            "by \"nsm\" with when-unprotected = \"grant\", while the store is away new clients get locks that this server's death would take; 'heirlock status' names them",
        ),
    };
    Promise { is_whole, words: words.to_owned() }
}
