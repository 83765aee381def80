//! A picture in the language of Graphviz.

use std::fmt::Write as _;

use crate::draw::{
    picture::{Exit, Kind, Picture},
    svg::light,
    text,
};

const NAME_CHARACTERS_MAX: usize = 64;
const WHAT_CHARACTERS_MAX: usize = 40;

const fn shape(kind: Kind) -> &'static str {
    match kind {
        Kind::Stream => "shape=box, style=\"filled,rounded,bold\"",
        Kind::Route => "shape=hexagon",
        Kind::Map => "shape=box, style=\"filled,rounded\"",
        Kind::Lookup => "shape=component",
        Kind::Window => "shape=tab",
        Kind::Missing => "shape=box, style=\"filled,rounded,dashed\"",
        Kind::Detect => "shape=parallelogram",
        Kind::Alert => "shape=octagon",
        Kind::Action => "shape=cds",
        Kind::Display => "shape=note",
        Kind::Store => "shape=cylinder",
    }
}

pub(crate) fn dot(picture: &Picture) -> String {
    let mut out = String::from(
        "digraph pipeline {\n  rankdir=LR; bgcolor=\"transparent\"; nodesep=0.35; ranksep=0.7;\n  \
         node [fontname=\"Helvetica,Arial,sans-serif\", fontsize=13, fontcolor=\"#18202b\", style=filled, margin=\"0.2,0.1\"];\n  \
         edge [fontname=\"Helvetica,Arial,sans-serif\", fontsize=10, color=\"#66717f\", fontcolor=\"#3b4656\", arrowsize=0.8];\n",
    );
    for (number, node) in picture.nodes().iter().enumerate() {
        let mut name = text::line(&node.name, NAME_CHARACTERS_MAX);
        if name.is_empty() {
            name.push('?');
        }
        let mut label = format!("<b>{}</b>", text::dot(&name));
        let what = node.details.first().map_or("", String::as_str);
        let what = text::line(what, WHAT_CHARACTERS_MAX);
        if !what.is_empty() {
            let _ = write!(
                label,
                "<br/><font point-size=\"10\">{}</font>",
                text::dot(&what)
            );
        }
        let marks = text::line(&node.marks.join(" · "), WHAT_CHARACTERS_MAX);
        if !marks.is_empty() {
            let _ = write!(
                label,
                "<br/><font point-size=\"10\" color=\"#b3261e\"><b>{}</b></font>",
                text::dot(&marks)
            );
        }
        let (fill, border) = light(node.kind);
        let _ = writeln!(
            out,
            "  n{number} [label=<{label}>, class=\"{}\", {}, fillcolor=\"{fill}\", color=\"{border}\"];",
            node.kind.word(),
            shape(node.kind)
        );
    }
    for edge in picture.edges() {
        let label = edge.label();
        let label = match label.is_empty() {
            true => String::new(),
            false => format!("label=\"{label}\""),
        };
        let style = match edge.exit {
            Exit::Out => "",
            Exit::Late => "style=dashed, color=\"#8f6200\", fontcolor=\"#8f6200\"",
            Exit::Errors => "style=dotted, color=\"#b3261e\", fontcolor=\"#b3261e\"",
        };
        let attributes = [label.as_str(), style]
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let attributes = match attributes.is_empty() {
            true => String::new(),
            false => format!(" [{attributes}]"),
        };
        let _ = writeln!(out, "  n{} -> n{}{attributes};", edge.from, edge.to);
    }
    for (rank, is_there) in [("min", true), ("max", false)] {
        let nodes = picture.nodes().iter().enumerate();
        let numbers: String = nodes
            .filter(|(_, node)| match is_there {
                true => node.kind == Kind::Stream,
                false => node.kind.is_sink(),
            })
            .map(|(number, _)| format!(" n{number};"))
            .collect();
        if !numbers.is_empty() {
            let _ = writeln!(out, "  {{ rank={rank};{numbers} }}");
        }
    }
    out.push_str("}\n");
    out
}
