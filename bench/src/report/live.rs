//! What is seen while a run goes on: a few lines drawn anew on a terminal, a line every two seconds
//! elsewhere. All of it goes to standard error; standard output is for the result.

use std::io::{IsTerminal, Write};

use super::numbers::{bytes, grouped, millis};
use crate::{record::Counts, result::Sample, run::View};

/// Seconds between lines where there is no terminal.
const PLAIN_EVERY: f64 = 2.0;

/// The view.
pub(crate) struct Live {
    is_terminal: bool,
    is_quiet: bool,
    drawn: usize,
    last_line: f64,
}

impl Live {
    pub(crate) fn new(is_quiet: bool) -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            is_quiet,
            drawn: 0,
            last_line: 0.0,
        }
    }

    /// Goes back to where the view began.
    pub(crate) fn clear(&mut self) {
        if self.drawn > 0 {
            eprint!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn draw(&mut self, lines: &[String]) {
        self.clear();
        for line in lines {
            eprintln!("{line}");
        }
        self.drawn = lines.len();
        // A closed terminal shows nothing, and harms nothing.
        let _ = std::io::stderr().flush();
    }
}

impl View for Live {
    fn step(&mut self, text: &str) {
        if self.is_quiet {
            return;
        }
        if text == "load" {
            self.last_line = 0.0;
        }
        if self.is_terminal {
            self.draw(&[format!("{text} …")]);
        } else {
            eprintln!("{text}");
        }
    }

    fn sample(&mut self, sample: &Sample, counts: &Counts, last_error: Option<&str>) {
        if self.is_quiet {
            return;
        }
        let latency = &sample.latency;
        if !self.is_terminal {
            if sample.at - self.last_line >= PLAIN_EVERY {
                self.last_line = sample.at;
                eprintln!(
                    "{:6.0} s  offered {:>11} rows/s  achieved {:>11}  p50 {}  p99 {}  max {}  errors {}  server {:.2} cores {}",
                    sample.at,
                    grouped(sample.offered_rows),
                    grouped(sample.acked_rows),
                    millis(latency.p50),
                    millis(latency.p99),
                    millis(latency.max),
                    counts.errors(),
                    sample.server_cores,
                    bytes(sample.server_bytes),
                );
            }
            return;
        }
        let state = if sample.measured {
            ""
        } else {
            "  (not measured)"
        };
        let mut lines = vec![
            format!("time          {:>14.0} s{state}", sample.at),
            format!("connections   {:>14}", grouped(sample.connected as f64)),
            format!("offered       {:>14} rows/s", grouped(sample.offered_rows)),
            format!(
                "achieved      {:>14} rows/s   {} points/s, {} rows outstanding",
                grouped(sample.acked_rows),
                grouped(sample.acked_points),
                grouped(sample.outstanding_rows as f64)
            ),
            format!(
                "latency       p50 {}   p90 {}   p99 {}   p99.9 {}   max {}",
                millis(latency.p50),
                millis(latency.p90),
                millis(latency.p99),
                millis(latency.p999),
                millis(latency.max)
            ),
            format!("errors        {:>14}", grouped(counts.errors() as f64)),
            format!(
                "server        {:>14.2} cores   {} memory",
                sample.server_cores,
                bytes(sample.server_bytes)
            ),
            format!("generator     {:>14.2} cores", sample.client_cores),
        ];
        lines.extend(last_error.map(|error| {
            let short: String = error.chars().take(100).collect();
            format!("last error    {short}")
        }));
        self.draw(&lines);
    }
}
