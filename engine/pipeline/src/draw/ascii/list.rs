//! A picture as a list with branches, for graphs that are wider than a terminal: each connection is
//! in one line, each node is followed by what takes its rows where it is first named.

use std::collections::VecDeque;

use crate::draw::{
    picture::{Edge, Node, Picture},
    text,
};

/// Deepest branch; what is below it goes on at the left side.
const DEPTH_MAX: usize = 12;
const NAME_CHARACTERS_MAX: usize = 64;

pub(crate) fn list(picture: &Picture, columns: usize) -> String {
    let count = picture.nodes().len();
    let mut leaving: Vec<Vec<&Edge>> = vec![Vec::new(); count];
    let mut has_input = vec![false; count];
    for edge in picture.edges() {
        leaving[edge.from].push(edge);
        has_input[edge.to] |= edge.from != edge.to;
    }
    let mut list = List {
        picture,
        leaving,
        is_told: vec![false; count],
        is_followed: vec![false; count],
        columns: columns.max(40),
        out: String::new(),
    };
    let sources = (0..count).filter(|node| !has_input[*node]);
    // Nodes of a circle that nothing leads into are not reached from sources.
    let mut starts: VecDeque<usize> = sources.chain(0..count).collect();
    while let Some(start) = starts.pop_front() {
        if !list.is_followed[start] && (!list.is_told[start] || !list.leaving[start].is_empty()) {
            for cut in list.tree(start).into_iter().rev() {
                starts.push_front(cut);
            }
        }
    }
    list.out
}

struct List<'a> {
    picture: &'a Picture,
    leaving: Vec<Vec<&'a Edge>>,
    /// Whether a node's settings were told.
    is_told: Vec<bool>,
    /// Whether what takes its rows was told.
    is_followed: Vec<bool>,
    columns: usize,
    out: String,
}

impl<'a> List<'a> {
    /// Tells a node and what is behind it, and says where it stopped.
    fn tree(&mut self, start: usize) -> Vec<usize> {
        let mut cut = Vec::new();
        self.node("", start, "");
        self.is_followed[start] = true;
        // What is left to tell of each branch.
        let mut branches: Vec<std::vec::IntoIter<&'a Edge>> =
            vec![std::mem::take(&mut self.leaving[start]).into_iter()];
        while let Some(branch) = branches.last_mut() {
            let Some(edge) = branch.next() else {
                branches.pop();
                continue;
            };
            let is_last = branch.as_slice().is_empty();
            let depth = branches.len();
            let mut prefix = String::new();
            for branch in branches.iter().take(depth - 1) {
                let is_over = branch.as_slice().is_empty();
                prefix.push_str(if is_over { "    " } else { "│   " });
            }
            prefix.push(if is_last { '╰' } else { '├' });
            let label = edge.label();
            match edge.exit.label().is_empty() {
                true if label.is_empty() => prefix.push_str("─▶ "),
                true => prefix.push_str(&format!("─ {label} ─▶ ")),
                false => prefix.push_str(&format!("╌ {label} ╌▶ ")),
            }
            let has_more = !self.leaving[edge.to].is_empty();
            let (is_followed, is_deep) = (self.is_followed[edge.to], depth >= DEPTH_MAX);
            let sign = match (edge.from == edge.to, is_followed, has_more && is_deep) {
                (true, ..) => " ↺",
                (_, true, _) => " ↑",
                (.., true) => " …",
                _ => "",
            };
            self.node(&prefix, edge.to, sign);
            if is_followed || !has_more {
                continue;
            }
            if is_deep {
                cut.push(edge.to);
                continue;
            }
            self.is_followed[edge.to] = true;
            branches.push(std::mem::take(&mut self.leaving[edge.to]).into_iter());
        }
        cut
    }

    fn node(&mut self, prefix: &str, number: usize, sign: &str) {
        let Some(node) = self.picture.nodes().get(number) else {
            return;
        };
        let mut name = text::line(&node.name, NAME_CHARACTERS_MAX);
        if name.is_empty() {
            name.push('?');
        }
        let mut line = format!("{prefix}{name}{sign}");
        if !self.is_told[number] {
            self.is_told[number] = true;
            line.push_str("  ");
            line.push_str(&about(node));
        }
        // Blanks at the beginning are branches, and not to be cleaned away.
        let mut used = 0;
        let is_inside = |letter: &char| {
            used += text::columns_of(*letter);
            used < self.columns
        };
        let kept: String = line.chars().take_while(is_inside).collect();
        self.out.push_str(&kept);
        if kept.len() < line.len() {
            self.out.push('…');
        }
        self.out.push('\n');
    }
}

/// Kind, what it does, and marks.
fn about(node: &Node) -> String {
    let what = node.details.iter().take(1);
    std::iter::once(node.kind.word())
        .chain(what.map(String::as_str))
        .chain(node.marks.iter().map(String::as_str))
        .map(|part| text::line(part, NAME_CHARACTERS_MAX))
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" · ")
}
