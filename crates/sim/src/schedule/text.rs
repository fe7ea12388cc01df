//! How a schedule is written down.
//!
//! ```text
//! heirlock-sim history 1
//! streams 188                          # what is drawn during the run
//! server nfs-a kernel=6.1 state=7      # 6.1 or 6.12; capture=nsm or capture=callout, and in mode nsm grants-unprotected
//! service svc0 home=nfs-a automatic candidates=nfs-b/nfs-a
//! lock-manager nfs-a instance=1 state=9 capture=nsm serves=svc0    # one more of a server; what none of these serves the first does
//! client 0 mounts=svc0,nfs-a loss=12   # of 100 datagrams
//! hasty                                # two servers may adopt at the same moment
//! garbage                              # hostile texts
//! level hints-lost 40
//!
//! 12.250 crash server=nfs-a steps=13   # seconds since the world began
//! 14.300 kill-lockd server=nfs-a instance=1    # without `instance` the first lock manager
//! ```
//!
//! Text behind a `#` is for people.

use std::fmt;
use std::str::FromStr;

use heirlock_agent::InstanceNumber;

use super::{
    Capture, ClientPlan, INCIDENTS_END, Incident, LOCK_MANAGERS_MAX, Level, Levels, LockManagerPlan,
    SERVERS_MAX, SERVICES_MAX, Schedule, ServerPlan, ServicePlan,
};
use crate::Ms;
use crate::lock_manager::LockManagerAt;
use crate::service::{floating_name, server_name};

const HEAD: &str = "heirlock-sim history 1";

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}\nstreams {}", self.streams)?;
        for (at, server) in self.servers.iter().enumerate() {
            let kernel = if server.is_newer { "6.12" } else { "6.1" };
            write!(f, "server {} kernel={kernel}", server_name(at))?;
            server.lock_managers.first().map_or(Ok(()), |first| writeln!(f, "{first}"))?;
        }
        for (at, service) in self.services.iter().enumerate() {
            let automatic = if service.is_automatic { " automatic" } else { "" };
            write!(f, "service {} home={}{automatic}", floating_name(at), server_name(service.home))?;
            let equals = |group: &Vec<usize>| {
                let names: Vec<String> = group.iter().map(|at| server_name(*at).to_string()).collect();
                names.join("+")
            };
            let groups: Vec<String> = service.candidates.iter().map(equals).collect();
            let is_free = groups.is_empty();
            writeln!(f, "{}{}", if is_free { "" } else { " candidates=" }, groups.join("/"))?;
        }
        for (at, server) in self.servers.iter().enumerate() {
            for (of, plan) in server.lock_managers_at(at).zip(&server.lock_managers).skip(1) {
                let serves = self.services.iter().enumerate();
                let serves = serves.filter(|(_, service)| service.served_by[at] == of.number);
                let serves: Vec<String> = serves.map(|(at, _)| floating_name(at).to_string()).collect();
                let place = of.number.place();
                write!(f, "lock-manager {} instance={place}{plan}", server_name(at))?;
                let is_idle = serves.is_empty();
                writeln!(f, "{}{}", if is_idle { "" } else { " serves=" }, serves.join(","))?;
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            let mounts: Vec<String> = client.mounts.iter().map(|mount| self.service_called(*mount)).collect();
            writeln!(f, "client {at} mounts={} loss={}", mounts.join(","), client.loss)?;
        }
        let manners = [(self.is_hasty, "hasty"), (self.has_garbage, "garbage")];
        for (_, manner) in manners.into_iter().filter(|(is_so, _)| *is_so) {
            writeln!(f, "{manner}")?;
        }
        for level in Level::ALL.into_iter().filter(|level| self.levels.of(*level) > 0) {
            writeln!(f, "level {} {}", level.name(), self.levels.of(level))?;
        }
        writeln!(f)?;
        for (at, incident) in &self.incidents {
            writeln!(f, "{}.{:03} {incident}", at / 1_000, at % 1_000)?;
        }
        Ok(())
    }
}

