use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type},
};
use arrow_schema::{DataType, TimeUnit};

use crate::*;

fn scope() -> Scope {
    Scope::new("stream `readings`")
        .with_attributes()
        .with(
            "ts",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        )
        .with(
            "device",
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        )
        .with("temperature", DataType::Float64)
        .with("rpm", DataType::Int64)
        .with("note", DataType::Utf8)
        .with("Door", DataType::Boolean)
}

fn columns() -> Vec<ArrayRef> {
    let times = TimestampMicrosecondArray::from(vec![0, 60_000_000, 120_000_000, 180_000_000]);
    let devices: DictionaryArray<Int32Type> = ["a", "b", "a", "c"].into_iter().collect();
    vec![
        Arc::new(times.with_timezone("UTC")),
        Arc::new(devices),
        Arc::new(Float64Array::from(vec![
            Some(20.5),
            Some(95.0),
            None,
            Some(-3.0),
        ])),
        Arc::new(Int64Array::from(vec![
            Some(1000),
            Some(0),
            Some(2000),
            Some(7),
        ])),
        Arc::new(StringArray::from(vec![
            Some("7"),
            Some("x"),
            Some("12"),
            None,
        ])),
        Arc::new(BooleanArray::from(vec![true, false, true, false])),
    ]
}

fn inputs(compiled: &Compiled) -> Vec<ArrayRef> {
    let columns = columns();
    let fleets: ArrayRef = Arc::new(StringArray::from(vec![
        Some("west"),
        None,
        Some("west"),
        Some("east"),
    ]));
    compiled
        .inputs()
        .iter()
        .map(|input| match input {
            Input::Column(index) => Arc::clone(&columns[*index]),
            Input::Attribute(key) if key == "fleet" => Arc::clone(&fleets),
            Input::Attribute(_) | Input::Last { .. } => {
                Arc::new(StringArray::new_null(4)) as ArrayRef
            }
        })
        .collect()
}

fn mask(text: &str) -> Vec<bool> {
    let compiled =
        Compiled::condition(text, &scope()).unwrap_or_else(|problems| panic!("{text}: {problems}"));
    let (mask, failed) = compiled.evaluate_condition(&inputs(&compiled), 4);
    assert!(failed.is_empty(), "{text}: {failed:?}");
    mask.values().iter().collect()
}

fn problems(text: &str) -> Vec<(String, String, Option<String>)> {
    let Problems(problems) = Compiled::condition(text, &scope()).expect_err(text);
    problems
        .into_iter()
        .map(|problem| (problem.message, text[problem.span].to_owned(), problem.help))
        .collect()
}

