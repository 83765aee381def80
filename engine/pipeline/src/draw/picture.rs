//! A picture as plain data: what is drawn, without how. Every format is made of it.

use crate::draw::DrawError;

/// Most nodes of a picture.
pub const NODES_MAX: usize = 2_000;
/// Most edges of a picture.
pub const EDGES_MAX: usize = 10_000;

/// What a node is: each kind has a colour and a shape of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What devices send.
    Stream,
    /// Takes some of the rows.
    Route,
    /// Makes other columns.
    Map,
    /// Adds columns.
    Lookup,
    /// Aggregates.
    Window,
    /// Says when nothing comes.
    Missing,
    /// Finds what is unusual.
    Detect,
    /// A rule that fires.
    Alert,
    /// What is done when it does.
    Action,
    /// What people look at.
    Display,
    /// Keeps rows.
    Store,
}

impl Kind {
    /// All of them, in the order of a legend.
    pub const ALL: [Self; 11] = [
        Self::Stream,
        Self::Route,
        Self::Map,
        Self::Lookup,
        Self::Window,
        Self::Missing,
        Self::Detect,
        Self::Alert,
        Self::Action,
        Self::Display,
        Self::Store,
    ];

    /// Its name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Route => "route",
            Self::Map => "map",
            Self::Lookup => "lookup",
            Self::Window => "window",
            Self::Missing => "missing",
            Self::Detect => "detect",
            Self::Alert => "alert",
            Self::Action => "action",
            Self::Display => "display",
            Self::Store => "store",
        }
    }

    /// Whether rows end there: it is drawn at the far end.
    pub const fn is_sink(self) -> bool {
        matches!(self, Self::Action | Self::Display | Self::Store)
    }
}

/// The door by which an edge leaves a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exit {
    /// What came too late.
    Late,
    /// What the node is for.
    Out,
    /// What failed.
    Errors,
}

impl Exit {
    /// What is written at an edge; nothing at what is usual.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Out => "",
            Self::Errors => "errors",
        }
    }
}

/// A box.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it does: the first line is in the box, all are told where there is room.
    pub details: Vec<String>,
    /// What should be seen at once: `errors 3/s`.
    pub marks: Vec<String>,
}

/// An arrow.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Number of the node whose rows it carries.
    pub from: usize,
    /// Number of the node that takes them.
    pub to: usize,
    /// By which door they leave.
    pub exit: Exit,
    /// Rows a second, where known.
    pub rate: Option<f64>,
}

impl Edge {
    /// What is written at it: door and rate, or nothing.
    pub fn label(&self) -> String {
        let rate = self.rate.map(rate_text).unwrap_or_default();
        match (self.exit.label(), rate.is_empty()) {
            (label, true) => label.to_owned(),
            ("", false) => rate,
            (label, false) => format!("{label} {rate}"),
        }
    }
}

/// Boxes and arrows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

impl Picture {
    /// Adds a box, and says its number.
    ///
    /// # Errors
    /// If there are [`NODES_MAX`].
    pub fn add(&mut self, node: Node) -> Result<usize, DrawError> {
        if self.nodes.len() >= NODES_MAX {
            return Err(DrawError::TooManyNodes);
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// Adds an arrow.
    ///
    /// # Errors
    /// If there are [`EDGES_MAX`], or a node it names is not there.
    pub fn connect(&mut self, edge: Edge) -> Result<(), DrawError> {
        if self.edges.len() >= EDGES_MAX {
            return Err(DrawError::TooManyEdges);
        }
        if edge.from.max(edge.to) >= self.nodes.len() {
            return Err(DrawError::NoSuchNode(edge.from.max(edge.to)));
        }
        self.edges.push(edge);
        Ok(())
    }

    /// The boxes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The arrows: both ends are numbers of boxes.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The kinds that occur, in the order of a legend.
    pub fn kinds(&self) -> Vec<Kind> {
        let occurs = |kind: &Kind| self.nodes.iter().any(|node| node.kind == *kind);
        Kind::ALL.into_iter().filter(occurs).collect()
    }

    /// What the picture shows, in one sentence.
    pub fn sentence(&self) -> String {
        let of = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {one}s"),
        };
        let nodes = of(self.nodes.len(), "node");
        format!(
            "Pipeline graph of {nodes} and {}",
            of(self.edges.len(), "connection")
        )
    }
}

/// Rows a second as people read them: `0/s`, `0.4/s`, `12/s`, `1.2k/s`, `34M/s`.
pub fn rate_text(rate: f64) -> String {
    if rate <= 0.0 || !rate.is_finite() {
        return "0/s".to_owned();
    }
    if rate < 0.05 {
        return "<0.1/s".to_owned();
    }
    let mut value = rate;
    let mut unit = "";
    for next in ["k", "M", "G", "T"] {
        // What would be written as 1000 belongs to the next unit.
        if value < 999.5 {
            break;
        }
        value /= 1_000.0;
        unit = next;
    }
    // A decimal says something of small numbers only, and not of whole rows.
    let is_whole = unit.is_empty() && (value - value.round()).abs() < 0.05;
    if value < 9.95 && !is_whole {
        format!("{value:.1}{unit}/s")
    } else {
        format!("{value:.0}{unit}/s")
    }
}
