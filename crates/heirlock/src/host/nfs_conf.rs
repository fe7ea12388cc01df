//! nfs-utils' configuration. The installed nfsconf tells the settings in force, for the files that count differ from version to
//! version; our own reading then says which file made a setting, and stands in where there is no nfsconf.
//!
//! It is read as nfs-utils' own reader does (support/nfs/conffile.c; checked against nfsconf of 2.6.2): `/etc/nfs.conf`, then
//! `/etc/nfs.conf.d/*.conf` in the order of versionsort; later wins. Its oddities matter, since an assignment that it ignores
//! is a setting that isn't one: above all, it ignores a last line without its newline. The folder is read since 2.5.3. The
//! same two below /usr/etc are read before since 2.7.1, and count only where there is no /etc/nfs.conf, since loading that
//! one drops what was there.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Host;
use crate::config::Command;
use crate::files::trusted;
use crate::{hooks, limits};

/// The file, and the name of the folder beside it.
pub(crate) const FILE: &str = "/etc/nfs.conf";
const FOLDER: &str = "/etc/nfs.conf.d";

/// The same as a distribution ships them.
const USR_FILE: &str = "/usr/etc/nfs.conf";
const USR_FOLDER: &str = "/usr/etc/nfs.conf.d";

/// Since which version the folder is read, and since which what lies below /usr/etc.
const FOLDER_SINCE: Version = Version(2, 5, 3);
const USR_SINCE: Version = Version(2, 7, 1);

/// A section and a key in it.
pub(crate) type Key = (&'static str, &'static str);

/// The settings that matter here.
const KEYS: [Key; 6] = [
    ("sm-notify", "lift-grace"),
    ("sm-notify", "force"),
    ("statd", "state-directory-path"),
    ("statd", "ha-callout"),
    ("mountd", "state-directory-path"),
    ("exportd", "state-directory-path"),
];

/// A version of nfs-utils.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

/// The source of the settings in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The installed nfsconf.
    Nfsconf(PathBuf),
    /// The files, as an rpc.statd of this version reads them.
    Version(Version),
    /// The files, as nfs-utils of 2.5.3 to 2.6.4 read them: nothing that is installed says which version it is.
    #[default]
    Files,
}

/// The program that says what is in force.
const NFSCONF: &str = "nfsconf";

/// How deep files may include each other.
const INCLUDE_DEPTH_MAX: usize = 8;

/// The configuration of nfs-utils' programs.
#[derive(Debug, Default)]
pub(crate) struct NfsConf {
    values: BTreeMap<(String, String), Value>,
    /// Files that a file includes.
    includes: Vec<PathBuf>,
    /// The source of the settings.
    pub(crate) asked: Asked,
    /// The keys of [`KEYS`] that nfsconf was asked for, where it was.
    known: Vec<Key>,
    /// Files that could not be read, in words.
    pub(crate) problems: Vec<String>,
    /// Settings that an update of nfs-utils would bring into force, in words.
    pub(crate) to_come: Vec<String>,
}

/// A setting, and where it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    /// As it is written.
    pub(crate) text: String,
    /// In which file.
    pub(crate) file: PathBuf,
}

/// The section that lines belong to; a subsection's settings are out of sight where the section is asked for.
#[derive(Debug, Clone, Default)]
struct Section {
    name: Option<String>,
    is_subsection: bool,
}

impl NfsConf {
    /// The settings in force on this host, all that matter here.
    pub(crate) fn read(host: &Host) -> Self {
        Self::read_some(host, &KEYS)
    }

    /// The settings in force of these keys. nfsconf is a process for each key, and an adoption waits for each: clients wait for it.
    pub(crate) fn read_some(host: &Host, keys: &[Key]) -> Self {
        let mut shipped = Self::default();
        shipped.read_shipped(host);
        let is_wanted = |key: &Key| keys.contains(key) || shipped.get(key.0, key.1).is_some();
        let keys: Vec<Key> = KEYS.into_iter().filter(is_wanted).collect();
        let mut conf = Self { asked: Asked::of(host), ..Self::default() };
        conf.read_files(host);
        if let Err(why) = conf.correct(keys) {
            let asked = Asked::by_version(host);
            conf = Self {
                asked,
                problems: vec![format!("{why}; the files were read instead")],
                ..Self::default()
            };
            conf.read_files(host);
        }
        conf.look_ahead(&shipped);
        conf
    }

