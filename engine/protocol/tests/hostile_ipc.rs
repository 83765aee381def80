//! Arrow IPC from a hostile peer: no panic, no abort, and no allocation over the declared limit.
//!
//! Every allocation of a test's thread is counted, so a forged length that reaches the allocator
//! fails the test even where the machine would have had the memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail tests"
)]
#![allow(
    unsafe_code,
    reason = "a counting global allocator cannot be written without"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float16Array, Float64Array, Int32Array,
    LargeStringArray, NullArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    builder::StringDictionaryBuilder, types::Int32Type,
};
use arrow_ipc::{
    CompressionType,
    writer::{IpcWriteOptions, StreamWriter},
};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use quiver_model::{Producer, RejectCode, Sequence, StreamName};
use quiver_protocol::{
    BatchEncoder, Compression, DecodeLimits, Encoding, OpenStream, StreamCloseCode,
    TelemetryDecoder, TelemetryEvent, decode_batch, decode_compact_batch, decode_schema,
    limits::{
        BATCH_BODY_BYTES_MAX, BATCH_DECODED_BYTES_MAX, DECODE_MEMORY_MAX, DICTIONARY_MESSAGES_MAX,
        RATIO_FREE_BYTES,
    },
};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

fn count(grown: isize, size: usize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + grown);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize), 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize, new_size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `decode` and fails if it panicked inside (even if the panic was caught), or if one
/// allocation or all live ones together exceeded `limit` bytes.
fn watched<T>(limit: usize, what: &dyn Fn() -> String, decode: impl FnOnce() -> T) -> T {
    use std::sync::Once;
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _ = PANICS.try_with(|panics| panics.set(panics.get() + 1));
            default(info);
        }));
    });
    let panics = PANICS.get();
    let before = LIVE.get();
    PEAK.set(before);
    LARGEST.set(0);
    let out = decode();
    let (peak, largest) = (PEAK.get() - before, LARGEST.get());
    assert_eq!(PANICS.get(), panics, "panicked: {}", what());
    assert!(
        largest <= limit,
        "allocated {largest} bytes at once, {limit} allowed: {}",
        what()
    );
    assert!(
        peak <= limit as isize,
        "held {peak} bytes, {limit} allowed: {}",
        what()
    );
    out
}

const CODECS: [Option<CompressionType>; 3] = [
    None,
    Some(CompressionType::LZ4_FRAME),
    Some(CompressionType::ZSTD),
];

fn stream_of(batch: &RecordBatch, codec: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default()
        .try_with_compression(codec)
        .unwrap();
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// One column of equal floats: what `ipc_mutations` found panics and aborts with.
fn constant_column(rows: usize) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Float64, false)]));
    RecordBatch::try_new(schema, vec![Arc::new(Float64Array::from(vec![1.0; rows]))]).unwrap()
}

/// Every kind of layout that is allowed.
fn every_layout() -> RecordBatch {
    let mut device = StringDictionaryBuilder::<Int32Type>::new();
    for name in [
        Some("truck_1"),
        None,
        Some("truck_2"),
        Some("truck_1"),
        Some("ä"),
    ] {
        device.append_option(name);
    }
    RecordBatch::try_from_iter([
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3, 4, 5]).with_timezone("UTC"))
                as ArrayRef,
        ),
        ("device", Arc::new(device.finish())),
        (
            "i",
            Arc::new(Int32Array::from(vec![
                Some(1),
                None,
                Some(3),
                None,
                Some(i32::MIN),
            ])),
        ),
        (
            "h",
            Arc::new(Float16Array::from(vec![None, None, None, None, None])),
        ),
        (
            "s",
            Arc::new(StringArray::from(vec![
                Some("ä"),
                Some(""),
                None,
                Some("cde"),
                Some("€"),
            ])),
        ),
        (
            "l",
            Arc::new(LargeStringArray::from(vec![
                "one", "two", "three", "four", "fünf",
            ])),
        ),
        (
            "b",
            Arc::new(BooleanArray::from(vec![
                Some(true),
                None,
                Some(false),
                Some(true),
                None,
            ])),
        ),
        ("n", Arc::new(NullArray::new(5))),
    ])
    .unwrap()
}

