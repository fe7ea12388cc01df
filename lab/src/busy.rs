//! How much longer everything takes on a machine that does much else beside the lab.

use std::fs;
use std::thread::available_parallelism;
use std::time::Duration;

/// How many times as long a limit can become.
const TIMES_MAX: f64 = 20.0;

/// A time limit that holds on an idle machine, as it holds on this one now: each process gets that share of a processor
/// which the others leave it.
#[must_use]
pub fn stretched(limit: Duration) -> Duration {
    let processors =
        available_parallelism().map_or(1.0, |count| f64::from(u32::try_from(count.get()).unwrap_or(1)));
    limit.mul_f64(times(load(), processors))
}

/// The processes of this machine that could run, on average of the last minute; none where the kernel does not tell.
#[must_use]
pub fn load() -> f64 {
    load_in(&fs::read_to_string("/proc/loadavg").unwrap_or_default())
}

fn load_in(loadavg: &str) -> f64 {
    loadavg.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

fn times(load: f64, processors: f64) -> f64 {
    (1.0 + load / processors).clamp(1.0, TIMES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_gets_more_time_and_no_machine_gets_for_ever() {
        let times = |loadavg| times(load_in(loadavg), 2.0);
        let close = |found: f64, expected: f64| (found - expected).abs() < 1e-9;
        assert!(close(times("0.00 0.01 0.05 1/123 4567\n"), 1.0));
        assert!(close(times("6.00 1.01 0.05 7/123 4567\n"), 4.0));
        assert!(close(times("900.00 1.01 0.05 7/123 4567\n"), TIMES_MAX));
        assert!(close(times(""), 1.0), "nothing is known");
    }
}
