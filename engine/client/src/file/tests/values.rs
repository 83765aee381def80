//! What becomes of single values: none is changed on its way, or the file is refused.

use super::*;

#[test]
fn one_quote_too_many_is_an_error_and_not_the_rest_of_the_file() {
    let good = "2024-01-01 00:00:00,1,x\n".repeat(50);
    check_error(
        &format!("timestamp,value,text\n2024-01-01 00:00:00,1,\"oops\n{good}"),
        |_| {},
        &["line 2", "not closed"],
    );
}

#[test]
fn a_wrong_value_anywhere_is_found_before_there_is_anything_to_send() {
    let files = Files::new();
    let rows = |wrong: &str| -> String {
        (0..30_000)
            .map(|row| {
                if row == 25_000 {
                    format!("{row},{wrong}\n")
                } else {
                    format!("{row},1\n")
                }
            })
            .collect()
    };
    let path = files.write("a.csv", format!("ts,value\n{}", rows("oops")));
    let error = FilePlan::read(options(&path)).unwrap_err().to_string();
    assert!(
        error.contains("line 25002") && error.contains("oops"),
        "{error}"
    );
    // Numbers are float64, whole or not: the next file of the stream may be another.
    for value in ["1", "0.5"] {
        let path = files.write("b.csv", format!("ts,value\n{}", rows(value)));
        for batch in read(options(&path)).unwrap() {
            assert_eq!(*batch.column(2).data_type(), DataType::Float64);
        }
    }
    let lines: String = (0..12_000)
        .map(|row| {
            let value = if row == 11_000 { "\"oops\"" } else { "1" };
            format!("{{\"ts\":{row},\"value\":{value}}}\n")
        })
        .collect();
    let path = files.write("a.jsonl", lines);
    let error = FilePlan::read(options(&path)).unwrap_err().to_string();
    assert!(
        error.contains("line 11001") && error.contains("oops"),
        "{error}"
    );
}

#[test]
fn numbers_keep_every_digit_or_are_refused() {
    let files = Files::new();
    let path = files.write(
        "a.csv",
        "ts,n,id,x\n2026-01-01,9007199254740993,007,0.1\n2026-01-01,-1,12,2\n",
    );
    let ints = FileOptions {
        map: vec!["n=:int64".parse().unwrap()],
        ..options(&path)
    };
    let batch = read(ints).unwrap().remove(0);
    let ints = batch.column(2).as_primitive::<Int64Type>();
    assert_eq!(ints.values()[..], [9_007_199_254_740_993, -1]);
    let texts = batch.column(3).as_string::<i32>();
    assert_eq!((texts.value(0), texts.value(1)), ("007", "12"));
    assert_eq!(batch.column(4).as_primitive::<Float64Type>().value(0), 0.1);
    let mapped = FileOptions {
        map: vec!["id=:int64".parse().unwrap(), "n=:utf8".parse().unwrap()],
        ..options(&path)
    };
    let batch = read(mapped).unwrap().remove(0);
    assert_eq!(batch.column(3).as_primitive::<Int64Type>().value(0), 7);

    let remedies = ["\"n\"", "line 3", "=:utf8", "=:int64", "float64 can hold"];
    for number in [
        "9007199254740993",
        "9007199254740993.0",
        "-9007199254740993.00",
    ] {
        check_error(
            &format!("ts,n\n2026-01-01,0.5\n2026-01-01,{number}\n"),
            |_| {},
            &remedies,
        );
    }
    let words = ["\"n\"", "line 2", "=:utf8", "float64 can hold"];
    check_error("ts,n\n2026-01-01,1e-400\n", |_| {}, &words);
    check_error(
        "ts,n\n2026-01-01,18446744073709551615\n",
        |_| {},
        &["line 2", "=:utf8"],
    );
    let numbers: String = (0..1_200).map(|row| format!("{row},1\n")).collect();
    check_error(
        &format!("ts,n\n{numbers}1200,007\n"),
        |_| {},
        &["line 1202", "leading zeros", "=:utf8", "=:float64"],
    );

    let path = files.write("a.jsonl", "{\"ts\":1,\"n\":9007199254740993}\n");
    let ints = FileOptions {
        map: vec!["n=:int64".parse().unwrap()],
        ..options(&path)
    };
    let batch = read(ints).unwrap().remove(0);
    let ints = batch.column(2).as_primitive::<Int64Type>();
    assert_eq!(ints.value(0), 9_007_199_254_740_993);
    for number in [
        "9007199254740993",
        "9007199254740993.0",
        "1e-400",
        "0.5}\n{\"ts\":1,\"n\":9007199254740993",
        "123456789012345678901",
    ] {
        let path = files.write("b.jsonl", format!("{{\"ts\":1,\"n\":{number}}}\n"));
        let error = read(options(&path)).unwrap_err().to_string();
        assert!(error.contains("b.jsonl, line "), "{error}");
    }
    let path = files.write(
        "c.jsonl",
        "{\"ts\":1,\"n\":1e30,\"s\":\"123456789012345678901\"}\n",
    );
    assert!(read(options(&path)).is_ok());
}

