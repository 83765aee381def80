//! The workspace as cargo sees it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{failure::Failure, process};

/// The workspace's place and members.
#[derive(Debug)]
pub struct Workspace {
    /// Where the root `Cargo.toml` is.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// Its packages, sorted by name.
    pub members: Vec<Member>,
}

/// A package of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where its `Cargo.toml` is.
    pub directory: PathBuf,
    /// Whether it has a library, and so documentation and documentation tests.
    pub has_library: bool,
    /// What it depends on directly.
    pub dependencies: Vec<Dependency>,
}

/// A direct dependency.
#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// Only for its tests, examples and benchmarks.
    pub dev: bool,
}

impl Workspace {
    /// Asks cargo; needs nothing downloaded.
    pub fn open() -> Result<Self, Failure> {
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        Self::parse(&process::output(&mut command)?)
    }

    fn parse(metadata: &str) -> Result<Self, Failure> {
        let metadata: Value = serde_json::from_str(metadata)
            .map_err(|error| Failure::new(format!("cargo metadata printed no JSON: {error}")))?;
        let path = |key: &str| PathBuf::from(text(&metadata, key));
        let mut members: Vec<Member> = list(&metadata, "packages").map(Member::parse).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            root: path("workspace_root"),
            target: path("target_directory"),
            members,
        })
    }

    /// `cargo` in the root.
    pub fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }

    /// An optimised program, which the user has built: it takes long.
    pub fn release_program(&self, name: &str) -> Result<PathBuf, Failure> {
        let program = self.target.join("release").join(name);
        if program.exists() {
            return Ok(program);
        }
        Err(Failure::new(format!(
            "{} is missing; build it first: cargo build --release -p quiver -p quiver-bench-limits",
            program.display()
        )))
    }
}

impl Member {
    fn parse(package: &Value) -> Self {
        let manifest = PathBuf::from(text(package, "manifest_path"));
        let has_library = list(package, "targets")
            .any(|target| list(target, "kind").any(|kind| kind.as_str() == Some("lib")));
        let dependencies = list(package, "dependencies")
            .map(|dependency| Dependency {
                name: text(dependency, "name").to_owned(),
                dev: text(dependency, "kind") == "dev",
            })
            .collect();
        Self {
            name: text(package, "name").to_owned(),
            directory: manifest.parent().map(Path::to_owned).unwrap_or_default(),
            has_library,
            dependencies,
        }
    }
}

/// The cargo that runs us.
///
/// `cargo run` describes our own package in the environment. Some build scripts (ring's) look at
/// those variables, and would be run, and all above them compiled, anew each time a developer's
/// `cargo build` and `cargo xtask` alternate; so they are not passed on.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_our_package) {
            command.env_remove(name);
        }
    }
    command
}

fn describes_our_package(variable: &str) -> bool {
    [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
    ]
    .iter()
    .any(|prefix| variable.starts_with(prefix))
}

/// The string at `key`; empty if there is none.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of the array at `key`; none if there is none.
pub fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_about_xtask_itself_are_told_from_settings() {
        assert!(describes_our_package("CARGO_MANIFEST_DIR"));
        assert!(describes_our_package("CARGO_PKG_VERSION_PRE"));
        assert!(!describes_our_package("CARGO_TARGET_DIR"));
        assert!(!describes_our_package("CARGO_INCREMENTAL"));
    }

    #[test]
    fn members_and_their_direct_dependencies_are_read() {
        let workspace = Workspace::parse(
            r#"{"workspace_root": "/w", "target_directory": "/w/target", "packages": [
                {"name": "b", "manifest_path": "/w/b/Cargo.toml", "targets": [{"kind": ["bin"]}],
                 "dependencies": [{"name": "a", "kind": null}, {"name": "x", "kind": "dev"}]},
                {"name": "a", "manifest_path": "/w/a/Cargo.toml", "targets": [{"kind": ["lib"]}],
                 "dependencies": []}]}"#,
        )
        .unwrap();
        assert_eq!(workspace.target, Path::new("/w/target"));
        let [a, b] = workspace.members.as_slice() else {
            panic!("{:?}", workspace.members)
        };
        assert!(a.has_library && !b.has_library);
        assert_eq!(b.directory, Path::new("/w/b"));
        let dependency = |name: &str, dev| Dependency {
            name: name.to_owned(),
            dev,
        };
        assert_eq!(
            b.dependencies,
            [dependency("a", false), dependency("x", true)]
        );
    }
}
