use std::sync::Arc;

use crate::{
    Config, Diagnostics, Graph, Sources,
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
    let graph = Arc::new(Graph::new(&config, &mut diagnostics));
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
