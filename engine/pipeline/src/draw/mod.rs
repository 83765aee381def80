//! The picture of a graph.
//!
//! ```text
//! Graph, Rates ─from_graph─▶ Picture (plain data) ─┬─layout─▶ layers, places ─┬─▶ svg
//!                                                  │                          └─▶ ascii: boxes, or a list if that is too wide
//!                                                  └─▶ dot, mermaid (laid out by who reads them)
//! ```
//!
//! Names and settings come from outside: they are cleaned and cut (`text`) and escaped for the format
//! they are put in. The same graph always makes the same picture.

mod ascii;
mod dot;
mod from_graph;
mod layout;
mod mermaid;
mod picture;
mod svg;
mod text;

use std::{fmt, str::FromStr};

pub use ascii::Terminal;
pub use from_graph::{Rates, picture};
pub use picture::{EDGES_MAX, Edge, Exit, Kind, NODES_MAX, Node, Picture, rate_text};

use crate::graph::Graph;

/// What a picture is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Scalable Vector Graphics, complete in one file.
    Svg,
    /// The language of Graphviz.
    Dot,
    /// A Mermaid flowchart, as in Markdown.
    Mermaid,
    /// Text for a terminal.
    Ascii,
}

impl Format {
    /// All of them, as they are offered.
    pub const ALL: [Self; 4] = [Self::Svg, Self::Dot, Self::Mermaid, Self::Ascii];

    /// As it is written on a command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Dot => "dot",
            Self::Mermaid => "mermaid",
            Self::Ascii => "ascii",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// There is no such format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no format of a picture; there is svg, dot, mermaid and ascii")]
pub struct NoSuchFormat(String);

impl FromStr for Format {
    type Err = NoSuchFormat;

    fn from_str(text: &str) -> Result<Self, NoSuchFormat> {
        let mut all = Self::ALL.into_iter();
        all.find(|format| format.word() == text)
            .ok_or_else(|| NoSuchFormat(text::line(text, 40)))
    }
}

/// A graph cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// There are too many nodes.
    #[error("a picture has at most {NODES_MAX} nodes")]
    TooManyNodes,
    /// There are too many connections.
    #[error("a picture has at most {EDGES_MAX} connections")]
    TooManyEdges,
    /// Connections are too many and too long.
    #[error(
        "too many connections pass too many other nodes for a picture of boxes; `dot` and `mermaid` take more"
    )]
    TooTangled,
    /// A connection names a node that is not there.
    #[error("there is no node of number {0}")]
    NoSuchNode(usize),
}

/// Draws a graph, with rows a second at its connections where rates are given. Text is drawn for the
/// usual terminal; [`draw_text`] draws it for another one.
///
/// # Errors
/// If the graph is larger than a picture can be.
pub fn draw(graph: &Graph, rates: Option<&Rates>, format: Format) -> Result<String, DrawError> {
    write(&picture(graph, rates)?, format, Terminal::default())
}

/// Draws a graph as text for a terminal.
///
/// # Errors
/// If the graph is larger than a picture can be.
pub fn draw_text(
    graph: &Graph,
    rates: Option<&Rates>,
    terminal: Terminal,
) -> Result<String, DrawError> {
    write(&picture(graph, rates)?, Format::Ascii, terminal)
}

fn write(picture: &Picture, format: Format, terminal: Terminal) -> Result<String, DrawError> {
    Ok(match format {
        Format::Svg => svg::svg(picture, &layout::Layout::new(picture)?),
        Format::Dot => dot::dot(picture),
        Format::Mermaid => mermaid::mermaid(picture),
        Format::Ascii => ascii::ascii(picture, terminal),
    })
}

#[cfg(test)]
mod tests;
