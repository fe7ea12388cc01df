//! The cast's work with NFS: serve, mount, lock, and show the servers' state.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Cluster, Name, Service, quoted, systemd};
use crate::grace::{Grace, probe};
use crate::guest_program;
use crate::limits::{ADOPTION_TIME_MAX, COMMAND_TIME_MAX, LOCK_TIME_MAX, NODE_GRACE_SECONDS};
use crate::network::UNUSED_ADDRESS;

/// Restarts the kernel's NFS server: drops all its locks and opens a new grace period.
pub const RESTART_NFS: &str = "rpc.nfsd 0; rpc.nfsd 4";

/// The answer to a client's process that asked for an exclusive lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The lock.
    Locked,
    /// Another process holds it.
    Denied,
    /// Something else, e.g. ENOLCK.
    Failed(String),
}

impl Lock {
    fn parse(output: &str) -> Self {
        match output.trim() {
            "LOCKED" => Self::Locked,
            "DENIED" => Self::Denied,
            other => Self::Failed(other.to_owned()),
        }
    }
}

/// Monitor records as rpc.statd keeps them: file name to content.
pub type Records = BTreeMap<String, String>;

impl Cluster {
    /// The server takes the service: volume, export, NFS server, and last its address, so that no client gets
    /// an answer before all is ready.
    ///
    /// # Errors
    /// When a step fails.
    pub fn serve(&self, server: Name, service: &Service) -> Result<()> {
        self.attach(server, service)?;
        self.start_nfs(server)?;
        self.address_up(server, service)?;
        self.say(format!("{server} serves {}", service.name));
        Ok(())
    }

    /// Mounts the service's volume on the server and exports it.
    ///
    /// # Errors
    /// When a step fails.
    pub fn attach(&self, server: Name, service: &Service) -> Result<()> {
        let Service { name, disk, fsid, .. } = service;
        let export = self.export(server, &format!("/srv/{name}"), &fsid.to_string());
        let command = format!(
            "set -e; mkdir -p /srv/{name}; mount -t ext4 {disk} /srv/{name}; chmod 777 /srv/{name}
             for file in f g h; do touch /srv/{name}/$file; chmod 666 /srv/{name}/$file; done; sync
             {export}"
        );
        self.ok(server, &command).map(drop)
    }

    /// Starts the kernel's NFS server where it does not run, with short grace periods.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_nfs(&self, server: Name) -> Result<()> {
        let start = match self.is_run_by_systemd(server) {
            true => systemd::START_NFS,
            false => "rpc.mountd; rpc.nfsd 4",
        };
        let set_grace = self.grace_command();
        let command = format!(
            "set -e; [ \"$(cat /proc/fs/nfsd/threads)\" -eq 0 ] || exit 0
             {set_grace}
             {start}; [ \"$(cat /proc/fs/nfsd/threads)\" -gt 0 ]"
        );
        self.ok(server, &command).map(drop)
    }

    /// Sets the grace periods of a server whose NFS is started by somebody else.
    ///
    /// # Errors
    /// When it runs already.
    pub fn set_grace(&self, server: Name) -> Result<()> {
        self.ok(server, &format!("set -e; {}", self.grace_command())).map(drop)
    }

    /// NFS servers that are started from now on have the grace period of a usual server ([`NODE_GRACE_SECONDS`]).
    pub fn lengthen_grace(&mut self) {
        self.grace_seconds = NODE_GRACE_SECONDS;
    }

    fn grace_command(&self) -> String {
        let grace = self.grace_seconds;
        format!(
            "sysctl -qw fs.nfs.nlm_grace_period={grace}
             echo {grace} > /proc/fs/nfsd/nfsv4leasetime; echo {grace} > /proc/fs/nfsd/nfsv4gracetime"
        )
    }

    /// Gives the server the service's floating address and tells the network.
    ///
    /// # Errors
    /// When it has it already.
    pub fn address_up(&self, server: Name, service: &Service) -> Result<()> {
        let address = service.address;
        let guest_program = guest_program::NAME;
        let command = format!(
            "ip addr add {address}/24 dev vec0 && {guest_program} announce {address} {UNUSED_ADDRESS}"
        );
        self.ok(server, &command).map(drop)
    }

