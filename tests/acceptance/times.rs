//! Timestamp fields: times beside the event time, sent as Arrow over QUIC and as text in a file; the
//! same to the microsecond in memory, in the archive, after a restart and in other readers.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray, TimestampSecondArray,
};

use crate::{
    device, python,
    server::{Server, quiver, quiver_ok},
};

/// Microseconds of 0001-01-01 and of the end of 9999.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;

/// Rows numbered from `first` on, with these times.
fn rows(first: i64, times: ArrayRef) -> RecordBatch {
    let numbers: Vec<i64> = (first..).take(times.len()).collect();
    let ts = numbers
        .iter()
        .map(|number| device::EPOCH_US + number * 1_000_000);
    let ts = TimestampMicrosecondArray::from_iter_values(ts).with_timezone("UTC");
    RecordBatch::try_from_iter_with_nullable([
        ("ts", Arc::new(ts) as ArrayRef, false),
        ("n", Arc::new(Int64Array::from(numbers)), false),
        ("seen", times, true),
    ])
    .unwrap()
}

#[test]
fn times_beside_the_event_time_are_the_same_everywhere() {
    let mut server = Server::start(&["--enroll-unknown"]);
    device::runtime().block_on(async {
        let client = device::connect(&server, "door").await;
        let stream = client.stream("events").unwrap();
        let micros = vec![Some(FIRST), Some(-1), None, Some(0), Some(LAST)];
        let micros = TimestampMicrosecondArray::from(micros).with_timezone("+02:00");
        // Without a zone, and the last one beyond every calendar: that row is refused.
        let seconds = TimestampSecondArray::from(vec![Some(-2), None, Some(1 << 45)]);
        for batch in [rows(0, Arc::new(micros)), rows(5, Arc::new(seconds))] {
            let _settled = stream.send(&batch).await.unwrap();
        }
        // A time does not become a number.
        let number = Int64Array::from(vec![1]);
        let _rejected = stream.send(&rows(8, Arc::new(number))).await.unwrap();
        client.flush().await.unwrap();
    });
    let path = server.path("events.csv");
    let text = "ts,n,seen\n2026-01-02 00:00:00,9,1999-12-31 23:59:59.5\n2026-01-02 00:00:01,10,\n";
    std::fs::write(&path, text).unwrap();
    quiver_ok(&[
        "send",
        "--data-dir",
        server.data(),
        "--stream",
        "events",
        "--device",
        "door",
        "--map",
        "n=:int64",
        "--map",
        "seen=:timestamp",
        path.to_str().unwrap(),
    ]);

    let micros = "CAST(arrow_cast(seen, 'Timestamp(Microsecond, None)') AS BIGINT)";
    let all = format!("SELECT n, {micros} FROM events ORDER BY n");
    let expected = [
        (0, Some(FIRST)),
        (1, Some(-1)),
        (2, None),
        (3, Some(0)),
        (4, Some(LAST)),
        (5, Some(-2_000_000)),
        (6, None),
        (9, Some(946_684_799_500_000)),
        (10, None),
    ]
    .map(|(n, time): (i64, Option<i64>)| {
        let time = time.map(|time| time.to_string()).unwrap_or_default();
        format!("{n},{time}")
    });
    let check = |server: &Server, place: &str| {
        assert_eq!(server.sql(&all), expected, "{place}");
        // As a time, written as `ts` is.
        let shown = server.sql("SELECT seen FROM events WHERE n IN (0, 1, 4) ORDER BY n");
        let texts = [
            "0001-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999999Z",
            "9999-12-31T23:59:59.999999Z",
        ];
        assert_eq!(shown, texts, "{place}");
        let before = "SELECT count(*) FROM events WHERE seen < '1970-01-01T00:00:00Z'";
        assert_eq!(server.number(before), 3, "{place}");
        let of_kind = "SELECT DISTINCT arrow_typeof(seen) AS kind FROM events";
        let kind = server.sql(of_kind);
        assert!(kind[0].contains("UTC"), "{place}: {kind:?}");
    };
    check(&server, "in memory");
    let codes = server.sql("SELECT code, rows FROM rejects ORDER BY code");
    assert_eq!(codes, ["timestamp_range,1", "type_conflict,1"]);
    assert_eq!(
        server.sql("SELECT n, seen FROM last_cache('events')"),
        ["10,"]
    );
    let declared = |word: &str| {
        let field = format!("seen={word}");
        let data = server.data();
        quiver(&["streams", "declare", "events", &field, "--data-dir", data])
    };
    assert!(declared("timestamp").status.success());
    assert!(!declared("int64").status.success());
    server.audit();

    // What only the log has is there again.
    server.kill();
    server.restart();
    check(&server, "after a kill");
    server.stop();
    check(&server, "archived");
    server.audit();
    quiver_ok(&["archive", "check", "--data-dir", server.data()]);

    let Some(python) =
        python::interpreter("times::times_beside_the_event_time_are_the_same_everywhere")
    else {
        return;
    };
    let table = format!("{}/archive/events", server.data());
    for reader in ["deltalake", "duckdb", "polars", "pyarrow"] {
        let columns = [reader, &table, "n", "seen"];
        let text = python::run(&python, "read_archive.py", &columns);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_by_key(|line| line.split(',').next().and_then(|n| n.parse::<i64>().ok()));
        assert_eq!(lines, expected, "{reader}");
    }
}
