//! Bare puts through the client of the store in etcd: what a bench compares a first registration with.

use std::time::{Duration, Instant};

use super::client::{Client, Purpose};
use super::http::{Http, TlsFiles};
use super::wire::{Op, Txn};

/// How long a connection, or an answer, may take: nothing is measured where an etcd beside the bench is slower.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Puts keys with their values into an etcd at this URL, so many in each transaction and without a condition, by the same client
/// over the same connection as the store's own commits. Answers how long each transaction took.
///
/// For `heirlock-lab bench mon --store etcd` alone, by `examples/etcd_puts.rs`: no part of the program uses it.
///
/// # Errors
/// Where etcd does not answer or refuses a transaction, in words.
pub fn bare_puts(url: &str, keys: &[(String, String)], at_once: usize) -> Result<Vec<Duration>, String> {
    let http = Http::new(&[url.to_owned()], TlsFiles::default(), TIME_MAX);
    let client = Client::new(Box::new(http), 1, None, TIME_MAX);
    let put = |(key, value): &(String, String)| Op::Put(key.clone().into_bytes(), value.clone().into_bytes());
    let put_some = |keys: &[(String, String)]| {
        let began = Instant::now();
        let txn = Txn { then: keys.iter().map(put).collect(), ..Txn::default() };
        client.txn(&txn, Purpose::Call).map_err(|error| error.at(url).to_string())?;
        Ok(began.elapsed())
    };
    keys.chunks(at_once.max(1)).map(put_some).collect()
}