#[test]
fn conditions_are_sql() {
    for (text, expected) in [
        ("temperature > 20", [true, true, false, false]),
        ("temperature > 20 and rpm > 0", [true, false, false, false]),
        ("temperature is null", [false, false, true, false]),
        ("not (temperature > 20)", [false, false, false, true]),
        ("rpm in (7, 1000)", [true, false, false, true]),
        ("temperature between -5 and 30", [true, false, false, true]),
        ("device = 'a'", [true, false, true, false]),
        ("device like 'b%'", [false, true, false, false]),
        ("upper(device) = 'A'", [true, false, true, false]),
        ("device.fleet = 'west'", [true, false, true, false]),
        ("device.fleet is null", [false, true, false, false]),
        ("DEVICE.fleet in ('east')", [false, false, false, true]),
        ("door", [true, false, true, false]),
        ("\"Door\" = true", [true, false, true, false]),
        ("Temperature > 90", [false, true, false, false]),
        ("ts >= '1970-01-01T00:02:00Z'", [false, false, true, true]),
        (
            "ts > timestamp '1970-01-01 00:00:30' and ts < to_timestamp(150)",
            [false, true, true, false],
        ),
        ("date_trunc('hour', ts) = '1970-01-01T00:00:00Z'", [true; 4]),
        ("extract(minute from ts) = 2", [false, false, true, false]),
        (
            "coalesce(temperature, 100) > 90",
            [false, true, true, false],
        ),
        (
            "case when rpm = 0 then true else temperature < 0 end",
            [false, true, false, true],
        ),
        ("abs(temperature) * 2 > rpm", [false, true, false, false]),
        ("regexp_like(note, '^[0-9]+$')", [true, false, true, false]),
        ("null", [false; 4]),
        ("1 = 1", [true; 4]),
        ("position('x' in note) = 1", [false, true, false, false]),
        ("substring(note, 1, 1) = '1'", [false, false, true, false]),
    ] {
        assert_eq!(mask(text), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_was_meant() {
    for (text, message, place, help) in [
        (
            "temprature > 1",
            "unknown field `temprature` in stream `readings`",
            "temprature",
            "did you mean `temperature`?",
        ),
        (
            "temperature > 1 and rmp = 2",
            "unknown field `rmp` in stream `readings`",
            "rmp",
            "did you mean `rpm`?",
        ),
        (
            "uper(note) = 'X'",
            "unknown function `uper`",
            "uper",
            "did you mean `upper`?",
        ),
        (
            "ts > now()",
            "`now` depends on when it is called, and the same rows must always give the same",
            "now",
            "use the columns `ts` (when it was measured) and `arrival` (when it came)",
        ),
        (
            "avg(rpm) > 1",
            "`avg` is an aggregate of several rows",
            "avg",
            "it can be used in the `select` of a window, and not within another aggregate",
        ),
        (
            "rpm + 1",
            "a condition must be true or false, and this is an integer",
            "rpm + 1",
            "compare it with something: `… > 0`, `… = 'so'`",
        ),
        (
            "readings.rpm > 1",
            "unknown name `readings.rpm` in stream `readings`",
            "readings.rpm",
            "a column is named by itself, an attribute of a device as `device.key`, a last value as `last.stream.field`",
        ),
        (
            "rpm > (select 1)",
            "an expression cannot have a query in it",
            "select 1",
            "join other data with a lookup node",
        ),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(
            found[0],
            (message.to_owned(), place.to_owned(), Some(help.to_owned())),
            "{text}"
        );
    }
    let all = problems("temprature > 1 and rmp = 2 and uper(note) = 'X'");
    let places: Vec<&str> = all.iter().map(|(_, place, _)| place.as_str()).collect();
    assert_eq!(places, ["temprature", "rmp", "uper"]);
    for (text, place) in [
        ("temperature >", ""),
        ("temperature > 1)", ")"),
        ("(temperature > 1", ""),
        ("temperature > 'warm' + door", "'warm' + door"),
        ("rpm > 1 and abs(note, 2) > 1", "abs(note, 2)"),
        ("rank() over () > 1", "rank"),
        ("", ""),
        ("temperature > 1; drop table x", ";"),
        ("repeat(note, 1000000) = ''", "repeat"),
        ("random() > 0.5", "random"),
    ] {
        let found = problems(text);
        assert_eq!(found[0].1, place, "{text}: {found:?}");
    }
}

#[test]
fn hostile_texts_are_refused_and_nothing_else() {
    let deep = format!("{}1{} = 1", "(".repeat(5_000), ")".repeat(5_000));
    let many_nots = format!("{} true", "not ".repeat(5_000));
    let long = format!("rpm in ({}1)", "1, ".repeat(30_000));
    for text in [
        deep.as_str(),
        &many_nots,
        &long,
        "\0",
        "'",
        "\"",
        "/*",
        "$1 = 1",
        "? = 1",
        "@x = 1",
        "x[1] = 2",
        "{fn abs(1)} = 1",
    ] {
        let _ = Compiled::condition(text, &scope());
    }
}

#[test]
fn a_row_that_fails_fails_alone() {
    let compiled = Compiled::new("cast(note as double) * 2", &scope()).unwrap();
    let Evaluated { values, failed } = compiled.evaluate(&inputs(&compiled), 4);
    let values = values.as_primitive::<Float64Type>();
    assert_eq!(
        values.iter().collect::<Vec<_>>(),
        [Some(14.0), None, Some(24.0), None]
    );
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].row, 1);
    assert!(failed[0].reason.contains("'x'"), "{}", failed[0].reason);

    let compiled = Compiled::new("10 / rpm", &scope()).unwrap();
    let Evaluated { values, failed } = compiled.evaluate(&inputs(&compiled), 4);
    assert_eq!(values.as_primitive::<Int64Type>().value(3), 1);
    assert_eq!(
        failed.iter().map(|failed| failed.row).collect::<Vec<_>>(),
        [1]
    );
    assert!(
        failed[0].reason.to_lowercase().contains("divide by zero"),
        "{}",
        failed[0].reason
    );
}

#[test]
fn a_projection_has_names_and_types_of_a_stream() {
    let text = "temperature * 1.8 + 32 AS fahrenheit, rpm, device.fleet, cast(rpm as int) > 5 AS fast, note";
    let projection = Projection::new(text, &scope(), |_| true).unwrap();
    let columns: Vec<(&str, &DataType)> = projection
        .items
        .iter()
        .map(|item| (item.name.as_str(), &item.stored))
        .collect();
    assert_eq!(
        columns,
        [
            ("fahrenheit", &DataType::Float64),
            ("rpm", &DataType::Int64),
            ("fleet", &DataType::Utf8),
            ("fast", &DataType::Boolean),
            ("note", &DataType::Utf8),
        ]
    );
    let item = &projection.items[0];
    let values = item.evaluate(&inputs(&item.expression), 4).values;
    assert!((values.as_primitive::<Float64Type>().value(0) - 68.9).abs() < 1e-9);
    assert_eq!(projection.items[1].as_column(), Some(3));
    assert_eq!(projection.items[0].as_column(), None);

    let star = Projection::new("*, rpm * 2 AS double_rpm", &scope(), |name| {
        name != "ts" && name != "device"
    })
    .unwrap();
    let names: Vec<&str> = star.items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["temperature", "rpm", "note", "Door", "double_rpm"]);

    let wrong = Projection::new(
        "rpm + 1, note AS a, rpm AS A, ts - ts AS span, nothing AS n",
        &scope(),
        |_| true,
    )
    .unwrap_err();
    let messages: Vec<&str> = wrong
        .0
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "this column needs a name",
            "there are two columns `A`",
            "`span` is a span of time, which a stream cannot have",
            "unknown field `nothing` in stream `readings`",
        ]
    );
}

