//! What two looks at an engine tell: a line for each stream and node, and some of the engine itself.

use std::{cmp::Ordering, str::FromStr, time::Duration};

use quiver_pipeline::config::duration_text;

use crate::{
    http::{PipelineStatus, Status},
    numbers::{bytes, grouped, milliseconds},
};

/// An engine at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// When, by a clock that does not go back.
    pub at: Duration,
    /// Whose: `http://127.0.0.1:8080`.
    pub engine: String,
    /// Its graph.
    pub pipeline: PipelineStatus,
    /// The engine.
    pub status: Status,
}

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Of the stream or node.
    Name,
    /// Its section.
    Kind,
    /// Rows a second that come in.
    RateIn,
    /// Rows a second that go out.
    RateOut,
    /// Rows that came in since the graph was applied.
    In,
    /// Rows that went out.
    Out,
    /// Late rows.
    Late,
    /// Rows in error.
    Errors,
    /// Rows that could not be stored.
    Refused,
    /// How far a window's rows are complete behind record time.
    Delay,
    /// Bytes that it remembers.
    State,
}

impl Column {
    /// In the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::Name,
        Self::Kind,
        Self::RateIn,
        Self::RateOut,
        Self::In,
        Self::Out,
        Self::Late,
        Self::Errors,
        Self::Refused,
        Self::Delay,
        Self::State,
    ];

    /// In the order in which they are left out where there is no room; the others never are.
    pub const LEFT_OUT: [Self; 7] = [
        Self::Out,
        Self::In,
        Self::State,
        Self::Refused,
        Self::Kind,
        Self::Delay,
        Self::RateIn,
    ];

    /// Its title, and its name on the command line.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Kind => "kind",
            Self::RateIn => "in/s",
            Self::RateOut => "out/s",
            Self::In => "in",
            Self::Out => "out",
            Self::Late => "late",
            Self::Errors => "errors",
            Self::Refused => "refused",
            Self::Delay => "delay",
            Self::State => "state",
        }
    }

    /// Whether it is of numbers: to the right, and the greatest first.
    pub const fn is_number(self) -> bool {
        !matches!(self, Self::Name | Self::Kind)
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|column| column.title() == text);
        found.ok_or_else(|| {
            let titles = Self::ALL.map(Self::title);
            format!(
                "there is no column {text:?}; there is {}",
                titles.join(", ")
            )
        })
    }
}

/// By which column lines are sorted, and whether the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The column.
    pub column: Column,
    /// Texts downwards, numbers upwards.
    pub is_reversed: bool,
}

/// A stream or node. What it does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its section.
    pub kind: String,
    rate_in: Option<f64>,
    rate_out: Option<f64>,
    rows_in: Option<u64>,
    rows_out: Option<u64>,
    late: Option<u64>,
    errors: Option<u64>,
    refused: Option<u64>,
    delay: Option<f64>,
    state: Option<u64>,
}

impl Line {
    /// What stands in a column.
    pub fn text(&self, column: Column) -> String {
        let count = |rows: Option<u64>| rows.map(grouped);
        let text = match column {
            Column::Name => Some(self.name.clone()),
            Column::Kind => Some(self.kind.clone()),
            Column::RateIn => self.rate_in.map(rate_text),
            Column::RateOut => self.rate_out.map(rate_text),
            Column::In => count(self.rows_in),
            Column::Out => count(self.rows_out),
            Column::Late => count(self.late),
            Column::Errors => count(self.errors),
            Column::Refused => count(self.refused),
            Column::Delay => self.delay.map(seconds_text),
            Column::State => self.state.map(bytes),
        };
        text.unwrap_or_else(|| "-".to_owned())
    }

    /// Whether something is in a column that should make somebody look.
    pub fn is_notable(&self, column: Column) -> bool {
        match column {
            Column::Late => self.late.is_some_and(|rows| rows > 0),
            Column::Errors => self.errors.is_some_and(|rows| rows > 0),
            Column::Refused => self.refused.is_some_and(|rows| rows > 0),
            _ => false,
        }
    }

    fn number(&self, column: Column) -> Option<f64> {
        match column {
            Column::Name | Column::Kind => None,
            Column::RateIn => self.rate_in,
            Column::RateOut => self.rate_out,
            Column::In => self.rows_in.map(|rows| rows as f64),
            Column::Out => self.rows_out.map(|rows| rows as f64),
            Column::Late => self.late.map(|rows| rows as f64),
            Column::Errors => self.errors.map(|rows| rows as f64),
            Column::Refused => self.refused.map(|rows| rows as f64),
            Column::Delay => self.delay,
            Column::State => self.state.map(|bytes| bytes as f64),
        }
    }

    fn compare(&self, other: &Self, order: Order) -> Ordering {
        let column = order.column;
        let compared = if column.is_number() {
            let numbers = (self.number(column), other.number(column));
            match numbers {
                (Some(mine), Some(others)) => others.total_cmp(&mine),
                // What has no figure is last, whichever way.
                (mine, others) => return others.is_some().cmp(&mine.is_some()),
            }
        } else {
            self.text(column).cmp(&other.text(column))
        };
        if order.is_reversed {
            compared.reverse()
        } else {
            compared
        }
    }
}

