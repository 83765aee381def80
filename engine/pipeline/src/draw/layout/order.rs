//! The order in each layer: as few crossings as some sweeps can find.
//!
//! Barycentre sweeps in both directions, neighbours exchanged where that helps, from several starts;
//! the best order is kept. Nothing is random: the starts are shuffled by a fixed sequence.

use super::{Layout, Link};

/// Sweeps without a better order after which a start is given up.
const PATIENCE: usize = 6;
/// Most sweeps from one start.
const SWEEPS_MAX: usize = 32;
/// Most starts.
const STARTS_MAX: usize = 24;
/// What a picture may cost, in links looked at: some tenths of a second.
pub(crate) const WORK_MAX: usize = 60_000_000;

/// The vertices of each part that nothing connects with the others, by layer, as a search from the
/// near end finds them. Parts of one node are last.
pub(crate) fn parts(layout: &Layout) -> Vec<Vec<Vec<usize>>> {
    let count = layout.vertices.len();
    let mut is_seen = vec![false; count];
    let mut parts = Vec::new();
    // Nodes are the first vertices, and in the order of the configuration.
    for start in 0..count {
        if is_seen[start] {
            continue;
        }
        let mut part = vec![Vec::new(); layout.layers];
        let mut path = vec![start];
        is_seen[start] = true;
        while let Some(vertex) = path.pop() {
            let layer = layout.vertices[vertex].layer;
            part[layer].push(vertex);
            let links = layout.up[vertex].iter().chain(&layout.down[vertex]);
            for link in links.rev() {
                if !is_seen[link.vertex] {
                    is_seen[link.vertex] = true;
                    path.push(link.vertex);
                }
            }
        }
        parts.push(part);
    }
    parts.sort_by_key(|part: &Vec<Vec<usize>>| part.iter().map(Vec::len).sum::<usize>() == 1);
    parts
}

/// Orders a part. `position` has a number for each vertex of the layout, of whatever value; `work`
/// is what is left of [`WORK_MAX`].
pub(crate) fn arrange(
    layout: &Layout,
    position: &mut [usize],
    work: &mut usize,
    part: Vec<Vec<usize>>,
) -> Vec<Vec<usize>> {
    let links: usize = part.iter().flatten().map(|v| layout.down[*v].len()).sum();
    let size = part.iter().map(Vec::len).sum::<usize>() + links;
    let mut order = Order {
        layout,
        position,
        work,
        layers: part.clone(),
    };
    let mut best = part.clone();
    let mut fewest = usize::MAX;
    let mut sequence = Sequence(0x9E37_79B9_7F4A_7C15);
    for start in 0..STARTS_MAX {
        order.layers.clone_from(&part);
        if start > 0 {
            for layer in &mut order.layers {
                sequence.shuffle(layer);
            }
        }
        order.number();
        let mut fewest_here = usize::MAX;
        let mut patience = PATIENCE;
        for sweep in 0..SWEEPS_MAX {
            let crossings = order.crossings();
            if crossings < fewest {
                fewest = crossings;
                best.clone_from(&order.layers);
            }
            if crossings < fewest_here {
                fewest_here = crossings;
                patience = PATIENCE;
            } else {
                patience -= 1;
            }
            // Sorting and counting look at each link a few times.
            if fewest == 0 || patience == 0 || !order.spend(size * 8) {
                break;
            }
            order.sweep(sweep % 2 == 0, sweep % 4 >= 2);
            order.exchange();
        }
        if fewest == 0 || *order.work == 0 {
            break;
        }
    }
    best
}

struct Order<'a> {
    layout: &'a Layout,
    /// The place of each vertex in its layer.
    position: &'a mut [usize],
    /// What is left to be done.
    work: &'a mut usize,
    layers: Vec<Vec<usize>>,
}

