use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};

use crate::{
    Config, Diagnostics, Graph, Severity, Sources,
    graph::{Origin, Port, TableSchemas},
    value::Reference,
};

fn lookup(reference: Reference<'_>) -> Result<String, String> {
    match reference {
        Reference::Environment("LIMIT") => Ok("90".to_owned()),
        Reference::Environment(name) => Err(format!("the environment has no variable {name}")),
        Reference::File(path) => Err(format!("{path}: there is no such file")),
    }
}

fn read(text: &str) -> (Graph, Diagnostics, Sources) {
    let sources = Sources::text("graph.toml", text);
    let mut diagnostics = Diagnostics::default();
    let config = Config::read(&sources, &lookup, &mut diagnostics);
    let graph = Graph::new(&config, &TableSchemas::new(), &mut diagnostics);
    (graph, diagnostics, sources)
}

/// Severity, line, column, what is underlined, message, help.
fn told(text: &str) -> Vec<String> {
    let (_, diagnostics, sources) = read(text);
    diagnostics
        .sorted()
        .into_iter()
        .map(|diagnostic| {
            let (line, column) = sources.line_column(&diagnostic.place);
            let marked = &text[diagnostic.place.span.clone()];
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let help = diagnostic.help.as_deref().unwrap_or("-");
            format!(
                "{severity} {line}:{column} `{marked}`: {}; {help}",
                diagnostic.message
            )
        })
        .collect()
}

const GOOD: &str = r#"
[stream.readings.fields]
velocity = { type = "float64", unit = "km/h" }
fuel = { scale = 2, unit = "l" }
coolant_temp = "float64"
note = "utf8"

[route.hot_engines]
from = ["readings"]
where = "coolant_temp > 90 AND device.fleet = 'west'"

[route.rest]
from = "readings"
default = true

[map.metric]
from = ["hot_engines"]
select = "velocity / 3.6 AS metres_per_second, coolant_temp"
where = "velocity IS NOT NULL"

[window.coolant_5m]
from = ["readings"]
size = "5m"
every = "1m"
by = ["device"]
select = "avg(coolant_temp) AS mean_temp, max(coolant_temp) AS max_temp, count(*) AS rows"
late = "15s"
out_of_order = "8s"

[window.by_fleet]
from = ["coolant_5m", "coolant_5m.late"]
size = ["1h", "day"]
by = ["device.fleet"]
timezone = "Europe/Berlin"
select = "count(*)"

[missing.silent]
from = ["readings"]
after = "5m"

[store.kept]
from = ["metric", "rest", "metric.errors"]
"#;

#[test]
fn a_good_graph_is_connected_and_ordered() {
    let (graph, diagnostics, sources) = read(GOOD);
    // The late rows have other columns than the window itself: `count(*)` suits both.
    assert_eq!(diagnostics.render(&sources, false), "");
    let names: Vec<&str> = graph
        .order
        .iter()
        .map(|number| graph.nodes[*number].name())
        .collect();
    let at = |name: &str| names.iter().position(|other| *other == name).unwrap();
    assert_eq!(names.len(), 6);
    assert!(at("hot_engines") < at("metric") && at("coolant_5m") < at("by_fleet"));
    assert_eq!(graph.find("readings"), Some(Origin::Stream(0)));
    assert!(matches!(
        graph.find("coolant_5m.late"),
        Some(Origin::Node(_, Port::Late))
    ));
    assert_eq!(graph.find("metric.late"), None);
    assert_eq!(
        graph.name(graph.find("metric.errors").unwrap()),
        "metric.errors"
    );
}

