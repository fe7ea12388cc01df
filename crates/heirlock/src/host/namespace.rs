//! The network namespace of a host, and how a thread comes to work in it.
//!
//! setns(2) moves the thread that calls it, and no other; threads that it begins are in the same namespace (clone(2)). A mount
//! namespace can't be entered like this: all threads of a program share one root and one working directory, unless unshare(2)
//! parts them, for which there is no safe call. So files of another mount namespace are reached below [`Host::root`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Host, SELF};
use crate::files::trusted;
use crate::threads::{self, Lasting};

impl Host {
    /// Whether its network is that of this program: sockets that this program was handed are on it.
    pub(crate) fn has_our_network(&self) -> bool {
        self.process == SELF
    }

    /// Does something in a thread of this name that works for this host: it is in the host's network namespace, and so are all
    /// threads that it begins. See [`threads::start`].
    ///
    /// # Errors
    /// Where no thread can be had, where the host's process has ended, or where the program may not enter the namespace
    /// (CAP_SYS_ADMIN, setns(2)).
    pub(crate) fn start<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        self.within("enter", || threads::start(name, work))?
    }

    /// The same for a thread that is to live as long as the program. See [`threads::lasting`].
    ///
    /// # Errors
    /// As for [`Host::start`].
    pub(crate) fn lasting(
        &self,
        name: &'static str,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Lasting> {
        self.within("enter", || threads::lasting(name, work))?
    }

    /// Does something in the network namespace of this host: here, where it is this program's own, or else in a thread of this
    /// name that enters it, for whose end it waits.
    ///
    /// # Errors
    /// As for [`Host::start`].
    pub(crate) fn within<T: Send>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send,
    ) -> io::Result<T> {
        if self.has_our_network() {
            return Ok(work());
        }
        let path = self.of_process("ns/net");
        let enter = || -> io::Result<()> {
            let namespace = OwnedFd::from(trusted::open(&path)?);
            Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
        };
        let not_entered = |error: io::Error| {
            let what = format!("can't enter the network namespace {}: {error}", path.display());
            io::Error::new(error.kind(), what)
        };
        thread::scope(|scope| {
            let begun = threads::start_in(scope, name, || enter().map_err(not_entered).map(|()| work()))?;
            begun.join().map_err(|_| io::Error::other("the thread has a fault"))?
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

    use heirlock_nsm::MonName;

    use super::*;
    use crate::host::testing::Instance;

    const ADDRESS: &str = "192.0.2.77";

    /// Whether this thread is where the address is.
    fn is_there() -> bool {
        UdpSocket::bind((ADDRESS, 0)).is_ok()
    }

    #[test]
    fn a_host_of_another_network_namespace_has_its_addresses_its_sockets_and_its_connections() {
        let script = format!("ip addr add {ADDRESS}/32 dev lo && ip link set lo up");
        let Some(instance) = Instance::as_root(&["--net"], &script) else { return };
        let (host, here) = (&instance.host, Host::here());
        let address: IpAddr = ADDRESS.parse().unwrap();
        assert!(host.addresses().contains(&address) && host.is_present(address));
        assert!(!here.addresses().contains(&address) && !here.is_present(address));
        // A thread of its own works there, and so does each thread that this one begins.
        let work = || (is_there(), threads::start("nested", is_there).unwrap().join().unwrap());
        assert_eq!(host.start("works", work).unwrap().join().unwrap(), (true, true));
        assert_eq!(here.start("works", work).unwrap().join().unwrap(), (false, false));
        assert!(!is_there(), "the thread that begins one stays where it is");
        // Its own table tells which hosts are connected with its NFS server.
        let connect = || {
            let nfs = TcpListener::bind((ADDRESS, 2049)).unwrap();
            (TcpStream::connect((ADDRESS, 2049)).unwrap(), nfs.accept().unwrap())
        };
        let _connected = host.start("connects", connect).unwrap().join().unwrap();
        let client = MonName::from_address(address);
        assert!(host.peers().roles(&[], true).connected.contains(&client));
        assert!(!here.peers().roles(&[], true).connected.contains(&client));
    }

    #[test]
    fn a_host_of_another_mount_namespace_has_its_files() {
        let script = "mount -t tmpfs none /mnt && echo '/srv *(rw)' > /mnt/heirlock-exports";
        let Some(instance) = Instance::as_root(&["--mount"], script) else { return };
        let text = |host: &Host| host.text("/mnt/heirlock-exports");
        assert_eq!((text(&instance.host).as_deref(), text(&Host::here())), (Some("/srv *(rw)\n"), None));
        assert!(
            instance.host.mounts().contains(" /mnt tmpfs ")
                && !Host::here().mounts().contains(" /mnt tmpfs ")
        );
    }

    #[test]
    fn a_network_namespace_that_is_gone_is_an_error_that_names_it_and_no_work_is_done() {
        let host = Host { process: "0".into(), ..Host::here() };
        let error = host.start("works", || panic!("in the wrong namespace")).unwrap_err();
        assert!(error.to_string().contains("can't enter the network namespace /proc/0/ns/net"), "{error}");
        assert!(!host.is_present([127, 0, 0, 1].into()));
    }
}
