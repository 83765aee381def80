//! Nodes as they are written.

use crate::{
    config::{TableReader, duration_text, parse_duration},
    diagnostics::Diagnostic,
    source::Located,
    value::{Text, Value},
};

/// Most windows of one size that a row may be in: as many as a key may have open.
const WINDOWS_MAX: i64 = 10_000;

/// A node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: Located<String>,
    /// Its inputs: `stream`, `node`, `node.port`.
    pub from: Vec<Located<Text>>,
    /// What it does.
    pub kind: NodeKind,
    /// What it is for.
    pub description: Option<String>,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// Takes some of the rows.
    Route(RouteConfig),
    /// Makes other columns of each row.
    Map(MapConfig),
    /// Adds columns from a table.
    Lookup(LookupConfig),
    /// Aggregates rows.
    Window(Box<WindowConfig>),
    /// Says when nothing comes.
    Missing(MissingConfig),
    /// A stage of a later version: `detect`, `alert`, `action`. Its inputs are known, its settings
    /// not judged.
    Later {
        /// Its section.
        section: &'static str,
        /// The actions that an alert names.
        actions: Vec<Located<Text>>,
    },
}

/// A route.
#[derive(Clone, Debug, Default)]
pub struct RouteConfig {
    /// Which rows it takes; all of them if not said.
    pub condition: Option<Located<Text>>,
    /// Whether it takes the rows that no other route from the same input takes.
    pub is_default: bool,
    /// The share of rows that it takes, above 0 and at most 1.
    pub sample: Option<Located<f64>>,
    /// Most rows a second, by arrival, of each device.
    pub limit: Option<Located<f64>>,
}

/// A map.
#[derive(Clone, Debug, Default)]
pub struct MapConfig {
    /// Its columns; those of the input if not said.
    pub select: Option<Located<Text>>,
    /// Which rows it takes.
    pub condition: Option<Located<Text>>,
}

/// Where a lookup's rows come from.
#[derive(Clone, Debug)]
pub enum LookupTable {
    /// A CSV or Parquet file.
    File(Located<Text>),
    /// The registry of devices: its attributes.
    Registry,
}

/// A lookup.
#[derive(Clone, Debug)]
pub struct LookupConfig {
    /// Where its rows come from.
    pub table: Option<LookupTable>,
    /// Pairs of (the row's column, the table's column) that have to be equal.
    pub on: Vec<(Located<Text>, Located<Text>)>,
    /// The table's columns that are added; all but the keys if empty.
    pub columns: Vec<Located<Text>>,
    /// Whether rows without a match go on, with nulls.
    pub keeps_unmatched: bool,
}

/// Windows of one shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// One behind the other.
    Tumbling,
    /// A new one every so often.
    Hopping,
    /// One that ends at each row.
    Sliding,
    /// Rows that are not farther apart than a gap.
    Session,
    /// From a row that opens it to one that closes it.
    State,
}

/// When a window's result is put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Emission {
    /// When it has closed.
    #[default]
    Close,
    /// Whenever it has changed, numbered.
    Update,
}

/// A window node.
#[derive(Clone, Debug)]
pub struct WindowConfig {
    /// Their shape.
    pub shape: Shape,
    /// Their sizes: spans of time, or words of the calendar (`day`, `week`, `month`).
    pub sizes: Vec<Located<Text>>,
    /// How often a hopping one begins, in microseconds.
    pub every: Option<Located<i64>>,
    /// How far apart a session's rows may be, in microseconds.
    pub gap: Option<Located<i64>>,
    /// The longest session or state, in microseconds.
    pub max: Option<Located<i64>>,
    /// Which row opens a state.
    pub open: Option<Located<Text>>,
    /// Which row closes it.
    pub close: Option<Located<Text>>,
    /// Its keys: `device`, `device.attribute`; none: over all rows. `None` if not said.
    pub by: Option<Located<Vec<Located<Text>>>>,
    /// Which rows count.
    pub condition: Option<Located<Text>>,
    /// What is aggregated.
    pub select: Option<Located<Text>>,
    /// Out-of-order tolerance, in microseconds.
    pub out_of_order: Option<Located<i64>>,
    /// Late-arrival tolerance, in microseconds.
    pub late: Option<Located<i64>>,
    /// Early-arrival tolerance, in microseconds.
    pub early: Option<Located<i64>>,
    /// How long a device may be silent before its windows close without it, in microseconds.
    pub idle: Option<Located<i64>>,
    /// When results are put out.
    pub emit: Emission,
    /// How long a closed window can still be revised, in microseconds.
    pub retain: Option<Located<i64>>,
    /// The time zone that windows are aligned to.
    pub timezone: Option<Located<Text>>,
}

