//! `quiver test`.

use std::{
    io::IsTerminal,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use quiver_model::{Clock as _, SystemClock};
use quiver_pipeline::testing::{self, Outcome};

use crate::{
    cli::TestArgs,
    exit::{CONFIG, DATA, Failure, IO},
    pipeline::{Loaded, by_node, load_tables},
    say::say,
};

/// Runs the tests of a configuration.
pub fn run(args: &TestArgs) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let begun = clock.monotonic();
    let loaded = Loaded::read(&args.file, true)?;
    loaded.refuse_errors(&args.file)?;
    let tables = by_node(&load_tables(&loaded.graph, &loaded.directory)?);
    let is_chosen = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only));
    let tests: Vec<_> = loaded
        .config
        .tests
        .iter()
        .filter(|test| is_chosen(test.name.as_str()))
        .collect();
    if tests.is_empty() {
        let message = match &args.only {
            Some(only) => format!(
                "no test of {} has {only:?} in its name",
                args.file.display()
            ),
            None => format!(
                "{} has no tests: write `[[test]]`, here or beside it in {}",
                args.file.display(),
                args.file.with_extension("test.toml").display()
            ),
        };
        return Err(Failure::new(CONFIG, message));
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Outcome, Duration)>> = Mutex::new(Vec::with_capacity(tests.len()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(test) = tests.get(number) else { break };
            let begun = clock.monotonic();
            let outcome = testing::run(&loaded.graph, test, &tables);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((number, outcome, clock.monotonic().saturating_sub(begun)));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..cores.min(tests.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, ..)| *number);
    let colours = Colours::new();
    let mut failed = 0;
    for (_, outcome, elapsed) in &done {
        tell(outcome, *elapsed, &loaded, &colours);
        failed += usize::from(!outcome.failures.is_empty());
    }
    if let Some(path) = &args.junit {
        write_junit(path, &args.file.display().to_string(), &done, &loaded)?;
    }
    let passed = done.len() - failed;
    say!(
        "\n{passed} passed, {failed} failed, in {:.2} s",
        clock.monotonic().saturating_sub(begun).as_secs_f64()
    );
    if failed > 0 {
        let message = format!(
            "{}: {failed} of {} tests failed",
            args.file.display(),
            done.len()
        );
        return Err(Failure::new(DATA, message));
    }
    Ok(())
}

/// Colours on a terminal; nothing elsewhere.
struct Colours {
    is_on: bool,
}

impl Colours {
    fn new() -> Self {
        Self {
            is_on: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    fn of(&self, code: u8, text: &str) -> String {
        if self.is_on {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

fn tell(outcome: &Outcome, elapsed: Duration, loaded: &Loaded, colours: &Colours) {
    let word = if outcome.failures.is_empty() {
        colours.of(32, "ok")
    } else {
        colours.of(31, "FAILED")
    };
    say!("{} … {word} ({} ms)", outcome.name, elapsed.as_millis());
    for failure in &outcome.failures {
        say!(
            "  {}: {}",
            loaded.sources.locate(&failure.place),
            failure.message
        );
        for line in failure.difference.iter().flat_map(|text| text.lines()) {
            let line = match line.as_bytes().first() {
                Some(b'-') => colours.of(31, line),
                Some(b'+') => colours.of(32, line),
                _ => line.to_owned(),
            };
            say!("      {line}");
        }
    }
}

fn write_junit(
    path: &std::path::Path,
    name: &str,
    done: &[(usize, Outcome, Duration)],
    loaded: &Loaded,
) -> Result<(), Failure> {
    let mut suite = TestSuite::new(name);
    for (_, outcome, elapsed) in done {
        let status = if outcome.failures.is_empty() {
            TestCaseStatus::success()
        } else {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let text: Vec<String> = outcome
                .failures
                .iter()
                .map(|failure| {
                    format!(
                        "{}: {}\n{}",
                        loaded.sources.locate(&failure.place),
                        failure.message,
                        failure.difference.as_deref().unwrap_or_default()
                    )
                })
                .collect();
            if let Some(first) = outcome.failures.first() {
                status.set_message(first.message.as_str());
            }
            status.set_description(text.join("\n"));
            status
        };
        let mut case = TestCase::new(outcome.name.as_str(), status);
        case.set_classname(name).set_time(*elapsed);
        suite.add_test_case(case);
    }
    let mut report = Report::new("quiver test");
    report.add_test_suite(suite);
    let text = report
        .to_string()
        .map_err(|error| Failure::new(IO, error.to_string()))?;
    std::fs::write(path, text)
        .map_err(|error| Failure::new(IO, format!("{}: {error}", path.display())))
}
