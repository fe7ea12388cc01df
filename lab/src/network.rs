//! A private network for one scenario: a namespace of its own, a bridge, one tap device per guest.
//!
//! The namespace has no name and no mount. The calling thread and the kernels it starts are all that holds
//! it: when they end it is gone, whatever ended them. So no run can leave one behind, and all runs may use
//! the same addresses.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::run;

/// The lab's own address in every network, on the bridge.
pub const LAB_ADDRESS: &str = "10.99.0.254";

/// The network of the addresses that a crowd has, `/20`: the lab answers for all of them.
pub const CROWD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 16, 0);

/// The address of etcd, on the bridge too: a guest that has no way to it still hears the lab.
pub const ETCD_ADDRESS: &str = "10.99.0.252";

/// A free address of the network: no host answers to it.
pub const UNUSED_ADDRESS: &str = "10.99.0.253";

/// The network that this thread has moved into.
#[derive(Debug)]
pub struct Network(());

impl Network {
    /// Moves the calling thread into a new network. Processes that the thread starts from now on live in it too;
    /// there is no way back, so a scenario has a thread of its own.
    ///
    /// # Errors
    /// When a namespace or bridge can't be made: root is needed.
    pub fn enter() -> Result<Self> {
        enter_new_namespace().context("can't make a network namespace (root is needed)")?;
        ip("link set lo up")?;
        ip("link add br0 type bridge")?;
        ip(&format!("addr add {LAB_ADDRESS}/24 dev br0"))?;
        ip(&format!("addr add {ETCD_ADDRESS}/24 dev br0"))?;
        ip("link set br0 up")?;
        ip(&format!("route add local {CROWD_ADDRESS}/20 dev lo"))?;
        Ok(Self(()))
    }

    /// Plugs a new tap device into the bridge.
    ///
    /// # Errors
    /// When the machine has no /dev/net/tun.
    pub fn plug(&self, tap: &str) -> Result<()> {
        ip(&format!("tuntap add {tap} mode tap"))?;
        ip(&format!("link set {tap} master br0"))?;
        ip(&format!("link set {tap} up"))
    }

    /// Cuts or restores the link of a guest, as a pulled cable would.
    ///
    /// # Errors
    /// When there is no such tap device.
    pub fn cable(&self, tap: &str, plugged: bool) -> Result<()> {
        ip(&format!("link set {tap} {}", if plugged { "up" } else { "down" }))
    }
}

/// A short-lived process makes the namespace and answers once to show that it is inside; this thread follows
/// it there. (`ip netns add` would leave a name and a mount on the machine.)
pub(crate) fn enter_new_namespace() -> Result<()> {
    let mut maker = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("can't start unshare")?;
    let outcome = follow(&mut maker);
    drop(maker.stdin.take()); // the end of its input ends cat
    maker.wait()?;
    outcome
}

fn follow(maker: &mut std::process::Child) -> Result<()> {
    let (Some(input), Some(output)) = (maker.stdin.as_mut(), maker.stdout.as_mut()) else {
        bail!("unshare has no pipes")
    };
    input.write_all(b"x").context("unshare ended early")?;
    output.read_exact(&mut [0]).context("unshare ended early")?;
    let path = format!("/proc/{}/ns/net", maker.id());
    if fs::read_link(&path)? == fs::read_link("/proc/thread-self/ns/net")? {
        bail!("unshare made no new namespace");
    }
    let namespace = File::open(&path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

pub(crate) fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").args(arguments.split(' '))).map(drop)
}
