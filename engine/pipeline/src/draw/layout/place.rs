//! Coordinates across, after Brandes and Köpf, "Fast and Simple Horizontal Coordinate Assignment"
//! (2001): vertices that are each other's median make blocks that stand straight, blocks are put as
//! close as their neighbours let them, once from each of the four corners. Of the four results and
//! their balance, that with the least bends is taken.

use std::collections::BTreeSet;

use super::Layout;

/// What a unit of height weighs against a unit that an edge moves across.
const HEIGHT_WEIGHT: f64 = 0.25;

/// What is at least between the centres of two neighbours, the first of which stands first.
type Apart<'a> = &'a dyn Fn(usize, usize) -> f64;

/// A part that nothing connects with others, with numbers of its own.
pub(crate) struct Part {
    /// Its vertices' numbers in the layout.
    pub(crate) members: Vec<usize>,
    is_bend: Vec<bool>,
    size: Vec<f64>,
    up: Vec<Vec<usize>>,
    down: Vec<Vec<usize>>,
    layers: Vec<Vec<usize>>,
    /// The place of each in its layer.
    position: Vec<usize>,
}

impl Part {
    /// `local` has a number for each vertex of the layout, of whatever value.
    pub(crate) fn new(
        layout: &Layout,
        local: &mut [usize],
        layers: &[Vec<usize>],
        size: &[f64],
    ) -> Self {
        let members: Vec<usize> = layers.iter().flatten().copied().collect();
        for (number, vertex) in members.iter().enumerate() {
            local[*vertex] = number;
        }
        let position = layers.iter().flat_map(|layer| 0..layer.len()).collect();
        let linked = |links: &[super::Link]| -> Vec<usize> {
            links.iter().map(|link| local[link.vertex]).collect()
        };
        Self {
            is_bend: members
                .iter()
                .map(|vertex| layout.vertices[*vertex].node.is_none())
                .collect(),
            size: members.iter().map(|vertex| size[*vertex]).collect(),
            up: members.iter().map(|v| linked(&layout.up[*v])).collect(),
            down: members.iter().map(|v| linked(&layout.down[*v])).collect(),
            layers: layers
                .iter()
                .map(|layer| layer.iter().map(|vertex| local[*vertex]).collect())
                .collect(),
            position,
            members,
        }
    }

    /// Centres of its members. `gap` is what is at least between two of them, by their numbers in
    /// the layout.
    pub(crate) fn place(&self, gap: &dyn Fn(usize, usize) -> f64) -> Vec<f64> {
        let conflicts = self.conflicts();
        let apart = |near: usize, far: usize| {
            (self.size[near] + self.size[far]) / 2.0 + gap(self.members[near], self.members[far])
        };
        let mut results: Vec<Vec<f64>> = Vec::with_capacity(5);
        for is_upwards in [false, true] {
            for is_mirrored in [false, true] {
                let mut layers = self.layers.clone();
                if is_upwards {
                    layers.reverse();
                }
                if is_mirrored {
                    layers.iter_mut().for_each(|layer| layer.reverse());
                }
                let root = self.align(&layers, &conflicts, is_upwards, is_mirrored);
                let mut centres = compact(&layers, &root, &|near, far| match is_mirrored {
                    false => apart(near, far),
                    true => apart(far, near),
                });
                if is_mirrored {
                    centres.iter_mut().for_each(|centre| *centre = -*centre);
                }
                results.push(centres);
            }
        }
        self.line_up(&mut results);
        results.push(balance(&results));
        let mut best: Option<(f64, Vec<f64>)> = None;
        for centres in results {
            let cost = self.cost(&centres);
            // The balance is last, and taken where it is as good.
            if best.as_ref().is_none_or(|(least, _)| cost <= *least) {
                best = Some((cost, centres));
            }
        }
        best.map_or_else(Vec::new, |(_, centres)| centres)
    }

