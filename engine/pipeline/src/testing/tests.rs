use std::sync::Arc;

use crate::{
    Config, Diagnostics, Graph, Sources,
    graph::TableSchemas,
    testing::{Tables, run},
    value::Reference,
};

fn nothing(_: Reference<'_>) -> Result<String, String> {
    Err("there is nothing".to_owned())
}

/// What each test of a configuration has to say; nothing, if it passed.
fn told(text: &str, tables: &Tables) -> Vec<String> {
    let sources = Sources::text("graph.toml", text);
    let mut diagnostics = Diagnostics::default();
    let config = Config::read(&sources, &nothing, &mut diagnostics);
    let graph = Arc::new(Graph::new(&config, &TableSchemas::new(), &mut diagnostics));
    assert!(
        !diagnostics.has_errors(),
        "{}",
        diagnostics.render(&sources, false)
    );
    config
        .tests
        .iter()
        .map(|test| {
            let outcome = run(&graph, test, tables);
            let failures = outcome.failures.iter().map(|failure| {
                let (line, _) = sources.line_column(&failure.place);
                format!(
                    "{line}: {}\n{}",
                    failure.message,
                    failure.difference.as_deref().unwrap_or_default()
                )
            });
            failures.collect::<Vec<_>>().join("\n")
        })
        .collect()
}

const GRAPH: &str = r#"
[stream.readings.fields]
temperature = "float64"
note = "utf8"

[route.hot]
from = "readings"
where = "temperature > 90 AND device.fleet = 'west'"

[route.cold]
from = "readings"
where = "temperature < 0"

[route.rest]
from = "readings"
default = true

[map.fahrenheit]
from = ["hot", "cold"]
select = "temperature * 1.8 + 32 AS degrees, CAST(note AS BIGINT) AS number"

[store.kept]
from = ["fahrenheit", "fahrenheit.errors", "rest"]
"#;

#[test]
fn routes_and_maps_do_what_tests_expect() {
    let test = r#"
[[test]]
name = "rows go where they belong"
devices = { a = { fleet = "west" }, b = { fleet = "east" } }
steps = [
  { input = "readings", rows = [
      { ts = 10:00:00, device = "a", temperature = 95, note = "1" },
      { ts = 10:00:01, device = "b", temperature = 95, note = "2" },
      { ts = 10:00:02, device = "b", temperature = -10.0, note = "x" },
      { ts = 10:00:03, device = "b" },
  ] },
  { expect = "hot", rows = [{ device = "a", ts = 10:00:00 }] },
  { expect = "rest", rows = [{ device = "b", temperature = 95.0 }, { ts = "10:00:03", temperature = {} }] },
  { expect = "fahrenheit", rows = [{ degrees = 203, number = 1 }] },
  { expect = "fahrenheit.errors", rows = [{ device = "b", note = "x" }] },
  { expect = "fahrenheit.errors", count = 0 },
  { restart = true },
  { input = "readings", rows = [{ device = "a", temperature = 100, note = "7" }] },
  { expect = "fahrenheit", rows = [{ number = 7 }] },
]
"#;
    assert_eq!(told(&format!("{GRAPH}{test}"), &Tables::new()), [""]);
}

#[test]
fn a_difference_is_told_with_the_rows() {
    let test = r#"
[[test]]
name = "wrong"
steps = [
  { input = "readings", rows = [{ ts = 10:00:00, device = "a", temperature = -1 }, { ts = 10:00:01, device = "a", temperature = -2 }] },
  { expect = "cold", rows = [{ ts = 10:00:00, temperature = -1 }, { ts = 10:00:02, temperature = -3 }] },
  { expect = "rest", count = 1 },
]
"#;
    let told = told(&format!("{GRAPH}{test}"), &Tables::new());
    assert_eq!(
        told[0],
        "29: 2 rows of `cold` came, but not as expected\n  \
         { ts = 2026-01-01T10:00:00Z, temperature = -1.0 }\n\
         - { ts = 2026-01-01T10:00:02Z, temperature = -3 }\n\
         + { ts = 2026-01-01T10:00:01Z, temperature = -2.0 }\n\
         30: expected 1 rows of `rest`, got 0\n"
    );
}

const WINDOWS: &str = r#"
[stream.readings.fields]
velocity = "float64"
load = "int64"

[window.minute]
from = ["readings"]
size = "1m"
by = ["device"]
select = "avg(velocity) AS mean, max(velocity) - min(velocity) AS spread, count(*) AS rows, sum(load), count(*) FILTER (WHERE velocity > 10) AS fast"
late = "30s"
out_of_order = "5s"

[window.fleet]
from = ["minute"]
size = ["5m", "1h"]
by = ["device.fleet"]
select = "sum(rows) AS rows, avg(mean) AS mean"

[map.late_rows]
from = ["minute.late"]
select = "late_reason, velocity"
"#;