/// Everything that is shown.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Of the engine, a line each.
    pub head: Vec<String>,
    /// Streams and nodes, in the order of the graph.
    pub lines: Vec<Line>,
}

impl Figures {
    /// What an engine does; rates are of what has happened since the look before.
    pub fn of(before: Option<&Look>, now: &Look) -> Self {
        let elapsed = before.map(|before| now.at.saturating_sub(before.at).as_secs_f64());
        // Figures begin anew with an engine, or a graph: then there is no rate.
        let rate = |before: Option<u64>, now: u64| {
            let rows = now.checked_sub(before?)?;
            let elapsed = elapsed.filter(|elapsed| *elapsed > 0.0)?;
            Some(rows as f64 / elapsed)
        };
        let pipeline = &now.pipeline;
        let known = before.map(|before| &before.pipeline);
        let streams = pipeline.streams.iter().map(|(name, rows)| {
            let rate = rate(
                known.and_then(|known| known.streams.get(name).copied()),
                *rows,
            );
            Line {
                name: name.clone(),
                kind: "stream".to_owned(),
                rate_in: rate,
                rows_in: Some(*rows),
                ..Line::default()
            }
        });
        let nodes = pipeline.nodes.iter().map(|node| {
            let known = known.and_then(|known| {
                let mut nodes = known.nodes.iter();
                nodes.find(|known| known.name == node.name)
            });
            let is_window = node.kind == "window";
            let has_errors = node.kind != "missing";
            Line {
                name: node.name.clone(),
                kind: node.kind.clone(),
                rate_in: rate(known.map(|known| known.rows_in), node.rows_in),
                rate_out: rate(known.map(|known| known.rows_out), node.rows_out),
                rows_in: Some(node.rows_in),
                rows_out: Some(node.rows_out),
                late: is_window.then_some(node.late),
                errors: has_errors.then_some(node.errors),
                refused: Some(node.refused),
                delay: node.watermark_delay,
                state: is_window.then_some(node.state_bytes),
            }
        });
        Self {
            head: head(before, now, rate),
            lines: streams.chain(nodes).collect(),
        }
    }

    /// The lines in an order.
    pub fn sorted(&self, order: Option<Order>) -> Vec<&Line> {
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        if let Some(order) = order {
            lines.sort_by(|line, other| line.compare(other, order));
        }
        lines
    }

    /// As a text.
    pub fn text(&self, sort: Option<Column>) -> String {
        let order = sort.map(|column| Order {
            column,
            is_reversed: false,
        });
        let lines = self.sorted(order);
        let mut rows = vec![Column::ALL.map(|column| column.title().to_owned())];
        rows.extend(
            lines
                .iter()
                .map(|line| Column::ALL.map(|column| line.text(column))),
        );
        let mut text = self.head.join("\n");
        text.push('\n');
        for row in &rows {
            let cells = row.iter().zip(Column::ALL).enumerate();
            let cells: Vec<String> = cells
                .map(|(index, (cell, column))| {
                    let widths = rows.iter().map(|row| row[index].chars().count());
                    let width = widths.max().unwrap_or(0);
                    if column.is_number() {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:<width$}")
                    }
                })
                .collect();
            text.push('\n');
            text.push_str(cells.join("  ").trim_end());
        }
        text
    }
}

fn head(
    before: Option<&Look>,
    now: &Look,
    rate: impl Fn(Option<u64>, u64) -> Option<f64>,
) -> Vec<String> {
    let (status, pipeline) = (&now.status, &now.pipeline);
    let known = before.map(|before| &before.status);
    let shown = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), rate_text);
    let rows = rate(known.map(|known| known.rows), status.rows);
    let points = rate(known.map(|known| known.points), status.points);
    let committed = rate(known.map(|known| known.committed), status.committed);
    let refused: u64 = pipeline.nodes.iter().map(|node| node.refused).sum();
    let refused = match refused {
        0 => String::new(),
        refused => format!("   REFUSED {} rows", grouped(refused)),
    };
    let missed = match pipeline.missed {
        0 => String::new(),
        missed => format!("   MISSED {} positions", grouped(missed)),
    };
    vec![
        format!(
            "engine {}   {} connections   {} rows/s   {} points/s   ack p50 {} p99 {}",
            now.engine,
            status.connections,
            shown(rows),
            shown(points),
            milliseconds(status.ack_p50_us),
            milliseconds(status.ack_p99_us)
        ),
        format!(
            "log    committed {}   {}/s   hot rows {}   archived {} files, {}",
            grouped(status.committed),
            shown(committed),
            grouped(status.hot_rows),
            grouped(status.archived_files),
            bytes(status.archived_bytes)
        ),
        format!(
            "graph  lag {} positions   has seen all up to {}   kept at {}{missed}{refused}",
            grouped(pipeline.lag),
            pipeline.seen,
            grouped(pipeline.kept)
        ),
    ]
}

/// Rows a second, with a digit behind the point where that matters.
fn rate_text(rate: f64) -> String {
    if rate == 0.0 || rate >= 10.0 {
        grouped(rate.round() as u64)
    } else {
        format!("{rate:.1}")
    }
}

fn seconds_text(seconds: f64) -> String {
    if seconds.abs() < 10.0 {
        return format!("{seconds:.1}s");
    }
    duration_text((seconds as i64).saturating_mul(1_000_000))
}
