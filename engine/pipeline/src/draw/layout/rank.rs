//! A layer for each node: streams at the near end, sinks at the far end, the others between, near to
//! what they are connected with.

use crate::draw::picture::{Kind, Picture};

/// The layers of nodes, and which edges lead against them.
#[derive(Clone, Debug)]
pub(crate) struct Ranks {
    /// The layer of each node.
    pub(crate) layer: Vec<usize>,
    /// The same with sinks right behind what they take rows from.
    pub(crate) short: Vec<usize>,
    /// Whether each edge closes a circle.
    pub(crate) is_back: Vec<bool>,
}

pub(crate) fn ranks(picture: &Picture) -> Ranks {
    let count = picture.nodes().len();
    let is_back = back_edges(picture);
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut behind: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (edge, is_back) in picture.edges().iter().zip(&is_back) {
        let (from, to) = match is_back {
            true => (edge.to, edge.from),
            false => (edge.from, edge.to),
        };
        if from != to {
            before[to].push(from);
            behind[from].push(to);
        }
    }
    let order = topological(&before, &behind);
    let mut short = vec![0; count];
    for node in order.iter().copied() {
        let last = before[node].iter().map(|other| short[*other] + 1);
        short[node] = last.max().unwrap_or(0);
    }
    let last = short.iter().copied().max().unwrap_or(0);
    let mut layer = short.clone();
    let is_pinned = |node: usize| {
        let kind = picture.nodes()[node].kind;
        behind[node].is_empty() && kind.is_sink()
    };
    for (node, layer) in layer.iter_mut().enumerate() {
        if is_pinned(node) {
            *layer = last;
        }
    }
    // Who gives to more than he takes from goes to those he gives to: one long edge less for each.
    for node in order.iter().rev().copied() {
        let is_free = !is_pinned(node) && picture.nodes()[node].kind != Kind::Stream;
        // What goes to the far end passes all layers in any case.
        let near = behind[node].iter().filter(|other| !is_pinned(**other));
        if is_free && !before[node].is_empty() && near.clone().count() > before[node].len() {
            let first = near.map(|other| layer[*other]).min();
            layer[node] = first.map_or(layer[node], |first: usize| first.saturating_sub(1));
        }
    }
    Ranks {
        layer,
        short,
        is_back,
    }
}

/// Edges without which there is no circle: those that lead to a node from which the search has come.
fn back_edges(picture: &Picture) -> Vec<bool> {
    let count = picture.nodes().len();
    let mut leaving = vec![Vec::new(); count];
    let mut has_input = vec![false; count];
    for (number, edge) in picture.edges().iter().enumerate() {
        leaving[edge.from].push((number, edge.to));
        has_input[edge.to] = true;
    }
    let mut is_back = vec![false; picture.edges().len()];
    let mut is_seen = vec![false; count];
    let mut is_open = vec![false; count];
    let sources = (0..count).filter(|node| !has_input[*node]);
    for start in sources.chain(0..count) {
        if is_seen[start] {
            continue;
        }
        is_seen[start] = true;
        is_open[start] = true;
        let mut path = vec![(start, 0)];
        while let Some((node, next)) = path.last_mut() {
            let Some((number, to)) = leaving[*node].get(*next).copied() else {
                is_open[*node] = false;
                path.pop();
                continue;
            };
            *next += 1;
            if is_open[to] {
                is_back[number] = true;
            } else if !is_seen[to] {
                is_seen[to] = true;
                is_open[to] = true;
                path.push((to, 0));
            }
        }
    }
    is_back
}

fn topological(before: &[Vec<usize>], behind: &[Vec<usize>]) -> Vec<usize> {
    let mut waiting: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..before.len())
        .filter(|node| waiting[*node] == 0)
        .collect();
    let mut next = 0;
    while let Some(node) = order.get(next).copied() {
        next += 1;
        for other in behind[node].iter().copied() {
            waiting[other] -= 1;
            if waiting[other] == 0 {
                order.push(other);
            }
        }
    }
    order
}
