//! Lines between two neighbouring layers: which of them turns where, so that no two lie on each
//! other.
//!
//! A net leaves a layer at one place and runs along to its track, there across, and on along to the
//! places of the next layer. Where one net begins at the place at which another one ends, it has to
//! turn first.

use std::collections::{BTreeMap, BTreeSet};

/// What leads from one place of a layer to places of the next one, all counted across.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    /// Whose it is, as it was given.
    pub(crate) owner: usize,
    pub(crate) from: usize,
    pub(crate) to: Vec<usize>,
    /// The net that it goes on from, on whose track it begins; `None` if it begins at the layer.
    pub(crate) after: Option<usize>,
    /// Whether another one goes on from its track.
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
            after: None,
            is_continued: false,
            track: None,
        }
    }

    /// The first and the last place that it touches.
    pub(crate) fn ends(&self) -> (usize, usize) {
        let first = self.to.iter().copied().min().unwrap_or(self.from);
        let last = self.to.iter().copied().max().unwrap_or(self.from);
        (first.min(self.from), last.max(self.from))
    }
}

/// Gives tracks to nets; those that cannot be drawn with one turn become two. With the number of
/// tracks.
pub(crate) fn tracks(nets: Vec<Net>) -> (Vec<Net>, usize) {
    let mut channel = Channel {
        starts: BTreeMap::new(),
        used: BTreeSet::new(),
        ends: nets.iter().map(Net::ends).collect(),
        is_done: nets
            .iter()
            .map(|net| net.to.iter().all(|to| *to == net.from))
            .collect(),
        nets,
    };
    for (number, net) in channel.nets.iter().enumerate() {
        channel.starts.insert(net.from, number);
        channel.used.insert(net.from);
        channel.used.extend(&net.to);
    }
    let mut count = 0;
    loop {
        let all = 0..channel.nets.len();
        let free = all.filter(|number| channel.is_free(*number));
        if let Some(number) = free.min_by_key(|number| channel.order(*number)) {
            count = count.max(channel.turn(number) + 1);
            continue;
        }
        let Some(stuck) = channel.is_done.iter().position(|is_done| !is_done) else {
            return (channel.nets, count);
        };
        channel.split(stuck);
    }
}

struct Channel {
    nets: Vec<Net>,
    ends: Vec<(usize, usize)>,
    is_done: Vec<bool>,
    /// The net that begins at a place.
    starts: BTreeMap<usize, usize>,
    /// Places at which something begins or ends.
    used: BTreeSet<usize>,
}

impl Channel {
    /// The nets that have to turn before a net.
    fn before(&self, number: usize) -> impl Iterator<Item = usize> {
        let net = &self.nets[number];
        let ends = match net.is_continued {
            true => &[],
            false => net.to.as_slice(),
        };
        let at_ends = ends.iter().filter_map(|to| self.starts.get(to).copied());
        at_ends
            .filter(move |other| *other != number)
            .chain(net.after)
    }

    fn is_free(&self, number: usize) -> bool {
        !self.is_done[number] && self.before(number).all(|other| self.is_done[other])
    }

    /// Of the nets that lead down the last one first, of those that lead up the first one: they do
    /// not cross each other then.
    fn order(&self, number: usize) -> (usize, usize) {
        let from = self.nets[number].from;
        match self.ends[number].1 > from {
            true => (0, usize::MAX - from),
            false => (1, from),
        }
    }

    /// Gives a net the first track behind those that it has to be behind, or would lie on.
    fn turn(&mut self, number: usize) -> usize {
        let (first, last) = self.ends[number];
        let all = self.nets.iter().zip(&self.ends);
        let met = all
            .filter(|(_, (from, to))| first <= *to && *from <= last)
            .filter_map(|(net, _)| net.track);
        let before = self
            .before(number)
            .filter_map(|other| self.nets[other].track);
        let track = met.chain(before).max().map_or(0, |last| last + 1);
        self.nets[number].track = Some(track);
        self.is_done[number] = true;
        track
    }

    /// Nets wait for each other: this one turns twice, by way of a place of its own.
    fn split(&mut self, number: usize) {
        let mut by_way_of = self.nets[number].from;
        while !self.used.insert(by_way_of) {
            by_way_of += 1;
        }
        let mut second = self.nets[number].clone();
        second.from = by_way_of;
        second.after = Some(number);
        let first = &mut self.nets[number];
        first.to = vec![by_way_of];
        first.is_continued = true;
        self.ends[number] = first.ends();
        self.starts.insert(by_way_of, self.nets.len());
        self.ends.push(second.ends());
        self.is_done.push(false);
        self.nets.push(second);
    }
}
