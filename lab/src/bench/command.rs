//! The command line of the benches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::report::Report;
use super::{Options, StoreKind, adopt, callout, capture, churn, document, ground, idle, mon, notify, scale};

/// Measures heirlock beside the programs that do the same.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The bench.
    #[arg(value_enum)]
    name: Name,
    /// Numbers of clients, instead of the bench's own.
    #[arg(long, value_delimiter = ',', value_name = "N,N,…")]
    clients: Option<Vec<usize>>,
    /// How often each quick case is measured; the median counts.
    #[arg(long, default_value_t = 3, value_name = "N")]
    repeat: usize,
    /// Seconds after which another program is given up. Default: 60, and 30 for "all".
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
    /// For how many seconds clients come and leave in "churn".
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    seconds: u64,
    /// Where heirlock keeps its records; "mon", "adopt" and "scale" take "etcd", and measure both then.
    #[arg(long, value_enum, default_value_t)]
    store: StoreKind,
    /// The heirlock binary to measure, heirlock-callout beside it, instead of those that cargo builds.
    #[arg(long, value_name = "PATH")]
    heirlock: Option<PathBuf>,
    /// Write each plot into this folder.
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Bring tables and plots of benchmarks.md in this folder up to date.
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// Write the figures to standard output as one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Until SM_MON is answered: heirlock, rpc.statd, rpc.statd with a callout.
    Mon,
    /// The time that a callout adds to rpc.statd's answer: heirlock's, and /bin/true.
    Callout,
    /// From a record's appearance in rpc.statd's directory until it is durable: heirlock, and a copy every 5 s.
    Capture,
    /// Until every living client was told: heirlock, sm-notify, and a bare loop that sends the same.
    Notify,
    /// From the loss of the primary until the last client is told: heirlock, and a copy with sm-notify.
    Adopt,
    /// Memory and start-up of an agent with many records.
    Scale,
    /// How long clients wait while others come and leave, with very many of them. Not one of "all": it takes ten minutes.
    Churn,
    /// How often an idle agent wakes, by thread. Not one of "all": it takes six minutes.
    Idle,
    /// All of them.
    All,
}

/// Runs them.
///
/// # Errors
/// When one can't be run, or its report can't be written.
pub fn run(arguments: Arguments, build: impl Fn(&[&str]) -> Result<PathBuf>) -> Result<()> {
    let in_etcd = arguments.store == StoreKind::Etcd;
    if in_etcd && !matches!(arguments.name, Name::Mon | Name::Adopt | Name::Scale) {
        bail!("--store etcd is a way of \"mon\", \"adopt\" and \"scale\"");
    }
    let features: &[&str] = if in_etcd { &["--features", "etcd"] } else { &[] };
    if in_etcd && arguments.name == Name::Mon && arguments.heirlock.is_none() {
        build(&["--features", "etcd", "--example", "etcd_puts"])?;
    }
    let all = arguments.name == Name::All;
    let options = Options {
        clients: arguments.clients,
        repeat: arguments.repeat,
        patience: Duration::from_secs(arguments.patience.unwrap_or(if all { 30 } else { 60 })),
        seconds: arguments.seconds,
        heirlock: arguments.heirlock.map_or_else(|| build(features), Ok)?,
        store: arguments.store,
    };
    let wanted: Vec<fn(&Options) -> Result<Report>> = match arguments.name {
        Name::Mon => vec![mon::run],
        Name::Callout => vec![callout::run],
        Name::Capture => vec![capture::run],
        Name::Notify => vec![notify::run],
        Name::Adopt => vec![adopt::run],
        Name::Scale => vec![scale::run],
        Name::Churn => vec![churn::run],
        Name::Idle => vec![idle::run],
        Name::All => vec![mon::run, callout::run, capture::run, notify::run, adopt::run, scale::run],
    };
    let reports: Result<Vec<Report>> = wanted.into_iter().map(|bench| bench(&options)).collect();
    ground::clear();
    let reports = reports?;
    if let Some(folder) = &arguments.svg {
        reports.iter().try_for_each(|report| draw(folder, report))?;
    }
    if let Some(folder) = &arguments.write {
        document::write(folder, &reports)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    } else {
        reports.iter().for_each(|report| println!("## {}\n\n{}", report.bench, report.text()));
    }
    Ok(())
}

fn draw(folder: &Path, report: &Report) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}.svg", report.bench));
    std::fs::write(&path, &report.plot).with_context(|| format!("can't write {}", path.display()))
}
