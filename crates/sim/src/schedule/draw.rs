//! The schedule of a seed. Every seed draws its own mixture of faults, and half of the kinds are off in each: a promise that one
//! fault would excuse is still tested without it.

use fastrand::Rng;
use heirlock_agent::InstanceNumber;

use super::{
    Capture, ClientPlan, INCIDENTS_END, Incident, LOCK_MANAGERS_MAX, Level, Levels, LockManagerPlan,
    SERVERS_MAX, SERVICES_MAX, Schedule, ServerPlan, ServicePlan,
};
use crate::Ms;
use crate::chance::named;

impl Schedule {
    /// The schedule of a seed. Each kind of thing is drawn from a stream of its own, so that a new kind changes nothing of
    /// the others.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = named(seed, "servers", 0);
        let mut servers: Vec<ServerPlan> = (0..rng.usize(2..=SERVERS_MAX))
            .map(|_| {
                let is_newer = rng.bool();
                ServerPlan { is_newer, lock_managers: vec![draw_lock_manager(&mut rng)] }
            })
            .collect();
        let mut rng = named(seed, "capture", 0);
        for it in servers.iter_mut().flat_map(|server| &mut server.lock_managers) {
            draw_capture(&mut rng, it);
        }
        let mut rng = named(seed, "services", 0);
        let count = servers.len();
        let mut services: Vec<ServicePlan> =
            (0..rng.usize(1..=2)).map(|_| draw_service(&mut rng, count)).collect();
        draw_further_lock_managers(seed, &mut servers, &mut services);
        draw_further_services(seed, &servers, &mut services);
        draw_candidates(seed, servers.len(), &mut services);
        let clients = draw_clients(seed, servers.len() + services.len());
        let mut rng = named(seed, "manner", 0);
        let is_hasty = rng.u8(0..5) == 0;
        let mut drawing = Drawing { seed, incidents: Vec::new() };
        drawing.harm_servers(&servers);
        drawing.freeze(servers.len());
        drawing.harm_others(clients.len());
        drawing.maintain(servers.len());
        if named(seed, "restless", 0).bool() {
            drawing.operate(services.len(), servers.len());
            drawing.bring_home(services.len());
            drawing.transfer(services.len(), servers.len());
        }
        drawing.meet(servers.len());
        drawing.restart_clients(clients.len(), services.len());
        drawing.incidents.sort_by_key(|(at, _)| *at);
        Self {
            streams: seed,
            servers,
            services,
            clients,
            is_hasty,
            has_garbage: sometimes(seed, "garbage", 4, 1) == 1,
            levels: draw_levels(seed),
            incidents: drawing.incidents,
        }
    }
}

/// Of a lock manager all but how records are noticed.
fn draw_lock_manager(rng: &mut Rng) -> LockManagerPlan {
    LockManagerPlan { state: 3 + 2 * rng.u32(0..20), capture: Capture::Watch, grants_unprotected: false }
}

fn draw_capture(rng: &mut Rng, it: &mut LockManagerPlan) {
    it.capture = Capture::ALL[rng.usize(0..Capture::ALL.len())];
    it.grants_unprotected = rng.u8(0..4) == 0 && it.capture == Capture::Nsm;
}

/// A service, which the first lock manager of each server serves.
fn draw_service(rng: &mut Rng, servers: usize) -> ServicePlan {
    let (home, is_automatic) = (rng.usize(0..servers), rng.bool());
    ServicePlan {
        home,
        is_automatic,
        candidates: Vec::new(),
        served_by: vec![InstanceNumber::FIRST; servers],
    }
}

/// In a third of all seeds services that agents take over name the servers that may.
fn draw_candidates(seed: u64, servers: usize, services: &mut [ServicePlan]) {
    let mut rng = named(seed, "candidates", 0);
    if rng.u8(0..3) > 0 {
        return;
    }
    for service in services.iter_mut().filter(|service| service.is_automatic) {
        let mut all: Vec<usize> = (0..servers).collect();
        rng.shuffle(&mut all);
        all.truncate(rng.usize(1..=servers));
        for server in all {
            match service.candidates.last_mut().filter(|_| rng.bool()) {
                Some(equals) => equals.push(server),
                None => service.candidates.push(vec![server]),
            }
        }
    }
}

