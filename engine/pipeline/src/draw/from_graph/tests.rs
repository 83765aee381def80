use super::{Exit, Kind, Picture, Rates, picture};
use crate::{
    Config, Diagnostics, Graph, Sources,
    draw::{Format, draw},
    graph::{Port, TableSchemas},
    value::Reference,
};

fn graph(text: &str) -> Graph {
    let lookup = |reference: Reference<'_>| match reference {
        Reference::Environment(_) => Ok("'a secret'".to_owned()),
        Reference::File(path) => Err(format!("{path}: there is no such file")),
    };
    let sources = Sources::text("graph.toml", text);
    let mut diagnostics = Diagnostics::default();
    let config = Config::read(&sources, &lookup, &mut diagnostics);
    Graph::new(&config, &TableSchemas::new(), &mut diagnostics)
}

const WHOLE: &str = r#"
[stream.readings]
mode = "strict"
[stream.readings.fields]
velocity = { type = "float64", unit = "km/h" }
note = "utf8"
[stream.learned]
[route.fast]
from = ["readings"]
where = "velocity > 90"
sample = 0.07
[route.rest]
from = ["readings"]
default = true
[route.everything]
from = ["undeclared_stream"]
[map.metric]
from = ["fast"]
select = "velocity / 3.6 AS speed"
where = "note = ${env:TOKEN}"
[lookup.truck]
from = ["rest"]
file = "tables/trucks.csv"
on = { device = "truck_id" }
columns = ["driver"]
unmatched = "error"
[window.tumbling]
from = ["metric"]
size = "1m"
by = ["device"]
select = "count(*) AS rows"
[window.hopping]
from = ["metric"]
size = "5m"
every = "1m"
by = ["device.fleet"]
select = "count(*) AS rows"
late = "90s"
[window.session]
from = ["metric"]
kind = "session"
gap = "10m"
by = []
select = "count(*) AS rows"
[missing.silent]
from = ["readings", "learned"]
after = "5m"
[missing.no_note]
from = ["readings"]
fields = ["note"]
after = "1h30m"
[detect.odd]
from = ["tumbling"]
field = "rows"
[alert.slow]
from = ["odd"]
when = "rows < 2"
actions = ["mail"]
[action.mail]
kind = "email"
[store.kept]
from = ["tumbling", "truck"]
keep = "30d"
hot = "1h"
[store.rejects]
from = ["hopping.late", "hopping.errors", "metric.errors"]
[store.queued]
from = ["readings"]
archive = false
"#;

fn first_lines(picture: &Picture) -> Vec<String> {
    let line = |node: &super::Node| {
        let what = node.details.first().cloned().unwrap_or_default();
        format!("{} {}: {what}", node.kind.word(), node.name)
    };
    picture.nodes().iter().map(line).collect()
}

#[test]
fn every_kind_says_what_it_does() {
    let picture = picture(&graph(WHOLE), None).unwrap();
    assert_eq!(
        first_lines(&picture),
        [
            "stream readings: 2 fields, strict",
            "stream learned: fields learned",
            "stream undeclared_stream: not declared",
            "route fast: velocity > 90",
            "route rest: what no other route takes",
            "route everything: all rows",
            "map metric: velocity / 3.6 AS speed",
            "lookup truck: trucks.csv on device = truck_id",
            "window tumbling: 1m by device",
            "window hopping: 5m every 1m by device.fleet",
            "window session: session, gap 10m over all",
            "missing silent: no rows for 5m",
            "missing no_note: no note for 1h30m",
            "detect odd: ",
            "alert slow: then mail",
            "action mail: ",
            "store kept: keep 30d · hot 1h",
            "store rejects: keep for ever",
            "store queued: not archived",
        ]
    );
    let details = |name: &str| {
        let node = picture.nodes().iter().find(|node| node.name == name);
        node.unwrap().details.join("\n")
    };
    assert_eq!(details("readings").lines().nth(1), Some("velocity [km/h]"));
    assert_eq!(details("fast").lines().nth(1), Some("7 % of rows"));
    assert!(details("truck").ends_with("adds driver\nrows without a match are errors"));
    assert!(details("hopping").contains("late by 1m30s"));
}

