//! `bench mon`: how long until SM_MON is answered, by heirlock and by Debian's rpc.statd, with and without a callout that
//! makes a file durable; beside the syncs and the questions alone.
//!
//! Every program runs in a fresh network with a fresh directory on the same disk.

mod asker;
mod bare;
mod rounds;

pub(super) use asker::{register, unregister};
pub(super) use bare::syncs;

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use super::Options;
use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, short};

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
            rows.extend(rounds::measure(options, clients, at_once)?);
        }
    }
    Ok(Report {
        bench: "mon",
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: goals(&rows),
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
    const ALL: [Self; 6] = [
        Self::BareSyncs,
        Self::BareRpc,
        Self::Heirlock,
        Self::HeirlockAgain,
        Self::Statd,
        Self::StatdCallout,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::BareSyncs => "bare syncs",
            Self::BareRpc => "bare RPC",
            Self::Heirlock => "heirlock, first",
            Self::HeirlockAgain => "heirlock, adopted",
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
            Self::Statd => "#c30",
            Self::StatdCallout => "#e90",
        }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        vec![
            self.tool.words().to_owned(),
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

/// Ratios of totals in one run. A round that statd did not finish counts with its time so far.
fn goals(rows: &[Row]) -> Vec<Goal> {
    let total = |tool, at_once| {
        let case = |row: &&Row| row.tool == tool && row.clients == JUDGED_AT && row.at_once == at_once;
        rows.iter().find(case).map(|row| row.total_ms)
    };
    let goal = |what: &str, tool, at_once, times: f64, bare: Tool| {
        let found = total(tool, at_once).zip(total(Tool::Statd, at_once)).zip(total(bare, at_once));
        Goal {
            goal: format!("{what}: at least {times:.0} times faster than rpc.statd"),
            measured: found.map_or_else(String::new, |((ours, statd), least)| {
                format!(
                    "{} ms against {} ms: {} times; {}: {} ms, 1 to {:.1}",
                    short(ours),
                    short(statd),
                    short(statd / ours),
                    bare.words(),
                    short(least),
                    ours / least
                )
            }),
            met: found.map(|((ours, statd), _)| statd / ours >= times),
        }
    };
    let clients = count(JUDGED_AT);
    let mut goals = vec![
        goal(&format!("{clients} first, 1 at a time"), Tool::Heirlock, 1, 40.0, Tool::BareSyncs),
        goal(&format!("{clients} first, 64 at a time"), Tool::Heirlock, 64, 100.0, Tool::BareSyncs),
    ];
    for at_once in AT_ONCE {
        let what = format!("{clients} again after an adoption, {at_once} at a time");
        goals.push(goal(&what, Tool::HeirlockAgain, at_once, 200.0, Tool::BareRpc));
    }
    goals
}

fn plot(rows: &[Row]) -> String {
    let series = Tool::ALL.map(|tool| {
        let rows = rows.iter().filter(|row| row.tool == tool && row.at_once == 1 && row.answered > 0);
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

    fn row(tool: Tool, at_once: usize, total_ms: f64) -> Row {
        Row {
            tool,
            clients: 1_000,
            at_once,
            answered: 1_000,
            refused: 0,
            total_ms,
            half_us: 1.0,
            most_us: 2.0,
        }
    }

    #[test]
    fn a_goal_is_judged_by_the_ratio_of_totals_at_as_many_at_a_time() {
        let rows = [
            row(Tool::BareSyncs, 1, 250.0),
            row(Tool::Heirlock, 1, 500.0),
            row(Tool::Statd, 1, 20_000.0),
            row(Tool::Statd, 64, 1.0),
            row(Tool::Heirlock, 64, 500.0),
            row(Tool::BareSyncs, 64, 250.0),
        ];
        let goals = goals(&rows);
        assert_eq!([0, 1, 2].map(|at: usize| goals[at].met), [Some(true), Some(false), None]);
        assert_eq!(goals[0].measured, "500 ms against 20,000 ms: 40.0 times; bare syncs: 250 ms, 1 to 2.0");
    }
}