/// A node that says when nothing comes.
#[derive(Clone, Debug)]
pub struct MissingConfig {
    /// After how long, in microseconds.
    pub after: Option<Located<i64>>,
    /// The fields without a value; rows at all if empty.
    pub fields: Vec<Located<Text>>,
    /// After how long a device is taken to be gone for good, in microseconds.
    pub forget: Option<Located<i64>>,
}

/// The inputs of a node or store.
pub(crate) fn read_from(reader: &mut TableReader<'_>) -> Vec<Located<Text>> {
    let Some(from) = reader.texts("from") else {
        if reader.any("from").is_none() {
            reader.missing("from", "[\"readings\"]");
        }
        return Vec::new();
    };
    if from.value.is_empty() {
        let message = format!("`from` of {} names nothing", reader.subject);
        let problem = Diagnostic::error(message, from.place.clone());
        reader
            .diagnostics
            .push(problem.help("name the streams or nodes whose rows it takes"));
    }
    from.value
}

pub(crate) fn read(
    section: &'static str,
    name: Located<String>,
    mut reader: TableReader<'_>,
) -> NodeConfig {
    // An action is named by alerts, and has no inputs of its own.
    let from = if section == "action" {
        reader
            .texts("from")
            .map_or_else(Vec::new, |from| from.value)
    } else {
        read_from(&mut reader)
    };
    let description = reader.text("description").map(|text| text.value.value);
    let kind = match section {
        "route" => NodeKind::Route(route(&mut reader)),
        "map" => NodeKind::Map(MapConfig {
            select: reader.text("select"),
            condition: reader.text("where"),
        }),
        "lookup" => NodeKind::Lookup(lookup(&mut reader)),
        "window" => NodeKind::Window(Box::new(window(&mut reader))),
        "missing" => NodeKind::Missing(missing(&mut reader)),
        section => {
            let actions = reader.texts("actions");
            let kind = NodeKind::Later {
                section,
                actions: actions.map_or_else(Vec::new, |actions| actions.value),
            };
            return NodeConfig {
                name,
                from,
                kind,
                description,
            };
        }
    };
    reader.finish();
    NodeConfig {
        name,
        from,
        kind,
        description,
    }
}

fn route(reader: &mut TableReader<'_>) -> RouteConfig {
    let condition = reader.text("where");
    let is_default = reader.boolean("default");
    let sample = reader.number("sample");
    let limit = reader.number("limit");
    if let (Some(condition), Some(is_default)) = (&condition, &is_default)
        && is_default.value
    {
        let message = format!("{} is the default, and has a condition", reader.subject);
        let problem = Diagnostic::error(message, condition.place.clone());
        reader.diagnostics.push(
            problem
                .related(
                    is_default.place.clone(),
                    "it takes what no other route takes",
                )
                .help("leave one of them out"),
        );
    }
    if let Some(sample) = &sample
        && !(sample.value > 0.0 && sample.value <= 1.0)
    {
        reader.invalid(
            "sample",
            "a share is above 0 and at most 1",
            sample.place.clone(),
        );
    }
    if let Some(limit) = &limit
        && !(limit.value > 0.0 && limit.value.is_finite())
    {
        reader.invalid("limit", "rows a second are above 0", limit.place.clone());
    }
    RouteConfig {
        condition,
        is_default: is_default.is_some_and(|is_default| is_default.value),
        sample,
        limit,
    }
}

