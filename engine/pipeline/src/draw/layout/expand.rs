//! Long edges as chains of bends, one in each layer that they pass.

use std::collections::BTreeMap;

use super::{BACK, Layout, Link, Route, Vertex, rank::Ranks, slot};
use crate::draw::{DrawError, picture::Picture};

/// Most layers that the edges of a picture pass, all counted: beyond, nobody could follow them, and
/// making the picture would take more than a moment.
const PASSED_MAX: usize = 200_000;

pub(crate) fn expand(picture: &Picture, ranks: &Ranks) -> Result<Layout, DrawError> {
    let passed = |layer: &[usize]| -> usize {
        let edges = picture.edges().iter();
        edges
            .map(|edge| layer[edge.from].abs_diff(layer[edge.to]))
            .sum()
    };
    // Sinks stand at the far end, unless that makes too much of the edges to them.
    let layer = match passed(&ranks.layer) > PASSED_MAX {
        false => &ranks.layer,
        true => &ranks.short,
    };
    if passed(layer) > PASSED_MAX {
        return Err(DrawError::TooTangled);
    }
    let mut layout = Layout {
        vertices: layer
            .iter()
            .enumerate()
            .map(|(node, layer)| Vertex {
                node: Some(node),
                layer: *layer,
            })
            .collect(),
        layers: layer.iter().max().map_or(0, |last| last + 1),
        ..Layout::default()
    };
    // The bends behind each door, from the next layer on.
    let mut trunks: BTreeMap<(usize, u8), Vec<usize>> = BTreeMap::new();
    let mut links: Vec<(usize, usize, u8)> = Vec::new();
    for (edge, is_back) in picture.edges().iter().zip(&ranks.is_back) {
        if edge.from == edge.to {
            layout.routes.push(Route::default());
            continue;
        }
        let (first, last, slot) = match is_back {
            false => (edge.from, edge.to, slot(edge.exit)),
            true => (edge.to, edge.from, BACK),
        };
        let bends = layer[last].saturating_sub(layer[first] + 1);
        let trunk = trunks.entry((first, slot)).or_default();
        while trunk.len() < bends {
            let from = trunk.last().copied();
            let bend = layout.vertices.len();
            layout.vertices.push(Vertex {
                node: None,
                layer: layer[first] + 1 + trunk.len(),
            });
            links.push(link(from, first, bend, slot));
            trunk.push(bend);
        }
        let trunk = trunk.get(..bends).unwrap_or_default();
        links.push(link(trunk.last().copied(), first, last, slot));
        let mut vertices = Vec::with_capacity(bends + 2);
        vertices.push(first);
        vertices.extend_from_slice(trunk);
        vertices.push(last);
        layout.routes.push(Route {
            vertices,
            slot,
            is_back: *is_back,
        });
    }
    // An edge that is there twice takes one way.
    links.sort_unstable();
    links.dedup();
    layout.up = vec![Vec::new(); layout.vertices.len()];
    layout.down = vec![Vec::new(); layout.vertices.len()];
    for (from, to, slot) in links {
        layout.down[from].push(Link { vertex: to, slot });
        layout.up[to].push(Link { vertex: from, slot });
    }
    Ok(layout)
}

/// From the last bend of a trunk, or from the door where it begins.
fn link(bend: Option<usize>, first: usize, to: usize, slot: u8) -> (usize, usize, u8) {
    match bend {
        Some(bend) => (bend, to, super::OUT),
        None => (first, to, slot),
    }
}
