//! Types: the columns of each port, and whether every expression means something over them.

mod lookup;

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::DataType;
use quiver_expression::{
    AggregateSelect, Compiled, Input, KeyColumn, LastStream, Problems, Projection, Scope,
    ScopeColumn,
};
use quiver_model::{DEVICE, meant};

use crate::{
    config::{MapConfig, MissingConfig, Mode, NodeKind, RouteConfig, Shape, WindowConfig},
    diagnostics::{Diagnostic, Diagnostics},
    graph::{
        Columns, Graph, Node, Origin, Port, REVISION, TableSchemas, WINDOW_END, WINDOW_START,
        columns::{is_field, time_type},
    },
    source::{Located, Place},
    value::Text,
};

/// Columns of the ports, as far as they are known.
pub(crate) type Ports = BTreeMap<Origin, Columns>;

pub(crate) fn check(
    graph: &Graph,
    tables: &TableSchemas,
    diagnostics: &mut Diagnostics,
) -> (Ports, BTreeSet<(String, String)>) {
    let mut lasts = BTreeSet::new();
    let mut ports = Ports::new();
    for (number, stream) in graph.streams.iter().enumerate() {
        let columns = match &stream.declared {
            None => Columns::unknown(),
            Some(declared) => Columns {
                is_open: declared.mode != Mode::Strict,
                ..Columns::of_fields(declared.fields.iter().map(|field| &field.field))
            },
        };
        ports.insert(Origin::Stream(number), columns);
    }
    for number in &graph.order {
        let node = &graph.nodes[*number];
        let mut checker = Checker {
            graph,
            node,
            ports: &ports,
            tables,
            lasts: &mut lasts,
            diagnostics,
        };
        let out = checker.node();
        let rows = checker.union();
        for port in node.ports() {
            let columns = match port {
                Port::Out => out.clone(),
                Port::Errors => rows.clone().with(super::ERROR_REASON, DataType::Utf8),
                Port::Late => rows
                    .clone()
                    .with(super::LATE_REASON, DataType::Utf8)
                    .with(WINDOW_START, time_type())
                    .with(WINDOW_END, time_type()),
            };
            ports.insert(Origin::Node(*number, *port), columns);
        }
    }
    stores(graph, diagnostics);
    (ports, lasts)
}

/// Least time for which rows are kept, in microseconds: they go with whole files, about once in a
/// tenth of that time.
const KEEP_MIN_US: i64 = 60_000_000;

/// What stores say of times.
fn stores(graph: &Graph, diagnostics: &mut Diagnostics) {
    for store in &graph.stores {
        let config = &store.config;
        let spans = [
            ("hot", config.hot.as_ref()),
            ("queue", config.queue.as_ref()),
            ("keep", config.keep.as_ref()),
        ];
        for (key, span) in spans {
            let Some(span) = span else {
                continue;
            };
            let keep = config.keep.as_ref().filter(|_| key != "keep");
            if span.value < KEEP_MIN_US {
                let message = format!("`{key}` of store `{}` is too short", config.name.value);
                let problem = Diagnostic::error(message, span.place.clone());
                diagnostics.push(problem.help("rows are kept for a minute at least: `\"1m\"`"));
            } else if let Some(keep) = keep
                && span.value > keep.value
            {
                let message = format!(
                    "`{key}` of store `{}` is longer than its rows are kept",
                    config.name.value
                );
                diagnostics.push(
                    Diagnostic::error(message, span.place.clone())
                        .related(keep.place.clone(), "so long")
                        .help(format!("make `keep` at least as long as `{key}`")),
                );
            }
        }
    }
}

/// The type of an aggregate of an argument, or why it has none.
pub fn aggregate_type(function: &str, argument: Option<&DataType>) -> Result<DataType, String> {
    let Some(argument) = argument else {
        return Ok(DataType::Int64);
    };
    let is_number = matches!(
        argument,
        DataType::Int64 | DataType::Float64 | DataType::Null
    ) || argument.is_numeric();
    let is_text = matches!(
        argument,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(..)
    );
    let numbers_only = |data_type| {
        if is_number {
            Ok(data_type)
        } else {
            Err(format!("`{function}` is of numbers only"))
        }
    };
    match function {
        "count" | "count_distinct" => Ok(DataType::Int64),
        "first" | "last" | "min" | "max" => Ok(if argument.is_integer() {
            DataType::Int64
        } else if is_number {
            DataType::Float64
        } else if is_text {
            DataType::Utf8
        } else {
            argument.clone()
        }),
        "sum" | "delta" => numbers_only(if argument.is_integer() {
            DataType::Int64
        } else {
            DataType::Float64
        }),
        "min_at" | "max_at" | "first_at" | "last_at" => Ok(time_type()),
        _ => numbers_only(DataType::Float64),
    }
}

