//! What a flush takes of a processor, for each stage, and what it makes of its rows:
//!
//! ```text
//! cargo run --release -p quiver-archive --example flush_cost -- [rows] [rounds] [directory for the files]
//! ```
//!
//! Rows of 10 float64 fields of 64 devices, in batches of 1,000 rows of one device, all in memory.
//! Times are of the thread's processor, the least of all rounds; the kinds of values take turns.

use std::{error::Error, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Decimal64Array, DictionaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, cast::AsArray, types::Float64Type,
};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat;
use quiver_archive::stages::{Effort, Encodings, Kind as Encoding, encode_column, layout, sort};
use quiver_model::{FieldName, FieldType, StreamField, StreamName};
use rustix::time::{ClockId, clock_gettime};

/// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEVICES: usize = 64;
const FIELDS: usize = 10;
const BATCH_ROWS: usize = 1_000;
const START_US: i64 = 1_767_225_600_000_000;
const STEP_US: i64 = 10_000;

/// Numbers that look random: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    /// Walks at random, rounded to hundredths.
    Walk,
    /// The same, with a tenth of the values missing.
    Gaps,
    /// Walks at random, with all digits of a measurement.
    Noise,
    /// Changes now and then.
    Steps,
}

fn value(kind: Kind, walk: &mut f64, random: &mut Random) -> Option<f64> {
    let drawn = random.next();
    match kind {
        Kind::Walk | Kind::Gaps => {
            *walk += (drawn % 101) as f64 - 50.0;
            let is_there = matches!(kind, Kind::Walk) || !random.next().is_multiple_of(10);
            is_there.then_some(*walk / 100.0)
        }
        Kind::Noise => {
            *walk += (drawn >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
            Some(*walk)
        }
        Kind::Steps => {
            if drawn.is_multiple_of(50) {
                *walk = (drawn >> 32) as f64 % 1_000.0;
            }
            Some(*walk)
        }
    }
}

/// The layout of the rows, and the rows.
fn batches(kind: Kind, rows: usize) -> Result<(SchemaRef, Vec<RecordBatch>), Box<dyn Error>> {
    let stream = StreamName::new("readings")?;
    let fields = (0..FIELDS)
        .map(|field| {
            Ok(StreamField::new(
                FieldName::new(&format!("value_{field}"))?,
                FieldType::Float64,
            ))
        })
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let schema = layout(&stream, &fields).map_err(|error| error.to_string())?;
    let mut random = Random(7);
    let mut walks = vec![[0.0_f64; FIELDS]; DEVICES];
    for walks in &mut walks {
        walks
            .iter_mut()
            .for_each(|walk| *walk = (random.next() % 10_000) as f64);
    }
    let mut times = vec![START_US; DEVICES];
    let mut batches = Vec::new();
    for number in 0..rows / BATCH_ROWS {
        let device = number % DEVICES;
        let ts: Vec<i64> = (0..BATCH_ROWS as i64)
            .map(|row| times[device] + row * STEP_US)
            .collect();
        times[device] += BATCH_ROWS as i64 * STEP_US;
        let arrival = START_US + 1_000_000 + number as i64 * 1_317;
        let first = (number * BATCH_ROWS) as i64 + 1;
        let name = Arc::new(StringArray::from(vec![format!("truck_{device:05}")]));
        let keys = Int32Array::from(vec![0; BATCH_ROWS]);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(ts).with_timezone("UTC")),
            Arc::new(DictionaryArray::try_new(keys, name)?),
            Arc::new(
                TimestampMicrosecondArray::from(vec![arrival; BATCH_ROWS]).with_timezone("UTC"),
            ),
            Arc::new(Int64Array::from_iter_values(
                first..first + BATCH_ROWS as i64,
            )),
        ];
        for walk in &mut walks[device] {
            let values: Float64Array = (0..BATCH_ROWS)
                .map(|_| value(kind, walk, &mut random))
                .collect();
            columns.push(Arc::new(values));
        }
        batches.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
    }
    Ok((schema, batches))
}

