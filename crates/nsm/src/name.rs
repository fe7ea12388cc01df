//! Names as they travel in NSM and lie in monitor records. They come from the network and become file names, so
//! a value that exists can't leave its directory.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use crate::limits;

/// A client's name, or its address as text, that is safe as a file name: what rpc.statd accepts
/// (utils/statd/monitor.c, support/nsm/file.c), and a little less: no control characters, nothing that looks like
/// a temporary file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonName(Arc<str>);

/// The name that a server announces. rpc.statd replaces blanks in it by `_` before it writes it down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MyName(Arc<str>);

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
    /// A slash, a blank, a control character, or a character that is neither ASCII nor a letter or digit.
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
        check(text, limits::FILE_NAME_BYTES_MAX, is_of_a_file_name)?;
        if text.starts_with('.') {
            return Err(NameError::LeadingDot);
        }
        if text.ends_with(".new") {
            return Err(NameError::Temporary);
        }
        Ok(Self(text.into()))
    }

    /// The name of a client that is known by its address. An address has one name, however it was spelled: a v4-mapped
    /// one (RFC 4291, 2.5.5.2) is the IPv4 address that it stands for.
    #[must_use]
    pub fn from_address(address: IpAddr) -> Self {
        Self(address.to_canonical().to_string().into())
    }

    /// The address, where the name is one that means the same on every server: a scoped one (`fe80::1%eth0`) does not. A
    /// v4-mapped one is the IPv4 address that it stands for.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0.parse().ok().map(|address: IpAddr| address.to_canonical())
    }

    /// The name of its address, where the name is one: what [`MonName::from_address`] makes of [`MonName::address`].
    #[must_use]
    pub fn by_address(&self) -> Option<Self> {
        match self.0.parse().ok()? {
            // An IPv4 address has one spelling alone.
            IpAddr::V4(_) => Some(self.clone()),
            IpAddr::V6(address) => Some(Self::from_address(address.into())),
        }
    }

    /// The address and the interface of a scoped one (RFC 4007, 11): it means a host on the link of that interface of the
    /// server that wrote it down, by the interface's name or number.
    #[must_use]
    pub fn scoped(&self) -> Option<(Ipv6Addr, &str)> {
        let (address, zone) = self.0.split_once('%')?;
        Some((address.parse().ok()?, zone)).filter(|(_, zone)| !zone.is_empty())
    }

    /// Whether a name service can know it: it is no address in any spelling.
    #[must_use]
    pub fn is_host_name(&self) -> bool {
        self.address().is_none() && !self.0.contains([':', '%'])
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
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The reason why no client can be at this address, where none can: a datagram there comes back to the sender, or goes to
/// many.
#[must_use]
pub fn no_clients_address(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    match address {
        _ if address.is_unspecified() => Some("it is the unspecified address"),
        _ if address.is_multicast() => Some("it is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("it is the broadcast address"),
        _ => None,
    }
}

/// The resolver's name of a client may hold letters of any script, and rpc.statd writes them down as they are.
fn is_of_a_file_name(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_graphic() && c != '/',
        // Neither a mark that turns the writing round, nor a blank that is none.
        false => c.is_alphanumeric(),
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
    fn a_text_that_could_leave_the_directory_or_garble_a_log_is_no_name() {
        assert_eq!(MonName::parse(""), Err(NameError::Empty));
        assert_eq!(MonName::parse("../etc/passwd"), Err(NameError::Character('/')));
        assert_eq!(MonName::parse(".."), Err(NameError::LeadingDot));
        assert_eq!(MonName::parse(".hidden"), Err(NameError::LeadingDot));
        assert_eq!(MonName::parse("a b"), Err(NameError::Character(' ')));
        assert_eq!(MonName::parse("a\nb"), Err(NameError::Character('\n')));
        assert_eq!(MonName::parse("a\u{1b}[31m"), Err(NameError::Character('\u{1b}')));
        assert_eq!(MonName::parse("client.new"), Err(NameError::Temporary));
        assert_eq!(MonName::parse("a\u{202e}b"), Err(NameError::Character('\u{202e}')));
        assert_eq!(MonName::parse("a\u{a0}b"), Err(NameError::Character('\u{a0}')));
        let too_long = NameError::TooLong { max: 255, found: 256 };
        assert_eq!(MonName::parse(&"ä".repeat(128)), Err(too_long), "bytes count");
        assert_eq!(MonName::parse(&"x".repeat(256)), Err(NameError::TooLong { max: 255, found: 256 }));
    }

    #[test]
    fn letters_of_any_script_are_a_name() {
        for name in ["bücher.example", "пример.example", "例え.example", &"ä".repeat(127)] {
            assert_eq!(MonName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn addresses_are_names_and_scoped_ones_are_no_addresses() {
        assert_eq!(MonName::parse("2001:db8::5").unwrap().address(), "2001:db8::5".parse().ok());
        assert_eq!(MonName::parse("127.1.0.1").unwrap().address(), "127.1.0.1".parse().ok());
        assert_eq!(MonName::parse("fe80::1%lo").unwrap().address(), None);
        assert_eq!(MonName::parse("client1").unwrap().address(), None);
    }

    #[test]
    fn a_client_has_one_address_however_it_is_spelled() {
        let address = |text: &str| MonName::parse(text).unwrap().address().map(MonName::from_address);
        for (spelled, meant) in [
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::FFFF:0a00:1", "10.0.0.1"),
            ("2001:DB8:0::5", "2001:db8::5"),
            ("2001:0db8:0000:0000:0000:0000:0000:0005", "2001:db8::5"),
        ] {
            assert_eq!(address(spelled).unwrap().as_str(), meant, "{spelled}");
        }
        assert_eq!(MonName::from_address("::ffff:10.0.0.1".parse().unwrap()).as_str(), "10.0.0.1");
    }

    #[test]
    fn the_name_of_an_address_is_the_same_whether_it_is_made_of_the_address_or_of_a_name() {
        for name in [
            "10.0.0.1",
            "255.255.255.255",
            "::ffff:10.0.0.1",
            "2001:DB8::5",
            "::1",
            "client1",
            "010.0.0.1",
            "fe80::1%lo",
        ] {
            let name = MonName::parse(name).unwrap();
            assert_eq!(name.by_address(), name.address().map(MonName::from_address), "{name}");
        }
    }

    #[test]
    fn a_scoped_address_names_its_link() {
        let name = |text: &str| MonName::parse(text).unwrap();
        assert_eq!(name("fe80::1%eth0").scoped(), Some(("fe80::1".parse().unwrap(), "eth0")));
        for other in ["fe80::1%", "fe80::1", "%eth0", "client%eth0", "10.0.0.1%eth0"] {
            assert_eq!(name(other).scoped(), None, "{other}");
        }
    }

    #[test]
    fn no_client_is_at_an_address_that_means_the_sender_or_many() {
        for unusable in ["0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0"] {
            assert!(no_clients_address(unusable.parse().unwrap()).is_some(), "{unusable}");
        }
        for client in ["127.0.0.1", "10.255.255.255", "fe80::1", "2001:db8::1"] {
            assert_eq!(no_clients_address(client.parse().unwrap()), None, "{client}");
        }
    }
}
