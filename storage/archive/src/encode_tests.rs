//! Every value comes back from a file bit for bit, whatever encoding was chosen for its column.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type},
};
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;
use quiver_model::{FIELD_TIME_MAX, FIELD_TIME_MIN, FieldName, FieldType, StreamField, StreamName};

use super::*;
use crate::{
    read::{decode, stored_schema},
    sort::sort_by_day,
};

const START_US: i64 = 1_767_225_600_000_000;

fn name(text: &str) -> FieldName {
    FieldName::new(text).unwrap()
}

fn layout(fields: &[StreamField]) -> SchemaRef {
    stored_schema(&StreamName::new("readings").unwrap(), fields).unwrap()
}

/// Rows of a few devices with these field columns.
fn rows(schema: &SchemaRef, fields: Vec<ArrayRef>) -> RecordBatch {
    let count = fields[0].len() as i64;
    let ts = TimestampMicrosecondArray::from_iter_values((0..count).map(|at| START_US + at * 17));
    let ts: ArrayRef = Arc::new(ts.with_timezone("UTC"));
    let device: DictionaryArray<Int32Type> = (0..count)
        .map(|at| Some(["a", "b", "c"][(at % 3) as usize]))
        .collect();
    let mut columns: Vec<ArrayRef> = vec![
        ts.clone(),
        Arc::new(device),
        ts,
        Arc::new(Int64Array::from_iter_values(1..=count)),
    ];
    columns.extend(fields);
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

/// The rows as a file gives them back, in the order of their positions, and the file.
fn there_and_back(batch: &RecordBatch, encodings: Encodings) -> (RecordBatch, Bytes) {
    let schema = batch.schema();
    let batches = [batch.clone()];
    let days = sort_by_day(&batches).unwrap();
    assert_eq!(days.len(), 1);
    let path = String::new();
    let day = &days[0];
    let encoded = encode(&schema, &batches, &day.rows, day.day, path, encodings).unwrap();
    let read = decode(encoded.content.clone(), &schema).unwrap();
    let read = arrow_select::concat::concat_batches(&schema, &read).unwrap();
    let mut order: Vec<(i64, u32)> = (0..)
        .zip(read.column(3).as_primitive::<Int64Type>().values())
        .map(|(row, position)| (*position, row))
        .collect();
    order.sort_unstable();
    let order = arrow_array::UInt32Array::from_iter_values(order.iter().map(|(_, row)| *row));
    let columns = read
        .columns()
        .iter()
        .map(|column| arrow_select::take::take(column, &order, None).unwrap())
        .collect();
    (
        RecordBatch::try_new(schema, columns).unwrap(),
        encoded.content,
    )
}

fn bits(column: &ArrayRef) -> Vec<Option<u64>> {
    let floats = column.as_primitive::<Float64Type>();
    floats.iter().map(|value| value.map(f64::to_bits)).collect()
}

fn ways() -> [Encodings; 3] {
    [
        Encodings::Measured(Effort::Flush),
        Encodings::Measured(Effort::Merge),
        Encodings::Fixed,
    ]
}

/// Floats of every kind: all bit patterns, few distinct ones, decimals, and the special ones.
fn floats(rows: usize) -> impl Strategy<Value = Vec<Option<f64>>> {
    let special = prop::sample::select(vec![
        f64::NAN,
        f64::from_bits(0xfff8_0000_0000_0001),
        -0.0,
        0.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE / 2.0,
        f64::MAX,
    ]);
    let one = prop_oneof![
        4 => any::<u64>().prop_map(f64::from_bits),
        2 => (-99_999_i64..99_999).prop_map(|scaled| scaled as f64 / 100.0),
        1 => special,
    ];
    // A few patterns repeated, and all different.
    let cycle = prop::collection::vec(prop::option::weighted(0.9, one), 1..400);
    (cycle, any::<bool>()).prop_map(move |(cycle, is_noisy)| {
        let noise = |row: usize| f64::from_bits((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (0..rows)
            .map(|row| match cycle[row % cycle.len()] {
                Some(_) if is_noisy && row % 3 > 0 => Some(noise(row)),
                value => value,
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn floats_come_back_bit_for_bit(
        floats in prop_oneof![Just(1), Just(63), Just(5_000)].prop_flat_map(floats),
    ) {
        let schema = layout(&[StreamField::new(name("value"), FieldType::Float64)]);
        let column: ArrayRef = Arc::new(Float64Array::from(floats));
        let batch = rows(&schema, vec![column.clone()]);
        for way in ways() {
            let (read, _) = there_and_back(&batch, way);
            prop_assert_eq!(bits(read.column(4)), bits(&column));
        }
    }

    #[test]
    fn decimals_come_back_bit_for_bit(
        scaled in prop::collection::vec(
            prop::option::weighted(0.9, -999_999_999_999_999_i64..=999_999_999_999_999),
            1..300,
        ),
        digits in 0_u8..=9,
    ) {
        let scale = DecimalScale::new(digits).unwrap();
        let values: Float64Array = scaled
            .iter()
            .cycle()
            .take(3_000)
            .map(|scaled| scaled.map(|scaled| scale.value(scaled)))
            .collect();
        let schema = layout(&[StreamField::decimal(name("value"), scale)]);
        let column: ArrayRef = Arc::new(values);
        let batch = rows(&schema, vec![column.clone()]);
        for way in ways() {
            let (read, _) = there_and_back(&batch, way);
            prop_assert_eq!(bits(read.column(4)), bits(&column));
        }
    }
}

#[test]
fn every_column_comes_back_and_only_common_encodings_are_used() {
    let fields = [
        StreamField::new(name("noise"), FieldType::Float64),
        StreamField::new(name("few"), FieldType::Float64),
        StreamField::decimal(name("price"), DecimalScale::new(2).unwrap()),
        StreamField::new(name("code"), FieldType::Int64),
        StreamField::new(name("note"), FieldType::Utf8),
        StreamField::new(name("flag"), FieldType::Bool),
        StreamField::new(name("seen"), FieldType::Timestamp),
    ];
    let schema = layout(&fields);
    let count = 5_000_i64;
    let noise =
        (0..count).map(|at| 1.0 + (at.wrapping_mul(0x1e37_79b9_7f4a_7c15) >> 12) as f64 / 1e20);
    let note: StringArray = (0..count)
        .map(|at| (at % 7 > 0).then(|| format!("ü {}", at % 90)))
        .collect();
    let code: Int64Array = (0..count)
        .map(|at| (at % 5 > 0).then_some([i64::MIN, i64::MAX, 0, 7][(at % 4) as usize]))
        .collect();
    let (first, last) = (FIELD_TIME_MIN.as_micros(), FIELD_TIME_MAX.as_micros());
    let seen: TimestampMicrosecondArray = (0..count)
        .map(|at| (at % 6 > 0).then_some([first, last, -1, 0, at][(at % 5) as usize]))
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Float64Array::from_iter_values(noise)),
        Arc::new(Float64Array::from_iter_values(
            (0..count).map(|at| (at % 40) as f64),
        )),
        Arc::new(Float64Array::from_iter_values(
            (0..count).map(|at| at as f64 / 100.0),
        )),
        Arc::new(code),
        Arc::new(note),
        Arc::new(BooleanArray::from_iter(
            (0..count).map(|at| Some(at % 3 == 0)),
        )),
        Arc::new(seen.with_timezone("UTC")),
    ];
    let batch = rows(&schema, columns);
    for way in ways() {
        let (read, content) = there_and_back(&batch, way);
        for column in 0..batch.num_columns() {
            if column != 1 {
                assert_eq!(
                    read.column(column),
                    batch.column(column),
                    "{way:?} {column}"
                );
            }
        }
        let reader = SerializedFileReader::new(content).unwrap();
        let group = reader.metadata().row_group(0);
        for chunk in group.columns() {
            for encoding in chunk.encodings() {
                use parquet::basic::Encoding as E;
                let is_float = chunk.column_type() == parquet::basic::Type::DOUBLE;
                let is_common = match encoding {
                    E::PLAIN | E::RLE | E::RLE_DICTIONARY | E::DELTA_BINARY_PACKED => true,
                    E::BYTE_STREAM_SPLIT => is_float,
                    _ => false,
                };
                assert!(is_common, "{} {encoding}", chunk.column_path());
            }
        }
    }
}

#[test]
fn a_value_that_is_no_decimal_of_its_field_is_an_error() {
    let scale = DecimalScale::new(1).unwrap();
    let schema = layout(&[StreamField::decimal(name("price"), scale)]);
    let batch = rows(&schema, vec![Arc::new(Float64Array::from(vec![0.25]))]);
    let batches = [batch];
    let days = sort_by_day(&batches).unwrap();
    let way = Encodings::Measured(Effort::Flush);
    let error = encode(
        &schema,
        &batches,
        &days[0].rows,
        days[0].day,
        String::new(),
        way,
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("0.25") && error.contains("price"), "{error}");
}

#[test]
fn the_statistics_of_decimals_have_no_more_digits_than_their_type() {
    let bound = |digits, value| {
        ColumnStatistics::new("a", DecimalScale::new(digits))
            .bound(value)
            .map(|bound| bound.to_string())
    };
    assert_eq!(bound(2, 12.34).as_deref(), Some("12.34"));
    assert_eq!(bound(0, -12.0).as_deref(), Some("-12"));
    // JSON has exponents; not every reader of decimals does.
    assert_eq!(bound(9, 0.000_000_001), None);
}