#[test]
fn connections_have_their_ports_and_alerts_their_actions() {
    let picture = picture(&graph(WHOLE), None).unwrap();
    let name = |node: usize| picture.nodes()[node].name.as_str();
    let edges: Vec<(&str, &str, Exit)> = picture
        .edges()
        .iter()
        .map(|edge| (name(edge.from), name(edge.to), edge.exit))
        .collect();
    assert_eq!(edges.len(), 20);
    for edge in [
        ("readings", "fast", Exit::Out),
        ("undeclared_stream", "everything", Exit::Out),
        ("hopping", "rejects", Exit::Late),
        ("hopping", "rejects", Exit::Errors),
        ("metric", "rejects", Exit::Errors),
        ("tumbling", "kept", Exit::Out),
        ("slow", "mail", Exit::Out),
    ] {
        assert!(edges.contains(&edge), "{edge:?}");
    }
}

#[test]
fn rates_are_at_connections_and_marks_at_nodes() {
    let mut rates = Rates::default();
    rates.set("readings", Port::Out, 1_234.0);
    rates.set("hopping", Port::Late, 3.0);
    rates.set("metric", Port::Errors, 0.0);
    rates.set("truck", Port::Errors, 0.2);
    rates.set("rest", Port::Out, f64::NAN);
    rates.set("fast", Port::Out, -1.0);
    let picture = picture(&graph(WHOLE), Some(&rates)).unwrap();
    let label = |from: &str, exit: Exit| {
        let edges = picture.edges().iter();
        let is_meant =
            |edge: &&super::Edge| picture.nodes()[edge.from].name == from && edge.exit == exit;
        edges.filter(is_meant).map(super::Edge::label).next()
    };
    assert_eq!(label("readings", Exit::Out).as_deref(), Some("1.2k/s"));
    assert_eq!(label("hopping", Exit::Late).as_deref(), Some("late 3/s"));
    assert_eq!(label("metric", Exit::Errors).as_deref(), Some("errors 0/s"));
    assert_eq!(label("rest", Exit::Out).as_deref(), Some(""));
    assert_eq!(label("fast", Exit::Out).as_deref(), Some(""));
    let marked: Vec<_> = picture
        .nodes()
        .iter()
        .filter(|node| !node.marks.is_empty())
        .map(|node| format!("{}: {}", node.name, node.marks.join(", ")))
        .collect();
    assert_eq!(marked, ["truck: errors 0.2/s", "hopping: late 3/s"]);
}

#[test]
fn what_is_secret_is_not_shown() {
    let graph = graph(WHOLE);
    for format in Format::ALL {
        let drawn = draw(&graph, None, format).unwrap();
        assert!(!drawn.contains("secret"));
    }
    assert!(
        draw(&graph, None, Format::Svg)
            .unwrap()
            .contains("where ***")
    );
}

#[test]
fn a_graph_that_cannot_be_run_is_drawn() {
    let graph = graph(
        "[stream.readings]\n[map.a]\nfrom = [\"readings\", \"c\"]\n[map.b]\nfrom = [\"a\", \"b\"]\n[map.c]\nfrom = [\"b.errors\"]",
    );
    let picture = picture(&graph, None).unwrap();
    let kinds: Vec<Kind> = picture.nodes().iter().map(|node| node.kind).collect();
    assert_eq!(kinds, [Kind::Stream, Kind::Map, Kind::Map, Kind::Map]);
    assert_eq!(picture.edges().len(), 5);
    for format in Format::ALL {
        assert!(!draw(&graph, None, format).unwrap().is_empty());
    }
    let svg = draw(&graph, None, Format::Svg).unwrap();
    assert_eq!(svg.matches("closes a circle").count(), 2);
}
