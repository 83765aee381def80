//! Last values of fields, of each device, as of the row that is evaluated.
//!
//! Of the rows before it in the log, the latest by time (of those of the same time, the last) that
//! has a value says what the last value is; a row does not see one that is newer than itself.

use std::sync::Arc;

use arrow_array::{
    Array as _, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray, UInt64Array, cast::AsArray as _, new_null_array, types,
};
use arrow_schema::DataType;
use arrow_select::take::take;
use hashbrown::HashMap;
use quiver_expression::{LastStream, ScopeColumn};

use crate::{
    execute::{rows::Rows, state::Entries},
    graph::{Graph, last_streams, time_type},
};

/// Most devices whose last values of a field are known; those of others are NULL.
const DEVICES_MAX: usize = 10_000_000;
/// First byte of the keys of entries.
const TAG: u8 = 1;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Float(f64),
    Integer(i64),
    Boolean(bool),
    Time(i64),
    Text(Box<str>),
}

/// The last values of a field.
#[derive(Debug)]
struct Tracked {
    stream: String,
    field: String,
    /// The type of the field; `None` until a row has it.
    data_type: Option<DataType>,
    /// By device: its time, in microseconds since 1970, and the value.
    values: HashMap<Box<str>, (i64, Value)>,
    dirty: Vec<Box<str>>,
    /// What the rows of the record at hand see.
    seen: Option<ArrayRef>,
}

/// Last values that expressions ask for.
#[derive(Debug, Default)]
pub(crate) struct Lasts {
    tracked: Vec<Tracked>,
    streams: Vec<LastStream>,
    /// Rises when the type of a field becomes known.
    epoch: u64,
    /// Positions of the rows of the record at hand.
    positions: Vec<i64>,
}

impl Lasts {
    pub(crate) fn new(graph: &Graph) -> Self {
        let streams = last_streams(graph, |origin| graph.columns(origin));
        let tracked = graph.lasts.iter().map(|(stream, field)| {
            let known = streams.iter().find(|known| known.name == *stream);
            let mut fields = known.iter().flat_map(|known| &known.fields);
            Tracked {
                data_type: fields
                    .find(|known| known.name == *field)
                    .map(|known| known.data_type.clone()),
                stream: stream.clone(),
                field: field.clone(),
                values: HashMap::new(),
                dirty: Vec::new(),
                seen: None,
            }
        });
        Self {
            tracked: tracked.collect(),
            streams: Vec::new(),
            epoch: 0,
            positions: Vec::new(),
        }
        .with_streams()
    }

    fn with_streams(mut self) -> Self {
        self.name_streams();
        self
    }

    /// What expressions may name: the fields that are asked for, with their types.
    fn name_streams(&mut self) {
        self.streams.clear();
        for tracked in &self.tracked {
            let column = tracked.data_type.clone().map(|data_type| ScopeColumn {
                name: tracked.field.clone(),
                data_type,
            });
            match self
                .streams
                .iter_mut()
                .find(|known| known.name == tracked.stream)
            {
                Some(known) => known.fields.extend(column),
                None => self.streams.push(LastStream {
                    name: tracked.stream.clone(),
                    fields: column.into_iter().collect(),
                    is_open: true,
                }),
            }
        }
    }