    fn read_files(&mut self, host: &Host) {
        if self.asked.reads(USR_SINCE) {
            self.read_shipped(host);
        }
        self.read_file(host, Path::new(FILE), Section::default(), 0);
        if self.asked.reads(FOLDER_SINCE) {
            self.read_folder(host, FOLDER);
        }
    }

    /// The file that a distribution ships, where it counts.
    fn read_shipped(&mut self, host: &Host) {
        if !host.at(FILE).exists() {
            self.read_file(host, Path::new(USR_FILE), Section::default(), 0);
            self.read_folder(host, USR_FOLDER);
        }
    }

    /// Settings below /usr/etc that are not in force and will be, once nfs-utils is new enough.
    fn look_ahead(&mut self, shipped: &Self) {
        for (section, key) in KEYS {
            let Some(value) = shipped.get(section, key) else { continue };
            if self.get(section, key).is_none() {
                self.to_come.push(format!(
                    "{} says [{section}] {key}={}, which nfs-utils reads since 2.7.1 and the installed version doesn't: an update brings it into force",
                    value.file.display(),
                    value.text.escape_debug()
                ));
            }
        }
    }

    fn read_folder(&mut self, host: &Host, folder: &str) {
        match host.list(folder) {
            Ok(mut names) => {
                names.retain(|name| !name.starts_with('.') && name.len() > 5 && name.ends_with(".conf"));
                names.sort_by(|a, b| versionsort(a, b));
                for name in names {
                    self.read_file(host, &Path::new(folder).join(name), Section::default(), 0);
                }
            }
            Err(error) => self.problems.push(format!("can't read {folder}: {error}")),
        }
    }

    /// The word of nfsconf counts; our own reading only knows which file says so.
    fn correct(&mut self, keys: Vec<Key>) -> Result<(), String> {
        let Asked::Nfsconf(program) = self.asked.clone() else { return Ok(()) };
        for (section, key) in &keys {
            let (section, key) = (*section, *key);
            let place = (section.to_owned(), key.to_owned());
            if let Some(text) = ask(&program, &["--get", section, key])? {
                let read = self.get(section, key).filter(|read| read.text == text);
                let file = read.map_or_else(|| program.clone(), |read| read.file);
                self.values.insert(place, Value { text, file });
            } else {
                self.values.remove(&place);
            }
        }
        self.known = keys;
        Ok(())
    }

    /// Whether what lies in /etc/nfs.conf.d counts here. nfsconf is asked by an example, for vendors carry newer ways into
    /// older versions.
    pub(crate) fn reads_folder(&self) -> bool {
        match &self.asked {
            Asked::Nfsconf(program) => reads_folder_beside(program).unwrap_or(true),
            asked => asked.reads(FOLDER_SINCE),
        }
    }

    /// The file that nfs.conf includes for the administrator's own settings (SUSE), if it does.
    pub(crate) fn local_file(&self) -> Option<&Path> {
        self.includes.iter().map(PathBuf::as_path).find(|path| path.ends_with("nfs.conf.local"))
    }

    /// A setting; `$NAME` stands for a value of `[environment]`.
    pub(crate) fn get(&self, section: &str, key: &str) -> Option<Value> {
        debug_assert!(self.is_known(section, key), "nfsconf was not asked for [{section}] {key}");
        let value = self.values.get(&(section.to_ascii_lowercase(), key.to_ascii_lowercase()))?;
        let Some(variable) = value.text.strip_prefix('$') else { return Some(value.clone()) };
        let named = self.values.get(&("environment".into(), variable.to_ascii_lowercase()))?;
        Some(Value { text: named.text.clone(), file: value.file.clone() })
    }

    /// Whether our own reading of a key is not all that is known of it.
    fn is_known(&self, section: &str, key: &str) -> bool {
        let is_it = |one: &&Key| one.0.eq_ignore_ascii_case(section) && one.1.eq_ignore_ascii_case(key);
        self.known.is_empty()
            || self.known.iter().any(|one| is_it(&one))
            || !KEYS.iter().any(|one| is_it(&one))
    }

    /// A yes or no.
    pub(crate) fn get_bool(&self, section: &str, key: &str) -> Option<bool> {
        self.get(section, key)?.as_bool()
    }

