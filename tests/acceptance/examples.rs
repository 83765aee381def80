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

#[test]
fn every_page_that_shows_a_picture_shows_one_that_is_there() {
    let page = std::fs::read_to_string(repository().join("docs/pipeline.md")).unwrap();
    for path in examples() {
        let name = path.file_stem().and_then(OsStr::to_str).unwrap();
        assert!(page.contains(&format!("pictures/{name}.svg")), "{name}");
    }
}
