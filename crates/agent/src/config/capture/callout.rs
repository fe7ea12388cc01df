//! Mode `callout`: rpc.statd is the status monitor, and runs a program of heirlock's before it answers (statd -H).

use super::{CaptureSettings, Key, Promise, Properties};

pub(super) const PROPERTIES: Properties = Properties {
    name: "callout",
    keys: &[Key {
        name: "callout-timeout",
        is_same: |one, other| one.callout_timeout == other.callout_timeout,
    }],
    is_status_monitor: false,
    has_callout: true,
    // A record that a callout could not report in time lies in the directory all the same.
    watches_directory: true,
    shares_before_telling: true,
    promise,
};

fn promise(settings: &CaptureSettings) -> Promise {
    let words = format!(
        "by \"callout\", a client's first lock waits until its record is in the store, but no longer than {} ms: while the store or the agent is away locks are granted unprotected, and it is said",
        settings.callout_timeout.as_millis()
    );
    Promise { is_whole: false, words }
}