impl fmt::Display for LockManagerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " state={}", self.state)?;
        if self.capture != Capture::Watch {
            write!(f, " capture={}", self.capture.name())?;
        }
        f.write_str(if self.grants_unprotected { " grants-unprotected" } else { "" })
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |server: &usize| format!("server={}", server_name(*server));
        let to = |of: &LockManagerAt| match of.is_first() {
            true => on(&of.server),
            false => format!("{} instance={}", on(&of.server), of.number.place()),
        };
        match self {
            Incident::Crash { server, steps } => write!(f, "crash {} steps={steps}", on(server)),
            Incident::KillAgent { server, steps } => write!(f, "kill-agent {} steps={steps}", on(server)),
            Incident::StopAgent { server, ms } => write!(f, "stop-agent {} ms={ms}", on(server)),
            Incident::RestartNfs { of, ms } => write!(f, "restart-nfs {} ms={ms}", to(of)),
            Incident::KillLockd { of } => write!(f, "kill-lockd {}", to(of)),
            Incident::CutOff { server, ms } => write!(f, "cut-off {} ms={ms}", on(server)),
            Incident::SetClock { server, seconds } => write!(f, "set-clock {} seconds={seconds}", on(server)),
            Incident::MoveToBak { of } => write!(f, "move-to-bak {}", to(of)),
            Incident::StoreAway { ms } => write!(f, "store-away ms={ms}"),
            Incident::ClientAway { client, ms } => write!(f, "client-away client={client} ms={ms}"),
            Incident::Adopt { service, server } => {
                write!(f, "adopt service={} {}", floating_name(*service), on(server))
            }
            Incident::Insist { service, server } => {
                write!(f, "insist service={} {}", floating_name(*service), on(server))
            }
            Incident::Meet { server, gap } => write!(f, "meet {} gap={gap}", on(server)),
            Incident::Move { service, server } => {
                write!(f, "move service={} {}", floating_name(*service), on(server))
            }
            Incident::Transfer { service, server, by } => {
                write!(
                    f,
                    "transfer service={} {} by={}",
                    floating_name(*service),
                    on(server),
                    server_name(*by)
                )
            }
            Incident::Failback { service } => write!(f, "failback service={}", floating_name(*service)),
            Incident::Maintain { server, ms } => write!(f, "maintain {} ms={ms}", on(server)),
            Incident::RestartClient { client, ms } => write!(f, "restart-client client={client} ms={ms}"),
            Incident::Stranger { service } => write!(f, "stranger service={}", floating_name(*service)),
        }
    }
}

impl Schedule {
    fn service_called(&self, at: usize) -> String {
        match at.checked_sub(self.services.len()) {
            Some(server) => server_name(server).to_string(),
            None => floating_name(at).to_string(),
        }
    }

