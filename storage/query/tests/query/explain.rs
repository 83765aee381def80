//! What a plan looks like, and what is known about tables.

use crate::harness::{DAY, Fixture, Row, schema};

fn two_days() -> std::sync::Arc<Fixture> {
    let fixture = Fixture::new();
    let readings = schema("readings", 2);
    for day in 0..3 {
        for device in ["alpha", "beta"] {
            let rows: Vec<Row> = (0..50)
                .map(|index| Row::new(day * DAY + index, device, 1.0))
                .collect();
            fixture.append(&readings, &rows);
            fixture.flush("readings");
        }
    }
    fixture.append(&readings, &[Row::new(3 * DAY, "gamma", 1.0)]);
    fixture
}

fn files_read(fixture: &Fixture, sql: &str) -> usize {
    let plan = fixture.lines(&format!("EXPLAIN {sql}")).concat();
    plan.matches(".parquet").count()
}

#[test]
fn days_devices_and_positions_choose_the_files_that_are_read() {
    let fixture = two_days();
    let read = |filter: &str| {
        files_read(
            &fixture,
            &format!("SELECT sum(speed) FROM readings {filter}"),
        )
    };
    assert_eq!(read(""), 6);
    assert_eq!(
        read("WHERE ts >= '1970-01-02T00:00:00Z' AND ts < '1970-01-03T00:00:00Z'"),
        2
    );
    assert_eq!(read("WHERE ts < '1970-01-02'"), 2);
    assert_eq!(read("WHERE device = 'alpha'"), 3);
    assert_eq!(read("WHERE device IN ('gamma', 'delta')"), 0);
    assert_eq!(read("WHERE position > 250"), 1);
    assert_eq!(
        read("WHERE device = 'beta' AND ts > '1970-01-02T12:00:00Z'"),
        1
    );
}

#[test]
fn filters_and_projections_reach_the_parquet_reader() {
    let fixture = two_days();
    let plan = fixture
        .lines("EXPLAIN SELECT gear FROM readings WHERE device = 'alpha' AND speed > 3")
        .concat();
    assert!(plan.contains("predicate="), "{plan}");
    assert!(plan.contains("projection=[gear"), "{plan}");
    assert!(plan.contains("pruning_predicate"), "{plan}");
}

#[test]
fn explain_analyze_runs_the_query_and_shows_what_was_skipped() {
    let fixture = two_days();
    let plan = fixture
        .lines("EXPLAIN ANALYZE SELECT max(speed) FROM readings WHERE device = 'beta'")
        .concat();
    assert!(plan.contains("output_rows"), "{plan}");
}

#[test]
fn tables_and_columns_are_listed() {
    let fixture = two_days();
    assert!(
        fixture
            .lines("SHOW TABLES")
            .contains(&"quiver,public,readings,BASE TABLE".to_owned())
    );
    let columns = fixture.lines("DESCRIBE readings");
    assert_eq!(columns.len(), 6, "{columns:?}");
    assert!(
        columns.iter().any(|line| line.starts_with("device,Utf8")),
        "{columns:?}"
    );
    assert_eq!(
        fixture.lines(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'readings'"
        ),
        ["arrival", "device", "gear", "position", "speed", "ts"]
    );
}

#[test]
fn limits_and_top_rows_are_right() {
    let fixture = two_days();
    assert_eq!(fixture.lines("SELECT * FROM readings LIMIT 7").len(), 7);
    assert_eq!(
        fixture.lines("SELECT * FROM readings LIMIT 1000").len(),
        301
    );
    assert_eq!(
        fixture.lines("SELECT position FROM readings ORDER BY ts DESC, position DESC LIMIT 2"),
        ["300", "301"]
    );
    assert_eq!(
        fixture.lines("SELECT position FROM readings ORDER BY ts, position LIMIT 1"),
        ["1"]
    );
    assert_eq!(
        fixture.lines("SELECT count(*) FROM (SELECT * FROM readings WHERE speed = 1 LIMIT 40)"),
        ["40"]
    );
}
