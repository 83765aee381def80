//! One kind of windows: its shape, and the panes and blocks of all keys.

use crate::{
    cells::{Blocks, Run},
    grid::{Grid, Size},
    spec::{Emit, Kind, SpecError, WindowSpec},
    windows::{
        panes::{CLOSED, Open, Pane, Panes, WAITS},
        place::Placed,
    },
};

/// How rows come to windows.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A pane is a window; a row may be in several.
    Windows {
        grid: Grid,
        /// Whether windows overlap.
        overlap: bool,
        /// How long a window is kept after it closed.
        retain: Option<i64>,
    },
    /// A pane is what two starts of hopping windows enclose; windows are made of panes.
    Hops { grid: Grid, every: i64, size: i64 },
    /// A pane is the rows of one time; windows are made of panes.
    Sliding { size: i64 },
    /// A pane is a session.
    Session { gap: i64, max: i64 },
    /// A pane is an open state, or a row that waits for its turn.
    State { max: i64 },
}

/// A kind of windows.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    pub(crate) shape: Shape,
    pub(crate) panes: Panes,
    pub(crate) blocks: Blocks,
    /// Which rows of the batch at hand are to be folded into which blocks.
    pub(crate) runs: Vec<Run>,
    /// The row that lengthened a session, if those that follow may do so together.
    pub(crate) lengthened: Option<Placed>,
}

impl Shape {
    pub(crate) fn new(kind: &Kind, spec: &WindowSpec) -> Result<Self, SpecError> {
        let retain = match spec.emit {
            Emit::Close => None,
            Emit::Update { retain } => Some(retain),
        };
        Ok(match *kind {
            Kind::Tumbling { size } => Self::Windows {
                grid: Grid::new(size, None, spec.zone)?,
                overlap: false,
                retain,
            },
            Kind::Hopping { size, every } => {
                let grid = Grid::new(size, Some(every), spec.zone)?;
                match size {
                    // A local grid's starts are not equally far apart all year.
                    Size::Micros(size)
                        if size % every == 0 && spec.zone.is_none() && retain.is_none() =>
                    {
                        Self::Hops { grid, every, size }
                    }
                    _ => Self::Windows {
                        grid,
                        overlap: true,
                        retain,
                    },
                }
            }
            Kind::Sliding { size } => Self::Sliding { size },
            Kind::Session { gap, max } => Self::Session {
                gap,
                max: max.unwrap_or(i64::MAX),
            },
            Kind::State { max } => Self::State {
                max: max.unwrap_or(i64::MAX),
            },
        })
    }

    /// Whether rows of some span of time all go to the same pane.
    pub(crate) const fn has_stretches(&self) -> bool {
        matches!(
            self,
            Self::Windows { overlap: false, .. }
                | Self::Hops { .. }
                | Self::Sliding { .. }
                | Self::Session { .. }
        )
    }

    /// When, in event time, something is to be done for a pane, all that was to be done before
    /// `horizon` being done.
    pub(crate) fn due(&self, pane: &Pane, horizon: i64) -> i64 {
        match self {
            Self::Windows { retain, .. } => match retain {
                Some(retain) if pane.is(CLOSED) => pane.end.saturating_add(*retain),
                _ => pane.end,
            },
            Self::Hops { every, .. } => {
                // The first end behind the pane and the horizon.
                let behind = horizon.saturating_sub(pane.start).max(0) / every;
                pane.start
                    .saturating_add(behind.saturating_add(1).saturating_mul(*every))
            }
            Self::Sliding { size } if pane.start < horizon => pane.start.saturating_add(*size),
            Self::Sliding { .. } => pane.start.saturating_add(1),
            Self::Session { .. } => pane.end,
            Self::State { .. } if pane.is(WAITS) => pane.start,
            Self::State { .. } => pane.end,
        }
    }

    /// The window that a row missed that is in none.
    pub(crate) fn missed(&self, ts: i64) -> (i64, i64) {
        match self {
            Self::Windows { grid, .. } => {
                let start = grid.last_start(ts);
                (start, grid.end(start))
            }
            Self::Hops { grid, size, .. } => {
                let start = grid.last_start(ts);
                (start, start.saturating_add(*size))
            }
            Self::Session { gap, .. } => (ts, ts.saturating_add(*gap)),
            Self::Sliding { .. } | Self::State { .. } => (ts, ts.saturating_add(1)),
        }
    }
}

impl Track {
    /// Takes a row into a block.
    #[inline]
    pub(crate) fn assign(&mut self, block: u32, row: u32) {
        match self.runs.last_mut() {
            Some(run) if run.block == block && run.to == row => run.to += 1,
            _ => self.runs.push(Run {
                block,
                from: row,
                to: row + 1,
            }),
        }
    }

    /// When something is to be done for any pane of a list.
    pub(crate) fn due(&self, open: &Open, horizon: i64) -> i64 {
        let panes = self
            .panes
            .list(open)
            .filter_map(|pane| self.panes.get(pane));
        let dues = panes.map(|pane| self.shape.due(pane, horizon));
        dues.min().unwrap_or(i64::MAX)
    }
}
