//! Layout in pixels: boxes in columns, edges as curves between them.
//!
//! An edge is straight beside the boxes of a column, and curves only between columns, where no box
//! is: it cannot pass through one.

use std::collections::BTreeMap;

use super::shape::{self, Rect};
use crate::draw::{
    layout::{BACK, ERRORS, LATE, Layout, OUT},
    picture::Picture,
    text,
};

pub(crate) const NAME_SIZE: f64 = 13.0;
pub(crate) const WHAT_SIZE: f64 = 10.5;
pub(crate) const LABEL_SIZE: f64 = 10.0;
const NAME_CHARACTERS_MAX: usize = 30;
const WHAT_CHARACTERS_MAX: usize = 28;
/// Highest box: beyond it arriving edges come closer to each other.
const BOX_HEIGHT_MAX: f64 = 600.0;
/// Between two edges that arrive at a box.
const APART: f64 = 12.0;
const BOX_WIDTH_MIN: f64 = 104.0;
/// Length of an arrow's head.
pub(crate) const HEAD: f64 = 9.0;
/// Around everything.
pub(crate) const MARGIN: f64 = 24.0;

/// A node as it is drawn.
#[derive(Clone, Debug)]
pub(crate) struct NodeBox {
    pub(crate) rect: Rect,
    pub(crate) name: String,
    pub(crate) what: String,
}

/// A step of an edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Straight to a point.
    Line(f64, f64),
    /// A curve to a point: two points that pull, and the end.
    Curve((f64, f64), (f64, f64), (f64, f64)),
}

/// An edge as it is drawn.
#[derive(Clone, Debug)]
pub(crate) struct EdgePath {
    pub(crate) start: (f64, f64),
    pub(crate) steps: Vec<Step>,
    /// The tip of its head, and where that points to.
    pub(crate) tip: (f64, f64),
    pub(crate) points: (f64, f64),
    pub(crate) is_back: bool,
    /// What is written at it, and where that begins; nothing if another edge of the same door says it.
    pub(crate) label: Option<(f64, f64, String)>,
}

/// All of it, without margin.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub(crate) boxes: Vec<NodeBox>,
    pub(crate) edges: Vec<EdgePath>,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// How far below the middle of a box a door is.
fn door(slot: u8) -> f64 {
    match slot {
        LATE => -15.0,
        ERRORS => 15.0,
        BACK => 21.0,
        _ => 0.0,
    }
}

struct Column {
    x: f64,
    width: f64,
    /// What is straight behind it, for what is written at edges.
    lead: f64,
}

struct Drawing<'a> {
    picture: &'a Picture,
    layout: &'a Layout,
    size: Vec<f64>,
    centres: Vec<f64>,
    columns: Vec<Column>,
    boxes: Vec<NodeBox>,
    /// Where links end at the left side of boxes, below its middle: by box, where from, which door.
    arrivals: BTreeMap<(usize, usize, u8), f64>,
}

pub(crate) fn geometry(picture: &Picture, layout: &Layout) -> Geometry {
    let is_node = |vertex: usize| layout.vertices[vertex].node.is_some();
    let size: Vec<f64> = (0..layout.vertices.len())
        .map(|vertex| match is_node(vertex) {
            true => {
                let needed = layout.up[vertex].len() as f64 * APART + 8.0;
                needed.clamp(shape::HEIGHT, BOX_HEIGHT_MAX)
            }
            false => 2.0,
        })
        .collect();
    let gap = |near: usize, far: usize| match (is_node(near), is_node(far)) {
        (true, true) => 26.0,
        (false, false) => 14.0,
        _ => 20.0,
    };
    let centres = layout.place(&size, &gap, 40.0);
    let mut drawing = Drawing {
        picture,
        layout,
        size,
        centres,
        columns: Vec::new(),
        boxes: Vec::new(),
        arrivals: BTreeMap::new(),
    };
    drawing.make_boxes();
    drawing.make_arrivals();
    let edges = drawing.edges();
    let width = drawing
        .columns
        .last()
        .map_or(0.0, |last| last.x + last.width);
    let bottom = drawing.boxes.iter().map(|node| node.rect.bottom());
    let bends = drawing.centres.iter().copied();
    let height = bottom.chain(bends).fold(0.0, f64::max);
    Geometry {
        boxes: drawing.boxes,
        edges,
        width,
        height,
    }
}

