//! A host of files for the tests, with a systemctl that writes down what it is asked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::geteuid;

use super::{Host, Network};

pub(crate) struct Tree {
    root: tempfile::TempDir,
    outside: tempfile::TempDir,
    systemd: bool,
    network: Network,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            outside: tempfile::tempdir().unwrap(),
            systemd: false,
            network: Network::BySockets,
        }
    }

    /// As Debian installs nfs-kernel-server, where systemd runs.
    pub(crate) fn debian() -> Self {
        let mut tree = Self::new();
        tree.systemd = true;
        tree.folder("/run/systemd/system");
        tree.folder("/etc/systemd/system");
        tree.folder("/etc/tmpfiles.d");
        tree.folder("/etc/nfs.conf.d");
        tree.folder("/var/lib/nfs/sm");
        tree.folder("/var/lib/nfs/sm.bak");
        tree.folder("/proc");
        tree.put("/var/lib/nfs/state", "");
        tree.put("/usr/sbin/sm-notify", "program that knows lift-grace\n");
        tree.put("/lib/systemd/system/rpc-statd-notify.service", "[Service]\nExecStart=-/sbin/sm-notify\n");
        tree.put("/lib/systemd/system/rpc-statd.service", "[Service]\nExecStart=/sbin/rpc.statd\n");
        tree.put("/lib/systemd/system/nfs-server.service", "[Service]\nExecStart=/usr/sbin/rpc.nfsd\n");
        tree.put("/lib/systemd/system/rpcbind.socket", "[Socket]\nListenStream=111\n");
        tree.put("/usr/bin/heirlock", "program\n");
        tree.put("/etc/nfs.conf", "[sm-notify]\n# lift-grace=y\n");
        tree.put("/proc/sys/kernel/random/boot_id", "boot-1\n");
        tree.put("/proc/sys/fs/nfs/nlm_grace_period", "90\n");
        tree.put("/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
        tree.process(4711, "/usr/sbin/rpc.statd", geteuid().as_raw());
        fs::rename(tree.host().at("/proc/4711"), tree.outside.path().join("statd")).unwrap();
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> {log}\ncd {root}/etc/systemd/system || exit 1\n\
             case $3 in *.socket) wants=sockets.target.wants;; *.timer) wants=timers.target.wants;;\n\
             *) wants=multi-user.target.wants;; esac\ncase $1 in\n\
             is-active) [ -e {root}/run/active/$3 ];;\n\
             mask) [ ! -e $2 ] || exit 1; ln -s /dev/null $2;;\nunmask) rm -f $2;;\n\
             enable) mkdir -p $wants; ln -sf ../$3 $wants;;\n\
             is-enabled) ls -d *.wants/$2 > /dev/null 2>&1 || {{ echo disabled; exit 1; }}; echo enabled;;\n\
             show) if [ -L $4 ]; then echo masked; elif [ -e {root}/lib/systemd/system/$4 ]; then echo loaded;\n\
             else echo not-found; fi;;\n\
             disable) [ -e $3 ] || [ -e {root}/lib/systemd/system/$3 ] || exit 1; rm -f $wants/$3 {root}/run/active/$3;\n\
             rmdir $wants || true;;\n\
             stop) [ $2 != rpc-statd.service ] || rm -rf {statd};;\n\
             start) [ $2 != rpc-statd.service ] || {{ mkdir -p {statd}; cp -a {kept}/. {statd}; }};;\nesac\n",
            statd = tree.root.path().join("proc/4711").display(),
            kept = tree.outside.path().join("statd").display(),
            log = tree.outside.path().join("log").display(),
            root = tree.root.path().display()
        );
        let path = tree.outside.path().join("systemctl");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        tree
    }

    /// The same with an rpc.statd that runs.
    pub(crate) fn with_statd() -> Self {
        let tree = Self::debian();
        tree.process(4711, "/usr/sbin/rpc.statd", geteuid().as_raw());
        tree
    }

    /// These addresses are on the host, and no others; without this those of the machine are.
    pub(crate) fn with_addresses(mut self, addresses: &[&str]) -> Self {
        self.network = Network::With(addresses.iter().map(|address| address.parse().unwrap()).collect());
        self
    }

    /// A process of the host that is this program and runs as this user.
    pub(crate) fn process(&self, pid: u32, program: &str, user: u32) {
        let name = program.rsplit('/').next().unwrap_or_default().split(' ').next().unwrap_or_default();
        let folder = format!("/proc/{pid}");
        self.put(&format!("{folder}/comm"), format!("{name}\n"));
        self.put(&format!("{folder}/cmdline"), format!("{program}\0"));
        self.put(
            &format!("{folder}/status"),
            format!("Name:\t{name}\nUid:\t{user}\t{user}\t{user}\t{user}\n"),
        );
        self.relink(&format!("{folder}/exe"), program);
        for folder in ["/proc/self", &folder] {
            self.relink(&format!("{folder}/ns/net"), "net:[1]");
            self.relink(&format!("{folder}/ns/pid"), "pid:[1]");
        }
    }

    /// A program of nfs-utils that can be asked, as a script.
    pub(crate) fn tool(&self, name: &str, script: &str) {
        let path = self.outside.path().join(name);
        // Not over one that may still be run.
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// An nfsconf of a version that reads the folder beside nfs.conf, or of one that reads the file alone.
    pub(crate) fn nfsconf(&self, reads_folder: bool) {
        let folder = if reads_folder { "$file.d/*.conf" } else { "" };
        let root = self.root.path().display();
        self.tool(
            "nfsconf",
            &format!(
                "file={root}/etc/nfs.conf\nif [ $1 = --file ]; then file=$2; shift 2; fi\n\
                 local=$(sed -n 's|^include = |{root}|p' $file)\n\
                 cat $local $file {folder} 2> /dev/null | awk -v s=$2 -v k=$3 '\
                 /^\\[/ {{ section = substr($0, 2, length($0) - 2) }}\n\
                 section == s && index($0, k \"=\") == 1 {{ value = substr($0, length(k) + 2); found = 1 }}\n\
                 END {{ if (!found) exit 1; print value }}'"
            ),
        );
    }

    /// A link, also in the place of another.
    pub(crate) fn relink(&self, path: &str, to: &str) {
        let path = self.host().at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(to, path).unwrap();
    }

    pub(crate) fn host(&self) -> Host {
        Host {
            root: self.root.path().to_owned(),
            process: "self".to_owned(),
            network: self.network.clone(),
            systemctl: self.systemd.then(|| self.outside.path().join("systemctl")),
            program: PathBuf::from("/usr/bin/heirlock"),
            tools: Some(self.outside.path().to_owned()),
        }
    }

    pub(crate) fn folder(&self, path: &str) {
        fs::create_dir_all(self.host().at(path)).unwrap();
    }

    pub(crate) fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.host().at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.host().at(path)).unwrap();
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.host().at(path).symlink_metadata().is_ok()
    }

    /// The calls of systemctl, a line each.
    pub(crate) fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.outside.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Every name in the tree, with its mode and its contents.
    pub(crate) fn listing(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        list(self.root.path(), self.root.path(), &mut found);
        found
    }
}

