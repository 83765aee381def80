//! A picture as SVG: by itself, without scripts, for light and dark pages.

mod geometry;
mod shape;
mod style;

use std::fmt::Write as _;

use self::{
    geometry::{EdgePath, Geometry, HEAD, LABEL_SIZE, MARGIN, NodeBox, Step},
    shape::{Rect, number as n},
};
use crate::draw::{
    layout::Layout,
    picture::{Edge, Exit, Kind, Node, Picture},
    text::{self, xml},
};

pub(crate) use style::light;

/// Longest line of a tooltip, in characters.
const TOOLTIP_CHARACTERS_MAX: usize = 400;
/// Most lines of a tooltip.
const TOOLTIP_LINES_MAX: usize = 40;
/// Size of a shape in the legend.
const SAMPLE: (f64, f64) = (28.0, 16.0);

pub(crate) fn svg(picture: &Picture, layout: &Layout) -> String {
    let geometry = geometry::geometry(picture, layout);
    let kinds = picture.kinds();
    let legend_top = geometry.height + 2.0 * MARGIN;
    let (legend, legend_width, legend_height) =
        legend(&kinds, legend_top, geometry.width.max(480.0));
    let width = n((geometry.width.max(legend_width) + 2.0 * MARGIN).ceil());
    let height = n((legend_top + legend_height + MARGIN).ceil());
    let sentence = picture.sentence();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"qg\" role=\"img\" aria-label=\"{sentence}\" \
         viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n"
    );
    out.push_str(&style::style(&kinds));
    out.push_str(&format!(
        "<rect class=\"bg\" width=\"{width}\" height=\"{height}\" rx=\"10\"/>\n"
    ));
    out.push_str(&format!(
        "<g transform=\"translate({0} {0})\">\n",
        n(MARGIN)
    ));
    write_edges(&mut out, picture, &geometry);
    for (node, drawn) in picture.nodes().iter().zip(&geometry.boxes) {
        write_node(&mut out, node, drawn);
    }
    out.push_str("</g>\n");
    out.push_str(&legend);
    out.push_str("</svg>\n");
    out
}

fn write_edges(out: &mut String, picture: &Picture, geometry: &Geometry) {
    // What is usual lies below what is not.
    let is_usual = |(edge, path): &(&Edge, &EdgePath)| edge.exit == Exit::Out && !path.is_back;
    let edges = || picture.edges().iter().zip(&geometry.edges);
    let usual = edges().filter(is_usual);
    let unusual = edges().filter(|edge| !is_usual(edge));
    for (edge, path) in usual.chain(unusual) {
        let class = match (path.is_back, edge.exit) {
            (true, _) => "back e",
            (_, Exit::Late) => "late e",
            (_, Exit::Errors) => "errors e",
            (_, Exit::Out) => "e",
        };
        let width = match edge.rate {
            Some(rate) if rate.is_finite() && rate > 0.0 => {
                let width = 1.5 + (rate.log10().max(0.0) * 0.4).min(2.5);
                format!(" style=\"stroke-width:{}\"", n(width))
            }
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "<g class=\"{class}\"><title>{}</title><path class=\"p\" d=\"{}\"{width}/><path class=\"h\" d=\"{}\"/></g>",
            xml(&edge_title(picture, edge, path)),
            path_data(path),
            head_data(path)
        );
    }
    // Texts lie over all edges.
    for (edge, path) in edges() {
        if let Some((x, y, label)) = &path.label {
            let class = match edge.exit {
                Exit::Late => "late",
                Exit::Errors => "errors",
                Exit::Out => "out",
            };
            let _ = writeln!(
                out,
                "<g class=\"{class}\"><text class=\"r\" x=\"{}\" y=\"{}\">{}</text></g>",
                n(*x),
                n(*y),
                xml(label)
            );
        }
    }
}

fn edge_title(picture: &Picture, edge: &Edge, path: &EdgePath) -> String {
    let name = |node: usize| text::line(&picture.nodes()[node].name, TOOLTIP_CHARACTERS_MAX);
    let label = edge.label();
    let mut title = format!("{} → {}", name(edge.from), name(edge.to));
    if !label.is_empty() {
        title.push_str(&format!(" ({label})"));
    }
    if path.is_back {
        title.push_str(": closes a circle");
    }
    title
}

