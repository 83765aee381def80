use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int8Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};

use super::*;
use crate::{DeviceId, Position, SchemaId, schema::timestamp_type};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .unwrap()
}

fn times(micros: &[i64]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC"))
}

fn device() -> SenderId {
    SenderId::device(DeviceId::new("truck_1").unwrap())
}

fn gateway() -> SenderId {
    SenderId {
        kind: SenderKind::Gateway,
        id: DeviceId::new("gw").unwrap(),
    }
}

fn judge_as(
    sender: &SenderId,
    batch: &RecordBatch,
    schema: Option<&StreamSchema>,
) -> Result<Judged, BatchRefusal> {
    let stream = StreamName::new("readings").unwrap();
    judge(
        batch,
        &NormaliseContext {
            sender,
            stream: &stream,
            schema,
            now: NOW,
            future_limit: Duration::from_secs(86_400),
            may_speak_for: &|device| device.starts_with("truck"),
        },
    )
}

fn schema(fields: &[(&str, FieldType)]) -> Arc<StreamSchema> {
    let fields = fields
        .iter()
        .map(|(name, field_type)| StreamField::new(FieldName::new(name).unwrap(), *field_type))
        .collect();
    Arc::new(StreamSchema::new(StreamName::new("readings").unwrap(), SchemaId(1), fields).unwrap())
}

fn stored(sender: &SenderId, batch: &RecordBatch, schema: &Arc<StreamSchema>) -> RecordBatch {
    let judged = judge_as(sender, batch, Some(schema)).unwrap();
    assert_eq!(judged.new_fields, []);
    apply(
        batch,
        schema,
        sender,
        &judged.verdict,
        judged.devices.as_ref(),
    )
    .unwrap()
    .place(Position(100), NOW)
    .unwrap()
}

