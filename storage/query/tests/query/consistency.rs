//! What a query sees, whatever happens meanwhile.

use std::sync::Arc;

use crate::harness::{DAY, Fixture, Row, schema};

fn rows(count: i64, device: &str, from: i64) -> Vec<Row> {
    (0..count)
        .map(|index| Row::new(from + index * 1_000_000, device, index as f64))
        .collect()
}

#[test]
fn hot_frozen_and_archived_rows_are_one_table() {
    let fixture = Fixture::new();
    let readings = schema("readings", 1);
    fixture.append(&readings, &rows(10, "a", 0));
    fixture.flush("readings");
    fixture.append(&readings, &rows(10, "b", DAY));
    let frozen = fixture.freeze("readings");
    fixture.append(&readings, &rows(10, "c", 2 * DAY));
    let sql = "SELECT device, count(*), min(position), max(position), sum(speed) FROM readings GROUP BY device";
    let expected = ["a,10,1,10,45.0", "b,10,11,20,45.0", "c,10,21,30,45.0"];
    assert_eq!(fixture.lines(sql), expected);
    fixture.archive(frozen.unwrap());
    assert_eq!(fixture.lines(sql), expected);
    fixture.flush("readings");
    assert_eq!(fixture.lines(sql), expected);
    assert_eq!(fixture.files("readings").len(), 3);
}

#[test]
fn a_flush_between_the_choice_of_q_and_the_read_neither_hides_nor_doubles_nor_adds_rows() {
    let fixture = Fixture::new();
    let readings = schema("readings", 1);
    fixture.append(&readings, &rows(5, "a", 0));
    let sql = "SELECT count(*), count(DISTINCT position), max(position) FROM readings";
    let other = Arc::clone(&fixture);
    fixture.view.meanwhile(move || {
        // Later rows of the same day and device: they share files with the earlier ones.
        other.append(&schema("readings", 1), &rows(5, "a", 1_000));
        other.flush("readings");
    });
    assert_eq!(fixture.lines(sql), ["5,5,5"]);
    assert_eq!(fixture.lines(sql), ["10,10,10"]);

    // A second time, with an archive that existed before.
    let other = Arc::clone(&fixture);
    fixture.view.meanwhile(move || {
        other.append(&schema("readings", 1), &rows(5, "b", 2_000));
        other.flush("readings");
    });
    assert_eq!(
        fixture.lines("SELECT device, position FROM readings WHERE device = 'b'"),
        [] as [&str; 0]
    );
    assert_eq!(fixture.lines(sql), ["15,15,15"]);
}

#[test]
fn columns_that_are_not_asked_for_do_not_matter_to_the_cut_at_q() {
    let fixture = Fixture::new();
    let readings = schema("readings", 1);
    fixture.append(&readings, &rows(5, "a", 0));
    for sql in [
        "SELECT count(*) FROM readings",
        "SELECT count(speed) FROM readings",
        "SELECT count(*) FROM (SELECT ts, position, speed FROM readings)",
    ] {
        let seen = fixture.lines("SELECT max(position) FROM readings");
        let other = Arc::clone(&fixture);
        fixture.view.meanwhile(move || {
            other.append(&schema("readings", 1), &rows(5, "a", 1_000));
            other.flush("readings");
        });
        assert_eq!(fixture.lines(sql), seen, "{sql}");
    }
}

#[test]
fn applied_rows_beyond_the_committed_position_are_not_seen() {
    let fixture = Fixture::new();
    let readings = schema("readings", 1);
    fixture.append(&readings, &rows(5, "a", 0));
    fixture.place(&readings, &rows(3, "a", 0), 6);
    assert_eq!(fixture.lines("SELECT count(*) FROM readings"), ["5"]);
}

#[test]
fn every_table_of_a_query_is_read_at_the_same_position() {
    let fixture = Fixture::new();
    // Each pair of rows is committed by one batch after the other; Q lies between them.
    fixture.append(&schema("readings", 1), &rows(3, "a", 0));
    fixture.append(&schema("diagnostics", 1), &rows(3, "a", 0));
    let other = Arc::clone(&fixture);
    fixture.view.meanwhile(move || {
        other.append(&schema("readings", 1), &rows(3, "a", DAY));
        other.append(&schema("diagnostics", 1), &rows(3, "a", DAY));
        other.flush("readings");
    });
    let join = "SELECT count(*), max(r.position), max(d.position) FROM readings r JOIN diagnostics d ON r.ts = d.ts AND r.device = d.device";
    assert_eq!(fixture.lines(join), ["3,3,6"]);
    assert_eq!(fixture.lines(join), ["6,9,12"]);
    let twice = "SELECT count(*) FROM readings a JOIN readings b ON a.position = b.position";
    assert_eq!(fixture.lines(twice), ["6"]);
}

