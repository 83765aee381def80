//! The data that every kernel and every limit works on: rows of sensor values that walk at random
//! and are rounded to hundredths, as most sensors' are.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use quiver_model::{
    CheckedBatch, DeviceId, FieldName, FieldType, NormaliseContext, Position, Producer, SchemaId,
    SenderId, Sequence, StreamField, StreamName, StreamSchema, Timestamp, Verdict, apply, judge,
};
use quiver_protocol::{BatchEncoder, Compression, OpenStream};

use crate::Fault;

/// Fields of a row, unless something else is measured.
pub const FIELDS: usize = 10;
/// Event time of every device's first row: 2026-01-01.
pub const START_US: i64 = 1_767_225_600_000_000;
/// Between two rows of a device.
pub const STEP_US: i64 = 10_000;
/// Record time: a moment after all rows.
pub const NOW: Timestamp = Timestamp(START_US + 86_400_000_000);
/// The stream.
pub const STREAM: &str = "bench_readings";

/// Random numbers from a seed (xorshift64*), the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.draw() >> 16) % bound.max(1)
    }
}

/// A device, and where its values and its clock stand.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    values: Vec<i64>,
    next_us: i64,
    random: Random,
}

impl Device {
    /// Device number `number`, at its first row.
    pub fn new(number: u64, fields: usize) -> Self {
        let mut random = Random::new(number + 1);
        Self {
            name: format!("truck_{number:05}"),
            values: (0..fields)
                .map(|_| random.below(10_000).cast_signed())
                .collect(),
            next_us: START_US,
            random,
        }
    }

    /// Its next rows: event times and a column of values for each field.
    pub fn rows(&mut self, rows: usize) -> (Vec<i64>, Vec<Vec<f64>>) {
        let mut times = Vec::with_capacity(rows);
        let mut columns = vec![Vec::with_capacity(rows); self.values.len()];
        for _ in 0..rows {
            times.push(self.next_us);
            self.next_us += STEP_US;
            for (value, column) in self.values.iter_mut().zip(&mut columns) {
                *value += self.random.below(101).cast_signed() - 50;
                column.push(*value as f64 / 100.0);
            }
        }
        (times, columns)
    }

    /// Its next rows as it would send them.
    ///
    /// # Errors
    /// Never in practice: the columns are of one length.
    pub fn batch(&mut self, rows: usize) -> Result<RecordBatch, Fault> {
        let (times, columns) = self.rows(rows);
        let schema = wire_schema(columns.len(), false);
        Ok(RecordBatch::try_new(
            schema,
            wire_columns(None, times, columns),
        )?)
    }

    /// Its sender.
    ///
    /// # Errors
    /// Never in practice: the name is well formed.
    pub fn sender(&self) -> Result<SenderId, Fault> {
        Ok(SenderId::device(DeviceId::new(&self.name)?))
    }
}

/// What sends over a connection: a device, or a gateway whose batches have rows of several of its
/// devices, a row of each in turn.
#[derive(Clone, Debug)]
pub struct Source {
    sender: SenderId,
    devices: Vec<Device>,
    /// Devices of a batch, and the first one of the next.
    among: usize,
    cursor: usize,
}

impl Source {
    /// Device number `number`.
    ///
    /// # Errors
    /// Never in practice: the name is well formed.
    pub fn device(number: u64, fields: usize) -> Result<Self, Fault> {
        let device = Device::new(number, fields);
        Ok(Self {
            sender: device.sender()?,
            devices: vec![device],
            among: 1,
            cursor: 0,
        })
    }

    /// Gateway number `number` with so many devices, `among` of them in a batch.
    ///
    /// # Errors
    /// Never in practice: the name is well formed.
    pub fn gateway(number: u64, devices: u64, among: usize, fields: usize) -> Result<Self, Fault> {
        let name = format!("urn:quiver:gateway:gateway_{number}");
        let own = number * devices..(number + 1) * devices;
        Ok(Self {
            sender: SenderId::from_urn(&name).ok_or("no gateway's name")?,
            devices: own.map(|device| Device::new(device, fields)).collect(),
            among: among.max(1),
            cursor: 0,
        })
    }

    /// Who it is.
    pub fn sender(&self) -> &SenderId {
        &self.sender
    }

    /// An encoder for its batches.
    ///
    /// # Errors
    /// Never in practice: the schema is one that telemetry may have.
    pub fn encoder(&self, compression: Compression) -> Result<BatchEncoder, Fault> {
        let fields = self.devices.first().map_or(0, |device| device.values.len());
        let schema = wire_schema(fields, self.names_devices());
        Ok(BatchEncoder::new(&schema, compression)?)
    }

    /// Its next rows as it would send them.
    ///
    /// # Errors
    /// Never in practice: the columns are of one length.
    pub fn batch(&mut self, rows: usize) -> Result<RecordBatch, Fault> {
        let names_devices = self.names_devices();
        let Some(first) = self.devices.first_mut() else {
            return Err("a source without devices".into());
        };
        if !names_devices {
            return first.batch(rows);
        }
        let fields = first.values.len();
        let mut names = Vec::with_capacity(rows);
        let mut times = Vec::with_capacity(rows);
        let mut columns = vec![Vec::with_capacity(rows); fields];
        let count = self.devices.len();
        for row in 0..rows {
            let device = &mut self.devices[(self.cursor + row % self.among) % count];
            let (time, values) = device.rows(1);
            names.push(device.name.clone());
            times.extend(time);
            for (column, value) in columns.iter_mut().zip(values) {
                column.extend(value);
            }
        }
        self.cursor = (self.cursor + self.among) % count;
        Ok(RecordBatch::try_new(
            wire_schema(fields, true),
            wire_columns(Some(names), times, columns),
        )?)
    }