fn lookup(reader: &mut TableReader<'_>) -> LookupConfig {
    let file = reader.text("file");
    let registry = reader
        .boolean("registry")
        .is_some_and(|registry| registry.value);
    let table = match (file, registry) {
        (Some(file), true) => {
            reader.invalid("file", "it has a file and the registry", file.place);
            None
        }
        (Some(file), false) => Some(LookupTable::File(file)),
        (None, true) => Some(LookupTable::Registry),
        (None, false) => {
            reader.missing("file", "\"trucks.csv\"`, or `registry = true");
            None
        }
    };
    let mut on = Vec::new();
    match reader.any("on").map(|value| (&value.value, &value.place)) {
        None => {}
        Some((Value::Text(text), place)) => {
            let text = Located::new(text.clone(), place.clone());
            on.push((text.clone(), text));
        }
        Some((Value::Table(pairs), _)) => {
            for (column, other) in &pairs.entries {
                if let Value::Text(text) = &other.value {
                    let column = Located::new(Text::plain(&column.value), column.place.clone());
                    on.push((column, Located::new(text.clone(), other.place.clone())));
                } else {
                    reader.invalid("on", "a column's name is a text", other.place.clone());
                }
            }
        }
        Some((_, place)) => {
            let problem = "write `on = \"device\"`, or `on = { device = \"truck_id\" }`: the row's column, the table's column";
            reader.invalid("on", problem, place.clone());
        }
    }
    let columns = reader.texts("columns");
    let words = [("keep", true), ("error", false)];
    let unmatched = reader.one_of("unmatched", &words);
    LookupConfig {
        table,
        on,
        columns: columns.map_or_else(Vec::new, |columns| columns.value),
        keeps_unmatched: unmatched.is_none_or(|unmatched| unmatched.value),
    }
}

fn missing(reader: &mut TableReader<'_>) -> MissingConfig {
    let after = reader.duration("after");
    if reader.any("after").is_none() {
        reader.missing("after", "\"5m\"");
    }
    let fields = reader.texts("fields");
    let forget = reader.duration("forget_after");
    if let Some(after) = after.as_ref().filter(|after| after.value <= 0) {
        reader.invalid(
            "after",
            "it has to be longer than nothing",
            after.place.clone(),
        );
    }
    if let (Some(after), Some(forget)) = (&after, &forget)
        && forget.value <= after.value
    {
        let problem = "nothing would be missing: it has to be longer than `after`";
        reader.invalid("forget_after", problem, forget.place.clone());
    }
    MissingConfig {
        forget,
        after,
        fields: fields.map_or_else(Vec::new, |fields| fields.value),
    }
}

fn window(reader: &mut TableReader<'_>) -> WindowConfig {
    let sizes = reader.texts("size");
    let every = reader.duration("every");
    let gap = reader.duration("gap");
    let words = [
        ("tumbling", 0_u8),
        ("hopping", 1),
        ("sliding", 2),
        ("session", 3),
        ("state", 4),
    ];
    let open = reader.text("open");
    let close = reader.text("close");
    let kind = reader.one_of("kind", &words);
    let shape = match kind.as_ref().map(|kind| kind.value) {
        Some(0) => Shape::Tumbling,
        Some(1) => Shape::Hopping,
        Some(2) => Shape::Sliding,
        Some(3) => Shape::Session,
        Some(_) => Shape::State,
        None if gap.is_some() => Shape::Session,
        None if open.is_some() => Shape::State,
        None if every.is_some() => Shape::Hopping,
        None => Shape::Tumbling,
    };
    let by = reader.texts("by");
    if reader.any("by").is_none() {
        let message = format!("{} does not say by which key", reader.subject);
        let problem = Diagnostic::error(message, reader.place.clone());
        reader.diagnostics.push(problem.help(
            "write `by = [\"device\"]`, `by = [\"device.fleet\"]`, or `by = []` for one window over all devices",
        ));
    }
    let condition = reader.text("where");
    let select = reader.required_text("select", "\"avg(temperature) AS mean\"");
    let out_of_order = reader.duration("out_of_order");
    let late = reader.duration("late");
    let early = reader.duration("early");
    let idle = reader.duration("idle");
    let words = [("close", Emission::Close), ("update", Emission::Update)];
    let emit = reader.one_of("emit", &words);
    let config = WindowConfig {
        shape,
        sizes: sizes.map_or_else(Vec::new, |sizes| sizes.value),
        every,
        gap,
        max: reader.duration("max"),
        open,
        close,
        by,
        condition,
        select,
        out_of_order,
        late,
        early,
        idle,
        emit: emit.map_or(Emission::Close, |emit| emit.value),
        retain: reader.duration("retain"),
        timezone: reader.text("timezone"),
    };
    check_window(&config, reader);
    config
}

