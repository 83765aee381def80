//! Which panes a row belongs to.

use crate::{
    spec::Key,
    time::LateReason,
    windows::{
        Batch, KEY_BYTES, NO_STRETCH, Output, Windows,
        keys::write_text,
        panes::{CLOSED, CLOSES, NONE, OPENS, Open, Pane, REVISED, WAITS},
        refuse,
        rows::holds,
        track::Shape,
    },
};

/// A row on its way to its panes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) row: usize,
    pub(crate) ts: i64,
    pub(crate) key: u32,
    pub(crate) device: u32,
    pub(crate) track: usize,
    /// Why it is late, if it is: it may go to windows that can be revised.
    pub(crate) late: Option<LateReason>,
}

impl Placed {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rows are counted in 32 bits"
    )]
    pub(crate) const fn number(&self) -> u32 {
        self.row as u32
    }
}

impl Windows {
    /// Takes a row to the panes of its key.
    #[inline]
    pub(crate) fn place(
        &mut self,
        batch: &Batch<'_>,
        row: usize,
        ts: i64,
        device: u32,
        late: Option<LateReason>,
        out: &mut Output,
    ) {
        let key = self.key(batch, row, device);
        for track in 0..self.tracks.len() {
            let placed = Placed {
                row,
                ts,
                key,
                device,
                track,
                late,
            };
            match self.tracks[track].shape {
                Shape::Windows { overlap: false, .. } => self.place_window(batch, placed, out),
                Shape::Hops { every, size, .. } => self.place_hop(placed, every, size, out),
                Shape::Windows { overlap: true, .. } => self.place_windows(batch, placed, out),
                Shape::Sliding { .. } => self.place_sliding(placed, out),
                Shape::Session { gap, max } => self.place_session(batch, placed, gap, max, out),
                Shape::State { .. } => self.place_state(batch, placed, out),
            }
            if !self.tracks[track].shape.has_stretches() {
                self.stretch = NO_STRETCH;
            }
        }
        self.touch_key(key);
        if self.keys[key as usize].panes == 0 {
            self.emptied.push(key);
        }
    }

    /// The number of a row's key.
    #[inline]
    fn key(&mut self, batch: &Batch<'_>, row: usize, device: u32) -> u32 {
        if self.spec.key == Key::Device {
            return device;
        }
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        if self.spec.key.has_device() {
            let name = std::str::from_utf8(self.devices.text(device)).ok();
            write_text(name, &mut text);
        }
        batch.rows.write_key(row, &mut text);
        let key = match self.texts.find(&text) {
            Some(key) => key,
            None => self.add_key(&text, device),
        };
        self.scratch = text;
        key
    }

    /// Gives a number to a key that is new. Its device, if it has one, knows it from then on.
    pub(crate) fn add_key(&mut self, text: &[u8], device: u32) -> u32 {
        let key = self.texts.add(text);
        let device = if self.spec.key.has_device() {
            device
        } else {
            NONE
        };
        self.add_key_state(key, device);
        key
    }

    /// What a pane counts, in bytes.
    pub(crate) fn pane_bytes(&self) -> usize {
        size_of::<Pane>() + self.layout.bytes
    }

    /// What a key with panes counts beside them, in bytes. Devices count always.
    pub(crate) fn key_bytes(&self, key: u32) -> usize {
        match self.spec.key {
            Key::Device => 0,
            _ => KEY_BYTES + self.texts.text(key).len(),
        }
    }

    /// Counts a pane that a key has got.
    pub(crate) fn gain_pane(&mut self, key: u32) {
        if self.keys[key as usize].panes == 0 {
            self.usage.keys += 1;
            self.usage.bytes += self.key_bytes(key);
        }
        self.usage.bytes += self.pane_bytes();
        self.keys[key as usize].panes += 1;
    }

    pub(crate) fn open(&mut self, placed: Placed) -> &mut Open {
        let tracks = self.tracks.len();
        &mut self.opens[placed.key as usize * tracks + placed.track]
    }

    pub(crate) fn refuse(
        &mut self,
        placed: Placed,
        reason: LateReason,
        window: (i64, i64),
        out: &mut Output,
    ) {
        let reason = placed.late.unwrap_or(reason);
        self.stretch = NO_STRETCH;
        let counters = &mut self.counters;
        refuse(counters, out, placed.row, placed.track, reason, window);
    }

