use std::time::Duration;

use arrow_array::{
    Array,
    cast::AsArray,
    types::{Float64Type, Int32Type},
};

use super::*;
use crate::{
    MemoryBudget, MemoryLimits, Share,
    test_rows::{at, positions_of, schema},
};

fn read(memtable: &Memtable, after: u64, up_to: u64) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    memtable.read(Position(after), Position(up_to), &mut batches);
    batches
}

#[test]
fn one_row_batches_are_coalesced_and_stay_in_order() {
    let memtable = Memtable::default();
    let schema = schema(&["speed"]);
    for position in 1..=10_000 {
        memtable.append(at(&schema, [position]), Reservation::none(), Duration::ZERO);
    }
    let batches = read(&memtable, 0, u64::MAX);
    assert!(batches.len() < 60, "{} batches", batches.len());
    assert_eq!(positions_of(&batches), (1..=10_000).collect::<Vec<_>>());
    for batch in &batches {
        let devices = batch
            .column(1)
            .as_dictionary::<Int32Type>()
            .downcast_dict::<arrow_array::StringArray>()
            .unwrap();
        let speed = batch.column(4).as_primitive::<Float64Type>();
        for (row, device) in devices.into_iter().enumerate() {
            let expected = if speed.value(row) as i64 % 2 == 0 {
                "even"
            } else {
                "odd"
            };
            assert_eq!(device, Some(expected), "cells of a row stay together");
        }
    }
    assert_eq!(memtable.usage().rows, 10_000);
}

#[test]
fn large_batches_are_left_alone_between_small_ones() {
    let memtable = Memtable::default();
    let schema = schema(&["speed"]);
    let mut next = 1;
    for size in [5_000, 1, 5_000, 1, 300, 2, 5_000]
        .into_iter()
        .cycle()
        .take(70)
    {
        memtable.append(
            at(&schema, next..next + size),
            Reservation::none(),
            Duration::ZERO,
        );
        next += size;
    }
    assert_eq!(
        positions_of(&read(&memtable, 0, u64::MAX)),
        (1..next).collect::<Vec<_>>()
    );
}

#[test]
fn a_range_of_positions_is_read_exactly() {
    let memtable = Memtable::default();
    let schema = schema(&["speed"]);
    for start in (1..100).step_by(10) {
        memtable.append(
            at(&schema, (start..start + 10).step_by(2)),
            Reservation::none(),
            Duration::ZERO,
        );
    }
    for (after, up_to) in [
        (0, 0),
        (0, 1),
        (5, 5),
        (5, 42),
        (43, 44),
        (98, 1_000),
        (99, 1_000),
    ] {
        let expected: Vec<i64> = (1..100)
            .step_by(2)
            .filter(|at| *at > after && *at <= up_to)
            .collect();
        let found = positions_of(&read(&memtable, after as u64, up_to as u64));
        assert_eq!(found, expected, "({after}, {up_to}]");
    }
}

#[test]
fn batches_of_an_older_schema_are_coalesced_with_newer_ones_as_nulls() {
    let memtable = Memtable::default();
    let (old, new) = (schema(&["speed"]), schema(&["speed", "fuel"]));
    for position in 1..=16 {
        let schema = if position <= 8 { &old } else { &new };
        memtable.append(at(schema, [position]), Reservation::none(), Duration::ZERO);
    }
    let batches = read(&memtable, 0, u64::MAX);
    assert_eq!(batches.len(), 1);
    let fuel = batches[0].column(5);
    assert_eq!(
        (fuel.null_count(), fuel.is_null(7), fuel.is_valid(8)),
        (8, true, true)
    );
}

#[test]
fn memory_is_held_as_long_as_the_rows_are() {
    let budget = MemoryBudget::new(MemoryLimits {
        device: 1_000,
        derived: 1_000,
    });
    let schema = schema(&["speed"]);
    let memtable = Memtable::default();
    for position in 1..=20 {
        let share = if position % 2 == 0 {
            Share::Device
        } else {
            Share::Derived
        };
        memtable.append(
            at(&schema, [position]),
            budget.try_reserve(10, share).unwrap(),
            Duration::ZERO,
        );
    }
    assert_eq!(
        (budget.used(Share::Device), budget.used(Share::Derived)),
        (100, 100)
    );
    drop(memtable);
    assert_eq!(
        (budget.used(Share::Device), budget.used(Share::Derived)),
        (0, 0)
    );
}
