//! What is to be done at a time: windows whose end was reached are closed, and what is no longer
//! needed is given back.

use crate::windows::{
    Windows,
    panes::{CLOSED, CLOSES, NONE, OPENS, Open, Pane, REVISED, WAITS},
    track::{Shape, Track},
};

/// What is to be done when the rows at hand are folded.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Adds a block to another.
    Merge { track: usize, into: u32, from: u32 },
    /// Puts out a result.
    Emit(Emission),
    /// Gives a block back.
    Free { track: usize, block: u32 },
}

/// A result that is to be put out.
#[derive(Clone, Debug)]
pub(crate) struct Emission {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) track: usize,
    pub(crate) key: u32,
    pub(crate) revision: u32,
    /// The block of the result, or of its first part.
    pub(crate) block: u32,
    /// The blocks of its other parts.
    pub(crate) others: Vec<u32>,
    /// Whether nothing else needs its block.
    pub(crate) is_last: bool,
}

/// What closing found to be done: results in any order, other things before and after them.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    pub(crate) before: Vec<Action>,
    pub(crate) results: Vec<Emission>,
    pub(crate) after: Vec<Action>,
}

impl Windows {
    /// Does what is due for a device's keys up to a horizon.
    pub(crate) fn close_device(&mut self, device: u32, horizon: i64) {
        let mut closing = Closing::default();
        self.close_device_into(device, horizon, &mut closing);
        self.act(closing);
    }

    /// Finds what is due for a device's keys up to a horizon.
    pub(crate) fn close_device_into(&mut self, device: u32, horizon: i64, closing: &mut Closing) {
        let mut due = i64::MAX;
        let mut key = self.clocks[device as usize].keys;
        while key != NONE {
            due = due.min(self.close_key_into(key, horizon, closing));
            key = self.keys[key as usize].next;
        }
        self.clocks[device as usize].due = due;
    }

    /// Finds what is due for a key; gives back when something is due next.
    pub(crate) fn close_key_into(&mut self, key: u32, horizon: i64, closing: &mut Closing) -> i64 {
        let tracks = self.tracks.len();
        let mut due = i64::MAX;
        for number in 0..tracks {
            let mut open = self.opens[key as usize * tracks + number];
            if open.due <= horizon {
                let before = open.count;
                let track = &mut self.tracks[number];
                track.close(number, key, &mut open, horizon, closing);
                open.due = track.due(&open, horizon);
                self.opens[key as usize * tracks + number] = open;
                self.lose_panes(key, before.saturating_sub(open.count));
                self.touch_key(key);
            }
            due = due.min(open.due);
        }
        due
    }

    /// Counts panes that a key has no more.
    pub(crate) fn lose_panes(&mut self, key: u32, panes: u32) {
        if panes == 0 {
            return;
        }
        let mut bytes = panes as usize * self.pane_bytes();
        let state = &mut self.keys[key as usize];
        state.panes = state.panes.saturating_sub(panes);
        if state.panes == 0 {
            bytes += self.key_bytes(key);
            self.usage.keys = self.usage.keys.saturating_sub(1);
            self.emptied.push(key);
        }
        self.usage.bytes = self.usage.bytes.saturating_sub(bytes);
    }

    /// Puts what is to be done in order, to be done when the rows at hand are folded.
    pub(crate) fn act(&mut self, mut closing: Closing) {
        if closing.results.len() > 1 {
            closing.results.sort_by(|one, other| {
                let place = |it: &Emission| (it.end, it.track, it.start);
                let by_place = place(one).cmp(&place(other));
                by_place.then_with(|| self.key_text(one.key).cmp(self.key_text(other.key)))
            });
        }
        self.actions.append(&mut closing.before);
        self.actions
            .extend(closing.results.into_iter().map(Action::Emit));
        self.actions.append(&mut closing.after);
    }
}

impl Track {
    fn close(
        &mut self,
        number: usize,
        key: u32,
        open: &mut Open,
        horizon: i64,
        closing: &mut Closing,
    ) {
        match self.shape {
            Shape::Windows { retain: None, .. } | Shape::Session { .. } => {
                for pane in self.panes.split_old(open, |pane| pane.end <= horizon) {
                    closing.results.push(Emission::of(&pane, number, key, true));
                }
            }
            Shape::Windows {
                retain: Some(retain),
                ..
            } => self.close_retained(number, key, open, horizon, retain, closing),
            Shape::Hops { every, size, .. } => {
                self.close_hops(number, key, open, horizon, (every, size), closing);
            }
            Shape::Sliding { size } => {
                self.close_sliding(number, key, open, horizon, size, closing);
            }
            Shape::State { max } => self.close_state(number, key, open, horizon, max, closing),
        }
    }

    fn close_retained(
        &mut self,
        number: usize,
        key: u32,
        open: &mut Open,
        horizon: i64,
        retain: i64,
        closing: &mut Closing,
    ) {
        let mut at = open.head;
        while let Some(pane) = self.panes.get_mut(at) {
            // What rows made that came after its end counts as closed, and is put out with a tick.
            if pane.end <= horizon && !pane.is(CLOSED) {
                closing.results.push(Emission::of(pane, number, key, false));
                pane.flags |= CLOSED;
                pane.revision += 1;
            }
            at = pane.older;
        }
        let is_over = |pane: &Pane| pane.end.saturating_add(retain) <= horizon;
        for pane in self.panes.split_old(open, is_over) {
            if pane.is(REVISED) {
                closing.results.push(Emission::of(&pane, number, key, true));
            } else {
                let block = pane.block;
                closing.after.push(Action::Free {
                    track: number,
                    block,
                });
            }
        }
    }

