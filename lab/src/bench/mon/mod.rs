//! `bench mon`: how long until SM_MON is answered, by heirlock and by Debian's rpc.statd, with and without a callout that
//! makes a file durable; beside the syncs and the questions alone.
//!
//! The same of the syncs of each file and of heirlock, where another program has left much unwritten on that disk.
//!
//! Every program runs in a fresh network with a fresh directory on the same disk.

mod asker;
mod bare;
mod loaded;
mod rounds;

pub(super) use asker::{register, unregister};
pub(super) use bare::syncs;

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, short};
use super::{Options, StoreKind};

/// Clients at a time: as lockd asks, and as Ganesha's workers do.
const AT_ONCE: [usize; 2] = [1, 64];

/// Clients at which the goals are judged.
const JUDGED_AT: usize = 1_000;

/// The program that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// No program: files are made durable by a loop.
    BareSyncs,
    /// A server that grants and does nothing else.
    BareRpc,
    /// heirlock, to clients that it does not know.
    Heirlock,
    /// heirlock, to clients whose records it has adopted.
    HeirlockAgain,
    /// No program: keys are put into etcd by a loop, over one connection.
    BarePuts,
    /// The same through heirlock's own client, without the rest of heirlock.
    BarePutsByHeirlock,
    /// heirlock with its store in etcd, to clients that it does not know.
    HeirlockInEtcd,
    /// The same, to clients whose records it has adopted.
    HeirlockInEtcdAgain,
    /// rpc.statd.
    Statd,
    /// rpc.statd with a callout that makes one file durable.
    StatdCallout,
}

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The tool that answered.
    pub tool: Tool,
    /// Clients that were to be registered.
    pub clients: usize,
    /// So many at a time.
    pub at_once: usize,
    /// MB that another program had left unwritten on that disk as each burst of them began.
    pub unwritten_mb: usize,
    /// Clients that were registered before time was up.
    pub answered: usize,
    /// Questions that were answered by STAT_FAIL before: the disk took longer than `mon-timeout`. They were repeated.
    pub refused: usize,
    /// Milliseconds from the first question to the last answer.
    pub total_ms: f64,
    /// Microseconds for half of the answers, and for 99 of 100.
    pub half_us: f64,
    /// See above.
    pub most_us: f64,
}

/// Measures.
///
/// # Errors
/// When namespaces can't be had, or a program does not do what it should.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    let mut rows = Vec::new();
    for clients in options.clients.clone().unwrap_or_else(|| vec![100, JUDGED_AT, 5_000]) {
        for at_once in AT_ONCE {
            rows.extend(match options.store {
                StoreKind::Dir => rounds::measure(options, clients, at_once)?,
                StoreKind::Etcd => rounds::measure_in_etcd(options, clients, at_once)?,
            });
        }
    }
    if options.store == StoreKind::Dir {
        for burst in loaded::BURSTS {
            rows.extend(loaded::measure(options, burst)?);
        }
    }
    Ok(Report {
        bench: match options.store {
            StoreKind::Dir => "mon",
            StoreKind::Etcd => "mon-etcd",
        },
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: match options.store {
            StoreKind::Dir => goals(&rows),
            StoreKind::Etcd => goals_in_etcd(&rows),
        },
        table: Table {
            head: vec![
                "answered by",
                "clients",
                "at a time",
                "registered",
                "half, µs",
                "99 %, µs",
                "total, ms",
                "µs each",
            ],
            rows: rows.iter().map(Row::cells).collect(),
        },
        plot: plot(&rows),
        caption: "Until the last client is registered".to_owned(),
    })
}

