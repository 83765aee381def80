//! The picture of a graph: what each node does in a line, and what is known of rates.

use std::collections::BTreeMap;

use crate::{
    config::{
        Emission, FieldConfig, LookupConfig, LookupTable, MapConfig, MissingConfig, Mode, NodeKind,
        RouteConfig, Shape, StoreConfig, WindowConfig, duration_text,
    },
    draw::{
        DrawError,
        picture::{Edge, Exit, Kind, Node, Picture, rate_text},
    },
    graph::{self, Graph, Origin, Port, Stream},
    source::Located,
    value::Text,
};

/// Most fields of a stream that are told.
const FIELDS_MAX: usize = 30;

/// Rows a second at ports, live.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    rates: BTreeMap<(String, Port), f64>,
}

impl Rates {
    /// Sets the rate of a port of a node, in rows a second; a stream has the port `out`. What is no
    /// rate (below 0, not finite) is as if it were not known.
    pub fn set(&mut self, name: &str, port: Port, rows_per_second: f64) {
        let key = (name.to_owned(), port);
        if rows_per_second.is_finite() && rows_per_second >= 0.0 {
            self.rates.insert(key, rows_per_second);
        } else {
            self.rates.remove(&key);
        }
    }

    /// The rate of a port of a node, in rows a second, if it is known.
    pub fn get(&self, name: &str, port: Port) -> Option<f64> {
        self.rates.get(&(name.to_owned(), port)).copied()
    }
}

const fn exit(port: Port) -> Exit {
    match port {
        Port::Out => Exit::Out,
        Port::Late => Exit::Late,
        Port::Errors => Exit::Errors,
    }
}

/// The picture of a graph, with rates where they are known. A graph with errors is drawn as far as
/// it could be made.
///
/// # Errors
/// If it is larger than a picture can be.
pub fn picture(graph: &Graph, rates: Option<&Rates>) -> Result<Picture, DrawError> {
    let mut picture = Picture::default();
    // Whatever a text went through before it came here.
    let without_secrets = |mut node: Node| {
        let texts = node.details.iter_mut().chain([&mut node.name]);
        texts.for_each(|text| graph.secrets.mask(text));
        node
    };
    for stream in &graph.streams {
        picture.add(without_secrets(Node {
            name: stream.name.clone(),
            kind: Kind::Stream,
            details: stream_details(stream),
            marks: Vec::new(),
        }))?;
    }
    for node in &graph.nodes {
        let mut details = node_details(&node.config.kind);
        details.extend(node.config.description.clone());
        let mark = |port: Port| {
            let rate = rates?.get(node.name(), port)?;
            (rate > 0.0).then(|| format!("{port} {}", rate_text(rate)))
        };
        picture.add(without_secrets(Node {
            name: node.name().to_owned(),
            kind: kind_of(node),
            details,
            marks: [Port::Errors, Port::Late]
                .into_iter()
                .filter_map(mark)
                .collect(),
        }))?;
    }
    for store in &graph.stores {
        picture.add(without_secrets(Node {
            name: store.config.name.value.clone(),
            kind: Kind::Store,
            details: store_details(&store.config),
            marks: Vec::new(),
        }))?;
    }
    // Streams, nodes and stores are numbered in this order.
    let first_node = graph.streams.len();
    let of_nodes = graph.nodes.iter().map(|node| &node.inputs);
    let of_stores = graph.stores.iter().map(|store| &store.inputs);
    for (number, inputs) in of_nodes.chain(of_stores).enumerate() {
        for input in inputs {
            let (from, name, port) = match input.origin {
                Origin::Stream(stream) => {
                    let name = graph.streams.get(stream).map(|stream| stream.name.as_str());
                    (stream, name, Port::Out)
                }
                Origin::Node(node, port) => {
                    let name = graph.nodes.get(node).map(graph::Node::name);
                    (first_node + node, name, port)
                }
            };
            let rate = rates.zip(name);
            picture.connect(Edge {
                from,
                to: first_node + number,
                exit: exit(port),
                rate: rate.and_then(|(rates, name)| rates.get(name, port)),
            })?;
        }
    }
    // An action has no inputs of its own: alerts name it.
    for (number, node) in graph.nodes.iter().enumerate() {
        let NodeKind::Later { actions, .. } = &node.config.kind else {
            continue;
        };
        for action in actions {
            let is_named = |node: &graph::Node| {
                kind_of(node) == Kind::Action && node.name() == action.as_str()
            };
            if let Some(to) = graph.nodes.iter().position(is_named) {
                picture.connect(Edge {
                    from: first_node + number,
                    to: first_node + to,
                    exit: Exit::Out,
                    rate: rates.and_then(|rates| rates.get(node.name(), Port::Out)),
                })?;
            }
        }
    }
    Ok(picture)
}

