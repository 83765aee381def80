//! Building and running every test of the workspace, in one feature selection, so that nothing is
//! compiled twice.
//!
//! Tests learn their surroundings from the environment:
//! - `QUIVER_TEST_BINARY`: the `quiver` executable of this build;
//! - `QUIVER_TEST_PYTHON`: a Python that has the peers; unset if there is none;
//! - `QUIVER_TEST_REQUIRE_PEERS`: `1` if a missing peer is a failure;
//! - `QUIVER_TEST_SKIP_LOG`: the file to append `skipped: <test>: <peer> missing` to.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    failure::Failure,
    process,
    report::Report,
    totals::{SkipLog, Totals},
    venv,
    workspace::{Workspace, text},
};

/// What to build and run, and how strictly.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A missing peer is a failure.
    pub require_peers: bool,
    /// clippy reads along, and its warnings are errors.
    pub lint: bool,
    /// Only these packages; all of them if empty.
    pub packages: Vec<String>,
    /// Only tests whose name contains this.
    pub filter: Option<String>,
}

impl Selection {
    /// Reads `[--ci] [-p PACKAGE]... [FILTER]`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut selection = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--ci" => selection.require_peers = true,
                "-p" | "--package" => {
                    let package = arguments.next().ok_or("-p needs a package's name")?;
                    selection.packages.push(package.clone());
                }
                flag if flag.starts_with('-') => return Err(format!("no option {flag}")),
                filter if selection.filter.is_none() => selection.filter = Some(filter.to_owned()),
                extra => return Err(format!("one filter at most, but there is also {extra:?}")),
            }
        }
        Ok(selection)
    }

    /// The same as strict as can be.
    pub fn for_ci(self) -> Result<Self, String> {
        if let Some(filter) = self.filter {
            return Err(format!("`ci` runs every test; use `test --ci {filter}`"));
        }
        Ok(Self {
            require_peers: true,
            lint: true,
            ..self
        })
    }

    /// A cargo command over the selected packages. Build and test must agree in all that cargo
    /// fingerprints: packages, features, profile, wrapper.
    fn cargo(&self, workspace: &Workspace, verb: &str) -> Command {
        let mut command = workspace.cargo();
        command.arg(verb);
        if self.require_peers {
            // Who edits a manifest wants Cargo.lock to follow; a merge must bring it along.
            command.arg("--locked");
        }
        if self.packages.is_empty() {
            command.arg("--workspace");
        }
        for package in &self.packages {
            command.args(["-p", package]);
        }
        if self.lint {
            lint(&mut command);
        }
        command
    }
}

/// Lets clippy compile our crates in rustc's place, and only ours: `cargo clippy` beside `cargo
/// test` would compile every dependency a second time. This is how `cargo clippy` itself passes
/// its arguments on.
fn lint(command: &mut Command) {
    command.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    command.env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
}

/// Peers, build, tests.
pub fn run(workspace: &Workspace, selection: &Selection, report: &mut Report) {
    let python = report.part("python peers", || match venv::ensure(workspace) {
        Ok(python) => Ok(Some(python)),
        Err(failure) if selection.require_peers => Err(failure),
        Err(failure) => {
            eprintln!("{failure}\ntests that need them are skipped");
            Ok(None)
        }
    });
    let name = if selection.lint {
        "build, with clippy"
    } else {
        "build"
    };
    let Some(binary) = report.part(name, || build(workspace, selection)) else {
        return;
    };
    let surroundings = Surroundings {
        python: python.flatten(),
        binary,
    };
    let mut totals = Totals::default();
    report.part("tests", || {
        test(workspace, selection, &surroundings, &mut totals)
    });
    report.totals = totals;
}

struct Surroundings {
    python: Option<PathBuf>,
    binary: Option<PathBuf>,
}

/// Builds all targets; the path of the `quiver` executable if it was among them.
fn build(workspace: &Workspace, selection: &Selection) -> Result<Option<PathBuf>, Failure> {
    let mut binary = None;
    let mut command = selection.cargo(workspace, "build");
    command.args([
        "--all-targets",
        "--message-format",
        "json-render-diagnostics",
    ]);
    process::lines(&mut command, |line| {
        if let Some(path) = quiver_executable(line) {
            binary = Some(path);
        }
    })?;
    Ok(binary)
}

/// The path in cargo's message that the `quiver` program was built (and not its test harness).
fn quiver_executable(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message.get("profile")?.get("test")?.as_bool()?;
    let target = message.get("target")?;
    let is_binary = target.get("kind")?.get(0)? == "bin" && text(target, "name") == "quiver";
    let executable = message.get("executable")?.as_str()?;
    (is_binary && !is_test).then(|| PathBuf::from(executable))
}

