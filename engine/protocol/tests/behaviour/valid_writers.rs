//! No valid writer is refused: arrow-rs with all its options, and pyarrow.

use std::{fs, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, LargeStringArray,
    NullArray, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    UInt16Array, builder::StringDictionaryBuilder, cast::AsArray, types::UInt8Type,
};
use arrow_ipc::{
    CompressionType, MetadataVersion,
    reader::StreamReader,
    writer::{DictionaryHandling, IpcWriteOptions, StreamWriter},
};
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use quiver_model::RejectCode;
use quiver_protocol::{
    DecodeLimits, StreamCloseCode, TelemetryEvent, decode_batch, decode_schema,
    encode_self_contained,
};

use crate::support::{batches, events_of_ipc, golden};

fn mixed(rows: i64) -> RecordBatch {
    let mut device = StringDictionaryBuilder::<UInt8Type>::new();
    for row in 0..rows {
        device.append_option((row % 4 != 1).then(|| format!("truck_{}", row % 9)));
    }
    let gap = |row: &i64| row % 5 != 2;
    RecordBatch::try_from_iter([
        (
            "ts",
            Arc::new(TimestampNanosecondArray::from_iter_values(0..rows)) as ArrayRef,
        ),
        ("device", Arc::new(device.finish())),
        (
            "plain",
            Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * row))),
        ),
        (
            "gaps",
            Arc::new(Float32Array::from_iter(
                (0..rows).map(|row| gap(&row).then_some(row as f32)),
            )),
        ),
        (
            "short",
            Arc::new(UInt16Array::from_iter_values(
                (0..rows).map(|row| row as u16),
            )),
        ),
        (
            "text",
            Arc::new(StringArray::from_iter(
                (0..rows).map(|row| gap(&row).then(|| "ä".repeat(row as usize % 4))),
            )),
        ),
        (
            "large",
            Arc::new(LargeStringArray::from_iter_values(
                (0..rows).map(|row| row.to_string()),
            )),
        ),
        (
            "flag",
            Arc::new(BooleanArray::from_iter(
                (0..rows).map(|row| gap(&row).then_some(row % 2 == 0)),
            )),
        ),
        ("nothing", Arc::new(NullArray::new(rows as usize))),
    ])
    .unwrap()
}

#[test]
fn arrow_rs_with_every_compression_alignment_slice_and_size_reads_back_equal() {
    for codec in [
        None,
        Some(CompressionType::LZ4_FRAME),
        Some(CompressionType::ZSTD),
    ] {
        for alignment in [8, 16, 32, 64] {
            for (offset, rows) in [(0, 0), (0, 1), (0, 100), (3, 50), (64, 64), (99, 1)] {
                let batch = mixed(100 + offset as i64).slice(offset, rows);
                let options = IpcWriteOptions::try_new(alignment, false, MetadataVersion::V5)
                    .unwrap()
                    .try_with_compression(codec)
                    .unwrap();
                let mut writer =
                    StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options)
                        .unwrap();
                writer.write(&batch).unwrap();
                writer.write(&batch).unwrap();
                writer.finish().unwrap();
                let decoded = batches(&events_of_ipc(&writer.into_inner().unwrap()));
                assert_eq!(
                    decoded,
                    [batch.clone(), batch.clone()],
                    "{codec:?} {alignment} {offset} {rows}"
                );
            }
        }
    }
}

/// Bytes come as the network has them: a body may begin anywhere.
#[test]
fn numbers_are_read_wherever_their_bytes_lie() {
    let batch = RecordBatch::try_from_iter([
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from_iter_values(0..100).with_timezone("UTC"))
                as ArrayRef,
        ),
        (
            "gaps",
            Arc::new(Float64Array::from_iter(
                (0..100).map(|row| (row % 5 != 2).then_some(f64::from(row) / 3.0)),
            )),
        ),
        ("plain", Arc::new(Int64Array::from_iter_values(-50..50))),
    ])
    .unwrap();
    let (schema, message) = encode_self_contained(&batch).unwrap();
    let schema = decode_schema(&schema, &DecodeLimits::WIRE).unwrap();
    for offset in 0..16 {
        let mut bytes = vec![0xaa; offset];
        bytes.extend_from_slice(&message);
        let message = Bytes::from(bytes).slice(offset..);
        let decoded = decode_batch(&schema, &message, &DecodeLimits::WIRE);
        assert_eq!(decoded.as_ref(), Ok(&batch), "{offset}");
    }
}

