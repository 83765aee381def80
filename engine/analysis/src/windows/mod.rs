//! Windows over rows.
//!
//! ```text
//! rows ─▶ judge (time.rs) ─▶ place: which pane? ─▶ runs ─▶ fold into blocks (cells/) ─▶ results
//!            │                  │                    ▲              │
//!            │ watermark        │ due                │ settle:      │ emit, merge, free:
//!            ▼                  ▼                    │ rows first   │ in the order decided
//!        late rows           close ───── actions ────┴──────────────┘
//!                               ▲
//!         tick ─▶ deadlines ────┘
//! ```
//!
//! Rows are judged, placed and their consequences decided one by one; the arithmetic follows for
//! many rows at once. What was decided for a row concerns panes to which no later row can come, so
//! the order of the arithmetic within a batch does not show; where it would (sessions that become
//! one, windows that are revised), what came before is settled first.
//!
//! What is known of the future is one event time for each device, its **horizon**: the watermark,
//! or the time up to which record time has closed its windows, if that is later. Everything that is
//! due at or before the horizon has been done.

mod close;
mod deadlines;
mod keys;
mod output;
mod panes;
mod place;
mod rows;
mod save;
mod sessions;
mod settle;
mod track;

use std::sync::Arc;

pub use output::{Closed, Late, Output};
pub use rows::{Rows, RowsError};
pub use save::Changed;

use crate::{
    cells::{Blocks, Column, Layout},
    spec::{Key, SpecError, WindowSpec},
    time::LateReason,
    windows::{
        close::Action,
        deadlines::Deadlines,
        keys::{Clock, KeyState, Numbers},
        panes::{NONE, Open, Panes},
        place::Placed,
        track::{Shape, Track},
    },
};

/// Rows whose arithmetic is done at once: their blocks should fit into a core's cache.
const CHUNK: usize = 1_024;
/// No times for which rows go the way of the one before.
const NO_STRETCH: (i64, i64) = (0, 0);
/// Event times that windows are made of: years 1 to 9999.
const TIMES: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;
/// What a device or key is taken to need beside its panes and its text, in bytes.
const KEY_BYTES: usize = 128;

/// What happened so far, since [`Windows::new`]; not saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows pushed.
    pub rows: u64,
    /// Rows that arrived too late.
    pub late_arrival: u64,
    /// Rows too far behind their device's watermark.
    pub out_of_order: u64,
    /// Windows that rows missed because record time had closed them.
    pub window_closed: u64,
    /// Rows too far ahead of their arrival.
    pub early: u64,
    /// Rows whose time is outside of years 1 to 9999.
    pub out_of_range: u64,
    /// Rows, or windows of rows, for which there was no room.
    pub limit: u64,
    /// First results of windows.
    pub closed: u64,
    /// Further results of windows.
    pub revisions: u64,
    /// Sums and differences of integers that were out of range: their results are null.
    pub overflows: u64,
}

/// What the state takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Devices that have a watermark.
    pub devices: usize,
    /// Keys that have an open window.
    pub keys: usize,
    /// Open windows, sessions and panes, and rows that wait for their turn.
    pub panes: usize,
    /// Bytes, as [`Limits::bytes`](crate::Limits::bytes) counts them.
    pub bytes: usize,
}

/// Windows over the rows of one node: of all devices, or those of some partitions.
#[derive(Clone, Debug)]
pub struct Windows {
    spec: WindowSpec,
    layout: Arc<Layout>,
    devices: Numbers,
    clocks: Vec<Clock>,
    /// Texts of keys; those of the devices, if these are the keys, are in `devices`.
    texts: Numbers,
    keys: Vec<KeyState>,
    /// By key, and then by track.
    opens: Vec<Open>,
    tracks: Vec<Track>,
    deadlines: Deadlines,
    /// What is to be done when the rows at hand are folded.
    actions: Vec<Action>,
    /// Keys that may have lost their last pane.
    emptied: Vec<u32>,
    /// Windows that were revised since the last tick: key, track, start.
    revised: Vec<(u32, usize, i64)>,
    dirty_keys: Vec<u32>,
    dirty_devices: Vec<u32>,
    /// Keys that were saved, maybe, and are no more.
    gone: Vec<Box<[u8]>>,
    /// The time of the last tick or record.
    record_time: i64,
    /// The event time up to which record time has closed windows of several devices.
    floor: i64,
    /// How long after its end a window closes by record time.
    wait: i64,
    usage: Usage,
    counters: Counters,
    /// Numbers of the batch's devices, by their numbers in the batch; `NONE` where not known yet.
    names: Vec<u32>,
    /// Those of the batch before: who sends again and again names its devices in the same order.
    guesses: Vec<u32>,
    scratch: Vec<u8>,
    /// Event times for which a row of the device and key of the last one goes to the same panes;
    /// none if the first is not before the second.
    stretch: (i64, i64),
}