impl Tool {
    const ALL: [Self; 10] = [
        Self::BareSyncs,
        Self::BareRpc,
        Self::Heirlock,
        Self::HeirlockAgain,
        Self::BarePuts,
        Self::BarePutsByHeirlock,
        Self::HeirlockInEtcd,
        Self::HeirlockInEtcdAgain,
        Self::Statd,
        Self::StatdCallout,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::BareSyncs => "bare syncs",
            Self::BareRpc => "bare RPC",
            Self::Heirlock => "heirlock, first",
            Self::HeirlockAgain => "heirlock, adopted",
            Self::BarePuts => "bare puts",
            Self::BarePutsByHeirlock => "bare puts, heirlock's client",
            Self::HeirlockInEtcd => "heirlock in etcd, first",
            Self::HeirlockInEtcdAgain => "heirlock in etcd, adopted",
            Self::Statd => "rpc.statd",
            Self::StatdCallout => "rpc.statd, callout",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::BareSyncs => "#888",
            Self::BareRpc => "#bbb",
            Self::Heirlock => "#0a6",
            Self::HeirlockAgain => "#06c",
            Self::BarePuts => "#555",
            Self::BarePutsByHeirlock => "#793",
            Self::HeirlockInEtcd => "#083",
            Self::HeirlockInEtcdAgain => "#038",
            Self::Statd => "#c30",
            Self::StatdCallout => "#e90",
        }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        vec![
            match self.unwritten_mb {
                0 => self.tool.words().to_owned(),
                unwritten => format!("{}, {unwritten} MB unwritten", self.tool.words()),
            },
            count(self.clients),
            self.at_once.to_string(),
            match self.refused {
                0 => count(self.answered),
                refused => format!("{}, {refused} refused before", count(self.answered)),
            },
            short(self.half_us),
            short(self.most_us),
            short(self.total_ms),
            short(self.total_ms * 1_000.0 / number(self.answered.max(1))),
        ]
    }
}

/// Ratios in one run: of totals, and where much is unwritten, of the time for 99 of 100.
fn goals(rows: &[Row]) -> Vec<Goal> {
    let found = |tool, at_once, unwritten| {
        let case = |row: &&Row| {
            let clients = if unwritten == 0 { JUDGED_AT } else { row.clients };
            row.tool == tool
                && row.at_once == at_once
                && row.unwritten_mb == unwritten
                && row.clients == clients
        };
        rows.iter().find(case)
    };
    let total = |tool| found(tool, 1, 0).map(|row| row.total_ms);
    let (ours, bare, statd) = (total(Tool::Heirlock), total(Tool::BareSyncs), total(Tool::Statd));
    let beside = statd
        .zip(ours)
        .map(|(statd, ours)| format!("; rpc.statd: {} ms, {} times", short(statd), short(statd / ours)));
    let judged = |goal: String, both: Option<(f64, f64)>, times: f64, beside: &str| Goal {
        goal,
        measured: both.map_or_else(String::new, |(ours, bare)| {
            format!("{} ms against {} ms: {:.1} times{beside}", short(ours), short(bare), ours / bare)
        }),
        met: both.map(|(ours, bare)| ours / bare <= times),
    };
    let first = format!("{} first, 1 at a time: within 1.5 times of the bare syncs", count(JUDGED_AT));
    let mut goals = vec![judged(first, ours.zip(bare), 1.5, beside.as_deref().unwrap_or_default())];
    for burst in loaded::BURSTS {
        let most = |tool| found(tool, burst, loaded::UNWRITTEN_MB).map(|row| row.most_us / 1e3);
        let goal = format!(
            "{burst} at once, {} MB of another program's unwritten: 99 % within 3 times of the syncs of each file",
            loaded::UNWRITTEN_MB
        );
        goals.push(judged(goal, most(Tool::Heirlock).zip(most(Tool::BareSyncs)), 3.0, ""));
    }
    goals
}