/// In a third of all seeds servers have two or three lock managers, and there are two services at the least. Where each is
/// served differs from server to server.
fn draw_further_lock_managers(seed: u64, servers: &mut [ServerPlan], services: &mut Vec<ServicePlan>) {
    let mut rng = named(seed, "lock-managers", 0);
    if rng.u8(0..3) > 0 {
        return;
    }
    let has_several = rng.usize(0..servers.len());
    for (at, server) in servers.iter_mut().enumerate() {
        let count = rng.usize(1..=LOCK_MANAGERS_MAX).max(if at == has_several { 2 } else { 1 });
        while server.lock_managers.len() < count {
            let mut further = draw_lock_manager(&mut rng);
            draw_capture(&mut rng, &mut further);
            server.lock_managers.push(further);
        }
    }
    let count = rng.usize(2..=SERVICES_MAX);
    while services.len() < count {
        services.push(draw_service(&mut rng, servers.len()));
    }
    for service in services {
        let draw = |server: &ServerPlan| InstanceNumber::at(rng.usize(0..server.lock_managers.len()));
        service.served_by = servers.iter().map(draw).collect();
    }
}

/// In some seeds there are three services, whatever they are served by.
fn draw_further_services(seed: u64, servers: &[ServerPlan], services: &mut Vec<ServicePlan>) {
    let mut rng = named(seed, "further-services", 0);
    if rng.u8(0..5) > 0 {
        return;
    }
    while services.len() < SERVICES_MAX {
        services.push(draw_service(&mut rng, servers.len()));
    }
}

fn draw_clients(seed: u64, services: usize) -> Vec<ClientPlan> {
    let loss = u8::try_from(sometimes(seed, "loss", 3, 15)).unwrap_or_default();
    let mut rng = named(seed, "clients", 0);
    (0..rng.usize(2..=4))
        .map(|_| {
            let mut mounts: Vec<usize> = (0..services).filter(|_| rng.bool()).collect();
            if mounts.is_empty() {
                mounts.push(0);
            }
            ClientPlan { mounts, loss: if rng.bool() { loss } else { 0 } }
        })
        .collect()
}

fn draw_levels(seed: u64) -> Levels {
    let mut levels = Levels::default();
    for level in Level::ALL {
        let (one_in, most) = match level {
            Level::StoreFails => (3, 60),
            Level::StoreAnswersLost => (5, 30),
            Level::StoreLate => (5, 30),
            Level::StoreSlow => (4, 400),
            Level::FenceFails => (4, 50),
            Level::DatagramsDoubled => (3, 20),
            Level::DatagramsLate => (3, 10),
            Level::HintsLost => (2, 100),
            Level::WordsRepeated => (3, 50),
            Level::WorkHangs => (5, 150),
            Level::LooksHang => (6, 15),
        };
        levels.set(level, sometimes(seed, level.name(), one_in, most));
    }
    levels
}

/// 0 in most seeds.
fn sometimes(seed: u64, name: &str, one_in: u8, most: u16) -> u16 {
    let mut rng = named(seed, name, usize::MAX);
    match rng.u8(0..one_in) {
        0 => rng.u16(1..=most),
        _ => 0,
    }
}

struct Drawing {
    seed: u64,
    incidents: Vec<(Ms, Incident)>,
}

impl Drawing {
    /// An incident in so many of 1,000 seconds.
    fn now_and_then(
        &mut self,
        name: &str,
        whose: usize,
        per_mille: u16,
        incident: impl Fn(&mut Rng) -> Incident,
    ) {
        let mut rng = named(self.seed, name, whose);
        for second in 1..INCIDENTS_END / 1_000 {
            // Drawn always, so that a rate which changes leaves the others where they are.
            let (happens, at) = (rng.u16(0..1_000) < per_mille, second * 1_000 + rng.u64(0..1_000));
            let what = incident(&mut rng);
            if happens {
                self.incidents.push((at, what));
            }
        }
    }

    fn harm_servers(&mut self, servers: &[ServerPlan]) {
        let rate = |name, one_in, most| sometimes(self.seed, name, one_in, most);
        let (crashes, kills) = (3 + rate("crash", 2, 12), rate("kill-agent", 2, 30));
        let stops = rate("stop-agent", 4, 10);
        let (restarts, lockd_kills) = (rate("restart-nfs", 2, 15), rate("kill-lockd", 3, 10));
        let (cuts, clocks, baks) =
            (rate("cut-off", 3, 10), rate("set-clock", 3, 20), rate("move-to-bak", 4, 10));
        for (server, plan) in servers.iter().enumerate() {
            // Not now, but in the midst of something.
            self.now_and_then("crash", server, crashes, |rng| Incident::Crash {
                server,
                steps: rng.u32(0..60),
            });
            self.now_and_then("kill-agent", server, kills, |rng| Incident::KillAgent {
                server,
                steps: rng.u32(0..60),
            });
            self.now_and_then("stop-agent", server, stops, |rng| Incident::StopAgent {
                server,
                ms: rng.u64(500..30_000),
            });
            for of in plan.lock_managers_at(server) {
                self.now_and_then("restart-nfs", of.stream(), restarts, |rng| Incident::RestartNfs {
                    of,
                    ms: rng.u64(100..3_000),
                });
                self.now_and_then("kill-lockd", of.stream(), lockd_kills, |_| Incident::KillLockd { of });
            }
            self.now_and_then("cut-off", server, cuts, |rng| Incident::CutOff {
                server,
                ms: lasting(rng, 6),
            });
            self.now_and_then("set-clock", server, clocks, |rng| Incident::SetClock {
                server,
                seconds: rng.i64(-40 * 86_400..40 * 86_400),
            });
            for of in plan.lock_managers_at(server) {
                self.now_and_then("move-to-bak", of.stream(), baks, |_| Incident::MoveToBak { of });
            }
        }
    }

