//! State numbers, and the file `state` that a status monitor keeps its own in (nfs-utils support/nsm/file.c).

use std::fmt;

/// The number that tells one life of a server from the next: odd while it is up, even while it is down (X/Open NSM).
/// Clients compare it for equality alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateNumber(pub u32);

/// Why bytes are no `state` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// Nothing was ever written: what Debian ships.
    Empty,
    /// It is not the four bytes that nfs-utils writes; ten bytes of text are what illumos writes.
    Length(usize),
}

impl StateNumber {
    /// Reads a `state` file: four bytes in the machine's own order, and nothing else.
    ///
    /// # Errors
    /// Where there are none, or another number of them.
    pub fn parse_file(bytes: &[u8]) -> Result<Self, StateError> {
        match <[u8; 4]>::try_from(bytes) {
            #[allow(clippy::host_endian_bytes)] // nfs-utils writes an int as the machine has it
            Ok(word) => Ok(Self(u32::from_ne_bytes(word))),
            Err(_) if bytes.is_empty() => Err(StateError::Empty),
            Err(_) => Err(StateError::Length(bytes.len())),
        }
    }

    /// The `state` file that holds this number.
    #[must_use]
    #[allow(clippy::host_endian_bytes)] // as above
    pub fn render_file(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// Whether it says that the server is up.
    #[must_use]
    pub fn is_odd(self) -> bool {
        self.0 % 2 == 1
    }

    /// The next odd number.
    #[must_use]
    pub fn next_odd(self) -> Self {
        Self(self.0.wrapping_add(if self.is_odd() { 2 } else { 1 }))
    }

    /// The number after a restart, as sm-notify counts: where no number can be read it takes 1, makes an even one
    /// odd, and adds 2. So 3 follows nothing, and 7 follows both 4 and 5.
    #[must_use]
    pub fn after_restart(before: Option<StateNumber>) -> StateNumber {
        let before = before.unwrap_or(Self(1));
        let odd = if before.is_odd() { before.0 } else { before.0.wrapping_add(1) };
        Self(odd.wrapping_add(2))
    }
}

impl fmt::Display for StateNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Empty => f.write_str("a state file: expected 4 bytes, found none"),
            StateError::Length(found) => write!(f, "a state file: expected 4 bytes, found {found}"),
        }
    }
}

impl std::error::Error for StateError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured with sm-notify of nfs-utils 2.6.2: the file before, and the number sent.
    #[test]
    fn restarts_count_as_sm_notify_counts() {
        let after = |before: Option<u32>| StateNumber::after_restart(before.map(StateNumber)).0;
        assert_eq!(after(None), 3);
        assert_eq!(after(Some(4)), 7);
        assert_eq!(after(Some(5)), 7);
        assert_eq!(after(Some(0x7fff_ffff)), 0x8000_0001);
    }

    #[test]
    fn a_file_is_four_bytes_and_nothing_else() {
        for number in [0, 3, 4, 0x8000_0001, u32::MAX] {
            assert_eq!(StateNumber::parse_file(&StateNumber(number).render_file()), Ok(StateNumber(number)));
        }
        assert_eq!(StateNumber::parse_file(b""), Err(StateError::Empty));
        assert_eq!(StateNumber::parse_file(b"\x03\x00"), Err(StateError::Length(2)));
        assert_eq!(StateNumber::parse_file(b"7         "), Err(StateError::Length(10)));
    }
}
