//! Boxes and arrows in the cells of a terminal.
//!
//! Everything is reckoned along the direction of rows and across it, whichever of them is from left
//! to right. Lines run along beside the boxes of a layer, and turn only between layers.

use std::collections::BTreeMap;

use super::{
    canvas::{Canvas, Pen},
    channel::{Net, tracks},
};
use crate::draw::{
    layout::{BACK, ERRORS, LATE, Layout, OUT},
    picture::{Node, Picture},
    text,
};

const NAME_CHARACTERS_MAX: usize = 24;
const WHAT_CHARACTERS_MAX: usize = 24;
/// Largest picture, in cells: beyond it a list says more.
const CELLS_MAX: usize = 400_000;

/// Where rows flow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Right,
    Down,
}

impl Direction {
    /// Column and row of a place along and across.
    const fn cell(self, along: usize, across: usize) -> (usize, usize) {
        match self {
            Self::Right => (along, across),
            Self::Down => (across, along),
        }
    }
}

/// A box before it has a place.
struct Frame {
    lines: Vec<String>,
    head: String,
    /// Columns and rows.
    width: usize,
    height: usize,
}

impl Frame {
    fn new(node: &Node, is_circle: bool) -> Self {
        let mut name = text::line(&node.name, NAME_CHARACTERS_MAX);
        if name.is_empty() {
            name.push('?');
        }
        let what = node.details.first().map_or("", String::as_str);
        let marks = node.marks.iter().map(|mark| format!("! {mark}"));
        let mut lines = vec![name, text::line(what, WHAT_CHARACTERS_MAX)];
        lines.extend(marks.map(|mark| text::line(&mark, WHAT_CHARACTERS_MAX)));
        lines.retain(|line| !line.is_empty());
        let circle = if is_circle { " ↺" } else { "" };
        let head = format!(" {}{circle} ", node.kind.word());
        let longest = lines.iter().map(|line| text::columns(line)).max();
        Self {
            width: longest.unwrap_or(0).max(text::columns(&head)) + 4,
            height: lines.len().max(2) + 2,
            lines,
            head,
        }
    }

    const fn across(&self, direction: Direction) -> usize {
        match direction {
            Direction::Right => self.height,
            Direction::Down => self.width,
        }
    }

    fn along(&self, direction: Direction) -> usize {
        match direction {
            Direction::Right => self.width,
            Direction::Down => self.height,
        }
    }
}

/// A layer, or the space behind one.
#[derive(Clone, Copy, Default)]
struct Stripe {
    first: usize,
    length: usize,
}

struct Drawing<'a> {
    layout: &'a Layout,
    direction: Direction,
    frames: Vec<Frame>,
    /// The doors of each node that lines leave by, with what is written at them.
    doors: BTreeMap<(usize, u8), String>,
    /// The node and door that each bend's lines come from.
    trunks: BTreeMap<usize, (usize, u8)>,
    /// The middle cell across of each vertex.
    middle: Vec<usize>,
    /// The cell across where lines leave a node by a door.
    departures: BTreeMap<(usize, u8), usize>,
    /// The cell across where lines from a vertex and door arrive at a node.
    arrivals: BTreeMap<(usize, usize, u8), usize>,
}

/// The picture, if it is not wider than so many columns.
pub(crate) fn boxes(
    picture: &Picture,
    layout: &Layout,
    direction: Direction,
    columns: usize,
) -> Option<String> {
    if picture.nodes().is_empty() {
        return None;
    }
    let mut drawing = Drawing::new(picture, layout, direction);
    drawing.place();
    drawing.draw(columns)
}