    pub(crate) fn streams(&self) -> &[LastStream] {
        &self.streams
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether rows of a stream have last values that somebody asks for.
    pub(crate) fn tracks(&self, stream: &str) -> bool {
        self.tracked.iter().any(|tracked| tracked.stream == stream)
    }

    /// The rows of a record come: what each of them sees is known afterwards.
    pub(crate) fn enter(&mut self, stream: &str, rows: &Rows) {
        if self.tracked.is_empty() {
            return;
        }
        self.positions.clear();
        self.positions.extend(rows.position().values());
        let mut is_new_type = false;
        for tracked in &mut self.tracked {
            let own = (tracked.stream == stream)
                .then(|| rows.batch().column_by_name(&tracked.field))
                .flatten();
            if let (Some(column), None) = (own, &tracked.data_type) {
                tracked.data_type = Some(column.data_type().clone());
                is_new_type = true;
            }
            tracked.enter(own, rows);
        }
        if is_new_type {
            self.epoch += 1;
            self.name_streams();
        }
    }

    /// What rows of the record at hand, or of a view of it, see.
    pub(crate) fn column(&self, stream: &str, field: &str, rows: &Rows) -> ArrayRef {
        let asked = |tracked: &&Tracked| tracked.stream == stream && tracked.field == field;
        let tracked = self.tracked.iter().find(asked);
        let Some((seen, tracked)) =
            tracked.and_then(|tracked| Some((tracked.seen.as_ref()?, tracked)))
        else {
            let data_type = tracked.and_then(|tracked| tracked.data_type.clone());
            return new_null_array(&data_type.unwrap_or(DataType::Null), rows.len());
        };
        let positions = rows.position().values();
        if positions.len() == self.positions.len() {
            // A view has each row once at most, so that these are all of them.
            return seen.clone();
        }
        let found: UInt64Array = positions
            .iter()
            .map(|position| {
                let index = self.positions.binary_search(position).ok()?;
                u64::try_from(index).ok()
            })
            .collect();
        take(seen, &found, None).unwrap_or_else(|_| {
            let data_type = tracked.data_type.clone();
            new_null_array(&data_type.unwrap_or(DataType::Null), rows.len())
        })
    }

    pub(crate) fn changed(&mut self, is_all: bool, entries: &mut Entries) {
        for tracked in &mut self.tracked {
            if is_all {
                tracked.dirty = tracked.values.keys().cloned().collect();
            }
            for device in std::mem::take(&mut tracked.dirty) {
                if let Some((ts, value)) = tracked.values.get(&device) {
                    let key = entry_key(&tracked.stream, &tracked.field, &device);
                    entries.insert(key, Some(entry(*ts, value)));
                }
            }
        }
    }

    pub(crate) fn restore(&mut self, entries: &Entries) -> Result<(), String> {
        for (key, value) in entries {
            let (Some(&TAG), Some(value)) = (key.first(), value) else {
                continue;
            };
            let key = std::str::from_utf8(&key[1..]).map_err(|error| error.to_string())?;
            let mut parts = key.splitn(3, '\0');
            let (Some(stream), Some(field), Some(device)) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err("a last value is of no field".to_owned());
            };
            // One that nobody asks for any more is forgotten.
            if let Some(tracked) = self
                .tracked
                .iter_mut()
                .find(|tracked| tracked.stream == stream && tracked.field == field)
            {
                let (ts, value) = read(value).ok_or("a last value is of no type")?;
                if tracked.data_type.is_none() {
                    tracked.data_type = Some(value.data_type());
                }
                tracked.values.insert(device.into(), (ts, value));
            }
        }
        self.epoch += 1;
        self.name_streams();
        Ok(())
    }
}

impl Tracked {
    fn enter(&mut self, own: Option<&ArrayRef>, rows: &Rows) {
        let Some(data_type) = &self.data_type else {
            self.seen = None;
            return;
        };
        let own = own.filter(|column| column.data_type() == data_type);
        let devices = rows.devices();
        let keys = rows.device().keys();
        let ts = rows.ts().values();
        let mut seen: Vec<Option<Value>> = Vec::with_capacity(rows.len());
        for (row, at) in ts.iter().enumerate() {
            let device = usize::try_from(keys.value(row))
                .ok()
                .filter(|key| *key < devices.len())
                .map_or("", |key| devices.value(key));
            let is_full = self.values.len() >= DEVICES_MAX;
            let last = self.values.get_mut(device);
            seen.push(match &last {
                Some((known, value)) if known <= at => Some(value.clone()),
                _ => None,
            });
            let Some(value) = own.and_then(|column| Value::of(column, row)) else {
                continue;
            };
            match last {
                Some(known) if known.0 > *at => continue,
                Some(known) => *known = (*at, value),
                None if is_full => continue,
                None => {
                    self.values.insert(device.into(), (*at, value));
                }
            }
            if self.dirty.last().is_none_or(|last| **last != *device) {
                self.dirty.push(device.into());
            }
        }
        self.seen = Some(array(data_type, &seen));
    }
}

