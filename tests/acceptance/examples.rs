//! The shipped graphs: each validates without a word, passes its tests, and its picture is current.

use std::{ffi::OsStr, path::PathBuf};

use crate::server::quiver_ok;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The configurations in `examples/`, without their tests.
fn examples() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("examples")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap();
        name.ends_with(".toml") && !name.ends_with(".test.toml")
    });
    paths.sort();
    assert!(paths.len() >= 5, "{paths:?}");
    paths
}

#[test]
fn every_example_validates_without_a_warning() {
    for path in examples() {
        let told = quiver_ok(&["validate", path.to_str().unwrap()]);
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(
            told.contains(": good:") && !told.contains("warning"),
            "{told}"
        );
    }
}

#[test]
fn every_example_passes_its_tests() {
    for path in examples() {
        let told = quiver_ok(&["test", path.to_str().unwrap()]);
        let summary = told.lines().last().unwrap_or_default();
        assert!(summary.contains(", 0 failed"), "{told}");
        assert!(!summary.starts_with("0 passed"), "{told}");
    }
}

#[test]
fn the_pictures_are_those_of_the_examples() {
    for path in examples() {
        let drawn = quiver_ok(&["graph", "--format", "svg", path.to_str().unwrap()]);
        let name = path.file_stem().and_then(OsStr::to_str).unwrap();
        let picture = repository().join(format!("docs/pictures/{name}.svg"));
        let kept = std::fs::read_to_string(&picture).unwrap_or_default();
        assert!(
            kept == drawn,
            "docs/pictures/{name}.svg is not current; draw it again:\n  quiver graph --format svg examples/{name}.toml > docs/pictures/{name}.svg"
        );
    }
}

fn page() -> String {
    std::fs::read_to_string(repository().join("docs/pipeline.md")).unwrap()
}

#[test]
fn the_reference_shows_every_example_and_its_picture() {
    let page = page();
    for path in examples() {
        let name = path.file_stem().and_then(OsStr::to_str).unwrap();
        for link in [
            format!("pictures/{name}.svg"),
            format!("examples/{name}.toml"),
        ] {
            assert!(page.contains(&format!("({link})")) || page.contains(&format!("(../{link})")));
        }
    }
}

/// The blocks of the reference are one configuration, in order.
#[test]
fn what_the_reference_says_is_a_graph_that_passes_its_tests() {
    let page = page();
    let blocks = page.split("```toml\n").skip(1);
    let text: String = blocks
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(text.matches("[[test]]").count() >= 2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("page.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let told = quiver_ok(&["validate", path]);
    assert_eq!(told.lines().count(), 1, "{told}");
    let told = quiver_ok(&["test", path]);
    assert!(told.contains(", 0 failed"), "{told}");
}