#[test]
fn every_problem_is_told_with_its_place_and_a_suggestion() {
    let text = r#"
[stream.readings.fields]
temperature = "float64"
rpm = "int"

[route.hot]
from = ["reading"]
where = "temprature > 90"

[route.hot2]
from = ["readings"]
where = "temprature > 90"
colour = "red"

[windw.a]
from = ["readings"]

[window.b]
from = ["readings"]
select = "avg(temperature) AS t"

[window.c]
from = ["readings", "hot2.lat"]
size = "5 minuts"
by = ["fleet"]
select = "avg(temperature), temperature AS x"
late = "5s"
out_of_order = "10s"
timezone = "Europe/Berln"

[store.s]
from = ["hot", "hot2"]
"#;
    assert_eq!(
        told(text),
        [
            "error 4:7 `\"int\"`: field `rpm` of stream `readings` cannot be of type \"int\"; a type is one of float64, int64, utf8, bool, timestamp",
            "error 7:10 `reading`: there is no stream or node `reading`; did you mean `readings`?",
            "error 12:10 `temprature`: unknown field `temprature` in stream `readings`; did you mean `temperature`?",
            "error 13:1 `colour`: route `hot2` has no setting `colour`; there is `default`, `description`, `from`, `limit`, `sample`, `where`",
            "error 15:2 `windw`: there is no section `windw`; did you mean `window`?",
            "error 18:9 `b`: window `b` does not say by which key; write `by = [\"device\"]`, `by = [\"device.fleet\"]`, or `by = []` for one window over all devices",
            "error 18:9 `b`: window `b` has no `size`; write `size = \"1m\"`",
            "error 23:27 `lat`: route `hot2` has no port `lat`; its ports are `out`, `errors`",
            "error 24:8 `\"5 minuts\"`: \"5 minuts\" is no span of time; write a number and a unit (us, ms, s, m, h, d, w), as in \"1m30s\"; a size is a span of time (\"1m\"), or `day`, `week`, `month` of the calendar",
            "error 25:7 `\"fleet\"`: a window cannot be keyed by `fleet`; a key is `device`, or an attribute of the device: `device.fleet`",
            "error 26:29 `temperature`: `temperature` is neither a key nor aggregated; say which of the rows' values: `last(temperature)`, `avg(temperature)`, …; or add it to `by`",
            "error 28:16 `\"10s\"`: window `c` waits longer for rows out of order than rows may be late; `late` is judged first: make it at least as long as `out_of_order`",
            "error 29:12 `\"Europe/Berln\"`: there is no time zone \"Europe/Berln\"; did you mean `Europe/Berlin`?",
        ]
    );
}

#[test]
fn a_cycle_is_told_with_its_path() {
    let text = r#"
[stream.s]
[map.a]
from = ["s", "c"]
[map.b]
from = ["a"]
[map.c]
from = ["b"]
[map.d]
from = ["c"]
"#;
    let told = told(text);
    let cycles: Vec<&String> = told.iter().filter(|line| line.contains("circle")).collect();
    assert_eq!(cycles.len(), 1, "{told:#?}");
    assert!(
        cycles[0].contains("the nodes go in a circle: a → b → c → a"),
        "{}",
        cycles[0]
    );
}

#[test]
fn references_are_put_in_and_their_values_are_not_shown() {
    let (graph, diagnostics, sources) = read(
        "[stream.s]\n[route.r]\nfrom=[\"s\"]\nwhere = \"x > ${env:LIMIT}\"\n[store.k]\nfrom=[\"r\"]\n",
    );
    assert_eq!(diagnostics.render(&sources, false), "");
    assert!(!format!("{graph:?}").contains("90"));
    let told = told(
        "[stream.s]\n[route.r]\nfrom=[\"s\"]\nwhere = \"x > ${env:LIMT} or y > ${file:/no} $${x} ${z\"\n[store.k]\nfrom=[\"r\"]\n",
    );
    assert_eq!(
        told[0],
        "error 4:14 `${env:LIMT}`: the environment has no variable LIMT; -"
    );
    assert_eq!(
        told[1],
        "error 4:33 `${file:/no}`: /no: there is no such file; -"
    );
    assert!(
        told[2].starts_with("error 4:51 `${z`: `${` is not closed"),
        "{told:#?}"
    );
}

#[test]
fn what_is_no_toml_is_told_line_by_line() {
    let told = told("[stream.s\nx = = 1\n[route.r]\nfrom = [\"s\"\n");
    assert!(told.len() >= 2, "{told:#?}");
}