    fn read_file(&mut self, host: &Host, path: &Path, mut section: Section, depth: usize) {
        match host.read(path) {
            Ok(Some(bytes)) => {
                self.parse(host, path, &String::from_utf8_lossy(&bytes), &mut section, depth);
            }
            Ok(None) => {}
            Err(error) => self.problems.push(format!("can't read {}: {error}", path.display())),
        }
    }

    fn parse(&mut self, host: &Host, path: &Path, text: &str, section: &mut Section, depth: usize) {
        let joined = text.replace("\\\n", "  ");
        let mut rest = joined.as_str();
        while let Some((line, after)) = rest.split_once('\n') {
            self.line(host, path, line.trim_start(), section, depth);
            rest = after;
        }
        if !rest.trim().is_empty() {
            let shown = rest.trim().escape_debug();
            self.problems.push(format!(
                "{}: the last line, {shown}, has no newline, so it is ignored",
                path.display()
            ));
        }
    }

    fn line(&mut self, host: &Host, path: &Path, line: &str, section: &mut Section, depth: usize) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            return;
        }
        if let Some(header) = line.strip_prefix('[') {
            *section = parse_header(header);
            return;
        }
        let (Some((key, value)), Some(name)) = (line.split_once('='), &section.name) else { return };
        let key = key.trim_end_matches([' ', '\t']).to_ascii_lowercase();
        let Some(value) = parse_value(value) else { return };
        if key == "include" {
            let included = Path::new(value.strip_prefix('-').unwrap_or(&value)).to_owned();
            // A relative one is beside the file that includes it.
            let included = path.parent().unwrap_or(Path::new("/")).join(included);
            self.includes.push(included.clone());
            if depth < INCLUDE_DEPTH_MAX {
                self.read_file(host, &included, section.clone(), depth + 1);
            }
            return;
        }
        if value.is_empty() {
            return;
        }
        let place = (name.to_ascii_lowercase(), key);
        // The value that was set before is gone, even where the new setting is out of sight in a subsection.
        self.values.remove(&place);
        if !section.is_subsection {
            self.values.insert(place, Value { text: value, file: path.to_owned() });
        }
    }
}

impl Value {
    /// A yes or no; anything else counts as not set, as it does for nfs-utils.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self.text.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "y" | "yes" | "on" => Some(true),
            "0" | "f" | "false" | "n" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// How it is taken back.
    pub(crate) fn remedy(&self) -> String {
        if self.file.ends_with(NFSCONF) {
            // It counts, and no file that we know of says so.
            return "find the line in nfs.conf and in what it includes, and take it out".into();
        }
        format!("take the line out of {}", self.file.display())
    }
}

impl Asked {
    fn of(host: &Host) -> Self {
        if let Some(program) = host.tool(NFSCONF) {
            return Asked::Nfsconf(program);
        }
        Self::by_version(host)
    }

    /// Where nfsconf can't be asked.
    fn by_version(host: &Host) -> Self {
        let version = host.tool("rpc.statd").and_then(|statd| ask(&statd, &["-v"]).ok().flatten());
        version.and_then(|text| Version::parse(&text)).map_or(Asked::Files, Asked::Version)
    }

    /// Whether what is read since a version may count here.
    fn reads(&self, since: Version) -> bool {
        match self {
            Asked::Nfsconf(_) => true,
            Asked::Version(version) => *version >= since,
            Asked::Files => since <= FOLDER_SINCE,
        }
    }
}

/// In words, for a finding.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Nfsconf(program) => write!(f, "{} was asked what is in force", program.display()),
            Asked::Version(Version(major, minor, patch)) => {
                write!(f, "nfsconf can't be asked: the files were read as nfs-utils {major}.{minor}.{patch} reads them")
            }
            Asked::Files => f.write_str(
                "neither nfsconf nor rpc.statd can be asked: the files were read as nfs-utils 2.5.3 reads them",
            ),
        }
    }
}

impl Version {
    /// Of what rpc.statd says of itself: `rpc.statd version 2.6.2`.
    fn parse(text: &str) -> Option<Self> {
        let (_, version) = text.split_once("version ")?;
        let mut numbers =
            version.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
        Some(Self(numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)))
    }
}

