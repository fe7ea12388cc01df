//! The window between a client's first lock and its durable record. The server loses power in the very moment in which
//! the client has its lock; the store lies where the server's death can't reach.

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_lock_count, stand_by, stand_by_again};
use crate::capture::{Capture, EACH};
use crate::cluster::{CLIENT1, CLIENT2, CLIENT3, Cluster, HOMES, Lock, NFS_A, NFS_B, Name, SETUP, Setup};
use crate::scenario::{EVERYWHERE, Scenario};

/// Three first locks, three power losses.
pub const WINDOW: Scenario = Scenario {
    name: "window",
    about: "three times a server loses power as soon as a new client has its lock: it survives (watch: the loss is shown)",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: EACH,
    run,
};

/// Each round: the client that takes a lock, the lock, the server on which it is lost, and the one that adopts. Each
/// client is a new one: for a known one nothing needs to be written.
const ROUNDS: [(Name, &str, Name, Name); 3] =
    [(CLIENT1, "f", NFS_A, NFS_B), (CLIENT2, "g", NFS_B, NFS_A), (CLIENT3, "h", NFS_A, NFS_B)];

fn run(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { hooks: true, ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2, CLIENT3])?;
    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    lab.protect(NFS_A, &setup)?;
    let mut survived = Vec::new();
    for (client, file, primary, adoptive) in ROUNDS {
        if survived.is_empty() {
            stand_by(lab, adoptive, &setup)?;
        } else {
            lab.switch_on(&[adoptive])?; // it was the primary of the round before
            stand_by_again(lab, adoptive, &setup)?;
        }
        lab.mount(client, &HOMES)?;
        let address = lab.address(client)?;
        ensure!(!lab.stored(&HOMES)?.contains_key(&address), "{client} is no new client");
        lab.hold_and_lose_power(client, &HOMES, file, primary)?;
        let survives = lab.stored(&HOMES)?.contains_key(&address);
        ensure!(
            survives || lab.capture() == Capture::Watch,
            "{client} had its lock before the store had its record (I1)"
        );
        survived.push(survives);

        lab.adopt(adoptive, &HOMES, "--owner-fenced")?;
        let count = survived.iter().filter(|survived| **survived).count();
        lab.wait_for_locks(adoptive, count, RECLAIM_TIME_MAX)?;
        lab.wait_until_grace_is_over(&HOMES)?;
        expect_lock_count(lab, adoptive, count)?;
    }
    // Not before: a client that was refused a lock is a known client.
    for ((client, file, ..), survived) in ROUNDS.into_iter().zip(&survived) {
        let rival = if client == CLIENT1 { CLIENT2 } else { CLIENT1 };
        let expected = if *survived { Lock::Denied } else { Lock::Locked };
        let got = lab.try_lock(rival, &HOMES, file)?;
        ensure!(got == expected, "{rival} asked for {file}: expected {expected:?}, got {got:?}");
    }
    let lost = survived.iter().filter(|survived| !**survived).count();
    lab.say(format!("{lost} of {} locks were lost", ROUNDS.len()));
    Ok(())
}
