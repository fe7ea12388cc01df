//! The volume that a path belongs on, as the host says it, and whether it is mounted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::Host;

/// The volume that a path belongs on and that is not mounted: named by /etc/fstab, or by a mount or automount unit.
pub(super) fn unmounted(host: &Host, path: &Path) -> Option<String> {
    let mounted = mounted(host);
    let places = [path.to_owned(), resolved(host, path)];
    let is_above =
        |volume: &PathBuf| volume != Path::new("/") && places.iter().any(|place| place.starts_with(volume));
    let mut volumes: Vec<PathBuf> =
        of_table(host).into_iter().chain(of_units(host)).filter(is_above).collect();
    // The innermost one is the one that holds the path.
    volumes.sort_by_key(|volume| std::cmp::Reverse(volume.components().count()));
    let missing = volumes.into_iter().find(|volume| {
        let resolved = resolved(host, volume);
        !mounted.iter().any(|mounted| mounted == volume || *mounted == resolved)
    });
    missing.map(|volume| volume.display().to_string())
}

/// Where something is mounted. A volume that is mounted only when it is looked at holds nothing yet.
pub(super) fn mounted(host: &Host) -> Vec<PathBuf> {
    let table = host.text("/proc/mounts").unwrap_or_default();
    let place = |line: &str| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [_, place, kind, ..] if *kind != "autofs" => Some(unescaped(place)),
        _ => None,
    };
    table.lines().filter_map(place).collect()
}

fn of_table(host: &Host) -> Vec<PathBuf> {
    let table = host.text("/etc/fstab").unwrap_or_default();
    let lines = table.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
    let places =
        lines.filter_map(|line| line.split_whitespace().nth(1)).filter(|place| place.starts_with('/'));
    places.map(unescaped).collect()
}

fn of_units(host: &Host) -> Vec<PathBuf> {
    let units = [".mount", ".automount"].into_iter().flat_map(|kind| host.unit_texts(kind));
    let place = |text: String| {
        let lines = text.lines().map(str::trim);
        lines
            .rev()
            .find_map(|line| line.strip_prefix("Where")?.trim_start().strip_prefix('='))
            .map(|place| PathBuf::from(place.trim().trim_matches('"')))
    };
    units.filter_map(place).filter(|place| place.is_absolute()).collect()
}

/// The path without the links in it, as far as it exists.
fn resolved(host: &Host, path: &Path) -> PathBuf {
    let root = fs::canonicalize(&host.root).unwrap_or_else(|_| host.root.clone());
    for above in path.ancestors() {
        let Ok(found) = fs::canonicalize(host.at(above)) else { continue };
        let Ok(inside) = found.strip_prefix(&root) else { continue };
        let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
        return Path::new("/").join(inside).join(rest).components().collect();
    }
    path.to_owned()
}

/// Blanks and backslashes of a path are written in octal, as in `/srv/two\040words` (fstab(5), proc(5)).
fn unescaped(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let octal = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(*byte));
        at += if octal.is_some() { 4 } else { 1 };
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::guard::testing::Tree;

    fn missing(tree: &Tree, path: &str) -> Option<String> {
        unmounted(&tree.host(), Path::new(path))
    }

    #[test]
    fn a_line_of_fstab_names_the_volume_and_the_mount_table_says_whether_it_is_there() {
        let tree = Tree::new();
        tree.put("/proc/mounts", "/dev/sda1 / ext4 rw 0 0\n");
        assert_eq!(missing(&tree, "/srv/heirlock"), None);
        tree.put(
            "/etc/fstab",
            "# /dev/sdb / /x\n/dev/sda1 / ext4 defaults 0 1\n/dev/drbd0\t/srv/ ext4 noauto 0 2\nswap none swap sw 0 0\n\
             /dev/sdc /mnt/two\\040words ext4 noauto\n",
        );
        assert_eq!(missing(&tree, "/srv/heirlock").as_deref(), Some("/srv/"));
        assert_eq!(missing(&tree, "/srv").as_deref(), Some("/srv/"));
        assert_eq!(missing(&tree, "/srvice/heirlock"), None);
        assert_eq!(missing(&tree, "/mnt/two words/store").as_deref(), Some("/mnt/two words"));
        tree.put("/proc/mounts", "/dev/drbd0 /srv ext4 rw 0 0\n/dev/sdc /mnt/two\\040words ext4 rw 0 0\n");
        assert_eq!((missing(&tree, "/srv/heirlock"), missing(&tree, "/mnt/two words/store")), (None, None));
    }

    #[test]
    fn a_unit_names_the_volume_and_a_mere_automount_is_no_volume() {
        for unit in ["/etc/systemd/system/srv.mount", "/usr/lib/systemd/system/srv.automount"] {
            let tree = Tree::new();
            tree.put("/proc/mounts", "systemd-1 /srv autofs rw 0 0\n");
            tree.put(unit, "[Unit]\nDescription=x\n[Mount]\nWhat=/dev/drbd0\nWhere = /srv\n");
            assert_eq!(missing(&tree, "/srv/heirlock").as_deref(), Some("/srv"), "{unit}");
            tree.put("/proc/mounts", "systemd-1 /srv autofs rw 0 0\n/dev/drbd0 /srv ext4 rw 0 0\n");
            assert_eq!(missing(&tree, "/srv/heirlock"), None, "{unit}");
        }
        let tree = Tree::new();
        tree.put("/usr/lib/systemd/system/srv.mount", "[Mount]\nWhere=/srv\n");
        tree.folder("/etc/systemd/system");
        symlink("/dev/null", tree.host().at("/etc/systemd/system/srv.mount")).unwrap();
        assert_eq!(missing(&tree, "/srv/heirlock"), None, "masked");
    }

    #[test]
    fn a_path_that_leads_through_a_link_belongs_where_the_link_leads() {
        let tree = Tree::new();
        tree.put("/etc/fstab", "/dev/drbd0 /vol ext4 noauto 0 2\n");
        tree.folder("/vol");
        symlink("vol", tree.host().at("/data")).unwrap();
        assert_eq!(missing(&tree, "/data/heirlock").as_deref(), Some("/vol"));
        tree.put("/proc/mounts", "/dev/drbd0 /vol ext4 rw 0 0\n");
        assert_eq!(missing(&tree, "/data/heirlock"), None);
    }
}
