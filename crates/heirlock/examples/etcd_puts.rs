//! Puts keys into an etcd through heirlock's own client, and says how long each transaction took. `heirlock-lab bench mon --store
//! etcd` builds and runs it: a first registration is judged beside such a put.
//!
//! `etcd_puts URL AT_ONCE`: keys with their values on standard input, as one JSON array of pairs; microseconds of each
//! transaction of `AT_ONCE` keys on standard output, as one JSON array.

use anyhow::{Context, Result, anyhow};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "expected URL AT_ONCE";
    let url = arguments.next().context(usage)?;
    let at_once: usize = arguments.next().context(usage)?.parse().context(usage)?;
    let keys: Vec<(String, String)> = serde_json::from_reader(std::io::stdin().lock())
        .context("expected a JSON array of keys with their values on standard input")?;
    let took = heirlock::bare_puts(&url, &keys, at_once).map_err(|said| anyhow!(said))?;
    let micros: Vec<f64> = took.iter().map(|took| took.as_secs_f64() * 1e6).collect();
    println!("{}", serde_json::to_string(&micros)?);
    Ok(())
}