    /// Reads what was written down.
    ///
    /// # Errors
    /// Where a line is wrong: its number, the expectation and the finding.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut schedule = Self {
            streams: 0,
            servers: Vec::new(),
            services: Vec::new(),
            clients: Vec::new(),
            is_hasty: false,
            has_garbage: false,
            levels: Levels::default(),
            incidents: Vec::new(),
        };
        let mut has_head = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let in_line = |why: String| format!("line {}: {why}", number + 1);
            match line {
                "" => {}
                HEAD if !has_head => has_head = true,
                _ if !has_head => return Err(in_line(format!("expected {HEAD:?}, found {line:?}"))),
                _ => schedule.take_in(&Fields(line.split_whitespace().collect())).map_err(in_line)?,
            }
        }
        schedule.checked()
    }

    fn take_in(&mut self, fields: &Fields<'_>) -> Result<(), String> {
        match fields.0.as_slice() {
            ["streams", number] => self.streams = parsed("a number", number)?,
            ["server", name, ..] => {
                fields.are(2, &["kernel", "state", "capture", "grants-unprotected"])?;
                is_next(name, &server_name(self.servers.len()))?;
                let is_newer = match fields.text("kernel")? {
                    "6.1" => false,
                    "6.12" => true,
                    other => return Err(format!("expected kernel=6.1 or kernel=6.12, found {other:?}")),
                };
                self.servers.push(ServerPlan { is_newer, lock_managers: vec![fields.lock_manager()?] });
                self.services.iter_mut().for_each(|service| service.served_by.push(InstanceNumber::FIRST));
            }
            ["service", name, ..] => {
                fields.are(2, &["home", "automatic", "candidates"])?;
                is_next(name, &floating_name(self.services.len()))?;
                let served_by = vec![InstanceNumber::FIRST; self.servers.len()];
                let is_automatic = fields.0.contains(&"automatic");
                let home = self.server(fields)?;
                let candidates = match fields.text("candidates") {
                    Ok(groups) => self.candidates(groups)?,
                    Err(_) => Vec::new(),
                };
                self.services.push(ServicePlan { home, is_automatic, candidates, served_by });
            }
            ["lock-manager", name, ..] => {
                fields.are(2, &["instance", "state", "capture", "grants-unprotected", "serves"])?;
                self.take_in_lock_manager(name, fields)?;
            }
            ["client", number, ..] => {
                fields.are(2, &["mounts", "loss"])?;
                is_next(number, &self.clients.len())?;
                let mounts = fields.text("mounts")?.split(',').map(|name| self.service_at(name));
                let plan =
                    ClientPlan { mounts: mounts.collect::<Result<_, _>>()?, loss: fields.number("loss")? };
                self.clients.push(plan);
            }
            ["hasty"] => self.is_hasty = true,
            ["garbage"] => self.has_garbage = true,
            ["level", name, to] => {
                let level = Level::ALL.into_iter().find(|level| level.name() == *name);
                let names = || Level::ALL.map(Level::name).join(", ");
                let level =
                    level.ok_or_else(|| format!("expected a level of {}, found {name:?}", names()))?;
                self.levels.set(level, parsed("a number", to)?);
            }
            [at, what, ..] => {
                let at = moment(at)?;
                let incident = self.incident(what, fields)?;
                self.incidents.push((at, incident));
            }
            other => return Err(format!("expected a line of a history, found {other:?}")),
        }
        Ok(())
    }

    /// One more lock manager of a server, and the services that it serves there.
    fn take_in_lock_manager(&mut self, on: &str, fields: &Fields<'_>) -> Result<(), String> {
        let server = self.server_called(on)?;
        let lock_managers = &mut self.servers[server].lock_managers;
        let place = lock_managers.len();
        is_next(fields.text("instance")?, &place)?;
        if place >= LOCK_MANAGERS_MAX {
            return Err(format!(
                "expected {LOCK_MANAGERS_MAX} lock managers of a server at most, found more"
            ));
        }
        lock_managers.push(fields.lock_manager()?);
        for name in fields.text("serves").into_iter().flat_map(|names| names.split(',')) {
            let service = self.service_at(name)?;
            let plan = self.services.get_mut(service);
            let plan = plan.ok_or_else(|| format!("expected a service that moves, found {name:?}"))?;
            plan.served_by[server] = InstanceNumber::at(place);
        }
        Ok(())
    }

    fn incident(&self, what: &str, fields: &Fields<'_>) -> Result<Incident, String> {
        let server = || self.server(fields);
        let are = |names: &[&str]| fields.are(2, names);
        Ok(match what {
            "crash" => {
                are(&["server", "steps"])?;
                Incident::Crash { server: server()?, steps: fields.number("steps")? }
            }
            "kill-agent" => {
                are(&["server", "steps"])?;
                Incident::KillAgent { server: server()?, steps: fields.number("steps")? }
            }
            "stop-agent" => {
                are(&["server", "ms"])?;
                Incident::StopAgent { server: server()?, ms: fields.number("ms")? }
            }
            "restart-nfs" => {
                are(&["server", "instance", "ms"])?;
                Incident::RestartNfs { of: self.lock_manager(fields)?, ms: fields.number("ms")? }
            }
            "kill-lockd" => {
                are(&["server", "instance"])?;
                Incident::KillLockd { of: self.lock_manager(fields)? }
            }
            "cut-off" => {
                are(&["server", "ms"])?;
                Incident::CutOff { server: server()?, ms: fields.number("ms")? }
            }
            "set-clock" => {
                are(&["server", "seconds"])?;
                Incident::SetClock { server: server()?, seconds: fields.number("seconds")? }
            }
            "move-to-bak" => {
                are(&["server", "instance"])?;
                Incident::MoveToBak { of: self.lock_manager(fields)? }
            }
            "store-away" => {
                are(&["ms"])?;
                Incident::StoreAway { ms: fields.number("ms")? }
            }
            "client-away" => {
                are(&["client", "ms"])?;
                Incident::ClientAway { client: fields.number("client")?, ms: fields.number("ms")? }
            }
            "restart-client" => {
                are(&["client", "ms"])?;
                Incident::RestartClient { client: fields.number("client")?, ms: fields.number("ms")? }
            }
            "stranger" => {
                are(&["service"])?;
                Incident::Stranger { service: self.service_at(fields.text("service")?)? }
            }
            "maintain" => {
                are(&["server", "ms"])?;
                Incident::Maintain { server: server()?, ms: fields.number("ms")? }
            }
            _ => return self.of_operator(what, fields),
        })
    }

    /// What an operator does.
    fn of_operator(&self, what: &str, fields: &Fields<'_>) -> Result<Incident, String> {
        let server = || self.server(fields);
        let service = || self.service_at(fields.text("service")?);
        let are = |names: &[&str]| fields.are(2, names);
        Ok(match what {
            "meet" => {
                are(&["server", "gap"])?;
                Incident::Meet { server: server()?, gap: fields.number("gap")? }
            }
            "failback" => {
                are(&["service"])?;
                Incident::Failback { service: service()? }
            }
            "transfer" => {
                are(&["service", "server", "by"])?;
                let by = self.server_called(fields.text("by")?)?;
                Incident::Transfer { service: service()?, server: server()?, by }
            }
            "adopt" | "insist" | "move" => {
                are(&["service", "server"])?;
                let (service, server) = (service()?, server()?);
                match what {
                    "adopt" => Incident::Adopt { service, server },
                    "insist" => Incident::Insist { service, server },
                    _ => Incident::Move { service, server },
                }
            }
            other => return Err(format!("expected an incident (crash, kill-agent, …), found {other:?}")),
        })
    }

    /// The server that a line names, as its home or its place.
    fn server(&self, fields: &Fields<'_>) -> Result<usize, String> {
        self.server_called(fields.text("server").or_else(|_| fields.text("home"))?)
    }

    /// Servers in groups by preference: `nfs-b+nfs-c/nfs-a`.
    fn candidates(&self, groups: &str) -> Result<Vec<Vec<usize>>, String> {
        let group = |names: &str| names.split('+').map(|name| self.server_called(name)).collect();
        groups.split('/').map(group).collect()
    }

    fn server_called(&self, name: &str) -> Result<usize, String> {
        let found = (0..self.servers.len()).find(|at| server_name(*at).as_str() == name);
        found.ok_or_else(|| format!("expected a server that was named before, found {name:?}"))
    }

    /// The lock manager that a line names: the first one where it says no more than the server.
    fn lock_manager(&self, fields: &Fields<'_>) -> Result<LockManagerAt, String> {
        let server = self.server(fields)?;
        let place = if fields.text("instance").is_ok() { fields.number("instance")? } else { 0 };
        let count = self.servers[server].lock_managers.len();
        if place >= count {
            return Err(format!(
                "expected an instance below {count} of {}, found {place}",
                server_name(server)
            ));
        }
        Ok(LockManagerAt { server, number: InstanceNumber::at(place) })
    }

    /// The service that is called so.
    fn service_at(&self, name: &str) -> Result<usize, String> {
        let all = 0..self.services.len() + self.servers.len();
        let found = { all }.find(|at| self.service_called(*at) == name);
        found.ok_or_else(|| format!("expected a service or a server that was named before, found {name:?}"))
    }

    fn checked(self) -> Result<Self, String> {
        if !(1..=SERVERS_MAX).contains(&self.servers.len())
            || !(1..=SERVICES_MAX).contains(&self.services.len())
            || self.clients.is_empty()
        {
            return Err(format!(
                "expected one to {SERVERS_MAX} servers, one to {SERVICES_MAX} services and a client, found {}, {} and {}",
                self.servers.len(),
                self.services.len(),
                self.clients.len()
            ));
        }
        for (at, incident) in &self.incidents {
            let is_known = match incident {
                Incident::ClientAway { client, .. } | Incident::RestartClient { client, .. } => {
                    *client < self.clients.len()
                }
                Incident::Adopt { service, .. }
                | Incident::Insist { service, .. }
                | Incident::Failback { service }
                | Incident::Stranger { service }
                | Incident::Transfer { service, .. }
                | Incident::Move { service, .. } => *service < self.services.len(),
                _ => true,
            };
            if !is_known {
                return Err(format!("expected a client or a service that moves, found {incident}"));
            }
            if *at >= INCIDENTS_END {
                return Err(format!(
                    "expected incidents before {INCIDENTS_END} ms, found {incident} at {at} ms"
                ));
            }
        }
        Ok(self)
    }
}

