//! Lines between two neighbouring layers: which of them turns where, so that no two lie on each
//! other.

use std::collections::BTreeSet;

/// What leads from one place of a layer to places of the next one, all counted across.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    /// Whose it is, as it was given.
    pub(crate) owner: usize,
    pub(crate) from: usize,
    pub(crate) to: Vec<usize>,
    /// Whether it begins where another one of the same owner ends, and not at the layer.
    pub(crate) continues: bool,
    /// Whether it ends between the layers.
    pub(crate) is_continued: bool,
    /// Number of the track on which it turns; `None` if it does not turn.
    pub(crate) track: Option<usize>,
}

impl Net {
    pub(crate) fn new(owner: usize, from: usize, to: Vec<usize>) -> Self {
        Self {
            owner,
            from,
            to,
            continues: false,
            is_continued: false,
            track: None,
        }
    }

    fn is_straight(&self) -> bool {
        self.to.iter().all(|to| *to == self.from)
    }

    /// The first and the last place that it touches.
    pub(crate) fn ends(&self) -> (usize, usize) {
        let all = || self.to.iter().copied().chain([self.from]);
        (
            all().min().unwrap_or(self.from),
            all().max().unwrap_or(self.from),
        )
    }

    fn meets(&self, other: &Self) -> bool {
        let ((first, last), (from, to)) = (self.ends(), other.ends());
        first <= to && from <= last
    }

    /// Whether it has to turn before another one does, which ends at the place where this begins;
    /// or is the first part of it.
    fn is_before(&self, other: &Self) -> bool {
        other.to.contains(&self.from) && !(self.continues && other.is_continued)
            || self.is_continued && other.continues && self.to.contains(&other.from)
    }
}

/// Gives tracks to nets; those that cannot be drawn with one turn become two. With the number of
/// tracks.
pub(crate) fn tracks(mut nets: Vec<Net>) -> (Vec<Net>, usize) {
    let mut used: BTreeSet<usize> = BTreeSet::new();
    for net in &nets {
        used.insert(net.from);
        used.extend(&net.to);
    }
    let mut is_done: Vec<bool> = nets.iter().map(Net::is_straight).collect();
    let mut count = 0;
    loop {
        let is_free = |number: usize| {
            let others = nets.iter().enumerate();
            let mut waiting = others.filter(|(other, _)| !is_done[*other] && *other != number);
            !is_done[number] && waiting.all(|(_, other)| !other.is_before(&nets[number]))
        };
        // Of those that lead down the last one first, of those that lead up the first one: they do
        // not cross each other then.
        let order = |number: &usize| {
            let net = &nets[*number];
            match net.ends().1 > net.from {
                true => (0, usize::MAX - net.from),
                false => (1, net.from),
            }
        };
        let free = (0..nets.len()).filter(|number| is_free(*number));
        if let Some(number) = free.min_by_key(order) {
            let done = nets.iter().enumerate();
            let met = done.filter(|(other, net)| {
                is_done[*other] && (net.meets(&nets[number]) || net.is_before(&nets[number]))
            });
            let last = met.filter_map(|(_, net)| net.track).max();
            let track = last.map_or(0, |last| last + 1);
            nets[number].track = Some(track);
            is_done[number] = true;
            count = count.max(track + 1);
            continue;
        }
        let Some(stuck) = is_done.iter().position(|is_done| !is_done) else {
            return (nets, count);
        };
        // Nets that wait for each other: one of them turns twice, by way of a place of its own.
        let mut by_way_of = nets[stuck].from;
        while used.contains(&by_way_of) {
            by_way_of += 1;
        }
        used.insert(by_way_of);
        let mut second = nets[stuck].clone();
        second.from = by_way_of;
        second.continues = true;
        let first = &mut nets[stuck];
        first.to = vec![by_way_of];
        first.is_continued = true;
        nets.push(second);
        is_done.push(false);
    }
}