fn kind_of(node: &graph::Node) -> Kind {
    match &node.config.kind {
        NodeKind::Route(_) => Kind::Route,
        NodeKind::Map(_) => Kind::Map,
        NodeKind::Lookup(_) => Kind::Lookup,
        NodeKind::Window(_) => Kind::Window,
        NodeKind::Missing(_) => Kind::Missing,
        NodeKind::Later { section, .. } => {
            let mut all = Kind::ALL.into_iter();
            all.find(|kind| kind.word() == *section)
                .unwrap_or(Kind::Detect)
        }
    }
}

/// A text as it may be shown: what comes from the environment or from a file is not.
fn shown(text: &Located<Text>) -> &str {
    match text.value.is_secret {
        true => "***",
        false => text.as_str(),
    }
}

fn span(micros: &Located<i64>) -> String {
    duration_text(micros.value)
}

fn listed(texts: &[Located<Text>]) -> String {
    texts.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn stream_details(stream: &Stream) -> Vec<String> {
    let Some(declared) = &stream.declared else {
        return vec!["not declared".to_owned()];
    };
    let count = match declared.fields.len() {
        0 => "fields learned".to_owned(),
        1 => "1 field".to_owned(),
        count => format!("{count} fields"),
    };
    let mut details = vec![match (declared.fields.is_empty(), declared.mode) {
        (false, Mode::Strict) => format!("{count}, strict"),
        (false, Mode::Learned) => format!("{count}, more learned"),
        _ => count,
    }];
    details.extend(declared.description.clone());
    details.extend(declared.fields.iter().take(FIELDS_MAX).map(field_text));
    if declared.fields.len() > FIELDS_MAX {
        details.push(format!("… and {} more", declared.fields.len() - FIELDS_MAX));
    }
    details
}

fn field_text(field: &FieldConfig) -> String {
    match &field.unit {
        Some(unit) => format!("{} [{unit}]", field.name.value),
        None => field.name.value.clone(),
    }
}

fn store_details(store: &StoreConfig) -> Vec<String> {
    let mut kept = Vec::new();
    match (&store.keep, store.archive) {
        (Some(keep), true) => kept.push(format!("keep {}", span(keep))),
        (None, true) => kept.push("keep for ever".to_owned()),
        (_, false) => {}
    }
    if let Some(hot) = &store.hot {
        kept.push(format!("hot {}", span(hot)));
    }
    if let Some(queue) = &store.queue {
        kept.push(format!("queue {}", span(queue)));
    }
    if kept.is_empty() {
        kept.push("not archived".to_owned());
    }
    let line = kept.join(" · ");
    match kept.len() {
        1 => kept,
        // The line is cut in a box; its parts are told below it.
        _ => std::iter::once(line).chain(kept).collect(),
    }
}

fn node_details(kind: &NodeKind) -> Vec<String> {
    match kind {
        NodeKind::Route(route) => route_details(route),
        NodeKind::Map(map) => map_details(map),
        NodeKind::Lookup(lookup) => lookup_details(lookup),
        NodeKind::Window(window) => window_details(window),
        NodeKind::Missing(missing) => missing_details(missing),
        NodeKind::Later { actions, .. } if !actions.is_empty() => {
            vec![format!("then {}", listed(actions))]
        }
        NodeKind::Later { .. } => Vec::new(),
    }
}

fn route_details(route: &RouteConfig) -> Vec<String> {
    let mut details = Vec::new();
    if let Some(condition) = &route.condition {
        details.push(shown(condition).to_owned());
    }
    if route.is_default {
        details.push("what no other route takes".to_owned());
    }
    if let Some(sample) = &route.sample {
        details.push(format!("{} % of rows", percent(sample.value)));
    }
    if let Some(limit) = &route.limit {
        details.push(format!("at most {}/s a device", limit.value));
    }
    if details.is_empty() {
        details.push("all rows".to_owned());
    }
    details
}

/// A share in hundredths, without what is only rounding.
fn percent(share: f64) -> f64 {
    (share * 1e6).round() / 1e4
}

fn map_details(map: &MapConfig) -> Vec<String> {
    let select = map.select.iter().map(|select| shown(select).to_owned());
    let condition = map.condition.iter();
    let condition = condition.map(|condition| format!("where {}", shown(condition)));
    let details: Vec<String> = select.chain(condition).collect();
    match details.is_empty() {
        true => vec!["as it is".to_owned()],
        false => details,
    }
}

fn lookup_details(lookup: &LookupConfig) -> Vec<String> {
    let keys: Vec<String> = lookup
        .on
        .iter()
        .map(|(column, other)| match shown(column) == shown(other) {
            true => shown(column).to_owned(),
            false => format!("{} = {}", shown(column), shown(other)),
        })
        .collect();
    let table = match &lookup.table {
        Some(LookupTable::File(file)) => {
            let path = shown(file);
            path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned()
        }
        Some(LookupTable::Registry) => "registry".to_owned(),
        None => "?".to_owned(),
    };
    let mut details = vec![match keys.is_empty() {
        true => table,
        false => format!("{table} on {}", keys.join(", ")),
    }];
    if let Some(LookupTable::File(file)) = &lookup.table {
        details.push(format!("file {}", shown(file)));
    }
    if !lookup.columns.is_empty() {
        details.push(format!("adds {}", listed(&lookup.columns)));
    }
    if !lookup.keeps_unmatched {
        details.push("rows without a match are errors".to_owned());
    }
    details
}

fn window_details(window: &WindowConfig) -> Vec<String> {
    let sizes = listed(&window.sizes);
    let mut line = match window.shape {
        Shape::Tumbling => sizes,
        Shape::Hopping => match &window.every {
            Some(every) => format!("{sizes} every {}", span(every)),
            None => sizes,
        },
        Shape::Sliding => format!("sliding {sizes}"),
        Shape::Session => match &window.gap {
            Some(gap) => format!("session, gap {}", span(gap)),
            None => "session".to_owned(),
        },
        Shape::State => match &window.open {
            Some(open) => format!("while {}", shown(open)),
            None => "state".to_owned(),
        },
    };
    if let Some(by) = &window.by {
        line.push_str(&match by.value.is_empty() {
            true => " over all".to_owned(),
            false => format!(" by {}", listed(&by.value)),
        });
    }
    let mut details = vec![line];
    let text = |word: &str, text: &Option<Located<Text>>| {
        let text = text.as_ref()?;
        Some(format!("{word} {}", shown(text)))
    };
    let time = |word: &str, micros: &Option<Located<i64>>| {
        let micros = micros.as_ref()?;
        Some(format!("{word} {}", span(micros)))
    };
    let emission = match window.emit {
        Emission::Close => None,
        Emission::Update => Some("emits updates".to_owned()),
    };
    let more = [
        text("select", &window.select),
        text("where", &window.condition),
        text("open", &window.open),
        text("close", &window.close),
        time("at most", &window.max),
        time("out of order by", &window.out_of_order),
        time("late by", &window.late),
        time("early by", &window.early),
        time("idle after", &window.idle),
        emission,
        time("revised for", &window.retain),
        text("time zone", &window.timezone),
    ];
    details.extend(more.into_iter().flatten());
    details
}

fn missing_details(missing: &MissingConfig) -> Vec<String> {
    let after = missing.after.as_ref().map_or("?".to_owned(), span);
    vec![match missing.fields.is_empty() {
        true => format!("no rows for {after}"),
        false => format!("no {} for {after}", listed(&missing.fields)),
    }]
}

#[cfg(test)]
mod tests;
