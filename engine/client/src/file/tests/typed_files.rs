//! Parquet and Arrow files: what is damaged is refused, never a panic; times that are floats.

use arrow_array::{BooleanArray, DictionaryArray, Float32Array, types::Int32Type};
use arrow_ipc::{
    CompressionType,
    writer::{FileWriter, IpcWriteOptions, StreamWriter},
};

use super::*;

/// A batch with everything that is read in its own way.
fn mixed_batch() -> RecordBatch {
    let rows = 200;
    let texts = || (0..rows).map(|row| format!("x{}", row % 7));
    let shared: Vec<String> = texts().collect();
    let shared: DictionaryArray<Int32Type> = shared.iter().map(String::as_str).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "ts",
            Arc::new(TimestampNanosecondArray::from_iter_values(
                (0..rows).map(|row| 1_700_000_000_000_000_000 + row),
            )),
        ),
        (
            "v",
            Arc::new(Float64Array::from_iter(
                (0..rows).map(|row| (row % 5 > 0).then_some(row as f64 / 2.0)),
            )),
        ),
        ("s", Arc::new(StringArray::from_iter_values(texts()))),
        ("d", Arc::new(shared)),
        (
            "b",
            Arc::new(BooleanArray::from_iter(
                (0..rows).map(|row| Some(row % 2 == 0)),
            )),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn arrow_options(compression: Option<CompressionType>) -> IpcWriteOptions {
    IpcWriteOptions::default()
        .try_with_compression(compression)
        .unwrap()
}

fn arrow_file(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<u8> {
    let options = arrow_options(compression);
    let mut writer =
        FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn arrow_stream(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<u8> {
    let options = arrow_options(compression);
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn parquet_bytes(batch: &RecordBatch) -> Vec<u8> {
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

/// Small random numbers (xorshift64*), so that every run damages the same bytes.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap() % bound
    }
}

fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..[1, 1, 2, 4, 8][numbers.below(5)] {
        let at = numbers.below(bytes.len());
        match numbers.below(10) {
            0..5 => bytes[at] = [0, 255, 127, 128, 1, 64][numbers.below(6)],
            5..9 => {
                let word = [[0xff; 4], [0xff, 0xff, 0xff, 0x7f], [0; 4], [0, 0, 0, 0x80]];
                for (byte, new) in bytes[at..].iter_mut().zip(word[numbers.below(4)]) {
                    *byte = new;
                }
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}

#[test]
fn a_damaged_file_is_malformed_data_and_never_a_panic() {
    let files = Files::new();
    let batch = mixed_batch();
    let zstd = Some(CompressionType::ZSTD);
    let whole = [
        ("a.arrow", arrow_file(&batch, None)),
        ("a.arrow", arrow_file(&batch, zstd)),
        ("a.arrows", arrow_stream(&batch, None)),
        ("a.arrows", arrow_stream(&batch, zstd)),
        ("a.parquet", parquet_bytes(&batch)),
    ];
    let mut numbers = Numbers(7);
    let mut refused = 0;
    for (name, bytes) in &whole {
        let path = files.write(name, bytes);
        assert_eq!(read(options(&path)).unwrap()[0].num_rows(), 200);
        for _ in 0..150 {
            let mut bytes = bytes.clone();
            damage(&mut bytes, &mut numbers);
            let path = files.write(name, bytes);
            // What is not found is another value; checksums are not part of these formats.
            if let Err(error) = read(options(&path)) {
                refused += 1;
                let text = error.to_string();
                assert!(!text.contains('\n'), "{text}");
                assert!(
                    text.contains(name) && !matches!(error, FileError::Aborted { .. }),
                    "{text}"
                );
            }
        }
    }
    assert!(refused > 200, "{refused}");
}

#[test]
fn a_panic_of_a_reader_is_an_error() {
    let found: Result<(), String> = guard::shielded(|| panic!("offset {}\n beyond", 5));
    let error = found.unwrap_err();
    assert!(error.contains("offset 5 beyond"), "{error}");
    assert_eq!(guard::shielded(|| 1), Ok(1));
}

#[test]
fn what_an_arrow_file_announces_is_not_allocated_before_it_is_there() {
    let files = Files::new();
    let batch = mixed_batch();
    let zstd = Some(CompressionType::ZSTD);
    let check = |name: &str, bytes: Vec<u8>, part: &str| {
        let path = files.write(name, bytes);
        let error = read(options(&path)).unwrap_err();
        assert!(matches!(error, FileError::Malformed { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(name) && error.contains(part), "{error}");
    };
    // Metadata of 2 GiB.
    let mut stream = arrow_stream(&batch, None);
    stream[4..8].copy_from_slice(&i32::MAX.to_le_bytes());
    check("a.arrows", stream, "are announced");
    // A footer of 2 GiB.
    let mut file = arrow_file(&batch, None);
    let end = file.len() - 10;
    file[end..end + 4].copy_from_slice(&i32::MAX.to_le_bytes());
    check("a.arrow", file, "is announced");
    // Every length of a body, and of a buffer decompressed, as 2^60 bytes.
    for name in ["a.arrow", "a.arrows"] {
        let whole = match name {
            "a.arrow" => arrow_file(&batch, zstd),
            _ => arrow_stream(&batch, zstd),
        };
        for at in (0..whole.len() - 8).step_by(8) {
            let word = u64::from_le_bytes(whole[at..at + 8].try_into().unwrap());
            if (1..100_000).contains(&word) {
                let mut bytes = whole.clone();
                bytes[at..at + 8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
                let path = files.write(name, bytes);
                let _refused_or_not = read(options(&path));
            }
        }
    }
    // The last eight bytes of a body's first buffer, decompressed.
    let whole = arrow_stream(&batch, zstd);
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let at = whole.windows(4).position(|window| window == magic).unwrap();
    let mut bytes = whole;
    bytes[at - 8..at].copy_from_slice(&(1_i64 << 40).to_le_bytes());
    check("b.arrows", bytes, "when decompressed");
}

#[test]
fn a_text_that_many_rows_share_is_not_written_out_for_all_of_them_at_once() {
    let files = Files::new();
    let long = "x".repeat(2 * 1024 * 1024);
    let shared: DictionaryArray<Int32Type> = (0..40).map(|_| long.as_str()).collect();
    let ts = TimestampNanosecondArray::from_iter_values(0..40);
    let columns: Vec<(&str, ArrayRef)> = vec![("ts", Arc::new(ts)), ("s", Arc::new(shared))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    assert_eq!(typed::rows_at_once(&batch), 32);
    assert_eq!(typed::rows_at_once(&mixed_batch()), READ_ROWS);
    let path = files.write("a.arrow", arrow_file(&batch, None));
    let batches = read(options(&path)).unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 40);
}

fn float_times(column: ArrayRef, format: &str) -> Result<Vec<i64>, FileError> {
    let files = Files::new();
    let n: ArrayRef = Arc::new(Int32Array::from_iter_values(
        0..i32::try_from(column.len()).unwrap(),
    ));
    let batch = RecordBatch::try_from_iter(vec![("ts", column), ("n", n)]).unwrap();
    let mut found = Vec::new();
    for (name, bytes) in [
        ("a.parquet", parquet_bytes(&batch)),
        ("a.arrow", arrow_file(&batch, None)),
    ] {
        let path = files.write(name, bytes);
        let options = FileOptions {
            time_format: format.parse().unwrap(),
            ..options(&path)
        };
        found.push(times(&read(options)?[0]));
    }
    assert_eq!(found[0], found[1]);
    Ok(found.remove(0))
}

#[test]
fn times_that_are_floats_have_the_unit_given_or_that_of_their_magnitude() {
    let us = 1_704_067_200_123_456;
    let floats = |values: &[f64]| -> ArrayRef { Arc::new(Float64Array::from(values.to_vec())) };
    for (value, unit, expected) in [
        (1_704_067_200.123_456, "s", us),
        (1_704_067_200_123.456, "ms", us),
        (1_704_067_200_123_456.0, "us", us),
        (1_704_067_200_123_456_000.0, "ns", us),
    ] {
        for format in ["auto", unit] {
            assert_eq!(float_times(floats(&[value]), format).unwrap(), [expected]);
        }
    }
    let ms = floats(&[1.5, -0.25, 1e9]);
    let expected = [1_500, -250, 1_000_000_000_000];
    assert_eq!(float_times(ms, "ms").unwrap(), expected);
    let single: ArrayRef = Arc::new(Float32Array::from(vec![0.5]));
    assert_eq!(float_times(single, "s").unwrap(), [500_000]);
    let days = floats(&[20_240_131.0]);
    assert_eq!(
        float_times(days, "%Y%m%d").unwrap(),
        [1_706_659_200_000_000]
    );
    for value in [f64::NAN, f64::INFINITY, 1e300] {
        let error = float_times(floats(&[1.0, value]), "ms").unwrap_err();
        let error = error.to_string();
        for part in ["row 2", "milliseconds"] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }
}
