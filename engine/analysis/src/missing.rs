//! The watch for silence: no data from a device, or none for one of its fields, for a time.
//!
//! ```text
//! rows of a record ─ push ─▶ series: last seen ─▶ back, if it was missing
//! record time ─ advance ─▶ deadlines that have passed ─▶ missing
//! ```
//!
//! Time is record time, in microseconds: what counts is when data arrived, not what time its rows
//! tell. A series (a device, or a field of a device) is watched from its first value on; one that
//! never had any is not missing. It is missing from the moment the silence has lasted `after`
//! microseconds, and a record tells so with that moment, even if time is told only later, or first
//! by the data that ends the silence. So the records are a function of when data came; ticks only
//! decide when they are put out.
//!
//! A series that has been silent for `forget_after` is watched no longer, so that devices which are
//! gone for good do not fill the watch for ever; what comes then is a first value again. Beyond
//! `limit` series new ones are not watched, and counted ([`Counters::refused`]).

use std::{hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};

mod deadlines;
mod device;
mod saved;

use deadlines::Deadlines;
use device::{Device, Series};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Whether a device sends anything at all.
    Device,
    /// Whether a device sends values of each of so many fields.
    Fields(u32),
}

/// A watch for silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingSpec {
    /// What is watched.
    pub watch: Watch,
    /// How long a silence is that is told, in microseconds.
    pub after: i64,
    /// How long one is after which the series is forgotten, if ever; in microseconds.
    pub forget_after: Option<i64>,
    /// How many series are watched at most.
    pub limit: usize,
}

/// Why there is no such watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingError {
    /// Everything would be missing always.
    #[error("a silence is longer than zero, not {0} µs")]
    After(i64),
    /// Nothing would ever be missing.
    #[error("what is missing after {after} µs cannot be forgotten after {forget_after} µs")]
    Forgotten {
        /// When it is missing.
        after: i64,
        /// When it is forgotten.
        forget_after: i64,
    },
    /// No field is watched.
    #[error("no field is watched")]
    NoFields,
}

/// What became of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It has been silent for too long.
    Missing,
    /// There is data again.
    Back,
}

/// The beginning or the end of a silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRecord {
    /// Whose.
    pub device: Arc<str>,
    /// Of which field, by its number; `None` if devices are watched.
    pub field: Option<u32>,
    /// Whether it begins or ends.
    pub state: State,
    /// When there was data last, in record time.
    pub since: i64,
    /// When the silence had lasted long enough, or ended, in record time.
    pub at: i64,
}

impl MissingRecord {
    /// How long there was nothing, in microseconds; not below zero.
    pub fn silent(&self) -> i64 {
        self.at.saturating_sub(self.since).max(0)
    }
}

/// How much is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Series that are watched.
    pub watched: usize,
    /// Those of them that are missing.
    pub missing: usize,
    /// Times that a series had data and was not watched since there were too many. Since the start.
    pub refused: u64,
    /// Series that were silent for so long that they were forgotten. Since the start.
    pub forgotten: u64,
}

