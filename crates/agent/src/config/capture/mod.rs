//! `[capture]`: how records are noticed. A capture mode is one file here, which answers all that the rest of the program asks
//! of a mode. The needs of a mode on the host lie in `guard/capture/` (for `doctor`) and `guard/switch/` (for `enable` and
//! `disable`), a file for each mode as well.

mod callout;
mod nsm;
mod watch;

use std::time::Duration;

use heirlock_core::monitor::WhenUnprotected;
use serde::{Deserialize, Serialize};

/// `[capture]`
#[derive(Debug, Clone)]
pub struct CaptureSettings {
    /// From whom they are learnt.
    pub mode: CaptureMode,
    /// How often the directory is scanned even without a hint.
    pub scan_interval: Duration,
    /// How long a deletion waits before it is believed (I2): 120 s.
    pub tombstone_delay: Duration,
    /// How long an unreachable client is remembered after an adoption: 7 days.
    pub forget_after: Duration,
    /// Mode `nsm`: how long lockd is kept waiting for the store, in its only thread (I1): 500 ms.
    pub mon_timeout: Duration,
    /// Mode `nsm`: the answer to a client that is not in the store by then.
    pub when_unprotected: WhenUnprotected,
    /// Mode `nsm`: where the status monitor listens, unless its sockets are inherited; 0 is any.
    pub port: u16,
    /// Mode `callout`: how long rpc.statd, and with it lockd, is kept waiting: 1 s.
    pub callout_timeout: Duration,
}

impl Default for CaptureSettings {
    /// As it is where the file says nothing.
    fn default() -> Self {
        Self {
            mode: CaptureMode::ALL.watch,
            scan_interval: Duration::from_secs(10),
            tombstone_delay: Duration::from_secs(120),
            forget_after: Duration::from_secs(7 * 86_400),
            mon_timeout: Duration::from_millis(500),
            when_unprotected: WhenUnprotected::Refuse,
            port: 0,
            callout_timeout: Duration::from_secs(1),
        }
    }
}

impl CaptureSettings {
    /// Keys that say something and have no effect in this mode, each with the mode that it is meant for.
    pub fn idle_keys(&self) -> Vec<(&'static str, CaptureMode)> {
        let unset = Self::default();
        let others = self.mode.others(CaptureMode::ALL).into_iter().rev();
        let keys = others.flat_map(|mode| mode.properties().keys.iter().map(move |key| (key, mode)));
        keys.filter(|(key, _)| !(key.is_same)(self, &unset)).map(|(key, mode)| (key.name, mode)).collect()
    }

    /// The mode's promise to clients, as it is configured.
    pub fn promise(&self) -> Promise {
        (self.mode.properties().promise)(self)
    }
}

/// How records are noticed.
///
/// No other place can compare two modes or ask for a certain one, so no place can forget one. All other code asks a mode for
/// its [`Properties`]. A place that differs in each mode hands over one value [`ForEach`] of them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct CaptureMode(Named);

/// The mode: known here alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// By watching the status monitor's directory.
    Watch,
    /// The same, and rpc.statd says so before it answers (statd -H).
    Callout,
    /// heirlock is the status monitor.
    Nsm,
}

impl CaptureMode {
    /// All of them.
    pub const ALL: ForEach<Self> =
        ForEach { watch: Self(Named::Watch), callout: Self(Named::Callout), nsm: Self(Named::Nsm) };

    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        self.properties().name
    }

    /// Its properties.
    pub fn properties(self) -> &'static Properties {
        self.choose(ForEach {
            watch: &watch::PROPERTIES,
            callout: &callout::PROPERTIES,
            nsm: &nsm::PROPERTIES,
        })
    }

    /// The one that is meant for this mode.
    pub fn choose<T>(self, each: ForEach<T>) -> T {
        match self.0 {
            Named::Watch => each.watch,
            Named::Callout => each.callout,
            Named::Nsm => each.nsm,
        }
    }

    /// The values that are meant for the other modes.
    pub fn others<T>(self, each: ForEach<T>) -> Vec<T> {
        let all = Self::ALL.all().into_iter().zip(each.all());
        all.filter(|(mode, _)| mode.0 != self.0).map(|(_, one)| one).collect()
    }
}

impl From<CaptureMode> for &'static str {
    fn from(mode: CaptureMode) -> Self {
        mode.as_str()
    }
}

impl TryFrom<String> for CaptureMode {
    type Error = String;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        let named = Self::ALL.all().into_iter().find(|mode| mode.as_str() == word);
        named.ok_or_else(|| {
            let [first @ .., last] = Self::ALL.all().map(Self::as_str);
            format!(
                "expected {} or {last}, found {word:?}: is it of a later version of heirlock?",
                first.join(", ")
            )
        })
    }
}

/// One thing for each mode. Wherever one of these is made, the compiler asks for a mode that is added.
#[derive(Debug, Clone, Copy)]
pub struct ForEach<T> {
    /// For mode `watch`.
    pub watch: T,
    /// For mode `callout`.
    pub callout: T,
    /// For mode `nsm`.
    pub nsm: T,
}

impl<T> ForEach<T> {
    /// All of them.
    pub fn all(self) -> [T; 3] {
        let Self { watch, callout, nsm } = self;
        [watch, callout, nsm]
    }
}

/// The properties of a mode, wherever they are asked for.
pub struct Properties {
    /// As the configuration spells it.
    pub name: &'static str,
    /// The keys of `[capture]` that have an effect in this mode alone.
    pub keys: &'static [Key],
    /// heirlock is the status monitor: it answers lockd, over sockets that outlive the agent, and no rpc.statd may run. Else
    /// rpc.statd has to.
    pub is_status_monitor: bool,
    /// rpc.statd runs heirlock's callout: nfs.conf names it, and the agent listens for it.
    pub has_callout: bool,
    /// inotify tells of what happens in the status monitor's directory; else only the looks find it.
    pub watches_directory: bool,
    /// A client that registers waits until it is durable. So a client is durable in every service before it is told to
    /// register again: in a crowd the last would wait too long.
    pub shares_before_telling: bool,
    /// Its promise to clients.
    promise: fn(&CaptureSettings) -> Promise,
}

/// A key of `[capture]`.
pub struct Key {
    /// As the configuration spells it.
    pub name: &'static str,
    /// Whether two configurations say the same by it.
    is_same: fn(&CaptureSettings, &CaptureSettings) -> bool,
}

/// The promise of a mode to clients.
pub struct Promise {
    /// Every lock that is granted is on record, under every single failure.
    pub is_whole: bool,
    /// In words, with the time in which a lock may be lost.
    pub words: String,
}

#[cfg(test)]
mod tests;