/// The answer of a program of nfs-utils; `None` where it says no, by exit status 1 and nothing else. nfsconf before 2.7.1 ends
/// with the same status and a complaint where there is no /etc/nfs.conf, though the folder beside it counts.
fn ask(program: &Path, arguments: &[&str]) -> Result<Option<String>, String> {
    let words = arguments.iter().map(|argument| (*argument).to_owned());
    let argv = std::iter::once(program.display().to_string()).chain(words).collect();
    match hooks::run(&Command { argv, time_limit: limits::NFS_UTILS_TIME_MAX }, &[]) {
        Ok(output) => Ok(Some(output.0.trim_end_matches('\n').to_owned())),
        Err(error) if error.exit_status() == Some(1) && error.was_silent() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this nfsconf reads the folder beside a file; `None` where it can't be tried.
fn reads_folder_beside(program: &Path) -> Option<bool> {
    let folder = tempfile::tempdir().ok()?;
    let file = folder.path().join("nfs.conf");
    let beside = folder.path().join("nfs.conf.d");
    trusted::replace(&file, b"[general]\n", 0o600, false).ok()?;
    trusted::make_folder(&beside, 0o700).ok()?;
    trusted::replace(&beside.join("heirlock.conf"), b"[heirlock]\nread=yes\n", 0o600, false).ok()?;
    let said = ask(program, &["--file", file.to_str()?, "--get", "heirlock", "read"]).ok()?;
    Some(said.as_deref() == Some("yes"))
}

fn parse_header(header: &str) -> Section {
    let Some((name, _)) = header.split_once(']') else { return Section::default() };
    let (name, is_subsection) = match name.split_once('"') {
        Some((name, _)) => (name, true),
        None => (name, false),
    };
    Section { name: Some(name.trim_matches([' ', '\t']).to_owned()), is_subsection }
}

fn parse_value(text: &str) -> Option<String> {
    let text = text.trim_start_matches([' ', '\t']);
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            return quoted.split_once(quote).map(|(value, _)| value.to_owned());
        }
    }
    let bare = text.split(['#', ';']).next().unwrap_or_default();
    Some(bare.trim_end().to_owned())
}

