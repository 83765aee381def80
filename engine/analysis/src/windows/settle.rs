//! The arithmetic of what was decided.

use crate::windows::{
    Batch, Output, Windows,
    close::{Action, Closing, Emission},
    keys::KeyState,
    panes::{NONE, REVISED},
};

impl Windows {
    /// Folds the rows at hand, then does what is to be done.
    pub(crate) fn settle(&mut self, batch: Option<&Batch<'_>>, out: &mut Output) {
        if let Some(batch) = batch {
            for track in &mut self.tracks {
                if !track.runs.is_empty() {
                    track.blocks.fold(&track.runs, batch.rows.ts, batch.columns);
                    track.runs.clear();
                }
            }
        }
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Merge { track, into, from } => self.tracks[track].blocks.merge(into, from),
                Action::Free { track, block } => self.tracks[track].blocks.free(block),
                Action::Emit(emission) => self.emit(emission, out),
            }
        }
        self.actions = actions;
    }

    fn emit(&mut self, emission: Emission, out: &mut Output) {
        let key = self.key_text(emission.key);
        let bounds = (emission.start, emission.end);
        out.push(bounds, emission.track, emission.revision, key);
        if emission.revision == 0 {
            self.counters.closed += 1;
        } else {
            self.counters.revisions += 1;
        }
        let blocks = &mut self.tracks[emission.track].blocks;
        let overflows = out.results.overflows;
        if emission.others.is_empty() {
            out.push_results(blocks, emission.block, emission.end);
        } else {
            let whole = blocks.allocate();
            for part in std::iter::once(emission.block).chain(emission.others) {
                blocks.merge(whole, part);
            }
            out.push_results(blocks, whole, emission.end);
            blocks.free(whole);
        }
        if emission.is_last {
            blocks.free(emission.block);
        }
        self.counters.overflows += out.results.overflows - overflows;
    }

    /// Forgets keys without panes, no row being on its way to them. Devices are not forgotten: they
    /// have watermarks.
    pub(crate) fn forget_emptied(&mut self) {
        if self.spec.key == crate::spec::Key::Device {
            self.emptied.clear();
            return;
        }
        while let Some(key) = self.emptied.pop() {
            let state = self.keys[key as usize];
            if state.panes > 0 {
                continue;
            }
            let Some(text) = self.texts.remove(key) else {
                continue;
            };
            if state.is_saved {
                self.gone.push(text);
            }
            self.unlink(key, state.device, state.next);
            // What stands in the queue for it is not its successor's, nor is its mark.
            self.keys[key as usize] = KeyState::new(NONE);
        }
    }

    /// Takes a key out of its device's list.
    fn unlink(&mut self, key: u32, device: u32, next: u32) {
        let Some(clock) = self.clocks.get_mut(device as usize) else {
            return;
        };
        if clock.keys == key {
            clock.keys = next;
            return;
        }
        let mut at = clock.keys;
        while at != NONE {
            let other = &mut self.keys[at as usize];
            if other.next == key {
                other.next = next;
                return;
            }
            at = other.next;
        }
    }

    /// Moves record time on: closes windows of silent devices and windows of several devices, and
    /// puts out revised ones. Costs nothing if nothing is due. To be called at times that depend on
    /// the log only, before the rows of the record that brings the time.
    pub fn advance(&mut self, record_time: i64, out: &mut Output) {
        self.record_time = record_time;
        let until = record_time.saturating_sub(self.wait);
        if !self.spec.key.has_device() {
            self.floor = self.floor.max(until);
        }
        if self.revised.is_empty() && self.deadlines.next().is_none_or(|next| next > record_time) {
            return;
        }
        let mut closing = Closing::default();
        self.emit_revised(&mut closing);
        while let Some((deadline, key)) = self.deadlines.pop(record_time) {
            let state = &mut self.keys[key as usize];
            if state.queued != deadline {
                continue;
            }
            state.queued = i64::MAX;
            if self.spec.key.has_device() {
                self.close_idle(key, until, &mut closing);
            } else {
                let due = self.close_key_into(key, self.floor, &mut closing);
                self.note_deadline(key, due);
            }
        }
        self.act(closing);
        self.settle(None, out);
        self.forget_emptied();
    }

    /// Closes what is due of a silent device.
    fn close_idle(&mut self, key: u32, until: i64, closing: &mut Closing) {
        let device = self.keys[key as usize].device;
        let Some(clock) = self.clocks.get(device as usize) else {
            return;
        };
        let seen = clock.seen;
        // What the clock says may be too early, which must not show.
        let due = self.device_due(device);
        let clock = &mut self.clocks[device as usize];
        clock.due = due;
        if due <= until && seen <= until {
            clock.floor = clock.floor.max(until);
            let horizon = self.horizon(device);
            self.close_device_into(device, horizon, closing);
            self.touch_device(device);
        }
        let due = self.key_due(key);
        if due != i64::MAX {
            self.note_deadline(key, due.max(seen));
        }
    }

    /// When something of any key of a device is due.
    fn device_due(&self, device: u32) -> i64 {
        let mut due = i64::MAX;
        let mut key = self.clocks[device as usize].keys;
        while let Some(state) = self.keys.get(key as usize) {
            due = due.min(self.key_due(key));
            key = state.next;
        }
        due
    }

    /// When something of a key is due.
    fn key_due(&self, key: u32) -> i64 {
        let tracks = self.tracks.len();
        let opens = self.opens.iter().skip(key as usize * tracks).take(tracks);
        opens.map(|open| open.due).min().unwrap_or(i64::MAX)
    }

    /// Results of windows to which late rows came since the last tick.
    fn emit_revised(&mut self, closing: &mut Closing) {
        let tracks = self.tracks.len();
        for (key, number, start) in std::mem::take(&mut self.revised) {
            let open = self.opens[key as usize * tracks + number];
            let track = &mut self.tracks[number];
            let found = track.panes.find(&open, start);
            if let Some(pane) = found.and_then(|pane| track.panes.get_mut(pane))
                && pane.is(REVISED)
            {
                closing.results.push(Emission::of(pane, number, key, false));
                pane.flags &= !REVISED;
                pane.revision += 1;
                self.touch_key(key);
            }
        }
    }

    /// When, in record time, [`Self::advance`] will have something to do, at the earliest; `None`
    /// if nothing is open.
    pub fn next_deadline(&self) -> Option<i64> {
        if self.revised.is_empty() {
            self.deadlines.next()
        } else {
            Some(self.record_time)
        }
    }
}
