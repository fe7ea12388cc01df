//! `heirlock-lab`: runs scenarios on real kernel NFS servers and clients.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use heirlock_lab::capture::{Capture, Captures};
use heirlock_lab::release::Release;
use heirlock_lab::runner::{Outcome, Plan, run};
use heirlock_lab::scenario::{self, Scenario};
use heirlock_lab::scenario::{ALL, LONG};
use heirlock_lab::stop::{INTERRUPTED, Stop};
use heirlock_lab::{bench, guest_program};
use serde::Serialize;

/// Real kernel NFS servers and clients on one machine, and the scenarios that prove heirlock on them.
///
/// Needs root, /dev/net/tun and Debian's packages user-mode-linux nfs-kernel-server nfs-common rpcbind
/// iproute2 kmod e2fsprogs systemd (debootstrap for another release; pacemaker corosync resource-agents libxml2-utils crmsh pcs
/// drbd-utils for the scenarios of Pacemaker). Exit code 0: all passed; 1: some failed; 2:
/// could not run; 130: interrupted.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Names all scenarios and what they show.
    List,
    /// Runs the named scenarios.
    Run {
        /// The scenarios; `list` names them.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Runs all scenarios that the release supports, but those that take minutes.
    All {
        /// Those too.
        #[arg(long)]
        long: bool,
        #[command(flatten)]
        options: Options,
    },
    Bench(bench::command::Arguments),
}

#[derive(Args)]
struct Options {
    /// The Debian that the guests run.
    #[arg(long, value_enum, default_value_t = Release::Bookworm)]
    release: Release,
    /// How servers learn of records: these capture modes of heirlock, instead of what is usual for each
    /// scenario.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE")]
    capture: Vec<Capture>,
    /// How many scenarios run side by side.
    #[arg(long, default_value_t = 2, value_name = "N")]
    jobs: usize,
    /// How many times each one runs.
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: usize,
    /// Keep the logs of passed scenarios too.
    #[arg(long)]
    keep: bool,
    /// The heirlock binary to test, heirlock-callout beside it, instead of those that cargo builds.
    #[arg(long, value_name = "PATH")]
    heirlock: Option<PathBuf>,
    /// The Debian mirror to make another release's tree from, instead of the one that apt uses here.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Write the outcomes to standard output as one JSON document.
    #[arg(long)]
    json: bool,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    release: Release,
    kernel: &'a str,
    passed: usize,
    failed: usize,
    outcomes: &'a [Outcome],
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments
        .first()
        .is_some_and(|path| Path::new(path).file_name().is_some_and(|name| name == guest_program::NAME))
    {
        return guest_program::main(&arguments[1..]);
    }
    execute(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("heirlock-lab: {error:#}");
        ExitCode::from(2)
    })
}

fn execute(cli: Cli) -> Result<ExitCode> {
    match cli.verb {
        Verb::List => {
            for scenario in ALL {
                println!("{:26} {}", scenario.name, scenario.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Run { names, options } => {
            let scenarios = names
                .iter()
                .map(|name| {
                    scenario::named(name)
                        .with_context(|| format!("no scenario is named {name}; `list` names them"))
                })
                .collect::<Result<Vec<_>>>()?;
            if let Some(other) =
                scenarios.iter().find(|scenario| !scenario.releases.contains(&options.release))
            {
                bail!("{} can't run on {}", other.name, options.release.codename());
            }
            if let Some(other) = scenarios.iter().find(|scenario| captures(scenario, &options).is_empty()) {
                bail!("{} makes no sense under another capture mode", other.name);
            }
            run_scenarios(&scenarios, &options)
        }
        Verb::All { long, options } => {
            let is_run = |scenario: &&Scenario| {
                scenario.releases.contains(&options.release) && (long || !LONG.contains(&scenario.name))
            };
            let scenarios: Vec<_> = ALL.iter().filter(is_run).collect();
            run_scenarios(&scenarios, &options)
        }
        Verb::Bench(arguments) => {
            bench::command::run(arguments, build_heirlock)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Under which capture modes a scenario is run.
fn captures(scenario: &Scenario, options: &Options) -> Vec<Capture> {
    let Captures { usual, possible } = &scenario.captures;
    match options.capture.as_slice() {
        [] => usual.to_vec(),
        asked => asked.iter().copied().filter(|capture| possible.contains(capture)).collect(),
    }
}

fn run_scenarios(scenarios: &[&'static Scenario], options: &Options) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("root is needed, for network namespaces and tap devices");
    }
    let stop = Stop::on_signals()?;
    let heirlock = match &options.heirlock {
        Some(path) => Some(path.clone()),
        None if scenarios.iter().any(|scenario| scenario.needs_heirlock) => {
            Some(build_heirlock(&["--features", "etcd"])?)
        }
        None => None,
    };
    let once: Vec<_> = scenarios
        .iter()
        .flat_map(|scenario| captures(scenario, options).into_iter().map(|capture| (*scenario, capture)))
        .collect();
    let plan = Plan {
        scenarios: once.repeat(options.repeat),
        release: options.release,
        root: options.release.root(options.mirror.as_deref())?,
        jobs: options.jobs,
        keep: options.keep,
        program: PathBuf::from("/proc/self/exe"),
        heirlock,
    };
    let outcomes = run(&plan, &stop);
    let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
    let failed = outcomes.len() - passed;
    if options.json {
        let report =
            Report { release: plan.release, kernel: &plan.root.kernel, passed, failed, outcomes: &outcomes };
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{passed} passed, {failed} failed");
    }
    Ok(match (stop.asked(), passed == plan.scenarios.len()) {
        (true, _) => ExitCode::from(u8::try_from(INTERRUPTED)?),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(1),
    })
}

/// cargo knows best whether the binary is stale.
fn build_heirlock(features: &[&str]) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the lab lies in no workspace")?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "-p", "heirlock"])
        .args(features)
        .current_dir(workspace)
        .status()
        .context("can't start cargo; name a binary with --heirlock")?;
    if !status.success() {
        bail!("cargo could not build heirlock ({status})");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    Ok(target.join("release/heirlock"))
}
