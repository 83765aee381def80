//! Untrusted SQL: what is refused, and what ends by itself.

use std::time::{Duration, Instant};

use futures::StreamExt;
use quiver_query::{QueryError, QueryLimits};

use crate::harness::{Fixture, Row, limits, schema};

/// Waits until `holds`, at most ten seconds.
#[track_caller]
pub fn eventually(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "it never came true"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn with_rows(limits: QueryLimits, rows: i64) -> std::sync::Arc<Fixture> {
    let fixture = Fixture::with_limits(limits);
    let rows: Vec<Row> = (0..rows)
        .map(|index| Row::new(index, "a", index as f64))
        .collect();
    fixture.append(&schema("readings", 1), &rows);
    fixture
}

#[test]
fn nothing_but_reading_streams_is_possible() {
    let fixture = with_rows(limits(), 3);
    for sql in [
        "CREATE EXTERNAL TABLE passwd STORED AS CSV LOCATION '/etc/passwd'",
        "COPY readings TO '/tmp/quiver-stolen.csv' STORED AS CSV",
        "CREATE TABLE t AS SELECT * FROM readings",
        "INSERT INTO readings SELECT * FROM readings",
        "DELETE FROM readings",
        "DROP TABLE readings",
        "SET datafusion.runtime.memory_limit = '100G'",
        "SELECT 1; SELECT 2",
        "SELECT * INTO t FROM readings",
        "SELECT 1 WHERE EXISTS (SELECT 1) ; DROP TABLE readings",
    ] {
        let error = fixture.error(sql);
        assert!(
            matches!(error, QueryError::Refused { .. }),
            "{sql}: {error:?}"
        );
    }
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM \"file:///etc/passwd\"",
        "SELECT * FROM \"../../etc/passwd\"",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('/tmp/x.parquet')",
        "SELECT * FROM parquet_metadata('/tmp/x.parquet')",
        "SELECT repeat('x', 2000000000)",
        "SELECT range(0, 10000000000)",
    ] {
        let error = fixture.error(sql);
        assert!(error.is_callers_mistake(), "{sql}: {error:?}");
        assert!(!error.to_string().contains("root:"), "{error}");
    }
}

#[test]
fn errors_say_what_is_wrong_and_how_to_mend_it() {
    let fixture = with_rows(limits(), 3);
    fixture.append(&schema("diagnostics", 1), &[Row::new(0, "a", 1.0)]);
    match fixture.error("SELECT * FROM reading") {
        QueryError::UnknownTable { name, near, .. } => {
            assert_eq!(name, "reading");
            assert_eq!(near[0], "readings");
        }
        other => panic!("{other:?}"),
    }
    let error = fixture.error("SELECT * FROM last_cache('diagnostic')");
    assert!(
        error.to_string().contains("\"diagnostic\"") && error.to_string().contains("diagnostics"),
        "{error}"
    );
    assert!(
        fixture
            .error("SELECT 1 FROM nope")
            .to_string()
            .contains("readings")
    );
    for number in 0..23 {
        fixture.append(&schema(&format!("s{number}"), 1), &[Row::new(0, "a", 1.0)]);
    }
    let error = fixture.error("SELECT * FROM nope").to_string();
    assert!(
        error.contains("none of the 25") && error.contains("SHOW TABLES"),
        "{error}"
    );
    assert!(fixture.lines("SHOW TABLES").len() >= 25);
    let error = fixture.error("SELECT * FROM readnigs").to_string();
    assert!(error.contains("did you mean \"readings\"?"), "{error}");
    let error = fixture.error("SELECT * FROM last_cache(1)");
    assert!(matches!(error, QueryError::Plan { .. }), "{error:?}");
    let error = fixture.error("SELECT speeed FROM readings");
    assert!(
        matches!(error, QueryError::Plan { .. }) && error.to_string().contains("speeed"),
        "{error:?}"
    );
    let error = fixture.error("SELEC 1");
    assert!(matches!(error, QueryError::Syntax { .. }), "{error:?}");
    let error = fixture.error("SELECT frobnicate(speed) FROM readings");
    assert!(matches!(error, QueryError::Plan { .. }), "{error:?}");
    let error = fixture.error("SELECT 1 / (position - position) FROM readings");
    assert!(matches!(error, QueryError::Execution { .. }), "{error:?}");
    let error = fixture.error("SELECT cast(device AS INT) FROM readings");
    assert!(matches!(error, QueryError::Execution { .. }), "{error:?}");
}