#[test]
fn quoted_text_is_kept_as_it_is() {
    let files = Files::new();
    let path = files.write(
        "a.csv",
        "ts,text,n\n2026-01-01,\"  a  \",\"1\"\n2026-01-01,\"\",\"\"\n2026-01-01,  b ,2\n2026-01-01,,\n",
    );
    let batch = read(options(&path)).unwrap().remove(0);
    let texts: Vec<_> = batch.column(2).as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("  a  "), Some(""), Some("b"), None]);
    let numbers: Vec<_> = batch
        .column(3)
        .as_primitive::<Float64Type>()
        .iter()
        .collect();
    assert_eq!(numbers, [Some(1.0), None, Some(2.0), None]);
    // Blanks before a quote do not make it one of the value's characters.
    let path = files.write("b.csv", "ts, v, s\n2024-01-01 00:00:00, \"1.5\", \"abc\"\n");
    let batch = read(options(&path)).unwrap().remove(0);
    assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(0), 1.5);
    assert_eq!(batch.column(3).as_string::<i32>().value(0), "abc");
}

#[test]
fn a_field_that_an_object_has_twice_is_refused() {
    let files = Files::new();
    let first = "{\"ts\":\"2024-01-01T00:00:00Z\",\"v\":1.5,\"v\":2.5}\n";
    let later = "{\"ts\":1,\"v\":1}\n{\"ts\":2,\"v\":null,\"\\u0076\":2}\n";
    for (content, line) in [(first, "line 1"), (later, "line 2")] {
        let path = files.write("a.jsonl", content);
        let error = read(options(&path)).unwrap_err().to_string();
        for part in ["a.jsonl", line, "\"v\"", "two fields"] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }
}

#[test]
fn field_names_of_json_lines_are_bounded_and_looked_up_in_linear_time() {
    let files = Files::new();
    let endless: String = (0..20_000)
        .map(|row| format!("{{\"ts\":{row},\"field_{row}\":1}}\n"))
        .collect();
    let path = files.write("endless.jsonl", endless);
    let error = read(options(&path)).unwrap_err().to_string();
    for part in [
        "endless.jsonl, line 1002",
        "field_1001",
        "1000 fields",
        "--drop",
    ] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    let wide: String = (0..20_000)
        .map(|field| format!(",\"f{field}\":1"))
        .collect();
    let path = files.write("wide.jsonl", format!("{{\"ts\":1{wide}}}\n"));
    let error = read(options(&path)).unwrap_err().to_string();
    assert!(
        error.contains("line 1") && error.contains("fields"),
        "{error}"
    );
    let long = format!("{{\"ts\":1,\"{}\":1}}\n", "x".repeat(100_000));
    let error = read(options(&files.write("long.jsonl", long))).unwrap_err();
    assert!(error.to_string().contains("shorten it"), "{error}");
    let full: String = (0..1_000).map(|field| format!(",\"f{field}\":1")).collect();
    let path = files.write("full.jsonl", format!("{{\"ts\":1{full}}}\n"));
    assert_eq!(read(options(&path)).unwrap()[0].num_columns(), 1_002);
}