/// Long repetitive columns, so that compression really applies.
fn repetitive() -> RecordBatch {
    let rows = 600;
    RecordBatch::try_from_iter([
        (
            "i",
            Arc::new(Int32Array::from_iter(
                (0..rows).map(|row| (row % 3 != 0).then_some(row / 100)),
            )) as ArrayRef,
        ),
        (
            "s",
            Arc::new(StringArray::from_iter(
                (0..rows).map(|row| Some(format!("value {}", row / 50))),
            )),
        ),
        (
            "b",
            Arc::new(BooleanArray::from_iter(
                (0..rows).map(|row| (row % 7 != 0).then_some(row > 300)),
            )),
        ),
    ])
    .unwrap()
}

fn open(encoding: Encoding) -> Bytes {
    let stream = StreamName::new("readings").unwrap();
    OpenStream {
        encoding,
        ..OpenStream::new(stream, Producer(7), Sequence(0))
    }
    .encode()
}

/// All events of a stream of IPC bytes.
fn events_of(ipc: &[u8]) -> Vec<TelemetryEvent> {
    events_in(Encoding::Arrow, ipc)
}

fn events_in(encoding: Encoding, ipc: &[u8]) -> Vec<TelemetryEvent> {
    let mut decoder = TelemetryDecoder::default();
    let mut events = Vec::new();
    for bytes in [open(encoding), Bytes::copy_from_slice(ipc)] {
        decoder.handle_bytes(bytes);
        events.extend(std::iter::from_fn(|| decoder.poll_event()));
    }
    decoder.handle_end();
    events.extend(std::iter::from_fn(|| decoder.poll_event()));
    events
}

#[test]
fn no_changed_byte_of_a_stream_makes_the_decoder_panic_or_over_allocate() {
    // A stream of a few hundred bytes may not inflate beyond what the ratio rule leaves free.
    let limit = 2 * RATIO_FREE_BYTES + 1024 * 1024;
    let (mut inputs, mut good, mut bad, mut refused) = (0_u32, 0_u32, 0_u32, 0_u32);
    for (name, batch) in [
        ("constant", constant_column(4096)),
        ("layouts", every_layout()),
        ("repetitive", repetitive()),
    ] {
        for codec in CODECS {
            let mut stream = stream_of(&batch, codec);
            if stream.len() > 8192 {
                continue; // uncompressed columns of plain numbers: the layouts cover them
            }
            for position in 0..stream.len() {
                let original = stream[position];
                for value in [0, 1, 0x7f, 0x80, 0xff, original ^ 1] {
                    stream[position] = value;
                    let what = || {
                        format!(
                            "{name}, {codec:?}, byte {position} of {original:#x} set to {value:#x}"
                        )
                    };
                    let events = watched(limit, &what, || events_of(&stream));
                    inputs += 1;
                    for event in &events {
                        match event {
                            TelemetryEvent::Batch(_) => good += 1,
                            TelemetryEvent::BadBatch { .. } => bad += 1,
                            TelemetryEvent::Refused(_) => refused += 1,
                            _ => {}
                        }
                    }
                }
                stream[position] = original;
            }
        }
    }
    // Many changes touch padding or values and leave a valid batch; the others are refused.
    println!("{inputs} inputs: {good} batches, {bad} bad batches, {refused} streams refused");
    assert!(inputs >= 10_000, "{inputs}");
    assert!(
        good > 1000 && bad > 1000 && refused > 1000,
        "{good} {bad} {refused}"
    );
}

