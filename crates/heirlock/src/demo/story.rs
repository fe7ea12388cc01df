//! The story, in its order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use heirlock_core::ServiceName;
use heirlock_nsm::MyName;
use heirlock_nsm::nlm::Nlm4Status;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::client::{Client, Lock};
use super::crowd::{Crowd, Mounts};
use super::endpoint;
use super::pages::{self, Pages};
use super::report::{self, DemoReport, Harm, Scene};
use super::rival::{self, Rival};
use super::servers::{Server, Servers};
use super::stage::{ADDRESS, GRACE, Host, NAMES, PRIMARY_STATE, SERVICE, Stage};
use super::{Options, StoreKind};
use crate::control::report::{AdoptionReport, Heart};
use crate::control::{Answer, Request};
use crate::host;

/// Clients that one machine can play: each is two sockets.
const CLIENTS_MAX: usize = 5_000;

/// Sockets and files besides those of the clients.
const OTHER_FILES: u64 = 128;

/// Between two looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a step that needs no grace period may take.
const STEP_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a client may wait for its lock after all else is settled.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Ports that are tried until one is free on every address.
const PORT_TRIES: usize = 8;

/// The cast of one demo.
pub(super) struct Cast {
    // Dropped in this order: the agents end before the folder goes.
    primary: Host,
    adoptive: Host,
    servers: Servers,
    crowd: Crowd,
    stage: Stage,
    pub(super) interrupted: Arc<AtomicBool>,
    quiet: bool,
}

/// Plays it all and says what came of it. With `quiet` nothing is shown meanwhile. Where pages are served, the agents live on as
/// long as these are kept.
///
/// # Errors
/// Where something can't be played on this machine, or does not come to its end.
pub(crate) fn run(host: &host::Host, options: &Options, quiet: bool) -> Result<(DemoReport, Option<Pages>)> {
    check(options)?;
    let harm = without_heirlock(host, quiet)?;
    let mut cast = Cast::gather(host, options, quiet)?;
    cast.say(&report::second_part(options));
    cast.primary.start()?;
    cast.adoptive.start()?;
    let pages = options.page.map(|serve| pages::serve(serve, [&cast.primary, &cast.adoptive])).transpose()?;
    if let Some(pages) = &pages {
        eprintln!("{}", pages::told(pages));
    }
    cast.wait_until_both_live()?;
    cast.take_locks(options)?;
    let captured_at = Instant::now();
    cast.crowd.kill_off(options.unreachable);
    cast.primary.kill();
    cast.servers.lose_primary();
    let lost_at = Instant::now();
    let rival = cast.rival()?.keep_asking()?;
    let adoption = cast.wait_for_the_adoption(options, lost_at)?;
    cast.wait_for_the_last_answers();
    let scene = Scene { harm, rival: rival.stop(), captured_at, lost_at };
    let report = DemoReport::of(&adoption, &cast.crowd, scene, options, cast.stage.path());
    if options.keep {
        cast.stage.keep();
    }
    Ok((report, pages.map(|at| Pages::new(cast, at))))
}

/// One client holds a lock; its server dies; another serves in its place, and the client is not told.
fn without_heirlock(host: &host::Host, quiet: bool) -> Result<Harm> {
    let one = Options { clients: 1, unreachable: 0, keep: false, page: None, store: StoreKind::Dir };
    let mut cast = Cast::gather(host, &one, quiet)?;
    cast.say(&report::first_part());
    cast.crowd.take_locks();
    cast.wait("a client to lock its file", STEP_TIME_MAX, |cast| {
        let holds = |client: &Client| client.notes().lock == Lock::Held;
        (cast.crowd.count(holds) == 1).then_some(())
    })?;
    cast.servers.lose_primary();
    cast.servers.move_the_address_alone();
    let rival = cast.rival()?;
    let answer = cast.wait("the lock manager to answer", STEP_TIME_MAX, |_| rival.ask())?;
    let believes = cast.crowd.count(|client| {
        let notes = client.notes();
        notes.lock == Lock::Held && notes.notifications.is_empty()
    });
    let harm =
        Harm { granted_to_another: answer == Nlm4Status::Granted, holder_still_believes: believes == 1 };
    cast.say(&report::outcome_of_the_first_part(harm));
    Ok(harm)
}

fn check(options: &Options) -> Result<()> {
    let Options { clients, unreachable, .. } = *options;
    if clients == 0 || clients > CLIENTS_MAX {
        bail!("expected 1 to {CLIENTS_MAX} clients, found {clients}");
    }
    if unreachable > clients {
        bail!("expected at most as many unreachable clients as there are, found {unreachable} of {clients}");
    }
    let needed = u64::try_from(clients * 2)? + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        if limit.maximum.is_some_and(|maximum| maximum < needed) {
            let most = limit.maximum.map_or(CLIENTS_MAX, clients_within);
            bail!(
                "{clients} clients need {needed} open files, and the limit of this user is enough for {most} clients; \
                 take fewer, or raise the limit (ulimit -n)"
            );
        }
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum })
            .context("can't raise the limit of open files; take fewer clients")?;
    }
    Ok(())
}

/// How many clients can be played with so many open files.
fn clients_within(files: u64) -> usize {
    usize::try_from(files.saturating_sub(OTHER_FILES) / 2).map_or(CLIENTS_MAX, |most| most.min(CLIENTS_MAX))
}