    /// Adds a pane and takes the row into it; `None` if there is no room.
    pub(crate) fn add_pane(&mut self, placed: Placed, pane: Pane) -> Option<u32> {
        let limits = self.spec.limits;
        let is_new = self.keys[placed.key as usize].panes == 0;
        let bytes = self.pane_bytes()
            + if is_new {
                self.key_bytes(placed.key)
            } else {
                0
            };
        let mut open = *self.open(placed);
        if open.count as usize >= limits.windows
            || self.usage.bytes + bytes > limits.bytes
            || (is_new && self.usage.keys >= limits.keys)
        {
            return None;
        }
        self.gain_pane(placed.key);
        let horizon = self.horizon(placed.device);
        let track = &mut self.tracks[placed.track];
        let block = track.blocks.allocate();
        track.assign(block, placed.number());
        let pane = Pane { block, ..pane };
        let number = track.panes.insert(&mut open, pane);
        let due = track.shape.due(&pane, horizon);
        *self.open(placed) = open;
        self.note_due(placed, due);
        Some(number)
    }

    /// Sees to it that something is done when it is due.
    pub(crate) fn note_due(&mut self, placed: Placed, due: i64) {
        let open = self.open(placed);
        open.due = open.due.min(due);
        let mut from = due;
        if self.spec.key.has_device() {
            let clock = &mut self.clocks[placed.device as usize];
            clock.due = clock.due.min(due);
            from = from.max(clock.seen);
        }
        self.note_deadline(placed.key, from);
    }

    /// Sees to it that record time comes to a key's turn the wait after a time.
    pub(crate) fn note_deadline(&mut self, key: u32, from: i64) {
        if from == i64::MAX {
            return;
        }
        let deadline = from.saturating_add(self.wait);
        let state = &mut self.keys[key as usize];
        if deadline < state.queued {
            state.queued = deadline;
            self.deadlines.push(deadline, key);
        }
    }

    /// A row of windows that do not overlap.
    #[inline]
    fn place_window(&mut self, batch: &Batch<'_>, placed: Placed, out: &mut Output) {
        let ts = placed.ts;
        let open = *self.open(placed);
        let track = &mut self.tracks[placed.track];
        let mut at = open.head;
        while let Some(pane) = track.panes.get(at).filter(|pane| pane.end > ts) {
            if pane.start <= ts {
                if pane.is(CLOSED) {
                    let (start, end) = (pane.start, pane.end);
                    self.revise(batch, placed, start, end, out);
                } else {
                    let (start, end, block) = (pane.start, pane.end, pane.block);
                    track.assign(block, placed.number());
                    self.narrow_stretch(start, end);
                }
                return;
            }
            at = pane.older;
        }
        let (start, end) = track.shape.missed(ts);
        self.place_new_window(batch, placed, start, end, out);
    }

    /// A row of windows that overlap: to each of them.
    fn place_windows(&mut self, batch: &Batch<'_>, placed: Placed, out: &mut Output) {
        let Shape::Windows { grid, .. } = &self.tracks[placed.track].shape else {
            return;
        };
        let mut windows = Vec::new();
        let mut start = grid.last_start(placed.ts);
        loop {
            let end = grid.end(start);
            if end <= placed.ts || windows.len() > self.spec.limits.windows {
                break;
            }
            windows.push((start, end));
            start = grid.previous(start);
        }
        // Of those that it missed, one is told: the last.
        let said = out.late.len();
        for (start, end) in windows {
            let open = *self.open(placed);
            let track = &mut self.tracks[placed.track];
            let found = track.panes.find(&open, start);
            match found.and_then(|pane| track.panes.get(pane).copied()) {
                Some(pane) if pane.is(CLOSED) => self.revise(batch, placed, start, end, out),
                Some(pane) => track.assign(pane.block, placed.number()),
                None => self.place_new_window(batch, placed, start, end, out),
            }
        }
        out.late.truncate(said + 1);
    }

    /// A row of a window that is not open.
    fn place_new_window(
        &mut self,
        batch: &Batch<'_>,
        placed: Placed,
        start: i64,
        end: i64,
        out: &mut Output,
    ) {
        if let Shape::Windows {
            retain: Some(_), ..
        } = self.tracks[placed.track].shape
            && end <= self.horizon(placed.device)
        {
            self.revise(batch, placed, start, end, out);
            return;
        }
        if end <= self.floor(placed.device) {
            self.refuse(placed, LateReason::WindowClosed, (start, end), out);
            return;
        }
        if self.add_pane(placed, Pane::new(start, end, 0)).is_none() {
            self.refuse(placed, LateReason::Limit, (start, end), out);
        } else {
            self.narrow_stretch(start, end);
        }
    }