/// The words of a line: the first says what it is, the others are `key=value` or a word alone.
struct Fields<'a>(Vec<&'a str>);

impl Fields<'_> {
    /// Refuses what does not belong behind the first words.
    fn are(&self, first: usize, names: &[&str]) -> Result<(), String> {
        let is_known = |word: &&&str| names.contains(&word.split('=').next().unwrap_or_default());
        match self.0.iter().skip(first).find(|word| !is_known(word)) {
            Some(word) => Err(format!("expected {}, found {word:?}", names.join(", "))),
            None => Ok(()),
        }
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        let found = self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| format!("expected {name}=…, found {:?}", self.0.join(" ")))
    }

    /// What is said of a lock manager.
    fn lock_manager(&self) -> Result<LockManagerPlan, String> {
        Ok(LockManagerPlan {
            state: self.number("state")?,
            capture: self.text("capture").map_or(Ok(Capture::Watch), Capture::parse)?,
            grants_unprotected: self.0.contains(&"grants-unprotected"),
        })
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<T, String> {
        parsed(&format!("{name}=NUMBER"), self.text(name)?)
    }
}

fn parsed<T: FromStr>(expected: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("expected {expected}, found {text:?}"))
}

/// They are named in their order, for they are known by it.
fn is_next(name: &str, expected: &impl ToString) -> Result<(), String> {
    let expected = expected.to_string();
    if name == expected { Ok(()) } else { Err(format!("expected {expected:?} next, found {name:?}")) }
}