    /// Takes the service's floating address from the server.
    ///
    /// # Errors
    /// When it does not have it.
    pub fn address_down(&self, server: Name, service: &Service) -> Result<()> {
        self.ok(server, &format!("ip addr del {}/24 dev vec0", service.address)).map(drop)
    }

    /// Takes the service's export and volume from the server.
    ///
    /// # Errors
    /// When the volume is in use.
    pub fn detach(&self, server: Name, service: &Service) -> Result<()> {
        let Service { name, .. } = service;
        let unexport = self.unexport(server, &format!("/srv/{name}"));
        self.ok(server, &format!("set -e; {unexport}; exportfs -f; sync; umount /srv/{name}")).map(drop)
    }

    /// Ends the grace period of a server that starts for the first time and has no client to wait for. That of
    /// NFSv4 may be over by itself: nfsd skips it where nfsdcld knows no client.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn end_grace(&self, server: Name) -> Result<()> {
        let command = "echo Y > /proc/fs/lockd/nlm_end_grace
            v4=/proc/fs/nfsd/v4_end_grace; [ \"$(cat $v4)\" = Y ] || echo Y > $v4";
        self.ok(server, command).map(drop)
    }

    /// Is the lock manager behind the service's address in grace? It is asked, not its files.
    ///
    /// # Errors
    /// When none answers there.
    pub fn grace(&self, service: &Service) -> Result<Grace> {
        probe(service.address)
    }

    /// Waits until the lock manager behind the service's address says that grace is over.
    ///
    /// # Errors
    /// When it does not end within [`ADOPTION_TIME_MAX`] and a grace period.
    pub fn wait_until_grace_is_over(&self, service: &Service) -> Result<()> {
        let limit = ADOPTION_TIME_MAX + Duration::from_secs(self.grace_seconds);
        // No answer is no proof: a server that is just being started says nothing yet.
        self.wait_for("the end of grace", limit, || {
            Ok(matches!(self.grace(service), Ok(Grace::Over)).then_some(()))
        })?;
        self.say(format!("grace is over on {}", service.address));
        Ok(())
    }

    /// The client mounts the service.
    ///
    /// # Errors
    /// When it can't.
    pub fn mount(&self, client: Name, service: &Service) -> Result<()> {
        let Service { name, address, .. } = service;
        let command = format!(
            "set -e; mkdir -p /mnt/{name}; mount -t nfs -o vers=3,hard,tcp,timeo=50 {address}:/srv/{name} /mnt/{name}
             grep -q ' /mnt/{name} nfs ' /proc/mounts"
        );
        self.ok(client, &command)?;
        self.say(format!("{client} mounts {name}"));
        Ok(())
    }

    /// A process on the client takes an exclusive lock on a file of the service (`f`, `g` or `h`) and keeps
    /// it.
    ///
    /// # Errors
    /// When it does not get it.
    pub fn hold(&self, client: Name, service: &Service, file: &str) -> Result<()> {
        let name = service.name;
        let output = self.begin_to_hold(client, service, file, "")?;
        let got = self.wait_for("an answer to a lock request", LOCK_TIME_MAX, || {
            let output = self.ok(client, &format!("cat {output}"))?;
            Ok(output.ends_with('\n').then(|| Lock::parse(&output)))
        })?;
        if got != Lock::Locked {
            bail!("{client} expected the lock on {name}/{file}, got {got:?}");
        }
        self.say(format!("{client} holds the lock on {name}/{file}"));
        Ok(())
    }

    /// The beginning of `hold`; returns the place where the answer will be. A socket at `listener` hears of the lock
    /// at once.
    pub(super) fn begin_to_hold(
        &self,
        client: Name,
        service: &Service,
        file: &str,
        listener: &str,
    ) -> Result<String> {
        let (name, guest_program) = (service.name, guest_program::NAME);
        let output = format!("/run/lab/hold.{name}.{file}");
        let lock = format!("{guest_program} lock /mnt/{name}/{file} 100000 {listener}");
        let command = format!(
            ": > {output}
             (setsid {lock} >> {output} 2>&1 < /dev/null & echo $! > {output}.pid)"
        );
        self.ok(client, &command)?;
        Ok(output)
    }

