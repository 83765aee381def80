//! Names as connections, and the order of the nodes.

use quiver_model::{StreamName, meant};

use crate::{
    config::{Config, NodeKind, listed},
    diagnostics::{Diagnostic, Diagnostics},
    graph::{Edge, Graph, Node, Origin, Port, Store, Stream},
    source::Located,
    value::Text,
};

pub(crate) fn connect(config: &Config, diagnostics: &mut Diagnostics) -> Graph {
    let mut graph = Graph {
        streams: config
            .streams
            .iter()
            .map(|stream| Stream {
                name: stream.name.value.clone(),
                declared: Some(stream.clone()),
            })
            .collect(),
        nodes: config
            .nodes
            .iter()
            .map(|node| Node {
                config: node.clone(),
                inputs: Vec::new(),
            })
            .collect(),
        ..Graph::default()
    };
    for number in 0..graph.nodes.len() {
        let from = graph.nodes[number].config.from.clone();
        graph.nodes[number].inputs = edges(&mut graph, &from, diagnostics);
    }
    for store in &config.stores {
        let inputs = edges(&mut graph, &store.from, diagnostics);
        graph.stores.push(Store {
            config: store.clone(),
            inputs,
        });
    }
    kept_names(&graph, diagnostics);
    actions(&graph, diagnostics);
    unused(&graph, diagnostics);
    graph
}

fn edges(graph: &mut Graph, from: &[Located<Text>], diagnostics: &mut Diagnostics) -> Vec<Edge> {
    let mut edges: Vec<Edge> = Vec::with_capacity(from.len());
    for name in from {
        let Some(origin) = origin(graph, name, diagnostics) else {
            continue;
        };
        if let Some(first) = edges.iter().find(|edge| edge.origin == origin) {
            let message = format!("`{}` is named twice", name.as_str());
            diagnostics.push(
                Diagnostic::error(message, name.place.clone())
                    .related(first.place.clone(), "the first time is here"),
            );
            continue;
        }
        edges.push(Edge {
            origin,
            place: name.place.clone(),
        });
    }
    edges
}

fn origin(
    graph: &mut Graph,
    name: &Located<Text>,
    diagnostics: &mut Diagnostics,
) -> Option<Origin> {
    if let Some(origin) = graph.find(name.as_str()) {
        return Some(origin);
    }
    let text = name.as_str();
    let whole = name.part(&(0..text.len()));
    let (base, port) = match text.split_once('.') {
        None => (text, None),
        Some((base, port)) => (base, Some(port)),
    };
    if let Some(port) = port {
        let place = name.part(&(base.len() + 1..text.len()));
        if let Some(node) = graph.nodes.iter().find(|node| node.name() == base) {
            let ports: Vec<String> = node.ports().iter().map(Port::to_string).collect();
            let message = format!("{} `{base}` has no port `{port}`", node.section());
            let help = format!("its ports are {}", listed(&ports));
            diagnostics.push(Diagnostic::error(message, place).help(help));
            return None;
        }
        if graph.streams.iter().any(|stream| stream.name == base) {
            let message = format!("`{base}` is a stream, and has no ports");
            diagnostics.push(Diagnostic::error(message, place).help(format!("write `{base}`")));
            return None;
        }
    }
    let mut known: Vec<String> = graph
        .nodes
        .iter()
        .map(|node| node.name().to_owned())
        .collect();
    known.extend(graph.streams.iter().map(|stream| stream.name.clone()));
    let near = meant(base, known);
    if port.is_none() && near.is_none() && StreamName::new(base).is_ok() {
        diagnostics.push(
            Diagnostic::warning(format!("stream `{base}` is not declared"), whole)
                .label("its fields cannot be checked")
                .help(format!("declare it: `[stream.{base}]`")),
        );
        graph.streams.push(Stream {
            name: base.to_owned(),
            declared: None,
        });
        return Some(Origin::Stream(graph.streams.len() - 1));
    }
    let help = near.map_or_else(
        || format!("declare a stream: `[stream.{base}]`"),
        |near| format!("did you mean `{near}`?"),
    );
    let message = format!("there is no stream or node `{base}`");
    diagnostics.push(Diagnostic::error(message, name.part(&(0..base.len()))).help(help));
    None
}

/// Rows that a store keeps of a port beside `out` are a stream of the names of both.
fn kept_names(graph: &Graph, diagnostics: &mut Diagnostics) {
    for edge in graph.stores.iter().flat_map(|store| &store.inputs) {
        let Origin::Node(number, port @ (Port::Late | Port::Errors)) = edge.origin else {
            continue;
        };
        let Some(node) = graph.nodes.get(number) else {
            continue;
        };
        let name = format!("{}_{port}", node.name());
        let help = "rename the node, whose port it is, or the other";
        if StreamName::new(&name).is_err() {
            let message = format!("rows of this port would be stream `{name}`, which is too long");
            let problem = Diagnostic::error(message, edge.place.clone());
            diagnostics.push(problem.help("give the node a shorter name"));
        }
        let nodes = graph.nodes.iter().map(|node| &node.config.name);
        let streams = graph.streams.iter();
        let streams = streams.filter_map(|stream| Some(&stream.declared.as_ref()?.name));
        let declared = nodes.chain(streams).find(|other| other.value == name);
        if declared.is_none() && graph.find(&name).is_none() {
            continue;
        }
        let message = format!("rows of this port would be stream `{name}`, and there is one");
        let mut problem = Diagnostic::error(message, edge.place.clone()).help(help);
        if let Some(other) = declared {
            problem = problem.related(other.place.clone(), "it is here");
        }
        diagnostics.push(problem);
    }
}