#[test]
fn a_problem_is_shown_as_a_person_reads_it() {
    let text = "[stream.readings.fields]\ntemperature = \"float64\"\na=\"int64\"\nb=\"int64\"\n\n[route.hot]\nfrom = [\"readings\"]\nwhere = \"temprature > 90\"\n[store.s]\nfrom = [\"hot\"]\n";
    let (_, diagnostics, sources) = read(text);
    let shown = diagnostics.render(&sources, false);
    assert!(
        shown.contains("unknown field `temprature` in stream `readings`"),
        "{shown}"
    );
    assert!(shown.contains("graph.toml:8:10"), "{shown}");
    assert!(shown.contains("did you mean `temperature`?"), "{shown}");
}

#[test]
fn hostile_files_are_told_and_nothing_else() {
    let deep = format!("x = {}1{}", "[".repeat(500), "]".repeat(500));
    for text in [
        "",
        "\0",
        "=",
        "[",
        "[[test]]",
        "test = 1",
        "stream = 1",
        "[stream]\nx = 1",
        "[stream.X]",
        "[stream.quiver_x]",
        "[window.w]\nfrom = []\nsize = []\nby = []\nselect = \"\"",
        "[[test]]\nname = 1\nsteps = [1]",
        "[lookup.l]\nfrom=[\"s\"]\non = 1",
        "[route.r]\nfrom = [[\"s\"]]\nsample = 2\nlimit = -1",
        "[action.a]\nkind = \"email\"",
        "[window.w]\nfrom=[\"w\"]",
        "a.b.c.d = 1",
        &deep,
        "[map.m]\nfrom=[\"s\"]\nselect=\"(((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((\"",
    ] {
        let (_, diagnostics, sources) = read(text);
        let _ = diagnostics.render(&sources, false);
    }
}

#[test]
fn what_windows_and_stores_cannot_be_is_told_before_they_run() {
    let text = r#"
[stream.s.fields]
x = "float64"

[window.a]
from = "s"
by = "device"
gap = "1m"
max = "0s"
emit = "update"
select = "count(*)"

[window.b]
from = "s"
by = "device"
size = ["day", "1m"]
every = "30s"
emit = "update"
select = "count(*) AS window_size, sum(x) AS revision, avg(x) AS mean"

[map.b_late]
from = "b.late"

[store.k]
from = ["b.late", "b_late"]
hot = "5s"
archive = false
[store.l]
from = ["s"]
queue = "2d"
keep = "1d"
"#;
    assert_eq!(
        told(text),
        [
            "error 9:7 `\"0s\"`: `max` of window `a`: it has to be longer than nothing; -",
            "error 10:8 `\"update\"`: `emit` of window `a`: a session is put out when it closes, and cannot be revised; -",
            "error 16:9 `\"day\"`: windows of the calendar do not overlap, and have no `every`; a size is a span of time (\"1m\"), or `day`, `week`, `month` of the calendar",
            "error 19:11 `count(*) AS window_size`: `window_size` is a column that every result has by itself; leave it out, or give it another name with `AS`",
            "error 19:36 `sum(x) AS revision`: `revision` is a column that every result has by itself; leave it out, or give it another name with `AS`",
            "error 25:9 `\"b.late\"`: rows of this port would be stream `b_late`, and there is one; rename the node, whose port it is, or the other",
            "error 26:7 `\"5s\"`: `hot` of store `k` is too short; rows are kept for a minute at least: `\"1m\"`",
            "error 30:9 `\"2d\"`: `queue` of store `l` is longer than its rows are kept; make `keep` at least as long as `queue`",
        ]
    );
}