    /// The process that `hold` left ends, and its lock with it.
    ///
    /// # Errors
    /// When it had ended already.
    pub fn let_go(&self, client: Name, service: &Service, file: &str) -> Result<()> {
        self.ok(client, &format!("kill \"$(cat /run/lab/hold.{}.{file}.pid)\"", service.name))?;
        self.say(format!("{client} lets go of {}/{file}", service.name));
        Ok(())
    }

    /// The process that `hold` left still runs, and its kernel holds a lock for it, whatever the server says.
    ///
    /// # Errors
    /// When it has ended, or its kernel has no lock.
    pub fn expect_still_believes(&self, client: Name, service: &Service, file: &str) -> Result<()> {
        let output = format!("/run/lab/hold.{}.{file}", service.name);
        let command = format!(
            "kill -0 \"$(cat {output}.pid)\" && grep -q LOCKED {output} && grep -q POSIX /proc/locks"
        );
        self.ok(client, &command).map(drop)
    }

    /// The answer to another process of the client that asks for the same lock. In grace it waits for the end
    /// of it.
    ///
    /// # Errors
    /// When the client does not answer.
    pub fn try_lock(&self, client: Name, service: &Service, file: &str) -> Result<Lock> {
        let command = format!("{} try-lock /mnt/{}/{file}", guest_program::NAME, service.name);
        let got = Lock::parse(&self.run(client, &command, LOCK_TIME_MAX)?.output);
        self.say(format!("{client} asks for the lock on {}/{file} and is told: {got:?}", service.name));
        Ok(got)
    }

    /// The same, with how long its process waited.
    ///
    /// # Errors
    /// When the client does not answer.
    pub fn time_lock(&self, client: Name, service: &Service, file: &str) -> Result<(Lock, Duration)> {
        let command = format!("{} time-lock /mnt/{}/{file}", guest_program::NAME, service.name);
        let output = self.run(client, &command, LOCK_TIME_MAX * 2)?.output;
        let (got, took) = output.trim_end().rsplit_once('\n').with_context(|| format!("found {output:?}"))?;
        let (got, took) = (Lock::parse(got), Duration::from_micros(took.parse()?));
        self.say(format!(
            "{client} asks for the lock on {}/{file} and is told after {:.2} s: {got:?}",
            service.name,
            took.as_secs_f64()
        ));
        Ok((got, took))
    }

    /// The conflicting client must be refused.
    ///
    /// # Errors
    /// When it is not.
    pub fn expect_denied(&self, client: Name, service: &Service, file: &str) -> Result<()> {
        self.expect(client, service, file, &Lock::Denied)
    }

    /// The client must get the lock, for a moment.
    ///
    /// # Errors
    /// When it does not.
    pub fn expect_locked(&self, client: Name, service: &Service, file: &str) -> Result<()> {
        self.expect(client, service, file, &Lock::Locked)
    }

    /// A process of the client asks for the lock again and again, until [`Cluster::expect_always_denied`].
    ///
    /// # Errors
    /// When the client does not answer.
    pub fn keep_asking(&self, client: Name, service: &Service, file: &str) -> Result<()> {
        let (name, guest_program) = (service.name, guest_program::NAME);
        let output = format!("/run/lab/asked.{name}.{file}");
        let asking = format!("while :; do {guest_program} try-lock /mnt/{name}/{file}; sleep 0.2; done");
        let command =
            format!("(setsid sh -c '{asking}' >> {output} 2>&1 < /dev/null & echo $! > {output}.pid)");
        self.ok(client, &command)?;
        self.say(format!("{client} asks for the lock on {name}/{file} all the time"));
        Ok(())
    }

    /// Ends the asking: each answer must have been a refusal.
    ///
    /// # Errors
    /// When one was not, or there were few.
    pub fn expect_always_denied(&self, client: Name, service: &Service, file: &str) -> Result<()> {
        let output = format!("/run/lab/asked.{}.{file}", service.name);
        // While the address moves and in grace the kernel keeps a question to itself, for long: few are answered then.
        self.wait_until(client, &format!("[ \"$(wc -l < {output})\" -gt 2 ]"))?;
        self.ok(client, &format!("kill \"$(cat {output}.pid)\""))?;
        let answers = self.ok(client, &format!("sort {output} | uniq -c"))?;
        let answers: Vec<&str> = answers.split_whitespace().collect();
        match answers.as_slice() {
            [count, "DENIED"] if count.parse::<u32>()? > 2 => {
                self.say(format!(
                    "{client} asked for the lock on {}/{file} {count} times, and never got it",
                    service.name
                ));
                Ok(())
            }
            _ => bail!("{client} expected to be refused each time, found {answers:?}"),
        }
    }