#[test]
fn a_join_that_needs_too_much_memory_is_an_error() {
    let fixture = with_rows(
        QueryLimits {
            memory_bytes: 2 << 20,
            ..limits()
        },
        20_000,
    );
    let grouped = "SELECT count(*) FROM (SELECT DISTINCT a.position * 20000 + b.position FROM readings a CROSS JOIN readings b)";
    let error = fixture.error(grouped);
    assert!(
        matches!(error, QueryError::Memory { limit, .. } if limit == 2 << 20),
        "{error:?}"
    );
    assert_eq!(fixture.lines("SELECT count(*) FROM readings"), ["20000"]);
}

#[test]
fn a_sort_larger_than_memory_spills_and_is_right() {
    let spill = tempfile::tempdir().unwrap();
    let limits = QueryLimits {
        memory_bytes: 24 << 20,
        spill_directory: Some(spill.path().to_owned()),
        ..limits()
    };
    let fixture = with_rows(limits, 100_000);
    let sql = "SELECT count(*), max(position) FROM (SELECT *, row_number() OVER (ORDER BY speed DESC, position) AS n FROM \
               (SELECT r.*, s.device || r.device || 'a text that takes some room in a sort' AS t FROM readings r, (VALUES (1), (2), (3)) s(device0) CROSS JOIN (SELECT 'x' AS device) s))";
    let sql = sql.replace(
        "(VALUES (1), (2), (3)) s(device0) CROSS JOIN ",
        "(VALUES (1), (2), (3)) v(n0) CROSS JOIN ",
    );
    assert_eq!(fixture.lines(&sql), ["300000,100000"]);
}

