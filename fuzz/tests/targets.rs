//! Every target on stable Rust: over the committed corpus and seeded changes of it. A
//! failure names file and seed; put the input into the corpus once it is mended.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail tests"
)]

use quiver_fuzz::{changed, control_frame, inputs, ipc_frame, log_replay};

/// Runs `target` over its corpus and `count` changed inputs.
fn run(name: &str, target: fn(&[u8]), count: u64) {
    let corpus = inputs(name).unwrap();
    assert!(corpus.len() >= 5, "the corpus of {name} is missing");
    for (file, input) in &corpus {
        println!("{name}: {file}");
        target(input);
    }
    for seed in 0..count {
        let (file, input) = &corpus[seed as usize % corpus.len()];
        let input = changed(input, seed);
        let outcome = std::panic::catch_unwind(|| target(&input));
        assert!(outcome.is_ok(), "{name}: {file} changed by seed {seed}");
    }
}

#[test]
fn ipc_frame_holds_over_its_corpus_and_changes_of_it() {
    run("ipc_frame", ipc_frame, 4000);
}

#[test]
fn control_frame_holds_over_its_corpus_and_changes_of_it() {
    run("control_frame", control_frame, 4000);
}

#[test]
fn log_replay_holds_over_its_corpus_and_changes_of_it() {
    run("log_replay", log_replay, 4000);
}
