//! Rows and their sessions.

use crate::{
    time::LateReason,
    windows::{
        Batch, NO_STRETCH, Output, Windows,
        panes::{NONE, Pane},
        place::Placed,
        track::Shape,
    },
};

impl Windows {
    /// A row of a session: to that which it lengthens, to the two that it makes one, or to a new one.
    pub(crate) fn place_session(
        &mut self,
        batch: &Batch<'_>,
        placed: Placed,
        gap: i64,
        max: i64,
        out: &mut Output,
    ) {
        let ts = placed.ts;
        let open = *self.open(placed);
        let track = &mut self.tracks[placed.track];
        track.lengthened = None;
        // The newest that does not start after the row, and the one after that.
        let (mut left, mut right, mut before_right) = (open.head, NONE, NONE);
        while let Some(pane) = track.panes.get(left).filter(|pane| pane.start > ts) {
            before_right = right;
            right = left;
            left = pane.older;
        }
        let fits = |start: i64, last: i64| last.saturating_sub(start) < max;
        let joins_left = track.panes.get(left).is_some_and(|session| {
            ts < session.last.saturating_add(gap) && fits(session.start, session.last.max(ts))
        });
        let joins_right = track.panes.get(right).is_some_and(|session| {
            ts.saturating_add(gap) > session.start && fits(ts, session.last)
        });
        // Sessions that may not be one, for they would be too long, still do not overlap.
        let limit = track.panes.get(right).map_or(i64::MAX, |next| next.start);
        let end_of = |start: i64, last: i64, limit: i64| end(start, last, limit, gap, max);
        let joined = match (joins_left, joins_right) {
            (true, _) => left,
            (false, true) => right,
            (false, false) => {
                let window = (ts, end_of(ts, ts, limit));
                if ts < self.floor(placed.device) {
                    self.refuse(placed, LateReason::WindowClosed, window, out);
                } else if self
                    .add_pane(placed, Pane::new(window.0, window.1, 0))
                    .is_none()
                {
                    self.refuse(placed, LateReason::Limit, window, out);
                }
                self.stretch = NO_STRETCH;
                return;
            }
        };
        let Some(session) = track.panes.get_mut(joined) else {
            return;
        };
        session.start = session.start.min(ts);
        session.last = session.last.max(ts);
        session.end = if joins_left {
            end_of(session.start, session.last, limit)
        } else {
            session.end.min(ts.saturating_add(max))
        };
        let (start, last, block) = (session.start, session.last, session.block);
        track.assign(block, placed.number());
        let other = track.panes.get(right).copied();
        if let (true, true, Some(other)) = (joins_left, joins_right, other)
            && fits(start, other.last)
        {
            self.stretch = NO_STRETCH;
            // Rows of both may be at hand: they are folded before the sessions become one.
            self.settle(Some(batch), out);
            let mut open = *self.open(placed);
            let track = &mut self.tracks[placed.track];
            track.panes.remove(&mut open, before_right);
            track.blocks.merge(block, other.block);
            track.blocks.free(other.block);
            if let Some(session) = track.panes.get_mut(left) {
                session.last = session.last.max(other.last);
                session.end = end_of(start, session.last, other.end);
            }
            *self.open(placed) = open;
            self.lose_panes(placed.key, 1);
        } else if joins_left && !joins_right {
            // Those that follow lengthen it as well, unless they reach the next one.
            let next = limit.saturating_sub(gap).saturating_add(1);
            let until = last.saturating_add(gap).min(start.saturating_add(max));
            self.tracks[placed.track].lengthened = Some(placed);
            self.narrow_stretch(start, until.min(next));
        } else {
            self.stretch = NO_STRETCH;
        }
        self.note_session(placed);
    }

    /// Rows that followed the one that lengthened a session have lengthened it, too, up to the time
    /// that is `placed`'s.
    pub(crate) fn lengthen(&mut self, placed: Placed) {
        let open = *self.open(placed);
        let track = &mut self.tracks[placed.track];
        let Shape::Session { gap, max } = track.shape else {
            return;
        };
        let (mut at, mut limit) = (open.head, i64::MAX);
        while let Some(pane) = track.panes.get(at).filter(|pane| pane.start > placed.ts) {
            limit = pane.start;
            at = pane.older;
        }
        if let Some(session) = track.panes.get_mut(at) {
            session.last = session.last.max(placed.ts);
            session.end = end(session.start, session.last, limit, gap, max);
        }
        self.note_session(placed);
    }

    /// Notes when something is to be done for the sessions of a key.
    fn note_session(&mut self, placed: Placed) {
        // A session may end earlier than was noted only if it is cut; then its end comes sooner.
        let horizon = self.horizon(placed.device);
        let open = *self.open(placed);
        let due = self.tracks[placed.track].due(&open, horizon);
        self.open(placed).due = due;
        self.note_due(placed, due);
    }
}

/// Where a session ends, if no row comes.
fn end(start: i64, last: i64, limit: i64, gap: i64, max: i64) -> i64 {
    let end = last.saturating_add(gap).min(start.saturating_add(max));
    end.min(limit)
}
