//! The names of services, servers and generations. All three become file names and etcd keys, so a value that exists
//! can't leave its directory. A copy of a name shares its text: names are copied at each look, heartbeat and commit.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{self, HOST_PREFIX};
use crate::planted::{Bug, planted};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a {0} name can't be empty")]
    Empty(&'static str),
    /// Longer than a name may be.
    #[error("a {what} name has at most {max} characters, this one has {found}")]
    TooLong {
        /// service, server or lock manager
        what: &'static str,
        /// the bound
        max: usize,
        /// bytes found
        found: usize,
    },
    /// A character that has no place in a file name or a log line.
    #[error(
        "a {what} name is made of letters, digits, '-', '_' and '.', and starts with a letter or digit; found {found:?}"
    )]
    Character {
        /// service, server or lock manager
        what: &'static str,
        /// the first one that does not belong
        found: char,
    },
    /// The names of implicit services can't be given to others.
    #[error("the service name {0:?} is reserved for the implicit service of a server")]
    Reserved(String),
}

/// The unit that moves between servers, or a server's implicit service `host` (see [`ServiceName::host`]).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

/// One NFS server, as the configuration names it: its node name, unless told otherwise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerName(Arc<str>);

/// One lock manager of a server, among those of this server: two servers may have lock managers of one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LockManagerName(Arc<str>);

/// One tenure of a service: its number only rises, and each has one owner, one set of records and one state
/// number. The first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl ServiceName {
    /// A service of the configuration.
    ///
    /// # Errors
    /// Where the text is empty, too long, holds a character that does not belong, or is reserved.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("service", text, limits::SERVICE_NAME_BYTES_MAX)?;
        if text == "host" || text.starts_with(HOST_PREFIX) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The implicit service of a server: the exports that it serves under its own name and never gives away.
    #[must_use]
    pub fn host(server: &ServerName) -> Self {
        Self(format!("{HOST_PREFIX}{server}").into())
    }

    /// The server whose implicit service this is.
    #[must_use]
    pub fn host_of(&self) -> Option<&str> {
        self.0.strip_prefix(HOST_PREFIX)
    }

    /// Whether this is some server's implicit service.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.host_of().is_some()
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ServerName {
    /// A server's name.
    ///
    /// # Errors
    /// Where the text is empty, too long or holds a character that does not belong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("server", text, limits::SERVER_NAME_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LockManagerName {
    /// A lock manager's name.
    ///
    /// # Errors
    /// Where the text is empty, too long or holds a character that does not belong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("lock manager", text, limits::LOCK_MANAGER_NAME_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// That of the lock manager of a server's own network namespace, which serves the server's implicit service.
    #[must_use]
    pub fn host() -> Self {
        Self("host".into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Generation {
    /// The first tenure.
    pub const FIRST: Generation = Generation(1);

    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before, where there is one.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

fn check(what: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    let Some(first) = text.chars().next() else { return Err(NameError::Empty(what)) };
    if text.len() > max {
        return Err(NameError::TooLong { what, max, found: text.len() });
    }
    if planted(Bug::TrustNames) {
        return Ok(());
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::Character { what, found: first });
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        Some(found) => Err(NameError::Character { what, found }),
        None => Ok(()),
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;

    /// As from the store, where a server's implicit service is a service like any other.
    fn try_from(text: String) -> Result<Self, NameError> {
        check("service", &text, limits::SERVICE_NAME_BYTES_MAX)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for ServerName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        check("server", &text, limits::SERVER_NAME_BYTES_MAX)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for LockManagerName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl FromStr for ServerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

macro_rules! text_of {
    ($($name:ident),*) => {$(
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}
text_of!(ServiceName, ServerName, LockManagerName);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            ".hidden",
            "a b",
            "a\n",
            "ä",
            &"x".repeat(limits::SERVICE_NAME_BYTES_MAX + 1),
        ] {
            assert!(ServiceName::parse(bad).is_err(), "{bad:?}");
            assert!(ServerName::parse(bad).is_err(), "{bad:?}");
            assert!(LockManagerName::try_from(bad.to_owned()).is_err(), "{bad:?}");
            assert!(ServiceName::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_server_has_an_implicit_service_that_can_be_read_back() {
        let server = ServerName::parse(&"x".repeat(limits::SERVER_NAME_BYTES_MAX)).unwrap();
        let host = ServiceName::host(&server);
        assert_eq!(ServiceName::try_from(host.as_str().to_owned()).as_ref(), Ok(&host));
        assert_eq!(serde_json::from_str::<ServiceName>(&format!("\"{host}\"")).unwrap(), host);
        assert_eq!(host.host_of(), Some(server.as_str()));
        let longer = "x".repeat(limits::SERVER_NAME_BYTES_MAX + 1);
        assert!(matches!(ServerName::parse(&longer), Err(NameError::TooLong { max: 64, found: 65, .. })));
    }

    #[test]
    fn implicit_services_can_be_read_back_but_not_configured() {
        let host = ServiceName::host(&ServerName::parse("nfs-a").unwrap());
        assert_eq!(host.as_str(), "host.nfs-a");
        assert_eq!(host.host_of(), Some("nfs-a"));
        assert_eq!(ServiceName::parse("host.nfs-a"), Err(NameError::Reserved("host.nfs-a".into())));
        assert_eq!(serde_json::from_str::<ServiceName>("\"host.nfs-a\"").unwrap(), host);
    }
}