#[test]
fn json_becomes_columns_and_columns_json() {
    let scope = Scope::new("stream `raw`")
        .with("payload", DataType::Utf8)
        .with("n", DataType::Int64);
    let payload: ArrayRef = Arc::new(StringArray::from(vec![
        Some(r#"{"engine": {"rpm": 900, "ok": true}, "tags": ["a", "b"]}"#),
        Some("{}"),
        Some("not json"),
        None,
        Some(r#"{"engine": {"rpm": "fast"}}"#),
    ]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(1),
        None,
        Some(3),
        Some(4),
        Some(5),
    ]));
    let run = |text: &str| {
        let compiled = Compiled::new(text, &scope).unwrap_or_else(|problems| panic!("{problems}"));
        let inputs: Vec<ArrayRef> = compiled
            .inputs()
            .iter()
            .map(|input| match input {
                Input::Column(0) => Arc::clone(&payload),
                _ => Arc::clone(&numbers),
            })
            .collect();
        compiled.evaluate(&inputs, 5)
    };
    let Evaluated { values, failed } = run("json_float(payload, 'engine.rpm')");
    assert_eq!(
        values
            .as_primitive::<Float64Type>()
            .iter()
            .collect::<Vec<_>>(),
        [Some(900.0), None, None, None, None]
    );
    assert_eq!(
        failed.iter().map(|failed| failed.row).collect::<Vec<_>>(),
        [2, 4]
    );
    let Evaluated { values, .. } = run("json_text(payload, 'tags.1')");
    assert_eq!(values.as_string::<i32>().value(0), "b");
    assert!(values.is_null(1));
    let Evaluated { values, failed } = run("json_object('n', n, 'text', 'a \"b\"')");
    assert!(failed.is_empty());
    assert_eq!(
        values.as_string::<i32>().value(0),
        r#"{"n":1,"text":"a \"b\""}"#
    );
    assert_eq!(
        values.as_string::<i32>().value(1),
        r#"{"n":null,"text":"a \"b\""}"#
    );
}

fn aggregate(text: &str) -> Result<AggregateSelect, Problems> {
    let keys = [KeyColumn {
        name: "device".into(),
        data_type: DataType::Utf8,
    }];
    AggregateSelect::new(text, &scope(), &keys, &|function, argument| {
        Ok(match (function, argument) {
            ("count", _) => DataType::Int64,
            (_, Some(DataType::Int64)) if function != "avg" => DataType::Int64,
            _ => DataType::Float64,
        })
    })
}

#[test]
fn aggregates_are_parted_from_what_is_made_of_them() {
    let select = aggregate("device, avg(temperature) AS mean, max(rpm) - min(rpm) AS spread, count(*), quantile(temperature, 0.95) AS p95, sum(rpm * 2) FILTER (WHERE rpm > 5) AS s").unwrap();
    let calls: Vec<(&str, Option<f64>, bool)> = select
        .calls
        .iter()
        .map(|call| (call.function, call.parameter, call.filter.is_some()))
        .collect();
    assert_eq!(
        calls,
        [
            ("avg", None, false),
            ("max", None, false),
            ("min", None, false),
            ("count", None, false),
            ("quantile", Some(0.95), false),
            ("sum", None, true)
        ]
    );
    let names: Vec<(&str, &DataType)> = select
        .projection
        .items
        .iter()
        .map(|item| (item.name.as_str(), &item.stored))
        .collect();
    assert_eq!(
        names,
        [
            ("device", &DataType::Utf8),
            ("mean", &DataType::Float64),
            ("spread", &DataType::Int64),
            ("count", &DataType::Int64),
            ("p95", &DataType::Float64),
            ("s", &DataType::Int64),
        ]
    );
    let spread = &select.projection.items[2].expression;
    assert_eq!(spread.inputs(), [Input::Column(2), Input::Column(3)]);

    for (text, message) in [
        (
            "temperature",
            "`temperature` is neither a key nor aggregated",
        ),
        (
            "avg(temprature) AS t",
            "unknown field `temprature` in stream `readings`",
        ),
        (
            "avg(max(rpm)) AS t",
            "`max` is an aggregate of several rows",
        ),
        (
            "quantile(rpm, 95) AS p",
            "the share of a quantile is a number from 0 to 1",
        ),
        (
            "avg(DISTINCT rpm) AS a",
            "only `count` can be of distinct values",
        ),
        ("avg() AS a", "`avg` needs one argument"),
        (
            "avg(rpm ORDER BY ts) AS a",
            "rows are aggregated in the order of their times",
        ),
        (
            "tempo AS t",
            "unknown field `tempo` in the keys and aggregates of the window",
        ),
    ] {
        let found = aggregate(text).expect_err(text);
        assert_eq!(found.0[0].message, message, "{text}");
    }
}

/// `part`, `count` times, with `between` between them.
fn chain(part: &str, between: &str, count: usize) -> String {
    vec![part; count].join(between)
}

#[test]
fn long_chains_of_and_and_or_are_conditions() {
    let terms: Vec<String> = (0..2_001).map(|number| format!("rpm={number}")).collect();
    let compiled = Compiled::condition(&terms.join(" OR "), &scope()).unwrap();
    let (mask, _) = compiled.evaluate_condition(&inputs(&compiled), 4);
    let met: Vec<bool> = mask.values().iter().collect();
    assert_eq!(met, [true, true, true, true]);
    // Each row sees the terms in their order, whatever tree they are in.
    let terms: Vec<String> = (0..300)
        .map(|number| match number % 2 {
            0 => format!("rpm <> {number}"),
            _ => format!("temperature > {number} OR note = '7'"),
        })
        .map(|term| format!("({term})"))
        .collect();
    assert_eq!(mask_of(&terms.join(" AND ")), [true, false, false, false]);
    let mixed = format!("{} OR rpm = 7", chain("rpm > 1", " AND ", 400));
    assert_eq!(mask_of(&mixed), [true, false, true, true]);
}

fn mask_of(text: &str) -> Vec<bool> {
    mask(text)
}

#[test]
fn what_is_too_deep_is_refused_and_not_walked() {
    let deep = "the expression nests deeper than";
    for text in [
        chain("rpm", "-", 16_000),
        chain("rpm", " + ", 10_000),
        chain("note", " || ", 8_000),
        format!("rpm{}", "::double".repeat(5_000)),
        format!("rpm{}", " IS NOT NULL".repeat(4_000)),
        format!("rpm{}", " BETWEEN 1 AND 2".repeat(4_000)),
        format!("ts{}", " AT TIME ZONE 'UTC'".repeat(3_000)),
        format!("rpm{}", " IN (1)".repeat(8_000)),
        format!("rpm{}", " = 1".repeat(15_000)),
        format!("note{}", " LIKE ''".repeat(7_000)),
        format!("{}rpm", "-".repeat(30_000).replace("--", "- - ")),
        "(".repeat(30_000),
        format!("{}rpm{}", "(".repeat(30_000), ")".repeat(30_000)),
        // The tree is dropped before it is whole.
        format!("{} )", chain("rpm", "-", 16_000)),
        // Some branches of a tree are deep, and not its left ones.
        format!("rpm > 1 AND rpm > ({})", chain("rpm", "-", 16_000)),
    ] {
        let Problems(found) = Compiled::condition(&text, &scope()).expect_err(&text[..40]);
        let message = &found[0].message;
        assert!(
            message.starts_with(deep) || text.ends_with(" )"),
            "{} {message}",
            &text[..40]
        );
    }
    for text in [
        format!("rpm::int{}", "[]".repeat(20_000)),
        format!(
            "CAST(rpm AS {}INT{})",
            "ARRAY<".repeat(5_000),
            ">".repeat(5_000)
        ),
        format!(
            "CAST(rpm AS {}INT{})",
            "Nullable(".repeat(3_000),
            ")".repeat(3_000)
        ),
        chain("rpm > 1", " AND ", 6_000),
        "[".repeat(30_000),
        format!("{}door", "NOT ".repeat(15_000)),
    ] {
        Compiled::condition(&text, &scope()).expect_err(&text[..40]);
    }
    let help = &problems(&chain("note", " || ", 500))[0].2;
    assert!(help.as_deref().unwrap().contains("concat(a, b, …)"));
}

#[test]
fn what_is_allowed_is_evaluated_on_a_small_stack() {
    let texts = [
        format!("{} > 0", chain("rpm", " + ", 120)),
        format!("{} > 0", chain("rpm", " + temperature + ", 60)),
        format!("{} = '7'", chain("note", " || ", 120)),
        format!(
            "{} > 1",
            chain("CASE WHEN door THEN rpm ELSE 1 END", " + ", 100)
        ),
        format!("{}rpm > 0{}", "(".repeat(50), ")".repeat(50)),
        format!("{}rpm{} > 0", "abs(".repeat(40), ")".repeat(40)),
    ];
    for text in texts {
        let compiled = Compiled::condition(&text, &scope())
            .unwrap_or_else(|problems| panic!("{}: {problems}", &text[..40]));
        let given = inputs(&compiled);
        let work = || {
            let (_, failed) = compiled.evaluate_condition(&given, 4);
            assert!(failed.is_empty());
            drop(compiled);
        };
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(1 << 20);
            builder.spawn_scoped(scope, work).unwrap().join().unwrap();
        });
    }
}