impl Cast {
    fn gather(host: &host::Host, options: &Options, quiet: bool) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let stage = Stage::set(host, options.store)?;
        let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
        names.push(ADDRESS.to_string());
        let mounts = Mounts { service: ADDRESS, names, primary_state: PRIMARY_STATE };
        let (port, clients) = free_port(options.clients, &mounts)?;
        let (primary, adoptive) = (stage.host("nfs-a", port)?, stage.host("nfs-b", port)?);
        let server = |host: &Host| -> Result<Server> {
            Ok(Server::new(MyName::parse(host.name)?, host.sm(), &host.life())?)
        };
        let servers = Servers::start(ADDRESS, port, GRACE, [server(&primary)?, server(&adoptive)?])
            .with_context(|| format!("port {port} of {ADDRESS} can't be had; start the demo again"))?;
        let crowd = Crowd::live(clients, servers.nlm_at())?;
        Ok(Self { primary, adoptive, servers, crowd, stage, interrupted, quiet })
    }

    /// It wants the file of the last client, which is never among the first that die.
    fn rival(&self) -> Result<Rival> {
        let file = self.crowd.clients().last().map(|client| client.address.to_string()).unwrap_or_default();
        Rival::new(self.servers.nlm_at(), file.as_bytes())
            .with_context(|| format!("{} can't be used; is the loopback interface up?", rival::ADDRESS))
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            println!("{text}");
        }
    }

    fn wait_until_both_live(&mut self) -> Result<()> {
        let bar = self.spinner("the agents of nfs-a and nfs-b start, and nfs-b waits for nfs-a's heartbeat");
        self.wait("the standby to hear the primary's heart", STEP_TIME_MAX, |cast| {
            let status = cast.adoptive.status()?;
            let heard = status.servers.iter().any(|s| s.server == "nfs-a" && s.heart == Heart::Beating);
            heard.then_some(())
        })?;
        bar.finish_and_clear();
        Ok(())
    }

    /// Every client locks a file; its record appears, and is captured.
    fn take_locks(&mut self, options: &Options) -> Result<()> {
        let bar = self.bar(options.clients, "clients have a lock, and the store knows them");
        self.crowd.take_locks();
        self.wait("all records to be captured", STEP_TIME_MAX, |cast| {
            let status = cast.primary.status()?;
            let captured = status.services.iter().find(|s| s.service == SERVICE)?.records;
            bar.set_position(u64::try_from(captured).unwrap_or(0));
            (captured == cast.crowd.clients().len()).then_some(())
        })?;
        bar.finish_and_clear();
        Ok(())
    }

    /// The standby does it all by itself.
    fn wait_for_the_adoption(&mut self, options: &Options, lost_at: Instant) -> Result<AdoptionReport> {
        let bar = self.spinner("");
        let living = options.clients - options.unreachable;
        let service = ServiceName::parse(SERVICE)?;
        let report = self.wait("the adoption to settle", STEP_TIME_MAX + GRACE, |cast| {
            let back = cast.crowd.count(|client| matches!(client.notes().lock, Lock::HeldAgain(_)));
            bar.set_message(waits_for(back, living, options.unreachable, lost_at.elapsed()));
            let Answer::Adoption(report) =
                cast.adoptive.ask(&Request::Report { service: service.clone() })?
            else {
                return None;
            };
            let is_over = matches!(report.phase.as_str(), "settled" | "failed");
            // Clients without power will not answer. The agent can't know that, and calls them until grace ends.
            let is_certain = options.unreachable > 0 && back == living && report.acknowledged == living;
            ((is_over || is_certain) && report.generation > 1).then_some(*report)
        })?;
        bar.finish_and_clear();
        Ok(report)
    }

    /// A client registers before its lock is granted, so the adoption may settle while the last answer is on its way.
    fn wait_for_the_last_answers(&mut self) {
        let asks = |client: &Client| !client.is_dead() && client.notes().lock == Lock::Reclaiming;
        let end = Instant::now() + ANSWER_TIME_MAX;
        while self.crowd.count(asks) > 0 && Instant::now() < end {
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if self.interrupted.load(Ordering::SeqCst) {
                bail!("interrupted");
            }
            for host in [&mut self.primary, &mut self.adoptive] {
                if let Some(said) = host.died() {
                    self.stage.keep();
                    bail!("the agent of {} ended: {said}; its log is {}", host.name, host.log().display());
                }
            }
            if Instant::now() >= end {
                self.stage.keep();
                let logs = [self.primary.log(), self.adoptive.log()].map(|path| path.display().to_string());
                bail!("waited {} s for {what}; look at {}", limit.as_secs(), logs.join(" and "));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn spinner(&self, message: &'static str) -> ProgressBar {
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        bar.set_message(message);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    fn bar(&self, length: usize, message: &'static str) -> ProgressBar {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new(length) };
        bar.set_style(bar_style());
        bar.set_message(message);
        bar
    }
}

/// The text of the demo's wait, with its number of clients.
fn waits_for(back: usize, living: usize, dead: usize, since: Duration) -> String {
    let seconds = since.as_secs_f64();
    if back == 0 {
        return format!("nfs-a lost power {seconds:.1} s ago; nfs-b waits to be sure that it is gone");
    }
    let dead = if dead == 0 { String::new() } else { format!("; {dead} without power don't answer") };
    format!("{back} of {living} clients have their lock back, {seconds:.1} s after the power loss{dead}")
}

fn bar_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A port that is free on every address, and the clients that have it.
fn free_port(count: usize, mounts: &Mounts) -> Result<(u16, Vec<Client>)> {
    let mut last = None;
    for _ in 0..PORT_TRIES {
        let port = endpoint::bind(ADDRESS, 0).and_then(|socket| socket.local_addr());
        let port =
            port.with_context(|| format!("{ADDRESS} can't be used; is the loopback interface up?"))?.port();
        match Crowd::gather(count, port, mounts) {
            Ok(clients) => return Ok((port, clients)),
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(String::new, |error| error.to_string());
    bail!("the sockets of {count} clients can't be had: {why}")
}
