//! Bytes a point and encoding time of a fleet's rows in the shape of the Time Series Benchmark
//! Suite's iot case, for each column, with the same encodings for every column of a type and with
//! measured ones:
//!
//! ```text
//! cargo run --release -p quiver-archive --example iot_bytes -- [trucks] [ticks] [rows a batch]
//! ```
//!
//! Default: 1,000 trucks, 360 ticks of 10 s, batches of 24 rows that come in random order. A point
//! is a value of a field: 7 of a reading, 3 of a diagnostics row.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Instant};

use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use quiver_archive::stages::{Effort, Encodings, layout, sort};
use quiver_model::{DecimalScale, FieldName, FieldType, StreamField, StreamName};

const START_US: i64 = 1_767_225_600_000_000;
const TICK_US: i64 = 10_000_000;
/// How often each way is timed, in turn.
const ROUNDS: usize = 5;

/// (name, digits after the point); the last is an integer.
const READINGS: [(&str, u8); 7] = [
    ("latitude", 5),
    ("longitude", 5),
    ("elevation", 0),
    ("velocity", 0),
    ("heading", 0),
    ("grade", 0),
    ("fuel_consumption", 1),
];
const DIAGNOSTICS: [(&str, u8); 2] = [("fuel_state", 1), ("current_load", 0)];

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

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn walk(&mut self, value: &mut f64, step: f64, low: f64, high: f64) -> f64 {
        *value = (*value + (self.share() * 2.0 - 1.0) * step).clamp(low, high);
        *value
    }
}

fn rounded(value: f64, digits: u8) -> f64 {
    let factor = 10_f64.powi(i32::from(digits));
    (value * factor).round_ties_even() / factor
}

struct Truck {
    readings: [f64; 7],
    fuel: f64,
    load: f64,
    status: f64,
}

impl Truck {
    fn new(random: &mut Random) -> Self {
        Self {
            readings: [
                random.share() * 90.0,
                random.share() * 180.0,
                random.share() * 500.0,
                0.0,
                random.share() * 360.0,
                0.0,
                25.0,
            ],
            fuel: 1.0,
            load: random.share() * 5_000.0,
            status: 0.0,
        }
    }

    fn drive(&mut self, random: &mut Random) -> ([f64; 7], [f64; 2], i64) {
        const STEPS: [(f64, f64, f64); 7] = [
            (0.005, -90.0, 90.0),
            (0.005, -180.0, 180.0),
            (10.0, 0.0, 5_000.0),
            (10.0, 0.0, 100.0),
            (5.0, 0.0, 360.0),
            (5.0, 0.0, 100.0),
            (5.0, 0.0, 50.0),
        ];
        let mut readings = [0.0; 7];
        for (field, value) in self.readings.iter_mut().enumerate() {
            let (step, low, high) = STEPS[field];
            let walked = random.walk(value, step, low, high);
            readings[field] = rounded(walked, READINGS[field].1);
        }
        self.fuel -= random.share() * 0.001;
        if self.fuel <= 0.0 {
            self.fuel = 1.0;
        }
        if random.share() < 0.05 {
            self.load = random.share() * 5_000.0;
        }
        // About normal, with variance 1, as a sum of uniform ones.
        let normal = (0..3).map(|_| random.share() * 2.0 - 1.0).sum::<f64>();
        self.status = (self.status + normal).clamp(0.0, 5.0);
        let diagnostics = [rounded(self.fuel, 1), rounded(self.load, 0)];
        (readings, diagnostics, self.status as i64)
    }
}

/// The batches of one stream as they come.
struct Stream {
    name: StreamName,
    /// Undeclared, and with the scales declared.
    fields: [Vec<StreamField>; 2],
    batches: Vec<RecordBatch>,
    rows: usize,
}

