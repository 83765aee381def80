//! Python virtual environments under `target/`: one with the peers that tests talk to, one with
//! those that Quiver is compared with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{failure::Failure, process, workspace::Workspace};

/// Pinned versions, all of them, so that a run next year installs what this one did.
const REQUIREMENTS: &str = "tests/python/requirements.txt";

/// An environment that is wanted.
pub struct Environment<'a> {
    /// Its packages, relative to the workspace.
    pub requirements: &'a str,
    /// Where it is to be.
    pub directory: &'a Path,
}

/// The Python that has what the tests need.
pub fn ensure(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let environment = Environment {
        requirements: REQUIREMENTS,
        directory: &workspace.target.join("venv"),
    };
    ensure_environment(workspace, &environment)
}

/// The environment's Python; made if it is not there, made anew if the requirements changed.
pub fn ensure_environment(
    workspace: &Workspace,
    environment: &Environment<'_>,
) -> Result<PathBuf, Failure> {
    let Environment {
        requirements: name,
        directory,
    } = *environment;
    let wanted = workspace.root.join(name);
    let requirements = fs::read_to_string(&wanted)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", wanted.display())))?;
    let python = directory.join("bin").join("python");
    // What was installed, written when all of it was.
    let stamp = directory.join("installed.txt");
    if python.exists() && fs::read_to_string(&stamp).is_ok_and(|text| text == requirements) {
        eprintln!("{} is up to date", directory.display());
        return Ok(python);
    }

    process::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(directory),
    )
    .map_err(|failure| {
        Failure::new(format!(
            "{failure}\nno virtual environment: the Python peers need python3 with its venv \
                 module (on Debian: python3-venv)",
        ))
    })?;
    process::run(
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(["--no-input", "--only-binary", ":all:", "--requirement"])
            .arg(&wanted),
    )
    .map_err(|failure| {
        Failure::new(format!(
            "{failure}\nthe Python peers of {name} were not installed"
        ))
    })?;
    fs::write(&stamp, requirements)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", stamp.display())))?;
    Ok(python)
}