impl Order<'_> {
    /// Whether so much work may be done still.
    fn spend(&mut self, work: usize) -> bool {
        let left = self.work.checked_sub(work);
        *self.work = left.unwrap_or(0);
        left.is_some()
    }

    fn number(&mut self) {
        for layer in &self.layers {
            for (place, vertex) in layer.iter().enumerate() {
                self.position[*vertex] = place;
            }
        }
    }

    /// Where a link begins: its vertex's place, and the door.
    fn start(&self, link: &Link) -> usize {
        self.position[link.vertex] * 4 + usize::from(link.slot)
    }

    /// Puts each vertex of each layer in the middle of those before it (or behind it).
    fn sweep(&mut self, is_forward: bool, is_tie_reversed: bool) {
        let count = self.layers.len();
        for step in 1..count {
            let number = if is_forward { step } else { count - 1 - step };
            let layer = std::mem::take(&mut self.layers[number]);
            let mut free = Vec::with_capacity(layer.len());
            for vertex in layer.iter().copied() {
                let (sum, links) = match is_forward {
                    true => {
                        let links = &self.layout.up[vertex];
                        let sum: usize = links.iter().map(|link| self.start(link)).sum();
                        (sum as f64, links.len())
                    }
                    false => {
                        let links = &self.layout.down[vertex];
                        let end = |link: &Link| {
                            self.position[link.vertex] as f64 * 4.0 - f64::from(link.slot)
                        };
                        (links.iter().map(end).sum(), links.len())
                    }
                };
                if links > 0 {
                    free.push((sum / links as f64, vertex));
                }
            }
            if is_tie_reversed {
                free.reverse();
            }
            free.sort_by(|(left, _), (right, _)| left.total_cmp(right));
            // Who has no opinion stays where he is.
            let mut free = free.into_iter();
            let has_opinion = |vertex: usize| match is_forward {
                true => !self.layout.up[vertex].is_empty(),
                false => !self.layout.down[vertex].is_empty(),
            };
            let sorted: Vec<usize> = layer
                .iter()
                .copied()
                .map(|vertex| match has_opinion(vertex) {
                    true => free.next().map_or(vertex, |(_, sorted)| sorted),
                    false => vertex,
                })
                .collect();
            for (place, vertex) in sorted.iter().enumerate() {
                self.position[*vertex] = place;
            }
            self.layers[number] = sorted;
        }
    }

    /// Exchanges neighbours as long as that takes crossings away.
    fn exchange(&mut self) {
        for _ in 0..8 {
            let mut is_better = false;
            for number in 0..self.layers.len() {
                for place in 1..self.layers[number].len() {
                    let (left, right) =
                        (self.layers[number][place - 1], self.layers[number][place]);
                    let links = |vertex: usize| {
                        let (up, down) = (&self.layout.up[vertex], &self.layout.down[vertex]);
                        (up.len(), down.len())
                    };
                    let ((up, down), (others_up, others_down)) = (links(left), links(right));
                    if !self.spend(2 * (1 + up * others_up + down * others_down)) {
                        return;
                    }
                    if self.between(right, left) < self.between(left, right) {
                        self.layers[number].swap(place - 1, place);
                        self.position[left] = place;
                        self.position[right] = place - 1;
                        is_better = true;
                    }
                }
            }
            if !is_better {
                return;
            }
        }
    }

    /// Crossings of the links of two neighbours, the first of which stands first.
    fn between(&self, first: usize, second: usize) -> usize {
        let ups = (&self.layout.up[first], &self.layout.up[second]);
        let downs = (&self.layout.down[first], &self.layout.down[second]);
        let of_ups = ups.0.iter().map(|link| {
            let start = self.start(link);
            let others = ups.1.iter().filter(|other| self.start(other) < start);
            others.count()
        });
        let of_downs = downs.0.iter().map(|link| {
            let end = self.position[link.vertex];
            let others = downs.1.iter();
            others
                .filter(|other| self.position[other.vertex] < end)
                .count()
        });
        of_ups.sum::<usize>() + of_downs.sum::<usize>()
    }

    /// Crossings of the whole part.
    fn crossings(&self) -> usize {
        self.layers
            .iter()
            .zip(self.layers.iter().skip(1))
            .map(|(layer, next)| {
                let mut ends: Vec<(usize, usize)> = Vec::new();
                for vertex in layer {
                    for link in &self.layout.down[*vertex] {
                        let start = self.position[*vertex] * 4 + usize::from(link.slot);
                        ends.push((start, self.position[link.vertex]));
                    }
                }
                ends.sort_unstable();
                inversions(&ends, next.len())
            })
            .sum()
    }
}

/// How many pairs have their ends the other way round, by a tree of counts.
fn inversions(ends: &[(usize, usize)], places: usize) -> usize {
    let mut counts = vec![0_usize; places + 1];
    let mut inversions = 0;
    for (seen, (_, end)) in ends.iter().enumerate() {
        let mut not_beyond = 0;
        let mut index = end + 1;
        while index > 0 {
            not_beyond += counts.get(index).copied().unwrap_or(0);
            index &= index - 1;
        }
        inversions += seen - not_beyond;
        let mut index = end + 1;
        while let Some(count) = counts.get_mut(index) {
            *count += 1;
            index += index & index.wrapping_neg();
        }
    }
    inversions
}

/// Numbers without a pattern, always the same ones (splitmix64).
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn shuffle(&mut self, items: &mut [usize]) {
        for last in (1..items.len()).rev() {
            let other = (self.next() % (last as u64 + 1)) as usize;
            items.swap(last, other);
        }
    }
}
