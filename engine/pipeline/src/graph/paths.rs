//! How many ways rows go: views are not stored in between, so that a row which comes to a node by
//! many ways is there as many times.

use crate::{
    diagnostics::{Diagnostic, Diagnostics},
    graph::{Graph, Origin},
};

/// Most ways by which a row may come to a node.
const WAYS_MAX: u64 = 1_000;

/// Refuses nodes to which a row comes by too many ways: two views that both take from two others, a
/// dozen times over, are four thousand.
pub(crate) fn check(graph: &Graph, diagnostics: &mut Diagnostics) {
    let mut ways: Vec<u64> = vec![0; graph.nodes.len()];
    for number in &graph.order {
        let Some(node) = graph.nodes.get(*number) else {
            continue;
        };
        let of = |origin: Origin| match origin {
            Origin::Stream(_) => 1,
            Origin::Node(parent, _) => {
                let is_new = graph.nodes.get(parent).is_some_and(super::Node::is_derived);
                // What windows make is made once, however its rows came.
                if is_new {
                    1
                } else {
                    ways.get(parent).copied().unwrap_or(1)
                }
            }
        };
        let sum: u64 = node.inputs.iter().map(|edge| of(edge.origin)).sum();
        if sum > WAYS_MAX {
            let message = format!(
                "a row comes to {} `{}` by {sum} ways, and is there as many times",
                node.section(),
                node.name()
            );
            diagnostics.push(
                Diagnostic::error(message, node.config.name.place.clone()).help(format!(
                    "at most {WAYS_MAX}: take rows from a stream or from one node where several bring the same"
                )),
            );
        }
        if let Some(slot) = ways.get_mut(*number) {
            // One that is told is enough of those behind it.
            *slot = if sum > WAYS_MAX { 1 } else { sum };
        }
    }
}
