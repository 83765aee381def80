//! What is computed of the rows.

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds of a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Minutes of a hopping window; it hops by one.
pub const HOPS: i64 = 5;
/// Rows of a session are less than this apart.
pub const GAP: i64 = 30 * SECOND;
/// How far behind the latest row of its device a row may be.
pub const TOLERANCE: i64 = 5 * SECOND;

/// Which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a minute.
    Tumbling,
    /// Of five minutes, by the minute.
    Hopping,
    /// Of rows that are less than 30 seconds apart.
    Session,
}

/// Which windows, and what of their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The windows.
    pub kind: Kind,
    /// Whether least and greatest values are wanted beside averages, which always are.
    pub with_ends: bool,
}

impl Case {
    /// All of them, by the names that [`Self::name`] gives.
    pub const ALL: [Self; 4] = [
        Self::averages(Kind::Tumbling),
        Self {
            kind: Kind::Tumbling,
            with_ends: true,
        },
        Self::averages(Kind::Hopping),
        Self::averages(Kind::Session),
    ];

    /// The averages of windows.
    pub const fn averages(kind: Kind) -> Self {
        Self {
            kind,
            with_ends: false,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match (self.kind, self.with_ends) {
            (Kind::Tumbling, false) => "tumbling",
            (Kind::Tumbling, true) => "tumbling_ends",
            (Kind::Hopping, _) => "hopping",
            (Kind::Session, _) => "session",
        }
    }
}
