//! Seeds: many runs of the random scenario, and the proof that a seed decides a run.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use quiver_model::{Clock, SystemClock};

use crate::{
    scenario::{Report, run},
    simulate::simulate,
};

/// Seeds that are run when nobody says otherwise.
const SEEDS: u64 = 20;
/// Devices of a run.
const DEVICES: usize = 20;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

fn run_seed(seed: u64) -> Report {
    simulate(run(seed, DEVICES))
}

#[test]
fn seeds_lose_nothing_and_double_nothing() {
    if let Some(seed) = number_from("QUIVER_SIM_SEED") {
        println!("seed {seed}: {:?}", run_seed(seed));
        return;
    }
    let last = number_from("QUIVER_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(1);
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    let clock = SystemClock::new();
                    match std::panic::catch_unwind(|| run_seed(seed)) {
                        Ok(report) => {
                            println!("seed {seed} in {:?}: {report:?}", clock.monotonic())
                        }
                        Err(_) => {
                            println!("seed {seed} failed; QUIVER_SIM_SEED={seed} replays it");
                            failed.lock().unwrap().push(seed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "seeds {failed:?} failed; QUIVER_SIM_SEED=N replays one"
    );
}

#[test]
fn the_same_seed_sends_the_same_packets_at_the_same_times() {
    let first = run_seed(1);
    assert_eq!(first, run_seed(1));
    assert_ne!(first.trace, run_seed(2).trace);
}