/// A row group of the first field, in the archive's order.
fn column(batches: &[RecordBatch]) -> Result<ArrayRef, Box<dyn Error>> {
    let of_device = |device| batches.iter().skip(device).step_by(DEVICES);
    let columns: Vec<&dyn Array> = (0..DEVICES)
        .flat_map(of_device)
        .map(|batch| batch.column(4).as_ref())
        .collect();
    let column = concat(&columns)?;
    Ok(column.slice(0, column.len().min(131_072)))
}

/// Bytes and nanoseconds of a point in each encoding, at three levels of ZSTD.
fn encodings(column: &ArrayRef, rounds: usize) -> Result<(), Box<dyn Error>> {
    let decimals: Decimal64Array = column
        .as_primitive::<Float64Type>()
        .iter()
        .map(|value| value.map(|value| (value * 100.0).round_ties_even() as i64))
        .collect();
    let decimals: ArrayRef = Arc::new(decimals);
    let ways = [
        ("plain", column, Encoding::Plain),
        ("byte_stream_split", column, Encoding::ByteStreamSplit),
        ("dictionary", column, Encoding::Dictionary),
        ("decimal, delta", &decimals, Encoding::Delta),
    ];
    for (name, column, encoding) in ways {
        print!("  {name:<20}");
        for level in 1..=3 {
            let (mut least, mut bytes) = (f64::INFINITY, None);
            for _ in 0..rounds {
                let begun = processor();
                let encoded = encode_column(column, encoding, level);
                least = least.min(processor() - begun);
                bytes = encoded.map_err(|error| error.to_string())?;
            }
            let points = column.len() as f64;
            match bytes {
                Some(bytes) => print!("{:>9.3}{:>8.2}", bytes as f64 / points, least / points),
                None => print!("{:>17}", "-"),
            }
        }
        println!();
    }
    Ok(())
}

/// Nanoseconds of this thread's processor.
fn processor() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn main() -> Result<(), Box<dyn Error>> {
    let number = |index: usize, default: usize| {
        let argument = std::env::args().nth(index);
        argument.map_or(Ok(default), |text| text.parse())
    };
    let (rows, rounds) = (number(1, 256_000)?, number(2, 5)?);
    let kinds = [
        ("walk", Kind::Walk),
        ("gaps", Kind::Gaps),
        ("noise", Kind::Noise),
        ("steps", Kind::Steps),
    ];
    let mut data = Vec::new();
    for (name, kind) in kinds {
        let (schema, batches) = batches(kind, rows)?;
        data.push((name, schema, batches, [f64::INFINITY; 4], 0));
    }
    for _ in 0..rounds {
        for (name, schema, batches, least, bytes) in &mut data {
            let begun = processor();
            let sorted = sort(batches).ok_or("not the stored layout")?;
            let sorting = processor() - begun;
            let begun = processor();
            let flush = Encodings::Measured(Effort::Flush);
            sorted
                .choose(schema, batches, flush)
                .map_err(|error| error.to_string())?;
            let choosing = processor() - begun;
            let begun = processor();
            let files = sorted
                .encode(schema, batches)
                .map_err(|error| error.to_string())?;
            let encoding = processor() - begun;
            if let Some(directory) = std::env::args().nth(3) {
                for (number, file) in files.iter().enumerate() {
                    std::fs::write(format!("{directory}/{name}-{number}.parquet"), file)?;
                }
            }
            *bytes = files.iter().map(bytes::Bytes::len).sum::<usize>();
            let times = [sorting, choosing, encoding - choosing, sorting + encoding];
            for (least, time) in least.iter_mut().zip(times) {
                *least = least.min(time);
            }
        }
    }
    let points = (rows / BATCH_ROWS * BATCH_ROWS * FIELDS) as f64;
    println!(
        "{:<8}{:>10}{:>10}{:>10}{:>10}{:>14}",
        "ns/point", "sort", "choose", "encode", "all", "bytes/point"
    );
    for (name, _, _, least, bytes) in &data {
        print!("{name:<8}");
        least
            .iter()
            .for_each(|time| print!("{:>10.2}", time / points));
        println!("{:>14.3}", *bytes as f64 / points);
    }
    println!("one column, bytes/point and ns/point with ZSTD at levels 1, 2, 3:");
    for (name, _, batches, _, _) in &data {
        println!("{name}");
        encodings(&column(batches)?, rounds)?;
    }
    Ok(())
}
