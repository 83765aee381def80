//! Windows: rows in, aggregates of them out as new rows.
//!
//! ```text
//! rows of each input ─where─▶ arguments, keys ─in order of position─▶ quiver_analysis::Windows
//!                                                                      │ closed windows
//!                                           new rows ◀─ select over keys and aggregates
//! ```

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arrow_array::{
    Array as _, ArrayRef, BooleanArray, DictionaryArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array, cast::AsArray as _, types::Int32Type,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::{concat::concat, filter::filter, nullif::nullif, take::take};
use quiver_analysis::{
    Aggregate, ArgumentType, Closed, Emit, Function, Key, Kind, Late, Limits, Output, Size,
    TimePolicy, WindowSpec, Windows,
};
use quiver_expression::{AggregateSelect, Compiled, FailedRow, KeyColumn, Projection, Scope};
use quiver_model::{DEVICE, TS};

use crate::{
    config::{Emission, Shape, WindowConfig, parse_duration},
    execute::{
        Beside, Entries,
        bound::{Bound, PerSchema, compile, inputs, scope},
        rows::{Rows, schema_with},
    },
    graph::{
        Columns, LATE_REASON, REVISION, WINDOW_END, WINDOW_SIZE, WINDOW_START, aggregate_type,
        time_type,
    },
};

/// How long closed windows can be revised unless said otherwise, in microseconds.
const RETAIN: i64 = 3_600_000_000;
/// Key of the entry with what all windows of a node have in common.
const COMMON: &[u8] = &[0xff, 0];
/// Key of the entry with the types of the arguments, a byte each.
const TYPES: &[u8] = &[0xff, 1];

/// What came of rows.
#[derive(Default)]
pub(crate) struct Pushed {
    pub(crate) new: Option<RecordBatch>,
    pub(crate) late: Vec<Rows>,
    pub(crate) errors: Vec<Rows>,
}

/// A window node.
pub(crate) struct WindowNode {
    name: String,
    definition: Definition,
    /// Columns of the inputs, as far as they are known.
    declared: Vec<Columns>,
    /// What is made of the rows of each input.
    bound: Vec<PerSchema<Result<BoundInput, String>>>,
    running: Option<Running>,
}

/// What the configuration says.
struct Definition {
    kinds: Vec<Kind>,
    sizes: Vec<String>,
    /// `device`, or names of attributes.
    keys: Vec<String>,
    condition: Option<String>,
    open: Option<String>,
    close: Option<String>,
    select: String,
    time: TimePolicy,
    emit: Emit,
    zone: Option<chrono_tz::Tz>,
}

/// Windows whose arguments have types.
struct Running {
    windows: Windows,
    output: Output,
    /// Of each call of an aggregate: its argument's number.
    types: Vec<ArgumentType>,
    select: Projection,
    scope: Scope,
    schema: SchemaRef,
    /// Whether the types have been saved.
    is_saved: bool,
}

/// Expressions over rows of one schema.
#[derive(Debug)]
struct BoundInput {
    condition: Option<Bound>,
    open: Option<Bound>,
    close: Option<Bound>,
    scope: Scope,
    /// The calls that have an argument or a filter: these are the arguments of the windows.
    arguments: Vec<(Option<Compiled>, Option<Compiled>)>,
}

/// Rows of an input, ready for the windows.
struct Ready {
    rows: Rows,
    keys: Vec<StringArray>,
    arguments: Vec<ArrayRef>,
    open: Option<BooleanArray>,
    close: Option<BooleanArray>,
}

impl Definition {
    fn new(config: &WindowConfig) -> Self {
        let text = |text: &Option<crate::source::Located<crate::value::Text>>| {
            text.as_ref().map(|text| text.as_str().to_owned())
        };
        let span =
            |span: &Option<crate::source::Located<i64>>| span.as_ref().map(|span| span.value);
        let sizes: Vec<String> = config
            .sizes
            .iter()
            .map(|size| size.as_str().to_owned())
            .collect();
        // Everything was checked with the graph.
        let kinds = match config.shape {
            Shape::Session => vec![Kind::Session {
                gap: span(&config.gap).unwrap_or(1),
                max: span(&config.max),
            }],
            Shape::State => vec![Kind::State {
                max: span(&config.max),
            }],
            Shape::Tumbling | Shape::Hopping | Shape::Sliding => sizes
                .iter()
                .map(|text| {
                    let size = match text.as_str() {
                        "day" => Size::Day,
                        "week" => Size::Week,
                        "month" => Size::Month,
                        span => Size::Micros(parse_duration(span).unwrap_or(1)),
                    };
                    match (&config.shape, size) {
                        (Shape::Hopping, size) => Kind::Hopping {
                            size,
                            every: span(&config.every).unwrap_or(1),
                        },
                        (Shape::Sliding, Size::Micros(size)) => Kind::Sliding { size },
                        (_, size) => Kind::Tumbling { size },
                    }
                })
                .collect(),
        };
        let by = config.by.iter().flat_map(|by| &by.value);
        Self {
            kinds,
            sizes,
            keys: by
                .map(|key| {
                    let key = key.as_str();
                    key.strip_prefix("device.").unwrap_or(key).to_owned()
                })
                .collect(),
            condition: text(&config.condition),
            open: text(&config.open),
            close: text(&config.close),
            select: text(&config.select).unwrap_or_default(),
            time: TimePolicy {
                late: span(&config.late),
                out_of_order: span(&config.out_of_order).unwrap_or(0),
                early: span(&config.early),
                idle: span(&config.idle),
            },
            emit: match config.emit {
                Emission::Close => Emit::Close,
                Emission::Update => Emit::Update {
                    retain: span(&config.retain).unwrap_or(RETAIN),
                },
            },
            zone: config
                .timezone
                .as_ref()
                .and_then(|zone| zone.as_str().parse().ok()),
        }
    }

    fn is_of_device(&self) -> bool {
        self.keys.iter().any(|key| key == DEVICE)
    }

    fn key(&self) -> Key {
        match self.keys.len() {
            0 => Key::All,
            _ if self.is_of_device() => Key::Device,
            count => Key::Columns {
                count,
                with_device: false,
            },
        }
    }

    /// Names of the key columns of the results but the device.
    fn attributes(&self) -> impl Iterator<Item = &String> {
        self.keys.iter().filter(|key| *key != DEVICE)
    }

    /// What every result has, in the order in which [`WindowNode::results`] gives it.
    fn result_columns(&self) -> Vec<KeyColumn> {
        let time = |name: &str| KeyColumn {
            name: name.to_owned(),
            data_type: time_type(),
        };
        let mut columns = vec![time(WINDOW_START), time(WINDOW_END)];
        columns.extend(self.keys.iter().map(|name| KeyColumn {
            name: name.clone(),
            data_type: DataType::Utf8,
        }));
        columns
    }

    /// Compiles `select` over rows of a scope. With `types`, these are the types of the arguments,
    /// whatever the rows have.
    fn select(
        &self,
        scope: Scope,
        types: Option<&[ArgumentType]>,
    ) -> Result<(AggregateSelect, Scope), String> {
        let keys = self.result_columns();
        compile(scope, |scope| {
            let number = AtomicUsize::new(0);
            let type_of = |function: &str, argument: Option<&DataType>| {
                let Some(argument) = argument else {
                    return aggregate_type(function, None);
                };
                let index = number.fetch_add(1, Ordering::Relaxed);
                let known = types.and_then(|types| types.get(index));
                let argument = match known {
                    Some(known) => known.arrow(),
                    None => argument_type(argument).arrow(),
                };
                aggregate_type(function, Some(&argument))
            };
            AggregateSelect::new(&self.select, scope, &keys, &type_of)
        })
        .map_err(|problems| problems.to_string())
    }
}

/// The type in which an argument is aggregated; what is not known yet is a number.
fn argument_type(data_type: &DataType) -> ArgumentType {
    match data_type {
        DataType::Boolean => ArgumentType::Bool,
        data_type if data_type.is_integer() => ArgumentType::Int64,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(..) => {
            ArgumentType::Text
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => ArgumentType::Time,
        _ => ArgumentType::Float64,
    }
}

impl WindowNode {
    pub(crate) fn new(name: &str, config: &WindowConfig, declared: &[Columns]) -> Self {
        Self {
            name: name.to_owned(),
            definition: Definition::new(config),
            declared: declared.to_vec(),
            bound: declared.iter().map(|_| PerSchema::default()).collect(),
            running: None,
        }
    }

    /// Whether time alone will make something come out.
    pub(crate) fn waits_for_time(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.windows.next_deadline().is_some())
    }

    /// Time of rows that are known to be complete: the least watermark of the devices.
    pub(crate) fn watermark(&self) -> Option<i64> {
        let (least, _) = self.running.as_ref()?.windows.watermarks()?;
        Some(least)
    }

    /// Bytes that the state takes.
    pub(crate) fn bytes(&self) -> usize {
        let running = self.running.as_ref();
        running.map_or(0, |running| running.windows.usage().bytes)
    }

    pub(crate) fn tick(&mut self, record_time: i64) -> Option<RecordBatch> {
        let running = self.running.as_mut()?;
        running.windows.advance(record_time, &mut running.output);
        self.results()
    }

    pub(crate) fn push(
        &mut self,
        inputs: Vec<(usize, Rows)>,
        record_time: i64,
        beside: &Beside,
    ) -> Pushed {
        let mut pushed = Pushed::default();
        let mut ready = Vec::with_capacity(inputs.len());
        for (edge, rows) in inputs {
            if let Some(rows) = self.ready(edge, rows, beside, &mut pushed.errors) {
                ready.push(rows);
            }
        }
        let Some((all, sources)) = in_order(&ready) else {
            return pushed;
        };
        let Some(running) = &mut self.running else {
            return pushed;
        };
        let keys: Vec<&StringArray> = all.keys.iter().collect();
        let rows = quiver_analysis::Rows {
            ts: all.rows.ts().values(),
            arrival: all.rows.arrival().values(),
            device: all.rows.device(),
            keys: &keys,
            arguments: &all.arguments,
            open: all.open.as_ref(),
            close: all.close.as_ref(),
        };
        if let Err(error) = running
            .windows
            .push(&rows, record_time, &mut running.output)
        {
            let failed = super::bound::all_failed(all.rows.len(), &error.to_string());
            pushed.errors.push(all.rows.failed(&failed));
            return pushed;
        }
        let late = running.output.take_late();
        if !late.is_empty() {
            pushed.late = late_rows(&ready, &sources, &late);
        }
        pushed.new = self.results();
        pushed
    }

    /// Evaluates what windows need of the rows of an input; those that fail are errors.
    fn ready(
        &mut self,
        edge: usize,
        rows: Rows,
        beside: &Beside,
        errors: &mut Vec<Rows>,
    ) -> Option<Ready> {
        let declared = self.declared.get(edge)?.clone();
        let definition = &self.definition;
        let bound = self.bound.get_mut(edge)?.get(rows.schema(), beside, || {
            BoundInput::new(definition, rows.schema(), &declared, beside)
        });
        let bound = match bound.as_ref() {
            Ok(bound) => bound,
            Err(reason) => {
                let failed = super::bound::all_failed(rows.len(), reason);
                errors.push(rows.failed(&failed));
                return None;
            }
        };
        if self.running.is_none() {
            let types = bound.types();
            match Running::new(definition, types, bound.scope.clone()) {
                Ok(running) => self.running = Some(running),
                Err(reason) => {
                    let failed = super::bound::all_failed(rows.len(), &reason);
                    errors.push(rows.failed(&failed));
                    return None;
                }
            }
        }
        let types = &self.running.as_ref()?.types;
        let rows = match &bound.condition {
            None => rows,
            Some(condition) => {
                let (mask, failed) = condition.mask(&rows, beside);
                if !failed.is_empty() {
                    errors.push(rows.failed(&failed));
                }
                rows.filter(&mask)
            }
        };
        if rows.is_empty() {
            return None;
        }
        let mut failed = Vec::new();
        let mut arguments = Vec::with_capacity(types.len());
        for ((argument, condition), wanted) in bound.arguments.iter().zip(types) {
            let mut evaluate = |compiled: &Compiled| {
                let given = inputs(compiled.inputs(), &bound.scope, &rows, beside);
                let evaluated = compiled.evaluate(&given, rows.len());
                failed.extend(evaluated.failed);
                evaluated.values
            };
            let is_met = condition.as_ref().map(|condition| {
                let values = evaluate(condition);
                match values.as_boolean_opt() {
                    Some(mask) => mask.iter().map(|met| Some(met == Some(true))).collect(),
                    None => BooleanArray::from(vec![false; rows.len()]),
                }
            });
            let values = match (argument, is_met) {
                (Some(argument), is_met) => {
                    let values = stored(&evaluate(argument), *wanted, &mut failed);
                    match is_met {
                        Some(mask) => without_others(&values, &mask),
                        None => values,
                    }
                }
                // Rows are counted that meet the condition: those with a value.
                (None, Some(mask)) => without_others(&(Arc::new(mask.clone()) as ArrayRef), &mask),
                (None, None) => continue,
            };
            arguments.push(values);
        }
        let (mut open, mut close) = (None, None);
        for (condition, place) in [(&bound.open, &mut open), (&bound.close, &mut close)] {
            if let Some(condition) = condition {
                let (mask, rows_failed) = condition.mask(&rows, beside);
                failed.extend(rows_failed);
                *place = Some(mask);
            }
        }
        let attributes = self.definition.attributes().map(|name| {
            let column = beside.attributes.column(rows.device(), name);
            column.as_string::<i32>().clone()
        });
        let ready = Ready {
            keys: attributes.collect(),
            arguments,
            open,
            close,
            rows,
        };
        if failed.is_empty() {
            return Some(ready);
        }
        failed.sort_by_key(|failed: &FailedRow| failed.row);
        failed.dedup_by_key(|failed| failed.row);
        errors.push(ready.rows.failed(&failed));
        ready.without(&failed)
    }

    /// What has come out, as new rows.
    fn results(&mut self) -> Option<RecordBatch> {
        let running = self.running.as_mut()?;
        if running.output.is_empty() {
            return None;
        }
        let closed = running.output.take();
        new_rows(&self.name, &self.definition, running, &closed)
    }

    pub(crate) fn changed(&mut self, is_all: bool, entries: &mut Entries) {
        let Some(running) = &mut self.running else {
            return;
        };
        if is_all {
            running.windows.change_all();
        }
        let changed = running.windows.changed();
        if !running.is_saved || is_all {
            running.is_saved = true;
            let types = running.types.iter().map(|known| type_number(*known));
            entries.insert(TYPES.into(), Some(types.collect()));
        }
        entries.insert(COMMON.into(), Some(changed.common.into()));
        for (key, value) in changed.entries {
            entries.insert(key.into(), value.map(Into::into));
        }
    }

    pub(crate) fn restore(&mut self, entries: &Entries) -> Result<(), String> {
        let value = |key: &[u8]| entries.get(key).and_then(Option::as_deref);
        let (Some(types), Some(common)) = (value(TYPES), value(COMMON)) else {
            return Err("the entries that all have in common are not there".to_owned());
        };
        let types: Vec<ArgumentType> = types
            .iter()
            .map(|number| type_of_number(*number))
            .collect::<Option<_>>()
            .ok_or("an argument is of no type that there is")?;
        let columns = self.declared.first().cloned().unwrap_or_default();
        let mut running = Running::new(&self.definition, types, columns.scope("the rows"))?;
        let own = entries
            .iter()
            .filter(|(key, _)| ![COMMON, TYPES].contains(&key.as_ref()))
            .filter_map(|(key, value)| Some((key.as_ref(), value.as_deref()?)));
        running
            .windows
            .restore(common, own)
            .map_err(|error| error.to_string())?;
        running.is_saved = true;
        self.running = Some(running);
        Ok(())
    }
}

const TYPE_NUMBERS: [ArgumentType; 5] = [
    ArgumentType::Float64,
    ArgumentType::Int64,
    ArgumentType::Bool,
    ArgumentType::Text,
    ArgumentType::Time,
];

fn type_number(known: ArgumentType) -> u8 {
    let found = TYPE_NUMBERS.iter().position(|other| *other == known);
    found
        .and_then(|number| u8::try_from(number).ok())
        .unwrap_or(0)
}

fn type_of_number(number: u8) -> Option<ArgumentType> {
    TYPE_NUMBERS.get(usize::from(number)).copied()
}

impl Running {
    fn new(
        definition: &Definition,
        types: Vec<ArgumentType>,
        scope: Scope,
    ) -> Result<Self, String> {
        let (select, _) = definition.select(scope, Some(&types))?;
        let mut aggregates = Vec::with_capacity(select.calls.len());
        let mut number = 0;
        for call in &select.calls {
            let has_argument = call.argument.is_some() || call.filter.is_some();
            let function = Function::from_name(call.function, has_argument)
                .ok_or_else(|| format!("there is no aggregate `{}`", call.function))?;
            aggregates.push(Aggregate {
                function,
                argument: has_argument.then_some(number),
                parameter: call.parameter,
            });
            number += usize::from(has_argument);
        }
        if number != types.len() {
            return Err("the aggregates are not those whose types are known".to_owned());
        }
        let spec = WindowSpec {
            kinds: definition.kinds.clone(),
            key: definition.key(),
            arguments: types.clone(),
            aggregates,
            time: definition.time,
            emit: definition.emit,
            zone: definition.zone,
            limits: Limits::default(),
        };
        let windows = Windows::new(spec).map_err(|error| error.to_string())?;
        let mut results = Scope::new("the results");
        for column in definition.result_columns() {
            results = results.with(column.name, column.data_type);
        }
        for (index, call) in select.calls.iter().enumerate() {
            results = results.with(format!("aggregate {index}"), call.data_type.clone());
        }
        let time = |name: &str| Field::new(name, time_type(), true);
        let mut fields = vec![
            Field::new(TS, time_type(), false),
            Field::new(
                DEVICE,
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
                false,
            ),
            time(WINDOW_START),
            time(WINDOW_END),
        ];
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        fields.extend(definition.attributes().map(|name| text(name)));
        if definition.sizes.len() > 1 {
            fields.push(text(WINDOW_SIZE));
        }
        if definition.emit != Emit::Close {
            fields.push(Field::new(REVISION, DataType::Int64, true));
        }
        let items = select.projection.items.iter();
        let own = items.filter(|item| !is_key(definition, &item.name));
        fields.extend(own.map(|item| Field::new(&item.name, item.stored.clone(), true)));
        Ok(Self {
            output: windows.output(),
            windows,
            types,
            select: select.projection,
            scope: results,
            schema: Arc::new(Schema::new(fields)),
            is_saved: false,
        })
    }
}

/// Whether a selected column is one that every result has by itself.
fn is_key(definition: &Definition, name: &str) -> bool {
    [WINDOW_START, WINDOW_END].contains(&name) || definition.keys.iter().any(|key| key == name)
}

impl BoundInput {
    fn new(
        definition: &Definition,
        schema: &SchemaRef,
        declared: &Columns,
        beside: &Beside,
    ) -> Result<Self, String> {
        let condition = |text: &Option<String>| {
            text.as_ref()
                .map(|text| Bound::condition(text, schema, declared, beside))
        };
        let (select, scope) = definition.select(scope(schema, declared, beside), None)?;
        Ok(Self {
            condition: condition(&definition.condition),
            open: condition(&definition.open),
            close: condition(&definition.close),
            scope,
            arguments: select
                .calls
                .into_iter()
                .filter(|call| call.argument.is_some() || call.filter.is_some())
                .map(|call| (call.argument, call.filter))
                .collect(),
        })
    }

    fn types(&self) -> Vec<ArgumentType> {
        let argument = |(argument, _): &(Option<Compiled>, _)| match argument {
            Some(argument) => argument_type(argument.data_type()),
            None => ArgumentType::Bool,
        };
        self.arguments.iter().map(argument).collect()
    }
}

/// Values in the type in which they are aggregated; a value that cannot be of it has failed.
fn stored(values: &ArrayRef, wanted: ArgumentType, failed: &mut Vec<FailedRow>) -> ArrayRef {
    let wanted = wanted.arrow();
    if *values.data_type() == wanted {
        return values.clone();
    }
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    let reason = || {
        format!(
            "a value is {} where {wanted} is aggregated",
            values.data_type()
        )
    };
    let Ok(cast) = cast_with_options(values, &wanted, &options) else {
        failed.extend(super::bound::all_failed(values.len(), &reason()));
        return arrow_array::new_null_array(&wanted, values.len());
    };
    if cast.null_count() > values.logical_null_count() {
        let before = values.logical_nulls();
        for row in 0..values.len() {
            let was_null = before.as_ref().is_some_and(|nulls| nulls.is_null(row));
            if cast.is_null(row) && !was_null {
                failed.push(FailedRow {
                    row: u32::try_from(row).unwrap_or(u32::MAX),
                    reason: reason(),
                });
            }
        }
    }
    cast
}

/// Null where the mask is not true.
fn without_others(values: &ArrayRef, mask: &BooleanArray) -> ArrayRef {
    let others = BooleanArray::new(!mask.values(), None);
    nullif(values, &others)
        .unwrap_or_else(|_| arrow_array::new_null_array(values.data_type(), values.len()))
}

impl Ready {
    fn without(&self, failed: &[FailedRow]) -> Option<Self> {
        let mask = super::rows::all_but(self.rows.len(), failed);
        let kept = |column: &ArrayRef| filter(column, &mask).ok();
        let condition = |column: &Option<BooleanArray>| match column {
            None => Some(None),
            Some(column) => {
                let column = filter(column, &mask).ok()?;
                Some(Some(column.as_boolean().clone()))
            }
        };
        let ready = Self {
            rows: self.rows.filter(&mask),
            keys: self
                .keys
                .iter()
                .map(|key| Some(filter(key, &mask).ok()?.as_string::<i32>().clone()))
                .collect::<Option<_>>()?,
            arguments: self.arguments.iter().map(kept).collect::<Option<_>>()?,
            open: condition(&self.open)?,
            close: condition(&self.close)?,
        };
        (!ready.rows.is_empty()).then_some(ready)
    }
}

/// Of which input, and which of its rows, each row is; `None` if there is one input.
type Sources = Option<Vec<(usize, u32)>>;

/// Rows of all inputs in the order of their positions, and of which input and row each is; of one
/// input as they are, which is what there nearly always is.
fn in_order(ready: &[Ready]) -> Option<(Ready, Sources)> {
    let first = ready.first()?;
    if ready.len() == 1 {
        let ready = Ready {
            rows: first.rows.clone(),
            keys: first.keys.clone(),
            arguments: first.arguments.clone(),
            open: first.open.clone(),
            close: first.close.clone(),
        };
        return Some((ready, None));
    }
    let mut order: Vec<(i64, usize, u32)> = Vec::new();
    for (number, ready) in ready.iter().enumerate() {
        let positions = ready.rows.position().values().iter();
        order.extend(
            positions
                .zip(0..)
                .map(|(position, row)| (*position, number, row)),
        );
    }
    order.sort_unstable();
    let mut starts = Vec::with_capacity(ready.len());
    let mut count = 0_u64;
    for ready in ready {
        starts.push(count);
        count += ready.rows.len() as u64;
    }
    let indices: UInt64Array = order
        .iter()
        .map(|(_, number, row)| Some(starts.get(*number)? + u64::from(*row)))
        .collect();
    let joined = |columns: Vec<&dyn arrow_array::Array>| {
        let all = concat(&columns).ok()?;
        take(&all, &indices, None).ok()
    };
    let of = |column: &dyn Fn(&Ready) -> Option<ArrayRef>| {
        let columns: Vec<ArrayRef> = ready.iter().map(column).collect::<Option<_>>()?;
        joined(columns.iter().map(AsRef::as_ref).collect())
    };
    let fixed: Vec<ArrayRef> = (0..super::rows::FIXED)
        .map(|index| of(&|ready| Some(ready.rows.batch().column(index).clone())))
        .collect::<Option<_>>()?;
    let schema = super::rows::schema_of(first.rows.schema(), []);
    let batch = RecordBatch::try_new(schema, fixed).ok()?;
    let condition = |column: &dyn Fn(&Ready) -> Option<&BooleanArray>| {
        column(first)?;
        let column = of(&|ready| Some(Arc::new(column(ready)?.clone()) as ArrayRef))?;
        Some(column.as_boolean().clone())
    };
    let all = Ready {
        rows: Rows::new(batch).ok()?,
        keys: (0..first.keys.len())
            .map(|index| {
                let column =
                    of(&|ready| Some(Arc::new(ready.keys.get(index)?.clone()) as ArrayRef));
                Some(column?.as_string::<i32>().clone())
            })
            .collect::<Option<_>>()?,
        arguments: (0..first.arguments.len())
            .map(|index| of(&|ready| ready.arguments.get(index).cloned()))
            .collect::<Option<_>>()?,
        open: condition(&|ready| ready.open.as_ref()),
        close: condition(&|ready| ready.close.as_ref()),
    };
    let sources = order.into_iter().map(|(_, number, row)| (number, row));
    Some((all, Some(sources.collect())))
}

/// Late rows as they came, with why they are and which window they missed.
fn late_rows(ready: &[Ready], sources: &Sources, late: &[Late]) -> Vec<Rows> {
    let mut found = Vec::new();
    for (number, ready) in ready.iter().enumerate() {
        let mut rows = Vec::new();
        let mut told = Vec::new();
        for late in late {
            let (source, row) = match sources {
                None => (0, late.row),
                Some(sources) => match sources.get(late.row as usize) {
                    Some(source) => *source,
                    None => continue,
                },
            };
            if source == number {
                rows.push(u64::from(row));
                told.push(late);
            }
        }
        if rows.is_empty() {
            continue;
        }
        let indices = UInt64Array::from(rows);
        let columns: Option<Vec<ArrayRef>> = ready
            .rows
            .batch()
            .columns()
            .iter()
            .map(|column| take(column, &indices, None).ok())
            .collect();
        let Some(mut columns) = columns else { continue };
        let times = |of: fn(&Late) -> i64| -> ArrayRef {
            let times: Vec<i64> = told.iter().map(|late| of(late)).collect();
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        };
        let reasons: StringArray = told.iter().map(|late| Some(late.reason.as_str())).collect();
        columns.push(Arc::new(reasons));
        columns.push(times(|late| late.start));
        columns.push(times(|late| late.end));
        let schema = schema_with(
            ready.rows.schema(),
            [
                Field::new(LATE_REASON, DataType::Utf8, true),
                Field::new(WINDOW_START, time_type(), true),
                Field::new(WINDOW_END, time_type(), true),
            ],
        );
        if let Ok(batch) = RecordBatch::try_new(schema, columns)
            && let Ok(rows) = Rows::new(batch)
        {
            found.push(rows);
        }
    }
    found
}

/// Closed windows as new rows. Their time is the last microsecond of the window, so that they fall
/// into the larger window that theirs is a part of.
fn new_rows(
    name: &str,
    definition: &Definition,
    running: &Running,
    closed: &Closed,
) -> Option<RecordBatch> {
    let rows = closed.len();
    let ends = closed.end.values().iter();
    let ts: Vec<i64> = ends.map(|end| end.saturating_sub(1)).collect();
    let device: DictionaryArray<Int32Type> = match &closed.device {
        Some(device) => device.iter().collect(),
        None => std::iter::repeat_n(Some(name), rows).collect(),
    };
    let start: ArrayRef = Arc::new(closed.start.clone());
    let end: ArrayRef = Arc::new(closed.end.clone());
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(ts).with_timezone("UTC")),
        Arc::new(device),
        start.clone(),
        end.clone(),
    ];
    let keys = closed
        .keys
        .iter()
        .map(|key| Arc::new(key.clone()) as ArrayRef);
    columns.extend(keys.clone());
    if definition.sizes.len() > 1 {
        let size = |kind: &u32| definition.sizes.get(*kind as usize).map(String::as_str);
        let sizes: StringArray = closed.kind.values().iter().map(size).collect();
        columns.push(Arc::new(sizes));
    }
    if definition.emit != Emit::Close {
        columns.push(Arc::new(Int64Array::clone(&closed.revision)));
    }
    // In the order of the scope: bounds, keys, aggregates.
    let mut given: Vec<ArrayRef> = vec![start, end];
    given.extend(
        closed
            .device
            .iter()
            .map(|device| Arc::new(device.clone()) as ArrayRef),
    );
    given.extend(keys);
    let aggregates = running.scope.columns().iter().skip(given.len());
    let mut results = Vec::with_capacity(closed.results.len());
    for (values, column) in closed.results.iter().zip(aggregates) {
        results.push(cast_with_options(values, &column.data_type, &CastOptions::default()).ok()?);
    }
    given.extend(results);
    for item in &running.select.items {
        if is_key(definition, &item.name) {
            continue;
        }
        let wanted: Vec<ArrayRef> =
            item.inputs()
                .iter()
                .filter_map(|input| match input {
                    quiver_expression::Input::Column(index) => given.get(*index).cloned(),
                    quiver_expression::Input::Attribute(_)
                    | quiver_expression::Input::Last { .. } => None,
                })
                .collect();
        // A value that cannot be had is null: the window is told all the same.
        columns.push(item.evaluate(&wanted, rows).values);
    }
    RecordBatch::try_new(running.schema.clone(), columns).ok()
}
