//! Which columns are what: no two are one, and any can be named.

use super::{values::parquet_file, *};

fn map(text: &str) -> ColumnMap {
    text.parse().unwrap()
}

#[test]
fn two_columns_that_would_be_one_are_refused_and_named() {
    let twice = "ts,device,device,v\n2024-01-01 00:00:00,a,b,2\n";
    let own_device = |options: &mut FileOptions| options.device = None;
    check_error(
        twice,
        own_device,
        &["columns 2 and 3", "\"device\"", "--drop"],
    );
    let mapped = |options: &mut FileOptions| {
        options.device = None;
        options.map = vec![map("x=device")];
    };
    let other = "ts,x,device,v\n2024-01-01 00:00:00,a,b,2\n";
    check_error(
        other,
        mapped,
        &["\"x\"", "\"device\"", "would both be", "--map"],
    );
    for header in ["ts,Speed,speed", "ts,a b,A-B", "ts,v,v"] {
        let content = format!("{header}\n2024-01-01,1,2\n");
        let (_, names) = header.split_once(',').unwrap();
        let names: Vec<_> = names.split(',').collect();
        check_error(&content, |_| {}, &names);
    }
    let into_one = |options: &mut FileOptions| options.map = vec![map("a=x"), map("b=X:int64")];
    let content = "ts,a,b\n2024-01-01,1,2\n";
    check_error(
        content,
        into_one,
        &["\"a\"", "\"b\"", "\"X\"", "would both be"],
    );
    let into_time = |options: &mut FileOptions| options.map = vec![map("a=ts"), map("b=ts")];
    let content = "a,b\n2024-01-01,2024-01-01\n";
    check_error(
        content,
        into_time,
        &["\"a\"", "\"b\"", "\"ts\"", "would both be"],
    );
}

#[test]
fn two_columns_of_a_typed_file_that_would_be_one_are_refused_and_named() {
    let files = Files::new();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let columns = vec![
        (
            "ts",
            Arc::new(TimestampNanosecondArray::from(vec![1])) as ArrayRef,
        ),
        ("x", text("a")),
        ("device", text("b")),
    ];
    let path = parquet_file(&files, columns);
    let options = FileOptions {
        device: None,
        map: vec![map("x=device")],
        ..options(&path)
    };
    let error = read(options).unwrap_err().to_string();
    for part in ["made.parquet", "\"x\"", "\"device\"", "would both be"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn contradicting_choices_are_refused() {
    let content = "ts,a,b\n2024-01-01,1,2\n";
    let twice = |options: &mut FileOptions| options.map = vec![map("a=x"), map("a=:int64")];
    check_error(content, twice, &["\"a\"", "mapped twice"]);
    let used = |options: &mut FileOptions| {
        options.map = vec![map("a=x")];
        options.drop = vec!["a".into()];
    };
    check_error(content, used, &["\"a\"", "--drop", "--map"]);
    let time = |options: &mut FileOptions| {
        options.time_column = Some("ts".into());
        options.drop = vec!["ts".into()];
    };
    check_error(content, time, &["\"ts\"", "--drop", "--timestamp"]);
}

#[test]
fn columns_with_commas_are_mapped_dropped_and_listed() {
    let files = Files::new();
    let content = "ts,\"temp, C\",\"a,b\",v\n2024-01-01 00:00:00,1.5,2,3\n";
    let path = files.write("a.csv", content);
    let options = FileOptions {
        map: vec![map("temp, C=temperature")],
        drop: vec!["a,b".into()],
        ..options(&path)
    };
    let batch = read(options).unwrap().remove(0);
    assert_eq!(names(&batch), ["ts", "device", "temperature", "v"]);
    let unknown = |options: &mut FileOptions| options.drop = vec!["temp".into()];
    check_error(
        content,
        unknown,
        &["\"temp\"", "ts, \"temp, C\", \"a,b\", v"],
    );
}

#[test]
fn no_more_fields_than_a_stream_has() {
    let header: String = (0..1_001).map(|field| format!(",f{field}")).collect();
    let content = format!("ts{header}\n2024-01-01{}\n", ",1".repeat(1_001));
    check_error(&content, |_| {}, &["1001 fields", "1,000", "--drop"]);
    let files = Files::new();
    let path = files.write("a.csv", content);
    let options = FileOptions {
        drop: vec!["f7".into()],
        ..options(&path)
    };
    assert_eq!(read(options).unwrap()[0].num_columns(), 1_002);
}