    fn close_hops(
        &mut self,
        number: usize,
        key: u32,
        open: &mut Open,
        horizon: i64,
        (every, size): (i64, i64),
        closing: &mut Closing,
    ) {
        let mut panes = self.listed(open);
        panes.reverse();
        let mut end = open.due;
        // The first of the panes that is in a window not put out yet.
        let mut first = 0;
        while end <= horizon {
            let start = end.saturating_sub(size);
            while panes.get(first).is_some_and(|pane| pane.start < start) {
                first += 1;
            }
            let Some(oldest) = panes.get(first) else {
                break;
            };
            if oldest.start >= end {
                // Nothing for a while.
                end = oldest.start.saturating_add(every);
                continue;
            }
            let parts = panes[first..].iter().take_while(|pane| pane.start < end);
            let emission = Emission::of_parts((start, end), number, key, parts);
            closing.results.push(emission);
            end = end.saturating_add(every);
        }
        // Windows that end behind the horizon start behind this.
        let over = |pane: &Pane| pane.start.saturating_add(size) <= horizon;
        self.free_old(number, open, over, closing);
    }

    fn close_sliding(
        &mut self,
        number: usize,
        key: u32,
        open: &mut Open,
        horizon: i64,
        size: i64,
        closing: &mut Closing,
    ) {
        let mut panes = self.listed(open);
        panes.reverse();
        for (index, last) in panes.iter().enumerate() {
            // What was before the last horizon has been put out.
            if last.is(CLOSED) || last.start >= horizon {
                continue;
            }
            let end = last.start.saturating_add(1);
            let start = end.saturating_sub(size);
            let first = panes[..index].partition_point(|pane| pane.start < start);
            let parts = panes[first..=index].iter();
            let emission = Emission::of_parts((start, end), number, key, parts);
            closing.results.push(emission);
        }
        let mut at = open.head;
        while let Some(pane) = self.panes.get_mut(at) {
            if pane.start < horizon {
                pane.flags |= CLOSED;
            }
            at = pane.older;
        }
        let over = |pane: &Pane| pane.start.saturating_add(size) <= horizon;
        self.free_old(number, open, over, closing);
    }

    /// Applies rows in the order of their times.
    fn close_state(
        &mut self,
        number: usize,
        key: u32,
        open: &mut Open,
        horizon: i64,
        max: i64,
        closing: &mut Closing,
    ) {
        let due = |pane: &Pane| !pane.is(WAITS) || pane.start <= horizon;
        let mut state: Option<Pane> = None;
        for row in self.panes.split_old(open, due) {
            if !row.is(WAITS) {
                state = Some(row);
                continue;
            }
            let is_over = |state: &Pane| row.is(CLOSES) || row.start >= state.end;
            if let Some(mut ended) = state.take_if(|state| is_over(state)) {
                // It contains its rows, even if another of the same time ends it.
                ended.end = ended.end.min(row.start.max(ended.last.saturating_add(1)));
                closing
                    .results
                    .push(Emission::of(&ended, number, key, true));
            }
            match state.as_mut() {
                Some(state) => {
                    state.last = row.start;
                    closing.before.push(Action::Merge {
                        track: number,
                        into: state.block,
                        from: row.block,
                    });
                }
                None if row.is(OPENS) => {
                    state = Some(Pane::new(
                        row.start,
                        row.start.saturating_add(max),
                        row.block,
                    ));
                    continue;
                }
                None => {}
            }
            closing.before.push(Action::Free {
                track: number,
                block: row.block,
            });
        }
        match state {
            Some(state) if state.end <= horizon => {
                closing
                    .results
                    .push(Emission::of(&state, number, key, true));
            }
            Some(state) => {
                self.panes.insert(open, state);
            }
            None => {}
        }
    }

    /// A list's panes, the newest first.
    fn listed(&self, open: &Open) -> Vec<Pane> {
        let list = self.panes.list(open);
        list.filter_map(|pane| self.panes.get(pane).copied())
            .collect()
    }

    fn free_old(
        &mut self,
        number: usize,
        open: &mut Open,
        is_over: impl Fn(&Pane) -> bool,
        closing: &mut Closing,
    ) {
        for pane in self.panes.split_old(open, is_over) {
            closing.after.push(Action::Free {
                track: number,
                block: pane.block,
            });
        }
    }
}

impl Emission {
    /// The result of a window that is a pane.
    pub(crate) fn of(pane: &Pane, track: usize, key: u32, is_last: bool) -> Self {
        Self {
            start: pane.start,
            end: pane.end,
            track,
            key,
            revision: pane.revision,
            block: pane.block,
            others: Vec::new(),
            is_last,
        }
    }

    fn of_parts<'a>(
        (start, end): (i64, i64),
        track: usize,
        key: u32,
        parts: impl Iterator<Item = &'a Pane>,
    ) -> Self {
        let mut blocks = parts.map(|pane| pane.block);
        Self {
            start,
            end,
            track,
            key,
            revision: 0,
            block: blocks.next().unwrap_or(NONE),
            others: blocks.collect(),
            is_last: false,
        }
    }
}
