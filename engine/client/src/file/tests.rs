use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow_array::{
    Array, ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray, TimestampNanosecondArray,
    cast::AsArray,
    types::{Float64Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::DataType;
use proptest::prelude::*;
use quiver_model::{DeviceId, StreamName};
use quiver_protocol::ConnectionCloseCode;

use super::*;
use crate::tests::fake_server::FakeServer;

/// Which columns are what, and which cannot be.
mod columns;
/// Times beside the event time.
mod time_fields;
/// Parquet and Arrow files that are damaged, and their times.
mod typed_files;
/// What becomes of single values, and where wrong ones are found.
mod values;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

fn options(path: &Path) -> FileOptions {
    FileOptions {
        device: Some(DeviceId::new("pump-1").unwrap()),
        ..FileOptions::new(path, StreamName::new("readings").unwrap())
    }
}

fn read(options: FileOptions) -> Result<Vec<RecordBatch>, FileError> {
    FilePlan::read(options)?.batches()?.collect()
}

fn times(batch: &RecordBatch) -> Vec<i64> {
    batch
        .column(0)
        .as_primitive::<TimestampMicrosecondType>()
        .values()
        .to_vec()
}

fn names(batch: &RecordBatch) -> Vec<String> {
    batch
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

#[test]
fn a_csv_of_timestamp_and_value_goes_in_as_it_is() {
    let files = Files::new();
    let path = files.write(
        "a.csv",
        "timestamp,value\n2014-04-01 00:00:00,18.09\r\n2014-04-01 00:00:05.5,\n",
    );
    let batches = read(options(&path)).unwrap();
    assert_eq!(names(&batches[0]), ["ts", "device", "value"]);
    assert_eq!(
        times(&batches[0]),
        [1_396_310_400_000_000, 1_396_310_405_500_000]
    );
    let values = batches[0].column(2).as_primitive::<Float64Type>();
    assert_eq!((values.value(0), values.is_null(1)), (18.09, true));
    assert_eq!(batches[0].column(1).as_string::<i32>().value(1), "pump-1");
}

#[test]
fn columns_are_typed_renamed_dropped_and_made_fields() {
    let files = Files::new();
    let path = files.write("a.csv", "Engine Temp (C),when,count,ok,note,device,secret,empty\n1,2026-01-01,7,true,a,t1,x,\n2.5,2026-01-02,8,FALSE,\"b, c\",t2,y,\n");
    let mut options = FileOptions {
        device: None,
        ..options(&path)
    };
    options.map = vec!["count=n:int64".parse().unwrap()];
    options.drop = vec!["secret".into()];
    let batch = read(options).unwrap().remove(0);
    assert_eq!(
        names(&batch),
        ["ts", "device", "Engine_Temp_C", "n", "ok", "note"]
    );
    let types: Vec<_> = batch
        .schema()
        .fields()
        .iter()
        .skip(2)
        .map(|field| field.data_type().clone())
        .collect();
    assert_eq!(
        types,
        [
            DataType::Float64,
            DataType::Int64,
            DataType::Boolean,
            DataType::Utf8
        ]
    );
    assert_eq!(batch.column(1).as_string::<i32>().value(1), "t2");
    assert_eq!(
        batch.column(3).as_primitive::<Int64Type>().values()[..],
        [7, 8]
    );
    assert_eq!(batch.column(5).as_string::<i32>().value(1), "b, c");
}

#[track_caller]
fn check_error(content: &str, change: impl FnOnce(&mut FileOptions), expected: &[&str]) {
    let files = Files::new();
    let path = files.write("bad.csv", content);
    let mut options = options(&path);
    change(&mut options);
    let error = read(options).unwrap_err().to_string();
    for part in expected.iter().chain(&["bad.csv"]) {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn what_is_wrong_is_named_with_file_line_column_and_remedy() {
    let numbers: String = (0..1_200).map(|second| format!("{second},1\n")).collect();
    check_error(
        &format!("ts,value\n{numbers}1300,n/a\n"),
        |_| {},
        &["line 1202", "\"value\"", "\"n/a\"", "float64", "=:utf8"],
    );
    check_error(
        "ts,value\n2026-01-01,1\nsoon,2\n",
        |_| {},
        &["line 3", "\"ts\"", "\"soon\"", "--timestamp-format"],
    );
    check_error(
        "ts,value\n2026-01-01,1\n\n\"2026-01-02\",2,3\n",
        |_| {},
        &["line 4", "3 values", "2 names"],
    );
    check_error(
        "\u{feff}ts,value\r\n2026-01-01,1\r\n\r\n2026-01-01,\"a\r\nb\"\r\n2026,2\r\n",
        |_| {},
        &["line 6", "\"2026\""],
    );
    check_error(
        "ts,value\n2026-01-01,1\n,2\n",
        |_| {},
        &["line 3", "\"ts\""],
    );
    check_error("a,b\n1,2\n", |_| {}, &["a, b", "--timestamp"]);
    check_error("ts,value\n", |_| {}, &["no rows"]);
    check_error(
        "ts,value\n2026-01-01,1\n",
        |options| options.device = None,
        &["--device", "--map"],
    );
    check_error("ts,device\n2026-01-01,d\n", |_| {}, &["--drop device"]);
    check_error(
        "ts,a b,a-b\n2026-01-01,1,2\n",
        |_| {},
        &["\"a-b\"", "\"a_b\"", "--map"],
    );
    check_error(
        "ts,position\n2026-01-01,1\n",
        |_| {},
        &["position", "engine"],
    );
    check_error(
        "ts,value\n2026-01-01,1\n",
        |options| options.drop = vec!["valu".into()],
        &["\"valu\"", "ts, value"],
    );
    check_error(
        "ts,d\n2026-01-01,a b\n",
        |options| {
            options.device = None;
            options.map = vec!["d=device".parse().unwrap()];
        },
        &["line 2", "device id"],
    );
}

#[test]
fn a_number_beyond_float64_is_an_error_and_the_words_for_infinity_are_not() {
    for number in ["1e999", "-1e999", "1.8e308", "1e-400", "-1e-999"] {
        check_error(
            &format!("ts,value\n2026-01-01,1\n2026-01-01,{number}\n"),
            |_| {},
            &["line 3", "\"value\"", number, "float64 can hold", "=:utf8"],
        );
    }
    let files = Files::new();
    let words = "inf,-inf,Infinity,NaN,nan,1.7e308,4.9e-324";
    let path = files.write(
        "words.csv",
        format!(
            "ts,value\n{}",
            words
                .split(',')
                .map(|word| format!("2026-01-01,{word}\n"))
                .collect::<String>()
        ),
    );
    let batch = read(options(&path)).unwrap().remove(0);
    let values = batch.column(2).as_primitive::<Float64Type>();
    assert_eq!(values.value(0), f64::INFINITY);
    assert_eq!(values.value(1), f64::NEG_INFINITY);
    assert_eq!(values.value(2), f64::INFINITY);
    assert!(values.value(3).is_nan() && values.value(4).is_nan());
    assert_eq!(values.value(5), 1.7e308);
    assert_eq!(values.value(6), 4.9e-324);

    let path = files.write(
        "numbers.jsonl",
        "{\"ts\": \"2026-01-01\", \"value\": 1}\n{\"ts\": \"2026-01-01\", \"value\": 1e999}\n",
    );
    let error = read(options(&path)).unwrap_err().to_string();
    assert!(
        error.contains("numbers.jsonl, line 2") && error.contains("float64 can hold"),
        "{error}"
    );
}

#[test]
fn json_lines_may_leave_fields_out_and_nesting_is_refused() {
    let files = Files::new();
    let path = files.write("a.jsonl", "{\"time\":1767225600.5,\"t\":1,\"s\":\"x\"}\n\n{\"time\":1767225601,\"b\":true,\"t\":null}\n");
    let batch = read(options(&path)).unwrap().remove(0);
    assert_eq!(
        times(&batch),
        [1_767_225_600_500_000, 1_767_225_601_000_000]
    );
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert_eq!(
        (
            column("t").null_count(),
            column("s").null_count(),
            column("b").null_count()
        ),
        (1, 1, 1)
    );
    assert_eq!(column("t").as_primitive::<Float64Type>().value(0), 1.0);
    let path = files.write("b.jsonl", "{\"time\":1,\"a\":{\"b\":1}}\n");
    let error = read(options(&path)).unwrap_err().to_string();
    assert!(
        error.contains("line 1") && error.contains("flatten"),
        "{error}"
    );
    let path = files.write("c.jsonl", "{\"time\":1,\"a\":1}\n[1]\n");
    assert!(
        read(options(&path))
            .unwrap_err()
            .to_string()
            .contains("line 2")
    );
}

fn typed_batch(rows: i64) -> RecordBatch {
    let times: Vec<i64> = (0..rows)
        .map(|row| 1_700_000_000_000_000_000 + row * 1_000_000_123)
        .collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("when", Arc::new(TimestampNanosecondArray::from(times))),
        (
            "device",
            Arc::new(StringArray::from_iter_values(
                (0..rows).map(|row| format!("d{}", row % 3)),
            )),
        ),
        (
            "n",
            Arc::new(Int32Array::from_iter_values(
                (0..rows).map(|row| row as i32),
            )),
        ),
        (
            "x",
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|row| row as f64 / 7.0),
            )),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn parquet_and_both_kinds_of_arrow_make_the_same_batches() {
    let files = Files::new();
    let source = typed_batch(80_000);
    let mut parquet =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), source.schema(), None).unwrap();
    let mut arrow_file =
        arrow_ipc::writer::FileWriter::try_new(Vec::new(), &source.schema()).unwrap();
    let mut arrow_stream =
        arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &source.schema()).unwrap();
    for start in (0..80_000).step_by(3_000) {
        let piece = source.slice(start, 3_000.min(80_000 - start));
        parquet.write(&piece).unwrap();
        parquet.flush().unwrap();
        arrow_file.write(&piece).unwrap();
        arrow_stream.write(&piece).unwrap();
    }
    arrow_file.finish().unwrap();
    arrow_stream.finish().unwrap();
    let all: Vec<_> = [
        files.write("a.parquet", parquet.into_inner().unwrap()),
        files.write("a.arrow", arrow_file.into_inner().unwrap()),
        files.write("b.arrows", arrow_stream.into_inner().unwrap()),
    ]
    .map(|path| {
        read(FileOptions {
            device: None,
            ..options(&path)
        })
        .unwrap()
    })
    .into();
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
    let sizes: Vec<_> = all[0].iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [32_768, 32_768, 14_464]);
    assert_eq!(names(&all[0][0]), ["ts", "device", "n", "x"]);
    assert_eq!(times(&all[0][0])[1], 1_700_000_001_000_000);
    assert_eq!(
        all[0][1].column(2).as_primitive::<Int64Type>().value(0),
        32_768
    );
}

