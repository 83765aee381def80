use super::{
    geometry::{EdgePath, Step, geometry},
    shape::{Rect, number},
};
use crate::draw::{
    layout::Layout,
    tests::{elements, random},
};

/// Points of an edge, close to each other.
fn points(path: &EdgePath) -> Vec<(f64, f64)> {
    let mut points = vec![path.start];
    let mut at = path.start;
    for step in &path.steps {
        let (first, second, end) = match *step {
            Step::Line(x, y) => (at, (x, y), (x, y)),
            Step::Curve(first, second, end) => (first, second, end),
        };
        for number in 1..=64 {
            let t = f64::from(number) / 64.0;
            let s = 1.0 - t;
            let mix = |a: f64, b: f64, c: f64, d: f64| {
                s * s * s * a + 3.0 * s * s * t * b + 3.0 * s * t * t * c + t * t * t * d
            };
            points.push((
                mix(at.0, first.0, second.0, end.0),
                mix(at.1, first.1, second.1, end.1),
            ));
        }
        at = end;
    }
    points
}

fn is_inside(rect: &Rect, (x, y): (f64, f64)) -> bool {
    x > rect.x && x < rect.right() && y > rect.y && y < rect.bottom()
}

#[test]
fn boxes_are_apart_and_edges_pass_between_them() {
    for seed in 0..40 {
        let picture = random(seed, seed % 2 == 0);
        let layout = Layout::new(&picture).unwrap();
        let geometry = geometry(&picture, &layout);
        let rects: Vec<Rect> = geometry.boxes.iter().map(|node| node.rect).collect();
        for (number, rect) in rects.iter().enumerate() {
            assert!(rect.x >= 0.0 && rect.y >= 0.0);
            assert!(rect.right() <= geometry.width && rect.bottom() <= geometry.height);
            for other in &rects[..number] {
                let is_beside = rect.right() + 20.0 < other.x || other.right() + 20.0 < rect.x;
                let is_below = rect.bottom() + 20.0 < other.y || other.bottom() + 20.0 < rect.y;
                assert!(is_beside || is_below);
            }
        }
        for (path, edge) in geometry.edges.iter().zip(picture.edges()) {
            let mut points = points(path);
            points.push(path.tip);
            for (node, rect) in rects.iter().enumerate() {
                // Slopes are inside of a box: there an edge touches the shape.
                let depth = if node == edge.from || node == edge.to {
                    26.0
                } else {
                    0.0
                };
                let rect = Rect {
                    x: rect.x + depth,
                    width: rect.width - 2.0 * depth,
                    ..*rect
                };
                let passes = points.iter().any(|point| is_inside(&rect, *point));
                assert!(!passes, "seed {seed}: {edge:?} passes {node}");
            }
        }
    }
}

#[test]
fn an_edge_ends_at_its_nodes() {
    for seed in 0..30 {
        let picture = random(seed, seed % 2 == 0);
        let layout = Layout::new(&picture).unwrap();
        let geometry = geometry(&picture, &layout);
        for (path, edge) in geometry.edges.iter().zip(picture.edges()) {
            let near = |(x, y): (f64, f64), node: usize| {
                let rect = geometry.boxes[node].rect;
                let (x, y) = (
                    x.clamp(rect.x, rect.right()) - x,
                    y.clamp(rect.y, rect.bottom()) - y,
                );
                x.hypot(y) < 10.0
            };
            assert!(near(path.tip, edge.to));
            let last = points(path).pop().unwrap_or(path.start);
            // What closes a circle is drawn from its end to its beginning.
            let (start, end) = match path.is_back && edge.from != edge.to {
                false => (edge.from, edge.to),
                true => (edge.to, edge.from),
            };
            assert!(near(path.start, start) && near(last, end), "{edge:?}");
        }
    }
}

#[test]
fn a_legend_is_cut_into_rows() {
    let kinds = crate::draw::picture::Kind::ALL;
    let (wide, width, height) = super::legend(&kinds, 0.0, 2_000.0);
    let (_, narrow_width, narrow_height) = super::legend(&kinds, 0.0, 300.0);
    assert!(width > 700.0 && height < 20.0);
    assert!(narrow_width <= 300.0 && narrow_height > 50.0);
    elements(&wide);
}

#[test]
fn numbers_have_one_decimal() {
    let written: Vec<String> = [0.0, -0.01, 1.25, 10.0, -3.149].map(number).to_vec();
    assert_eq!(written, ["0", "0", "1.3", "10", "-3.1"]);
}
