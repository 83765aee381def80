//! Where dependencies come from, under which licence, and how old they may be. [`check`] takes a
//! second and needs nothing but what cargo has downloaded; [`cargo_deny`] runs the tool itself,
//! which knows more. Both go by `deny.toml`. There is not everywhere an advisory database to be
//! had; the version floors in that file stand in for it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    failure::Failure,
    licence,
    policy::{Policy, Version},
    process,
    workspace::{Workspace, list, text},
};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The version that is installed where there is none.
const CARGO_DENY: &str = "0.20.2";

/// The platforms Quiver is built for, as in `deny.toml`; what only others need is not downloaded.
const TARGETS: &[&str] = &["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// The file both this check and cargo-deny go by.
const POLICY: &str = "deny.toml";

/// Checks every package that any feature of any member resolves to on our platforms.
pub fn check(workspace: &Workspace) -> Result<(), Failure> {
    let path = workspace.root.join(POLICY);
    let policy = fs::read_to_string(&path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    let policy = Policy::parse(&policy)?;
    let mut command = workspace.cargo();
    command.args(["metadata", "--locked", "--format-version", "1"]);
    for target in TARGETS {
        command.args(["--filter-platform", target]);
    }
    let metadata = process::output(&mut command)?;
    let metadata: Value = serde_json::from_str(&metadata)
        .map_err(|error| Failure::new(format!("cargo metadata printed no JSON: {error}")))?;
    let packages: Vec<Package> = list(&metadata, "packages").map(Package::parse).collect();
    Failure::unless_empty(findings(&packages, &policy))?;
    eprintln!(
        "{} packages: sources, licences and version floors are as {POLICY} says",
        packages.len()
    );
    Ok(())
}

/// Everything cargo-deny checks; it is installed under `target/` if it is not there, which takes
/// about a minute and a half on two cores. Its advisories too, if their database can be fetched.
pub fn cargo_deny(workspace: &Workspace) -> Result<(), Failure> {
    let program = installed(workspace)?;
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(&workspace.root).args(arguments);
        command
    };
    let mut check = deny(&["--locked", "check", "bans", "licenses", "sources"]);
    if succeeds(&mut deny(&["fetch", "db"])) {
        check.arg("advisories");
    } else {
        eprintln!("no advisory database can be had; the version floors stand in for it");
    }
    process::run(&mut check)
}

/// The path of a cargo-deny: the one that is installed, or ours under `target/`.
fn installed(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let anywhere = PathBuf::from("cargo-deny");
    if succeeds(Command::new(&anywhere).arg("--version")) {
        return Ok(anywhere);
    }
    let tools = workspace.target.join("tools");
    let ours = tools.join("bin").join("cargo-deny");
    if !succeeds(Command::new(&ours).arg("--version")) {
        // Unoptimised: it runs for seconds, and optimised takes twice as long to compile.
        let mut install = workspace.cargo();
        install.args([
            "install",
            "cargo-deny",
            "--version",
            CARGO_DENY,
            "--locked",
            "--debug",
        ]);
        process::run(install.args(["--quiet", "--root"]).arg(&tools))?;
    }
    Ok(ours)
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

struct Package {
    name: String,
    version: String,
    licence: String,
    /// `None` for packages by path.
    source: Option<String>,
    is_member: bool,
}

impl Package {
    fn parse(package: &Value) -> Self {
        let source = package
            .get("source")
            .and_then(Value::as_str)
            .map(str::to_owned);
        Self {
            name: text(package, "name").to_owned(),
            version: text(package, "version").to_owned(),
            licence: text(package, "license").to_owned(),
            is_member: source.is_none(),
            source,
        }
    }
}

fn findings(packages: &[Package], policy: &Policy) -> Vec<String> {
    let mut findings = Vec::new();
    for Package {
        name,
        version,
        licence,
        source,
        is_member,
    } in packages
    {
        if !is_member && source.as_deref() != Some(CRATES_IO) {
            findings.push(format!(
                "{name} {version} comes from {}; take a release from crates.io",
                source.as_deref().unwrap_or("nowhere"),
            ));
        }
        let allowed = |id: &str| {
            policy.licences.iter().any(|licence| licence == id)
                || policy
                    .exceptions
                    .iter()
                    .any(|exception| exception.package == *name && exception.licence == id)
        };
        if !licence::is_satisfied(licence, &allowed) {
            findings.push(format!(
                "{name} {version} has licence {licence:?}, which {POLICY} does not allow; do \
                 without the crate, or add the licence after reading what it asks",
            ));
        }
        for ban in policy.bans.iter().filter(|ban| ban.package == *name) {
            let too_old = ban
                .floor
                .is_none_or(|floor| Version::parse(version).is_none_or(|version| version < floor));
            if too_old {
                findings.push(format!(
                    "{name} {version} is banned: {}; `cargo tree -i {name}@{version}` shows who \
                     brings it, `cargo update -p {name}@{version}` may mend it",
                    ban.reason,
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, licence: &str, source: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: licence.to_owned(),
            source: source.map(str::to_owned),
            is_member: source.is_none(),
        }
    }

    fn policy() -> Policy {
        Policy::parse(
            "[licenses]\nallow = [\"MIT\"]\n\
             exceptions = [{ allow = [\"CC0-1.0\"], crate = \"tiny\" }]\n\
             [bans]\ndeny = [\n{ crate = \"quic:<0.11.18\", reason = \"panics\" },\n\
             { crate = \"openssl-sys\", reason = \"one TLS\" },\n]\n",
        )
        .unwrap()
    }

    #[test]
    fn good_packages_leave_no_findings() {
        let packages = [
            package("quiver-model", "0.1.0", "MIT", None),
            package("quic", "0.11.18", "MIT OR GPL-2.0", Some(CRATES_IO)),
            package("tiny", "1.0.0", "CC0-1.0", Some(CRATES_IO)),
        ];
        assert_eq!(findings(&packages, &policy()), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_fault_is_found_and_names_the_package() {
        for (fault, says) in [
            (
                package("a", "1.0.0", "MIT", Some("git+https://example.org/a")),
                "comes from git+",
            ),
            (package("a", "1.0.0", "GPL-3.0", Some(CRATES_IO)), "GPL-3.0"),
            (package("a", "1.0.0", "CC0-1.0", Some(CRATES_IO)), "CC0-1.0"),
            (package("a", "1.0.0", "", Some(CRATES_IO)), "licence \"\""),
            (package("quic", "0.11.9", "MIT", Some(CRATES_IO)), "panics"),
            (
                package("openssl-sys", "9.0.0", "MIT", Some(CRATES_IO)),
                "one TLS",
            ),
        ] {
            let found = findings(&[fault], &policy());
            assert!(
                found.len() == 1 && found[0].contains(says),
                "{says}: {found:?}"
            );
        }
    }
}