/// Alerts name actions.
fn actions(graph: &Graph, diagnostics: &mut Diagnostics) {
    let is_action = |node: &&Node| node.section() == "action";
    let known: Vec<String> = graph
        .nodes
        .iter()
        .filter(is_action)
        .map(|node| node.name().to_owned())
        .collect();
    for node in &graph.nodes {
        let NodeKind::Later { section, actions } = &node.config.kind else {
            continue;
        };
        let message = format!("this version does not run {section} nodes");
        diagnostics.push(
            Diagnostic::warning(message, node.config.name.place.clone())
                .label("only its inputs are checked"),
        );
        for action in actions {
            if !known.iter().any(|known| known == action.as_str()) {
                let help = meant(action.as_str(), known.clone()).map_or_else(
                    || format!("declare it: `[action.{}]`", action.as_str()),
                    |near| format!("did you mean `{near}`?"),
                );
                let message = format!("there is no action `{}`", action.as_str());
                diagnostics.push(Diagnostic::error(message, action.place.clone()).help(help));
            }
        }
    }
}

/// Views that nobody takes rows from do nothing.
fn unused(graph: &Graph, diagnostics: &mut Diagnostics) {
    let is_used = |number: usize| {
        let of_nodes = graph.nodes.iter().flat_map(|node| &node.inputs);
        let of_stores = graph.stores.iter().flat_map(|store| &store.inputs);
        of_nodes
            .chain(of_stores)
            .any(|edge| matches!(edge.origin, Origin::Node(node, _) if node == number))
    };
    for (number, node) in graph.nodes.iter().enumerate() {
        let is_view = matches!(
            node.config.kind,
            NodeKind::Route(_) | NodeKind::Map(_) | NodeKind::Lookup(_)
        );
        if is_view && !is_used(number) {
            let message = format!(
                "nothing takes the rows of {} `{}`",
                node.section(),
                node.name()
            );
            diagnostics.push(
                Diagnostic::warning(message, node.config.name.place.clone()).help(format!(
                    "name it in the `from` of a node, or keep its rows: `[store.{}]` with `from = [\"{}\"]`; `quiver tail {}` shows them",
                    node.name(), node.name(), node.name()
                )),
            );
        }
    }
}

/// The nodes, each behind those whose rows it takes; those of a cycle, told with its path, and what is
/// behind them, come last.
pub(crate) fn order(graph: &Graph, diagnostics: &mut Diagnostics) -> Vec<usize> {
    let count = graph.nodes.len();
    let parents = |number: usize| {
        graph.nodes[number]
            .inputs
            .iter()
            .filter_map(|edge| match edge.origin {
                Origin::Node(parent, _) => Some((parent, edge)),
                Origin::Stream(_) => None,
            })
    };
    let mut waiting: Vec<usize> = (0..count).map(|number| parents(number).count()).collect();
    let mut order: Vec<usize> = (0..count).filter(|number| waiting[*number] == 0).collect();
    // Routes that are the default come behind the others of the same input: they are sorted last
    // when they are evaluated, so that here only what is connected counts.
    let mut next = 0;
    while next < order.len() {
        let done = order[next];
        next += 1;
        for (number, waits) in waiting.iter_mut().enumerate() {
            let times = parents(number)
                .filter(|(parent, _)| *parent == done)
                .count();
            if times > 0 {
                *waits -= times;
                if *waits == 0 {
                    order.push(number);
                }
            }
        }
    }
    let mut told = vec![false; count];
    for start in 0..count {
        if waiting[start] == 0 || told[start] {
            continue;
        }
        // Every node that is left has a parent that is left: walking back ends in a cycle.
        let mut path = vec![start];
        let cycle = loop {
            let last = path[path.len() - 1];
            let Some((parent, _)) = parents(last).find(|(parent, _)| waiting[*parent] > 0) else {
                break Vec::new();
            };
            if let Some(first) = path.iter().position(|number| *number == parent) {
                break path.split_off(first);
            }
            path.push(parent);
        };
        if cycle.iter().any(|number| told[*number]) || cycle.is_empty() {
            continue;
        }
        cycle.iter().for_each(|number| told[*number] = true);
        let mut names: Vec<&str> = cycle
            .iter()
            .rev()
            .map(|number| graph.nodes[*number].name())
            .collect();
        // The same cycle is told the same way, wherever it was entered.
        let least = (0..names.len())
            .min_by_key(|index| names[*index])
            .unwrap_or(0);
        names.rotate_left(least);
        names.push(names[0]);
        let first = &graph.nodes[cycle[0]];
        let place = parents(cycle[0])
            .find(|(parent, _)| cycle.contains(parent))
            .map_or_else(
                || first.config.name.place.clone(),
                |(_, edge)| edge.place.clone(),
            );
        let message = format!("the nodes go in a circle: {}", names.join(" → "));
        diagnostics.push(
            Diagnostic::error(message, place)
                .help("rows would never come to an end: take one of them out of a `from`"),
        );
    }
    // What else is wrong with those in a circle, and those behind it, is told as well.
    order.extend((0..count).filter(|number| waiting[*number] > 0));
    order
}