impl Drawing<'_> {
    fn make_boxes(&mut self) {
        let mut columns: Vec<Column> = Vec::new();
        columns.resize_with(self.layout.layers, || Column {
            x: 0.0,
            width: BOX_WIDTH_MIN,
            lead: 12.0,
        });
        let mut texts = Vec::with_capacity(self.picture.nodes().len());
        for (number, node) in self.picture.nodes().iter().enumerate() {
            let mut name = text::line(&node.name, NAME_CHARACTERS_MAX);
            if name.is_empty() {
                name.push('?');
            }
            let what = node.details.first().map_or("", String::as_str);
            let what = text::line(what, WHAT_CHARACTERS_MAX);
            let needed = f64::max(
                text::bold_width(&name, NAME_SIZE),
                text::mono_width(&what, WHAT_SIZE),
            );
            let column = &mut columns[self.layout.vertices[number].layer];
            let width = needed + shape::padding(node.kind);
            column.width = column.width.max(width.ceil());
            texts.push((name, what));
        }
        let routes = self.layout.routes.iter().zip(self.picture.edges());
        for (route, edge) in routes.filter(|(route, _)| !route.is_back) {
            let Some(first) = route.vertices.first() else {
                continue;
            };
            let label = edge.label();
            if !label.is_empty() {
                let column = &mut columns[self.layout.vertices[*first].layer];
                let width = text::bold_width(&label, LABEL_SIZE) * 0.95 + 12.0;
                column.lead = column.lead.max(width.ceil());
            }
        }
        // The farther edges go up or down between two columns, the more room they have for it.
        let mut climb = vec![0.0_f64; self.layout.layers];
        for (vertex, links) in self.layout.down.iter().enumerate() {
            for link in links {
                let way = (self.centres[vertex] - self.centres[link.vertex]).abs();
                let layer = self.layout.vertices[vertex].layer;
                climb[layer] = climb[layer].max(way);
            }
        }
        let mut x = 0.0;
        for (column, climb) in columns.iter_mut().zip(climb) {
            column.x = x;
            x += column.width + column.lead + (44.0 + climb * 0.13).min(110.0).round() + HEAD;
        }
        for (number, (name, what)) in texts.into_iter().enumerate() {
            let column = &columns[self.layout.vertices[number].layer];
            self.boxes.push(NodeBox {
                rect: Rect {
                    x: column.x,
                    y: self.centres[number] - self.size[number] / 2.0,
                    width: column.width,
                    height: self.size[number],
                },
                name,
                what,
            });
        }
        self.columns = columns;
    }

    /// Where a link leaves its first vertex.
    fn departure(&self, vertex: usize, slot: u8) -> f64 {
        match self.layout.vertices[vertex].node {
            Some(_) => self.centres[vertex] + door(slot),
            None => self.centres[vertex],
        }
    }

    /// Edges arrive straight where they can, side by side, in the order in which they come.
    fn make_arrivals(&mut self) {
        for node in 0..self.boxes.len() {
            let centre = self.centres[node];
            let mut links: Vec<(f64, usize, u8)> = self.layout.up[node]
                .iter()
                .map(|link| {
                    let from = self.departure(link.vertex, link.slot) - centre;
                    (from, link.vertex, link.slot)
                })
                .collect();
            links.sort_by(|left, right| left.0.total_cmp(&right.0));
            let reach = self.size[node] / 2.0 - 9.0;
            let others = links.len().saturating_sub(1) as f64;
            let apart = f64::min(APART, 2.0 * reach / others.max(1.0));
            let band = apart * others / 2.0;
            let mut next = -reach;
            let mut offsets = Vec::with_capacity(links.len());
            for (number, (from, ..)) in links.iter().enumerate() {
                let wanted = match from.abs() <= reach {
                    true => *from,
                    false => from.clamp(-band, band),
                };
                let room = reach - apart * (others - number as f64);
                let offset = wanted.max(next).min(room);
                offsets.push(offset);
                next = offset + apart;
            }
            for ((_, from, slot), offset) in links.into_iter().zip(offsets) {
                self.arrivals.insert((node, from, slot), offset);
            }
        }
    }

    fn edges(&self) -> Vec<EdgePath> {
        let mut told = std::collections::BTreeSet::new();
        let routes = self.layout.routes.iter().zip(self.picture.edges());
        routes
            .map(|(route, edge)| {
                let (Some(first), Some(last)) = (route.vertices.first(), route.vertices.last())
                else {
                    return self.circle(edge.from);
                };
                let mut path = self.path(*first, *last, &route.vertices, route.slot, route.is_back);
                let label = edge.label();
                let is_first =
                    !label.is_empty() && !route.is_back && told.insert((*first, route.slot));
                if is_first {
                    let x = self.boxes[*first].rect.right() + 5.0;
                    path.label = Some((x, path.start.1 - 4.0, label));
                }
                path
            })
            .collect()
    }

    fn path(
        &self,
        first: usize,
        last: usize,
        vertices: &[usize],
        slot: u8,
        is_back: bool,
    ) -> EdgePath {
        let kind = |node: usize| self.picture.nodes()[node].kind;
        let y = self.departure(first, slot);
        let (_, inset) = shape::insets(kind(first), self.size[first], door(slot));
        let x = self.boxes[first].rect.right() - inset;
        let mut steps = Vec::with_capacity(vertices.len() * 2);
        let start = match is_back {
            false => (x, y),
            true => (x + HEAD - 1.0, y),
        };
        let mut at = (x, y);
        let mut before = (first, slot);
        let mut tip = at;
        for vertex in vertices.iter().copied().skip(1) {
            let column = &self.columns[self.layout.vertices[before.0].layer];
            let lead = (column.x + column.width + column.lead, at.1);
            if lead.0 > at.0 {
                steps.push(Step::Line(lead.0, lead.1));
                at = lead;
            }
            let next = &self.columns[self.layout.vertices[vertex].layer];
            let to = match vertex == last {
                false => (next.x, self.centres[vertex]),
                true => {
                    let arrival = self.arrivals.get(&(last, before.0, before.1));
                    let below = arrival.copied().unwrap_or(0.0);
                    let (inset, _) = shape::insets(kind(last), self.size[last], below);
                    tip = (next.x + inset, self.centres[last] + below);
                    let line_end = if is_back { tip.0 } else { tip.0 - HEAD + 1.0 };
                    (line_end, tip.1)
                }
            };
            // Straight once more before the head, whatever the shape.
            let end = (to.0.min(next.x - HEAD + 1.0), to.1);
            if (end.1 - at.1).abs() < 0.05 {
                steps.push(Step::Line(end.0, end.1));
            } else {
                let half = (at.0 + end.0) / 2.0;
                steps.push(Step::Curve((half, at.1), (half, end.1), end));
            }
            if to.0 > end.0 {
                steps.push(Step::Line(to.0, to.1));
            }
            at = to;
            before = (vertex, OUT);
        }
        EdgePath {
            start,
            steps,
            tip: if is_back { (x, y) } else { tip },
            points: if is_back { (-1.0, 0.0) } else { (1.0, 0.0) },
            is_back,
            label: None,
        }
    }

    /// From a node to itself: a loop over its upper side.
    fn circle(&self, node: usize) -> EdgePath {
        let rect = self.boxes[node].rect;
        let (from, to) = (rect.right() - 30.0, rect.right() - 58.0);
        let over = rect.y - 18.0;
        EdgePath {
            start: (from, rect.y),
            steps: vec![Step::Curve(
                (from, over),
                (to, over),
                (to, rect.y - HEAD + 1.0),
            )],
            tip: (to, rect.y),
            points: (0.0, 1.0),
            is_back: true,
            label: None,
        }
    }
}
