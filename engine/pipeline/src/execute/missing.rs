//! Silence: new rows when nothing has come from a device, or for one of its fields, for too long,
//! and when something comes again.

use std::sync::Arc;

use arrow_array::{
    Array as _, ArrayRef, DictionaryArray, Float64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use hashbrown::HashMap;
use quiver_analysis::missing::{Missing, MissingRecord, MissingSpec, State, Watch};
use quiver_model::{DEVICE, TS};

use crate::{
    config::MissingConfig,
    execute::{Entries, rows::Rows},
    graph::time_type,
};

/// Most devices, or fields of devices, that a node watches.
const SERIES_MAX: usize = 10_000_000;

/// A node that watches for silence.
pub(crate) struct MissingNode {
    fields: Vec<String>,
    /// `None` if the configuration makes none; it was refused then.
    missing: Option<Missing>,
    schema: SchemaRef,
}

impl MissingNode {
    pub(crate) fn new(config: &MissingConfig) -> Self {
        let fields: Vec<String> = config
            .fields
            .iter()
            .map(|field| field.as_str().to_owned())
            .collect();
        let watch = match u32::try_from(fields.len()) {
            Ok(0) | Err(_) => Watch::Device,
            Ok(count) => Watch::Fields(count),
        };
        let spec = MissingSpec {
            watch,
            after: config.after.as_ref().map_or(0, |after| after.value),
            forget_after: config.forget.as_ref().map(|forget| forget.value),
            limit: SERIES_MAX,
        };
        let columns = vec![
            Field::new(TS, time_type(), false),
            Field::new(
                DEVICE,
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
                false,
            ),
            Field::new("state", DataType::Utf8, true),
            Field::new("field", DataType::Utf8, true),
            Field::new("since", time_type(), true),
            Field::new("seconds", DataType::Float64, true),
        ];
        Self {
            fields,
            missing: Missing::new(spec).ok(),
            schema: Arc::new(Schema::new(columns)),
        }
    }

    /// Whether time alone will make something come out.
    pub(crate) fn waits_for_time(&self) -> bool {
        let missing = self.missing.as_ref();
        missing.is_some_and(|missing| missing.next_deadline().is_some())
    }

    pub(crate) fn tick(&mut self, record_time: i64) -> Option<RecordBatch> {
        let mut found = Vec::new();
        self.missing.as_mut()?.advance(record_time, &mut found);
        self.new_rows(&found)
    }

    pub(crate) fn push(&mut self, inputs: Vec<Rows>, record_time: i64) -> Option<RecordBatch> {
        let mut found = Vec::new();
        for rows in inputs {
            let columns: Vec<Option<&ArrayRef>> = self
                .fields
                .iter()
                .map(|field| rows.batch().column_by_name(field))
                .collect();
            // What came of each device first, in the order of the rows.
            let watched = columns.len().max(1);
            let mut seen: HashMap<usize, Vec<bool>> = HashMap::new();
            let mut events: Vec<(usize, usize)> = Vec::new();
            for (row, device) in rows.device().keys().values().iter().enumerate() {
                let Ok(device) = usize::try_from(*device) else {
                    continue;
                };
                let seen = seen.entry(device).or_insert_with(|| vec![false; watched]);
                for (field, is_seen) in seen.iter_mut().enumerate() {
                    let is_there = match columns.get(field) {
                        None => columns.is_empty(),
                        Some(column) => column.is_some_and(|column| column.is_valid(row)),
                    };
                    if is_there && !*is_seen {
                        *is_seen = true;
                        events.push((device, field));
                    }
                }
            }
            let devices = rows.devices();
            let mut present = vec![false; watched];
            for (device, field) in events {
                if device >= devices.len() {
                    continue;
                }
                present[field] = true;
                let name = devices.value(device);
                self.missing
                    .as_mut()?
                    .push(name, &present, record_time, &mut found);
                present[field] = false;
            }
        }
        self.new_rows(&found)
    }

    fn new_rows(&self, found: &[MissingRecord]) -> Option<RecordBatch> {
        if found.is_empty() {
            return None;
        }
        let times = |of: fn(&MissingRecord) -> i64| -> ArrayRef {
            let times: Vec<i64> = found.iter().map(of).collect();
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        };
        let device: DictionaryArray<Int32Type> = found
            .iter()
            .map(|record| Some(record.device.as_ref()))
            .collect();
        let state: StringArray = found
            .iter()
            .map(|record| {
                Some(match record.state {
                    State::Missing => "missing",
                    State::Back => "back",
                })
            })
            .collect();
        let field: StringArray = found
            .iter()
            .map(|record| self.fields.get(record.field? as usize).map(String::as_str))
            .collect();
        let seconds: Float64Array = found
            .iter()
            .map(|record| Some(record.silent() as f64 / 1e6))
            .collect();
        let columns: Vec<ArrayRef> = vec![
            times(|record| record.at),
            Arc::new(device),
            Arc::new(state),
            Arc::new(field),
            times(|record| record.since),
            Arc::new(seconds),
        ];
        RecordBatch::try_new(self.schema.clone(), columns).ok()
    }

    pub(crate) fn changed(&mut self, is_all: bool, entries: &mut Entries) {
        let Some(missing) = &mut self.missing else {
            return;
        };
        if is_all {
            missing.change_all();
        }
        for (key, value) in missing.changed() {
            entries.insert(key.into(), value.map(Into::into));
        }
    }

    pub(crate) fn restore(&mut self, entries: &Entries) -> Result<(), String> {
        let Some(missing) = &mut self.missing else {
            return Ok(());
        };
        for (key, value) in entries {
            if let Some(value) = value {
                missing
                    .restore(key, value)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}
