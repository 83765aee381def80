use std::collections::BTreeSet;

use super::Layout;
use crate::draw::{
    picture::{Exit, Kind, Picture},
    tests::{connect, node, random},
};

fn picture(kinds: &[Kind], edges: &[(usize, usize)]) -> Picture {
    let mut picture = Picture::default();
    for (number, kind) in kinds.iter().enumerate() {
        picture.add(node(*kind, &number.to_string(), &[])).unwrap();
    }
    for (from, to) in edges {
        connect(&mut picture, *from, *to, Exit::Out);
    }
    picture
}

#[test]
fn every_vertex_has_one_place_and_every_edge_one_way() {
    for seed in 0..50 {
        let picture = random(seed, seed % 2 == 0);
        let layout = Layout::new(&picture).unwrap();
        let mut seen = BTreeSet::new();
        for part in &layout.parts {
            for (layer, vertices) in part.iter().enumerate() {
                for vertex in vertices {
                    assert!(seen.insert(*vertex));
                    assert_eq!(layout.vertices[*vertex].layer, layer);
                }
            }
        }
        assert_eq!(seen.len(), layout.vertices.len());
        for (route, edge) in layout.routes.iter().zip(picture.edges()) {
            let ends = (route.vertices.first(), route.vertices.last());
            if edge.from == edge.to {
                assert_eq!(ends, (None, None));
                continue;
            }
            match route.is_back {
                false => assert_eq!(ends, (Some(&edge.from), Some(&edge.to))),
                true => assert_eq!(ends, (Some(&edge.to), Some(&edge.from))),
            }
            for pair in route.vertices.windows(2) {
                let layer = |vertex: usize| layout.vertices[vertex].layer;
                assert_eq!(layer(pair[0]) + 1, layer(pair[1]));
                assert!(
                    layout.down[pair[0]]
                        .iter()
                        .any(|link| link.vertex == pair[1])
                );
                assert!(layout.up[pair[1]].iter().any(|link| link.vertex == pair[0]));
            }
            let inner = route.vertices.iter().skip(1).rev().skip(1);
            assert!(
                inner
                    .clone()
                    .all(|bend| layout.vertices[*bend].node.is_none())
            );
        }
    }
}

#[test]
fn neighbours_are_as_far_apart_as_asked() {
    for seed in 0..50 {
        let picture = random(seed, seed % 2 == 0);
        let layout = Layout::new(&picture).unwrap();
        let size: Vec<f64> = (0..layout.vertices.len())
            .map(|vertex| [1.0, 5.0, 7.0][vertex % 3])
            .collect();
        let centres = layout.place(&size, &|near, far| ((near + far) % 3) as f64, 4.0);
        let near = |vertex: usize| (centres[vertex] - size[vertex] / 2.0).floor();
        let mut ends = vec![f64::NEG_INFINITY; layout.layers];
        for part in &layout.parts {
            let mut part_end = f64::NEG_INFINITY;
            for (layer, vertices) in part.iter().enumerate() {
                for pair in vertices.windows(2) {
                    let gap = ((pair[0] + pair[1]) % 3) as f64;
                    // Rounded down too: terminals have whole cells.
                    assert!(near(pair[1]) >= near(pair[0]) + size[pair[0]] + gap);
                }
                for vertex in vertices {
                    assert!(near(*vertex) >= 0.0 && near(*vertex) >= ends[layer]);
                    part_end = part_end.max(near(*vertex) + size[*vertex]);
                }
            }
            ends.iter_mut().for_each(|end| *end = part_end);
        }
    }
}

#[test]
fn chains_are_straight_and_sinks_are_last() {
    let kinds = [
        Kind::Stream,
        Kind::Map,
        Kind::Window,
        Kind::Store,
        Kind::Store,
        Kind::Stream,
    ];
    let picture = picture(&kinds, &[(0, 1), (1, 2), (2, 3), (0, 4)]);
    let layout = Layout::new(&picture).unwrap();
    let layers: Vec<usize> = (0..6).map(|node| layout.vertices[node].layer).collect();
    assert_eq!(layers, [0, 1, 2, 3, 3, 0]);
    let centres = layout.place(&vec![5.0; layout.vertices.len()], &|_, _| 1.0, 2.0);
    assert!((1..4).all(|node| centres[node] == centres[0]));
    // What is not connected with anything is below.
    assert!(centres[5] > centres[0].max(centres[4]));
}

#[test]
fn lines_that_need_not_cross_do_not() {
    // Named so that the order of the configuration would have them all cross.
    let kinds = [Kind::Stream; 6];
    let picture = picture(&kinds, &[(0, 5), (1, 4), (2, 3), (0, 4), (1, 3)]);
    let layout = Layout::new(&picture).unwrap();
    let centres = layout.place(&[1.0; 6], &|_, _| 1.0, 1.0);
    for first in picture.edges() {
        for second in picture.edges() {
            let starts = centres[first.from] - centres[second.from];
            let ends = centres[first.to] - centres[second.to];
            assert!(starts * ends >= 0.0);
        }
    }
}

#[test]
fn a_circle_is_drawn_against_the_direction() {
    let kinds = [Kind::Stream, Kind::Map, Kind::Route, Kind::Window];
    let picture = picture(&kinds, &[(0, 1), (1, 2), (2, 3), (3, 1), (2, 2)]);
    let layout = Layout::new(&picture).unwrap();
    let layers: Vec<usize> = (0..4).map(|node| layout.vertices[node].layer).collect();
    assert_eq!(layers, [0, 1, 2, 3]);
    let back: Vec<bool> = layout.routes.iter().map(|route| route.is_back).collect();
    assert_eq!(back, [false, false, false, true, false]);
    assert!(layout.routes[4].vertices.is_empty());
}

#[test]
fn edges_by_one_door_share_their_bends() {
    let kinds = [Kind::Stream, Kind::Map, Kind::Map, Kind::Map, Kind::Store];
    let picture = picture(&kinds, &[(0, 1), (1, 2), (2, 3), (0, 3), (0, 4), (3, 4)]);
    let layout = Layout::new(&picture).unwrap();
    assert_eq!(
        layout.routes[3].vertices[..3],
        layout.routes[4].vertices[..3]
    );
    // Two bends to node 3, and one more to the store.
    assert_eq!(layout.vertices.len(), 5 + 3);
}