#[test]
fn a_query_that_takes_too_long_is_ended() {
    let fixture = with_rows(
        QueryLimits {
            timeout: Duration::from_millis(800),
            ..limits()
        },
        20_000,
    );
    let start = Instant::now();
    let error = fixture.error(
        "SELECT sum(sqrt(a.speed * b.speed * c.speed)) FROM readings a, readings b, readings c",
    );
    assert!(matches!(error, QueryError::Timeout { .. }), "{error:?}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    eventually(|| fixture.engine.running() == 0);
    fixture.view.stick();
    let error = fixture.error("SELECT count(*) FROM readings");
    assert!(matches!(error, QueryError::Timeout { .. }), "{error:?}");
    eventually(|| fixture.engine.running() == 0);
}

#[test]
fn a_dropped_result_ends_its_query() {
    let fixture = with_rows(limits(), 20_000);
    let sql = "SELECT a.position, b.position FROM readings a, readings b, readings c";
    fixture.block_on(async {
        let mut result = fixture.engine.query(sql).await.unwrap();
        assert!(result.next().await.unwrap().is_ok());
        assert_eq!(fixture.engine.running(), 1);
        drop(result);
    });
    eventually(|| fixture.engine.running() == 0);
}

/// An endless query that makes no row.
const ENDLESS: &str =
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r";

#[test]
fn a_dropped_result_ends_a_query_that_makes_nothing() {
    let one = QueryLimits {
        concurrent_queries: 1,
        ..limits()
    };
    let fixture = with_rows(one, 20_000);
    for sql in [
        ENDLESS,
        "SELECT sum(sqrt(a.speed * b.speed * c.speed)) FROM readings a, readings b, readings c",
        "SELECT count(DISTINCT a.speed * b.speed - c.speed) FROM readings a, readings b, readings c",
    ] {
        let result = fixture.block_on(fixture.engine.query(sql)).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(fixture.engine.running(), 1, "{sql}");
        let start = Instant::now();
        drop(result);
        // Its threads and its turn are free for the next.
        assert_eq!(fixture.lines("SELECT count(*) FROM readings"), ["20000"]);
        assert!(start.elapsed() < Duration::from_secs(3), "{sql}");
    }
}

#[test]
fn a_query_waits_for_its_turn_only_so_long() {
    let limits = QueryLimits {
        concurrent_queries: 1,
        turn_timeout: Duration::from_millis(300),
        ..limits()
    };
    let fixture = with_rows(limits, 3);
    let held = fixture.block_on(fixture.engine.query(ENDLESS)).unwrap();
    let start = Instant::now();
    let error = fixture.error("SELECT 1");
    assert!(
        matches!(
            error,
            QueryError::Busy {
                running: 1,
                waiting: 0
            }
        ),
        "{error:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(held);
    assert_eq!(fixture.lines("SELECT 1"), ["1"]);
}

#[test]
fn a_caller_may_give_less_time_and_not_more() {
    let limits = QueryLimits {
        timeout: Duration::from_secs(1),
        ..limits()
    };
    let fixture = with_rows(limits, 3);
    for (asked, given) in [(200, 200), (60_000, 1_000)] {
        let (asked, given) = (Duration::from_millis(asked), Duration::from_millis(given));
        let start = Instant::now();
        let error = fixture.block_on(async {
            let result = fixture.engine.query_within(ENDLESS, asked).await?;
            result.collect().await
        });
        let error = error.unwrap_err();
        assert!(
            matches!(error, QueryError::Timeout { after } if after == given),
            "{error:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn only_so_many_queries_run_and_wait() {
    let limits = QueryLimits {
        concurrent_queries: 1,
        timeout: Duration::from_millis(500),
        ..limits()
    };
    let fixture = with_rows(limits, 3);
    fixture.block_on(async {
        let held = fixture.engine.query("SELECT 1").await.unwrap();
        // The plan may have ended already; one that is not over holds the permit.
        drop(held);
    });
    fixture.view.stick();
    let errors = fixture.block_on(async {
        let queries = (0..40).map(|_| fixture.engine.query("SELECT count(*) FROM readings"));
        futures::future::join_all(queries).await
    });
    let busy = errors
        .iter()
        .filter(|error| matches!(error, Err(QueryError::Busy { .. })))
        .count();
    let late = errors
        .iter()
        .filter(|error| matches!(error, Err(QueryError::Timeout { .. })))
        .count();
    assert_eq!(
        (busy + late, busy > 15),
        (40, true),
        "{busy} busy, {late} late"
    );
}

#[test]
fn a_result_with_too_many_rows_is_an_error() {
    let fixture = with_rows(
        QueryLimits {
            rows_max: Some(100),
            ..limits()
        },
        20_000,
    );
    assert!(matches!(
        fixture.error("SELECT * FROM readings"),
        QueryError::TooManyRows { limit: 100 }
    ));
    assert_eq!(fixture.lines("SELECT * FROM readings LIMIT 100").len(), 100);
}

#[test]
fn hostile_texts_are_answered() {
    let fixture = with_rows(limits(), 3);
    let bad = [
        format!("SELECT 1 WHERE 1 = 1{}", " OR 1 = 1".repeat(10_000)),
        format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("SELECT {}1", "- ".repeat(20_000)),
        format!("SELECT {}1", "NOT ".repeat(20_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5_000)),
        format!("SELECT 1 FROM readings{}", ", readings".repeat(5_000)),
        format!("SELECT '{}'", "x".repeat(300_000)),
        "SELECT \u{0}".into(),
        "\u{feff}'".into(),
        "WITH ".into(),
    ];
    for sql in &bad {
        let error = fixture.error(sql);
        assert!(error.is_callers_mistake(), "{sql:.60}: {error:?}");
    }
    // Thirty tables that double: a thousand million nodes.
    let mut doubling = String::from("WITH t0 AS (SELECT 1 AS a)");
    for level in 1..=30 {
        doubling += &format!(
            ", t{level} AS (SELECT x.a FROM t{0} x CROSS JOIN t{0} y)",
            level - 1
        );
    }
    let error = fixture.error(&(doubling + " SELECT * FROM t30"));
    assert!(matches!(error, QueryError::Refused { .. }), "{error:?}");
    let endless =
        "WITH RECURSIVE n AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM n) SELECT count(*) FROM n";
    let fixture = with_rows(
        QueryLimits {
            timeout: Duration::from_millis(500),
            ..limits()
        },
        3,
    );
    assert!(matches!(
        fixture.error(endless),
        QueryError::Timeout { .. } | QueryError::Memory { .. }
    ));
}

#[test]
fn long_but_lawful_texts_are_run() {
    let fixture = with_rows(limits(), 100);
    let list: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
    assert_eq!(
        fixture.lines(&format!(
            "SELECT count(*) FROM readings WHERE position IN ({})",
            list.join(",")
        )),
        ["100"]
    );
    let chain: Vec<String> = (1..300)
        .map(|number| format!("position = {number}"))
        .collect();
    assert_eq!(
        fixture.lines(&format!(
            "SELECT count(*) FROM readings WHERE {}",
            chain.join(" OR ")
        )),
        ["100"]
    );
    let sum = vec!["speed"; 400].join(" + ");
    assert_eq!(
        fixture.lines(&format!("SELECT max({sum}) FROM readings")),
        ["39600.0"]
    );
}
