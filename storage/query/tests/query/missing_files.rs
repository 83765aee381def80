//! Archive files that are gone or damaged.

use std::sync::Arc;

use quiver_query::QueryError;

use crate::harness::{DAY, Fixture, Row, schema};

fn three_days() -> Arc<Fixture> {
    let fixture = Fixture::new();
    for day in 0..3 {
        let rows: Vec<Row> = (0..2_000)
            .map(|index| Row::new(day * DAY + index, "a", (index * 37 % 1013) as f64))
            .collect();
        fixture.append(&schema("readings", 1), &rows);
        fixture.flush("readings");
    }
    fixture
}

#[test]
fn a_missing_file_is_named_and_other_days_answer() {
    let fixture = three_days();
    let (_, path) = fixture.files("readings")[1].clone();
    // The file's footer is in the cache; that must not hide that the file is gone.
    assert_eq!(fixture.lines("SELECT count(*) FROM readings"), ["6000"]);
    std::fs::remove_file(&path).unwrap();
    for sql in [
        "SELECT count(*) FROM readings",
        "SELECT sum(speed) FROM readings",
        "SELECT count(*) FROM readings WHERE ts >= '1970-01-02' AND ts < '1970-01-03'",
        "SELECT * FROM readings a JOIN readings b ON a.ts = b.ts",
    ] {
        match fixture.error(sql) {
            QueryError::MissingFile {
                stream,
                path: named,
            } => {
                assert_eq!(stream, "readings");
                assert!(
                    named.ends_with(path.file_name().unwrap().to_str().unwrap()),
                    "{named}"
                );
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    assert_eq!(
        fixture.lines("SELECT count(*), sum(speed) > 0 FROM readings WHERE ts < '1970-01-02'"),
        ["2000,true"]
    );
    assert_eq!(
        fixture.lines("SELECT count(*) FROM readings WHERE ts >= '1970-01-03'"),
        ["2000"]
    );
    assert_eq!(
        fixture.lines("SELECT position FROM last_cache('readings')"),
        ["6000"]
    );
}

#[test]
fn a_file_with_a_damaged_footer_is_named() {
    let fixture = three_days();
    let (_, path) = fixture.files("readings")[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 20..end - 4].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let error = fixture.error("SELECT sum(speed) FROM readings");
    assert!(
        matches!(&error, QueryError::DamagedFile { stream, .. } if stream == "readings"),
        "{error:?}"
    );
    assert_eq!(
        fixture.lines("SELECT count(*) FROM readings WHERE ts >= '1970-01-02'"),
        ["4000"]
    );
}

#[test]
fn a_file_that_was_cut_is_named() {
    let fixture = three_days();
    let (_, path) = fixture.files("readings")[2].clone();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = fixture.error("SELECT count(*) FROM readings");
    assert!(
        matches!(&error, QueryError::DamagedFile { detail, .. } if detail.contains("bytes")),
        "{error:?}"
    );
}

#[test]
fn damaged_pages_are_an_error_and_the_engine_goes_on() {
    let fixture = three_days();
    let (_, path) = fixture.files("readings")[0].clone();
    let bytes = std::fs::read(&path).unwrap();
    let mut errors = 0;
    for at in (4..bytes.len() / 2).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, damaged).unwrap();
        // A flipped bit in a value cannot be told from a value; whatever comes, it must come.
        match fixture.query("SELECT sum(speed), max(ts), max(device), max(position) FROM readings WHERE ts < '1970-01-02'") {
            Ok(_) => {}
            Err(QueryError::DamagedFile { stream, .. }) => {
                assert_eq!(stream, "readings");
                errors += 1;
            }
            Err(other) => panic!("at {at}: {other:?}"),
        }
    }
    assert!(errors > 0);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(fixture.lines("SELECT count(*) FROM readings"), ["6000"]);
}
