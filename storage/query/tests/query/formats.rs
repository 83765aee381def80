//! Results as bytes, read back by somebody else's readers.

use arrow_array::{
    Float64Array, RecordBatch,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_ipc::reader::StreamReader;
use futures::StreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use quiver_model::{FIELD_TIME_MAX, FIELD_TIME_MIN};
use quiver_query::{Format, encode};

use crate::harness::{Fixture, Row, schema};

const NOTES: [&str; 8] = [
    "",
    "plain",
    "with \"quotes\", and commas",
    "two\nlines\r\n",
    "žluťoučký 車 🚚",
    "\u{1b}[31mred",
    "NULL",
    " padded ",
];

fn fixture() -> std::sync::Arc<Fixture> {
    let fixture = Fixture::new();
    let floats = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.1 + 0.2,
        5e-324,
        f64::MAX,
        1.0,
    ];
    let rows: Vec<Row> = NOTES
        .iter()
        .zip(floats)
        .enumerate()
        .map(|(index, (note, speed))| Row {
            ts: index as i64,
            device: format!("device_{index}"),
            speed: Some(speed),
            gear: [Some(i64::MAX), Some(i64::MIN), None][index % 3],
            note: Some((*note).into()),
            on: [Some(true), None, Some(false)][index % 3],
            seen: [
                Some(FIELD_TIME_MIN.0),
                None,
                Some(-1),
                Some(FIELD_TIME_MAX.0),
            ][index % 4],
        })
        .collect();
    fixture.append(&schema("readings", 5), &rows);
    fixture.flush("readings");
    fixture.append(
        &schema("readings", 5),
        &[Row {
            ts: 99,
            device: "z".into(),
            speed: None,
            gear: None,
            note: None,
            on: None,
            seen: None,
        }],
    );
    fixture
}

const SQL: &str = "SELECT * FROM readings ORDER BY position";

/// Bit for bit, because NaN is not equal to itself.
fn check(batches: &[RecordBatch], fixture: &Fixture) {
    let expected = fixture.query(SQL).unwrap();
    let whole = |batches: &[RecordBatch]| {
        arrow_select::concat::concat_batches(&batches[0].schema(), batches).unwrap()
    };
    let (found, expected) = (whole(batches), whole(&expected));
    assert_eq!(found.num_rows(), 9);
    for (column, field) in expected.schema().fields().iter().enumerate() {
        let (found, expected) = (found.column(column), expected.column(column));
        if let Some(expected) = expected.as_primitive_opt::<Float64Type>() {
            let bits = |array: &Float64Array| {
                array
                    .iter()
                    .map(|value| value.map(f64::to_bits))
                    .collect::<Vec<_>>()
            };
            assert_eq!(bits(found.as_primitive()), bits(expected));
        } else {
            assert_eq!(found, expected, "{field}");
        }
    }
}

#[test]
fn arrow_and_parquet_give_back_every_value() {
    let fixture = fixture();
    let bytes = fixture.bytes(SQL, Format::Arrow);
    let batches: Vec<RecordBatch> = StreamReader::try_new(bytes.as_slice(), None)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    check(&batches, &fixture);
    let bytes = bytes::Bytes::from(fixture.bytes(SQL, Format::Parquet));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .unwrap()
        .build()
        .unwrap();
    check(&reader.collect::<Result<Vec<_>, _>>().unwrap(), &fixture);
}

#[test]
fn json_gives_back_every_value_it_can_express() {
    let fixture = fixture();
    let array: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(&fixture.bytes(SQL, Format::Json)).unwrap();
    let lines: Vec<serde_json::Map<String, serde_json::Value>> =
        String::from_utf8(fixture.bytes(SQL, Format::JsonLines))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
    assert_eq!(array, lines);
    assert_eq!(array.len(), 9);
    for (row, note) in array.iter().zip(NOTES) {
        assert_eq!(row["note"], note);
        assert_eq!(row.len(), 9);
    }
    assert!(array[0]["speed"].is_null() && array[1]["speed"].is_null());
    assert_eq!(array[4]["speed"], 0.1 + 0.2);
    assert_eq!(array[0]["gear"], i64::MAX);
    assert_eq!(array[0]["ts"], "1970-01-01T00:00:00Z");
    for (row, seen) in [
        (0, "0001-01-01T00:00:00Z"),
        (2, "1969-12-31T23:59:59.999999Z"),
        (3, "9999-12-31T23:59:59.999999Z"),
    ] {
        assert_eq!(array[row]["seen"], seen);
    }
    assert!(array[1]["seen"].is_null());
    assert!(array[8]["note"].is_null() && array[8]["on_road"].is_null());
}

