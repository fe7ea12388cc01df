//! nfs-utils' configuration, read as its own reader does (support/nfs/conffile.c; checked against nfsconf of 2.6.2):
//! `/etc/nfs.conf`, then `/etc/nfs.conf.d/*.conf` in the order of versionsort; later wins. Its oddities matter, since an
//! assignment that it ignores is a setting that isn't one: above all, it ignores a last line without its newline.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::host::Host;

/// The file, and what the folder beside it is called.
pub(super) const FILE: &str = "/etc/nfs.conf";
pub(super) const FOLDER: &str = "/etc/nfs.conf.d";

/// How deep files may include each other.
const INCLUDE_DEPTH_MAX: usize = 8;

/// What nfs-utils' programs are configured to do.
#[derive(Debug, Default)]
pub(super) struct NfsConf {
    values: BTreeMap<(String, String), Value>,
    /// What could not be read, in words.
    pub(super) problems: Vec<String>,
}

/// A setting, and where it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    /// As it is written.
    pub(super) text: String,
    /// In which file.
    pub(super) file: PathBuf,
}

/// The section that lines belong to; a subsection's settings are out of the sight of those who ask for the section.
#[derive(Debug, Clone, Default)]
struct Section {
    name: Option<String>,
    is_subsection: bool,
}

impl NfsConf {
    /// Reads the host's.
    pub(super) fn read(host: &Host) -> Self {
        let mut conf = Self::default();
        conf.read_file(host, Path::new(FILE), Section::default(), 0);
        match host.list(FOLDER) {
            Ok(mut names) => {
                names.retain(|name| !name.starts_with('.') && name.len() > 5 && name.ends_with(".conf"));
                names.sort_by(|a, b| versionsort(a, b));
                for name in names {
                    conf.read_file(host, &Path::new(FOLDER).join(name), Section::default(), 0);
                }
            }
            Err(error) => conf.problems.push(format!("can't read {FOLDER}: {error}")),
        }
        conf
    }

    /// A setting; `$NAME` stands for what `[environment]` says.
    pub(super) fn get(&self, section: &str, key: &str) -> Option<Value> {
        let value = self.values.get(&(section.to_ascii_lowercase(), key.to_ascii_lowercase()))?;
        let Some(variable) = value.text.strip_prefix('$') else { return Some(value.clone()) };
        let named = self.values.get(&("environment".into(), variable.to_ascii_lowercase()))?;
        Some(Value { text: named.text.clone(), file: value.file.clone() })
    }

    /// A yes or no; anything else counts as not set, as it does for nfs-utils.
    pub(super) fn get_bool(&self, section: &str, key: &str) -> Option<bool> {
        let text = self.get(section, key)?.text.to_ascii_lowercase();
        match text.as_str() {
            "1" | "t" | "true" | "y" | "yes" | "on" => Some(true),
            "0" | "f" | "false" | "n" | "no" | "off" => Some(false),
            _ => None,
        }
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
            if depth < INCLUDE_DEPTH_MAX {
                self.read_file(host, &included, section.clone(), depth + 1);
            }
            return;
        }
        if value.is_empty() {
            return;
        }
        let place = (name.to_ascii_lowercase(), key);
        // What was set before is gone, even where the new setting is out of sight in a subsection.
        self.values.remove(&place);
        if !section.is_subsection {
            self.values.insert(place, Value { text: value, file: path.to_owned() });
        }
    }
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
    use crate::guard::testing::Tree;

    const BEFORE: &str = "[sm-notify]\nlift-grace=n\n";

    /// What nfsconf of nfs-utils 2.6.2 said of the same files.
    fn lift_grace(drop_in: &str) -> Option<String> {
        let tree = Tree::new();
        tree.put("/etc/nfs.conf", "[sm-notify]\nlift-grace=y\n");
        tree.put("/etc/nfs.conf.d/heirlock.conf", BEFORE);
        tree.put("/etc/nfs.conf.d/zzz.conf", drop_in);
        tree.put("/etc/inc", "lift-grace=inc\n");
        NfsConf::read(&tree.host()).get("SM-Notify", "Lift-Grace").map(|value| value.text)
    }

    #[test]
    fn it_reads_what_nfsconf_reads() {
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
    fn a_yes_or_no_is_known_in_all_its_spellings() {
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
}