fn stream(
    name: &str,
    floats: &[(&str, u8)],
    integer: Option<&str>,
) -> Result<Stream, Box<dyn Error>> {
    let mut fields = [Vec::new(), Vec::new()];
    for (float, digits) in floats {
        let float = FieldName::new(float)?;
        let scale = DecimalScale::new(*digits).ok_or("a scale beyond 9")?;
        fields[0].push(StreamField::new(float.clone(), FieldType::Float64));
        fields[1].push(StreamField::decimal(float, scale));
    }
    if let Some(integer) = integer {
        for fields in &mut fields {
            fields.push(StreamField::new(FieldName::new(integer)?, FieldType::Int64));
        }
    }
    Ok(Stream {
        name: StreamName::new(name)?,
        fields,
        batches: Vec::new(),
        rows: 0,
    })
}

fn push(
    stream: &mut Stream,
    truck: usize,
    times: &[i64],
    arrival: i64,
    position: &mut i64,
    fields: Vec<ArrayRef>,
) -> Result<(), Box<dyn Error>> {
    let rows = times.len();
    let device = DictionaryArray::try_new(
        Int32Array::from(vec![0; rows]),
        Arc::new(StringArray::from(vec![format!("truck_{truck}")])),
    )?;
    let positions = *position..*position + rows as i64;
    *position += rows as i64;
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC")),
        Arc::new(device),
        Arc::new(TimestampMicrosecondArray::from(vec![arrival; rows]).with_timezone("UTC")),
        Arc::new(Int64Array::from_iter_values(positions)),
    ];
    columns.extend(fields);
    let schema = layout(&stream.name, &stream.fields[0]).map_err(|error| error.to_string())?;
    stream.rows += rows;
    stream.batches.push(RecordBatch::try_new(schema, columns)?);
    Ok(())
}

fn fleet(trucks: usize, ticks: usize, rows: usize) -> Result<[Stream; 2], Box<dyn Error>> {
    let mut random = Random(7);
    let mut fleet: Vec<Truck> = (0..trucks).map(|_| Truck::new(&mut random)).collect();
    let mut readings = stream("readings", &READINGS, None)?;
    let mut diagnostics = stream("diagnostics", &DIAGNOSTICS, Some("status"))?;
    let mut position = 1;
    for first in (0..ticks).step_by(rows) {
        let ticks = first..(first + rows).min(ticks);
        let mut order: Vec<usize> = (0..trucks).collect();
        for at in (1..trucks).rev() {
            order.swap(at, (random.next() % (at as u64 + 1)) as usize);
        }
        let mut arrival = START_US + ticks.end as i64 * TICK_US;
        for truck in order {
            let mut columns: [Vec<f64>; 9] = Default::default();
            let mut status = Vec::new();
            for _ in ticks.clone() {
                let (seven, two, one) = fleet[truck].drive(&mut random);
                for (column, value) in columns.iter_mut().zip(seven.into_iter().chain(two)) {
                    column.push(value);
                }
                status.push(one);
            }
            let times: Vec<i64> = ticks
                .clone()
                .map(|tick| START_US + tick as i64 * TICK_US)
                .collect();
            let mut columns =
                columns.map(|column| Arc::new(Float64Array::from(column)) as ArrayRef);
            let mut last: Vec<ArrayRef> = columns[7..].to_vec();
            last.push(Arc::new(Int64Array::from(status)));
            let seven = columns[..7]
                .iter_mut()
                .map(|column| column.clone())
                .collect();
            arrival += (random.next() % (TICK_US as u64 / trucks as u64).max(1)) as i64;
            push(&mut readings, truck, &times, arrival, &mut position, seven)?;
            push(
                &mut diagnostics,
                truck,
                &times,
                arrival,
                &mut position,
                last,
            )?;
        }
    }
    Ok([readings, diagnostics])
}

/// Bytes of each column.
fn sizes(files: &[Bytes]) -> Result<BTreeMap<String, i64>, Box<dyn Error>> {
    let mut sizes = BTreeMap::new();
    for file in files {
        let reader = SerializedFileReader::new(file.clone())?;
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                *sizes.entry(column.column_path().string()).or_default() +=
                    column.compressed_size();
            }
        }
    }
    Ok(sizes)
}