/// Streams whose rows enter the log, with their columns.
pub(crate) fn last_streams(graph: &Graph, columns: impl Fn(Origin) -> Columns) -> Vec<LastStream> {
    let streams = (0..graph.streams.len()).map(Origin::Stream);
    let nodes = graph.nodes.iter().enumerate();
    let nodes = nodes
        .filter(|(_, node)| node.is_derived())
        .map(|(number, _)| Origin::Node(number, Port::Out));
    streams
        .chain(nodes)
        .map(|origin| {
            let columns = columns(origin);
            let fields = columns.fields.into_iter();
            LastStream {
                name: graph.name(origin),
                fields: fields
                    .map(|(name, data_type)| ScopeColumn { name, data_type })
                    .collect(),
                is_open: columns.is_open,
            }
        })
        .collect()
}

struct Checker<'a> {
    graph: &'a Graph,
    node: &'a Node,
    ports: &'a Ports,
    tables: &'a TableSchemas,
    lasts: &'a mut BTreeSet<(String, String)>,
    diagnostics: &'a mut Diagnostics,
}

impl Checker<'_> {
    fn columns_of(&self, origin: Origin) -> Columns {
        self.ports
            .get(&origin)
            .cloned()
            .unwrap_or_else(Columns::unknown)
    }

    /// Columns of rows of any input.
    fn union(&self) -> Columns {
        let mut all = Columns::default();
        for edge in &self.node.inputs {
            let columns = self.columns_of(edge.origin);
            all.is_open |= columns.is_open;
            for (name, data_type) in columns.fields {
                if !all.fields.iter().any(|(known, _)| *known == name) {
                    all.fields.push((name, data_type));
                }
            }
        }
        all
    }

    fn subject(&self, origin: Origin) -> String {
        match origin {
            Origin::Stream(_) => format!("stream `{}`", self.graph.name(origin)),
            Origin::Node(number, _) => format!(
                "the rows of {} `{}`",
                self.graph.nodes[number].section(),
                self.graph.name(origin)
            ),
        }
    }

    /// What an expression over rows of an origin may name.
    fn scope(&self, origin: Origin, columns: &Columns) -> Scope {
        let scope = columns.scope(self.subject(origin));
        scope.with_lasts(last_streams(self.graph, |origin| self.columns_of(origin)))
    }

    /// Last values that an expression asks for.
    fn asks(&mut self, inputs: &[Input]) {
        for input in inputs {
            if let Input::Last { stream, field } = input {
                self.lasts.insert((stream.clone(), field.clone()));
            }
        }
    }

    /// The columns of the port `out`.
    fn node(&mut self) -> Columns {
        match &self.node.config.kind {
            NodeKind::Route(route) => self.route(route),
            NodeKind::Map(map) => self.map(map),
            NodeKind::Window(window) => self.window(window),
            NodeKind::Missing(missing) => self.missing(missing),
            NodeKind::Lookup(lookup) => self.lookup(lookup),
            NodeKind::Later { .. } => Columns::unknown(),
        }
    }

    /// Tells problems of a text, but not those of names where not all names are known.
    fn tell(&mut self, text: &Located<Text>, columns: &Columns, Problems(problems): Problems) {
        for problem in problems {
            if columns.is_unknown() && problem.unknown_column.is_some() {
                continue;
            }
            let place = text.part(&problem.span);
            self.diagnostics
                .push(Diagnostic::error(problem.message, place).maybe_help(problem.help));
        }
    }

    /// Checks a condition over the rows of every input.
    fn condition(&mut self, text: Option<&Located<Text>>) {
        let Some(text) = text.filter(|text| !text.value.is_incomplete) else {
            return;
        };
        for edge in &self.node.inputs {
            let columns = self.columns_of(edge.origin);
            let scope = self.scope(edge.origin, &columns);
            match Compiled::condition(text.as_str(), &scope) {
                Ok(compiled) => self.asks(compiled.inputs()),
                Err(problems) => self.tell(text, &columns, problems),
            }
        }
    }

    fn route(&mut self, route: &RouteConfig) -> Columns {
        self.condition(route.condition.as_ref());
        if route.is_default {
            for edge in &self.node.inputs {
                let is_other = |node: &&Node| {
                    node.name() != self.node.name()
                        && matches!(&node.config.kind, NodeKind::Route(route) if !route.is_default)
                        && node.inputs.iter().any(|other| other.origin == edge.origin)
                };
                if !self.graph.nodes.iter().any(|node| is_other(&node)) {
                    let message = format!(
                        "route `{}` takes all of `{}`: no other route takes rows from it",
                        self.node.name(),
                        self.graph.name(edge.origin)
                    );
                    self.diagnostics
                        .push(Diagnostic::warning(message, edge.place.clone()));
                }
            }
        }
        self.union()
    }

    fn map(&mut self, map: &MapConfig) -> Columns {
        self.condition(map.condition.as_ref());
        let Some(select) = &map.select else {
            return self.union();
        };
        if select.value.is_incomplete {
            return Columns::unknown();
        }
        let mut out = Columns::default();
        for edge in &self.node.inputs {
            let columns = self.columns_of(edge.origin);
            let scope = self.scope(edge.origin, &columns);
            match Projection::new(select.as_str(), &scope, is_field) {
                Ok(projection) => {
                    let has_star = select.as_str().contains('*');
                    out.is_open |= columns.is_open && has_star;
                    for item in projection.items {
                        self.asks(item.inputs());
                        let place = select.part(&item.span);
                        self.named(&item.name, &place);
                        self.add(&mut out, item.name, item.stored, &place);
                    }
                }
                Err(problems) => {
                    out.is_open = true;
                    self.tell(select, &columns, problems);
                }
            }
        }
        out
    }

    /// A column that a node makes has to have the name of a field.
    fn named(&mut self, name: &str, place: &Place) {
        let problem = if quiver_model::RESERVED_COLUMNS
            .iter()
            .any(|reserved| reserved.eq_ignore_ascii_case(name))
        {
            Diagnostic::error(
                format!("`{name}` is a column that every row has by itself"),
                place.clone(),
            )
            .help("leave it out, or give it another name with `AS`")
        } else if let Err(error) = quiver_model::FieldName::new(name) {
            Diagnostic::error(error.to_string(), place.clone()).help("name it with `AS`")
        } else {
            return;
        };
        self.diagnostics.push(problem);
    }

    /// Adds a column that another input may have made, too: of the same type then.
    fn add(&mut self, out: &mut Columns, name: String, data_type: DataType, place: &Place) {
        match out.fields.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if *known != data_type => {
                let message =
                    format!("`{name}` is {data_type} of one input and {known} of another");
                self.diagnostics
                    .push(Diagnostic::error(message, place.clone()).help("CAST it to one type"));
            }
            Some(_) => {}
            None => out.fields.push((name, data_type)),
        }
    }

    fn missing(&mut self, missing: &MissingConfig) -> Columns {
        for field in &missing.fields {
            for edge in &self.node.inputs {
                let columns = self.columns_of(edge.origin);
                let names: Vec<String> = columns
                    .fields
                    .iter()
                    .map(|(name, _)| name.clone())
                    .collect();
                if columns.is_unknown() || names.iter().any(|name| name == field.as_str()) {
                    continue;
                }
                let message = format!(
                    "unknown field `{}` in {}",
                    field.as_str(),
                    self.subject(edge.origin)
                );
                let help =
                    meant(field.as_str(), names).map(|near| format!("did you mean `{near}`?"));
                self.diagnostics
                    .push(Diagnostic::error(message, field.place.clone()).maybe_help(help));
            }
        }
        Columns::of([
            ("state".to_owned(), DataType::Utf8),
            ("field".to_owned(), DataType::Utf8),
            ("since".to_owned(), time_type()),
            ("seconds".to_owned(), DataType::Float64),
        ])
    }

    fn window(&mut self, window: &WindowConfig) -> Columns {
        self.condition(window.condition.as_ref());
        if window.shape == Shape::State {
            self.condition(window.open.as_ref());
            self.condition(window.close.as_ref());
        }
        let zone = window.timezone.as_ref();
        if let Some(zone) = zone
            && zone.as_str().parse::<chrono_tz::Tz>().is_err()
        {
            let names = chrono_tz::TZ_VARIANTS
                .iter()
                .map(|zone| zone.name().to_owned());
            let help = meant(zone.as_str(), names).map(|near| format!("did you mean `{near}`?"));
            let message = format!("there is no time zone {:?}", zone.as_str());
            self.diagnostics
                .push(Diagnostic::error(message, zone.place.clone()).maybe_help(help));
        }
        for size in &window.sizes {
            let is_calendar = ["day", "week", "month"].contains(&size.as_str());
            let problem = match (is_calendar, &window.shape) {
                (true, Shape::Sliding) => {
                    Some("a sliding window is as long as a span of time".to_owned())
                }
                (true, Shape::Hopping) => {
                    Some("windows of the calendar do not overlap, and have no `every`".to_owned())
                }
                (true, _) => None,
                (false, _) => match crate::config::parse_duration(size.as_str()) {
                    Ok(0) => Some("a window has to be longer than nothing".to_owned()),
                    Ok(micros) => window
                        .every
                        .as_ref()
                        .filter(|every| every.value > micros)
                        .map(|_| {
                            "`every` is longer than the window: rows between would be in none"
                                .to_owned()
                        }),
                    Err(problem) => Some(problem),
                },
            };
            if let Some(problem) = problem {
                self.diagnostics
                    .push(Diagnostic::error(problem, size.place.clone()).help(
                    "a size is a span of time (\"1m\"), or `day`, `week`, `month` of the calendar",
                ));
            }
        }
        let keys = self.keys(window);
        let mut results = vec![
            KeyColumn {
                name: WINDOW_START.to_owned(),
                data_type: time_type(),
            },
            KeyColumn {
                name: WINDOW_END.to_owned(),
                data_type: time_type(),
            },
        ];
        results.extend(keys.iter().map(|name| KeyColumn {
            name: name.clone(),
            data_type: DataType::Utf8,
        }));
        let mut out = Columns::of(
            results
                .iter()
                .filter(|key| key.name != DEVICE)
                .map(|key| (key.name.clone(), key.data_type.clone())),
        );
        if window.sizes.len() > 1 {
            out = out.with(super::WINDOW_SIZE, DataType::Utf8);
        }
        if window.emit == crate::config::Emission::Update {
            out = out.with(REVISION, DataType::Int64);
        }
        let own: Vec<String> = out.fields.iter().map(|(name, _)| name.clone()).collect();
        let Some(select) = &window.select else {
            return out;
        };
        if select.value.is_incomplete {
            return Columns::unknown();
        }
        for edge in &self.node.inputs {
            let columns = self.columns_of(edge.origin);
            let scope = self.scope(edge.origin, &columns);
            match AggregateSelect::new(select.as_str(), &scope, &results, &aggregate_type) {
                Ok(compiled) => {
                    if compiled.calls.is_empty() {
                        let message = format!("window `{}` aggregates nothing", self.node.name());
                        self.diagnostics.push(
                            Diagnostic::error(message, select.place.clone())
                                .help("write `avg(field) AS mean`, `count(*) AS rows`, …"),
                        );
                    }
                    for item in compiled.projection.items {
                        let place = select.part(&item.span);
                        if results.iter().any(|key| key.name == item.name) {
                            // A key is there by itself.
                            continue;
                        }
                        self.named(&item.name, &place);
                        if own.contains(&item.name) {
                            let message = format!(
                                "`{}` is a column that every result has by itself",
                                item.name
                            );
                            self.diagnostics.push(
                                Diagnostic::error(message, place)
                                    .help("leave it out, or give it another name with `AS`"),
                            );
                            continue;
                        }
                        self.add(&mut out, item.name, item.stored, &place);
                    }
                }
                Err(problems) => {
                    out.is_open = true;
                    self.tell(select, &columns, problems);
                }
            }
        }
        out
    }

    /// Names of the key columns.
    fn keys(&mut self, window: &WindowConfig) -> Vec<String> {
        let Some(by) = &window.by else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for key in &by.value {
            let text = key.as_str();
            let attribute = text.strip_prefix("device.");
            match (text == DEVICE, attribute) {
                (true, _) => names.push(DEVICE.to_owned()),
                (false, Some(attribute)) => {
                    self.named(attribute, &key.place);
                    names.push(attribute.to_owned());
                }
                (false, None) => {
                    let message = format!("a window cannot be keyed by `{text}`");
                    self.diagnostics.push(
                        Diagnostic::error(message, key.place.clone()).help(
                            "a key is `device`, or an attribute of the device: `device.fleet`",
                        ),
                    );
                }
            }
        }
        if names.len() > 1 && names.iter().any(|name| name == DEVICE) {
            let message = "a device has its attributes by itself";
            self.diagnostics
                .push(Diagnostic::error(message, by.place.clone()).help(
                    "write `by = [\"device\"]`, and name attributes with a map or lookup behind it",
                ));
        }
        names
    }
}