/// The rows at hand.
pub(crate) struct Batch<'a> {
    rows: &'a Rows<'a>,
    columns: &'a [Column<'a>],
}

impl Windows {
    /// Windows without rows.
    ///
    /// # Errors
    /// What is wrong with the definition.
    pub fn new(spec: WindowSpec) -> Result<Self, SpecError> {
        spec.check()?;
        let layout = Arc::new(Layout::new(&spec)?);
        let mut tracks = Vec::with_capacity(spec.kinds.len());
        for kind in &spec.kinds {
            tracks.push(Track {
                shape: Shape::new(kind, &spec)?,
                panes: Panes::default(),
                blocks: Blocks::new(Arc::clone(&layout)),
                runs: Vec::new(),
                lengthened: None,
            });
        }
        Ok(Self {
            wait: spec.time.wait(spec.key.has_device()),
            spec,
            layout,
            devices: Numbers::default(),
            clocks: Vec::new(),
            texts: Numbers::default(),
            keys: Vec::new(),
            opens: Vec::new(),
            tracks,
            deadlines: Deadlines::default(),
            actions: Vec::new(),
            emptied: Vec::new(),
            revised: Vec::new(),
            dirty_keys: Vec::new(),
            dirty_devices: Vec::new(),
            gone: Vec::new(),
            record_time: i64::MIN,
            floor: i64::MIN,
            usage: Usage::default(),
            counters: Counters::default(),
            names: Vec::new(),
            guesses: Vec::new(),
            scratch: Vec::new(),
            stretch: NO_STRETCH,
        })
    }

    /// What the windows were made of.
    pub const fn spec(&self) -> &WindowSpec {
        &self.spec
    }

    /// A place for what comes out.
    pub fn output(&self) -> Output {
        Output::new(self.spec.key, &self.layout)
    }

    /// What happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What the state takes.
    pub fn usage(&self) -> Usage {
        let panes = self.opens.iter().map(|open| open.count as usize).sum();
        Usage {
            devices: self.devices.len(),
            panes,
            ..self.usage
        }
    }

    /// A device's watermark, in event time; `None` before its first row in time.
    pub fn watermark(&self, device: &str) -> Option<i64> {
        let number = self.devices.find(device.as_bytes())?;
        let latest = self.clocks.get(number as usize)?.latest;
        (latest != i64::MIN).then(|| self.spec.time.watermark(latest))
    }

    /// The least and the greatest watermark of all devices, in event time; `None` before the first
    /// row. Looks at every device.
    pub fn watermarks(&self) -> Option<(i64, i64)> {
        let known = self.clocks.iter().map(|clock| clock.latest);
        let known = known.filter(|latest| *latest != i64::MIN);
        let ends = known.fold(None, |ends: Option<(i64, i64)>, latest| {
            let (least, most) = ends.unwrap_or((latest, latest));
            Some((least.min(latest), most.max(latest)))
        });
        let policy = &self.spec.time;
        ends.map(|(least, most)| (policy.watermark(least), policy.watermark(most)))
    }

    /// Takes the rows of one record. Windows close as the rows' watermarks say; record time closes
    /// nothing here, but by [`Self::advance`].
    ///
    /// # Errors
    /// The rows do not fit the definition; then none was taken.
    pub fn push(
        &mut self,
        rows: &Rows<'_>,
        record_time: i64,
        out: &mut Output,
    ) -> Result<(), RowsError> {
        let columns = rows.columns(&self.spec)?;
        let batch = Batch {
            rows,
            columns: &columns,
        };
        self.record_time = record_time;
        let names = rows.device_names().map_or(0, arrow_array::Array::len);
        std::mem::swap(&mut self.names, &mut self.guesses);
        self.names.clear();
        self.names.resize(names, NONE);
        let mut from = 0;
        while from < rows.ts.len() {
            let to = rows.ts.len().min(from + CHUNK);
            let mut row = from;
            while row < to {
                self.push_row(&batch, row, out);
                row += 1;
                if self.stretch.0 < self.stretch.1 {
                    row = self.push_alike(rows, row, to);
                }
            }
            self.settle(Some(&batch), out);
            self.forget_emptied();
            from = to;
        }
        Ok(())
    }

