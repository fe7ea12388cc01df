//! Names as they travel in NSM and lie in monitor records. They come from the network and become file names, so
//! a value that exists can't leave its directory.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::limits;

/// A client's name, or its address as text, that is safe as a file name: what rpc.statd accepts
/// (utils/statd/monitor.c, support/nsm/file.c), and a little less: no control characters, nothing that looks like
/// a temporary file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonName(String);

/// The name that a server announces. rpc.statd replaces blanks in it by `_` before it writes it down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MyName(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    /// Nothing was given.
    Empty,
    /// More bytes than a name may have.
    TooLong {
        /// the bound
        max: usize,
        /// bytes found
        found: usize,
    },
    /// It begins with a dot: a hidden file, or a way out of the directory.
    LeadingDot,
    /// A slash, a blank, a control character, or something beyond ASCII.
    Character(char),
    /// It ends in `.new`, as nfs-utils' temporary files do.
    Temporary,
    /// The file name itself is no UTF-8.
    NotText,
}

impl MonName {
    /// A client's name.
    ///
    /// # Errors
    /// Where the text is no name that is safe as a file name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text, limits::FILE_NAME_BYTES_MAX, |c| c.is_ascii_graphic() && c != '/')?;
        if text.starts_with('.') {
            return Err(NameError::LeadingDot);
        }
        if text.ends_with(".new") {
            return Err(NameError::Temporary);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name of a client that is known by its address.
    #[must_use]
    pub fn from_address(address: IpAddr) -> Self {
        Self(address.to_string())
    }

    /// The address, where the name is one that means the same on every server: a scoped one (`fe80::1%eth0`) does not.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl MyName {
    /// A server's name.
    ///
    /// # Errors
    /// Where the text is empty, too long, or holds a blank or a control character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text, limits::STRING_BYTES_MAX, |c| !c.is_whitespace() && !c.is_control())?;
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str, max: usize, belongs: impl Fn(char) -> bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { max, found: text.len() });
    }
    text.chars().find(|c| !belongs(*c)).map_or(Ok(()), |found| Err(NameError::Character(found)))
}

macro_rules! text_of {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}
text_of!(MonName, MyName);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => f.write_str("expected a name, found nothing"),
            NameError::TooLong { max, found } => {
                write!(f, "expected a name of at most {max} bytes, found {found}")
            }
            NameError::LeadingDot => f.write_str("expected a name, found one that begins with a dot"),
            NameError::Character(found) => write!(f, "expected a name, found one with {found:?} in it"),
            NameError::Temporary => f.write_str("expected a name, found that of a temporary file (.new)"),
            NameError::NotText => f.write_str("expected a name, found bytes that are no text"),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_the_directory_or_garble_a_log_is_no_name() {
        assert_eq!(MonName::parse(""), Err(NameError::Empty));
        assert_eq!(MonName::parse("../etc/passwd"), Err(NameError::Character('/')));
        assert_eq!(MonName::parse(".."), Err(NameError::LeadingDot));
        assert_eq!(MonName::parse(".hidden"), Err(NameError::LeadingDot));
        assert_eq!(MonName::parse("a b"), Err(NameError::Character(' ')));
        assert_eq!(MonName::parse("a\nb"), Err(NameError::Character('\n')));
        assert_eq!(MonName::parse("a\u{1b}[31m"), Err(NameError::Character('\u{1b}')));
        assert_eq!(MonName::parse("client.new"), Err(NameError::Temporary));
        assert_eq!(MonName::parse(&"x".repeat(256)), Err(NameError::TooLong { max: 255, found: 256 }));
    }

    #[test]
    fn addresses_are_names_and_scoped_ones_are_no_addresses() {
        assert_eq!(MonName::parse("2001:db8::5").unwrap().address(), "2001:db8::5".parse().ok());
        assert_eq!(MonName::parse("127.1.0.1").unwrap().address(), "127.1.0.1".parse().ok());
        assert_eq!(MonName::parse("fe80::1%lo").unwrap().address(), None);
        assert_eq!(MonName::parse("client1").unwrap().address(), None);
    }
}
