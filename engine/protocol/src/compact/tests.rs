use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float16Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, LargeStringArray, NullArray, RecordBatch, RecordBatchOptions,
    StringArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array, cast::AsArray,
    types::Float16Type,
};
use arrow_schema::{DataType, Schema};
use proptest::{collection::vec, prelude::*};

use super::{decode::CompactDecoder, encode::CompactEncoder, *};
use crate::{BatchEncoder, Compression};

/// Equal to the bit: floats by their bits, since a NaN differs from itself and 0 is -0.
pub(super) fn assert_same(left: &RecordBatch, right: &RecordBatch) {
    assert_eq!(left.num_rows(), right.num_rows());
    for (left, right) in left.columns().iter().zip(right.columns()) {
        assert_eq!(left.data_type(), right.data_type());
        match left.data_type() {
            DataType::Float64 => {
                let bits = |array: &ArrayRef| -> Vec<Option<u64>> {
                    let array = array.as_primitive::<arrow_array::types::Float64Type>();
                    array.iter().map(|value| value.map(f64::to_bits)).collect()
                };
                assert_eq!(bits(left), bits(right));
            }
            DataType::Float32 => {
                let bits = |array: &ArrayRef| -> Vec<Option<u32>> {
                    let array = array.as_primitive::<arrow_array::types::Float32Type>();
                    array.iter().map(|value| value.map(f32::to_bits)).collect()
                };
                assert_eq!(bits(left), bits(right));
            }
            DataType::Float16 => {
                let bits = |array: &ArrayRef| -> Vec<Option<u16>> {
                    let array = array.as_primitive::<Float16Type>();
                    array
                        .iter()
                        .map(|value| value.map(|value| value.to_bits()))
                        .collect()
                };
                assert_eq!(bits(left), bits(right));
            }
            _ => assert_eq!(left, right),
        }
    }
}

/// One value of a column, or null.
fn maybe<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    prop_oneof![9 => value.prop_map(Some), 1 => Just(None)].boxed()
}

/// Floats that are decimals, ones that are not, and all that is peculiar.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-100_000..100_000_i64, 0..4_i32).prop_map(|(n, exponent)| n as f64 / 10_f64.powi(exponent)),
        2 => any::<f64>(),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => prop_oneof![
            Just(-0.0), Just(0.0), Just(f64::NAN), Just(-f64::NAN), Just(f64::INFINITY),
            Just(f64::NEG_INFINITY), Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(5e-324),
            Just(9_007_199_254_740_993.0), Just(0.1 + 0.2), Just(f64::from_bits(0x7ff0_0000_0000_0001)),
        ],
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0..6_u8).prop_map(|n| format!("state {n}")),
        2 => ".{0,12}",
        1 => (0..5_000_u32).prop_map(|n| format!("unique {n}")),
        1 => Just("x".repeat(300)),
    ]
}

/// A column of `rows` values of one of the types.
fn column(rows: usize, of_type: usize) -> BoxedStrategy<ArrayRef> {
    macro_rules! of {
        ($array:ty, $value:expr) => {
            vec(maybe($value), rows)
                .prop_map(|values| Arc::new(values.into_iter().collect::<$array>()) as ArrayRef)
                .boxed()
        };
    }
    let whole = || prop_oneof![4 => -50..50_i64, 1 => any::<i64>()];
    let time = || {
        prop_oneof![
            3 => (0..1_000_i64).prop_map(|second| 1_700_000_000_000_000 + second * 1_000_000),
            1 => any::<i64>(),
        ]
    };
    match of_type {
        0 => of!(Int8Array, any::<i8>()),
        1 => of!(Int16Array, any::<i16>()),
        2 => of!(Int32Array, any::<i32>()),
        3 => of!(Int64Array, whole()),
        4 => of!(UInt8Array, any::<u8>()),
        5 => of!(UInt16Array, any::<u16>()),
        6 => of!(UInt32Array, any::<u32>()),
        7 => of!(UInt64Array, any::<u64>()),
        8 => vec(maybe(any::<u16>()), rows)
            .prop_map(|bits| {
                type Half = <Float16Type as arrow_array::types::ArrowPrimitiveType>::Native;
                Arc::new(Float16Array::from_iter(
                    bits.into_iter().map(|bits| bits.map(Half::from_bits)),
                )) as ArrayRef
            })
            .boxed(),
        9 => of!(Float32Array, float().prop_map(|value| value as f32)),
        10 => of!(Float64Array, float()),
        11 => of!(TimestampSecondArray, time()),
        12 => of!(TimestampMillisecondArray, time()),
        13 => vec(time(), rows)
            .prop_map(|values| {
                Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef
            })
            .boxed(),
        14 => of!(TimestampNanosecondArray, time()),
        15 => of!(BooleanArray, any::<bool>()),
        16 => of!(StringArray, text()),
        17 => of!(LargeStringArray, text()),
        18 => Just(Arc::new(NullArray::new(rows)) as ArrayRef).boxed(),
        // Without nulls, and with nothing else.
        19 => vec(float(), rows)
            .prop_map(|values| Arc::new(Float64Array::from(values)) as ArrayRef)
            .boxed(),
        _ => Just(arrow_array::new_null_array(&DataType::Int32, rows)).boxed(),
    }
}

