//! What is in the batches: a generator for each source, deterministic by seed, source and stream.
//!
//! A point is one field value of one row; `ts` and `device` are not counted.

mod models;
mod recorded;
mod trucks;

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::scenario::{Identity, Scenario, Values};

pub(crate) use recorded::{Recorded, RecordedSource};

/// Which rows a batch is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub rows: usize,
    /// Wall time of the last row, in microseconds.
    pub end_us: i64,
    /// Time between rows, in microseconds.
    pub step_us: i64,
}

/// A batch with whose rows it has.
#[derive(Debug)]
pub(crate) struct Made {
    pub batch: RecordBatch,
    /// Rows by device.
    pub devices: Vec<(u32, u32)>,
    pub points: u64,
}

/// Column of event times, in UTC.
fn time_field() -> Field {
    let zone = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Field::new("ts", zone, false)
}

/// Name of a device of the scenario.
pub(crate) fn device_name(scenario: &Scenario, device: u32) -> String {
    format!("{}-{device}", scenario.stream)
}

/// What is said of a device when it is enrolled.
pub(crate) fn attributes(scenario: &Scenario, device: u32) -> BTreeMap<&'static str, &'static str> {
    match scenario.values {
        Values::Trucks => trucks::attributes(device),
        _ => BTreeMap::new(),
    }
}

enum Model {
    Numbers(models::Numbers),
    Messages(models::Messages),
    Trucks(trucks::Trucks),
    Recorded(RecordedSource),
}

/// Makes the batches of one source.
pub(crate) struct Generator {
    model: Model,
    schema: SchemaRef,
    /// The devices that it speaks for, and how many of them a batch is of.
    devices: Vec<u32>,
    /// Their names, if rows carry them.
    names: Option<Vec<String>>,
    devices_per_batch: usize,
    cursor: usize,
    /// By how much each device's clock is off, in microseconds; empty if all are right.
    clock_offsets: Vec<i64>,
    disorder: f64,
    disorder_by_us: i64,
    random: SmallRng,
}

/// How a source differs from the others.
pub(crate) struct SourceSpec {
    /// Its number among all.
    pub index: usize,
    /// Which of its connection's streams it writes.
    pub stream: usize,
    /// The devices it speaks for; not empty.
    pub devices: Vec<u32>,
    /// What it repeats, with `values = file`.
    pub recorded: Option<RecordedSource>,
}