#[test]
fn a_case_of_many_branches_is_read_in_time() {
    let branches: String = (0..400)
        .map(|number| format!(" WHEN rpm = {number} THEN 'n{number}'"))
        .collect();
    Compiled::new(&format!("CASE{branches} ELSE 'other' END"), &scope()).unwrap();
    let wrong = format!("CASE{branches} ELSE 'other' || (note AND 1) END");
    let found = problems(&wrong);
    assert_eq!(found[0].1, "note AND 1", "{found:?}");
}

#[test]
fn what_is_made_of_a_batch_has_a_bound() {
    let text = "concat(note, note, note, note, note, note, note, note) AS note";
    let long = "x".repeat(10 << 20);
    let compiled = Compiled::new(text.trim_end_matches(" AS note"), &scope()).unwrap();
    for (value, is_too_much) in [("x", false), (long.as_str(), true)] {
        let notes: ArrayRef = Arc::new(StringArray::from(vec![Some(value); 4]));
        let Evaluated { values, failed } = compiled.evaluate(&[notes], 4);
        assert_eq!(failed.len(), if is_too_much { 4 } else { 0 });
        assert_eq!(values.null_count(), failed.len());
        if is_too_much {
            assert!(failed[0].reason.contains("at most 268435456"), "{failed:?}");
        }
    }
}
