//! Conveying: records are placed into the status monitor's directory, and taken away at the end of a run. Both are done beside
//! the loop, one after the other.

use heirlock_core::takeover::{Conveyance, End, Event, Trouble, Work as Waited};
use heirlock_core::{Moment, Records, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::running::Running;
use crate::agent::work::{PlacedOf, Placing, RunNumber, RunWork, Unplaced, Work};
use crate::limits::TAKEN_AWAY_TIME_MAX;

impl<O: Outside> Instance<O> {
    /// Begins to place the records of all services.
    pub(crate) fn convey(
        &mut self,
        server: &mut Common<O>,
        run: RunNumber,
        services: Vec<(ServiceName, Records)>,
        how: Conveyance,
    ) {
        let mut placings = Vec::new();
        for (service, mut records) in services {
            records.retain(|key, record| self.means_the_same_here(server, key.client(), record));
            let Some(my_name) = self.announced_names(server, &service).into_iter().next() else {
                self.advance(server, Event::Conveyed(Err(format!("{service} has no name to announce"))));
                return;
            };
            placings.push(Placing { service, records, my_name });
        }
        if placings.is_empty() {
            self.advance(server, Event::Conveyed(Ok(Vec::new())));
            return;
        }
        let now = server.now();
        self.outside.begin_for(run, RunWork::Place { services: placings, how });
        if let Some(running) = &mut self.run {
            let beside = running.machine.step(now, Event::Begun(Waited::Conveying));
            self.carry_on(server, beside);
        }
    }

    /// Records were placed. Records that could not be placed are named, also where the run is over; their clients are told all
    /// the same, for the files are read by none but the tools that would tell them without heirlock.
    pub(crate) fn placed(&mut self, server: &mut Common<O>, run: RunNumber, done: Vec<PlacedOf>) {
        let directory = self.settings.state_directory.display().to_string();
        let mut troubles = Vec::new();
        for (service, placed) in done {
            let unplaced = match placed {
                Ok(unplaced) => unplaced,
                Err(error) => {
                    let why = format!("the records of {service} could not be placed: {error}");
                    tracing::error!(%service, %error, "{service}: its records could not be placed into {directory}, though its clients are told all the same: {error}");
                    let entry = format!("{directory}/sm");
                    troubles.push(Trouble { service, entry, why, fate_unknown: false });
                    continue;
                }
            };
            for (client, why) in unplaced {
                tracing::error!(%service, %client, why, "{service}: the record of {client} could not be placed, though that client is told all the same: {why}");
                let entry = format!("{directory}/sm/{client}");
                troubles.push(Trouble { service: service.clone(), entry, why, fate_unknown: false });
            }
        }
        self.worked_for(server, run, Event::Conveyed(Ok(troubles)));
    }

    /// Begins to remove the conveyed records. A record that can't be removed is remembered, so that it counts as no registration.
    pub(crate) fn take_conveyed_away(&mut self, server: &mut Common<O>) {
        self.conveying.begins(server.now() + TAKEN_AWAY_TIME_MAX);
        self.outside.begin(Work::TakePlacedAway);
    }

    /// The conveyed records were removed.
    pub(crate) fn placed_taken_away(
        &mut self,
        server: &Common<O>,
        now: Moment,
        done: Result<Unplaced, String>,
    ) {
        match done {
            Ok(left) => {
                for (client, why) in left {
                    tracing::warn!(%client, why, "the conveyed record of {client} could not be taken away, which the next start tries again: {why}");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "conveyed records could not all be taken away, which the next start tries again: {error}");
            }
        }
        // A look that began before it counts no more.
        self.capture.look_by(now);
        if self.conveying.has_ended() {
            self.say_ends(server);
        }
    }

    /// A run is over: its callers are told once the records that it placed are taken away.
    pub(crate) fn say_end_once_taken_away(&mut self, server: &Common<O>, running: Running, end: End) {
        if let Some((running, end)) = self.conveying.tells_later(running, end) {
            self.say_end(server, running, &end);
        }
    }

    /// No caller waits for ever: the log says that a disk hangs.
    pub(crate) fn say_if_conveyed_stays(&mut self, server: &Common<O>, now: Moment) {
        if self.conveying.hangs(now) {
            let seconds = TAKEN_AWAY_TIME_MAX.as_secs();
            tracing::error!(
                "conveyed records have not been taken away within {seconds} s: a disk or a thread hangs (look with 'heirlock doctor'); until they are, they lie in {}/sm",
                self.settings.state_directory.display()
            );
            self.say_ends(server);
        }
    }

    /// Says how those runs have ended whose records were to be taken away first.
    pub(crate) fn say_ends(&mut self, server: &Common<O>) {
        for (running, end) in self.conveying.take_ended() {
            self.say_end(server, running, &end);
        }
    }
}
