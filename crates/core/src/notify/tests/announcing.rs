//! Addresses that are announced again, for a client that is called from there is silent.

use super::*;

/// The announcements until `end`, of a service that has these addresses, whose client has one habit.
fn announcements(sources: &[IpAddr], habit: Habit, end: Moment) -> Vec<(Moment, IpAddr)> {
    let mut notifier = Notifier::new(Plan { sources: sources.to_vec(), ..plan(1) });
    let (mut now, mut told, mut announced) = (Moment::START, Told::default(), Vec::new());
    while now < end && !notifier.is_done() {
        while let Some(address) = notifier.poll_announcement(now) {
            announced.push((now, address));
        }
        while let Some(transmit) = notifier.poll_transmit(now) {
            match answer(habit, transmit.to, &transmit.payload, &mut told) {
                _ if transmit.transport == TCP => notifier.handle_failure(transmit.xid, "refused".into()),
                Some((from, bytes)) => notifier.handle_reply(now, UDP, from, &bytes),
                None => {}
            }
        }
        now = notifier.next_timeout().unwrap_or(end);
    }
    announced
}

fn service(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

#[test]
fn the_address_that_a_silent_client_is_called_from_is_announced_again_and_again() {
    let announced = announcements(&[service(1)], Habit::Dead, at(30_000));
    assert!(announced.iter().all(|(_, address)| *address == service(1)), "{announced:?}");
    let first = announced[0].0;
    assert!(first >= at(limits::NOTIFY_RETRY_MS_MIN) && first < at(1_000), "{announced:?}");
    let longest =
        limits::NOTIFY_ANNOUNCE_INTERVAL + Duration::from_millis(limits::NOTIFY_RETRY_MS_MAX * 5 / 4);
    for pair in announced.windows(2) {
        let between = pair[1].0.since(pair[0].0);
        assert!(between >= limits::NOTIFY_ANNOUNCE_INTERVAL && between <= longest, "{announced:?}");
    }
    assert!(announced.last().unwrap().0 + longest >= at(30_000), "{announced:?}");
}

#[test]
fn each_address_of_the_service_is_announced_as_far_as_the_client_is_called_from_there() {
    let announced = announcements(&[service(1), service(2)], Habit::Dead, at(30_000));
    let of = |address| announced.iter().filter(|(_, one)| *one == address).count();
    assert!(of(service(1)) > 2 && of(service(2)) > 2, "{announced:?}");
}

#[test]
fn no_address_is_announced_for_clients_that_answer_nor_one_that_the_route_chooses() {
    assert_eq!(announcements(&[service(1)], Habit::Living, at(30_000)), []);
    assert_eq!(announcements(&plan(1).sources, Habit::Dead, at(30_000)), []);
}

#[test]
fn the_call_that_follows_an_announcement_is_the_repeated_one() {
    let mut notifier = Notifier::new(Plan { sources: vec![service(1)], ..plan(1) });
    let first = notifier.poll_transmit(Moment::START).unwrap();
    assert_eq!(notifier.poll_announcement(at(10)), None, "it may still answer");
    let late = at(limits::NOTIFY_RETRY_MS_MIN * 5 / 4);
    assert_eq!(notifier.poll_announcement(late), Some(service(1)));
    let again = notifier.poll_transmit(late).unwrap();
    assert_eq!((again.to, again.from), (first.to, first.from));
}