#[test]
fn a_result_keeps_its_version_readable_until_it_ends() {
    let fixture = Fixture::new();
    fixture.append(&schema("readings", 1), &rows(200, "a", 0));
    fixture.flush("readings");
    let version = Arc::clone(
        fixture
            .tables
            .table(&crate::harness::name("readings"))
            .unwrap()
            .state()
            .archived(),
    );
    let leases = Arc::strong_count(&version);
    let result = fixture.block_on(async {
        fixture
            .engine
            .query("SELECT * FROM readings r, readings s, readings t")
            .await
            .unwrap()
    });
    assert!(Arc::strong_count(&version) > leases);
    assert_eq!(fixture.engine.running(), 1);
    drop(result);
    crate::limits::eventually(|| {
        Arc::strong_count(&version) == leases && fixture.engine.running() == 0
    });
}

#[test]
fn old_rows_have_null_in_columns_that_came_later() {
    let fixture = Fixture::new();
    fixture.append(&schema("readings", 1), &rows(2, "a", 0));
    fixture.flush("readings");
    fixture.append(
        &schema("readings", 2),
        &[Row {
            gear: Some(3),
            ..Row::new(DAY, "a", 1.0)
        }],
    );
    fixture.append(
        &schema("readings", 4),
        &[Row {
            note: Some("hi".into()),
            on: Some(true),
            ..Row::new(2 * DAY, "a", 1.0)
        }],
    );
    let sql = "SELECT position, gear, note, on_road FROM readings";
    let expected = ["1,,,", "2,,,", "3,3,,", "4,,hi,true"];
    assert_eq!(fixture.lines(sql), expected);
    fixture.flush("readings");
    assert_eq!(fixture.lines(sql), expected);
    assert_eq!(
        fixture.lines("SELECT count(*) FROM readings WHERE gear IS NULL AND note IS NULL"),
        ["2"]
    );
    assert_eq!(
        fixture.lines("SELECT count(*) FROM readings WHERE note = 'hi' OR gear > 2"),
        ["2"]
    );
}

#[test]
fn the_last_row_of_a_device_is_the_one_with_the_greatest_time() {
    let fixture = Fixture::new();
    let readings = schema("readings", 1);
    fixture.append(&readings, &[Row::new(50, "a", 1.0), Row::new(10, "b", 2.0)]);
    fixture.flush("readings");
    fixture.append(&readings, &[Row::new(20, "a", 3.0), Row::new(10, "b", 4.0)]);
    let sql = "SELECT device, position, speed FROM last_cache('readings')";
    assert_eq!(fixture.lines(sql), ["a,1,1.0", "b,4,4.0"]);
    assert_eq!(fixture.lines("SELECT l.device, count(*) FROM last_cache('readings') l JOIN readings r ON r.device = l.device GROUP BY l.device"), ["a,2", "b,2"]);
    let columns = |table: &str| {
        fixture.block_on(async {
            fixture
                .engine
                .query(&format!("SELECT * FROM {table}"))
                .await
                .unwrap()
                .schema()
                .clone()
        })
    };
    assert_eq!(columns("readings"), columns("last_cache('readings')"));
}

#[test]
fn rows_per_device_counts_archived_and_hot_rows() {
    let fixture = Fixture::new();
    let readings = schema("readings", 1);
    fixture.append(&readings, &rows(4, "a", 0));
    fixture.flush("readings");
    fixture.append(&readings, &[rows(3, "a", DAY), rows(2, "b", 0)].concat());
    let counts = fixture
        .block_on(
            fixture
                .engine
                .rows_per_device(&crate::harness::name("readings")),
        )
        .unwrap();
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [("a".into(), 7), ("b".into(), 2)]
    );
}

#[test]
fn a_stream_without_rows_is_an_empty_table() {
    let fixture = Fixture::new();
    fixture.tables.get_or_create(&schema("readings", 2));
    assert_eq!(fixture.lines("SELECT * FROM readings"), [] as [&str; 0]);
    assert_eq!(
        fixture.lines("SELECT count(*), max(ts) FROM readings"),
        ["0,"]
    );
    assert_eq!(
        fixture.lines("SELECT * FROM last_cache('readings')"),
        [] as [&str; 0]
    );
}