/// Seconds with three decimals.
fn moment(text: &str) -> Result<Ms, String> {
    let wrong = || format!("expected SECONDS.MILLISECONDS, found {text:?}");
    let (seconds, millis) = text.split_once('.').filter(|(_, millis)| millis.len() == 3).ok_or_else(wrong)?;
    let (seconds, millis): (Ms, Ms) =
        (seconds.parse().map_err(|_| wrong())?, millis.parse().map_err(|_| wrong())?);
    seconds.checked_mul(1_000).and_then(|ms| ms.checked_add(millis)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_that_was_written_down_is_read_as_it_was() {
        let mut several = 0;
        for seed in 0..500 {
            let schedule = Schedule::draw(seed);
            several += u32::from(schedule.has_several_lock_managers());
            assert_eq!(Schedule::parse(&schedule.to_string()), Ok(schedule), "{seed}");
        }
        assert!((125..210).contains(&several), "of 500 seeds a third has several lock managers: {several}");
    }

    #[test]
    fn a_lock_manager_that_an_incident_does_not_name_is_the_first_one() {
        let text = "heirlock-sim history 1\nserver nfs-a kernel=6.1 state=7\nservice svc0 home=nfs-a\n\
                    lock-manager nfs-a instance=1 state=9 serves=svc0\nclient 0 mounts=svc0,nfs-a loss=0\n\
                    12.000 kill-lockd server=nfs-a\n13.000 kill-lockd server=nfs-a instance=1\n";
        let schedule = Schedule::parse(text).unwrap();
        let hit: Vec<LockManagerAt> =
            schedule.incidents.iter().filter_map(|(_, it)| it.lock_manager()).collect();
        let second = LockManagerAt { server: 0, number: InstanceNumber::at(1) };
        assert_eq!(hit, [LockManagerAt::first(0), second]);
        assert_eq!(schedule.services[0].served_by, [second.number]);
    }

    #[test]
    fn a_wrong_line_of_a_schedule_is_refused_with_its_number() {
        let good = "heirlock-sim history 1\nserver nfs-a kernel=6.1 state=7\nservice svc0 home=nfs-a\n\
                    client 0 mounts=svc0,nfs-a loss=0\n";
        assert!(Schedule::parse(good).is_ok());
        for (line, said) in [
            ("12.000 crash server=nfs-b steps=1", "line 5: expected a server that was named before"),
            ("12.000 crash server=nfs-a step=1", "line 5: expected server, steps, found \"step=1\""),
            ("12.000 crash server=nfs-a", "line 5: expected steps=…"),
            ("12 crash server=nfs-a steps=1", "line 5: expected SECONDS.MILLISECONDS"),
            ("12.000 explode", "line 5: expected an incident"),
            ("level courage 1", "line 5: expected a level of store-fails"),
            ("client 2 mounts=svc0 loss=0", "line 5: expected \"1\" next"),
            ("12.000 client-away client=7 ms=1", "expected a client or a service"),
            ("12.000 move service=nfs-a server=nfs-a", "expected a client or a service"),
            ("110.000 store-away ms=1", "expected incidents before"),
            ("server nfs-b kernel=5 state=7", "line 5: expected kernel=6.1"),
            ("12.000 kill-lockd server=nfs-a instance=1", "line 5: expected an instance below 1 of nfs-a"),
            ("lock-manager nfs-a instance=2 state=9", "line 5: expected \"1\" next"),
            ("lock-manager nfs-a instance=1 state=9 serves=nfs-a", "line 5: expected a service that moves"),
        ] {
            let why = Schedule::parse(&format!("{good}{line}\n")).unwrap_err();
            assert!(why.contains(said), "{line}: {why}");
        }
        assert!(Schedule::parse("").unwrap_err().contains("one to 3 servers"));
        assert!(Schedule::parse("server nfs-a").unwrap_err().contains("expected \"heirlock-sim history 1\""));
    }
}