impl<'a> Drawing<'a> {
    fn new(picture: &Picture, layout: &'a Layout, direction: Direction) -> Self {
        let mut is_circle = vec![false; picture.nodes().len()];
        let mut doors: BTreeMap<(usize, u8), String> = BTreeMap::new();
        let mut trunks = BTreeMap::new();
        for (route, edge) in layout.routes.iter().zip(picture.edges()) {
            let Some(first) = route.vertices.first().copied() else {
                is_circle[edge.from] = true;
                continue;
            };
            let label = if route.is_back {
                String::new()
            } else {
                edge.label()
            };
            doors.insert((first, route.slot), label);
            for bend in route.vertices.iter().skip(1) {
                if layout.vertices[*bend].node.is_none() {
                    trunks.insert(*bend, (first, route.slot));
                }
            }
        }
        let nodes = picture.nodes().iter().zip(is_circle);
        let mut frames: Vec<Frame> = nodes
            .map(|(node, is_circle)| Frame::new(node, is_circle))
            .collect();
        let mut widths: BTreeMap<usize, usize> = BTreeMap::new();
        for ((node, _), label) in &doors {
            *widths.entry(*node).or_default() += room(direction, label);
        }
        for (node, frame) in frames.iter_mut().enumerate() {
            let leaving = widths.get(&node).copied().unwrap_or(0);
            let arriving = layout.up[node].len() * apart(direction);
            let needed = leaving.max(arriving) + 2;
            match direction {
                Direction::Right => frame.height = frame.height.max(needed),
                Direction::Down => frame.width = frame.width.max(needed),
            }
        }
        Self {
            layout,
            direction,
            frames,
            doors,
            trunks,
            middle: Vec::new(),
            departures: BTreeMap::new(),
            arrivals: BTreeMap::new(),
        }
    }

    /// Places everything across.
    fn place(&mut self) {
        let is_node = |vertex: usize| self.layout.vertices[vertex].node.is_some();
        let size: Vec<f64> = (0..self.layout.vertices.len())
            .map(|vertex| match self.frames.get(vertex) {
                // One cell more than it takes, and an odd number: see `Layout::place`.
                Some(frame) => ((frame.across(self.direction) + 1) | 1) as f64,
                None => 1.0,
            })
            .collect();
        let gap = |near: usize, far: usize| match (self.direction, is_node(near), is_node(far)) {
            (Direction::Right, true, true) => 0.0,
            (Direction::Right, false, false) => 0.0,
            _ => 1.0,
        };
        let centres = self.layout.place(&size, &gap, 1.0);
        self.middle = centres
            .iter()
            .map(|centre| (centre - 0.5).floor().max(0.0) as usize)
            .collect();
        for node in 0..self.frames.len() {
            let (first, last) = self.extent(node);
            let middle = self.middle[node];
            let doors: Vec<(u8, usize)> = self
                .doors
                .range((node, LATE)..=(node, BACK))
                .map(|((_, slot), label)| (*slot, room(self.direction, label)))
                .collect();
            let before = doors.iter().take_while(|(slot, _)| *slot < OUT);
            let before: usize = before.map(|(_, room)| room).sum();
            let all: usize = doors.iter().map(|(_, room)| room).sum();
            let mut at = fit(middle, before, all, first, last);
            for (slot, room) in doors {
                self.departures.insert((node, slot), at);
                at += room;
            }
        }
        for node in 0..self.frames.len() {
            let (first, last) = self.extent(node);
            let mut links: Vec<(usize, usize, u8)> = self.layout.up[node]
                .iter()
                .map(|link| {
                    let from = self.departure(link.vertex, link.slot);
                    (from, link.vertex, link.slot)
                })
                .collect();
            links.sort_unstable();
            let apart = apart(self.direction);
            let all = links.len() * apart;
            let before = links.len().saturating_sub(1) / 2 * apart;
            let start = fit(self.middle[node], before, all, first, last);
            for (number, (_, vertex, slot)) in links.into_iter().enumerate() {
                let at = start + number * apart;
                self.arrivals.insert((node, vertex, slot), at);
            }
        }
    }

    /// The first and the last cell of a box across.
    fn extent(&self, node: usize) -> (usize, usize) {
        let length = self.frames[node].across(self.direction);
        let first = self.middle[node].saturating_sub((length - 1) / 2);
        (first, first + length - 1)
    }

    fn departure(&self, vertex: usize, slot: u8) -> usize {
        let door = self.departures.get(&(vertex, slot));
        door.copied().unwrap_or(self.middle[vertex])
    }

    fn pen(&self, vertex: usize, slot: u8) -> Pen {
        let (node, slot) = self.trunks.get(&vertex).copied().unwrap_or((vertex, slot));
        Pen {
            net: node * 4 + usize::from(slot) + 1,
            is_dashed: matches!(slot, LATE | ERRORS | BACK),
        }
    }