#[test]
fn buffers_that_were_not_worth_compressing_are_read_as_they_are() {
    let batch = mixed(3);
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(codec))
            .unwrap();
        let mut writer =
            StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        let stream = writer.into_inner().unwrap();
        // The length -1, which says so.
        assert!(
            stream.windows(8).any(|bytes| bytes == [0xff; 8]),
            "{codec:?}"
        );
        assert_eq!(
            batches(&events_of_ipc(&stream)),
            std::slice::from_ref(&batch)
        );
    }
}

#[test]
fn dictionaries_may_be_replaced_or_extended_between_batches() {
    let words = |words: &[&str]| {
        let mut column = StringDictionaryBuilder::<UInt8Type>::new();
        for word in words {
            column.append(*word).unwrap();
        }
        RecordBatch::try_from_iter([("device", Arc::new(column.finish()) as ArrayRef)]).unwrap()
    };
    for handling in [DictionaryHandling::Resend, DictionaryHandling::Delta] {
        let sent = [
            words(&["a", "b", "a"]),
            words(&["a", "b", "c"]),
            words(&["a", "b", "c", "d"]),
            words(&["z"]),
        ];
        let options = IpcWriteOptions::default().with_dictionary_handling(handling);
        let mut writer =
            StreamWriter::try_new_with_options(Vec::new(), &sent[0].schema(), options).unwrap();
        sent.iter().for_each(|batch| writer.write(batch).unwrap());
        assert_eq!(batches(&events_of_ipc(&writer.into_inner().unwrap())), sent);
    }
}

#[test]
fn a_batch_that_needs_dictionaries_can_be_made_to_stand_alone() {
    let batch = mixed(40);
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let events = events_of_ipc(&writer.into_inner().unwrap());
    let [
        _,
        TelemetryEvent::Schema(schema),
        TelemetryEvent::Batch(received),
        _,
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert!(!schema.self_contained && !received.self_contained);
    let wire_schema = decode_schema(&schema.message, &DecodeLimits::WIRE).unwrap();
    assert!(decode_batch(&wire_schema, &received.message, &DecodeLimits::WIRE).is_err());

    let (schema, message) = encode_self_contained(&received.batch).unwrap();
    let schema = decode_schema(&schema, &DecodeLimits::STORED).unwrap();
    assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
    let alone = decode_batch(&schema, &message, &DecodeLimits::STORED).unwrap();
    let names = |batch: &RecordBatch| -> Vec<Option<String>> {
        let column = batch.column(1);
        let text = match column.as_any_dictionary_opt() {
            Some(dictionary) => {
                arrow_select::take::take(dictionary.values(), dictionary.keys(), None).unwrap()
            }
            None => column.clone(),
        };
        text.as_string::<i32>()
            .iter()
            .map(|name| name.map(str::to_owned))
            .collect()
    };
    assert_eq!(names(&alone), names(&batch));
    assert_eq!(alone.column(5), batch.column(5));
}

/// Value `row` of a column as text, whatever its type.
fn text_of(column: &ArrayRef, row: usize) -> Option<String> {
    use arrow_array::types::*;
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        let plain = arrow_select::take::take(dictionary.values(), dictionary.keys(), None).unwrap();
        return text_of(&plain, row);
    }
    column.is_valid(row).then(|| match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).to_owned(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::Float16 => column
            .as_primitive::<Float16Type>()
            .value(row)
            .to_f64()
            .to_string(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Timestamp(TimeUnit::Second, _) => column
            .as_primitive::<TimestampSecondType>()
            .value(row)
            .to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (column.as_primitive::<TimestampMicrosecondType>().value(row) / 1_000_000).to_string()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            (column.as_primitive::<TimestampNanosecondType>().value(row) / 1_000_000_000)
                .to_string()
        }
        other => panic!("{other}"),
    })
}