    fn expect(&self, client: Name, service: &Service, file: &str, expected: &Lock) -> Result<()> {
        let got = self.try_lock(client, service, file)?;
        if got != *expected {
            bail!(
                "{client} asked for the lock on {}/{file}: expected {expected:?}, got {got:?}",
                service.name
            );
        }
        Ok(())
    }

    /// The monitor records that the server's rpc.statd has.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn records(&self, server: Name) -> Result<Records> {
        let listing = self.ok(server, "cd /var/lib/nfs/sm && for file in *; do [ -f \"$file\" ] && sed \"s|^|$file:|\" \"$file\"; done; true")?;
        let mut records = Records::new();
        for line in listing.lines() {
            if let Some((file, record)) = line.split_once(':') {
                records.entry(file.to_owned()).or_default().push_str(&format!("{record}\n"));
            }
        }
        Ok(records)
    }

    /// Places monitor records on a server by hand, as a person without heirlock would.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn place_records(&self, server: Name, records: &Records) -> Result<()> {
        for (file, content) in records {
            let path = format!("/var/lib/nfs/sm/{file}");
            self.ok(
                server,
                &format!("umask 077; printf %s {} > {path} && chown statd {path}", quoted(content)),
            )?;
        }
        Ok(())
    }

    /// The files that a reboot leaves on the disk of a server, and not in a guest's memory: the records that its
    /// status monitor had, written before the boot.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn restore_records(&self, server: Name, records: &Records) -> Result<()> {
        self.place_records(server, records)?;
        self.ok(server, "find /var/lib/nfs/sm -type f -exec touch -d '10 minutes ago' {} +").map(drop)
    }

    /// How often NFS was started on the server, by its kernel's own count: at each start nfsd says what becomes of its grace period.
    ///
    /// # Errors
    /// When the server does not answer, or its kernel does not say that.
    pub fn nfs_starts(&self, server: Name) -> Result<usize> {
        let said = self.ok(server, "dmesg")?;
        let starts = said.lines().filter(|line| line.contains("NFSD: ") && line.contains("grace period"));
        let count = starts.count();
        ensure!(
            count > 0,
            "expected that the kernel of {server} says when nfsd starts, found none of it:\n{said}"
        );
        Ok(count)
    }

    /// How many POSIX locks the server's kernel holds on volumes, for all clients. Daemons lock their own files in memory, whose
    /// file systems have no device: major number 0.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn locks(&self, server: Name) -> Result<usize> {
        let locks = self.ok(server, "cat /proc/locks")?;
        Ok(locks.lines().filter(|line| line.contains(" POSIX ") && !line.contains(" 00:")).count())
    }

    /// Waits until the server's kernel holds that many POSIX locks.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait_for_locks(&self, server: Name, count: usize, limit: Duration) -> Result<()> {
        self.wait_for(&format!("{count} locks on {server}"), limit, || {
            Ok((self.locks(server)? == count).then_some(()))
        })?;
        self.say(format!("{server} has {count} locks"));
        Ok(())
    }

    /// Waits until a shell command succeeds in a guest.
    ///
    /// # Errors
    /// When it does not within [`COMMAND_TIME_MAX`].
    pub fn wait_until(&self, name: Name, command: &str) -> Result<()> {
        self.wait_until_within(name, command, COMMAND_TIME_MAX)
    }

    /// The same with another time limit.
    ///
    /// # Errors
    /// When it does not succeed within `limit`.
    pub fn wait_until_within(&self, name: Name, command: &str, limit: Duration) -> Result<()> {
        let test = format!("{command} && echo yes || echo no");
        self.wait_for(command, limit, || Ok(self.ok(name, &test)?.ends_with("yes\n").then_some(())))
    }
}