    /// All agents stand still at the same moment, as virtual machines do whose host does, and go on one after the other.
    fn freeze(&mut self, servers: usize) {
        let freezes = sometimes(self.seed, "freeze", 5, 6);
        for server in 0..servers {
            // The same stream for each of them: the same moments.
            self.now_and_then("freeze", 0, freezes, |rng| {
                let (ms, step, first) = (rng.u64(2_000..30_000), rng.u64(0..1_500), rng.usize(0..servers));
                let turn = Ms::try_from((server + first) % servers).unwrap_or_default();
                Incident::StopAgent { server, ms: ms + step * turn }
            });
        }
    }

    fn harm_others(&mut self, clients: usize) {
        let outages = sometimes(self.seed, "store-away", 4, 10);
        self.now_and_then("store-away", 0, outages, |rng| Incident::StoreAway { ms: lasting(rng, 4) });
        let absences = sometimes(self.seed, "client-away", 3, 15);
        for client in 0..clients {
            self.now_and_then("client-away", client, absences, |rng| Incident::ClientAway {
                client,
                ms: rng.u64(1_000..30_000),
            });
        }
    }

    fn bring_home(&mut self, services: usize) {
        let failbacks = sometimes(self.seed, "failback", 2, 40);
        for service in 0..services {
            self.now_and_then("failback", service, failbacks, |_| Incident::Failback { service });
        }
    }

    fn transfer(&mut self, services: usize, servers: usize) {
        let transfers = sometimes(self.seed, "transfer", 2, 40);
        for service in 0..services {
            self.now_and_then("transfer", service, transfers, |rng| Incident::Transfer {
                service,
                server: rng.usize(0..servers),
                by: rng.usize(0..servers),
            });
        }
    }

    /// Adoptions that meet. Most begin within the time that one takes until the lock manager is restarted for it.
    fn meet(&mut self, servers: usize) {
        let meetings = sometimes(self.seed, "meet", 2, 80);
        self.now_and_then("meet", 0, meetings, |rng| {
            let server = rng.usize(0..servers);
            let most = if rng.bool() { 60 } else { 3_000 };
            Incident::Meet { server, gap: rng.u64(0..most) }
        });
    }

    fn restart_clients(&mut self, clients: usize, services: usize) {
        let restarts = sometimes(self.seed, "restart-client", 4, 20);
        for client in 0..clients {
            self.now_and_then("restart-client", client, restarts, |rng| Incident::RestartClient {
                client,
                ms: rng.u64(500..8_000),
            });
        }
        let strangers = sometimes(self.seed, "stranger", 6, 40);
        for service in 0..services {
            self.now_and_then("stranger", service, strangers, |_| Incident::Stranger { service });
        }
    }

    fn maintain(&mut self, servers: usize) {
        let maintained = sometimes(self.seed, "maintain", 4, 15);
        for server in 0..servers {
            self.now_and_then("maintain", server, maintained, |rng| Incident::Maintain {
                server,
                ms: rng.u64(2_000..25_000),
            });
        }
    }

    fn operate(&mut self, services: usize, servers: usize) {
        let insists = sometimes(self.seed, "insist", 3, 15);
        for service in 0..services {
            self.now_and_then("adopt", service, 17, |rng| Incident::Adopt {
                service,
                server: rng.usize(0..servers),
            });
            self.now_and_then("insist", service, insists, |rng| Incident::Insist {
                service,
                server: rng.usize(0..servers),
            });
            self.now_and_then("move", service, 40, |rng| Incident::Move {
                service,
                server: rng.usize(0..servers),
            });
        }
    }
}

/// How long something lasts that ends in one second of so many.
fn lasting(rng: &mut Rng, one_in: u8) -> Ms {
    let mut seconds = 0;
    while seconds < 60 && rng.u8(0..one_in) > 0 {
        seconds += 1;
    }
    seconds * 1_000 + rng.u64(1..=1_000)
}
