//! The outline of each kind of node. A shape is told from the others without its colour.

use std::fmt::Write as _;

use crate::draw::picture::Kind;

/// A box, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rect {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Rect {
    pub(crate) fn right(&self) -> f64 {
        self.x + self.width
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.y + self.height
    }

    pub(crate) fn middle(&self) -> f64 {
        self.y + self.height / 2.0
    }
}

/// Height of a box with few edges.
pub(crate) const HEIGHT: f64 = 50.0;

/// A number with at most one decimal.
pub(crate) fn number(value: f64) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    // Zero has one sign.
    format!("{}", rounded + 0.0)
}

/// How far slopes and points reach into a box of a height. A box that is higher for its many edges
/// has no deeper ones.
fn depth(kind: Kind, height: f64) -> f64 {
    height.min(HEIGHT)
        * match kind {
            Kind::Stream => 0.5,
            Kind::Route | Kind::Action => 0.28,
            Kind::Detect => 0.26,
            Kind::Alert => 0.24,
            Kind::Display => 0.3,
            _ => 0.0,
        }
}

/// What a shape needs beside its text, on both sides together.
pub(crate) fn padding(kind: Kind) -> f64 {
    let depth = depth(kind, HEIGHT);
    2.0 * 13.0
        + match kind {
            Kind::Stream | Kind::Lookup => 14.0,
            Kind::Route | Kind::Detect => 1.4 * depth,
            Kind::Action | Kind::Alert | Kind::Display => depth,
            _ => 0.0,
        }
}

/// Where the text of a shape has its middle, from the middle of its box.
pub(crate) fn text_shift(kind: Kind) -> (f64, f64) {
    match kind {
        Kind::Action => (-4.0, 0.0),
        Kind::Display => (3.0, 0.0),
        Kind::Store => (0.0, 5.0),
        Kind::Window => (0.0, 3.0),
        _ => (0.0, 0.0),
    }
}

/// How far the outline is inside of the left and of the right side of the box, at a distance below
/// its middle.
pub(crate) fn insets(kind: Kind, height: f64, below: f64) -> (f64, f64) {
    let depth = depth(kind, height);
    let half = height / 2.0;
    let share = (below.abs() / half).min(1.0);
    match kind {
        Kind::Stream => {
            let beyond = (below.abs() - (half - depth)).max(0.0);
            let round = depth - (depth * depth - beyond * beyond).max(0.0).sqrt();
            (round, round)
        }
        Kind::Route => (depth * share, depth * share),
        Kind::Detect => {
            let down = ((below + half) / height).clamp(0.0, 1.0);
            (depth * (1.0 - down), depth * down)
        }
        Kind::Alert => {
            let corner = (below.abs() - (half - depth)).max(0.0);
            (corner, corner)
        }
        Kind::Action => (0.0, depth * share),
        Kind::Display => (depth * share, depth * 0.6 * share * share),
        _ => (0.0, 0.0),
    }
}

/// The outline as SVG, with the classes `f` (what is filled and has a border), `l` (lines) and `b`
/// (a bar of the border's colour).
pub(crate) fn outline(kind: Kind, rect: Rect) -> String {
    let Rect {
        x,
        y,
        width,
        height,
    } = rect;
    let (right, bottom, middle) = (rect.right(), rect.bottom(), rect.middle());
    let d = depth(kind, height);
    let usual = height.min(HEIGHT);
    let n = number;
    let polygon = |points: &[(f64, f64)]| {
        let mut path = String::from(r#"<path class="f" d="M"#);
        for (number, (x, y)) in points.iter().enumerate() {
            let joint = if number == 0 { "" } else { "L" };
            // A text takes every write.
            let _ = write!(path, "{joint}{} {}", n(*x), n(*y));
        }
        path.push_str(r#"Z"/>"#);
        path
    };
    let rounded = |radius: f64| {
        format!(
            r#"<rect class="f" x="{}" y="{}" width="{}" height="{}" rx="{}"/>"#,
            n(x),
            n(y),
            n(width),
            n(height),
            n(radius)
        )
    };
    match kind {
        Kind::Stream => rounded(d),
        Kind::Map | Kind::Missing => rounded(usual * 0.18),
        Kind::Route => polygon(&[
            (x + d, y),
            (right - d, y),
            (right, middle),
            (right - d, bottom),
            (x + d, bottom),
            (x, middle),
        ]),
        Kind::Detect => polygon(&[(x + d, y), (right, y), (right - d, bottom), (x, bottom)]),
        Kind::Alert => polygon(&[
            (x + d, y),
            (right - d, y),
            (right, y + d),
            (right, bottom - d),
            (right - d, bottom),
            (x + d, bottom),
            (x, bottom - d),
            (x, y + d),
        ]),
        Kind::Action => polygon(&[
            (x, y),
            (right - d, y),
            (right, middle),
            (right - d, bottom),
            (x, bottom),
        ]),
        Kind::Display => format!(
            r#"<path class="f" d="M{} {}H{}Q{} {} {} {}H{}L{} {}Z"/>"#,
            n(x + d),
            n(y),
            n(right - d * 0.6),
            // The curve's middle is at the side of the box.
            n(right + d * 0.6),
            n(middle),
            n(right - d * 0.6),
            n(bottom),
            n(x + d),
            n(x),
            n(middle)
        ),
        Kind::Lookup => {
            let bar = usual * 0.14;
            format!(
                r#"{}<path class="l" d="M{} {}V{}M{} {}V{}"/>"#,
                rounded(usual * 0.05),
                n(x + bar),
                n(y),
                n(bottom),
                n(right - bar),
                n(y),
                n(bottom)
            )
        }
        Kind::Window => format!(
            r#"{}<path class="b" d="M{} {}h{}v{}h{}Z"/>"#,
            rounded(usual * 0.06),
            n(x),
            n(y),
            n(width),
            n(usual * 0.14),
            n(-width)
        ),
        Kind::Store => {
            let lid = usual * 0.11;
            let half = width / 2.0;
            let (a, b) = (n(half), n(lid));
            format!(
                r#"<path class="f" d="M{x0} {top}A{a} {b} 0 0 1 {x1} {top}V{low}A{a} {b} 0 0 1 {x0} {low}Z"/><path class="l" d="M{x0} {top}A{a} {b} 0 0 0 {x1} {top}"/>"#,
                x0 = n(x),
                x1 = n(right),
                top = n(y + lid),
                low = n(bottom - lid)
            )
        }
    }
}
