//! The rows: of every device one a second, a pause of a minute after every two, one row in a hundred
//! three seconds late.

use std::{ops::Range, sync::Arc};

use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, StringArray, types::Int32Type,
};

use crate::case::SECOND;

/// Fields of a row.
pub const FIELDS: usize = 10;
/// Event time of the first rows: 2026-01-01.
const START: i64 = 1_767_225_600 * SECOND;
/// Rows of a device between two pauses.
const UNPAUSED: usize = 120;
/// Seconds of a pause.
const PAUSE: i64 = 60;
/// Rows of a batch of one device.
const BATCH: usize = 100;

/// How rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A row of every device in each batch, as gateways send them.
    Interleaved,
    /// 100 rows of one device in each batch.
    ByDevice,
}

impl Order {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Interleaved, Self::ByDevice];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interleaved => "interleaved",
            Self::ByDevice => "by_device",
        }
    }
}

/// Rows of one record.
#[derive(Clone, Debug)]
pub struct Batch {
    /// When each happened, in microseconds since 1970, UTC. They arrive at once.
    pub ts: Vec<i64>,
    /// Of which device each is.
    pub device: DictionaryArray<Int32Type>,
    /// A column for each field.
    pub fields: Vec<ArrayRef>,
}

/// The rows of so many devices.
#[derive(Clone, Debug)]
pub struct Rows {
    order: Order,
    devices: usize,
    /// All names.
    names: ArrayRef,
    /// The name of each device alone.
    alone: Vec<ArrayRef>,
}

impl Rows {
    /// Rows of `devices` devices.
    pub fn new(order: Order, devices: usize) -> Self {
        let names: Vec<String> = (0..devices)
            .map(|device| format!("truck_{device:05}"))
            .collect();
        let alone = |name: &String| Arc::new(StringArray::from_iter_values([name])) as ArrayRef;
        Self {
            order,
            devices,
            alone: names.iter().map(alone).collect(),
            names: Arc::new(StringArray::from_iter_values(names)),
        }
    }

    /// How many batches have the first `rows` rows of all devices.
    pub fn batch_count(&self, rows: usize) -> usize {
        match self.order {
            Order::Interleaved => rows,
            Order::ByDevice => rows.div_ceil(BATCH) * self.devices,
        }
    }

    /// Batch number `number`.
    pub fn batch(&self, number: usize) -> Batch {
        let (devices, rows) = self.extent(number);
        let column = |field: usize| {
            let values = pairs(&devices, &rows).map(|(device, row)| value(device, row, field));
            Arc::new(Float64Array::from_iter_values(values)) as ArrayRef
        };
        let mut batch = Batch {
            ts: Vec::new(),
            device: DictionaryArray::new(Int32Array::from(vec![0; 0]), Arc::clone(&self.names)),
            fields: (0..FIELDS).map(column).collect(),
        };
        self.turn_into(number, &mut batch);
        batch
    }

    /// Makes another batch of the same order to batch number `number`, but for the fields' values:
    /// as nothing depends on them, a bench need not make them again and again.
    pub fn turn_into(&self, number: usize, batch: &mut Batch) {
        let (devices, rows) = self.extent(number);
        batch.ts.clear();
        batch
            .ts
            .extend(pairs(&devices, &rows).map(|(device, row)| time(device, row)));
        let (keys, names) = match self.order {
            Order::Interleaved => {
                let keys = devices.map(|device| i32::try_from(device).unwrap_or(i32::MAX));
                (Int32Array::from_iter_values(keys), &self.names)
            }
            Order::ByDevice => {
                let keys = Int32Array::from(vec![0; rows.len()]);
                (keys, self.alone.get(devices.start).unwrap_or(&self.names))
            }
        };
        batch.device = DictionaryArray::new(keys, Arc::clone(names));
    }

    /// The devices and rows of a batch.
    fn extent(&self, number: usize) -> (Range<usize>, Range<usize>) {
        match self.order {
            Order::Interleaved => (0..self.devices, number..number + 1),
            Order::ByDevice => {
                let (part, device) = (number / self.devices, number % self.devices);
                (device..device + 1, part * BATCH..(part + 1) * BATCH)
            }
        }
    }
}

fn pairs(
    devices: &Range<usize>,
    rows: &Range<usize>,
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let rows = rows.clone();
    devices
        .clone()
        .flat_map(move |device| rows.clone().map(move |row| (device, row)))
}

/// The time of a device's row; devices are some microseconds apart.
fn time(device: usize, row: usize) -> i64 {
    let late = if (device + row) % 100 == 99 { 3 } else { 0 };
    let pauses = (row / UNPAUSED) as i64 * PAUSE;
    START + (row as i64 + pauses + 10 - late) * SECOND + device as i64
}

/// A value in hundredths, as most sensors round.
fn value(device: usize, row: usize, field: usize) -> f64 {
    let number = (device * 1_009 + row) * FIELDS + field;
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (mixed % 20_000) as f64 / 100.0 - 50.0
}