#[test]
fn no_changed_byte_of_compressed_messages_makes_the_decoder_panic_or_over_allocate() {
    let limit = 2 * RATIO_FREE_BYTES + 1024 * 1024;
    let (mut inputs, mut good, mut refused) = (0_u32, 0_u32, 0_u32);
    for batch in [constant_column(4096), every_layout(), repetitive()] {
        let mut encoder = BatchEncoder::new(batch.schema_ref(), Compression::ZstdMessage).unwrap();
        let messages = [
            encoder.schema_message().unwrap(),
            encoder.encode(&batch).unwrap(),
            encoder.encode(&batch).unwrap(),
        ];
        let mut stream = messages.concat();
        for position in 0..stream.len() {
            let original = stream[position];
            for value in [0, 1, 0x7f, 0x80, 0xff, original ^ 1] {
                stream[position] = value;
                let what = || format!("byte {position} of {original:#x} set to {value:#x}");
                let events = watched(limit, &what, || events_in(Encoding::ArrowZstd, &stream));
                inputs += 1;
                for event in &events {
                    match event {
                        TelemetryEvent::Batch(_) => good += 1,
                        TelemetryEvent::Refused(_) => refused += 1,
                        _ => {}
                    }
                }
            }
            stream[position] = original;
        }
    }
    println!("{inputs} inputs: {good} batches, {refused} streams refused");
    assert!(
        inputs >= 10_000 && good > 1_000 && refused > 1_000,
        "{inputs} {good} {refused}"
    );
}

/// Rows one by one and in batches, with all that a payload can hold: restarts, changed modes, nulls,
/// remembered texts.
fn compact_stream() -> (Bytes, Vec<Bytes>) {
    let plain = every_layout();
    let columns: Vec<(&str, ArrayRef)> = ["ts", "i", "h", "s", "l", "b", "n"]
        .into_iter()
        .map(|name| (name, plain.column_by_name(name).unwrap().clone()))
        .chain([(
            "f",
            Arc::new(Float64Array::from(vec![
                Some(81.5),
                Some(-0.0),
                None,
                Some(f64::NAN),
                Some(1e300),
            ])) as ArrayRef,
        )])
        .collect();
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let mut encoder = BatchEncoder::new(batch.schema_ref(), Compression::Compact).unwrap();
    let mut payloads: Vec<Bytes> = (0..5)
        .map(|row| encoder.encode_next(&batch.slice(row, 1)).unwrap())
        .collect();
    payloads.push(encoder.encode_next(&batch).unwrap());
    payloads.push(encoder.encode(&batch).unwrap());
    payloads.push(encoder.encode_next(&batch.slice(0, 0)).unwrap());
    payloads.push(encoder.encode_next(&batch).unwrap());
    (encoder.schema_message().unwrap(), payloads)
}

#[test]
fn no_changed_byte_of_compact_payloads_makes_the_decoder_panic_or_over_allocate() {
    let limit = 2 * RATIO_FREE_BYTES + 1024 * 1024;
    let (schema, payloads) = compact_stream();
    let good = [std::slice::from_ref(&schema), &payloads[..]].concat();
    let events = events_in(Encoding::Compact, &good.concat());
    if std::env::var_os("QUIVER_UPDATE_GOLDEN").is_some() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/ipc_frame");
        std::fs::write(format!("{corpus}/compact_layouts.bin"), good.concat()).unwrap();
    }
    let is_batch = |event: &&TelemetryEvent| matches!(event, TelemetryEvent::Batch(_));
    assert_eq!(events.iter().filter(is_batch).count(), payloads.len());
    let (mut inputs, mut whole, mut refused) = (0_u32, 0_u32, 0_u32);
    let mut stream = good.concat();
    for position in 0..stream.len() {
        let original = stream[position];
        for value in [
            0,
            1,
            2,
            7,
            0x20,
            0x7f,
            0x80,
            0xff,
            original ^ 1,
            original ^ 0x80,
        ] {
            stream[position] = value;
            let what = || format!("byte {position} of {original:#x} set to {value:#x}");
            let events = watched(limit, &what, || events_in(Encoding::Compact, &stream));
            inputs += 1;
            whole += events.iter().filter(is_batch).count() as u32;
            let ends = events
                .iter()
                .filter(|event| matches!(event, TelemetryEvent::Refused(_)))
                .count() as u32;
            refused += ends;
            // Behind what cannot be decoded nothing is.
            assert!(
                !events
                    .iter()
                    .any(|event| matches!(event, TelemetryEvent::BadBatch { .. })
                        && position > schema.len())
            );
            for event in &events {
                if let TelemetryEvent::Batch(batch) = event {
                    check_stored(&batch.batch, &batch.message);
                }
            }
        }
        stream[position] = original;
    }
    // Random bytes where payloads should be, behind a schema that is right.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for seed in 0..20_000_u32 {
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut stream = schema.to_vec();
        stream.extend_from_slice(&payloads[0]);
        for _ in 0..3 {
            let length = random() as usize % 60;
            stream.push(length as u8);
            // Few rows, mostly: the rest of a payload is reached.
            stream.extend((0..length).map(|at| match at {
                0 => random() as u8 & 0x7f,
                _ => random() as u8 & random() as u8,
            }));
        }
        let what = || format!("random payloads, seed {seed}");
        watched(limit, &what, || events_in(Encoding::Compact, &stream));
        inputs += 1;
    }
    println!("{inputs} inputs: {whole} batches, {refused} streams refused");
    assert!(
        inputs >= 25_000 && whole > 5_000 && refused > 2_000,
        "{inputs} {whole} {refused}"
    );
}