/// Ratios in one run, one at a time: of a first registration to a put through the same client, and of a registration again to that
/// with a folder. The put of the bench's own client stands beside the first one, and judges nothing.
fn goals_in_etcd(rows: &[Row]) -> Vec<Goal> {
    let half = |tool| {
        let case = |row: &&Row| row.tool == tool && row.at_once == 1 && row.clients == JUDGED_AT;
        rows.iter().find(case).map(|row| row.half_us)
    };
    let compared = |ours: f64, beside: f64| {
        format!("{} µs against {} µs: {:.1} times", short(ours), short(beside), ours / beside)
    };
    let judged = |goal: &str, ours: Option<f64>, beside: Option<f64>, times: f64| {
        let both = ours.zip(beside);
        Goal {
            goal: goal.to_owned(),
            measured: both.map_or_else(String::new, |(ours, beside)| compared(ours, beside)),
            met: both.map(|(ours, beside)| ours / beside <= times),
        }
    };
    let ours = half(Tool::HeirlockInEtcd);
    let first = format!(
        "{} first, 1 at a time: half within 1.5 times of a bare put through the same client",
        count(JUDGED_AT)
    );
    let mut first = judged(&first, ours, half(Tool::BarePutsByHeirlock), 1.5);
    if let Some((ours, lean)) = ours.zip(half(Tool::BarePuts)) {
        first.measured +=
            &format!("; a bare put by the bench's own client: {} µs, {:.1} times", short(lean), ours / lean);
    }
    let again = format!("{} again, 1 at a time: half as with a folder (within 1.2 times)", count(JUDGED_AT));
    vec![first, judged(&again, half(Tool::HeirlockInEtcdAgain), half(Tool::HeirlockAgain), 1.2)]
}

fn plot(rows: &[Row]) -> String {
    let series = Tool::ALL.map(|tool| {
        let rows = rows
            .iter()
            .filter(|row| row.tool == tool && row.at_once == 1 && row.answered > 0 && row.unwritten_mb == 0);
        let points = rows.map(|r| (number(r.answered), r.total_ms, r.answered == r.clients)).collect();
        Series { name: tool.words().to_owned(), colour: tool.colour(), points }
    });
    log_log(
        "SM_MON, one at a time, until all are registered (hollow: given up)",
        "clients registered",
        "milliseconds",
        &series,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_of_etcd_is_judged_by_a_put_to_the_same_member_and_by_a_folder_in_the_same_run() {
        let row = |tool, half_us| Row { half_us, ..row(tool, 1, 0, 1.0) };
        let rows = [
            row(Tool::BarePuts, 200.0),
            row(Tool::BarePutsByHeirlock, 400.0),
            row(Tool::HeirlockInEtcd, 800.0),
            row(Tool::HeirlockAgain, 100.0),
            row(Tool::HeirlockInEtcdAgain, 110.0),
        ];
        let goals = goals_in_etcd(&rows);
        assert_eq!([0, 1].map(|at: usize| goals[at].met), [Some(false), Some(true)]);
        assert_eq!(
            goals[0].measured,
            "800 µs against 400 µs: 2.0 times; a bare put by the bench's own client: 200 µs, 4.0 times"
        );
        assert_eq!(goals_in_etcd(&rows[2..]).first().and_then(|goal| goal.met), None);
        assert_eq!(goals_in_etcd(&rows[1..])[0].measured, "800 µs against 400 µs: 2.0 times");
    }

    fn row(tool: Tool, at_once: usize, unwritten_mb: usize, total_ms: f64) -> Row {
        Row {
            tool,
            clients: 1_000,
            at_once,
            unwritten_mb,
            answered: 1_000,
            refused: 0,
            total_ms,
            half_us: 1.0,
            most_us: total_ms * 100.0,
        }
    }

    #[test]
    fn a_goal_is_judged_by_the_ratio_to_the_bare_syncs_of_as_many_at_a_time_beside_as_much() {
        let rows = [
            row(Tool::BareSyncs, 1, 0, 250.0),
            row(Tool::Heirlock, 1, 0, 500.0),
            row(Tool::Statd, 1, 0, 20_000.0),
            row(Tool::Heirlock, 64, 0, 900.0),
            row(Tool::BareSyncs, 64, 0, 250.0),
            row(Tool::BareSyncs, 64, 300, 200.0),
            row(Tool::Heirlock, 64, 300, 500.0),
        ];
        let goals = goals(&rows);
        assert_eq!([0, 1, 2].map(|at: usize| goals[at].met), [Some(false), None, Some(true)]);
        assert_eq!(goals[0].measured, "500 ms against 250 ms: 2.0 times; rpc.statd: 20,000 ms, 40.0 times");
        assert_eq!(goals[2].measured, "50.0 ms against 20.0 ms: 2.5 times");
    }
}