#[test]
fn a_parquet_file_of_local_times_is_read_in_the_zone_given() {
    let files = Files::new();
    let source = typed_batch(1);
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), source.schema(), None).unwrap();
    writer.write(&source).unwrap();
    let path = files.write("a.parquet", writer.into_inner().unwrap());
    let options = FileOptions {
        device: None,
        time_zone: Some("+02:00".into()),
        ..options(&path)
    };
    assert_eq!(times(&read(options).unwrap()[0]), [1_699_992_800_000_000]);
}

#[test]
fn event_times_too_far_apart_for_one_batch_are_cut_into_several() {
    let files = Files::new();
    let days: String = (0..1_000)
        .map(|day| format!("{},1\n", 1_000_000_000 + day * 86_400))
        .collect();
    let path = files.write("a.csv", format!("ts,value\n{days}"));
    let batches = read(options(&path)).unwrap();
    let sizes: Vec<_> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [367, 367, 266]);
}

#[test]
fn the_producer_is_the_same_for_the_same_file_and_another_for_any_other_choice() {
    let files = Files::new();
    let path = files.write("a.csv", "ts,value,more\n2026-01-01,1,2\n");
    let copy = files.write("copy.csv", "ts,value,more\n2026-01-01,1,2\n");
    let other = files.write("other.csv", "ts,value,more\n2026-01-01,1,3\n");
    let producer = |options: FileOptions| FilePlan::read(options).unwrap().producer();
    let first = producer(options(&path));
    assert_eq!(first, producer(options(&path)));
    assert_eq!(first, producer(options(&copy)), "the path does not matter");
    let changed = [
        producer(options(&other)),
        producer(FileOptions {
            device: Some(DeviceId::new("pump-2").unwrap()),
            ..options(&path)
        }),
        producer(FileOptions {
            stream: StreamName::new("s").unwrap(),
            ..options(&path)
        }),
        producer(FileOptions {
            drop: vec!["more".into()],
            ..options(&path)
        }),
        producer(FileOptions {
            map: vec!["value=speed".parse().unwrap()],
            ..options(&path)
        }),
        producer(FileOptions {
            map: vec!["value=:utf8".parse().unwrap()],
            ..options(&path)
        }),
        producer(FileOptions {
            time_zone: Some("+01:00".into()),
            ..options(&path)
        }),
        producer(FileOptions {
            time_column: Some("ts".into()),
            ..options(&path)
        }),
        producer(FileOptions {
            time_format: TimeFormat::Text,
            ..options(&path)
        }),
    ];
    for (index, producer) in changed.iter().enumerate() {
        assert!(
            *producer != first && !changed[..index].contains(producer),
            "choice {index}"
        );
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_an_error() {
    let files = Files::new();
    let path = files.write("a.csv", "ts,value\n2026-01-01,1\n");
    let plan = FilePlan::read(options(&path)).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"2026-01-02,2\n")
        .unwrap();
    let last = plan.batches().unwrap().last().unwrap();
    assert!(matches!(last, Err(FileError::Changed { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the rows come, the same rows make the same batches, and none is lost or doubled.
    #[test]
    fn batches_do_not_depend_on_how_the_rows_come(
        gaps in prop::collection::vec(0_i64..40_000_000_000_000, 1..400),
        cuts in prop::collection::vec(1_usize..60, 1..60),
    ) {
        let mut time = 0;
        let times: Vec<i64> = gaps.iter().map(|gap| { time += gap; time }).collect();
        let source = RecordBatch::try_from_iter(vec![
            ("ts", Arc::new(arrow_array::TimestampMicrosecondArray::from(times.clone())) as ArrayRef),
            ("note", Arc::new(StringArray::from_iter_values(times.iter().map(|time| "x".repeat((time % 30_000) as usize)))) as ArrayRef),
        ]).unwrap();
        let batches = |pieces: Vec<RecordBatch>| {
            let mut batcher = batching::Batcher::new(source.schema());
            let mut full = Vec::new();
            for piece in pieces {
                batcher.push(&piece, &mut full).unwrap();
            }
            full.extend(batcher.finish().unwrap());
            full
        };
        let whole = batches(vec![source.clone()]);
        let mut pieces = Vec::new();
        let mut start = 0;
        for length in cuts.into_iter().cycle() {
            let length = length.min(source.num_rows() - start);
            pieces.push(source.slice(start, length));
            start += length;
            if start == source.num_rows() { break; }
        }
        prop_assert_eq!(&whole, &batches(pieces));
        prop_assert_eq!(arrow_select::concat::concat_batches(&source.schema(), &whole).unwrap(), source);
        for batch in &whole {
            let column = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            let (first, last) = (column.value(0), column.value(batch.num_rows() - 1));
            prop_assert!(last - first <= 366 * 86_400_000_000);
        }
    }
}

fn many_rows(files: &Files, rows: u32) -> PathBuf {
    let lines: String = (0..rows)
        .map(|row| format!("{},{row}.0\n", 1_700_000_000 + row))
        .collect();
    files.write("many.csv", format!("timestamp,value\n{lines}"))
}

#[tokio::test]
async fn a_file_is_stored_once_however_often_it_is_sent() {
    let files = Files::new();
    let path = many_rows(&files, 80_000);
    let server = FakeServer::start();
    let mut last = Progress::default();
    let report = send_file(
        options(&path),
        server.options(),
        SendOptions::default(),
        |progress| {
            assert!(
                progress.rows_settled >= last.rows_settled
                    && progress.rows_settled <= progress.rows_total
            );
            last = *progress;
        },
    )
    .await
    .unwrap();
    assert_eq!(
        (
            report.rows,
            report.rows_stored,
            report.rows_duplicate,
            report.batches
        ),
        (80_000, 80_000, 0, 3)
    );
    assert_eq!((last.rows_settled, last.rows_read), (80_000, 80_000));
    assert_eq!(server.values("readings"), [0.0, 32_768.0, 65_536.0]);
    let again = send_file(
        options(&path),
        server.options(),
        SendOptions::default(),
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!((again.rows_stored, again.rows_duplicate), (0, 80_000));
    let other_device = FileOptions {
        device: Some(DeviceId::new("pump-2").unwrap()),
        ..options(&path)
    };
    let other = send_file(
        other_device,
        server.options(),
        SendOptions {
            is_live: true,
            ..SendOptions::default()
        },
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!((other.rows_stored, other.rows_duplicate), (80_000, 0));
    server.with(|world| {
        assert_eq!(
            world.script.received, 6,
            "what the server has is not sent again"
        );
        assert!(world.pairs[&(report.producer, StreamName::new("readings").unwrap())].replayed);
        assert!(!world.pairs[&(other.producer, StreamName::new("readings").unwrap())].replayed);
    });
}

#[tokio::test]
async fn an_interrupted_run_is_gone_on_with_and_rejects_of_both_are_reported() {
    let files = Files::new();
    let path = many_rows(&files, 160_000);
    let server = FakeServer::start();
    server.with(|world| {
        world.script.reject.extend([0, 98_304]);
        world.script.close_connection_after = Some((2, ConnectionCloseCode::Revoked));
    });
    // The next attempt to connect is far away, so the refusal stands when somebody looks.
    let mut client = server.options();
    client.backoff.first = Duration::from_secs(60);
    client.backoff.max = Duration::from_secs(60);
    let cut = send_file(options(&path), client, SendOptions::default(), |_| {}).await;
    assert!(matches!(cut, Err(SendFileError::Refused(_))), "{cut:?}");
    let report = send_file(
        options(&path),
        server.options(),
        SendOptions::default(),
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!(report.batches, 5);
    let sequences: Vec<_> = report
        .rejected
        .iter()
        .map(|rejected| rejected.sequence.get())
        .collect();
    assert_eq!(sequences, [0, 3]);
    assert_eq!(report.rows_rejected, 2 * 32_768);
    assert_eq!(
        report.rows_stored + report.rows_duplicate + report.rows_rejected,
        160_000
    );
    assert_eq!(server.values("readings"), [32_768.0, 65_536.0, 131_072.0]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_reported_with_what_to_do() {
    let files = Files::new();
    let path = many_rows(&files, 10);
    let server = FakeServer::start();
    server.stop();
    let brief = SendOptions {
        connect_patience: Duration::from_millis(300),
        ..SendOptions::default()
    };
    let error = send_file(options(&path), server.options(), brief, |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(error, SendFileError::Unavailable { .. }) && error.to_string().contains("again"),
        "{error}"
    );
}