/// The rows that `generate.py` put into a file: (file name's start, first row, batch sizes).
const PYARROW: &[(&str, usize, &[usize])] = &[
    ("plain_", 0, &[40]),
    ("nulls_dictionary_", 0, &[40]),
    ("nulls_", 0, &[40]),
    ("sliced_nulls_", 13, &[9]),
    ("empty_", 0, &[0, 3]),
    ("wide_text_", 0, &[40]),
    ("narrow", 0, &[12]),
    ("half_float_u32", 8, &[4]),
    ("seconds_no_zone", 0, &[40]),
    ("nanoseconds_zone", 0, &[40]),
    ("metadata_v4", 0, &[40]),
    ("dictionary_replaced", 0, &[5, 5]),
    ("dictionary_delta", 0, &[3, 7]),
    ("tiny_lz4", 0, &[2]),
];

#[test]
fn streams_written_by_pyarrow_read_as_what_was_written() {
    let mut files = 0;
    for entry in fs::read_dir(golden("ipc")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".arrows") || name.starts_with("refused_") {
            continue;
        }
        files += 1;
        let (_, first, sizes) = PYARROW
            .iter()
            .find(|(start, ..)| name.starts_with(start))
            .expect("a known file");
        let has_nulls = name.contains("nulls");
        let bytes = fs::read(&path).unwrap();
        let decoded = batches(&events_of_ipc(&bytes));
        assert_eq!(
            decoded
                .iter()
                .map(RecordBatch::num_rows)
                .collect::<Vec<_>>(),
            *sizes,
            "{name}"
        );
        let mut i = *first as i64;
        for batch in &decoded {
            for row in 0..batch.num_rows() {
                let unless_gap = |text: String| (!has_nulls || i % 7 != 3).then_some(text);
                let expected = [
                    Some((1_700_000_000 + i).to_string()),
                    Some((i * i - 50).to_string()),
                    unless_gap((i as f64 / 4.0).to_string()),
                    unless_gap(format!("n{}", i % 5)),
                    unless_gap((i % 3 == 0).to_string()),
                ];
                let read: Vec<_> = batch
                    .columns()
                    .iter()
                    .map(|column| text_of(column, row))
                    .collect();
                assert_eq!(read, expected, "{name}, row {row}");
                i += 1;
            }
        }
        // And as arrow's own reader reads it, where it can.
        if !name.starts_with("dictionary_delta") {
            let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
            for (own, arrow) in decoded.iter().zip(reader) {
                assert_eq!(own.columns(), arrow.unwrap().columns(), "{name}");
            }
        }
    }
    assert!(files >= 25, "{files}");
}

#[test]
fn what_pyarrow_can_write_and_quiver_does_not_store_is_refused_with_the_reason() {
    let legacy = events_of_ipc(&fs::read(golden("ipc/refused_legacy.arrows")).unwrap());
    let Some(TelemetryEvent::Refused(refusal)) = legacy.last() else {
        panic!("{legacy:?}")
    };
    assert_eq!(refusal.code, StreamCloseCode::Framing);
    assert!(
        refusal.message.contains("before 0.15"),
        "{}",
        refusal.message
    );
    for kind in ["list", "decimal", "binary", "date", "view", "struct"] {
        let events =
            events_of_ipc(&fs::read(golden(&format!("ipc/refused_type_{kind}.arrows"))).unwrap());
        let [
            _,
            TelemetryEvent::BadBatch { refusal, .. },
            TelemetryEvent::Ended { .. },
        ] = events.as_slice()
        else {
            panic!("{kind}: {events:?}")
        };
        assert_eq!(refusal.code, RejectCode::UnsupportedType, "{kind}");
        assert!(refusal.message.contains("\"extra\""), "{kind}: {refusal}");
    }
}