    /// A row of a window that has closed: taken if the window is retained.
    fn revise(
        &mut self,
        batch: &Batch<'_>,
        placed: Placed,
        start: i64,
        end: i64,
        out: &mut Output,
    ) {
        let retain = match self.tracks[placed.track].shape {
            Shape::Windows { retain, .. } => retain.unwrap_or(0),
            _ => 0,
        };
        if end.saturating_add(retain) <= self.horizon(placed.device) {
            self.refuse(placed, LateReason::WindowClosed, (start, end), out);
            return;
        }
        self.stretch = NO_STRETCH;
        // What was put out of it must not know of this row.
        self.settle(Some(batch), out);
        let open = *self.open(placed);
        let track = &mut self.tracks[placed.track];
        let pane = match track.panes.find(&open, start) {
            Some(pane) => {
                if let Some(pane) = track.panes.get(pane).copied() {
                    track.assign(pane.block, placed.number());
                }
                pane
            }
            None => {
                let mut pane = Pane::new(start, end, 0);
                pane.flags = CLOSED;
                match self.add_pane(placed, pane) {
                    Some(pane) => pane,
                    None => {
                        self.refuse(placed, LateReason::Limit, (start, end), out);
                        return;
                    }
                }
            }
        };
        if let Some(pane) = self.tracks[placed.track].panes.get_mut(pane)
            && !pane.is(REVISED)
        {
            pane.flags |= REVISED;
            self.revised.push((placed.key, placed.track, start));
        }
    }

    /// A row of hopping windows: to the one pane they have in common.
    fn place_hop(&mut self, placed: Placed, every: i64, size: i64, out: &mut Output) {
        let start = placed.ts - placed.ts.rem_euclid(every);
        let floor = self.floor(placed.device);
        // The windows that hold the pane end from `start + every` to `start + size`.
        if start.saturating_add(every) <= floor {
            let last = start
                .saturating_add(size)
                .min(floor - floor.rem_euclid(every));
            let missed = (last.saturating_sub(size), last);
            self.refuse(placed, LateReason::WindowClosed, missed, out);
            if start.saturating_add(size) <= floor {
                return;
            }
        }
        self.place_at(placed, start, start.saturating_add(every), out);
    }

    /// A row of sliding windows: to the pane of its time.
    fn place_sliding(&mut self, placed: Placed, out: &mut Output) {
        if placed.ts < self.floor(placed.device) {
            let window = self.tracks[placed.track].shape.missed(placed.ts);
            self.refuse(placed, LateReason::WindowClosed, window, out);
            return;
        }
        self.place_at(placed, placed.ts, placed.ts.saturating_add(1), out);
    }

    /// Takes a row to the pane that starts at a time.
    fn place_at(&mut self, placed: Placed, start: i64, end: i64, out: &mut Output) {
        let open = *self.open(placed);
        let track = &mut self.tracks[placed.track];
        let mut at = open.head;
        while let Some(pane) = track.panes.get(at).filter(|pane| pane.start >= start) {
            if pane.start == start {
                let block = pane.block;
                track.assign(block, placed.number());
                self.narrow_stretch(start, end);
                return;
            }
            at = pane.older;
        }
        if self.add_pane(placed, Pane::new(start, end, 0)).is_none() {
            let window = self.tracks[placed.track].shape.missed(placed.ts);
            self.refuse(placed, LateReason::Limit, window, out);
        } else {
            self.narrow_stretch(start, end);
        }
    }

    /// A row that waits until those before it are known.
    fn place_state(&mut self, batch: &Batch<'_>, placed: Placed, out: &mut Output) {
        let ts = placed.ts;
        let window = (ts, ts.saturating_add(1));
        if ts < self.floor(placed.device) {
            self.refuse(placed, LateReason::WindowClosed, window, out);
            return;
        }
        let mut pane = Pane::new(ts, ts, 0);
        pane.flags = WAITS;
        if holds(batch.rows.open, placed.row) {
            pane.flags |= OPENS;
        }
        if holds(batch.rows.close, placed.row) {
            pane.flags |= CLOSES;
        }
        if self.add_pane(placed, pane).is_none() {
            self.refuse(placed, LateReason::Limit, window, out);
        }
    }
}