/// Settings that a shape needs, and that it cannot have.
fn check_window(window: &WindowConfig, reader: &mut TableReader<'_>) {
    let needs_size = matches!(
        window.shape,
        Shape::Tumbling | Shape::Hopping | Shape::Sliding
    );
    if needs_size && window.sizes.is_empty() && reader.any("size").is_none() {
        reader.missing("size", "\"1m\"");
    }
    if !needs_size && let Some(size) = window.sizes.first() {
        reader.invalid(
            "size",
            "sessions and states have no size, but a `max`",
            size.place.clone(),
        );
    }
    let word = match window.shape {
        Shape::Tumbling => "a tumbling window",
        Shape::Hopping => "a hopping window",
        Shape::Sliding => "a sliding window",
        Shape::Session => "a session",
        Shape::State => "a state",
    };
    match (&window.every, window.shape == Shape::Hopping) {
        (None, true) => reader.missing("every", "\"1m\""),
        (Some(every), true) if every.value <= 0 => {
            reader.invalid(
                "every",
                "it has to be longer than nothing",
                every.place.clone(),
            );
        }
        (Some(every), true) => {
            let spans = window.sizes.iter();
            let spans = spans.filter_map(|size| parse_duration(size.as_str()).ok());
            let longest = spans.max().unwrap_or(0);
            let windows = longest.saturating_add(every.value - 1) / every.value;
            if windows > WINDOWS_MAX {
                let size = duration_text(longest);
                let message = format!(
                    "a row would be in {windows} windows of `size` {size}; at most {WINDOWS_MAX}: make `every` longer, or `size` shorter"
                );
                reader.invalid("every", &message, every.place.clone());
            }
        }
        (Some(every), false) => {
            reader.invalid(
                "every",
                &format!("{word} has no `every`"),
                every.place.clone(),
            );
        }
        _ => {}
    }
    match (&window.gap, window.shape == Shape::Session) {
        (None, true) => reader.missing("gap", "\"5m\""),
        (Some(gap), true) if gap.value <= 0 => {
            reader.invalid("gap", "it has to be longer than nothing", gap.place.clone());
        }
        (Some(gap), false) => {
            reader.invalid("gap", &format!("{word} has no `gap`"), gap.place.clone());
        }
        _ => {}
    }
    let is_state = window.shape == Shape::State;
    if is_state && window.open.is_none() {
        reader.missing("open", "\"speed > 0\"");
    }
    if is_state && window.close.is_none() {
        reader.missing("close", "\"speed = 0\"");
    }
    for (key, condition) in [("open", &window.open), ("close", &window.close)] {
        if let (Some(condition), false) = (condition, is_state) {
            reader.invalid(
                key,
                &format!("{word} has no `{key}`"),
                condition.place.clone(),
            );
        }
    }
    if let (Some(max), true) = (&window.max, needs_size) {
        reader.invalid(
            "max",
            &format!("{word} is as long as its `size`"),
            max.place.clone(),
        );
    }
    if let Some(max) = window.max.as_ref().filter(|max| max.value <= 0) {
        reader.invalid("max", "it has to be longer than nothing", max.place.clone());
    }
    let is_revisable = matches!(window.shape, Shape::Tumbling | Shape::Hopping);
    if window.emit == Emission::Update
        && !is_revisable
        && let Some(emit) = reader.any("emit")
    {
        let problem = format!("{word} is put out when it closes, and cannot be revised");
        reader.invalid("emit", &problem, emit.place.clone());
    }
    if let Some(retain) = &window.retain
        && window.emit == Emission::Close
    {
        reader.invalid(
            "retain",
            "closed windows are revised with `emit = \"update\"` only",
            retain.place.clone(),
        );
    }
    if let (Some(late), Some(out_of_order)) = (&window.late, &window.out_of_order)
        && late.value < out_of_order.value
    {
        let message = format!(
            "{} waits longer for rows out of order than rows may be late",
            reader.subject
        );
        let problem = Diagnostic::error(message, out_of_order.place.clone());
        reader.diagnostics.push(
            problem
                .related(
                    late.place.clone(),
                    "a row that comes later than this is late",
                )
                .help("`late` is judged first: make it at least as long as `out_of_order`"),
        );
    }
}