const TYPES: usize = 21;

/// Batches of the same columns.
fn batches() -> impl Strategy<Value = Vec<RecordBatch>> {
    (
        vec(0..TYPES, 1..8),
        vec(
            prop_oneof![4 => Just(1_usize), 2 => 0..20_usize, 1 => 20..200_usize],
            1..12,
        ),
    )
        .prop_flat_map(|(types, sizes)| {
            sizes
                .into_iter()
                .map(|rows| {
                    let columns: Vec<_> =
                        types.iter().map(|of_type| column(rows, *of_type)).collect();
                    (Just(rows), columns)
                })
                .collect::<Vec<_>>()
        })
        .prop_map(|batches| {
            batches
                .into_iter()
                .map(|(rows, columns)| {
                    let fields = columns.iter().enumerate().map(|(at, column)| {
                        arrow_schema::Field::new(format!("c{at}"), column.data_type().clone(), true)
                    });
                    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                    let options = RecordBatchOptions::new().with_row_count(Some(rows));
                    RecordBatch::try_new_with_options(schema, columns, &options).unwrap()
                })
                .collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// What goes in comes out, bit by bit: through a stream, re-based, and packed anew.
    #[test]
    fn every_batch_comes_back_to_the_bit(batches in batches(), alone in vec(any::<bool>(), 12)) {
        let schema = batches[0].schema();
        let limits = DecodeLimits::WIRE;
        let mut encoder = CompactEncoder::new(&schema).unwrap();
        let mut decoder = CompactDecoder::new(&schema).unwrap();
        let mut whole = BatchEncoder::new(&schema, Compression::Compact).unwrap();
        let mut packer = CompactPacker::new(&whole.schema_message().unwrap()).unwrap();
        let mut unpacker = CompactDecoder::new(&schema).unwrap();
        for (batch, alone) in batches.iter().zip(alone) {
            let mut payload = Vec::new();
            encoder.encode(batch.columns(), batch.num_rows(), alone, &mut payload);
            let decoded = decoder.decode(&payload, &limits, true).unwrap();
            assert_same(&decoded.batch, batch);
            let stored = decode_compact_batch(&schema, &decoded.stored, &DecodeLimits::STORED).unwrap();
            assert_same(&stored, batch);

            let message = whole.encode(batch).unwrap();
            let payload = payload_of(&message).unwrap();
            assert_same(&decode_compact_batch(&schema, payload, &limits).unwrap(), batch);
            let packed = packer.pack(&message).unwrap();
            let decoded = unpacker.decode(payload_of(&packed).unwrap(), &limits, false).unwrap();
            assert_same(&decoded.batch, batch);
        }
    }
}

/// What the log keeps of a batch that was accepted decodes for ever, though it may be shorter than
/// what came: else one batch would keep an engine from starting.
#[test]
fn what_is_kept_of_very_much_from_few_bytes_decodes_again() {
    let names: Vec<String> = (0..300).map(|number| format!("empty_{number}")).collect();
    let batch = |texts: Vec<String>| {
        let rows = texts.len();
        let ts = TimestampMicrosecondArray::from(vec![1_700_000_000_000_000; rows]);
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(ts)),
            ("text", Arc::new(StringArray::from(texts))),
        ];
        for name in &names {
            columns.push((name, Arc::new(Float64Array::new_null(rows))));
        }
        let columns = columns
            .into_iter()
            .map(|(name, column)| (name, column, true));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    };
    let many = batch((0..200).map(|number| format!("text {number}")).collect());
    let same = batch(vec!["text 199".to_owned(); 6_500]);
    let schema = many.schema();
    let mut encoder = CompactEncoder::new(&schema).unwrap();
    let mut decoder = CompactDecoder::new(&schema).unwrap();
    for batch in [many, same] {
        let mut payload = Vec::new();
        encoder.encode(batch.columns(), batch.num_rows(), false, &mut payload);
        let decoded = decoder.decode(&payload, &DecodeLimits::WIRE, true).unwrap();
        let stored = decode_compact_batch(&schema, &decoded.stored, &DecodeLimits::STORED).unwrap();
        assert_same(&stored, &batch);
    }
}
