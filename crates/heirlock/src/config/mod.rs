//! The configuration: what the file says (`reader.rs`), made into values that can't be wrong ([`Settings`], `load.rs`).

mod load;
mod reader;

pub use heirlock_agent::config::Settings;
pub(crate) use heirlock_agent::config::{
    CaptureMode, CaptureSettings, Command, ControlSettings, EtcdSettings, ForEach, HeartbeatSettings, Hook,
    HookSettings, HostSettings, InstanceNumber, LockManagerKind, LockManagerProperties, LockManagerSettings,
    Mode, NotifySettings, ServiceSettings, StoreSettings,
};
pub(crate) use load::CONFIGURATION;
#[cfg(test)]
pub(crate) use load::keys_of;
pub use load::{ConfigError, load, parse};
