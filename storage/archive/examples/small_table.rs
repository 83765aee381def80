//! Writes a small table, for trying the archive with other readers of Delta:
//!
//! ```text
//! cargo run -p quiver-archive --example small_table -- /tmp/archive
//! ```
//!
//! Three flushes, the last of which brings another field, and a compaction: 30,000 rows of 7
//! devices over 3 days, in stream `readings`, with a column in each encoding that Quiver writes. Row
//! `p` (its position) has `speed` = p / 4, `price` = p / 100 (a decimal field), `level` = p mod 10,
//! `noise` = p / 7, `gear` = -p, `moving` = whether p is even, `note` = "note ü p", and nothing in
//! any of them where 11 divides p.

use std::{error::Error, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, types::Int32Type,
};
use quiver_archive::{CompactOptions, DeltaArchive};
use quiver_hot::{Archive, FlushInput};
use quiver_model::{
    DecimalScale, FieldName, FieldType, OsEntropy, Position, SchemaId, StreamField, StreamName,
    StreamSchema, SystemClock,
};

const ROWS_PER_FLUSH: i64 = 10_000;
const START_US: i64 = 1_704_067_200_000_000;
const STEP_US: i64 = 8_000_017;

fn schema(fields: &[(&str, FieldType)]) -> Result<Arc<StreamSchema>, Box<dyn Error>> {
    let fields = fields
        .iter()
        .map(|(name, field_type)| {
            let name = FieldName::new(name)?;
            Ok(match DecimalScale::new(2) {
                Some(scale) if name.as_str() == "price" => StreamField::decimal(name, scale),
                _ => StreamField::new(name, *field_type),
            })
        })
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    Ok(Arc::new(StreamSchema::new(
        StreamName::new("readings")?,
        SchemaId(1),
        fields,
    )?))
}

fn batch(schema: &StreamSchema, first: i64) -> Result<RecordBatch, Box<dyn Error>> {
    let positions = first..first + ROWS_PER_FLUSH;
    let ts = positions
        .clone()
        .map(|position| START_US + position * STEP_US);
    let ts = TimestampMicrosecondArray::from_iter_values(ts).with_timezone("UTC");
    let devices: Vec<String> = positions
        .clone()
        .map(|position| format!("truck_{}", position % 7))
        .collect();
    let device: DictionaryArray<Int32Type> =
        devices.iter().map(|device| Some(device.as_str())).collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(ts.clone()),
        Arc::new(device),
        Arc::new(ts),
        Arc::new(Int64Array::from_iter_values(positions.clone())),
    ];
    for field in schema.fields() {
        let present = |position: &i64| position % 11 != 0;
        columns.push(match field.field_type {
            FieldType::Float64 => {
                let value = |at: i64| match field.name.as_str() {
                    "price" => at as f64 / 100.0,
                    "level" => (at % 10) as f64,
                    "noise" => at as f64 / 7.0,
                    _ => at as f64 / 4.0,
                };
                let values = positions
                    .clone()
                    .map(|at| present(&at).then_some(value(at)));
                Arc::new(values.collect::<Float64Array>())
            }
            FieldType::Int64 => Arc::new(
                positions
                    .clone()
                    .map(|at| present(&at).then_some(-at))
                    .collect::<Int64Array>(),
            ),
            FieldType::Bool => Arc::new(
                positions
                    .clone()
                    .map(|at| present(&at).then_some(at % 2 == 0))
                    .collect::<BooleanArray>(),
            ),
            FieldType::Timestamp => {
                // A day before 1970 and after, by the microsecond.
                let times = positions
                    .clone()
                    .map(|at| present(&at).then_some((at % 2 * 2 - 1) * 86_400_000_000 - at));
                let times: TimestampMicrosecondArray = times.collect();
                Arc::new(times.with_timezone("UTC"))
            }
            FieldType::Utf8 => {
                let text = positions
                    .clone()
                    .map(|at| present(&at).then(|| format!("note ü {at}")));
                Arc::new(text.collect::<StringArray>())
            }
        });
    }
    Ok(RecordBatch::try_new(Arc::clone(schema.stored()), columns)?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args()
        .nth(1)
        .ok_or("name the directory to write to")?;
    let archive = DeltaArchive::local(
        Path::new(&directory),
        "example",
        Arc::new(SystemClock::new()),
        Arc::new(OsEntropy),
    )?;
    let narrow = [
        ("speed", FieldType::Float64),
        ("price", FieldType::Float64),
        ("level", FieldType::Float64),
        ("noise", FieldType::Float64),
        ("gear", FieldType::Int64),
        ("moving", FieldType::Bool),
        ("seen", FieldType::Timestamp),
    ];
    let wide = [narrow.as_slice(), &[("note", FieldType::Utf8)]].concat();
    for (flush, fields) in [narrow.as_slice(), &narrow, &wide].into_iter().enumerate() {
        let schema = schema(fields)?;
        let first = i64::try_from(flush)? * ROWS_PER_FLUSH + 1;
        let barrier = Position(u64::try_from(first + ROWS_PER_FLUSH - 1)?);
        let batches = vec![batch(&schema, first)?];
        archive
            .flush(FlushInput {
                stream: schema.stream().clone(),
                schema,
                barrier,
                batches,
            })
            .await?;
        if flush == 1 {
            archive
                .compact(&StreamName::new("readings")?, &CompactOptions::default())
                .await?;
        }
    }
    let snapshot = archive.snapshot(&StreamName::new("readings")?).await?;
    println!(
        "version {}, {} files, {} rows",
        snapshot.version,
        snapshot.files.len(),
        snapshot.rows()
    );
    Ok(())
}