impl Generator {
    pub(crate) fn new(scenario: &Scenario, spec: SourceSpec) -> Self {
        let seed = scenario.seed.wrapping_mul(0xd134_2543_de82_ef95) ^ (spec.index as u64) << 8;
        let devices = spec.devices;
        let model = match (scenario.values, spec.recorded) {
            (Values::File, Some(recorded)) => Model::Recorded(recorded),
            (Values::Trucks, _) => {
                Model::Trucks(trucks::Trucks::new(spec.stream == 1, devices.len(), seed))
            }
            (Values::Messages, _) => {
                Model::Messages(models::Messages::new(scenario.message_bytes as usize, seed))
            }
            _ => Model::Numbers(models::Numbers::new(scenario, devices.len(), seed)),
        };
        let with_device = scenario.identity != Identity::Device;
        let mut fields = vec![time_field()];
        if with_device {
            fields.push(Field::new("device", DataType::Utf8, false));
        }
        fields.extend(match &model {
            Model::Numbers(model) => model.fields(),
            Model::Messages(model) => model.fields(),
            Model::Trucks(model) => model.fields(),
            Model::Recorded(model) => model.fields(),
        });
        let is_off = scenario.late.0 > 0.0 || scenario.future.0 > 0.0;
        Self {
            model,
            schema: Arc::new(Schema::new(fields)),
            names: with_device.then(|| {
                let names = devices.iter().map(|device| device_name(scenario, *device));
                names.collect()
            }),
            clock_offsets: if is_off {
                let offsets = devices.iter().map(|device| clock_offset(scenario, *device));
                offsets.collect()
            } else {
                Vec::new()
            },
            devices_per_batch: (scenario.devices_per_batch as usize).clamp(1, devices.len().max(1)),
            devices,
            cursor: 0,
            disorder: scenario.disorder.0,
            disorder_by_us: scenario.disorder_by.micros(),
            random: SmallRng::seed_from_u64(!seed),
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn make(&mut self, order: Order) -> Result<Made, ArrowError> {
        let count = self.devices.len().max(1);
        let among = self.devices_per_batch;
        let begin = self.cursor;
        self.cursor = (self.cursor + among) % count;
        let (values, times) = match &mut self.model {
            Model::Numbers(model) => (model.columns(order.rows, begin, among), None),
            Model::Messages(model) => (model.columns(order.rows), None),
            Model::Trucks(model) => (model.columns(order.rows, begin, among), None),
            Model::Recorded(model) => {
                let (values, times) = model.columns(order);
                (values, Some(times))
            }
        };
        let rows = values.first().map_or(0, |column| column.len());
        // Which of its devices a row is of.
        let whose = |row: usize| (begin + row % among) % count;
        let mut times = times.unwrap_or_else(|| {
            let back = |row: usize| (rows - 1 - row) as i64 * order.step_us;
            (0..rows).map(|row| order.end_us - back(row)).collect()
        });
        if self.disorder > 0.0 {
            for time in &mut times {
                if self.random.random::<f64>() < self.disorder {
                    *time -= self.random.random_range(0..=self.disorder_by_us);
                }
            }
        }
        if !self.clock_offsets.is_empty() {
            for (row, time) in times.iter_mut().enumerate() {
                *time += self.clock_offsets.get(whose(row)).copied().unwrap_or(0);
            }
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(
            TimestampMicrosecondArray::from(times).with_timezone("UTC"),
        )];
        if let Some(names) = &self.names {
            let of = |row| names.get(whose(row)).map_or("", String::as_str);
            columns.push(Arc::new(StringArray::from_iter_values((0..rows).map(of))));
        }
        let points = (rows * values.len()) as u64;
        columns.extend(values);
        let devices = (0..among.min(rows))
            .filter_map(|slot| {
                let device = self.devices.get(whose(slot))?;
                Some((*device, (rows - slot).div_ceil(among) as u32))
            })
            .collect();
        Ok(Made {
            batch: RecordBatch::try_new(self.schema.clone(), columns)?,
            devices,
            points,
        })
    }
}

/// By how much the clock of a device is off: the first devices are late, the last ahead.
fn clock_offset(scenario: &Scenario, device: u32) -> i64 {
    let place = (f64::from(device) + 0.5) / f64::from(scenario.devices.max(1));
    if place < scenario.late.0 {
        -scenario.late_by.micros()
    } else if place > 1.0 - scenario.future.0 {
        scenario.future_by.micros()
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, cast::AsArray, types::TimestampMicrosecondType};

    use super::*;
    use crate::scenario::{Knobs, Share, Span};

    fn generator(knobs: Knobs, devices: Vec<u32>) -> Generator {
        let spec = SourceSpec {
            index: 0,
            stream: 0,
            devices,
            recorded: None,
        };
        Generator::new(&knobs.resolve(), spec)
    }

    const ORDER: Order = Order {
        rows: 5,
        end_us: 1_000_000,
        step_us: 10,
    };

    #[test]
    fn rows_end_when_they_should_and_belong_to_their_devices() {
        let knobs = Knobs {
            identity: Some(Identity::Gateway),
            devices_per_batch: Some(2),
            fields: Some(3),
            ..Knobs::default()
        };
        let mut generator = generator(knobs, vec![4, 5, 6]);
        let made = generator.make(ORDER).unwrap();
        assert_eq!(made.devices, [(4, 3), (5, 2)]);
        assert_eq!(made.points, 15);
        let times = made
            .batch
            .column(0)
            .as_primitive::<TimestampMicrosecondType>();
        assert_eq!(
            times.values(),
            &[999_960, 999_970, 999_980, 999_990, 1_000_000]
        );
        let names = made.batch.column(1).as_string::<i32>();
        assert_eq!(names.value(0), "bench-4");
        assert_eq!(names.value(1), "bench-5");
        assert_eq!(generator.make(ORDER).unwrap().devices, [(6, 3), (4, 2)]);
    }

    #[test]
    fn clocks_are_off_for_the_share_of_devices_that_was_asked_for() {
        let knobs = Knobs {
            devices: Some(10),
            late: Some(Share(0.2)),
            future: Some(Share(0.1)),
            late_by: Some(Span::seconds(1)),
            future_by: Some(Span::seconds(2)),
            ..Knobs::default()
        };
        let scenario = knobs.resolve();
        let off: Vec<i64> = (0..10)
            .map(|device| clock_offset(&scenario, device))
            .collect();
        assert_eq!(
            off,
            [-1_000_000, -1_000_000, 0, 0, 0, 0, 0, 0, 0, 2_000_000]
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_values_and_disorder_only_goes_back() {
        let knobs = || Knobs {
            disorder: Some(Share(0.5)),
            disorder_by: Some(Span::seconds(1)),
            ..Knobs::default()
        };
        let first = generator(knobs(), vec![0]).make(ORDER).unwrap().batch;
        let second = generator(knobs(), vec![0]).make(ORDER).unwrap().batch;
        assert_eq!(first, second);
        let times = first.column(0).as_primitive::<TimestampMicrosecondType>();
        assert!((0..5).all(|row| times.value(row) <= ORDER.end_us - (4 - row as i64) * 10));
        assert!((0..5).any(|row| times.value(row) < ORDER.end_us - 40));
        assert_eq!(first.column(1).null_count(), 0);
    }
}