    fn names_devices(&self) -> bool {
        self.devices.len() > 1
    }
}

fn wire_columns(
    devices: Option<Vec<String>>,
    times: Vec<i64>,
    columns: Vec<Vec<f64>>,
) -> Vec<ArrayRef> {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let devices = devices.map(|names| Arc::new(StringArray::from(names)) as ArrayRef);
    let fields = columns
        .into_iter()
        .map(|column| Arc::new(Float64Array::from(column)) as ArrayRef);
    std::iter::once(times)
        .chain(devices)
        .chain(fields)
        .collect()
}

/// The columns on the wire.
pub fn wire_schema(fields: usize, with_device: bool) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let device = with_device.then(|| Field::new("device", DataType::Utf8, false));
    let fields = (0..fields).map(|number| Field::new(field_name(number), DataType::Float64, true));
    let columns = std::iter::once(Field::new("ts", time, false));
    Arc::new(Schema::new(
        columns.chain(device).chain(fields).collect::<Vec<_>>(),
    ))
}

fn field_name(number: usize) -> String {
    format!("value_{number}")
}

/// The stream's name.
///
/// # Errors
/// Never in practice: the name is well formed.
pub fn stream() -> Result<StreamName, Fault> {
    Ok(StreamName::new(STREAM)?)
}

/// The stream's schema.
///
/// # Errors
/// Never in practice: the names are well formed.
pub fn stream_schema(fields: usize) -> Result<Arc<StreamSchema>, Fault> {
    let fields = (0..fields)
        .map(|number| {
            let name = FieldName::new(&field_name(number))?;
            Ok(StreamField::new(name, FieldType::Float64))
        })
        .collect::<Result<_, Fault>>()?;
    Ok(Arc::new(StreamSchema::new(stream()?, SchemaId(1), fields)?))
}

/// What judging a batch of `sender` needs to know.
pub fn context<'a>(
    sender: &'a SenderId,
    stream: &'a StreamName,
    schema: &'a StreamSchema,
) -> NormaliseContext<'a> {
    NormaliseContext {
        sender,
        stream,
        schema: Some(schema),
        now: NOW,
        future_limit: std::time::Duration::from_secs(86_400),
        may_speak_for: &|_| true,
    }
}

/// A batch judged and turned into stored types, as ingest does it.
///
/// # Errors
/// If the batch would be refused.
pub fn check(
    batch: &RecordBatch,
    schema: &Arc<StreamSchema>,
    sender: &SenderId,
) -> Result<(Verdict, CheckedBatch), Fault> {
    let judged = judge(batch, &context(sender, schema.stream(), schema))
        .map_err(|refusal| refusal.message)?;
    let checked = apply(
        batch,
        schema,
        sender,
        &judged.verdict,
        judged.devices.as_ref(),
    )
    .map_err(|refusal| refusal.message)?;
    Ok((judged.verdict, checked))
}

/// Stored batches of `rows_per_batch` rows, device by device in turn, as a memtable holds them.
///
/// # Errors
/// If the batches would be refused.
pub fn stored_batches(
    schema: &Arc<StreamSchema>,
    devices: usize,
    rows: usize,
    rows_per_batch: usize,
) -> Result<Vec<RecordBatch>, Fault> {
    let fields = schema.fields().len();
    let mut fleet = (0..devices)
        .map(|number| Source::device(number as u64, fields))
        .collect::<Result<Vec<_>, Fault>>()?;
    stored_batches_of(&mut fleet, schema, rows, rows_per_batch)
}

/// The same of any sources in turn.
///
/// # Errors
/// If the batches would be refused.
pub fn stored_batches_of(
    fleet: &mut [Source],
    schema: &Arc<StreamSchema>,
    rows: usize,
    rows_per_batch: usize,
) -> Result<Vec<RecordBatch>, Fault> {
    let mut next = Position(1);
    let mut batches = Vec::with_capacity(rows / rows_per_batch);
    let count = fleet.len().max(1);
    for number in 0..rows / rows_per_batch {
        let Some(source) = fleet.get_mut(number % count) else {
            break;
        };
        let batch = source.batch(rows_per_batch)?;
        let (_, checked) = check(&batch, schema, source.sender())?;
        batches.push(checked.place(next, NOW)?);
        next = next.plus(rows_per_batch as u64);
    }
    Ok(batches)
}

/// What opens a telemetry QUIC stream of such batches: `OpenStream` and the schema message.
///
/// # Errors
/// Never in practice: the schema is one that telemetry may have.
pub fn opening(encoder: &BatchEncoder) -> Result<[Bytes; 2], Fault> {
    let mut open = OpenStream::new(stream()?, Producer(1), Sequence(0));
    open.encoding = encoder.encoding();
    Ok([open.encode(), encoder.schema_message()?])
}

/// An encoder for a device's batches.
///
/// # Errors
/// Never in practice: the schema is one that telemetry may have.
pub fn encoder(fields: usize, compression: Compression) -> Result<BatchEncoder, Fault> {
    Ok(BatchEncoder::new(&wire_schema(fields, false), compression)?)
}

/// All compressions, with their names.
pub const COMPRESSIONS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
    ("message", Compression::ZstdMessage),
    ("compact", Compression::Compact),
];
