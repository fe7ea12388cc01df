//! A few seeds, so that `cargo test` alone notices a broken promise; `./test` runs ten thousand.
#![allow(clippy::panic)]

#[test]
fn a_hundred_seeds_keep_every_promise() {
    for seed in 0..100 {
        if let Some(broken) = heirlock_sim::run(seed, false) {
            panic!("seed {seed} breaks I{} at {} ms: {}", broken.invariant, broken.at, broken.what);
        }
    }
}
