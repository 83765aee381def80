//! When, in record time, something is to be done next.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Deadlines of keys, the next one first. One that has moved to later stands where it was, and is
/// moved when its turn comes: so a device that sends all the time costs nothing here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines {
    queue: BinaryHeap<Reverse<(i64, u32)>>,
}

impl Deadlines {
    pub(crate) fn push(&mut self, deadline: i64, key: u32) {
        self.queue.push(Reverse((deadline, key)));
    }

    pub(crate) fn next(&self) -> Option<i64> {
        self.queue.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Takes a deadline that has come.
    pub(crate) fn pop(&mut self, record_time: i64) -> Option<(i64, u32)> {
        if self.next()? > record_time {
            return None;
        }
        self.queue.pop().map(|Reverse(entry)| entry)
    }
}