    fn is_back(&self, vertex: usize, slot: u8) -> bool {
        let (_, slot) = self.trunks.get(&vertex).copied().unwrap_or((vertex, slot));
        slot == BACK
    }

    /// What lies behind each layer: nets with tracks, and how many of those.
    fn channels(&self) -> Vec<(Vec<Net>, usize)> {
        let mut nets: Vec<Vec<Net>> = vec![Vec::new(); self.layout.layers];
        for (vertex, links) in self.layout.down.iter().enumerate() {
            let mut by_door: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for link in links {
                let arrival = self.arrivals.get(&(link.vertex, vertex, link.slot));
                let to = arrival.copied().unwrap_or(self.middle[link.vertex]);
                by_door.entry(link.slot).or_default().push(to);
            }
            for (slot, to) in by_door {
                let from = self.departure(vertex, slot);
                let layer = self.layout.vertices[vertex].layer;
                nets[layer].push(Net::new(vertex * 4 + usize::from(slot), from, to));
            }
        }
        nets.into_iter().map(tracks).collect()
    }

    fn draw(&self, columns: usize) -> Option<String> {
        // What is certainly too large is not looked at closely.
        let across = |node: usize| self.extent(node).1 + 1;
        let widest = (0..self.frames.len()).map(across).max().unwrap_or(0);
        let is_down = self.direction == Direction::Down;
        if (is_down && widest > columns) || widest > CELLS_MAX {
            return None;
        }
        if self.direction == Direction::Right && self.layout.layers * 8 > columns {
            return None;
        }
        let channels = self.channels();
        let mut layers: Vec<Stripe> = Vec::with_capacity(channels.len());
        let mut spaces: Vec<Stripe> = Vec::with_capacity(channels.len());
        let mut next = 0;
        for (number, (nets, tracks)) in channels.iter().enumerate() {
            let members = self.layout.vertices.iter().zip(&self.frames);
            let length = members
                .filter(|(vertex, _)| vertex.layer == number)
                .map(|(_, frame)| frame.along(self.direction))
                .max();
            let length = length.unwrap_or(0);
            layers.push(Stripe {
                first: next,
                length,
            });
            next += length;
            let is_last = number + 1 == channels.len();
            let space = match nets.is_empty() {
                true if is_last => 0,
                _ => self.lead(number) + tracks + 2,
            };
            spaces.push(Stripe {
                first: next,
                length: space,
            });
            next += space;
        }
        let turns = channels.iter().flat_map(|(nets, _)| nets);
        let turned = turns.map(|net| net.ends().1 + 1).max().unwrap_or(0);
        let bent = self.middle.iter().copied().max().unwrap_or(0) + 1;
        let (width, height) = self.direction.cell(next, widest.max(turned).max(bent));
        if width > columns || width.saturating_mul(height) > CELLS_MAX {
            return None;
        }
        let mut canvas = Canvas::new(width, height);
        for (vertex, place) in self.layout.vertices.iter().enumerate() {
            let stripe = layers[place.layer];
            if place.node.is_none() {
                let last = (stripe.first + stripe.length).max(1) - 1;
                self.run(
                    &mut canvas,
                    stripe.first,
                    last,
                    self.middle[vertex],
                    self.pen(vertex, OUT),
                );
            }
        }
        for (number, (nets, _)) in channels.iter().enumerate() {
            self.draw_nets(&mut canvas, nets, spaces[number], self.lead(number));
        }
        for node in 0..self.frames.len() {
            let layer = self.layout.vertices[node].layer;
            self.draw_box(&mut canvas, node, layers[layer]);
        }
        for ((node, slot), label) in &self.doors {
            let stripe = layers[self.layout.vertices[*node].layer];
            self.draw_door(&mut canvas, *node, *slot, label, stripe);
        }
        Some(canvas.rows())
    }

    /// How far lines run behind a layer before they turn, for what is written at them.
    fn lead(&self, layer: usize) -> usize {
        let doors = self.doors.iter();
        let labels = doors
            .filter(|((node, _), _)| self.layout.vertices[*node].layer == layer)
            .map(|(_, label)| text::columns(label))
            .max();
        match (labels.unwrap_or(0), self.direction) {
            (0, _) => 0,
            (label, Direction::Right) => label + 2,
            (_, Direction::Down) => 1,
        }
    }