impl Value {
    fn of(column: &ArrayRef, row: usize) -> Option<Self> {
        if column.is_null(row) {
            return None;
        }
        Some(match column.data_type() {
            DataType::Float64 => {
                Self::Float(column.as_primitive::<types::Float64Type>().value(row))
            }
            DataType::Int64 => Self::Integer(column.as_primitive::<types::Int64Type>().value(row)),
            DataType::Boolean => Self::Boolean(column.as_boolean().value(row)),
            DataType::Utf8 => Self::Text(column.as_string::<i32>().value(row).into()),
            DataType::Timestamp(..) => Self::Time(
                column
                    .as_primitive_opt::<types::TimestampMicrosecondType>()?
                    .value(row),
            ),
            _ => return None,
        })
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Float(_) => DataType::Float64,
            Self::Integer(_) => DataType::Int64,
            Self::Boolean(_) => DataType::Boolean,
            Self::Time(_) => time_type(),
            Self::Text(_) => DataType::Utf8,
        }
    }
}

fn array(data_type: &DataType, seen: &[Option<Value>]) -> ArrayRef {
    macro_rules! of {
        ($array:ty, $kind:ident) => {
            seen.iter()
                .map(|value| match value {
                    Some(Value::$kind(value)) => Some(value.clone()),
                    _ => None,
                })
                .collect::<$array>()
        };
    }
    match data_type {
        DataType::Float64 => Arc::new(of!(Float64Array, Float)),
        DataType::Int64 => Arc::new(of!(Int64Array, Integer)),
        DataType::Boolean => Arc::new(of!(BooleanArray, Boolean)),
        DataType::Timestamp(..) => {
            Arc::new(of!(TimestampMicrosecondArray, Time).with_timezone("UTC"))
        }
        _ => Arc::new(of!(StringArray, Text)),
    }
}

fn entry_key(stream: &str, field: &str, device: &str) -> Box<[u8]> {
    let mut key = vec![TAG];
    key.extend(format!("{stream}\0{field}\0{device}").into_bytes());
    key.into()
}

fn entry(ts: i64, value: &Value) -> Box<[u8]> {
    let mut entry = ts.to_le_bytes().to_vec();
    match value {
        Value::Float(number) => {
            entry.push(0);
            entry.extend(number.to_le_bytes());
        }
        Value::Integer(number) => {
            entry.push(1);
            entry.extend(number.to_le_bytes());
        }
        Value::Boolean(is_true) => entry.extend([2, u8::from(*is_true)]),
        Value::Time(micros) => {
            entry.push(3);
            entry.extend(micros.to_le_bytes());
        }
        Value::Text(text) => {
            entry.push(4);
            entry.extend(text.as_bytes());
        }
    }
    entry.into()
}

fn read(entry: &[u8]) -> Option<(i64, Value)> {
    let (ts, rest) = entry.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    let value = match kind {
        0 => Value::Float(f64::from_le_bytes(rest.try_into().ok()?)),
        1 => Value::Integer(i64::from_le_bytes(rest.try_into().ok()?)),
        2 => Value::Boolean(*rest.first()? != 0),
        3 => Value::Time(i64::from_le_bytes(rest.try_into().ok()?)),
        4 => Value::Text(std::str::from_utf8(rest).ok()?.into()),
        _ => return None,
    };
    Some((i64::from_le_bytes(*ts), value))
}
