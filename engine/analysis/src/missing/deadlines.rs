//! When to look at which series again. Data does not move a deadline: when it passes, it is put
//! where it should be by then. So data costs nothing here, and a passing deadline little.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{MissingSpec, device::Series};

/// Deadlines of series, told by slot and field. At most one of a series is its `scheduled` one;
/// others are stale, and dropped when they pass.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(i64, u32, u32)>>,
}

impl Deadlines {
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// The earliest one.
    pub fn first(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Sees to it that a series is looked at when something is to become of it, or before.
    pub fn schedule(&mut self, slot: u32, series: &mut Series, spec: &MissingSpec) {
        let Some(at) = spec.deadline(series) else {
            return;
        };
        if series.scheduled.is_none_or(|scheduled| scheduled > at) {
            series.scheduled = Some(at);
            self.heap.push(Reverse((at, slot, series.field)));
        }
    }

    /// Takes a deadline that has passed: slot, field, and when it was.
    pub fn pop(&mut self, record_time: i64) -> Option<(u32, u32, i64)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > record_time {
            return None;
        }
        let Reverse((at, slot, field)) = self.heap.pop()?;
        Some((slot, field, at))
    }
}