#[test]
fn csv_gives_back_every_value_and_tells_null_from_empty() {
    let fixture = fixture();
    let text = String::from_utf8(fixture.bytes(
        "SELECT position, speed, gear, note, on_road FROM readings ORDER BY position",
        Format::Csv,
    ))
    .unwrap();
    let records = parse_csv(&text);
    assert_eq!(
        records[0],
        ["position", "speed", "gear", "note", "on_road"].map(|name| Some(name.into()))
    );
    assert_eq!(records.len(), 10);
    for (record, note) in records[1..].iter().zip(NOTES) {
        assert_eq!(record[3].as_deref(), Some(note));
    }
    let speeds: Vec<Option<f64>> = records[1..]
        .iter()
        .map(|record| record[1].as_ref().map(|text| text.parse().unwrap()))
        .collect();
    let expected = fixture
        .query("SELECT speed FROM readings ORDER BY position")
        .unwrap();
    let expected: Vec<Option<f64>> = expected
        .iter()
        .flat_map(|batch| {
            batch
                .column(0)
                .as_primitive::<Float64Type>()
                .iter()
                .collect::<Vec<_>>()
        })
        .collect();
    let bits = |values: &[Option<f64>]| {
        values
            .iter()
            .map(|value| value.map(|value| if value.is_nan() { 0 } else { value.to_bits() }))
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(&speeds), bits(&expected));
    assert_eq!(records[9], [Some("9".to_owned()), None, None, None, None]);
    assert_eq!(records[1][2].as_deref(), Some("9223372036854775807"));
}

/// RFC 4180; an empty field without quotes is `None`.
fn parse_csv(text: &str) -> Vec<Vec<Option<String>>> {
    let mut records = vec![Vec::new()];
    let mut field: Option<String> = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let quoted = field.get_or_insert_default();
                while let Some(inner) = characters.next() {
                    if inner != '"' {
                        quoted.push(inner);
                    } else if characters.next_if_eq(&'"').is_some() {
                        quoted.push('"');
                    } else {
                        break;
                    }
                }
            }
            ',' => records.last_mut().unwrap().push(field.take()),
            '\n' => {
                records.last_mut().unwrap().push(field.take());
                records.push(Vec::new());
            }
            other => field.get_or_insert_default().push(other),
        }
    }
    assert_eq!(records.pop(), Some(Vec::new()), "the last line ends");
    records
}

#[test]
fn tables_are_aligned_and_escape_what_would_drive_a_terminal() {
    let fixture = fixture();
    let text = String::from_utf8(fixture.bytes(
        "SELECT device, gear, note FROM readings WHERE position IN (2, 6, 9) ORDER BY position",
        Format::Table,
    ))
    .unwrap();
    assert!(!text.contains('\u{1b}'), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0].find("gear").map(|at| at + 4),
        lines[2].find("-9223372036854775808").map(|at| at + 20),
        "{text}"
    );
    assert!(lines[3].contains("\\u{1b}[31mred"), "{text}");
    assert!(lines[4].ends_with("NULL"), "{text}");
    assert_eq!(lines[5], "(3 rows)");
}

#[test]
fn an_empty_result_is_whole_in_every_format() {
    let fixture = fixture();
    let none = "SELECT device, speed FROM readings WHERE position < 0";
    assert_eq!(fixture.bytes(none, Format::Csv), b"device,speed\n");
    assert_eq!(fixture.bytes(none, Format::Json), b"[]");
    assert_eq!(fixture.bytes(none, Format::JsonLines), b"");
    assert!(
        String::from_utf8(fixture.bytes(none, Format::Table))
            .unwrap()
            .ends_with("(0 rows)\n")
    );
    let arrow = fixture.bytes(none, Format::Arrow);
    assert_eq!(
        StreamReader::try_new(arrow.as_slice(), None)
            .unwrap()
            .count(),
        0
    );
    let parquet = bytes::Bytes::from(fixture.bytes(none, Format::Parquet));
    assert_eq!(
        ParquetRecordBatchReaderBuilder::try_new(parquet)
            .unwrap()
            .build()
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn chunks_are_the_same_bytes_and_an_error_ends_them_unfinished() {
    let fixture = fixture();
    for format in Format::ALL {
        let chunks = fixture.block_on(async {
            let result = fixture.engine.query(SQL).await.unwrap();
            encode(result, format).collect::<Vec<_>>().await
        });
        let bytes: Vec<u8> = chunks
            .into_iter()
            .flat_map(|chunk| chunk.unwrap().to_vec())
            .collect();
        assert_eq!(bytes, fixture.bytes(SQL, format), "{format}");
        assert_eq!(format.as_str().parse(), Ok(format));
    }
    let chunks = fixture.block_on(async {
        let result = fixture
            .engine
            .query("SELECT 1 / (position - 9) FROM readings")
            .await
            .unwrap();
        encode(result, Format::Json).collect::<Vec<_>>().await
    });
    assert!(chunks.last().unwrap().is_err());
    let text: Vec<u8> = chunks
        .into_iter()
        .flatten()
        .flat_map(|chunk| chunk.to_vec())
        .collect();
    assert!(!text.ends_with(b"]"));
    assert!("yaml".parse::<Format>().is_err());
}

#[test]
fn computed_types_can_be_written() {
    let fixture = fixture();
    let sql = "SELECT avg(gear), approx_distinct(device), date_trunc('hour', ts) AS hour, cast(1.5 AS DECIMAL(10, 2)) AS d, true AS t, NULL AS n \
               FROM readings GROUP BY hour";
    for format in Format::ALL {
        assert!(!fixture.bytes(sql, format).is_empty(), "{format}");
    }
    let counts = fixture.query("SELECT count(*) FROM readings").unwrap();
    assert_eq!(counts[0].column(0).as_primitive::<Int64Type>().value(0), 9);
}