#[test]
fn columns_of_a_table_can_be_named_and_have_types() {
    let text = r#"
[stream.s.fields]
x = "float64"
owner = "int64"

[lookup.trucks]
from = "s"
file = "trucks.csv"

[lookup.fleets]
from = "s"
registry = true
columns = ["fleet", "device"]

[lookup.wrong]
from = "s"
file = "trucks.csv"
on = { y = "devise" }
columns = ["tonk"]

[lookup.nothing]
from = "s"
registry = true

[map.m]
from = ["trucks", "fleets"]
select = "x, upper(fleet) AS fleet"

[map.n]
from = "trucks"
select = "tank * 2 AS double, upper(owner) AS owner, x + onwer AS z"

[store.k]
from = ["m", "n", "wrong", "nothing"]
"#;
    let sources = Sources::text("graph.toml", text);
    let mut diagnostics = Diagnostics::default();
    let config = Config::read(&sources, &lookup, &mut diagnostics);
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let trucks = Arc::new(Schema::new(vec![
        field("device", DataType::Utf8),
        field("tank", DataType::Int32),
        field("owner", DataType::Utf8),
    ]));
    let tables = ["trucks", "wrong"].map(|node| (node.to_owned(), trucks.clone()));
    let graph = Graph::new(&config, &TableSchemas::from(tables), &mut diagnostics);
    let columns = graph.columns(graph.find("trucks").unwrap());
    assert_eq!(
        columns.fields,
        [
            ("x".to_owned(), DataType::Float64),
            ("tank".to_owned(), DataType::Int64),
            ("owner".to_owned(), DataType::Utf8),
        ]
    );
    let messages: Vec<String> = diagnostics
        .sorted()
        .into_iter()
        .map(|problem| {
            let help = problem.help.as_deref().unwrap_or("-");
            format!("{}; {help}", problem.message)
        })
        .collect();
    assert_eq!(
        messages,
        [
            "`device` is a column that every row has by itself; leave it out, or give it another name with `AS`",
            "the rows have no column `y`; there is `x`, `owner`",
            "the table has no column `devise`; did you mean `device`?",
            "the table has no column `tonk`; did you mean `tank`?",
            "lookup `nothing` adds nothing; name attributes of the device: `columns = [\"fleet\"]`",
            "unknown field `fleet` in the rows of lookup `trucks`; -",
            "unknown field `onwer` in the rows of lookup `trucks`; did you mean `owner`?",
        ]
    );
}

#[test]
fn rows_are_kept_as_long_as_any_store_says() {
    let text = r#"
[stream.s.fields]
x = "float64"
[route.r]
from = "s"
where = "x > 1"
[window.w]
from = "s"
by = "device"
size = "1m"
select = "count(*) AS rows"
[store.short]
from = ["s", "r", "w.late"]
archive = false
[store.long]
from = ["r", "w"]
keep = "30d"
queue = "2h"
[store.ever]
from = ["w"]
[store.queue]
from = ["s"]
hot = "5m"
queue = "90m"
archive = false
"#;
    assert_eq!(told(text), Vec::<String>::new());
    let (graph, _, _) = read(text);
    let spans: Vec<(String, u64)> = graph
        .retention()
        .into_iter()
        .map(|(stream, span)| (stream, span.as_secs() / 60))
        .collect();
    let expected = [("r", 30 * 24 * 60), ("s", 90), ("w_late", 60)];
    assert_eq!(
        spans,
        expected.map(|(stream, minutes)| (stream.to_owned(), minutes))
    );
    assert_eq!(graph.queue(), Some(std::time::Duration::from_secs(7_200)));
}

#[test]
fn what_is_in_a_circle_is_looked_through_as_well() {
    let text = r#"
[stream.r.fields]
velocity = "float64"
[route.a]
from = ["b", "r"]
where = "x >"
[route.b]
from = "a"
where = "velocity > 5 AND (1 +"
[window.w]
from = "r"
by = "device"
size = "1m"
select = "avg(velocity) AS device"
"#;
    let told = told(text);
    assert_eq!(told.len(), 4, "{told:#?}");
    let has = |part: &str| assert!(told.iter().any(|told| told.contains(part)), "{told:#?}");
    has("circle: a → b → a");
    has("error 6:13");
    has("error 9:31");
    has("`avg(velocity) AS device`: `device` is a column that every result has by itself");
}

#[test]
fn windows_of_windows_over_a_stream_of_which_nothing_is_known_are_not_wrong() {
    let text = r#"
[window.tum]
from = "bench"
size = "1s"
by = ["device"]
select = "count(*) AS n, sum(f1) AS s1"
[window.w2]
from = "tum"
size = "6s"
by = ["device"]
select = "sum(n) AS n"
[map.m]
from = "w2"
select = "n * 2 AS n"
[store.k]
from = ["m"]
"#;
    let (_, diagnostics, _) = read(text);
    assert!(!diagnostics.has_errors(), "{:#?}", told(text));
}

