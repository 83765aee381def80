//! Runs the parts one after another, says how long each took, and sums up.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::{failure::Failure, totals::Totals};

/// What has been run so far.
#[derive(Debug, Default)]
pub struct Report {
    parts: Vec<Part>,
    /// What the tests counted.
    pub totals: Totals,
}

#[derive(Debug)]
struct Part {
    name: String,
    took: Duration,
    failed: bool,
}

impl Report {
    /// Runs one part; `None` if it failed. A failed part does not keep later ones from running,
    /// so that one run tells all that is wrong.
    pub fn part<T>(
        &mut self,
        name: impl Into<String>,
        run: impl FnOnce() -> Result<T, Failure>,
    ) -> Option<T> {
        let name = name.into();
        eprintln!("\n== {name}");
        let start = now();
        let outcome = run();
        let took = start.elapsed();
        let failed = outcome.is_err();
        self.parts.push(Part {
            name: name.clone(),
            took,
            failed,
        });
        match outcome {
            Ok(value) => Some(value),
            Err(failure) => {
                eprintln!("{failure}\n== {name}: FAILED after {}", seconds(took));
                None
            }
        }
    }

    /// Prints the wall time of each part and, as the last line, the totals. A part that failed
    /// counts as one failure, beside the tests' own.
    pub fn finish(self) -> ExitCode {
        println!();
        for Part { name, took, failed } in &self.parts {
            println!(
                "{:>9}  {name}{}",
                seconds(*took),
                if *failed { "  FAILED" } else { "" }
            );
        }
        let whole: Duration = self.parts.iter().map(|part| part.took).sum();
        println!("{:>9}  in all", seconds(whole));
        let mut totals = self.totals;
        totals.failed += self.parts.iter().filter(|part| part.failed).count() as u64;
        println!("{totals}");
        if totals.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures the chores; the engine is not running"
)]
fn now() -> Instant {
    Instant::now()
}