#[test]
fn every_wire_type_is_normalised_to_its_stored_type() {
    let sent = batch(vec![
        (
            "ts",
            Arc::new(TimestampSecondArray::from(vec![
                1_600_000_000,
                1_600_000_001,
            ])),
        ),
        ("small", Arc::new(Int8Array::from(vec![Some(1), None]))),
        ("single", Arc::new(Float32Array::from(vec![0.5, 1.5]))),
        ("text", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
        ("seen", Arc::new(TimestampSecondArray::from(vec![3, -3]))),
    ]);
    let judged = judge_as(&device(), &sent, None).unwrap();
    let types: Vec<_> = judged
        .new_fields
        .iter()
        .map(|field| field.field_type)
        .collect();
    assert_eq!(
        types,
        [
            FieldType::Int64,
            FieldType::Float64,
            FieldType::Utf8,
            FieldType::Bool,
            FieldType::Timestamp
        ]
    );
    let schema = Arc::new(
        StreamSchema::new(
            StreamName::new("readings").unwrap(),
            SchemaId(1),
            judged.new_fields,
        )
        .unwrap(),
    );
    let rows = stored(&device(), &sent, &schema);
    assert_eq!(rows.schema(), *schema.stored());
    assert_eq!(
        rows.column(0)
            .as_primitive::<arrow_array::types::TimestampMicrosecondType>()
            .value(0),
        1_600_000_000_000_000
    );
    assert_eq!(
        rows.column(3)
            .as_primitive::<arrow_array::types::Int64Type>()
            .values(),
        &[100, 101]
    );
    assert!(rows.column(4).is_null(1));
}

#[test]
fn refused_rows_keep_their_positions_and_the_others_go_on() {
    let day = 86_400_000_000;
    let sent = batch(vec![
        ("ts", times(&[NOW.0, -1, NOW.0 + 2 * day, NOW.0 + 1])),
        ("n", Arc::new(UInt64Array::from(vec![1, 2, 3, u64::MAX]))),
    ]);
    let schema = schema(&[("n", FieldType::Int64)]);
    let judged = judge_as(&device(), &sent, Some(&schema)).unwrap();
    let refused: Vec<_> = judged
        .verdict
        .refused
        .iter()
        .map(|row| (row.row, row.code))
        .collect();
    assert_eq!(
        refused,
        [
            (1, RejectCode::TimestampRange),
            (2, RejectCode::FutureTimestamp),
            (3, RejectCode::IntegerRange)
        ]
    );
    let rows = stored(&device(), &sent, &schema);
    assert_eq!(rows.num_rows(), 1);
    let checked = apply(&sent, &schema, &device(), &judged.verdict, None).unwrap();
    assert_eq!((checked.rows_sent(), checked.row_count()), (4, 1));
}

#[test]
fn integers_for_a_float_column_are_cast_only_when_exact() {
    let schema = schema(&[("v", FieldType::Float64)]);
    let big = (1_i64 << 53) + 1;
    let sent = batch(vec![
        ("ts", times(&[1, 2, 3, 4])),
        (
            "v",
            Arc::new(Int64Array::from(vec![5, big, 1 << 60, i64::MAX])),
        ),
    ]);
    let judged = judge_as(&device(), &sent, Some(&schema)).unwrap();
    let refused: Vec<_> = judged.verdict.refused.iter().map(|row| row.row).collect();
    assert_eq!(refused, [1, 3]);
    let rows = stored(&device(), &sent, &schema);
    assert_eq!(
        rows.column(4)
            .as_primitive::<arrow_array::types::Float64Type>()
            .values(),
        &[5.0, (1_i64 << 60) as f64]
    );
}

#[test]
fn a_type_conflict_refuses_the_batch_and_names_both_types() {
    let schema = schema(&[("v", FieldType::Int64)]);
    let sent = batch(vec![
        ("ts", times(&[1])),
        ("v", Arc::new(Float64Array::from(vec![1.0]))),
    ]);
    let refusal = judge_as(&device(), &sent, Some(&schema)).unwrap_err();
    assert_eq!(refusal.code, RejectCode::TypeConflict);
    assert!(
        refusal.message.contains("int64") && refusal.message.contains("float64"),
        "{refusal}"
    );
}

#[test]
fn names_are_checked_reserved_and_unique_ignoring_case() {
    let value = || Arc::new(Float64Array::from(vec![1.0])) as ArrayRef;
    let code = |names: &[&str]| {
        let mut columns = vec![("ts", times(&[1]))];
        columns.extend(names.iter().map(|name| (*name, value())));
        judge_as(&device(), &batch(columns), None).unwrap_err().code
    };
    assert_eq!(code(&["a-b"]), RejectCode::FieldName);
    assert_eq!(code(&["Temp", "temp"]), RejectCode::FieldName);
    assert_eq!(code(&["position"]), RejectCode::ReservedColumn);
    assert_eq!(code(&["arrival"]), RejectCode::ReservedColumn);
    assert_eq!(code(&["Quiver_Day"]), RejectCode::ReservedColumn);
}

#[test]
fn a_device_column_of_a_device_is_ignored_and_counted() {
    let sent = batch(vec![
        ("ts", times(&[1, 2])),
        (
            "device",
            Arc::new(StringArray::from(vec!["truck_1", "truck_2"])),
        ),
    ]);
    let judged = judge_as(&device(), &sent, None).unwrap();
    assert_eq!(judged.verdict.counts.device_mismatch, 1);
    let rows = stored(&device(), &sent, &schema(&[]));
    let names = cast(rows.column(1), &DataType::Utf8).unwrap();
    assert_eq!(
        names
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect::<Vec<_>>(),
        ["truck_1", "truck_1"]
    );
}

#[test]
fn a_gateway_speaks_for_its_devices_only_and_may_state_arrival() {
    let sent = batch(vec![
        ("ts", times(&[1, 2, 3])),
        (
            "device",
            Arc::new(StringArray::from(vec![
                Some("truck_1"),
                Some("plane_1"),
                None,
            ])),
        ),
        (
            "arrival",
            Arc::new(TimestampNanosecondArray::from(vec![
                Some(7_000),
                Some(8_000),
                None,
            ])),
        ),
    ]);
    let judged = judge_as(&gateway(), &sent, None).unwrap();
    assert!(
        judged
            .verdict
            .refused
            .iter()
            .all(|row| row.code == RejectCode::NotEnrolled)
    );
    let rows = stored(&gateway(), &sent, &schema(&[]));
    assert_eq!(rows.num_rows(), 1);
    assert_eq!(
        rows.column(2)
            .as_primitive::<arrow_array::types::TimestampMicrosecondType>()
            .value(0),
        7
    );
    let without = batch(vec![("ts", times(&[1]))]);
    assert_eq!(
        judge_as(&gateway(), &without, None).unwrap_err().code,
        RejectCode::MissingDevice
    );
}

#[test]
fn a_batch_may_not_span_more_than_a_year() {
    let sent = batch(vec![("ts", times(&[0, 367 * 86_400_000_000]))]);
    assert_eq!(
        judge_as(&device(), &sent, None).unwrap_err().code,
        RejectCode::BatchSpan
    );
}

#[test]
fn a_split_batch_loses_no_row_and_keeps_positions() {
    let names: Vec<String> = (0..40).map(|index| format!("truck_{index}")).collect();
    let sent = batch(vec![
        ("ts", times(&(0..40).collect::<Vec<_>>())),
        ("device", Arc::new(StringArray::from(names.clone()))),
    ]);
    let judged = judge_as(&gateway(), &sent, None).unwrap();
    let checked = apply(&sent, &schema(&[]), &gateway(), &judged.verdict, None).unwrap();
    let mut seen = Vec::new();
    for (shard, part) in checked.split_by_shard(4) {
        let rows = part.place(Position(1_000), NOW).unwrap();
        let devices = cast(rows.column(1), &DataType::Utf8).unwrap();
        for (row, device) in devices.as_string::<i32>().iter().enumerate() {
            let device = device.unwrap();
            assert_eq!(crate::Partition::of_str(device).shard(4), shard);
            let position = rows
                .column(3)
                .as_primitive::<arrow_array::types::Int64Type>()
                .value(row);
            assert_eq!(device, names[usize::try_from(position - 1_000).unwrap()]);
            seen.push(position);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1_000..1_040).collect::<Vec<_>>());
}

/// Rows by device, as they will be stored: what ingest keeps, and what a replay of the log makes.
fn devices_of(checked: CheckedBatch) -> Vec<String> {
    let parts = checked.split_by_shard(4);
    let mut named: Vec<String> = parts
        .iter()
        .flat_map(|(_, part)| {
            let rows = part.place(Position(0), NOW).unwrap();
            let devices = cast(rows.column(1), &DataType::Utf8).unwrap();
            let times = rows
                .column(0)
                .as_primitive::<arrow_array::types::TimestampMicrosecondType>();
            let row = |(device, time): (Option<&str>, &i64)| format!("{time} {}", device.unwrap());
            let devices = devices.as_string::<i32>();
            devices
                .iter()
                .zip(times.values())
                .map(row)
                .collect::<Vec<_>>()
        })
        .collect();
    named.sort();
    named
}

#[test]
fn a_replay_finds_the_devices_that_the_judgement_found() {
    let mixed = [
        Some("truck_b"),
        None,
        Some("truck_a"),
        Some("not enrolled"),
        Some("truck_b"),
        Some("truck_a"),
        Some(""),
    ];
    for (names, expected) in [
        (
            &mixed[..],
            &["0 truck_b", "2 truck_a", "4 truck_b", "5 truck_a"][..],
        ),
        (
            &[Some("truck_a"), Some("truck_b"), Some("truck_a")],
            &["0 truck_a", "1 truck_b", "2 truck_a"],
        ),
        (&[None, None], &[]),
        (&[Some("not enrolled")], &[]),
        (&[], &[]),
    ] {
        let sent = batch(vec![
            ("ts", times(&(0..names.len() as i64).collect::<Vec<_>>())),
            ("device", Arc::new(StringArray::from(names.to_vec()))),
        ]);
        let judged = judge_as(&gateway(), &sent, None).unwrap();
        let obey = |devices| {
            let verdict = &judged.verdict;
            apply(&sent, &schema(&[]), &gateway(), verdict, devices).unwrap()
        };
        assert_eq!(
            devices_of(obey(judged.devices.as_ref())),
            expected,
            "{names:?}"
        );
        assert_eq!(devices_of(obey(None)), expected, "{names:?}");
        let parts = obey(judged.devices.as_ref()).split_by_shard(4);
        assert!(
            parts.iter().all(|(_, part)| part.row_count() > 0),
            "{names:?}"
        );
    }
}

#[test]
fn a_row_without_a_device_that_a_verdict_lets_pass_is_an_error() {
    let sent = batch(vec![
        ("ts", times(&[1, 2])),
        ("device", Arc::new(StringArray::from(vec![Some("a"), None]))),
    ]);
    let passes = Verdict::default();
    let refusal = apply(&sent, &schema(&[]), &gateway(), &passes, None).unwrap_err();
    assert_eq!(refusal.message, "row 1 names no device");
}

#[test]
fn a_verdict_for_rows_the_batch_does_not_have_is_an_error() {
    let sent = batch(vec![("ts", times(&[1]))]);
    let verdict = Verdict {
        refused: vec![RefusedRow {
            row: 9,
            code: RejectCode::NullTimestamp,
        }],
        counts: VerdictCounts::default(),
    };
    assert!(apply(&sent, &schema(&[]), &device(), &verdict, None).is_err());
}

#[test]
fn a_row_as_json_is_cut_at_its_limit() {
    let sent = batch(vec![
        ("ts", times(&[1])),
        ("v", Arc::new(Float64Array::from(vec![1.5]))),
        ("long", Arc::new(StringArray::from(vec!["é".repeat(4_000)]))),
    ]);
    let text = crate::row_as_json(&sent, 0, 1_024);
    assert!(
        text.len() <= 1_024 && text.contains("\"v\":1.5") && text.ends_with('…'),
        "{text}"
    );
}

#[test]
fn values_beyond_a_decimal_fields_scale_are_refused_and_the_others_stay_as_they_are() {
    let name = FieldName::new("speed").unwrap();
    let scale = DecimalScale::new(2).unwrap();
    let schema = Arc::new(
        StreamSchema::new(
            StreamName::new("readings").unwrap(),
            SchemaId(1),
            vec![StreamField::decimal(name, scale)],
        )
        .unwrap(),
    );
    let values = vec![
        Some(1.25),
        Some(0.125),
        None,
        Some(-0.0),
        Some(f64::NAN),
        Some(1e14),
        Some(-17.07),
    ];
    let sent = batch(vec![
        ("ts", times(&[NOW.0; 7])),
        ("speed", Arc::new(Float64Array::from(values))),
    ]);
    let judged = judge_as(&device(), &sent, Some(&schema)).unwrap();
    let refused: Vec<_> = judged
        .verdict
        .refused
        .iter()
        .map(|refused| (refused.row, refused.code))
        .collect();
    assert_eq!(
        refused,
        [1, 4, 5].map(|row| (row, RejectCode::DecimalScale))
    );
    let rows = stored(&device(), &sent, &schema);
    let bits: Vec<_> = rows
        .column(4)
        .as_primitive::<Float64Type>()
        .iter()
        .map(|value| value.map(f64::to_bits))
        .collect();
    let expected = [Some(1.25), None, Some(0.0), Some(-17.07)];
    assert_eq!(bits, expected.map(|value| value.map(f64::to_bits)));

    // Integers are decimals without digits after the point.
    let sent = batch(vec![
        ("ts", times(&[NOW.0; 2])),
        (
            "speed",
            Arc::new(Int64Array::from(vec![3, 1_000_000_000_000_000])),
        ),
    ]);
    let judged = judge_as(&device(), &sent, Some(&schema)).unwrap();
    assert_eq!(judged.verdict.refused.len(), 1);
}

/// The values of field `index` of stored rows.
fn field_times(rows: &RecordBatch, index: usize) -> Vec<Option<i64>> {
    let column = rows.column(FIXED_COLUMN_COUNT + index);
    let times = column.as_primitive::<arrow_array::types::TimestampMicrosecondType>();
    assert_eq!(*times.data_type(), timestamp_type());
    times.iter().collect()
}

#[test]
fn timestamps_of_every_unit_and_zone_are_microseconds_of_utc() {
    let of = |column: ArrayRef| {
        let rows = column.len();
        let sent = batch(vec![("ts", times(&vec![NOW.0; rows])), ("seen", column)]);
        let judged = judge_as(&device(), &sent, None).unwrap();
        let [field] = judged.new_fields.as_slice() else {
            panic!("one new field");
        };
        assert_eq!(field.type_word(), "timestamp");
        let schema = schema(&[("seen", FieldType::Timestamp)]);
        let truncated = judged.verdict.counts.truncated_timestamps;
        (
            field_times(&stored(&device(), &sent, &schema), 0),
            truncated,
        )
    };
    let seconds = vec![Some(-1), None, Some(0), Some(7)];
    let micros = vec![Some(-1_000_000), None, Some(0), Some(7_000_000)];
    let seconds = TimestampSecondArray::from(seconds);
    let zoned = Arc::new(seconds.clone().with_timezone("+02:00"));
    assert_eq!(of(Arc::new(seconds)), (micros.clone(), 0));
    assert_eq!(of(zoned), (micros, 0));
    let millis = TimestampMillisecondArray::from(vec![-1, 1]).with_timezone("Europe/Berlin");
    assert_eq!(of(Arc::new(millis)), (vec![Some(-1_000), Some(1_000)], 0));
    let extremes = [FIELD_TIME_MIN.0, -1, 0, FIELD_TIME_MAX.0];
    let same = extremes.map(Some).to_vec();
    assert_eq!(of(times(&extremes)), (same.clone(), 0));
    let zoneless = TimestampMicrosecondArray::from(extremes.to_vec());
    assert_eq!(of(Arc::new(zoneless)), (same, 0));

    // What lies under a null is not looked at.
    let nulls = NullBuffer::from(vec![true, true, true, true, false]);
    let nanos = vec![1_999, -1, -1_000, i64::MIN, 7].into();
    let nanos = TimestampNanosecondArray::new(nanos, Some(nulls));
    let floor = i64::MIN.div_euclid(1_000);
    let micros = vec![Some(1), Some(-1), Some(-1), Some(floor), None];
    assert_eq!(of(Arc::new(nanos)), (micros, 3));
    let garbage = vec![i64::MAX, 5].into();
    let garbage = TimestampSecondArray::new(garbage, Some(vec![false, true].into()));
    assert_eq!(of(Arc::new(garbage)), (vec![None, Some(5_000_000)], 0));
}

#[test]
fn times_beyond_what_a_field_holds_are_refused_row_by_row() {
    let refused = |column: ArrayRef| -> Vec<_> {
        let sent = batch(vec![
            ("ts", times(&vec![NOW.0; column.len()])),
            ("seen", column),
        ]);
        let judged = judge_as(&device(), &sent, None).unwrap();
        let rows = judged.verdict.refused.iter();
        rows.map(|row| (row.row, row.code)).collect()
    };
    let all = |rows: &[u32]| -> Vec<_> {
        let refused = rows.iter().map(|row| (*row, RejectCode::TimestampRange));
        refused.collect()
    };
    let (min, max) = (FIELD_TIME_MIN.0, FIELD_TIME_MAX.0);
    let micros = times(&[i64::MIN, min - 1, min, 0, max, max + 1, i64::MAX]);
    assert_eq!(refused(micros), all(&[0, 1, 5, 6]));
    let sent = batch(vec![("ts", times(&[1])), ("seen", times(&[i64::MAX]))]);
    let kept = crate::row_as_json(&sent, 0, 1_024);
    assert!(kept.contains(&i64::MAX.to_string()), "{kept}");
    let seconds = vec![Some(i64::MIN), Some(min / 1_000_000), None, Some(i64::MAX)];
    let seconds = Arc::new(TimestampSecondArray::from(seconds));
    assert_eq!(refused(seconds), all(&[0, 3]));
}

#[test]
fn times_and_numbers_do_not_become_each_other() {
    let schema = schema(&[
        ("seen", FieldType::Timestamp),
        ("count", FieldType::Int64),
        ("speed", FieldType::Float64),
    ]);
    let number = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    for (name, column, message) in [
        ("seen", number(), "is timestamp; the batch has int64"),
        ("count", times(&[1]), "is int64; the batch has timestamp"),
        ("speed", times(&[1]), "is float64; the batch has timestamp"),
    ] {
        let sent = batch(vec![("ts", times(&[1])), (name, column)]);
        let refusal = judge_as(&device(), &sent, Some(&schema)).unwrap_err();
        assert_eq!(refusal.code, RejectCode::TypeConflict);
        assert!(refusal.message.contains(message), "{refusal}");
    }
    // A log that says otherwise is damaged.
    let sent = batch(vec![("ts", times(&[1])), ("seen", number())]);
    let damaged = apply(&sent, &schema, &device(), &Verdict::default(), None).unwrap_err();
    assert_eq!(damaged.code, RejectCode::MalformedBatch);

    let date = Arc::new(arrow_array::Date32Array::from(vec![1])) as ArrayRef;
    let sent = batch(vec![("ts", times(&[1])), ("day", date)]);
    let refusal = judge_as(&device(), &sent, None).unwrap_err();
    assert_eq!(refusal.code, RejectCode::UnsupportedType);
}

/// One value of a timestamp column: mostly near the edges of what fits, in any unit.
fn ticks() -> impl proptest::strategy::Strategy<Value = Option<i64>> {
    use proptest::prelude::*;
    let edge = (0..4_u32, any::<bool>(), -2..=2_i64).prop_map(|(unit, is_first, off)| {
        let edge = if is_first {
            FIELD_TIME_MIN
        } else {
            FIELD_TIME_MAX
        };
        let per_second = 1_000_i64.pow(unit);
        let edge = i128::from(edge.0) * i128::from(per_second) / 1_000_000;
        i64::try_from(edge).unwrap_or(i64::MAX).saturating_add(off)
    });
    let ticks = prop_oneof![edge, any::<i64>(), -2_000..2_000_i64];
    prop::option::weighted(0.9, ticks)
}

proptest::proptest! {
    #[test]
    fn any_time_is_stored_as_its_microsecond_or_its_row_is_refused(
        values in proptest::collection::vec(ticks(), 1..20),
        unit in 0..4_usize,
        zone in proptest::option::of(proptest::sample::select(vec!["UTC", "+02:00", "Europe/Berlin"])),
    ) {
        let zone = zone.map(Arc::<str>::from);
        macro_rules! of {
            ($array:ty) => {
                Arc::new(<$array>::from(values.clone()).with_timezone_opt(zone)) as ArrayRef
            };
        }
        let (column, nanos) = match unit {
            0 => (of!(TimestampSecondArray), 1_000_000_000),
            1 => (of!(TimestampMillisecondArray), 1_000_000),
            2 => (of!(TimestampMicrosecondArray), 1_000),
            _ => (of!(TimestampNanosecondArray), 1),
        };
        let sent = batch(vec![("ts", times(&vec![NOW.0; values.len()])), ("seen", column)]);
        let schema = schema(&[("seen", FieldType::Timestamp)]);
        let judged = judge_as(&device(), &sent, Some(&schema)).unwrap();

        let (mut kept, mut refused, mut truncated) = (Vec::new(), Vec::new(), 0);
        for (row, value) in (0..).zip(&values) {
            let nanos = value.map(|value| i128::from(value) * nanos);
            let micros = nanos.map(|nanos| nanos.div_euclid(1_000));
            truncated += u32::from(nanos.is_some_and(|nanos| nanos % 1_000 != 0));
            let range = i128::from(FIELD_TIME_MIN.0)..=i128::from(FIELD_TIME_MAX.0);
            if micros.is_none_or(|micros| range.contains(&micros)) {
                kept.push(micros.map(|micros| micros as i64));
            } else {
                refused.push((row, RejectCode::TimestampRange));
            }
        }
        let found: Vec<_> = judged.verdict.refused.iter().map(|row| (row.row, row.code)).collect();
        proptest::prop_assert_eq!(found, refused);
        proptest::prop_assert_eq!(judged.verdict.counts.truncated_timestamps, truncated);
        let rows = stored(&device(), &sent, &schema);
        proptest::prop_assert_eq!(field_times(&rows, 0), kept);
    }
}
