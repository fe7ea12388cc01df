//! Mode `watch`: rpc.statd is the status monitor and knows nothing of heirlock, which watches its directory.

use super::{CaptureSettings, Promise, Properties};

pub(super) const PROPERTIES: Properties = Properties {
    name: "watch",
    keys: &[],
    is_status_monitor: false,
    has_callout: false,
    watches_directory: true,
    // A client that registers with rpc.statd does not wait for us, and the next look at its directory shares it.
    shares_before_telling: false,
    promise,
};

fn promise(_: &CaptureSettings) -> Promise {
    let words = "by \"watch\", a client's first lock is granted some milliseconds before its record is in the store; one that is taken within them is lost with the server (callout and nsm close that gap)";
    Promise { is_whole: false, words: words.to_owned() }
}