/// Names with their numbers compared as numbers, as glibc's strverscmp does for all names that matter here.
fn versionsort(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let digits = |text: &[u8]| text.iter().take_while(|c| c.is_ascii_digit()).count();
        let (of_a, of_b) = (digits(a), digits(b));
        let plain = |text: &[u8], count: usize| count > 0 && text.first() != Some(&b'0');
        if plain(a, of_a) && plain(b, of_b) {
            let order = of_a.cmp(&of_b).then_with(|| a[..of_a].cmp(&b[..of_b]));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (&a[of_a..], &b[of_b..]);
            continue;
        }
        match (a.split_first(), b.split_first()) {
            (Some((x, rest_a)), Some((y, rest_b))) if x == y => (a, b) = (rest_a, rest_b),
            _ => return a.first().cmp(&b.first()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;
    use std::fs;

    const BEFORE: &str = "[sm-notify]\nlift-grace=n\n";

    /// The answer of nfsconf of nfs-utils 2.6.2 for the same files.
    fn lift_grace(drop_in: &str) -> Option<String> {
        let tree = Tree::new();
        tree.put("/etc/nfs.conf", "[sm-notify]\nlift-grace=y\n");
        tree.put("/etc/nfs.conf.d/heirlock.conf", BEFORE);
        tree.put("/etc/nfs.conf.d/zzz.conf", drop_in);
        tree.put("/etc/inc", "lift-grace=inc\n");
        NfsConf::read(&tree.host()).get("SM-Notify", "Lift-Grace").map(|value| value.text)
    }

    #[test]
    fn our_reader_finds_the_settings_that_nfsconf_finds() {
        for (drop_in, expected) in [
            ("", Some("n")),
            ("[sm-notify]\nlift-grace=zzz\n", Some("zzz")),
            ("[SM-NOTIFY]\n  LIFT-GRACE\t=\tzzz  \n", Some("zzz")),
            ("[ sm-notify ]\n lift-grace : y\n", Some("n")),
            ("[sm-notify]\nlift-grace = \"q  \"   \n", Some("q  ")),
            ("[sm-notify]\nlift-grace = 'q' # x\n", Some("q")),
            ("[sm-notify]\nlift-grace = no # no\n", Some("no")),
            ("[sm-notify]\n#lift-grace=y\n;lift-grace=y\n", Some("n")),
            ("[sm-notify \"x\"]\n lift-grace = sub\n", None),
            ("lift-grace=x\n[statd]\nlift-grace=st\n", Some("n")),
            ("[sm-notify]\nlift-grace=$LG\n[environment]\nLG=env\n", Some("env")),
            ("[sm-notify]\ninclude=/etc/inc\n", Some("inc")),
            ("[sm-notify]\ninclude=../inc\n", Some("inc")),
            ("[sm-notify]\ninclude=-/etc/none\n", Some("n")),
            ("[sm-notify]\nlift-grace=a\\\nb\n", Some("a  b")),
            ("[sm-notify]\nlift-grace=\n", Some("n")),
            ("[sm-notify]\nlift-grace=\"\"\n", Some("n")),
            ("[sm-notify]\nlift-grace=y", Some("n")),
        ] {
            assert_eq!(lift_grace(drop_in).as_deref(), expected, "{drop_in:?}");
        }
    }

    #[test]
    fn a_last_line_without_its_newline_is_ignored_and_said() {
        let tree = Tree::new();
        tree.put("/etc/nfs.conf.d/a.conf", "[sm-notify]\nlift-grace=n");
        let conf = NfsConf::read(&tree.host());
        assert_eq!(conf.get_bool("sm-notify", "lift-grace"), None);
        assert!(conf.problems[0].contains("no newline"), "{:?}", conf.problems);
    }

    #[test]
    fn only_conf_files_count_and_ten_comes_after_nine() {
        let tree = Tree::new();
        for (name, value) in [
            ("z9.conf", "nine"),
            ("z10.conf", "ten"),
            (".zz.conf", "hidden"),
            ("zz.conf.bak", "bak"),
            ("zz", "zz"),
        ] {
            tree.put(&format!("/etc/nfs.conf.d/{name}"), format!("[sm-notify]\nlift-grace={value}\n"));
        }
        let value = NfsConf::read(&tree.host()).get("sm-notify", "lift-grace").unwrap();
        assert_eq!((value.text.as_str(), value.file.ends_with("z10.conf")), ("ten", true));
    }

    #[test]
    fn yes_and_no_in_nfs_conf_are_known_in_all_their_spellings() {
        let of = |text: &str| {
            let tree = Tree::new();
            tree.put("/etc/nfs.conf", format!("[sm-notify]\nlift-grace = {text}\n"));
            NfsConf::read(&tree.host()).get_bool("sm-notify", "lift-grace")
        };
        for no in ["n", "N", "no", "false", "F", "off", "0"] {
            assert_eq!(of(no), Some(false), "{no}");
        }
        assert_eq!((of("y"), of("On"), of("never")), (Some(true), Some(true), None));
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let tree = Tree::new();
        tree.put("/etc/nfs.conf", "[sm-notify]\ninclude=/etc/nfs.conf\nlift-grace=n\n");
        assert_eq!(NfsConf::read(&tree.host()).get_bool("sm-notify", "lift-grace"), Some(false));
    }

    #[test]
    fn a_file_that_the_installed_version_does_not_read_is_not_in_force() {
        for (reads_folder, expected) in [(true, Some(false)), (false, None)] {
            let tree = Tree::new();
            tree.put("/etc/nfs.conf", "[statd]\nha-callout=/usr/sbin/c\n");
            tree.put("/etc/nfs.conf.d/heirlock.conf", BEFORE);
            tree.nfsconf(reads_folder);
            let conf = NfsConf::read(&tree.host());
            assert_eq!(conf.get_bool("sm-notify", "lift-grace"), expected);
            assert_eq!(conf.reads_folder(), reads_folder);
            let callout = conf.get("statd", "ha-callout").unwrap();
            assert_eq!((callout.text.as_str(), callout.file.as_path()), ("/usr/sbin/c", Path::new(FILE)));
            assert!(conf.asked.to_string().ends_with("nfsconf was asked what is in force"), "{}", conf.asked);
        }
    }

    /// With the real one, where nfs-utils is installed.
    #[test]
    fn the_installed_nfsconf_is_asked() {
        let host = Host::here();
        let conf = NfsConf::read(&host);
        let Some(program) = host.tool(NFSCONF) else {
            assert!(!matches!(conf.asked, Asked::Nfsconf(_)));
            return;
        };
        if host.at(FILE).exists() {
            assert_eq!((&conf.asked, &conf.problems), (&Asked::Nfsconf(program.clone()), &Vec::new()));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nfs.conf");
        fs::write(&file, "[sm-notify]\nlift-grace=$LG\n[environment]\nLG=env\n").unwrap();
        let file = file.to_str().unwrap();
        let get = |key| ask(&program, &["--file", file, "--get", "sm-notify", key]);
        assert_eq!((get("lift-grace"), get("force")), (Ok(Some("env".into())), Ok(None)));
    }

    #[test]
    fn a_setting_that_nfsconf_tells_counts_also_where_no_file_that_we_read_has_it() {
        let tree = Tree::new();
        tree.tool(NFSCONF, "[ $2 = sm-notify ] && echo y");
        let value = NfsConf::read(&tree.host()).get("sm-notify", "force").unwrap();
        assert!(value.as_bool() == Some(true) && value.file.ends_with(NFSCONF), "{value:?}");
        assert!(value.remedy().starts_with("find the line"), "{}", value.remedy());
        tree.tool(NFSCONF, "echo Error loading config file >&2; exit 1");
        tree.put("/etc/nfs.conf.d/heirlock.conf", BEFORE);
        let conf = NfsConf::read(&tree.host());
        assert_eq!((conf.get_bool("sm-notify", "lift-grace"), &conf.asked), (Some(false), &Asked::Files));
        assert!(conf.problems[0].contains("Error loading config file"), "{:?}", conf.problems);
    }

    #[test]
    fn nfsconf_is_asked_for_what_is_wanted_and_for_what_an_update_would_bring_into_force() {
        let tree = Tree::new();
        tree.put("/etc/nfs.conf.d/heirlock.conf", BEFORE);
        let log = tree.host().at("/asked");
        tree.tool(NFSCONF, &format!("echo $2 $3 >> {}\nexit 1", log.display()));
        let asked = |keys: &[Key]| {
            let conf = NfsConf::read_some(&tree.host(), keys);
            let asked = fs::read_to_string(&log).unwrap_or_default();
            let _ = fs::remove_file(&log);
            (asked, conf)
        };
        let (said, conf) = asked(&[("sm-notify", "lift-grace")]);
        assert_eq!(said, "sm-notify lift-grace\n");
        assert!(conf.get("sm-notify", "lift-grace").is_none(), "nfsconf's word counts");
        assert_eq!(asked(&KEYS).0.lines().count(), KEYS.len());

        tree.put("/usr/etc/nfs.conf.d/site.conf", "[statd]\nha-callout=/usr/sbin/c\n");
        let (said, conf) = asked(&[("sm-notify", "lift-grace")]);
        assert_eq!(said, "sm-notify lift-grace\nstatd ha-callout\n");
        assert!(
            conf.to_come.len() == 1 && conf.to_come[0].contains("ha-callout=/usr/sbin/c"),
            "{:?}",
            conf.to_come
        );
    }

    #[test]
    fn without_nfsconf_the_files_of_the_installed_version_are_read() {
        let tree = Tree::new();
        tree.put("/etc/nfs.conf.d/heirlock.conf", BEFORE);
        tree.put("/usr/etc/nfs.conf.d/site.conf", "[sm-notify]\nforce=1\n");
        let said = |version: &str| {
            tree.tool("rpc.statd", &format!("echo rpc.statd version {version}"));
            let conf = NfsConf::read(&tree.host());
            [conf.get_bool("sm-notify", "lift-grace"), conf.get_bool("sm-notify", "force")]
        };
        assert_eq!(said("2.1.1"), [None, None]);
        assert_eq!(said("2.5.3"), [Some(false), None]);
        assert_eq!(said("2.6.4-rc1"), [Some(false), None]);
        assert_eq!(said("2.7.1"), [Some(false), Some(true)]);
        assert_eq!(said("10.0.0"), [Some(false), Some(true)]);
        assert_eq!(said("unknown"), [Some(false), None]);
        tree.tool("rpc.statd", "echo rpc.statd version 2.6.2");
        let to_come = NfsConf::read(&tree.host()).to_come;
        assert!(
            to_come.len() == 1 && to_come[0].contains("site.conf says [sm-notify] force=1"),
            "{to_come:?}"
        );
        // Loading the file of /etc drops what was there.
        tree.put("/etc/nfs.conf", "");
        assert_eq!(said("2.8.3"), [Some(false), None]);
    }
}
