//! What is open of each key: short lists of panes, the newest first. A pane is a window, a part of
//! hopping windows, a session, or a row that waits for its turn; all have a block.

/// No pane.
pub(crate) const NONE: u32 = u32::MAX;

/// A span of time with a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pane {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// The time of its latest row; of sessions and states only.
    pub(crate) last: i64,
    pub(crate) block: u32,
    /// The next older one.
    pub(crate) older: u32,
    pub(crate) revision: u32,
    pub(crate) flags: u8,
}

/// Its result was put out; it waits for late rows.
pub(crate) const CLOSED: u8 = 1;
/// Rows came since its result was put out.
pub(crate) const REVISED: u8 = 2;
/// A row that waits for its turn, and opens a state.
pub(crate) const OPENS: u8 = 4;
/// A row that waits for its turn, and closes a state.
pub(crate) const CLOSES: u8 = 8;
/// A row that waits for its turn.
pub(crate) const WAITS: u8 = 16;
/// All of them.
pub(crate) const FLAGS: u8 = CLOSED | REVISED | OPENS | CLOSES | WAITS;

impl Pane {
    /// A pane without rows.
    pub(crate) const fn new(start: i64, end: i64, block: u32) -> Self {
        Self {
            start,
            end,
            last: start,
            block,
            older: NONE,
            revision: 0,
            flags: 0,
        }
    }

    pub(crate) const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What is open of a key and a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// The newest pane.
    pub(crate) head: u32,
    pub(crate) count: u32,
    /// When, in event time, something is to be done next; `i64::MAX`: never.
    pub(crate) due: i64,
}

impl Open {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self {
        head: NONE,
        count: 0,
        due: i64::MAX,
    };
}

/// Panes by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panes {
    panes: Vec<Pane>,
    free: Vec<u32>,
}

impl Panes {
    #[inline]
    pub(crate) fn get(&self, pane: u32) -> Option<&Pane> {
        self.panes.get(pane as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, pane: u32) -> Option<&mut Pane> {
        self.panes.get_mut(pane as usize)
    }

    /// Puts a pane in its place by `start`: newer than those of the same start.
    pub(crate) fn insert(&mut self, open: &mut Open, pane: Pane) -> u32 {
        let number = match self.free.pop() {
            Some(free) => free,
            None => {
                self.panes.push(pane);
                // Fewer than there are blocks.
                u32::try_from(self.panes.len() - 1).unwrap_or(NONE)
            }
        };
        let mut newer = NONE;
        let mut at = open.head;
        while let Some(other) = self.get(at).filter(|other| other.start > pane.start) {
            newer = at;
            at = other.older;
        }
        if let Some(place) = self.get_mut(number) {
            *place = Pane { older: at, ..pane };
        }
        self.link(open, newer, number);
        open.count += 1;
        number
    }

    /// Takes out the pane that `newer` leads to, or if that is `NONE`, the newest.
    pub(crate) fn remove(&mut self, open: &mut Open, newer: u32) -> Option<Pane> {
        let number = match self.get(newer) {
            Some(newer) => newer.older,
            None => open.head,
        };
        let pane = *self.get(number)?;
        self.link(open, newer, pane.older);
        open.count = open.count.saturating_sub(1);
        self.free.push(number);
        Some(pane)
    }

    fn link(&mut self, open: &mut Open, newer: u32, number: u32) {
        match self.get_mut(newer) {
            Some(newer) => newer.older = number,
            None => open.head = number,
        }
    }

    /// The numbers of a list's panes, the newest first.
    pub(crate) fn list(&self, open: &Open) -> impl Iterator<Item = u32> + '_ {
        let mut at = open.head;
        std::iter::from_fn(move || {
            let number = at;
            at = self.get(number)?.older;
            Some(number)
        })
    }

    /// The number of the pane that starts at a time.
    pub(crate) fn find(&self, open: &Open, start: i64) -> Option<u32> {
        let starts_there = |pane: &u32| self.get(*pane).is_some_and(|pane| pane.start == start);
        self.list(open).find(starts_there)
    }

    /// Takes out all panes for which `is_done`, if all that are older are, too; the oldest first.
    pub(crate) fn split_old(
        &mut self,
        open: &mut Open,
        is_done: impl Fn(&Pane) -> bool,
    ) -> Vec<Pane> {
        let mut newer = NONE;
        let mut at = open.head;
        while let Some(pane) = self.get(at).filter(|pane| !is_done(pane)) {
            newer = at;
            at = pane.older;
        }
        let mut taken = Vec::new();
        while let Some(pane) = self.remove(open, newer) {
            taken.push(pane);
        }
        taken.reverse();
        taken
    }
}