    /// Where its first member begins and its last one ends.
    pub(crate) fn ends(&self, centres: &[f64]) -> (f64, f64) {
        let ends = centres.iter().zip(&self.size);
        ends.fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(near, far), (centre, size)| {
                (near.min(centre - size / 2.0), far.max(centre + size / 2.0))
            },
        )
    }

    /// Links that cross one between two bends, which is to stay straight.
    fn conflicts(&self) -> BTreeSet<(usize, usize)> {
        let mut conflicts = BTreeSet::new();
        for (layer, next) in self.layers.iter().zip(self.layers.iter().skip(1)) {
            let mut near = 0;
            let mut done = 0;
            for (place, vertex) in next.iter().copied().enumerate() {
                let mut inner = self.up[vertex].iter().copied();
                let inner = match self.is_bend[vertex] {
                    true => inner.find(|other| self.is_bend[*other]),
                    false => None,
                };
                if inner.is_none() && place + 1 != next.len() {
                    continue;
                }
                let far = inner.map_or(layer.len(), |other| self.position[other]);
                for vertex in next.iter().take(place + 1).skip(done).copied() {
                    for other in self.up[vertex].iter().copied() {
                        let at = self.position[other];
                        let is_inner = self.is_bend[other] && self.is_bend[vertex];
                        if (at < near || at > far) && !is_inner {
                            conflicts.insert((other, vertex));
                        }
                    }
                }
                done = place + 1;
                near = far;
            }
        }
        conflicts
    }

    /// The first vertex of each vertex's block, seen from one of the four corners.
    fn align(
        &self,
        layers: &[Vec<usize>],
        conflicts: &BTreeSet<(usize, usize)>,
        is_upwards: bool,
        is_mirrored: bool,
    ) -> Vec<usize> {
        let count = self.members.len();
        let mut root: Vec<usize> = (0..count).collect();
        let mut is_aligned = vec![false; count];
        let place = |vertex: usize| match is_mirrored {
            false => self.position[vertex] as isize,
            true => -(self.position[vertex] as isize),
        };
        for layer in layers {
            let mut reached = isize::MIN;
            for vertex in layer.iter().copied() {
                let mut others = match is_upwards {
                    false => self.up[vertex].clone(),
                    true => self.down[vertex].clone(),
                };
                others.sort_by_key(|other| place(*other));
                others.dedup();
                let Some(last) = others.len().checked_sub(1) else {
                    continue;
                };
                // The median, or the two beside it.
                for other in others[last / 2..=last.div_ceil(2)].iter().copied() {
                    let link = match is_upwards {
                        false => (other, vertex),
                        true => (vertex, other),
                    };
                    if !is_aligned[vertex] && reached < place(other) && !conflicts.contains(&link) {
                        is_aligned[vertex] = true;
                        root[vertex] = root[other];
                        reached = place(other);
                    }
                }
            }
        }
        root
    }

    /// Puts the results over the narrowest of them: by their near side those from the near side, by
    /// their far side the others.
    fn line_up(&self, results: &mut [Vec<f64>]) {
        let all: Vec<(f64, f64)> = results.iter().map(|centres| self.ends(centres)).collect();
        let by_width = |left: &&(f64, f64), right: &&(f64, f64)| {
            f64::total_cmp(&(left.1 - left.0), &(right.1 - right.0))
        };
        let Some((near, far)) = all.iter().min_by(by_width).copied() else {
            return;
        };
        for (number, (centres, ends)) in results.iter_mut().zip(all).enumerate() {
            let shift = match number % 2 {
                0 => near - ends.0,
                _ => far - ends.1,
            };
            centres.iter_mut().for_each(|centre| *centre += shift);
        }
    }

    fn cost(&self, centres: &[f64]) -> f64 {
        let (near, far) = self.ends(centres);
        let mut cost = HEIGHT_WEIGHT * (far - near);
        for (vertex, others) in self.down.iter().enumerate() {
            for other in others.iter().copied() {
                let moved = (centres[vertex] - centres[other]).abs();
                // A bend in the middle of a long edge is uglier than one at a node, and that is
                // uglier where the edge leads from node to node.
                let weight = match (self.is_bend[vertex], self.is_bend[other]) {
                    (true, true) => 4.0,
                    (false, false) => 1.0,
                    _ => 0.9,
                };
                cost += moved * weight;
                if moved > 0.5 {
                    cost += 8.0;
                }
            }
        }
        cost
    }
}

/// Puts blocks as near to the first side as they can stand, then as near to the other side as they
/// can without moving what stands there.
fn compact(layers: &[Vec<usize>], root: &[usize], apart: Apart<'_>) -> Vec<f64> {
    let count = root.len();
    let mut behind: Vec<Vec<(usize, f64)>> = vec![Vec::new(); count];
    let mut waiting = vec![0_usize; count];
    for layer in layers {
        for (near, far) in layer.iter().zip(layer.iter().skip(1)) {
            behind[root[*near]].push((root[*far], apart(*near, *far)));
            waiting[root[*far]] += 1;
        }
    }
    let mut order: Vec<usize> = (0..count)
        .filter(|vertex| root[*vertex] == *vertex && waiting[*vertex] == 0)
        .collect();
    let mut centres = vec![0.0_f64; count];
    let mut next = 0;
    while let Some(block) = order.get(next).copied() {
        next += 1;
        for (other, distance) in behind[block].iter().copied() {
            centres[other] = centres[other].max(centres[block] + distance);
            waiting[other] -= 1;
            if waiting[other] == 0 {
                order.push(other);
            }
        }
    }
    for block in order.iter().rev().copied() {
        let others = behind[block].iter();
        let least = others
            .map(|(other, distance)| centres[*other] - distance)
            .fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            centres[block] = centres[block].max(least);
        }
    }
    root.iter().map(|root| centres[*root]).collect()
}

/// The mean of the two inner ones of four results. It keeps every distance that all four keep.
fn balance(results: &[Vec<f64>]) -> Vec<f64> {
    let count = results.first().map_or(0, Vec::len);
    let mean = |vertex: usize| {
        let mut four: Vec<f64> = results.iter().map(|result| result[vertex]).collect();
        four.sort_by(f64::total_cmp);
        match four.as_slice() {
            [_, low, high, _] => (low + high) / 2.0,
            _ => 0.0,
        }
    };
    (0..count).map(mean).collect()
}
