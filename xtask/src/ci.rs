//! Everything that must hold before a change is merged, the quick parts first. One part's failure
//! does not hide another's.

use crate::{
    arrows, dependencies,
    failure::Failure,
    house_rules, instructions, process,
    report::Report,
    test_run::{self, Selection},
    workspace::Workspace,
};

/// All of it.
pub fn run(workspace: &Workspace, selection: &Selection, report: &mut Report) {
    rules(workspace, report);
    test_run::run(workspace, selection, report);
    // A selection restricts what is compiled; the kernels need most of the workspace.
    if selection.packages.is_empty() {
        instructions::run(workspace, &instructions::Options::default(), report);
    }
    report.part("cargo deny", || dependencies::cargo_deny(workspace));
    report.part("documentation", || documentation(workspace, selection));
}

/// The checks that compile nothing.
pub fn rules(workspace: &Workspace, report: &mut Report) {
    report.part("format", || {
        process::run(workspace.cargo().args(["fmt", "--all", "--check"]))
            .map_err(|failure| Failure::new(format!("{failure}; run `cargo fmt --all`")))
    });
    report.part("house rules", || house_rules::check(workspace));
    report.part("dependency arrows", || arrows::check(workspace));
    report.part("dependencies", || dependencies::check(workspace));
}

/// Documentation of the light libraries with every warning an error. The heavy ones are left out:
/// rustdoc needs all their dependencies checked once more, which for DataFusion takes as long as
/// compiling it.
fn documentation(workspace: &Workspace, selection: &Selection) -> Result<(), Failure> {
    let mut command = workspace.cargo();
    command
        .args(["doc", "--locked", "--no-deps"])
        .env("RUSTDOCFLAGS", "-Dwarnings");
    let libraries: Vec<&str> = arrows::light_libraries(workspace)
        .into_iter()
        .filter(|name| {
            selection.packages.is_empty()
                || selection.packages.iter().any(|package| package == name)
        })
        .collect();
    if libraries.is_empty() {
        return Ok(());
    }
    for library in libraries {
        command.args(["-p", library]);
    }
    process::run(&mut command)
}