#[test]
fn a_date_without_a_time_of_day_is_midnight() {
    let files = Files::new();
    let path = files.write("a.csv", "ts,v\n31.01.2024,1.5\n");
    let at = |time_zone: Option<&str>| {
        let options = FileOptions {
            time_format: "%d.%m.%Y".parse().unwrap(),
            time_zone: time_zone.map(str::to_owned),
            ..options(&path)
        };
        times(&read(options).unwrap()[0])[0]
    };
    assert_eq!(at(None), 1_706_659_200_000_000);
    assert_eq!(at(Some("Europe/Berlin")), 1_706_655_600_000_000);
}

#[test]
fn a_field_that_is_null_in_every_row_is_left_out() {
    let files = Files::new();
    let rows = "{\"ts\":1,\"gone\":null,\"n\":1}\n{\"ts\":2,\"gone\":null,\"n\":2}\n";
    let path = files.write("a.jsonl", rows);
    let batch = read(options(&path)).unwrap().remove(0);
    assert_eq!(names(&batch), ["ts", "device", "n"]);
    let dropped = FileOptions {
        drop: vec!["gone".into()],
        ..options(&path)
    };
    assert_eq!(read(dropped).unwrap()[0].num_rows(), 2);
}

#[test]
fn a_local_time_that_occurs_twice_can_be_decided_and_makes_another_producer() {
    let files = Files::new();
    let path = files.write("a.csv", "ts,n\n2014-11-02 01:00:00,1\n");
    let new_york = FileOptions {
        time_zone: Some("America/New_York".into()),
        ..options(&path)
    };
    let error = read(new_york.clone()).unwrap_err().to_string();
    assert!(
        error.contains("line 2") && error.contains("occurs twice in America/New_York"),
        "{error}"
    );
    let decided = |ambiguous_times| {
        let options = FileOptions {
            ambiguous_times,
            ..new_york.clone()
        };
        let plan = FilePlan::read(options).unwrap();
        let batch = plan.batches().unwrap().next().unwrap().unwrap();
        (times(&batch)[0], plan.producer())
    };
    let (earlier, later) = (
        decided(AmbiguousTimes::Earlier),
        decided(AmbiguousTimes::Later),
    );
    assert_eq!(later.0 - earlier.0, 3_600_000_000);
    assert_ne!(later.1, earlier.1);

    let naive = TimestampNanosecondArray::from(vec![1_414_890_000_000_000_000]);
    let path = parquet_file(&files, vec![("ts", Arc::new(naive))]);
    let options = FileOptions { path, ..new_york };
    let error = read(options).unwrap_err().to_string();
    assert!(
        error.contains("row 1") && error.contains("twice"),
        "{error}"
    );
}

pub(super) fn parquet_file(files: &Files, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    files.write("made.parquet", writer.into_inner().unwrap())
}

#[test]
fn a_typed_value_that_would_become_another_is_named_with_its_row() {
    let files = Files::new();
    let decimal = |digits| {
        arrow_array::Decimal128Array::from(vec![10, digits])
            .with_precision_and_scale(38, 2)
            .unwrap()
    };
    let large = arrow_array::UInt64Array::from(vec![1, u64::MAX]);
    let columns: [ArrayRef; 2] = [
        Arc::new(large),
        Arc::new(decimal(12_345_678_901_234_567_890)),
    ];
    for column in columns {
        let ts: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1, 2]));
        let path = parquet_file(&files, vec![("ts", ts), ("n", column)]);
        let error = read(options(&path)).unwrap_err().to_string();
        for part in ["row 2", "\"n\"", "=:utf8"] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
        let mapped = FileOptions {
            map: vec!["n=:utf8".parse().unwrap()],
            ..options(&path)
        };
        assert_eq!(read(mapped).unwrap()[0].num_rows(), 2);
    }
}

#[test]
fn a_row_that_no_batch_can_hold_is_named_and_large_rows_make_small_batches() {
    let files = Files::new();
    let row = |bytes: usize| format!("{{\"ts\":1,\"s\":\"{}\"}}\n", "x".repeat(bytes));
    let path = files.write("a.jsonl", row(10) + &row(4_000_000));
    let error = FilePlan::read(options(&path)).unwrap_err().to_string();
    assert!(
        error.contains("line 2") && error.contains("--drop"),
        "{error}"
    );
    let path = files.write("b.jsonl", row(2_000_000).repeat(3));
    assert_eq!(read(options(&path)).unwrap().len(), 3);
}
