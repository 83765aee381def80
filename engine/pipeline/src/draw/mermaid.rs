//! A picture as a Mermaid flowchart.

use std::fmt::Write as _;

use crate::draw::{
    picture::{Exit, Kind, Picture},
    svg::light,
    text,
};

const NAME_CHARACTERS_MAX: usize = 64;
const WHAT_CHARACTERS_MAX: usize = 40;

/// What stands on both sides of the text of a node.
const fn shape(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Stream => ("([", "])"),
        Kind::Route => ("{{", "}}"),
        Kind::Map => ("(", ")"),
        Kind::Lookup => ("[[", "]]"),
        Kind::Window => ("[", "]"),
        Kind::Missing => ("[/", "\\]"),
        Kind::Detect => ("[/", "/]"),
        Kind::Alert => (">", "]"),
        Kind::Action => ("[\\", "\\]"),
        Kind::Display => ("[\\", "/]"),
        Kind::Store => ("[(", ")]"),
    }
}

pub(crate) fn mermaid(picture: &Picture) -> String {
    let mut out = String::from("flowchart LR\n");
    for (number, node) in picture.nodes().iter().enumerate() {
        let mut name = text::line(&node.name, NAME_CHARACTERS_MAX);
        if name.is_empty() {
            name.push('?');
        }
        let mut label = format!("<b>{}</b>", text::mermaid(&name));
        let what = node.details.first().map_or("", String::as_str);
        let what = text::line(what, WHAT_CHARACTERS_MAX);
        let marks = text::line(&node.marks.join(" · "), WHAT_CHARACTERS_MAX);
        for line in [what, marks] {
            if !line.is_empty() {
                let _ = write!(label, "<br/>{}", text::mermaid(&line));
            }
        }
        let (open, close) = shape(node.kind);
        let _ = writeln!(
            out,
            "  n{number}{open}\"{label}\"{close}:::{}",
            node.kind.word()
        );
    }
    for edge in picture.edges() {
        let line = match edge.exit {
            Exit::Out => "-->",
            Exit::Late | Exit::Errors => "-.->",
        };
        let label = match edge.label() {
            label if label.is_empty() => label,
            label => format!("|\"{}\"|", text::mermaid(&label)),
        };
        let _ = writeln!(out, "  n{} {line}{label} n{}", edge.from, edge.to);
    }
    for (exit, colour) in [(Exit::Late, "#8f6200"), (Exit::Errors, "#b3261e")] {
        let edges = picture.edges().iter().enumerate();
        let numbers: Vec<String> = edges
            .filter(|(_, edge)| edge.exit == exit)
            .map(|(number, _)| number.to_string())
            .collect();
        if !numbers.is_empty() {
            let _ = writeln!(out, "  linkStyle {} stroke:{colour}", numbers.join(","));
        }
    }
    for kind in picture.kinds() {
        let (fill, border) = light(kind);
        let dashes = match kind {
            Kind::Missing => ",stroke-dasharray:5 3",
            _ => "",
        };
        let _ = writeln!(
            out,
            "  classDef {} fill:{fill},stroke:{border},color:#18202b{dashes}",
            kind.word()
        );
    }
    out
}
