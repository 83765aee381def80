//! Tables of texts. A text is written once and named by its number from then on; both sides have
//! the same table, because the sender says what is to be remembered, and its place follows by
//! counting.

use std::collections::HashMap;

use crate::limits::{
    COMPACT_TEXT_BYTES_MAX as TEXT_BYTES_MAX, COMPACT_TEXT_COST as COST,
    COMPACT_TEXTS_BYTES_MAX as TEXTS_BYTES_MAX, COMPACT_TEXTS_MAX as TEXTS_MAX,
};

/// A text follows, and is not to be remembered.
pub(super) const LITERAL: u64 = 0;
/// A text follows, and is to be remembered.
pub(super) const REMEMBER: u64 = 1;
/// The text with number 0; others count on.
pub(super) const KNOWN: u64 = 2;

/// What a receiver remembers of one column.
#[derive(Debug, Default)]
pub(super) struct Texts {
    slots: Vec<Box<str>>,
    /// The slot that is filled next, once all are full.
    next: usize,
    /// For each slot: the place of its text in the record that is being re-based, if it is of
    /// that record.
    placed: Vec<Placed>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Placed {
    record: u64,
    place: u64,
}

impl Texts {
    pub(super) fn get(&self, slot: u64) -> Option<&str> {
        let slot = usize::try_from(slot).ok()?;
        self.slots.get(slot).map(|text| &**text)
    }

    /// Remembers a text; its slot. `bytes` counts what all columns remember. `None` if it is too
    /// much.
    pub(super) fn remember(&mut self, text: &str, bytes: &mut usize) -> Option<u64> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let replaced = match self.slots.len() {
            TEXTS_MAX => self
                .slots
                .get(self.next)
                .map_or(0, |text| text.len() + COST),
            _ => 0,
        };
        let needed = *bytes - replaced + text.len() + COST;
        if needed > TEXTS_BYTES_MAX {
            return None;
        }
        *bytes = needed;
        if self.slots.len() < TEXTS_MAX {
            self.slots.push(text.into());
            self.placed.push(Placed::default());
            return Some(self.slots.len() as u64 - 1);
        }
        let slot = self.next;
        self.next = (slot + 1) % TEXTS_MAX;
        *self.slots.get_mut(slot)? = text.into();
        *self.placed.get_mut(slot)? = Placed::default();
        Some(slot as u64)
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.placed.clear();
        self.next = 0;
    }

    /// The place of a slot's text in the record with this number, if it is there already.
    pub(super) fn place_in(&self, record: u64, slot: u64) -> Option<u64> {
        let placed = self.placed.get(usize::try_from(slot).ok()?)?;
        (placed.record == record).then_some(placed.place)
    }

    pub(super) fn set_place(&mut self, record: u64, slot: u64, place: u64) {
        if let Some(placed) = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.placed.get_mut(slot))
        {
            *placed = Placed { record, place };
        }
    }
}

/// What a sender has told of one column.
#[derive(Debug, Default)]
pub(super) struct ToldTexts {
    slots: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u64>,
    next: usize,
    /// The slot named last: most columns of text hardly change.
    last: u64,
}

impl ToldTexts {
    /// The number of a text that the other side remembers.
    pub(super) fn number(&mut self, text: &str) -> Option<u64> {
        let last = usize::try_from(self.last).ok()?;
        if self.slots.get(last).is_some_and(|slot| **slot == *text) {
            return Some(self.last);
        }
        let number = *self.numbers.get(text)?;
        self.last = number;
        Some(number)
    }

    /// Whether the other side is to remember `text`; then it has a number from now on.
    pub(super) fn remember(&mut self, text: &str, bytes: &mut usize) -> bool {
        if text.len() > TEXT_BYTES_MAX {
            return false;
        }
        let is_full = self.slots.len() == TEXTS_MAX;
        let replaced = match is_full {
            true => self
                .slots
                .get(self.next)
                .map_or(0, |text| text.len() + COST),
            false => 0,
        };
        let needed = *bytes - replaced + text.len() + COST;
        if needed > TEXTS_BYTES_MAX {
            return false;
        }
        *bytes = needed;
        let slot = if is_full {
            let slot = self.next;
            self.next = (slot + 1) % TEXTS_MAX;
            if let Some(old) = self.slots.get_mut(slot) {
                self.numbers.remove(old);
                *old = text.into();
            }
            slot
        } else {
            self.slots.push(text.into());
            self.slots.len() - 1
        };
        self.numbers.insert(text.into(), slot as u64);
        self.last = slot as u64;
        true
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.numbers.clear();
        self.next = 0;
        self.last = 0;
    }
}
