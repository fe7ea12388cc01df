//! The Debian that the guests run: the machine's own root, or a tree of another release made once and kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::process::run;

/// Packages that a tree needs beyond the base system. Nothing is interpreted in a guest but shell.
const PACKAGES: &str = "user-mode-linux,nfs-kernel-server,nfs-common,rpcbind,iproute2,kmod,systemd";

/// In a tree: the packages that it was made with. It lies inside, so that it is there when the tree is.
const MADE_WITH: &str = "var/lib/heirlock-lab.packages";

/// A Debian release with its kernel and its nfs-utils.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// Debian 12, the machine's own root: kernel 6.1, nfs-utils 2.6.
    Bookworm,
    /// Debian 13 from a tree made by debootstrap: kernel 6.12, nfs-utils 2.8.
    Trixie,
}

impl Release {
    /// Debian's name for it.
    #[must_use]
    pub fn codename(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// Finds the root that guests of this release have, and makes the tree where it is missing. `mirror` is
    /// used for that instead of the one that this machine's apt uses.
    ///
    /// # Errors
    /// When a package is missing on the machine or the tree can't be made.
    pub fn root(self, mirror: Option<&str>) -> Result<Root> {
        match self {
            Self::Bookworm => Root::of(None, None),
            Self::Trixie => {
                let (tree, in_use) = ensure_tree(self.codename(), mirror)?;
                Root::of(Some(tree), Some(in_use))
            }
        }
    }
}

/// The root file system of guests.
#[derive(Clone, Debug)]
pub struct Root {
    /// `None` for the machine's own.
    pub tree: Option<PathBuf>,
    /// The kernel's release, e.g. `6.1.176`: the name of its folder of modules.
    pub kernel: String,
    /// Held as long as a guest runs on the tree, so that no other lab replaces it meanwhile.
    _in_use: Option<Arc<File>>,
}

impl Root {
    fn of(tree: Option<PathBuf>, in_use: Option<File>) -> Result<Self> {
        let modules = tree.as_deref().unwrap_or(Path::new("/")).join("usr/lib/uml/modules");
        let kernel = fs::read_dir(&modules)
            .ok()
            .and_then(|mut entries| entries.next()?.ok())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .with_context(|| {
                format!(
                    "expected a kernel's modules in {}; install the packages {PACKAGES}",
                    modules.display()
                )
            })?;
        Ok(Self { tree, kernel, _in_use: in_use.map(Arc::new) })
    }
}

/// Finds a tree that was made with the packages of today, or makes it; and locks it, shared, against being replaced.
fn ensure_tree(codename: &str, mirror: Option<&str>) -> Result<(PathBuf, File)> {
    let cache = cache_folder()?;
    fs::create_dir_all(&cache).with_context(|| format!("can't make {}", cache.display()))?;
    let tree = cache.join(codename);
    let lock = File::create(cache.join(format!("{codename}.lock")))?;
    flock(&lock, FlockOperation::LockShared)?; // another lab may be making it
    if !is_current(&tree) {
        // Waits for those that run on the old one.
        flock(&lock, FlockOperation::LockExclusive)?;
        if !is_current(&tree) {
            make_tree(&cache, codename, mirror)?;
        }
        flock(&lock, FlockOperation::LockShared)?;
    }
    Ok((tree, lock))
}

/// Is there a tree, and was it made with the same packages?
fn is_current(tree: &Path) -> bool {
    tree.join("usr/bin/linux.uml").exists()
        && fs::read_to_string(tree.join(MADE_WITH)).is_ok_and(|made_with| made_with.trim_end() == PACKAGES)
}

/// The tree is made under another name and renamed when it is whole, so a run that is interrupted leaves no half tree
/// to be believed in. A tree that was made with other packages stays until then.
fn make_tree(cache: &Path, codename: &str, mirror: Option<&str>) -> Result<()> {
    let (tree, partial) = (cache.join(codename), cache.join(format!("{codename}.partial")));
    let mirror = match mirror {
        Some(mirror) => mirror.to_owned(),
        None => apt_mirror()?,
    };
    remove_tree(&partial)?;
    eprintln!("making a tree of {codename} in {} (once; a few minutes)", tree.display());
    // In namespaces of its own: mounts and processes of debootstrap end with it, also after Ctrl-C.
    run(Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"])
        .args(["debootstrap", "--variant=minbase"])
        .arg(format!("--include={PACKAGES}"))
        .arg(codename)
        .arg(&partial)
        .arg(mirror))?;
    let made_with = partial.join(MADE_WITH);
    fs::write(&made_with, format!("{PACKAGES}\n"))
        .with_context(|| format!("can't write {}", made_with.display()))?;
    remove_tree(&tree)?;
    fs::rename(&partial, &tree).with_context(|| format!("can't rename {}", partial.display()))
}

fn remove_tree(tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("can't remove {}", tree.display()))?;
    }
    Ok(())
}

/// XDG Base Directory Specification: `$XDG_CACHE_HOME`, or `~/.cache`.
fn cache_folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))
        .filter(|path| path.is_absolute())
        .context("expected HOME or XDG_CACHE_HOME in the environment")?;
    Ok(base.join("heirlock-lab"))
}

/// The mirror that this machine gets its own Debian from.
fn apt_mirror() -> Result<String> {
    let os_release = fs::read_to_string("/etc/os-release").context("can't read /etc/os-release")?;
    let codename = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("expected VERSION_CODENAME in /etc/os-release")?;
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if let Some(mirror) = mirror_in(&text, codename) {
            return Ok(mirror);
        }
    }
    bail!("expected the mirror of {codename} in apt's sources, found none; name one with --mirror")
}

/// Looks for component `main` of suite `codename`, in both of apt's formats (sources.list(5)).
fn mirror_in(text: &str, codename: &str) -> Option<String> {
    let one_line = text.lines().filter_map(|line| line.trim().strip_prefix("deb ")).find_map(|line| {
        let line = line.trim_start();
        let rest = if line.starts_with('[') { line.split_once(']')?.1 } else { line };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        (words.next() == Some(codename) && words.any(|word| word == "main")).then(|| uri.to_owned())
    });
    one_line.or_else(|| {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.split_whitespace().collect::<Vec<_>>())
                })
            };
            let fits = field("Suites")?.contains(&codename) && field("Components")?.contains(&"main");
            fits.then(|| field("URIs")?.first().map(|uri| (*uri).to_owned())).flatten()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_other_packages_is_not_current() {
        let tree = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("usr/bin/linux.uml", "");
        assert!(!is_current(tree.path()), "made before lists were kept");
        put(MADE_WITH, "user-mode-linux,kmod\n");
        assert!(!is_current(tree.path()));
        put(MADE_WITH, &format!("{PACKAGES}\n"));
        assert!(is_current(tree.path()));
        fs::remove_file(tree.path().join("usr/bin/linux.uml")).unwrap();
        assert!(!is_current(tree.path()));
    }

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let stanzas = "Types: deb\nURIs: http://security.test/debian\nSuites: bookworm-security\nComponents: main\n\n\
                       Types: deb\n# a remark\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(mirror_in(stanzas, "bookworm").as_deref(), Some("http://mirror.test/debian"));
        let lines = "deb http://other.test/apt bookworm stable\n# deb http://no.test bookworm main\n\
                     deb [signed-by=/a b] http://mirror.test/debian bookworm contrib main\n";
        assert_eq!(mirror_in(lines, "bookworm").as_deref(), Some("http://mirror.test/debian"));
        assert_eq!(mirror_in(lines, "trixie"), None);
        assert_eq!(mirror_in("", "trixie"), None);
    }
}
