//! Line plots as SVG, to stand inside a page of HTML: colours come from the page's style, so that
//! they follow its light or dark scheme.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

/// A line of a plot.
pub(crate) struct Line {
    /// What it is.
    pub label: String,
    /// Where it goes.
    pub points: Vec<(f64, f64)>,
}

/// How an axis counts.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    Linear,
    /// Each step ten times the last.
    Log,
}

/// A plot.
pub(crate) struct Plot {
    /// What it shows.
    pub title: String,
    /// Unit of the horizontal axis.
    pub x_label: String,
    pub y_scale: Scale,
    /// How a value of the vertical axis is written.
    pub y_text: fn(f64) -> String,
    /// Marks of the horizontal axis, each with its text; made evenly if there are none.
    pub x_marks: Vec<(f64, String)>,
    /// A part of the horizontal axis that is not measured is shaded.
    pub shaded: Vec<(f64, f64)>,
    pub lines: Vec<Line>,
}

/// A round number not below `value`: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps
        .iter()
        .find(|step| **step * power >= value * (1.0 - 1e-9));
    step.copied().unwrap_or(10.0) * power
}

/// Text that may stand in HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low).max(1e-12),
            Scale::Log => {
                let span = (self.high / self.low).ln().max(1e-12);
                (value.max(self.low) / self.low).ln() / span
            }
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = round_up((self.high - self.low) / 6.0);
                let count = ((self.high - self.low) / step + 1e-9) as usize;
                (0..=count)
                    .map(|mark| self.low + step * mark as f64)
                    .collect()
            }
            Scale::Log => {
                let mut marks = Vec::new();
                let mut mark = self.low;
                while mark <= self.high * (1.0 + 1e-9) && marks.len() < 12 {
                    marks.push(mark);
                    mark *= 10.0;
                }
                marks
            }
        }
    }
}

impl Plot {
    fn y_axis(&self) -> Axis {
        let values = || {
            let points = self.lines.iter().flat_map(|line| &line.points);
            points.map(|(_, y)| *y).filter(|y| y.is_finite())
        };
        let high = values().fold(0.0, f64::max);
        let (low, high) = match self.y_scale {
            Scale::Linear => {
                let step = round_up(high * 1.02 / 5.0);
                (0.0, step * (high * 1.02 / step).ceil().max(1.0))
            }
            Scale::Log => {
                let low = values().filter(|y| *y > 0.0).fold(f64::MAX, f64::min);
                let low = if low == f64::MAX { 1.0 } else { low };
                let power = |value: f64| 10_f64.powf(value);
                (
                    power(low.log10().floor()),
                    power(high.max(low * 1.01).log10().ceil()),
                )
            }
        };
        Axis {
            low,
            high,
            scale: self.y_scale,
            from: HEIGHT - BOTTOM,
            to: TOP,
        }
    }

    fn x_axis(&self) -> Axis {
        let points = || {
            self.lines
                .iter()
                .flat_map(|line| &line.points)
                .map(|(x, _)| *x)
        };
        let low = points().fold(f64::MAX, f64::min).min(0.0);
        let high = points().fold(low + 1e-9, f64::max);
        Axis {
            low,
            high,
            scale: Scale::Linear,
            from: LEFT,
            to: WIDTH - RIGHT,
        }
    }

    /// The plot as a figure with its legend.
    pub(crate) fn figure(&self) -> String {
        let (x, y) = (self.x_axis(), self.y_axis());
        let mut out = String::new();
        let title = escaped(&self.title);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<figure><figcaption>{title}</figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        for (from, to) in &self.shaded {
            let (left, right) = (x.place(*from), x.place(*to));
            let _ = write!(
                out,
                "<rect class=\"shade\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (right - left).max(0.0),
                HEIGHT - TOP - BOTTOM
            );
        }
        for mark in y.marks() {
            let at = y.place(mark);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escaped(&(self.y_text)(mark))
            );
        }
        let marks = if self.x_marks.is_empty() {
            x.marks()
                .into_iter()
                .map(|mark| (mark, super::si(mark)))
                .collect()
        } else {
            self.x_marks.clone()
        };
        for (mark, text) in marks {
            let at = x.place(mark);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 15.0,
                escaped(&text)
            );
        }
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 4.0,
            escaped(&self.x_label)
        );
        for (number, line) in self.lines.iter().enumerate() {
            let mut path = String::new();
            for (at, value) in line.points.iter().filter(|(_, value)| value.is_finite()) {
                let letter = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", x.place(*at), y.place(*value));
            }
            let _ = write!(out, "<path class=\"line c{number}\" d=\"{path}\"/>");
        }
        out.push_str("</svg><p class=\"legend\">");
        for (number, line) in self.lines.iter().enumerate() {
            let label = escaped(&line.label);
            let _ = write!(out, "<span class=\"c{number}\">{label}</span>");
        }
        out.push_str("</p></figure>");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round_and_hold_all_points() {
        assert_eq!(round_up(4.1), 5.0);
        assert_eq!(round_up(1_000.0), 1_000.0);
        assert_eq!(round_up(0.0), 1.0);
        let plot = Plot {
            title: "a < b".to_owned(),
            x_label: "s".to_owned(),
            y_scale: Scale::Log,
            y_text: |value| value.to_string(),
            x_marks: Vec::new(),
            shaded: vec![(0.0, 1.0)],
            lines: vec![Line {
                label: "p50".to_owned(),
                points: vec![(0.0, 0.3), (1.0, f64::NAN), (2.0, 40.0)],
            }],
        };
        let axis = plot.y_axis();
        assert!((axis.low - 0.1).abs() < 1e-9 && (axis.high - 100.0).abs() < 1e-6);
        let svg = plot.figure();
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"));
        assert_eq!(svg.matches("<path").count(), 1);
    }
}
