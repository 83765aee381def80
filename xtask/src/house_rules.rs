//! Rules of the house that no compiler checks. Each finding says what to do instead.

use std::{fs, path::Path, process::Command};

use crate::{failure::Failure, process, workspace::Workspace};

/// Larger files are data.
const TEXT_MAX_BYTES: u64 = 1 << 20;

/// Words that must not stand in any file, put together here so that this one does not hold them.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        concat!("/wo", "rk/"),
        "is a path of one machine; use a path relative to the project",
    ),
    (
        concat!("/ro", "ot/"),
        "is a path of one machine; use a path relative to the project",
    ),
    (
        concat!("/ho", "me/"),
        "is a path of one machine; use a path relative to the project",
    ),
    (
        concat!("index", "-url"),
        "names a package index; which one is used is the machine's affair",
    ),
];

/// Words that must not stand in Rust source.
const FORBIDDEN_IN_RUST: &[(&str, &str)] = &[
    (
        concat!("todo", "!("),
        "is unfinished work; finish it or leave the feature out",
    ),
    (
        concat!("unimplemented", "!("),
        "is unfinished work; finish it or leave the feature out",
    ),
    (
        concat!("db", "g!("),
        "is for debugging; use tracing, or remove it",
    ),
];

/// Checks every file that git tracks or would track.
pub fn check(workspace: &Workspace) -> Result<(), Failure> {
    let files = process::output(Command::new("git").current_dir(&workspace.root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut findings = Vec::new();
    for name in files.lines() {
        if let Some(text) = read_text(&workspace.root.join(name)) {
            findings.extend(faults(name, &text));
        }
    }
    Failure::unless_empty(findings)
}

/// The file's text; `None` if it is data, or was deleted and not yet committed.
fn read_text(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > TEXT_MAX_BYTES {
        return None;
    }
    String::from_utf8(fs::read(path).ok()?).ok()
}

fn faults(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut forbid = |words: &[(&str, &str)]| {
        for (index, line) in text.lines().enumerate() {
            for (word, remedy) in words.iter().filter(|(word, _)| line.contains(word)) {
                findings.push(format!("{name}:{}: {word:?} {remedy}", index + 1));
            }
        }
    };
    forbid(FORBIDDEN);
    if name.ends_with(".rs") {
        forbid(FORBIDDEN_IN_RUST);
        // The name of a module of tests says what it is for.
        let is_tests = name.ends_with("tests.rs");
        if name.contains("src/") && !is_tests && !has_module_docs(text) {
            findings.push(format!(
                "{name}:1: begins without `//!`; say what the module is for, how data flows \
                 through it, and what it promises",
            ));
        }
    }
    // A package that is a workspace of its own (cargo-fuzz wants that) can inherit nothing.
    let is_member = text.contains("[package]") && !text.contains("[workspace]");
    if name.ends_with("Cargo.toml") && is_member {
        findings.extend(manifest_faults(name, text));
    }
    findings
}

fn has_module_docs(text: &str) -> bool {
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    first.is_none_or(|line| line.starts_with("//!"))
}

fn manifest_faults(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.contains("[lints]\nworkspace = true") {
        findings.push(format!(
            "{name}: does not inherit the lints; add [lints] workspace = true"
        ));
    }
    let mut in_dependencies = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
            continue;
        }
        let is_entry = in_dependencies && line.contains('=') && !line.starts_with('#');
        if is_entry
            && ["version =", "path =", "= \"", "git ="]
                .iter()
                .any(|own| line.contains(own))
        {
            findings.push(format!(
                "{name}:{}: gives its own version or path; put it in the root's \
                 [workspace.dependencies], so that there is one, and write `workspace = true`",
                index + 1,
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_files_leave_no_findings() {
        let manifest = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dependencies]\n\
                        serde.workspace = true\nrcgen = { workspace = true, features = [\"pem\"] }\n";
        assert_eq!(faults("a/Cargo.toml", manifest), Vec::<String>::new());
        assert_eq!(
            faults("a/src/lib.rs", "//! What it is for.\n\nmod b;\n"),
            Vec::<String>::new()
        );
        assert_eq!(
            faults("a/src/b_tests.rs", "use super::*;\n"),
            Vec::<String>::new()
        );
        assert_eq!(faults("README.md", "# Quiver\n"), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_found_with_its_place_and_remedy() {
        let machine_path = concat!("see\nin /wo", "rk/x\n");
        let unfinished = concat!("//! A.\nfn f() { todo", "!() }\n");
        let own_version = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dev-dependencies]\nserde = \"1\"\n";
        for (name, text, says) in [
            ("docs/a.md", machine_path, "docs/a.md:2: "),
            ("a/src/lib.rs", unfinished, "a/src/lib.rs:2: "),
            ("a/src/lib.rs", "mod b;\n//! late\n", "begins without"),
            (
                "a/Cargo.toml",
                "[package]\nname = \"a\"\n",
                "inherit the lints",
            ),
            (
                "a/Cargo.toml",
                own_version,
                "a/Cargo.toml:6: gives its own version",
            ),
        ] {
            let found = faults(name, text);
            assert!(
                found.len() == 1 && found[0].contains(says),
                "{says}: {found:?}"
            );
        }
    }
}
