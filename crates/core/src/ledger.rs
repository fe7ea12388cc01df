//! What a scan of the status monitor's directory means for the store.

use heirlock_nsm::MonName;

/// All that one look at a status monitor's directory found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Every file that is a monitor record, in both folders.
    pub files: Vec<ScannedFile>,
    /// Every file that is none but lies where one would, and why. They are left alone.
    pub problems: Vec<Problem>,
}

/// One monitor record as it lies in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedFile {
    /// Which folder.
    pub folder: Folder,
    /// Its file name: what nfs-utils made of the client's name with the resolver of that moment.
    pub name: MonName,
    /// What it holds, to the byte.
    pub bytes: Vec<u8>,
}

/// The two folders of an NSM state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Folder {
    /// `sm`: clients that are monitored now.
    Sm,
    /// `sm.bak`: clients that a notifier has still to tell of an earlier restart. They may hold locks all the same.
    SmBak,
}

/// A file that is no monitor record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Its path below the directory, with control characters escaped.
    pub path: String,
    /// What was expected and found.
    pub why: String,
    /// It may be a record that is just being written: empty, or cut short. Worth saying only if it stays so.
    pub may_be_in_the_making: bool,
}
