//! Counting tests from what `cargo test` prints, and from what tests say they skipped.

use std::{collections::BTreeSet, fmt};

/// How many tests passed, failed and were skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Ran and held.
    pub passed: u64,
    /// Ran and did not hold; failed parts of a run count here too.
    pub failed: u64,
    /// Were ignored, or said that a peer they need is missing.
    pub skipped: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl Totals {
    /// Adds a line `test result: ok. 3 passed; 0 failed; 1 ignored; …`; other lines change
    /// nothing.
    pub fn read_line(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        let counts = result
            .split_once(". ")
            .map_or("", |(_verdict, counts)| counts);
        for part in counts.split(';') {
            let Some((count, what)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(count) = count.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }

    /// Moves the tests that reported themselves skipped from passed to skipped: to the test
    /// harness they returned like any other.
    pub fn move_skipped(&mut self, skips: &SkipLog) {
        let count = (skips.tests.len() as u64).min(self.passed);
        self.passed -= count;
        self.skipped += count;
    }
}

/// What tests appended to the file that `QUIVER_TEST_SKIP_LOG` names: lines
/// `skipped: <test>: <peer> missing`. A test may say so more than once, and counts once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SkipLog {
    tests: BTreeSet<String>,
    lines: BTreeSet<String>,
}

impl SkipLog {
    /// Reads the whole file.
    pub fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            let Some(rest) = line.trim().strip_prefix("skipped: ") else {
                continue;
            };
            // A test's path has `::` in it, so the peer is after the last colon.
            let test = rest.rsplit_once(": ").map_or(rest, |(test, _peer)| test);
            log.tests.insert(test.to_owned());
            log.lines.insert(line.trim().to_owned());
        }
        log
    }

    /// The distinct lines, sorted.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_runs_are_summed() {
        let mut totals = Totals::default();
        for line in [
            "running 44 tests",
            "test ca::tests::x ... ok",
            "test result: ok. 44 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.33s",
            "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 7 filtered out; finished in 12.01s",
            "   Doc-tests quiver_pki",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            totals.read_line(line);
        }
        assert_eq!(totals.to_string(), "48 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_prints_about_results_is_not_counted() {
        let mut totals = Totals::default();
        totals.read_line("the test result: ok. 5 passed; 5 failed");
        totals.read_line("test result: who knows");
        assert_eq!(totals, Totals::default());
    }

    #[test]
    fn a_skipped_test_counts_once_and_no_longer_as_passed() {
        let log = SkipLog::parse(
            "skipped: acceptance::archive_opens_in_duckdb: duckdb missing\n\
             skipped: acceptance::archive_opens_in_duckdb: duckdb missing\n\
             skipped: python_client: aioquic missing\n\
             something else\n",
        );
        let mut totals = Totals {
            passed: 10,
            failed: 0,
            skipped: 1,
        };
        totals.move_skipped(&log);
        assert_eq!(
            totals,
            Totals {
                passed: 8,
                failed: 0,
                skipped: 3
            }
        );
        assert_eq!(log.lines().count(), 2);
    }
}