fn list(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let bytes = if metadata.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if metadata.is_dir() {
            list(root, &path, found);
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        found.insert(path.strip_prefix(root).unwrap().to_owned(), (metadata.permissions().mode(), bytes));
    }
}

/// A process in namespaces of its own, and the host that it is on.
pub(crate) struct Instance {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    pub(crate) host: Host,
}

impl Instance {
    /// Where only root may do what the test does there.
    pub(crate) fn as_root(namespaces: &[&str], script: &str) -> Option<Self> {
        if !geteuid().is_root() {
            crate::left_out::leave_out("root");
            return None;
        }
        Self::begin(namespaces, script, "true")
    }

    /// With these namespaces (unshare(1)), as root of its own. It has run the script; after [`Instance::go_on`] it runs the
    /// next one. None where namespaces are not to be had.
    pub(crate) fn begin(namespaces: &[&str], script: &str, then: &str) -> Option<Self> {
        let script = format!("{script} && echo done && read go && {then} && echo done && read go");
        let as_root = ["--user", "--map-root-user"].iter().filter(|_| !geteuid().is_root());
        let mut child = Command::new("unshare")
            .args(as_root)
            .args(namespaces)
            .args(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut instance = Self { host: Host::of(child.id()), child, said };
        if instance.said.next().is_none() {
            crate::left_out::leave_out("namespaces");
            return None;
        }
        Some(instance)
    }

    pub(crate) fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(self.said.next().unwrap().unwrap(), "done");
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The shell reads no more, and ends.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Ends a process that a test started.
pub(crate) fn ended(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
