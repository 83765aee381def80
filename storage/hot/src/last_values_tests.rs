use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array, StringArray,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use proptest::prelude::*;
use quiver_model::Partition;

use super::*;
use crate::test_rows::{batch, schema};

/// Device to (ts, position, speed).
type Last = BTreeMap<String, (i64, i64, Option<i64>)>;

fn last(values: &LastValues, schema: &StreamSchema) -> Last {
    let batch = values.snapshot(schema).unwrap();
    let devices = batch
        .column(1)
        .as_dictionary::<Int32Type>()
        .downcast_dict::<StringArray>()
        .unwrap();
    let ts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let position = batch.column(3).as_primitive::<Int64Type>();
    let speed = batch.column(4).as_primitive::<Float64Type>();
    let rows = devices.into_iter().enumerate().map(|(row, device)| {
        let speed = speed.is_valid(row).then(|| speed.value(row) as i64);
        (
            device.unwrap().to_owned(),
            (ts.value(row), position.value(row), speed),
        )
    });
    let found: Last = rows.collect();
    assert_eq!(found.len(), batch.num_rows(), "one row for each device");
    found
}

fn portions(values: &LastValues, shard: u16) -> Vec<Vec<u8>> {
    let frozen = values.freeze(ShardId(shard));
    frozen.portions().map(Result::unwrap).collect()
}

#[test]
fn last_is_the_greatest_event_time_and_not_the_last_to_come() {
    let values = LastValues::new(1);
    let schema = schema(&["speed"]);
    values
        .update(
            ShardId(0),
            schema.stream(),
            &batch(&schema, &[(50, "a", 1), (70, "a", 2), (60, "a", 3)]),
        )
        .unwrap();
    values
        .update(
            ShardId(0),
            schema.stream(),
            &batch(&schema, &[(65, "a", 4), (10, "b", 5)]),
        )
        .unwrap();
    assert_eq!(
        last(&values, &schema),
        Last::from([
            ("a".to_owned(), (70, 2, Some(2))),
            ("b".to_owned(), (10, 5, Some(5)))
        ])
    );
    values
        .update(
            ShardId(0),
            schema.stream(),
            &batch(&schema, &[(70, "a", 6)]),
        )
        .unwrap();
    assert_eq!(
        last(&values, &schema)["a"],
        (70, 6, Some(6)),
        "the greater position of equal times"
    );
}

#[test]
fn a_row_of_an_older_schema_has_nulls_for_later_fields() {
    let values = LastValues::new(1);
    let (old, new) = (schema(&["speed"]), schema(&["speed", "note"]));
    values
        .update(
            ShardId(0),
            new.stream(),
            &batch(&new, &[(1, "a", 1), (1, "b", 2)]),
        )
        .unwrap();
    values
        .update(ShardId(0), old.stream(), &batch(&old, &[(2, "a", 3)]))
        .unwrap();
    let snapshot = values.snapshot(&new).unwrap();
    let notes = snapshot.column(5).as_string::<i32>();
    let notes: Vec<_> = notes.iter().flatten().collect();
    assert_eq!(
        notes,
        ["at 2"],
        "the whole last row counts, not the last value of each field"
    );
}

#[test]
fn an_export_is_refused_if_any_bit_of_it_changed() {
    let values = LastValues::new(1);
    let schema = schema(&["speed", "note"]);
    values
        .update(ShardId(0), schema.stream(), &batch(&schema, &[(1, "a", 1)]))
        .unwrap();
    let [bytes] = portions(&values, 0).try_into().unwrap();
    for index in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[index] ^= 1 << (index % 8);
        assert!(
            matches!(
                LastValues::new(1).import(&forged),
                Err(ImportError::Corrupt(_))
            ),
            "byte {index}"
        );
        assert!(
            LastValues::new(1).import(&bytes[..index]).is_err(),
            "cut at {index}"
        );
    }
    LastValues::new(1).import(&bytes).unwrap();
}

#[test]
fn what_was_frozen_stays_as_it_was_while_rows_come_and_is_read_in_portions() {
    let values = LastValues::new(1);
    let schema = schema(&["speed", "note"]);
    let name = |number: i64| format!("device-{number:06}");
    let put = |devices: std::ops::Range<i64>, ts: i64| {
        for from in devices.clone().step_by(1_000) {
            let names: Vec<_> = (from..devices.end.min(from + 1_000)).map(name).collect();
            let rows: Vec<_> = (names.iter().zip(from + ts..))
                .map(|(name, position)| (ts, name.as_str(), position))
                .collect();
            let rows = batch(&schema, &rows);
            values.update(ShardId(0), schema.stream(), &rows).unwrap();
        }
    };
    put(0..40_000, 10);
    let before = last(&values, &schema);
    let frozen = values.freeze(ShardId(0));
    put(10_000..50_000, 20);
    assert_eq!(last(&values, &schema).len(), 50_000);
    let restored = LastValues::new(3);
    let mut count = 0;
    for portion in frozen.portions() {
        restored.import(&portion.unwrap()).unwrap();
        count += 1;
    }
    assert_eq!(count, 3, "of 16,384 rows at most");
    assert_eq!(last(&restored, &schema), before);
}

