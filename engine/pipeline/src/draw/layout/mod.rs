//! Where things go: a layered layout, in numbers without a unit, for whoever draws it.
//!
//! ```text
//! Picture ─rank─▶ a layer for each node ─expand─▶ edges only between neighbouring layers, through bends
//!         ─order─▶ few crossings in each layer ─place─▶ coordinates across, chains straight
//! ```
//!
//! "Along" is the direction that rows flow in, "across" is the other one. The edges that leave a node
//! by one door share their bends as far as they go the same way, as one trunk. The same picture is
//! always laid out in the same way.

mod expand;
mod order;
mod place;
mod rank;

use crate::draw::{
    DrawError,
    picture::{Exit, Picture},
};

/// The side of a door: in which order doors stand across a node.
pub(crate) const LATE: u8 = 0;
pub(crate) const OUT: u8 = 1;
pub(crate) const ERRORS: u8 = 2;
/// Where an edge against the direction arrives.
pub(crate) const BACK: u8 = 3;

const fn slot(exit: Exit) -> u8 {
    match exit {
        Exit::Late => LATE,
        Exit::Out => OUT,
        Exit::Errors => ERRORS,
    }
}

/// A place in a layer: a node, or a bend of the edges that pass it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vertex {
    /// The node; `None` for a bend.
    pub(crate) node: Option<usize>,
    /// Number of its layer.
    pub(crate) layer: usize,
}

/// One end of what connects vertices of neighbouring layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The vertex at the other end.
    pub(crate) vertex: usize,
    /// The door of the end in the earlier layer.
    pub(crate) slot: u8,
}

/// How an edge goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    /// Its vertices from layer to layer; empty if it leads from a node to itself.
    pub(crate) vertices: Vec<usize>,
    /// The door at the first of them.
    pub(crate) slot: u8,
    /// Whether the edge leads from the last to the first: it closes a circle.
    pub(crate) is_back: bool,
}

/// A layout: layers, and the order in each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Vertex n is node n, as far as there are nodes.
    pub(crate) vertices: Vec<Vertex>,
    /// What each vertex is connected with in the layer before.
    pub(crate) up: Vec<Vec<Link>>,
    /// And in the layer behind.
    pub(crate) down: Vec<Vec<Link>>,
    /// How each edge goes.
    pub(crate) routes: Vec<Route>,
    /// Parts that nothing connects: the vertices of each layer, in order.
    pub(crate) parts: Vec<Vec<Vec<usize>>>,
    /// How many layers there are.
    pub(crate) layers: usize,
}

impl Layout {
    /// Lays a picture out.
    ///
    /// # Errors
    /// If its edges are too long to be followed.
    pub(crate) fn new(picture: &Picture) -> Result<Self, DrawError> {
        let ranks = rank::ranks(picture);
        let mut layout = expand::expand(picture, &ranks)?;
        let mut work = order::WORK_MAX;
        let mut position = vec![0; layout.vertices.len()];
        layout.parts = order::parts(&layout)
            .into_iter()
            .map(|part| order::arrange(&layout, &mut position, &mut work, part))
            .collect();
        Ok(layout)
    }

    /// The centre of each vertex across, from 0 on. `size` is what each takes across, `gap` what is
    /// at least between two neighbours, `between` what is between parts. With odd sizes and whole
    /// gaps the near sides of all vertices, rounded down, are as far apart as asked.
    pub(crate) fn place(
        &self,
        size: &[f64],
        gap: &dyn Fn(usize, usize) -> f64,
        between: f64,
    ) -> Vec<f64> {
        let mut centres = vec![0.0; self.vertices.len()];
        let mut local = vec![0; self.vertices.len()];
        let mut next = 0.0;
        for layers in &self.parts {
            let part = place::Part::new(self, &mut local, layers, size);
            let placed = part.place(gap);
            let (near, far) = part.ends(&placed);
            for (vertex, centre) in part.members.iter().zip(placed) {
                centres[*vertex] = centre - near + next;
            }
            next += far - near + between;
        }
        centres
    }
}

#[cfg(test)]
mod tests;