#[test]
fn windows_close_are_late_survive_a_restart_and_feed_others() {
    let test = r#"
[[test]]
name = "windows"
devices = { a = { fleet = "west" }, b = { fleet = "west" } }
steps = [
  { input = "readings", rows = [
      { ts = 10:00:00, device = "a", velocity = 10, load = 1 },
      { ts = 10:00:20, device = "a", velocity = 20, load = 2 },
      { ts = 10:00:30, device = "b", velocity = 5 },
  ] },
  { restart = true },
  { input = "readings", rows = [
      { ts = 10:00:58, arrival = 10:01:00, device = "a", velocity = 60.0, load = 3 },
      { ts = 10:01:04, arrival = 10:01:04, device = "a", velocity = 7.0 },
  ] },
  { expect = "minute", count = 0 },
  { restart = true },
  { input = "readings", rows = [{ ts = 10:01:06, device = "a", velocity = 8.0 }, { ts = 10:00:10, device = "a", velocity = 1.0 }] },
  { expect = "minute", rows = [
      { device = "a", window_start = 10:00:00, window_end = 10:01:00, mean = 30, spread = 50, rows = 3, sum_load = 6, fast = 2 },
  ] },
  { expect = "minute.late", rows = [{ ts = 10:00:10, late_reason = "late_arrival", window_start = 10:00:00, window_end = 10:01:00 }] },
  { expect = "late_rows", rows = [{ velocity = 1.0, late_reason = "late_arrival" }] },
  { advance = "5m" },
  { expect = "minute", rows = [
      { device = "b", ts = "2026-01-01T10:00:59.999999Z", mean = 5, sum_load = {} },
      { device = "a", window_start = 10:01:00, mean = 7.5, rows = 2 },
  ] },
  { expect = "fleet", rows = [{ fleet = "west", device = "fleet", window_size = "5m", rows = 6, window_end = 10:05:00 }] },
  { restart = true },
  { advance = "1h" },
  { expect = "fleet", rows = [{ window_size = "1h", rows = 6, mean = 14.166666666666666 }] },
]
"#;
    assert_eq!(told(&format!("{WINDOWS}{test}"), &Tables::new()), [""]);
}

#[test]
fn silence_begins_and_ends() {
    let text = r#"
[stream.readings.fields]
fuel = "float64"

[missing.silent]
from = "readings"
after = "1m"

[missing.no_fuel]
from = "readings"
fields = ["fuel"]
after = "30s"

[[test]]
name = "silence"
steps = [
  { input = "readings", rows = [{ ts = 10:00:00, device = "a", fuel = 1 }, { ts = 10:00:20, device = "a" }] },
  { advance = "20s" },
  { expect = "no_fuel", rows = [{ device = "a", state = "missing", field = "fuel", ts = 10:00:30, seconds = 30 }] },
  { restart = true },
  { advance = "1m" },
  { expect = "silent", rows = [{ device = "a", state = "missing", field = {}, ts = 10:01:20, since = 10:00:20 }] },
  { input = "readings", rows = [{ ts = 10:02:00, device = "a", fuel = 2 }] },
  { expect = "silent", rows = [{ state = "back", ts = 10:02:00, seconds = 100 }] },
  { expect = "no_fuel", rows = [{ state = "back" }] },
]
"#;
    assert_eq!(told(text, &Tables::new()), [""]);
}

#[test]
fn last_values_are_those_before_the_row_and_no_newer() {
    let text = r#"
[stream.readings.fields]
speed = "float64"

[stream.settings]

[route.over]
from = "readings"
where = "speed > last.settings.limit"

[map.change]
from = ["over"]
select = "speed, speed - last.readings.speed AS change"

[store.kept]
from = ["change", "over.errors"]

[[test]]
name = "last values"
steps = [
  { input = "readings", rows = [{ ts = 10:00:00, device = "a", speed = 10 }] },
  { input = "settings", rows = [{ ts = 10:00:01, device = "a", limit = 20 }, { ts = 10:00:01, device = "b", limit = 5 }] },
  { input = "readings", rows = [
      { ts = 10:00:02, device = "a", speed = 30 },
      { ts = 10:00:00, arrival = 10:00:02, device = "a", speed = 99 },
      { ts = 10:00:03, device = "b", speed = 6 },
      { ts = 10:00:03, device = "c", speed = 6 },
  ] },
  { expect = "change", rows = [{ device = "a", speed = 30, change = 20 }, { device = "b", change = {} }] },
  { restart = true },
  { input = "readings", rows = [{ ts = 10:00:05, device = "a", speed = 25 }, { ts = 10:00:05, device = "b", speed = 4 }] },
  { expect = "change", rows = [{ device = "a", speed = 25, change = -5 }] },
  { expect = "over.errors", count = 0 },
]
"#;
    assert_eq!(told(text, &Tables::new()), [""]);
}
