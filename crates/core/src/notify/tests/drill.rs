//! A drill: clients are asked by the same ways as they would be told, and hear nothing of a restart.

use super::*;

/// A drill's plan for these clients.
fn drill(clients: u32, seed: u64) -> Plan {
    Plan { words: Words::Nothing, seed, ..plan(clients) }
}

/// The answer of a client, which must be asked for nothing but a port, and then called without words.
fn answer_to(habit: Habit, transmit: &Transmit) -> Option<Vec<u8>> {
    let call = Call::decode(&transmit.payload).expect("a call");
    let result = match call.prog {
        rpcbind::PROGRAM => {
            rpcbind::encode_getport_result((habit != Habit::Unregistered).then_some(NSM_PORT))
        }
        sm::PROGRAM => {
            assert_eq!((call.vers, call.proc_, call.args), (sm::VERSION, 0, &[][..]), "the empty call alone");
            assert_eq!(transmit.to.port(), NSM_PORT);
            Vec::new()
        }
        other => panic!("a call of program {other}"),
    };
    match habit {
        Habit::Living | Habit::Unregistered => Some(encode_success(call.xid, &result)),
        Habit::Refuses => Some(encode_error(call.xid, &ReplyError::ProgUnavailable)),
        _ => None,
    }
}

/// Asks all of them until each has answered or had its first round. Who answered, and who did not and why.
fn asked(habits: &[Habit], seed: u64) -> (BTreeSet<MonName>, Vec<(MonName, Outcome, String)>) {
    let clients = u32::try_from(habits.len()).unwrap();
    let mut notifier = Notifier::new(drill(clients, seed));
    let (mut now, mut answered) = (at(0), BTreeSet::new());
    while !notifier.has_tried_all() {
        while let Some(transmit) = notifier.poll_transmit(now) {
            let of = (0..clients).find(|client| address(*client) == transmit.to.ip()).unwrap();
            let habit = habits[usize::try_from(of).unwrap()];
            match answer_to(habit, &transmit) {
                Some(reply) => notifier.handle_reply(now, transmit.transport, transmit.to, &reply),
                None if transmit.transport == TCP => notifier.handle_failure(transmit.xid, "no route".into()),
                None => {}
            }
            while let Some(event) = notifier.poll_event() {
                if let Event::Acknowledged(client) = event {
                    answered.insert(client);
                }
            }
        }
        now = notifier
            .next_timeout()
            .map_or(now + Duration::from_millis(50), |due| due.max(now + Duration::from_millis(1)));
        assert!(now < at(60_000), "a first round ends");
    }
    (answered, notifier.stop(""))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Exactly the living are found to live, and no client hears a word of a restart: `answer_to` looks at each call.
    #[test]
    fn a_drill_finds_the_living_and_tells_none_of_a_restart(
        habits in proptest::collection::vec(
            prop_oneof![Just(Habit::Living), Just(Habit::Dead), Just(Habit::Unregistered), Just(Habit::Refuses)],
            1..40,
        ),
        seed in any::<u64>(),
    ) {
        let (answered, left) = asked(&habits, seed);
        for (client, habit) in (0_u32..).zip(&habits) {
            prop_assert_eq!(answered.contains(&key(client)), *habit == Habit::Living);
            prop_assert_eq!(left.iter().any(|(left, ..)| *left == key(client)), *habit != Habit::Living);
        }
    }
}

#[test]
fn a_drill_says_of_each_client_why_it_was_not_reached() {
    let (_, left) = asked(&[Habit::Dead, Habit::Unregistered, Habit::Refuses], 7);
    let why = |client: u32| left.iter().find(|(left, ..)| *left == key(client)).unwrap().2.clone();
    assert!(why(0).starts_with("it does not answer ("), "{}", why(0));
    assert_eq!(why(1), "its rpcbind answers, but no status monitor is registered there");
    assert!(why(2).starts_with("it refused the call: "), "{}", why(2));
}