#[test]
fn every_type_of_field_keeps_its_values_and_nulls_also_if_it_came_later() {
    use arrow_array::{
        Array, ArrayRef, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use quiver_model::{FieldName, FieldType, SchemaId, StreamField, StreamName, StreamSchema};
    let field =
        |name: &str, field_type| StreamField::new(FieldName::new(name).unwrap(), field_type);
    let names = [
        FieldType::Int64,
        FieldType::Bool,
        FieldType::Utf8,
        FieldType::Bool,
        FieldType::Timestamp,
    ];
    let fields: Vec<_> = (0..70)
        .map(|index| field(&format!("f{index}"), names[index % names.len()]))
        .collect();
    let stream = StreamName::new("readings").unwrap();
    let old = StreamSchema::new(stream.clone(), SchemaId(1), fields[..2].to_vec()).unwrap();
    let new = StreamSchema::new(stream.clone(), SchemaId(2), fields.clone()).unwrap();
    let none = StreamSchema::new(stream.clone(), SchemaId(3), Vec::new()).unwrap();
    let rows = |schema: &StreamSchema, rows: &[(i64, &str, i64)]| {
        let mut columns = batch(&none, rows).columns().to_vec();
        for (index, field) in schema.fields().iter().enumerate() {
            let value = |row: usize| {
                let number = rows[row].2 * 100 + index as i64;
                (number % 3 != 0).then_some(number)
            };
            let values = (0..rows.len()).map(value);
            columns.push(match field.field_type {
                FieldType::Int64 => Arc::new(values.collect::<Int64Array>()) as ArrayRef,
                FieldType::Timestamp => Arc::new(
                    values
                        .map(|value| value.map(|value| 250 - value))
                        .collect::<TimestampMicrosecondArray>()
                        .with_timezone("UTC"),
                ),
                FieldType::Bool => Arc::new(
                    values
                        .map(|value| value.map(|value| value % 2 == 0))
                        .collect::<BooleanArray>(),
                ),
                _ => Arc::new(
                    values
                        .map(|value| value.map(|value| value.to_string()))
                        .collect::<StringArray>(),
                ),
            });
        }
        RecordBatch::try_new(Arc::clone(schema.stored()), columns).unwrap()
    };
    let values = LastValues::new(1);
    let update = |batch: &RecordBatch| values.update(ShardId(0), &stream, batch).unwrap();
    update(&rows(&old, &[(1, "a", 1), (1, "b", 2)]));
    update(&rows(&new, &[(2, "c", 3), (2, "b", 4), (2, "d", 5)]));
    let found = values.snapshot(&new).unwrap();
    let expected = conform(&rows(&old, &[(1, "a", 1)]), new.stored()).unwrap();
    let expected = concat_batches(
        new.stored(),
        [
            &expected,
            &rows(&new, &[(2, "b", 4), (2, "c", 3), (2, "d", 5)]),
        ],
    )
    .unwrap();
    for (index, (found, expected)) in found.columns().iter().zip(expected.columns()).enumerate() {
        if index != 1 {
            assert_eq!(found.to_data(), expected.to_data(), "column {index}");
        }
    }
    assert!(values.bytes() > 4 * 70 * 8);
    let restored = LastValues::new(1);
    for part in portions(&values, 0) {
        restored.import(&part).unwrap();
    }
    let restored = restored.snapshot(&new).unwrap();
    for (index, (restored, found)) in restored.columns().iter().zip(found.columns()).enumerate() {
        if index != 1 {
            assert_eq!(restored.to_data(), found.to_data(), "column {index}");
        }
    }
}

#[test]
fn a_batch_that_contradicts_earlier_ones_is_refused() {
    let values = LastValues::new(1);
    let (speed, fuel) = (schema(&["speed"]), schema(&["fuel"]));
    values
        .update(ShardId(0), speed.stream(), &batch(&speed, &[(1, "a", 1)]))
        .unwrap();
    let error = values
        .update(ShardId(0), fuel.stream(), &batch(&fuel, &[(2, "a", 2)]))
        .unwrap_err();
    assert!(
        matches!(error, LayoutError::Column { index: 4, .. }),
        "{error}"
    );
    assert_eq!(last(&values, &speed)["a"], (1, 1, Some(1)));
}

proptest! {
    #[test]
    fn any_batches_on_any_shards_end_in_the_naive_models_state_also_through_a_checkpoint(
        batches in prop::collection::vec(prop::collection::vec((0_i64..20, 0_u8..6), 0..30), 0..12),
        shards_before in 1_u16..4,
        shards_after in 1_u16..4,
    ) {
        let schema = schema(&["speed", "note"]);
        let values = LastValues::new(shards_before);
        let mut model = Last::new();
        let mut position = 0;
        for rows in batches {
            let mut per_shard: BTreeMap<ShardId, Vec<(i64, String, i64)>> = BTreeMap::new();
            for (ts, device) in rows {
                position += 1;
                let device = format!("device_{device}");
                let entry = model.entry(device.clone()).or_insert((ts, position, Some(position)));
                if (ts, position) >= (entry.0, entry.1) {
                    *entry = (ts, position, Some(position));
                }
                let shard = Partition::of_str(&device).shard(shards_before);
                per_shard.entry(shard).or_default().push((ts, device, position));
            }
            for (shard, rows) in per_shard {
                let rows: Vec<_> = rows.iter().map(|row| (row.0, row.1.as_str(), row.2)).collect();
                values.update(shard, schema.stream(), &batch(&schema, &rows)).unwrap();
            }
        }
        prop_assert_eq!(&last(&values, &schema), &model);
        prop_assert_eq!(values.devices(schema.stream()), model.len());

        let restored = LastValues::new(shards_after);
        for shard in 0..shards_before {
            for part in portions(&values, shard) {
                restored.import(&part).unwrap();
                // Replay after a checkpoint applies some rows again.
                restored.import(&part).unwrap();
            }
        }
        prop_assert_eq!(&last(&restored, &schema), &model);
    }
}