fn test(
    workspace: &Workspace,
    selection: &Selection,
    surroundings: &Surroundings,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let skip_log = workspace.target.join("skipped-tests.txt");
    let write = |text: &str| {
        fs::write(&skip_log, text)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", skip_log.display())))
    };
    write("")?;
    let mut command = selection.cargo(workspace, "test");
    command.arg("--no-fail-fast");
    command.args(&selection.filter);
    surround(&mut command, selection, surroundings, &skip_log);

    let mut quiet = Quiet::default();
    let outcome = process::lines(&mut command, |line| {
        totals.read_line(line);
        if quiet.shows(line) {
            println!("{line}");
        }
    });
    let skips = SkipLog::parse(&fs::read_to_string(&skip_log).unwrap_or_default());
    totals.move_skipped(&skips);
    for line in skips.lines() {
        println!("{line}");
    }
    match outcome {
        // The tests that failed are counted already, each by itself.
        Err(_) if totals.failed > 0 => Ok(()),
        // A test program that was killed, or tests that did not compile.
        Err(failure) => Err(failure),
        Ok(()) if selection.require_peers && skips.lines().next().is_some() => Err(Failure::new(
            "tests were skipped, which QUIVER_TEST_REQUIRE_PEERS=1 forbids them",
        )),
        Ok(()) => Ok(()),
    }
}

fn surround(
    command: &mut Command,
    selection: &Selection,
    surroundings: &Surroundings,
    skip_log: &Path,
) {
    let mut set = |name: &str, value: Option<&Path>| {
        match value {
            Some(value) => command.env(name, value),
            // One that was set by hand would be of another build, or without the peers.
            None => command.env_remove(name),
        };
    };
    set("QUIVER_TEST_SKIP_LOG", Some(skip_log));
    set("QUIVER_TEST_BINARY", surroundings.binary.as_deref());
    // Without an environment of our own, a Python that somebody prepared will do.
    let prepared = env::var_os("QUIVER_TEST_PYTHON").map(PathBuf::from);
    set(
        "QUIVER_TEST_PYTHON",
        surroundings.python.as_deref().or(prepared.as_deref()),
    );
    set(
        "QUIVER_TEST_REQUIRE_PEERS",
        selection.require_peers.then_some(Path::new("1")),
    );
}

/// Leaves out the lines of tests that passed: what is left is short, and says what went wrong.
#[derive(Debug, Default)]
struct Quiet {
    /// Between `failures:` and the result, everything is shown.
    in_failures: bool,
}

impl Quiet {
    fn shows(&mut self, line: &str) -> bool {
        if line == "failures:" {
            self.in_failures = true;
        } else if line.starts_with("test result: ") {
            self.in_failures = false;
            // A run that held no test of this name is of no interest.
            return !line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored");
        }
        let passed = line.starts_with("test ") && line.ends_with(" ... ok");
        let empty = line.is_empty() || (line.starts_with("running ") && line.contains(" test"));
        self.in_failures || !(passed || empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Selection, String> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Selection::parse(&arguments)
    }

    #[test]
    fn arguments_are_read_in_any_order_and_unknown_ones_refused() {
        let expected = Selection {
            require_peers: true,
            lint: false,
            packages: vec!["a".into(), "b".into()],
            filter: Some("recovery".into()),
        };
        assert_eq!(
            parse(&["-p", "a", "recovery", "--ci", "-p", "b"]),
            Ok(expected)
        );
        assert_eq!(parse(&[]), Ok(Selection::default()));
        for wrong in [&["--fast"][..], &["-p"], &["one", "two"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn ci_runs_every_test_or_none() {
        assert!(parse(&["recovery"]).unwrap().for_ci().is_err());
        let strict = parse(&["-p", "a"]).unwrap().for_ci().unwrap();
        assert!(strict.lint && strict.require_peers);
    }

    #[test]
    fn the_program_is_told_from_its_test_harness_and_from_other_programs() {
        let message = |name: &str, kind: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},
                "profile":{{"test":{test}}},"executable":"/t/debug/{name}"}}"#
            )
        };
        let found = |line: String| quiver_executable(&line);
        assert_eq!(
            found(message("quiver", "bin", false)),
            Some("/t/debug/quiver".into())
        );
        assert_eq!(found(message("quiver", "bin", true)), None);
        assert_eq!(found(message("xtask", "bin", false)), None);
        assert_eq!(found(message("quiver", "test", false)), None);
        assert_eq!(found("not JSON".to_owned()), None);
    }

    #[test]
    fn only_what_went_wrong_is_shown_line_by_line() {
        let output = "\nrunning 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ignored\n\n\
            failures:\n\n---- b stdout ----\ntest x ... ok\n\n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured\n\
            test d ... ok\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured";
        let mut quiet = Quiet::default();
        let shown: Vec<&str> = output.lines().filter(|line| quiet.shows(line)).collect();
        assert_eq!(
            shown,
            [
                "test b ... FAILED",
                "test c ... ignored",
                "failures:",
                "",
                "---- b stdout ----",
                "test x ... ok",
                "",
                "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured",
            ]
        );
    }
}
