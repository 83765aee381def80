//! Times beside the event time: of typed files as they are, of text where a mapping says so.

use arrow_array::{Date32Array, Int64Array, TimestampMicrosecondArray, TimestampSecondArray};

use super::{values::parquet_file, *};

fn mapped(path: &Path, maps: &[&str]) -> FileOptions {
    FileOptions {
        map: maps.iter().map(|map| map.parse().unwrap()).collect(),
        ..options(path)
    }
}

/// The values of a timestamp field.
fn field(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    let column = batch.column_by_name(name).unwrap();
    let utc = DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(*column.data_type(), utc);
    column
        .as_primitive::<TimestampMicrosecondType>()
        .iter()
        .collect()
}

#[test]
fn timestamps_of_typed_files_are_timestamp_fields_in_utc() {
    let files = Files::new();
    let ts = TimestampMicrosecondArray::from(vec![5, 6, 7]).with_timezone("UTC");
    let nanos = TimestampNanosecondArray::from(vec![Some(-1), None, Some(1_999)]);
    let zoned = TimestampMicrosecondArray::from(vec![Some(-1), Some(0), None]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ts", Arc::new(ts)),
        ("nanos", Arc::new(nanos)),
        ("zoned", Arc::new(zoned.with_timezone("+05:00"))),
        ("day", Arc::new(Date32Array::from(vec![0, 1, 2]))),
    ];
    let path = parquet_file(&files, columns);
    let plan = FilePlan::read(options(&path)).unwrap();
    let batch = plan.batches().unwrap().next().unwrap().unwrap();
    assert_eq!(field(&batch, "nanos"), [Some(-1), None, Some(1)]);
    assert_eq!(field(&batch, "zoned"), [Some(-1), Some(0), None]);
    // A date is no point in time, and stays the text it was before; unless it is said to be one.
    assert_eq!(batch.column(4).as_string::<i32>().value(1), "1970-01-02");
    let day = FilePlan::read(mapped(&path, &["day=:timestamp"])).unwrap();
    assert_ne!(day.producer(), plan.producer());
    let batch = day.batches().unwrap().next().unwrap().unwrap();
    let midnight = 86_400_000_000;
    assert_eq!(
        field(&batch, "day"),
        [0, 1, 2].map(|day| Some(day * midnight))
    );

    // Without a zone they are of the one given, as event times are.
    let local = FileOptions {
        time_zone: Some("+02:00".to_owned()),
        ..options(&path)
    };
    let batch = read(local).unwrap().remove(0);
    let earlier = -7_200_000_000_i64;
    let expected = [Some(earlier - 1), None, Some(earlier + 1)];
    assert_eq!(field(&batch, "nanos"), expected);
    assert_eq!(field(&batch, "zoned"), [Some(-1), Some(0), None]);

    // As text they are other batches, of another producer.
    let text = FilePlan::read(mapped(&path, &["nanos=:utf8"])).unwrap();
    assert_ne!(text.producer(), plan.producer());
    let same = FilePlan::read(mapped(&path, &["nanos=:timestamp"])).unwrap();
    assert_eq!(same.producer(), plan.producer());
}

#[test]
fn numbers_and_texts_of_typed_files_are_times_where_it_is_said() {
    let files = Files::new();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ts", Arc::new(TimestampSecondArray::from(vec![1, 2, 3]))),
        (
            "ms",
            Arc::new(Int64Array::from(vec![None, Some(1_700_000_000_001), None])),
        ),
        (
            "s",
            Arc::new(Float64Array::from(vec![Some(-1.5), None, Some(2.0)])),
        ),
        (
            "text",
            Arc::new(StringArray::from(vec![
                None,
                Some("1969-12-31T23:59:59Z"),
                None,
            ])),
        ),
        ("none", Arc::new(StringArray::new_null(3))),
    ];
    let path = parquet_file(&files, columns);
    let maps = ["ms", "s", "text", "none"].map(|name| format!("{name}=:timestamp"));
    let maps: Vec<&str> = maps.iter().map(String::as_str).collect();
    let batch = read(mapped(&path, &maps)).unwrap().remove(0);
    assert_eq!(
        field(&batch, "ms"),
        [None, Some(1_700_000_000_001_000), None]
    );
    assert_eq!(
        field(&batch, "s"),
        [Some(-1_500_000), None, Some(2_000_000)]
    );
    assert_eq!(field(&batch, "text"), [None, Some(-1_000_000), None]);
    assert_eq!(field(&batch, "none"), [None; 3]);

    let wrong: ArrayRef = Arc::new(StringArray::from(vec!["2000-01-01", "soon"]));
    let ts: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1, 2]));
    let path = parquet_file(&files, vec![("ts", ts), ("seen", wrong)]);
    let error = read(mapped(&path, &["seen=:timestamp"])).unwrap_err();
    let error = error.to_string();
    for part in ["row 2", "\"seen\"", "soon", "=:utf8"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn columns_of_text_are_times_where_it_is_said_each_as_its_first_value_is_written() {
    let files = Files::new();
    let content = "ts,opened,closed,note\n\
        2000-01-01,1999-12-31 23:59:59.5,,2000-01-01\n\
        2000-01-02,,946684800000,x\n\
        2000-01-03, 1969-12-31T23:59:59Z ,-1,x\n";
    let path = files.write("a.csv", content);
    let times = ["opened=:timestamp", "closed=:timestamp"];
    let batch = read(mapped(&path, &times)).unwrap().remove(0);
    let opened = [Some(946_684_799_500_000), None, Some(-1_000_000)];
    assert_eq!(field(&batch, "opened"), opened);
    let closed = [None, Some(946_684_800_000_000), Some(-1_000)];
    assert_eq!(field(&batch, "closed"), closed);
    // Nobody said so: text, as ever.
    let plain = read(options(&path)).unwrap().remove(0);
    assert_eq!(*plain.column(2).data_type(), DataType::Utf8);
    assert_eq!(*batch.column(4).data_type(), DataType::Utf8);

    let content = "{\"time\":1,\"opened\":\"1970-01-01T00:00:01Z\",\"n\":2}\n\
        {\"time\":2,\"n\":null}\n{\"time\":3,\"opened\":null,\"n\":2.5}\n";
    let path = files.write("a.jsonl", content);
    let times = ["opened=:timestamp", "n=:timestamp"];
    let batch = read(mapped(&path, &times)).unwrap().remove(0);
    assert_eq!(field(&batch, "opened"), [Some(1_000_000), None, None]);
    assert_eq!(field(&batch, "n"), [Some(2_000_000), None, Some(2_500_000)]);

    let wrong = "ts,opened\n2000-01-01,2000-01-01\n2000-01-02,soon\n";
    let said = |options: &mut FileOptions| options.map = vec!["opened=:timestamp".parse().unwrap()];
    check_error(wrong, said, &["line 3", "\"opened\"", "soon", "=:utf8"]);
}