#[test]
fn what_came_from_outside_is_in_nothing_that_is_told() {
    let text = r#"
[stream.s]
description = "of ${env:PIN}"
[stream.s.fields]
x = { type = "float64", unit = "${env:PIN}" }
s = "utf8"
[route.r]
from = "${env:PIN}"
where = "x > 1"
[window.w]
from = "s"
size = "${env:PIN}"
by = "device"
zone = "${env:PIN}"
select = "count(*) AS ${env:PIN}, avg(${env:PIN}) AS b"
[map.m]
from = "s"
description = "${env:PIN}"
select = "CAST('${env:PIN}' AS DOUBLE) AS z"
"#;
    let sources = Sources::text("graph.toml", text);
    let mut diagnostics = Diagnostics::default();
    let lookup = |_: Reference<'_>| Ok("SecretPin".to_owned());
    let config = Config::read(&sources, &lookup, &mut diagnostics);
    let graph = Graph::new(&config, &TableSchemas::new(), &mut diagnostics);
    assert!(diagnostics.count(Severity::Error) >= 4);
    let mut told = diagnostics.render(&sources, false);
    told.push_str(&format!("{:?}", diagnostics.sorted()));
    for format in crate::draw::Format::ALL {
        told.push_str(&crate::draw::draw(&graph, None, format).unwrap());
    }
    assert!(told.contains("***"));
    assert!(!told.to_lowercase().contains("secretpin"), "{told}");
}

#[test]
fn what_counts_is_nothing_of_nothing_and_not_unknown() {
    let text = r#"
[stream.s.fields]
x = "int64"
[window.w]
from = "s"
by = "device"
size = "1m"
select = "count(*) AS rows, count(x) AS n, count(DISTINCT x) AS different, sum(x) AS total"
[[test]]
name = "without values"
steps = [
  { input = "s", rows = [{ ts = "2026-01-01T00:00:00Z", device = "a" }] },
  { advance = "5m" },
  { expect = "w", rows = [{ rows = 1, n = 0, different = 0 }] },
]
"#;
    let sources = Sources::text("graph.toml", text);
    let mut diagnostics = Diagnostics::default();
    let config = Config::read(&sources, &lookup, &mut diagnostics);
    let graph = Graph::new(&config, &TableSchemas::new(), &mut diagnostics);
    assert_eq!(diagnostics.render(&sources, false), "");
    let tables = crate::testing::Tables::default();
    let outcome = crate::testing::run(&Arc::new(graph), &config.tests[0], &tables);
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
}

#[test]
fn rows_may_not_multiply_without_bound() {
    let mut text = "[stream.s.fields]\nx = \"float64\"\n".to_owned();
    let mut add = |number: usize, from: &str| {
        for name in ["a", "b"] {
            text.push_str(&format!(
                "[route.{name}{number}]\nfrom = {from}\nwhere = \"x > 1\"\n"
            ));
        }
    };
    add(0, "\"s\"");
    for number in 1..12 {
        add(number, &format!("[\"a{0}\", \"b{0}\"]", number - 1));
    }
    text.push_str("[store.k]\nfrom = [\"a11\", \"b11\"]\n");
    let told = told(&text);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].contains("a row comes to route `a10` by 1024 ways"),
        "{told:#?}"
    );
}

#[test]
fn a_row_is_in_ten_thousand_windows_at_most() {
    let window = |size: &str, every: &str| {
        told(&format!(
            "[stream.s.fields]\nx = \"float64\"\n[window.w]\nfrom = \"s\"\nby = \"device\"\nsize = {size}\nevery = \"{every}\"\nselect = \"count(*) AS n\"\n"
        ))
    };
    assert_eq!(window("\"10000s\"", "1s"), Vec::<String>::new());
    assert_eq!(
        window("[\"1m\", \"10001s\"]", "1s"),
        [
            "error 7:9 `\"1s\"`: `every` of window `w`: a row would be in 10001 windows of `size` 2h46m41s; at most 10000: make `every` longer, or `size` shorter; -"
        ]
    );
}