#[expect(clippy::disallowed_methods, reason = "an example measures time")]
fn main() -> Result<(), Box<dyn Error>> {
    let number = |index: usize, default: usize| {
        let argument = std::env::args().nth(index);
        argument.map_or(Ok(default), |text| text.parse())
    };
    let (trucks, ticks, rows) = (number(1, 1_000)?, number(2, 360)?, number(3, 24)?);
    let streams = fleet(trucks, ticks, rows)?;
    let ways = [
        ("fixed", 0, Encodings::Fixed),
        ("flush", 0, Encodings::Measured(Effort::Flush)),
        ("merge", 0, Encodings::Measured(Effort::Merge)),
        ("decimal flush", 1, Encodings::Measured(Effort::Flush)),
        ("decimal merge", 1, Encodings::Measured(Effort::Merge)),
    ];
    let mut totals = [[0_i64; 3]; 5];
    let mut points = 0;
    println!("bytes a row of each column:");
    print!("{:<28}", "");
    ways.iter().for_each(|way| print!("{:>14}", way.0));
    println!();
    let mut times = [[0.0_f64; 5]; ROUNDS];
    let mut choosing = [[0.0_f64; 5]; ROUNDS];
    for stream in &streams {
        let sorted = sort(&stream.batches).ok_or("not the stored layout")?;
        points += stream.rows * stream.fields[0].len();
        let mut of_way = Vec::new();
        for (round, (times, choosing)) in times.iter_mut().zip(&mut choosing).enumerate() {
            for (way, (_, declared, encodings)) in ways.iter().enumerate() {
                let schema = layout(&stream.name, &stream.fields[*declared])
                    .map_err(|error| error.to_string())?;
                let begun = Instant::now();
                let files = sorted
                    .encode_as(&schema, &stream.batches, *encodings)
                    .map_err(|error| error.to_string())?;
                times[way] += begun.elapsed().as_secs_f64();
                let begun = Instant::now();
                sorted
                    .choose(&schema, &stream.batches, *encodings)
                    .map_err(|error| error.to_string())?;
                choosing[way] += begun.elapsed().as_secs_f64();
                if round == 0 {
                    of_way.push(sizes(&files)?);
                    totals[way][2] += files.iter().map(|file| file.len() as i64).sum::<i64>();
                }
            }
        }
        for column in of_way[0].keys() {
            print!("{:<28}", format!("{}.{column}", stream.name));
            for (way, sizes) in of_way.iter().enumerate() {
                let bytes = sizes[column];
                print!("{:>14.3}", bytes as f64 / stream.rows as f64);
                let is_engines = ["arrival", "position"].contains(&column.as_str());
                if column != "device" {
                    totals[way][usize::from(is_engines)] += bytes;
                }
            }
            println!();
        }
    }
    println!("bytes a point:");
    let names = ["fields and ts", "arrival and position", "all of the files"];
    for (part, name) in names.into_iter().enumerate() {
        print!("{name:<28}");
        totals
            .iter()
            .for_each(|way| print!("{:>14.3}", way[part] as f64 / points as f64));
        println!();
    }
    // Medians; ratios are of the same round.
    let median = |of: &dyn Fn(usize) -> f64| {
        let mut all: Vec<f64> = (0..ROUNDS).map(of).collect();
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2]
    };
    print!("{:<28}", "encoding time, of fixed");
    for way in [0, 1, 2, 3, 4] {
        let ratio = median(&|round| times[round][way] / times[round][0]);
        print!("{ratio:>14.2}");
    }
    println!();
    print!("{:<28}", "share of choosing in it");
    for way in [0, 1, 2, 3, 4] {
        let share = median(&|round| choosing[round][way] / times[round][way]);
        print!("{:>13.1}%", share * 100.0);
    }
    println!();
    print!("{:<28}", "million points/s");
    for way in [0, 1, 2, 3, 4] {
        let time = median(&|round| times[round][way]);
        print!("{:>14.1}", points as f64 / time / 1e6);
    }
    println!();
    Ok(())
}