    /// Takes the rows from one on that go the way of the one before it, up to `to` or the first that
    /// does not; gives back the number of that.
    #[inline]
    fn push_alike(&mut self, rows: &Rows<'_>, from: usize, to: usize) -> usize {
        let number = rows.device_number(from - 1);
        let Some(device) = self.names.get(number) else {
            return from;
        };
        let (policy, (start, end)) = (self.spec.time, self.stretch);
        let clock = &mut self.clocks[*device as usize];
        let (mut latest, due) = (clock.latest, clock.due);
        let numbers = rows.device.keys().values();
        let own = numbers.get(from - 1);
        let ahead = rows.ts.iter().zip(rows.arrival).zip(numbers.iter());
        let mut last = i64::MIN;
        let mut row = from;
        for ((ts, arrival), number) in ahead.take(to).skip(from) {
            let moved = latest.max(*ts);
            if Some(number) != own
                || !(start..end).contains(ts)
                || policy
                    .judge(*ts, *arrival, policy.watermark(latest))
                    .is_some()
                || policy.watermark(moved) >= due
            {
                break;
            }
            latest = moved;
            last = last.max(*ts);
            row += 1;
        }
        if row == from {
            return row;
        }
        clock.latest = latest;
        self.counters.rows += (row - from) as u64;
        for number in 0..self.tracks.len() {
            let track = &mut self.tracks[number];
            if let Some(run) = track.runs.last_mut() {
                // Fewer rows than a chunk has.
                run.to += u32::try_from(row - from).unwrap_or_default();
            }
            if let Some(placed) = track.lengthened {
                self.lengthen(Placed { ts: last, ..placed });
            }
        }
        row
    }

    #[inline]
    fn push_row(&mut self, batch: &Batch<'_>, row: usize, out: &mut Output) {
        self.counters.rows += 1;
        self.stretch = NO_STRETCH;
        let rows = batch.rows;
        let (Some(ts), Some(arrival)) = (rows.ts.get(row), rows.arrival.get(row)) else {
            return;
        };
        let (ts, arrival) = (*ts, *arrival);
        if !TIMES.contains(&ts) {
            for kind in 0..self.tracks.len() {
                let reason = LateReason::OutOfRange;
                refuse(&mut self.counters, out, row, kind, reason, (ts, ts));
            }
            return;
        }
        let Some(device) = self.device(rows, row) else {
            self.refuse_all(row, ts, LateReason::Limit, out);
            return;
        };
        let policy = self.spec.time;
        let record_time = self.record_time;
        let clock = &mut self.clocks[device as usize];
        if let Some(reason) = policy.judge(ts, arrival, policy.watermark(clock.latest)) {
            if reason == LateReason::Early || !self.revises() {
                self.refuse_all(row, ts, reason, out);
            } else {
                self.place(batch, row, ts, device, Some(reason), out);
            }
            return;
        }
        clock.seen = record_time;
        if ts > clock.latest {
            clock.latest = ts;
            let horizon = policy.watermark(ts).max(clock.floor);
            if horizon >= clock.due {
                self.close_device(device, horizon);
            }
        }
        self.touch_device(device);
        if self.spec.key.columns() == 0 {
            self.stretch = (TIMES.start, TIMES.end);
        }
        self.place(batch, row, ts, device, None, out);
    }

    /// Says for which times the row at hand went to a pane.
    #[inline]
    fn narrow_stretch(&mut self, start: i64, end: i64) {
        self.stretch = (self.stretch.0.max(start), self.stretch.1.min(end));
    }

    /// Whether late rows change what was put out.
    const fn revises(&self) -> bool {
        matches!(self.spec.emit, crate::spec::Emit::Update { .. })
    }

