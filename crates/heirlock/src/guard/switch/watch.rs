//! Mode `watch` needs nothing of the host: rpc.statd goes on as it is.

use super::mode::ModeOnHost;

pub(super) struct Watch;

impl ModeOnHost for Watch {}
