//! The peers that Quiver is compared with: installed under `target/peers` without root, and run.
//!
//! ```text
//! bench/peers/requirements.txt ─pip──────────────────────▶ target/peers/venv
//! bench/peers/debian.txt ─apt-get download, dpkg -x──────▶ target/peers/debian
//! quiver-bench-limits, bench/peers/run.py ─▶ docs/performance.md, target/peers/results.json
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    distance::PAGE,
    failure::Failure,
    process,
    report::Report,
    venv::{self, Environment},
    workspace::Workspace,
};

const REQUIREMENTS: &str = "bench/peers/requirements.txt";
const PACKAGES: &str = "bench/peers/debian.txt";
const DRIVER: &str = "bench/peers/run.py";
/// How often each limit is measured.
const LIMITS_RUNS: &str = "5";

/// What to do with the peers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only install them.
    pub install_only: bool,
    /// Do not measure the machine's own limits first.
    pub no_limits: bool,
    /// What `run.py` is told.
    pub arguments: Vec<String>,
}

impl Options {
    /// Reads `[--install-only] [--no-limits] [-- ARGUMENT...]`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--install-only" => options.install_only = true,
                "--no-limits" => options.no_limits = true,
                "--" => options.arguments = words.by_ref().cloned().collect(),
                other => {
                    return Err(format!(
                        "no option {other}; what is meant for the driver comes after --"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// Installs the peers, and runs the comparison.
pub fn run(workspace: &Workspace, options: &Options, report: &mut Report) {
    let peers = workspace.target.join("peers");
    let python = report.part("peers from PyPI", || {
        fs::create_dir_all(&peers)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", peers.display())))?;
        venv::ensure_environment(
            workspace,
            &Environment {
                requirements: REQUIREMENTS,
                directory: &peers.join("venv"),
            },
        )
    });
    report.part("peers from Debian", || debian(workspace, &peers));
    let Some(python) = python.filter(|_| !options.install_only) else {
        return;
    };
    if !options.no_limits {
        report.part("limits of the machine", || limits(workspace, &peers));
    }
    report.part("comparison", || {
        compare(workspace, &peers, &python, &options.arguments)
    });
}

/// Measures the machine in the same run, so that every figure can be a fraction of what it can do.
fn limits(workspace: &Workspace, peers: &Path) -> Result<(), Failure> {
    let program = workspace.release_program("quiver-bench-limits")?;
    process::run(
        Command::new(program)
            .args(["all", "--runs", LIMITS_RUNS, "--directory"])
            .arg(peers)
            .arg("--json")
            .arg(peers.join("limits.json"))
            .arg("--page")
            .arg(workspace.root.join(PAGE)),
    )
}

fn compare(
    workspace: &Workspace,
    peers: &Path,
    python: &Path,
    arguments: &[String],
) -> Result<(), Failure> {
    let given = |option: &str| arguments.iter().any(|word| word == option);
    let mut command = Command::new(python);
    command
        .arg(workspace.root.join(DRIVER))
        .arg("--peers")
        .arg(peers);
    let defaults = [
        ("--work", peers.join("work")),
        ("--json", peers.join("results.json")),
        ("--page", workspace.root.join(PAGE)),
    ];
    for (option, value) in defaults {
        if !given(option) {
            command.arg(option).arg(value);
        }
    }
    if !given("--quiver") {
        command
            .arg("--quiver")
            .arg(workspace.release_program("quiver")?);
    }
    process::run(command.args(arguments))
}

/// A package that is wanted.
#[derive(Debug, PartialEq, Eq)]
struct Package<'a> {
    name: &'a str,
    /// A peer; the others are libraries that may be there already.
    is_needed: bool,
}

fn packages(list: &str) -> Vec<Package<'_>> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| Package {
            name: line.trim_end_matches('*').trim_end(),
            is_needed: line.ends_with('*'),
        })
        .collect()
}

/// Downloads and unpacks the packages. One that cannot be had fails, after the others were tried;
/// a library that cannot be had is only named.
fn debian(workspace: &Workspace, peers: &Path) -> Result<(), Failure> {
    let path = workspace.root.join(PACKAGES);
    let list = fs::read_to_string(&path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    let root = peers.join("debian");
    // What was unpacked, and in which version; the drivers read it.
    let stamp = root.join("versions.txt");
    let unpacked = fs::read_to_string(&stamp).unwrap_or_default();
    let has = |name: &str| {
        unpacked
            .lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let wanted: Vec<Package<'_>> = packages(&list)
        .into_iter()
        .filter(|package| !has(package.name))
        .collect();
    if wanted.is_empty() {
        eprintln!("{} is up to date", root.display());
        return Ok(());
    }
    let downloads = peers.join("downloads");
    for directory in [&root, &downloads] {
        fs::create_dir_all(directory).map_err(|error| {
            Failure::new(format!("cannot make {}: {error}", directory.display()))
        })?;
    }
    let mut findings = Vec::new();
    let mut versions = unpacked.clone();
    for package in wanted {
        match unpack(package.name, &downloads, &root) {
            Ok(version) => versions.push_str(&format!("{} {version}\n", package.name)),
            Err(failure) if package.is_needed => findings.push(failure.to_string()),
            Err(failure) => eprintln!("{failure}\nit may not be needed; going on without it"),
        }
    }
    fs::write(&stamp, versions)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", stamp.display())))?;
    Failure::unless_empty(findings)
}

/// Unpacks one package; its version.
fn unpack(name: &str, downloads: &Path, root: &Path) -> Result<String, Failure> {
    let mut download = Command::new("apt-get");
    download
        .args(["download", "--quiet", name])
        .current_dir(downloads);
    process::run(&mut download).map_err(|failure| {
        Failure::new(format!(
            "{failure}\nthe Debian package {name} was not downloaded; this needs a Debian, and \
             its lists (apt-get update)"
        ))
    })?;
    let archive = newest(downloads, name)?;
    process::run(Command::new("dpkg").arg("-x").arg(&archive).arg(root))?;
    let version = process::output(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(&archive)
            .arg("Version"),
    )?;
    Ok(version.trim().to_owned())
}

/// The file that was downloaded for a package.
fn newest(downloads: &Path, name: &str) -> Result<PathBuf, Failure> {
    let start = format!("{name}_");
    let mut archives: Vec<PathBuf> = fs::read_dir(downloads)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", downloads.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let file = path.file_name().and_then(|file| file.to_str());
            file.is_some_and(|file| file.starts_with(&start))
        })
        .collect();
    archives.sort_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
    archives.pop().ok_or_else(|| {
        Failure::new(format!(
            "apt-get left no file of {name} in {}",
            downloads.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn what_comes_after_the_dashes_is_the_drivers() {
        let expected = Options {
            install_only: false,
            no_limits: false,
            arguments: vec!["--runs".into(), "1".into()],
        };
        assert_eq!(parse(&["--", "--runs", "1"]), Ok(expected));
        assert!(parse(&["--install-only"]).unwrap().install_only);
        assert!(parse(&["--runs", "1"]).is_err());
    }

    #[test]
    fn a_star_marks_what_is_needed() {
        let list = "# text *\n\nmosquitto *\nlibwrap0\n";
        let expected = [("mosquitto", true), ("libwrap0", false)];
        let expected = expected.map(|(name, is_needed)| Package { name, is_needed });
        assert_eq!(packages(list), expected);
    }
}