/// The series that are watched.
#[derive(Debug)]
pub struct Missing {
    spec: MissingSpec,
    hasher: DefaultHashBuilder,
    /// Slots by the hashes of their devices' names.
    index: HashTable<u32>,
    slots: Vec<Slot>,
    /// Slots without a device.
    free: Vec<u32>,
    deadlines: Deadlines,
    /// Slots that may have changed since [`Missing::changed`], each once.
    listed: Vec<u32>,
    /// Devices that were saved, and are gone since.
    gone: Vec<Arc<str>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Slot {
    device: Option<Device>,
    /// Whether it is in [`Missing::listed`].
    is_listed: bool,
}

impl Missing {
    /// A watch that has seen nothing yet.
    pub fn new(spec: MissingSpec) -> Result<Self, MissingError> {
        let after = spec.after;
        if after <= 0 {
            return Err(MissingError::After(after));
        }
        if let Some(forget_after) = spec.forget_after
            && forget_after <= after
        {
            return Err(MissingError::Forgotten {
                after,
                forget_after,
            });
        }
        if spec.watch == Watch::Fields(0) {
            return Err(MissingError::NoFields);
        }
        Ok(Self {
            spec,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            deadlines: Deadlines::default(),
            listed: Vec::new(),
            gone: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// Takes what a record has of a device. If fields are watched, `present` tells of each by its
    /// number whether any row had a value; else it is not looked at. Record time does not go back
    /// but by [`Missing::clock_stepped`].
    pub fn push(
        &mut self,
        device: &str,
        present: &[bool],
        record_time: i64,
        out: &mut Vec<MissingRecord>,
    ) {
        let present = match self.spec.watch {
            Watch::Device => &[true][..],
            Watch::Fields(count) => present.get(..count as usize).unwrap_or(present),
        };
        let mut slot = self.find(device);
        for (field, _) in (0_u32..)
            .zip(present)
            .filter(|(_, is_present)| **is_present)
        {
            // What was due before is told first.
            if let Some(slot) = slot {
                self.settle(slot, field, record_time, out);
            }
            // The last of its series may have been forgotten, and the device with it.
            slot = slot.filter(|slot| self.device(*slot).is_some());
            slot = self.seen(slot, device, field, record_time, out);
        }
        self.drop_stale();
    }

    /// A series has data. Returns the device's slot, if it has one (now).
    fn seen(
        &mut self,
        slot: Option<u32>,
        device: &str,
        field: u32,
        record_time: i64,
        out: &mut Vec<MissingRecord>,
    ) -> Option<u32> {
        let is_watched = slot
            .and_then(|slot| self.device(slot))
            .is_some_and(|known| known.get(field).is_some());
        if !is_watched && self.counters.watched >= self.spec.limit {
            self.counters.refused = self.counters.refused.saturating_add(1);
            return slot;
        }
        let slot = match slot {
            Some(slot) => slot,
            None => self.occupy(Device::new(device))?,
        };
        let spec = self.spec;
        let known = self.slots.get_mut(slot as usize)?.device.as_mut()?;
        if is_watched {
            let name = Arc::clone(&known.name);
            let series = known.get_mut(field)?;
            if series.is_missing {
                series.is_missing = false;
                self.counters.missing = self.counters.missing.saturating_sub(1);
                out.push(MissingRecord {
                    device: name,
                    field: spec.field(field),
                    state: State::Back,
                    since: series.seen,
                    at: record_time,
                });
                series.seen = record_time;
            } else {
                series.seen = series.seen.max(record_time);
            }
        } else {
            known.insert(Series::new(field, record_time));
            self.counters.watched += 1;
        }
        if let Some(series) = known.get_mut(field) {
            self.deadlines.schedule(slot, series, &spec);
        }
        self.list(slot);
        Some(slot)
    }

    /// Tells what is missing as of a record time. Costs nothing if nothing can be.
    pub fn advance(&mut self, record_time: i64, out: &mut Vec<MissingRecord>) {
        let begin = out.len();
        while let Some((slot, field, at)) = self.deadlines.pop(record_time) {
            let series = self
                .slots
                .get_mut(slot as usize)
                .and_then(|slot| slot.device.as_mut()?.get_mut(field));
            // What was put off since, or forgotten, has left its old deadline behind.
            let Some(series) = series.filter(|series| series.scheduled == Some(at)) else {
                continue;
            };
            series.scheduled = None;
            self.settle(slot, field, record_time, out);
            let spec = self.spec;
            if let Some(device) = self.slots.get_mut(slot as usize)
                && let Some(series) = device.device.as_mut().and_then(|d| d.get_mut(field))
            {
                self.deadlines.schedule(slot, series, &spec);
            }
        }
        // By what they tell, since slots are dealt out anew by a restart.
        if let Some(new) = out.get_mut(begin..) {
            new.sort_unstable_by(|a, b| {
                (a.at, &a.device, a.field).cmp(&(b.at, &b.device, b.field))
            });
        }
        self.drop_stale();
    }

    /// Brings a series to a record time: missing, or forgotten.
    fn settle(&mut self, slot: u32, field: u32, record_time: i64, out: &mut Vec<MissingRecord>) {
        let spec = self.spec;
        let Some(device) = self
            .slots
            .get_mut(slot as usize)
            .and_then(|slot| slot.device.as_mut())
        else {
            return;
        };
        let Some(series) = device.get(field).copied() else {
            return;
        };
        let missing_at = series.seen.saturating_add(spec.after);
        if !series.is_missing && missing_at <= record_time {
            if let Some(series) = device.get_mut(field) {
                series.is_missing = true;
            }
            out.push(MissingRecord {
                device: Arc::clone(&device.name),
                field: spec.field(field),
                state: State::Missing,
                since: series.seen,
                at: missing_at,
            });
            self.counters.missing += 1;
            self.list(slot);
        }
        if let Some(forget_after) = spec.forget_after
            && series.seen.saturating_add(forget_after) <= record_time
        {
            self.forget(slot, field);
        }
    }

    /// Ends the watch of a series that is missing.
    fn forget(&mut self, slot: u32, field: u32) {
        self.list(slot);
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(device) = &mut place.device else {
            return;
        };
        if device.remove(field) {
            self.counters.watched = self.counters.watched.saturating_sub(1);
            self.counters.missing = self.counters.missing.saturating_sub(1);
            self.counters.forgotten = self.counters.forgotten.saturating_add(1);
        }
        if device.is_empty()
            && let Some(device) = place.device.take()
        {
            let hash = self.hasher.hash_one(&*device.name);
            if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
            self.free.push(slot);
            if device.is_saved {
                self.gone.push(device.name);
            }
        }
    }

    /// The engine's clock was put to `record_time`, forward or back: all silences of what is not
    /// missing are counted from there on, since how long they were is not known. What is missing
    /// stays so.
    pub fn clock_stepped(&mut self, record_time: i64) {
        for place in &mut self.slots {
            for series in place.device.iter_mut().flat_map(Device::series_mut) {
                if !series.is_missing {
                    series.seen = record_time;
                }
            }
        }
        for slot in 0..self.slots.len() {
            self.list(slot as u32);
        }
        self.reschedule();
    }

    /// No deadline is earlier than this record time; `None` if there is none. It can be earlier
    /// than the first deadline, by what data has put off.
    pub fn next_deadline(&self) -> Option<i64> {
        self.deadlines.first()
    }

    /// How much is watched.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn find(&self, device: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(device);
        let found = self.index.find(hash, |slot| {
            self.device(*slot)
                .is_some_and(|known| &*known.name == device)
        });
        found.copied()
    }

    fn device(&self, slot: u32) -> Option<&Device> {
        self.slots.get(slot as usize)?.device.as_ref()
    }

    /// Gives a device a slot; `None` if there are 2³² already.
    fn occupy(&mut self, device: Device) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot::default());
                slot
            }
        };
        let hash = self.hasher.hash_one(&*device.name);
        self.slots.get_mut(slot as usize)?.device = Some(device);
        let (hasher, slots) = (&self.hasher, &self.slots);
        self.index.insert_unique(hash, slot, |other| {
            let place = slots.get(*other as usize);
            let device = place.and_then(|place| place.device.as_ref());
            device.map_or(0, |device| hasher.hash_one(&*device.name))
        });
        Some(slot)
    }

    /// Notes that a slot may have changed.
    fn list(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(slot as usize)
            && !place.is_listed
        {
            place.is_listed = true;
            self.listed.push(slot);
        }
    }

    /// Makes the deadlines anew if most of them are of no more use.
    fn drop_stale(&mut self) {
        if self.deadlines.len() > 2 * self.counters.watched + 64 {
            self.reschedule();
        }
    }

    fn reschedule(&mut self) {
        self.deadlines = Deadlines::default();
        for (slot, place) in (0_u32..).zip(&mut self.slots) {
            for series in place.device.iter_mut().flat_map(Device::series_mut) {
                series.scheduled = None;
                self.deadlines.schedule(slot, series, &self.spec);
            }
        }
    }
}

impl MissingSpec {
    /// A series' number as the field that a record tells.
    const fn field(&self, field: u32) -> Option<u32> {
        match self.watch {
            Watch::Device => None,
            Watch::Fields(_) => Some(field),
        }
    }

    /// When something is to become of a series next.
    fn deadline(&self, series: &Series) -> Option<i64> {
        let silent = if series.is_missing {
            self.forget_after?
        } else {
            self.after
        };
        Some(series.seen.saturating_add(silent))
    }
}

#[cfg(test)]
mod tests;