    /// The number of a row's device; `None` if it is new and there is no room.
    #[inline]
    fn device(&mut self, rows: &Rows<'_>, row: usize) -> Option<u32> {
        let number = rows.device_number(row);
        let known = *self.names.get(number)?;
        if known != NONE {
            return Some(known);
        }
        let name = rows.device_names()?.value(number).as_bytes();
        // Devices are not forgotten: what was guessed is right if the name is.
        let guess = self.guesses.get(number).copied().unwrap_or(NONE);
        let device = if self.devices.is(guess, name) {
            guess
        } else {
            match self.devices.find(name) {
                Some(device) => device,
                None => self.new_device(name)?,
            }
        };
        if let Some(place) = self.names.get_mut(number) {
            *place = device;
        }
        Some(device)
    }

    fn new_device(&mut self, name: &[u8]) -> Option<u32> {
        let limits = &self.spec.limits;
        let bytes = KEY_BYTES + name.len();
        if self.devices.len() >= limits.keys || self.usage.bytes + bytes > limits.bytes {
            return None;
        }
        let device = self.add_device(name);
        // It counts from now on, after a restart, too.
        self.touch_device(device);
        Some(device)
    }

    fn add_device(&mut self, name: &[u8]) -> u32 {
        self.usage.bytes += KEY_BYTES + name.len();
        let device = self.devices.add(name);
        self.clocks.push(Clock::NEW);
        if self.spec.key == Key::Device {
            self.add_key_state(device, device);
        }
        device
    }

    fn add_key_state(&mut self, key: u32, device: u32) {
        let tracks = self.tracks.len();
        let len = key as usize + 1;
        if self.keys.len() < len {
            self.keys.resize(len, KeyState::new(NONE));
            self.opens.resize(len * tracks, Open::NOTHING);
        }
        let mut state = KeyState::new(device);
        if let Some(clock) = self.clocks.get_mut(device as usize) {
            state.next = clock.keys;
            clock.keys = key;
        }
        self.keys[key as usize] = state;
    }

    /// A key's text.
    fn key_text(&self, key: u32) -> &[u8] {
        if self.spec.key == Key::Device {
            self.devices.text(key)
        } else {
            self.texts.text(key)
        }
    }

    /// The event time up to which everything of a device (or, if windows are of several, of a key)
    /// has been done.
    fn horizon(&self, device: u32) -> i64 {
        match self.clocks.get(device as usize) {
            Some(clock) if self.spec.key.has_device() => {
                self.spec.time.watermark(clock.latest).max(clock.floor)
            }
            _ => self.floor,
        }
    }

    /// The event time up to which record time has closed windows.
    #[inline]
    fn floor(&self, device: u32) -> i64 {
        match self.clocks.get(device as usize) {
            Some(clock) if self.spec.key.has_device() => clock.floor,
            _ => self.floor,
        }
    }

    #[inline]
    fn touch_device(&mut self, device: u32) {
        if self.spec.key == Key::Device {
            self.touch_key(device);
            return;
        }
        let clock = &mut self.clocks[device as usize];
        if !clock.is_dirty {
            clock.is_dirty = true;
            self.dirty_devices.push(device);
        }
    }

    #[inline]
    fn touch_key(&mut self, key: u32) {
        let state = &mut self.keys[key as usize];
        if !state.is_dirty {
            state.is_dirty = true;
            self.dirty_keys.push(key);
        }
    }

    fn refuse_all(&mut self, row: usize, ts: i64, reason: LateReason, out: &mut Output) {
        for kind in 0..self.tracks.len() {
            let (start, end) = self.tracks[kind].shape.missed(ts);
            refuse(&mut self.counters, out, row, kind, reason, (start, end));
        }
    }
}

/// Puts out a row as late. A row counts once for its judgement, and once for each kind whose
/// window it missed.
fn refuse(
    counters: &mut Counters,
    out: &mut Output,
    row: usize,
    kind: usize,
    reason: LateReason,
    (start, end): (i64, i64),
) {
    let counter = match reason {
        LateReason::LateArrival => &mut counters.late_arrival,
        LateReason::OutOfOrder => &mut counters.out_of_order,
        LateReason::WindowClosed => &mut counters.window_closed,
        LateReason::Early => &mut counters.early,
        LateReason::OutOfRange => &mut counters.out_of_range,
        LateReason::Limit => &mut counters.limit,
    };
    *counter += 1;
    // Rows of a batch and kinds are fewer.
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    out.late.push(Late {
        row: number(row),
        kind: number(kind),
        reason,
        start,
        end,
    });
}

#[cfg(test)]
mod tests;
