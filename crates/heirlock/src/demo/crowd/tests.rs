use std::net::IpAddr;

use heirlock_core::grace::Leave;
use heirlock_core::notify::Words;
use heirlock_core::{Moment, Outcome};
use heirlock_nsm::{MonName, MyName};

use super::*;
use crate::config::NotifySettings;
use crate::notifier::{self, Principal, Task};

const SERVICE: Ipv4Addr = Ipv4Addr::new(127, 200, 3, 10);

/// Has the crowd told until all that can answer have, and then a moment longer for those that can't.
struct Patient {
    began: Instant,
    told: usize,
    ends: Duration,
}

impl Principal for Patient {
    fn now(&self) -> Moment {
        Moment::at(self.began.elapsed())
    }

    fn may_leave(&mut self, now: Moment) -> Leave {
        if now >= Moment::at(self.ends) { Leave::TooLate } else { Leave::Granted }
    }

    fn acknowledged(&mut self, clients: Vec<MonName>) {
        self.told += clients.len();
        if self.told == 10 {
            self.ends = self.began.elapsed() + Duration::from_millis(300);
        }
    }
}

/// The real notifier tells a crowd: the living answer, and move; the dead are found to be dead.
#[test]
fn the_living_answer_the_notifier_and_the_dead_do_not() {
    let port = bind(SERVICE, 0).unwrap().local_addr().unwrap().port();
    let mounts = Mounts {
        service: SERVICE,
        names: vec!["homes".into(), SERVICE.to_string()],
        primary_state: StateNumber(7),
    };
    let unserved = SocketAddr::new(SERVICE.into(), 9);
    let crowd = Crowd::live(Crowd::gather(12, port, &mounts).unwrap(), unserved).unwrap();
    crowd.kill_off(2);
    let addresses = (0..12).map(|number| IpAddr::from(address_of(number)));
    let task = Task {
        words: Words::Restart { names: vec![MyName::parse("homes").unwrap()], state: StateNumber(9) },
        clients: addresses.map(|address| (MonName::from_address(address), vec![address.into()])).collect(),
        from: vec![SERVICE.into()],
        settings: NotifySettings { rpcbind_port: port, privileged_port: false },
    };
    let mut patient = Patient { began: Instant::now(), told: 0, ends: Duration::from_secs(20) };
    let left = notifier::run(task, &mut patient);
    assert_eq!((patient.told, left.len()), (10, 2));
    assert!(left.iter().all(|(_, outcome, _)| *outcome == Outcome::Unreachable), "{left:?}");
    assert_eq!(crowd.count(|client| client.notes().reactions == 1), 10);
}