/// What the log keeps of a batch says the same.
fn check_stored(batch: &RecordBatch, stored: &[u8]) {
    let read = decode_compact_batch(batch.schema_ref(), stored, &DecodeLimits::STORED).unwrap();
    // Debug text, since a NaN differs from itself.
    assert_eq!(
        format!("{:?}", read.columns()),
        format!("{:?}", batch.columns())
    );
}

#[test]
fn compact_payloads_that_claim_too_much_are_refused_before_anything_is_allocated() {
    let (schema, payloads) = compact_stream();
    let refused = |claims: &[u8], what: &str, code: StreamCloseCode| {
        let stream = [&schema[..], &payloads[0], claims].concat();
        let named = || what.to_owned();
        let events = watched(2 * RATIO_FREE_BYTES + 1024 * 1024, &named, || {
            events_in(Encoding::Compact, &stream)
        });
        match events.last() {
            Some(TelemetryEvent::Refused(refusal)) => {
                assert_eq!(refusal.code, code, "{what}: {}", refusal.message);
                assert_eq!(refusal.reject.as_ref().unwrap().0, Sequence(1), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    };
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let framed = |payload: &[u8]| [&varint(payload.len() as u64)[..], payload].concat();
    let too_large = StreamCloseCode::TooLarge;
    refused(
        &varint(BATCH_BODY_BYTES_MAX as u64 + 1),
        "a long payload",
        too_large,
    );
    refused(&[0xff; 5], "no length", StreamCloseCode::Framing);
    refused(&framed(&varint(65_537 << 3)), "many rows", too_large);
    refused(&framed(&varint(u64::MAX)), "all rows", too_large);
    refused(
        &framed(&[8 | 4, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        "changes",
        StreamCloseCode::Framing,
    );
    refused(&[0, 1, 8], "bytes behind the end", StreamCloseCode::Framing);
}

#[test]
fn few_bytes_of_compact_nulls_beyond_the_decoded_limit_are_refused_before_anything_is_allocated() {
    // 304 columns: their kinds of nulls fill whole bytes.
    let names: Vec<String> = (0..303).map(|number| format!("f{number}")).collect();
    let ts = Arc::new(TimestampMicrosecondArray::from(vec![1_i64])) as ArrayRef;
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![("ts", ts, true)];
    for name in &names {
        columns.push((name, Arc::new(Float64Array::from(vec![1.5])), true));
    }
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut encoder = BatchEncoder::new(batch.schema_ref(), Compression::Compact).unwrap();
    let good = [
        encoder.schema_message().unwrap(),
        encoder.encode_next(&batch).unwrap(),
    ]
    .concat();
    // All columns null, 65,536 rows: 79 bytes that would be 160 megabytes.
    let claim = [&[79, 0x82, 0x80, 0x20][..], &[0x55; 76]].concat();
    let stream = [good, claim].concat();
    let events = watched(4 * 1024 * 1024, &|| "nulls".to_owned(), || {
        events_in(Encoding::Compact, &stream)
    });
    let Some(TelemetryEvent::Refused(refusal)) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!(refusal.code, StreamCloseCode::TooLarge);
    let (sequence, reject) = refusal.reject.as_ref().unwrap();
    assert_eq!(
        (*sequence, reject.code),
        (Sequence(1), RejectCode::BatchTooLarge)
    );
}

#[test]
fn no_changed_byte_of_a_stored_message_makes_replay_panic() {
    let mut inputs = 0;
    for batch in [constant_column(64), repetitive()] {
        let (schema_message, message) = quiver_protocol::encode_self_contained(&batch).unwrap();
        let schema = decode_schema(&schema_message, &DecodeLimits::STORED).unwrap();
        assert_eq!(
            decode_batch(&schema, &message, &DecodeLimits::STORED)
                .unwrap()
                .columns(),
            batch.columns()
        );
        for (bytes, is_schema) in [(&schema_message, true), (&message, false)] {
            for position in 0..bytes.len() {
                for value in [0_u8, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = bytes.to_vec();
                    changed[position] = value;
                    let changed = Bytes::from(changed);
                    let what = || format!("byte {position} set to {value}");
                    inputs += 1;
                    watched(4 * 1024 * 1024, &what, || {
                        if is_schema {
                            drop(decode_schema(&changed, &DecodeLimits::STORED));
                        } else {
                            drop(decode_batch(&schema, &changed, &DecodeLimits::STORED));
                        }
                    });
                }
            }
            for length in 0..bytes.len() {
                let cut = bytes.slice(..length);
                assert!(decode_batch(&schema, &cut, &DecodeLimits::STORED).is_err());
                assert!(decode_schema(&cut, &DecodeLimits::STORED).is_err());
            }
        }
    }
    assert!(inputs > 3000, "{inputs}");
}

#[test]
fn a_stream_cut_anywhere_sends_only_its_whole_batches_and_rejects_none() {
    for codec in CODECS {
        let stream = stream_of(&every_layout(), codec);
        for length in 0..stream.len() - 8 {
            let events = events_of(&stream[..length]);
            assert!(
                !events.iter().any(|event| matches!(
                    event,
                    TelemetryEvent::Batch(_)
                        | TelemetryEvent::BadBatch { .. }
                        | TelemetryEvent::Refused(_)
                )),
                "{length}: {events:?}"
            );
            assert!(matches!(events.last(), Some(TelemetryEvent::Ended { .. })));
        }
    }
}

/// Replaces the length prefix of the first compressed buffer.
fn with_declared_length(stream: &mut [u8], true_length: u64, declared: i64) {
    let wanted = true_length.to_le_bytes();
    let at = (0..stream.len() - 12)
        .find(|at| {
            stream[*at..*at + 8] == wanted
                && matches!(
                    stream[*at + 8..*at + 12],
                    [0x04, 0x22, 0x4d, 0x18] | [0x28, 0xb5, 0x2f, 0xfd]
                )
        })
        .expect("a compressed buffer");
    stream[at..at + 8].copy_from_slice(&declared.to_le_bytes());
}

#[test]
fn a_forged_decompressed_length_never_reaches_the_allocator() {
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        for declared in [
            1 << 46, // 64 TiB
            i64::MAX,
            i64::MIN,
            -2,
            i64::from(i32::MAX),
            BATCH_DECODED_BYTES_MAX as i64 + 1,
            4096 * 8 + 1,
            4096 * 8 - 1,
            0,
        ] {
            let mut stream = stream_of(&constant_column(4096), Some(codec));
            with_declared_length(&mut stream, 4096 * 8, declared);
            let what = || format!("{codec:?} {declared}");
            let events = watched(3 * 1024 * 1024, &what, || events_of(&stream));
            assert!(
                events
                    .iter()
                    .any(|event| matches!(event, TelemetryEvent::BadBatch { .. })),
                "{codec:?} {declared}: {events:?}"
            );
        }
    }
}

#[test]
fn a_decompression_bomb_is_refused_before_it_inflates() {
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        // 32 MiB of zeros: more than a batch may hold, in some kilobytes.
        let stream = stream_of(&constant_column(4 << 20), Some(codec));
        assert!(stream.len() < 200_000, "{}", stream.len());
        let events = watched(1024 * 1024, &|| format!("{codec:?}"), || events_of(&stream));
        let [
            ..,
            TelemetryEvent::BadBatch { refusal, .. },
            TelemetryEvent::Ended { .. },
        ] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!(refusal.code, RejectCode::BatchTooLarge);
    }
}

#[test]
fn a_small_message_may_not_inflate_a_thousandfold() {
    // Within 16 MiB and 65,536 rows, but 12 MiB from about 1.5 KiB.
    let zeros: ArrayRef = Arc::new(Float64Array::from(vec![0.0; 65_536]));
    let batch =
        RecordBatch::try_from_iter((0..24).map(|index| (format!("c{index}"), Arc::clone(&zeros))))
            .unwrap();
    let stream = stream_of(&batch, Some(CompressionType::ZSTD));
    let events = watched(12 << 20, &|| stream.len().to_string(), || {
        events_of(&stream)
    });
    let refusal = events.iter().find_map(|event| match event {
        TelemetryEvent::BadBatch { refusal, .. } => Some(refusal),
        _ => None,
    });
    assert_eq!(refusal.expect("refused").code, RejectCode::BatchTooLarge);
}

#[test]
fn the_largest_allowed_batch_decodes_within_the_declared_memory() {
    // Random values do not compress: 4 MiB of body. With the 16 MiB of a constant part beside it.
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64
    };
    let noise: Vec<ArrayRef> = (0..7)
        .map(|_| Arc::new(Float64Array::from_iter_values((0..65_536).map(|_| next()))) as ArrayRef)
        .collect();
    let constant: ArrayRef = Arc::new(Float64Array::from(vec![0.5; 65_536]));
    let columns = noise.into_iter().chain(std::iter::repeat_n(constant, 25));
    let batch = RecordBatch::try_from_iter(
        columns
            .enumerate()
            .map(|(index, column)| (format!("c{index}"), column)),
    )
    .unwrap();
    let stream = stream_of(&batch, Some(CompressionType::ZSTD));
    assert!(stream.len() > BATCH_BODY_BYTES_MAX / 2);
    let events = watched(DECODE_MEMORY_MAX, &|| "largest".to_owned(), || {
        events_of(&stream)
    });
    assert!(
        events.iter().any(|event| matches!(event, TelemetryEvent::Batch(decoded) if decoded.batch.columns() == batch.columns())),
        "{events:?}"
    );
}

#[test]
fn a_few_dictionary_keys_may_not_stand_for_gigabytes_of_text() {
    let values = Arc::new(StringArray::from(vec!["x".repeat(600_000)]));
    let column = DictionaryArray::<Int32Type>::new(vec![0; 65_536].into(), values);
    let batch = RecordBatch::try_from_iter([("device", Arc::new(column) as ArrayRef)]).unwrap();
    let stream = stream_of(&batch, Some(CompressionType::ZSTD));
    let events = watched(4 << 20, &|| stream.len().to_string(), || events_of(&stream));
    let refusal = events.iter().find_map(|event| match event {
        TelemetryEvent::BadBatch { refusal, .. } => Some(refusal),
        _ => None,
    });
    assert_eq!(refusal.expect("refused").code, RejectCode::BatchTooLarge);
}

/// The encapsulated messages of an IPC stream, without the end marker.
fn messages_of(stream: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    let mut rest = stream;
    while rest.len() > 8 {
        let metadata = i32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let body = arrow_ipc::root_as_message(&rest[8..8 + metadata])
            .unwrap()
            .bodyLength() as usize;
        let (message, tail) = rest.split_at(8 + metadata + body);
        messages.push(message);
        rest = tail;
    }
    messages
}

/// Where the numbers of the record batch message in `stream` stand: (of its nodes, of its buffers,
/// of its body).
fn places_in(stream: &[u8], message: &[u8]) -> (usize, usize, usize) {
    let metadata = i32::from_le_bytes(message[4..8].try_into().unwrap()) as usize;
    let root = arrow_ipc::root_as_message(&message[8..8 + metadata]).unwrap();
    let header = root.header_as_record_batch().unwrap();
    let place = |part: &[u8]| part.as_ptr() as usize - stream.as_ptr() as usize;
    (
        place(header.nodes().unwrap().bytes()),
        place(header.buffers().unwrap().bytes()),
        place(message) + 8 + metadata,
    )
}

#[test]
fn every_number_that_contradicts_the_body_is_refused() {
    // Column 0 is int32 with nulls (buffers 0, 1), column 1 utf8 (2, 3, 4), column 2 bool (5, 6).
    let stream = stream_of(&repetitive(), None);
    let message = messages_of(&stream)[1];
    let (nodes, buffers, body) = places_in(&stream, message);
    let read = |at: usize| i64::from_le_bytes(stream[at..at + 8].try_into().unwrap());
    let body_bytes = (stream.len() - 8 - body) as i64;
    let (node_rows, node_nulls) = (
        |index: usize| nodes + 16 * index,
        |index: usize| nodes + 16 * index + 8,
    );
    let (offset, length) = (
        |index: usize| buffers + 16 * index,
        |index: usize| buffers + 16 * index + 8,
    );
    let offsets_of_text = body + read(offset(3)) as usize;
    let text = body + read(offset(4)) as usize;

    let mut forged: Vec<(&str, usize, Vec<u8>)> = Vec::new();
    for (what, at, number) in [
        ("a column longer than the batch", node_rows(0), 601),
        ("a column shorter than the batch", node_rows(1), 599),
        ("a negative number of rows", node_rows(2), -1),
        ("more nulls than rows", node_nulls(0), 601),
        ("a negative number of nulls", node_nulls(0), -1),
        (
            "one null more than the bitmap has",
            node_nulls(0),
            read(node_nulls(0)) + 1,
        ),
        ("nulls without a bitmap", length(0), 0),
        ("a negative offset", offset(1), -8),
        ("an unaligned offset", offset(1), read(offset(1)) + 4),
        (
            "a buffer over the one before it",
            offset(1),
            read(offset(0)),
        ),
        ("a buffer before the one before it", offset(4), 0),
        ("a buffer that ends behind the body", length(6), body_bytes),
        ("an offset at the end of numbers", offset(6), i64::MAX - 7),
        ("a length at the end of numbers", length(6), i64::MAX),
        ("a negative length", length(6), -1),
        ("a buffer too short for its rows", length(1), 600 * 4 - 1),
        ("offsets too short for their rows", length(3), 600 * 4),
        ("text too short for its offsets", length(4), 1),
        ("a bitmap too short for its rows", length(0), 74),
        ("values of booleans too short for their rows", length(6), 74),
    ] {
        forged.push((what, at, number.to_le_bytes().to_vec()));
    }
    for (what, at, bytes) in [
        (
            "an offset behind the text",
            offsets_of_text + 4 * 600,
            i32::MAX.to_le_bytes().to_vec(),
        ),
        (
            "a negative text offset",
            offsets_of_text + 4,
            (-1_i32).to_le_bytes().to_vec(),
        ),
        (
            "falling text offsets",
            offsets_of_text + 4,
            4000_i32.to_le_bytes().to_vec(),
        ),
        ("text that is not UTF-8", text, vec![0xff]),
        (
            "text cut inside a character",
            text,
            "€€€".as_bytes()[..8].to_vec(),
        ),
    ] {
        forged.push((what, at, bytes));
    }
    assert!(matches!(events_of(&stream)[2], TelemetryEvent::Batch(_)));
    for (what, at, bytes) in forged {
        let mut changed = stream.clone();
        changed[at..at + bytes.len()].copy_from_slice(&bytes);
        let events = watched(2 * RATIO_FREE_BYTES, &|| what.to_owned(), || {
            events_of(&changed)
        });
        let TelemetryEvent::BadBatch { refusal, .. } = &events[2] else {
            panic!("{what}: {events:?}")
        };
        assert_eq!(refusal.code, RejectCode::MalformedBatch, "{what}");
    }
}

#[test]
fn a_dictionary_key_without_a_value_is_refused() {
    let stream = stream_of(&every_layout(), None);
    let message = messages_of(&stream)[2];
    let (_, buffers, body) = places_in(&stream, message);
    // Buffers 0, 1 are of ts; 2 is the validity of device, 3 its keys.
    let keys =
        body + i64::from_le_bytes(stream[buffers + 48..buffers + 56].try_into().unwrap()) as usize;
    for key in [3_i32, -1, i32::MAX, i32::MIN] {
        let mut changed = stream.clone();
        changed[keys..keys + 4].copy_from_slice(&key.to_le_bytes());
        let events = events_of(&changed);
        assert!(
            matches!(events[2], TelemetryEvent::BadBatch { .. }),
            "{key}: {events:?}"
        );
    }
}

#[test]
fn dictionaries_hold_no_more_than_their_limit_however_many_are_sent() {
    // 20 dictionaries of 800 kB each: four fit, and a batch that needs them all is rejected.
    let columns = (0..20).map(|index| {
        let values = Arc::new(StringArray::from(vec![format!("{index}").repeat(400_000)]));
        let column = DictionaryArray::<Int32Type>::new(vec![0].into(), values);
        (format!("c{index}"), Arc::new(column) as ArrayRef)
    });
    let stream = stream_of(&RecordBatch::try_from_iter(columns).unwrap(), None);
    let events = watched(DECODE_MEMORY_MAX, &|| "20 dictionaries".to_owned(), || {
        // In pieces, as they arrive from a QUIC stream.
        let mut decoder = TelemetryDecoder::default();
        decoder.handle_bytes(open(Encoding::Arrow));
        let mut events = Vec::new();
        for piece in stream.chunks(64 * 1024) {
            decoder.handle_bytes(Bytes::copy_from_slice(piece));
            events.extend(std::iter::from_fn(|| decoder.poll_event()));
        }
        events
    });
    let Some(TelemetryEvent::BadBatch { refusal, .. }) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!(refusal.code, RejectCode::BatchTooLarge);

    // And a peer that sends nothing but dictionaries is stopped.
    let small = every_layout();
    let stream = stream_of(&small, None);
    let [schema, dictionary, batch] = messages_of(&stream)[..] else {
        panic!("three messages")
    };
    let repeated = |times: usize| {
        let mut ipc = schema.to_vec();
        (0..times).for_each(|_| ipc.extend_from_slice(dictionary));
        ipc.extend_from_slice(batch);
        events_of(&ipc)
    };
    assert!(matches!(
        repeated(DICTIONARY_MESSAGES_MAX)[2],
        TelemetryEvent::Batch(_)
    ));
    assert!(matches!(
        repeated(DICTIONARY_MESSAGES_MAX + 1)[2],
        TelemetryEvent::Refused(_)
    ));
    // A batch before its dictionary is rejected alone.
    let early = events_of(&[schema, batch, dictionary, batch].concat());
    assert!(matches!(
        early[2..],
        [
            TelemetryEvent::BadBatch { .. },
            TelemetryEvent::Batch(_),
            TelemetryEvent::Ended { .. }
        ]
    ));
}

#[test]
fn an_announced_length_takes_no_memory_before_its_bytes_arrive() {
    for declared in [i32::MAX, 512 * 1024 + 1, 512 * 1024, -1, i32::MIN] {
        let mut ipc = vec![0xff; 4];
        ipc.extend(declared.to_le_bytes());
        ipc.extend([0; 4]);
        let events = watched(64 * 1024, &|| declared.to_string(), || events_of(&ipc));
        if declared == 512 * 1024 {
            assert!(
                matches!(
                    events.last(),
                    Some(TelemetryEvent::Ended { partial_bytes: 12 })
                ),
                "{events:?}"
            );
        } else {
            assert!(
                matches!(events.last(), Some(TelemetryEvent::Refused(_))),
                "{events:?}"
            );
        }
    }
}