    /// A line along.
    fn run(&self, canvas: &mut Canvas, from: usize, to: usize, across: usize, pen: Pen) {
        // A line over one cell leads out of it on both sides: it is drawn to the cells beside it.
        let cell = |along: usize| self.direction.cell(along, across);
        canvas.line(cell(from.saturating_sub(1)), cell(to + 1), pen);
    }

    fn draw_nets(&self, canvas: &mut Canvas, nets: &[Net], space: Stripe, lead: usize) {
        let last = space.first + space.length.max(1) - 1;
        let cell = |along: usize, across: usize| self.direction.cell(along, across);
        for net in nets {
            let pen = self.pen(net.owner / 4, (net.owner % 4) as u8);
            let Some(track) = net.track else {
                self.run(canvas, space.first, last, net.from, pen);
                continue;
            };
            let turn = space.first + lead + 1 + track;
            let first = net.after.and_then(|after| nets.get(after)?.track);
            let start = match first {
                Some(track) => space.first + lead + 1 + track,
                None => space.first.max(1) - 1,
            };
            canvas.line(cell(start, net.from), cell(turn, net.from), pen);
            let (near, far) = net.ends();
            canvas.line(cell(turn, near), cell(turn, far), pen);
            if !net.is_continued {
                for to in &net.to {
                    canvas.line(cell(turn, *to), cell(last + 1, *to), pen);
                }
            }
        }
    }

    fn draw_box(&self, canvas: &mut Canvas, node: usize, stripe: Stripe) {
        let frame = &self.frames[node];
        let (first, _) = self.extent(node);
        let (x, y) = self.direction.cell(stripe.first, first);
        let (width, height) = match self.direction {
            Direction::Right => (stripe.length, frame.height),
            Direction::Down => (frame.width, stripe.length),
        };
        // Nothing of a line is seen through a box.
        for row in y..y + height {
            for column in x..x + width {
                canvas.letter(column, row, ' ');
            }
        }
        canvas.frame(x, y, width, height);
        canvas.text(x + 2, y, &frame.head);
        for (row, line) in frame.lines.iter().enumerate() {
            canvas.text(x + 2, y + 1 + row, line);
        }
        let (to_node, from_node) = match self.direction {
            Direction::Right => ('▶', '┤'),
            Direction::Down => ('▼', '┴'),
        };
        for link in &self.layout.up[node] {
            let Some(at) = self.arrivals.get(&(node, link.vertex, link.slot)) else {
                continue;
            };
            let along = stripe.first;
            if self.is_back(link.vertex, link.slot) {
                let (x, y) = self.direction.cell(along, *at);
                canvas.letter(x, y, from_node);
            } else {
                let (x, y) = self.direction.cell(along.max(1) - 1, *at);
                canvas.letter(x, y, to_node);
            }
        }
    }

    fn draw_door(&self, canvas: &mut Canvas, node: usize, slot: u8, label: &str, stripe: Stripe) {
        let at = self.departure(node, slot);
        let side = stripe.first + stripe.length.max(1) - 1;
        let (border, back) = match self.direction {
            Direction::Right => ('├', '◀'),
            Direction::Down => ('┬', '▲'),
        };
        if slot == BACK {
            let (x, y) = self.direction.cell(side + 1, at);
            canvas.letter(x, y, back);
            return;
        }
        let (x, y) = self.direction.cell(side, at);
        canvas.letter(x, y, border);
        match self.direction {
            Direction::Right => canvas.text(x + 2, y, label),
            Direction::Down => canvas.text(x + 2, y + 1, label),
        }
    }
}

/// Cells that the lines through a door take across.
fn room(direction: Direction, label: &str) -> usize {
    match (direction, text::columns(label)) {
        (Direction::Right, _) => 1,
        (Direction::Down, 0) => 2,
        (Direction::Down, columns) => columns + 4,
    }
}

/// Cells from one arriving line to the next.
const fn apart(direction: Direction) -> usize {
    match direction {
        Direction::Right => 1,
        Direction::Down => 2,
    }
}

/// The first of some cells, `before` of which should be before the middle, all of them inside of a
/// box.
fn fit(middle: usize, before: usize, all: usize, first: usize, last: usize) -> usize {
    let wanted = middle.saturating_sub(before);
    wanted.min(last.saturating_sub(all)).max(first + 1)
}
