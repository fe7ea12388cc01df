//! Figures, for the goals in docs/decisions/0021: they judge nothing, and are run by hand, in release.
//! `cargo nextest run --release -p heirlock --features etcd --lib figures --run-ignored only --no-capture`

use std::time::Instant;

use super::*;

fn median(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

#[test]
#[ignore = "it measures, and asserts only that what was read is what was written"]
fn figures() {
    let Some(etcd) = Etcd::start(1) else { return };
    let store = etcd.store(PREFIX);
    store.set_up().unwrap();
    begun(&store, 0);
    for (generation, count) in [(2, 10_000), (3, 100_000)] {
        let whole = contents(count, 7);
        let began = Instant::now();
        store.begin_generation(&nfs(), Generation(generation), &whole).unwrap();
        let written = began.elapsed();
        let mut read = Vec::new();
        for _ in 0..3 {
            let began = Instant::now();
            assert!(store.load(&nfs(), Generation(generation)).unwrap() == whole);
            read.push(began.elapsed());
        }
        eprintln!("{count} records: begun in {written:.2?}, read in {read:.2?}");
    }
    let by = claim(1, "a");
    let time = |call: &mut dyn FnMut(usize)| {
        let times = (0..500).map(|number| {
            let began = Instant::now();
            call(number);
            began.elapsed()
        });
        median(times.collect())
    };
    let bare = |number: usize| {
        let put = Op::Put(format!("/bare/{number}").into_bytes(), record("10.0.0.1"));
        store.client.txn(&Txn { then: vec![put], ..Txn::default() }, Purpose::Call).unwrap();
    };
    for round in 0..3 {
        let puts = time(&mut |number| bare(number));
        let commits = time(&mut |number| {
            store.commit(&nfs(), &by, &[put(&format!("new-{round}-{number}"))]).unwrap();
        });
        let ratio = commits[0].as_secs_f64() / puts[0].as_secs_f64();
        eprintln!("p50 and p99 of 500: a bare put {puts:.2?}, a new client {commits:.2?}, {ratio:.2} times");
    }
}