fn path_data(path: &EdgePath) -> String {
    let mut data = format!("M{} {}", n(path.start.0), n(path.start.1));
    let mut at = path.start;
    for step in &path.steps {
        match *step {
            Step::Line(x, y) if (y - at.1).abs() < 0.05 => {
                let _ = write!(data, "H{}", n(x));
                at = (x, at.1);
            }
            Step::Line(x, y) => {
                let _ = write!(data, "L{} {}", n(x), n(y));
                at = (x, y);
            }
            Step::Curve(first, second, end) => {
                let _ = write!(
                    data,
                    "C{} {} {} {} {} {}",
                    n(first.0),
                    n(first.1),
                    n(second.0),
                    n(second.1),
                    n(end.0),
                    n(end.1)
                );
                at = end;
            }
        }
    }
    data
}

fn head_data(path: &EdgePath) -> String {
    let (x, y) = path.tip;
    let (along, down) = path.points;
    let half = 4.2;
    let back = (x - along * HEAD, y - down * HEAD);
    format!(
        "M{} {}L{} {}L{} {}Z",
        n(x),
        n(y),
        n(back.0 - down * half),
        n(back.1 - along * half),
        n(back.0 + down * half),
        n(back.1 + along * half)
    )
}

fn write_node(out: &mut String, node: &Node, drawn: &NodeBox) {
    let rect = drawn.rect;
    let mut title = format!(
        "{} {}",
        node.kind.word(),
        text::line(&node.name, TOOLTIP_CHARACTERS_MAX)
    );
    let lines = node.details.iter().chain(&node.marks);
    for line in lines.take(TOOLTIP_LINES_MAX) {
        title.push('\n');
        title.push_str(&text::line(line, TOOLTIP_CHARACTERS_MAX));
    }
    let (right, down) = shape::text_shift(node.kind);
    let x = n(rect.x + rect.width / 2.0 + right);
    let label = text::line(&node.marks.join(" · "), 32);
    // A mark lies over the lower side.
    let up = if label.is_empty() { 0.0 } else { 2.0 };
    let middle = rect.middle() + down - up;
    let _ = write!(
        out,
        "<g class=\"n {}\"><title>{}</title>{}",
        node.kind.word(),
        xml(&title),
        shape::outline(node.kind, rect)
    );
    let name_y = if drawn.what.is_empty() { 4.5 } else { -3.5 };
    let _ = write!(
        out,
        "<text class=\"name\" x=\"{x}\" y=\"{}\">{}</text>",
        n(middle + name_y),
        xml(&drawn.name)
    );
    if !drawn.what.is_empty() {
        let _ = write!(
            out,
            "<text class=\"what\" x=\"{x}\" y=\"{}\">{}</text>",
            n(middle + 12.0),
            xml(&drawn.what)
        );
    }
    if !label.is_empty() {
        let width = text::bold_width(&label, 9.5) + 14.0;
        let middle = rect.x + rect.width / 2.0;
        let _ = write!(
            out,
            "<g class=\"m\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"15\" rx=\"7.5\"/><text x=\"{}\" y=\"{}\">{}</text></g>",
            n(middle - width / 2.0),
            n(rect.bottom() - 4.5),
            n(width),
            n(middle),
            n(rect.bottom() + 6.5),
            xml(&label)
        );
    }
    out.push_str("</g>\n");
}

/// The kinds that occur, in rows of at most this width; with its own width and height.
fn legend(kinds: &[Kind], top: f64, width_max: f64) -> (String, f64, f64) {
    let mut out = String::from("<g class=\"legend\" aria-hidden=\"true\">\n");
    let (mut x, mut y, mut width) = (0.0, 0.0, 0.0);
    for kind in kinds {
        let word = kind.word();
        let needed = SAMPLE.0 + 7.0 + text::bold_width(word, LABEL_SIZE + 1.0);
        if x > 0.0 && x + needed > width_max {
            x = 0.0;
            y += 24.0;
        }
        let rect = Rect {
            x: MARGIN + x,
            y: top + y,
            width: SAMPLE.0,
            height: SAMPLE.1,
        };
        let _ = writeln!(
            out,
            "<g class=\"n {word}\">{}</g><text class=\"k\" x=\"{}\" y=\"{}\">{word}</text>",
            shape::outline(*kind, rect),
            n(rect.right() + 7.0),
            n(rect.middle() + 4.0)
        );
        width = f64::max(width, x + needed);
        x += needed + 18.0;
    }
    out.push_str("</g>\n");
    let height = if kinds.is_empty() { 0.0 } else { y + SAMPLE.1 };
    (out, width, height)
}

#[cfg(test)]
mod tests;
