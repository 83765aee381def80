//! What windows are to be made, and what of their rows is to be kept: checked once, by
//! [`WindowSpec::check`], before anything runs.

use arrow_schema::{DataType, TimeUnit};
use chrono_tz::Tz;

use crate::{
    grid::{Grid, GridError, Size},
    time::TimePolicy,
};

/// Most kinds of windows in one node, most key columns, and most arguments or aggregates.
const MANY: usize = 1_000;

/// Windows over the rows of one node.
#[derive(Clone, Debug)]
pub struct WindowSpec {
    /// Their shapes and sizes; the results of each are told apart by their number in this list.
    pub kinds: Vec<Kind>,
    /// Which rows belong together.
    pub key: Key,
    /// Types of the columns that are aggregated.
    pub arguments: Vec<ArgumentType>,
    /// What is made of them, in the order of the results.
    pub aggregates: Vec<Aggregate>,
    /// Which rows come too late or too early, and how long a silent device is waited for.
    pub time: TimePolicy,
    /// When results are put out.
    pub emit: Emit,
    /// The time zone that windows are aligned to; UTC if not said.
    pub zone: Option<Tz>,
    /// What the state may take.
    pub limits: Limits,
}

/// A shape of windows. All times are in microseconds; windows are `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One behind the other.
    Tumbling {
        /// How long each is.
        size: Size,
    },
    /// A new one every so often.
    Hopping {
        /// How long each is.
        size: Size,
        /// How far apart their starts are.
        every: i64,
    },
    /// One that ends with each time at which there are rows: those of the `size` up to it, it
    /// included. Its `end` is one microsecond after that time.
    Sliding {
        /// How long each is.
        size: i64,
    },
    /// Rows that are less than a gap apart. It ends a gap after its last row, or where it would be
    /// too long, or where another begins that it may not become one with.
    Session {
        /// How far apart rows of two sessions are, at least.
        gap: i64,
        /// The longest session: a row that would make it longer begins another. With this, what
        /// the sessions are depends on the order in which rows out of order come.
        max: Option<i64>,
    },
    /// From a row that opens it (included) to the next that closes it (not included), by time.
    State {
        /// The longest one: it ends so long after its start, closed or not.
        max: Option<i64>,
    },
}

/// Which rows belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Those of a device.
    Device,
    /// Those with the same texts (or nulls) in columns that come with them.
    Columns {
        /// How many columns.
        count: usize,
        /// Whether rows of different devices are kept apart, too.
        with_device: bool,
    },
    /// All of them.
    All,
}

impl Key {
    /// Whether a window has rows of one device only, so that its watermark closes it.
    pub const fn has_device(self) -> bool {
        match self {
            Self::Device => true,
            Self::Columns { with_device, .. } => with_device,
            Self::All => false,
        }
    }

    /// How many key columns come with the rows.
    pub const fn columns(self) -> usize {
        match self {
            Self::Columns { count, .. } => count,
            Self::Device | Self::All => 0,
        }
    }
}

/// The type of a column that is aggregated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentType {
    /// Arrow `Float64`, of fields with a decimal scale, too.
    Float64,
    /// Arrow `Int64`.
    Int64,
    /// Arrow `Boolean`.
    Bool,
    /// Arrow `Utf8`.
    Text,
    /// Arrow `Timestamp(Microsecond, "UTC")`.
    Time,
}

impl ArgumentType {
    /// The type of a column of this Arrow type; `None` if such a column cannot be aggregated.
    pub fn from_arrow(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Float64 => Some(Self::Float64),
            DataType::Int64 => Some(Self::Int64),
            DataType::Boolean => Some(Self::Bool),
            DataType::Utf8 => Some(Self::Text),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Some(Self::Time),
            _ => None,
        }
    }

    /// The Arrow type of such a column.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Float64 => DataType::Float64,
            Self::Int64 => DataType::Int64,
            Self::Bool => DataType::Boolean,
            Self::Text => DataType::Utf8,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// The word used in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Float64 => "float64",
            Self::Int64 => "int64",
            Self::Bool => "bool",
            Self::Text => "utf8",
            Self::Time => "timestamp",
        }
    }

    const fn is_number(self) -> bool {
        matches!(self, Self::Float64 | Self::Int64)
    }
}

/// One aggregate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aggregate {
    /// What is computed.
    pub function: Function,
    /// Of which argument; `None` for [`Function::Rows`].
    pub argument: Option<usize>,
    /// The share of a quantile, from 0 to 1.
    pub parameter: Option<f64>,
}

/// What can be computed. Nulls count nowhere; without any value the result is null (of counts: 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Function {
    /// Number of rows: `count(*)`.
    Rows,
    /// Number of values.
    Count,
    /// Sum. Of integers: an integer, null (and counted) if it is out of range.
    Sum,
    /// Mean.
    Avg,
    /// The least value; NaN is above all numbers, and false below true.
    Min,
    /// The greatest value.
    Max,
    /// When the least value was (first).
    MinAt,
    /// When the greatest value was (first).
    MaxAt,
    /// The value of the earliest row; of rows of the same time, of the one that came first.
    First,
    /// The value of the latest row; of rows of the same time, of the one that came last.
    Last,
    /// `last - first`.
    Delta,
    /// `delta` for each second between the times of `first` and `last`; null if these are equal. A
    /// counter that begins anew is not mended.
    Rate,
    /// Standard deviation of a sample; null of fewer than two values.
    Stddev,
    /// Standard deviation of a population.
    StddevPop,
    /// Variance of a sample; null of fewer than two values.
    Var,
    /// Variance of a population.
    VarPop,
    /// The quantile 0.5.
    Median,
    /// A quantile, by t-digest: exact of few values.
    Quantile,
    /// Mean weighted by time: each value holds until the next row of the window.
    TimeWeightedAvg,
    /// Number of distinct values, by HyperLogLog.
    ApproxCountDistinct,
}

/// Functions by the names they have in SQL.
const NAMES: [(&str, Function); 19] = [
    ("count", Function::Count),
    ("sum", Function::Sum),
    ("avg", Function::Avg),
    ("min", Function::Min),
    ("max", Function::Max),
    ("min_at", Function::MinAt),
    ("max_at", Function::MaxAt),
    ("first", Function::First),
    ("last", Function::Last),
    ("delta", Function::Delta),
    ("rate", Function::Rate),
    ("stddev", Function::Stddev),
    ("stddev_pop", Function::StddevPop),
    ("var", Function::Var),
    ("var_pop", Function::VarPop),
    ("median", Function::Median),
    ("quantile", Function::Quantile),
    ("time_weighted_avg", Function::TimeWeightedAvg),
    ("count_distinct", Function::ApproxCountDistinct),
];

impl Function {
    /// The function with a name, `count` without an argument being [`Self::Rows`].
    pub fn from_name(name: &str, has_argument: bool) -> Option<Self> {
        if name == "count" && !has_argument {
            return Some(Self::Rows);
        }
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, function)| *function)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        let found = NAMES.iter().find(|(_, function)| *function == self);
        found.map_or("count", |(name, _)| name)
    }

    /// The type of its result.
    ///
    /// # Errors
    /// There is no such aggregate of an argument of this type, or without one.
    pub fn result(self, argument: Option<ArgumentType>) -> Result<ArgumentType, SpecError> {
        use ArgumentType::{Float64, Int64, Time};
        if self == Self::Rows {
            return Ok(Int64);
        }
        let Some(argument) = argument else {
            return Err(SpecError::NoArgument { function: self });
        };
        let number = |result| {
            if argument.is_number() {
                return Ok(result);
            }
            Err(SpecError::NotANumber {
                function: self,
                argument,
            })
        };
        match self {
            Self::Rows | Self::Count | Self::ApproxCountDistinct => Ok(Int64),
            Self::Sum | Self::Delta => number(argument),
            Self::Avg
            | Self::Rate
            | Self::Stddev
            | Self::StddevPop
            | Self::Var
            | Self::VarPop
            | Self::Median
            | Self::Quantile
            | Self::TimeWeightedAvg => number(Float64),
            Self::Min | Self::Max | Self::First | Self::Last => Ok(argument),
            Self::MinAt | Self::MaxAt => Ok(Time),
        }
    }
}

impl std::fmt::Display for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When results are put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// When a window closes, once.
    Close,
    /// When a window closes, as revision 0; then, for as long as it is retained, whenever late rows
    /// came for it: at the next [`advance`](crate::Windows::advance), as revision 1 and so on. Late
    /// rows (not early ones) for a window that is open or retained are taken, and are not put out
    /// as late; a window that had no rows before is made of them, if it would still be retained.
    Update {
        /// How long after a window's closing rows are taken, in microseconds of the time that
        /// closed it.
        retain: i64,
    },
}

/// What the state may take. A row that would need more is put out as late, with reason
/// [`Limit`](crate::LateReason::Limit), and counted; windows that are open go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most keys, and most devices. Devices that ever sent a row count: each has a watermark.
    pub keys: usize,
    /// Most windows (sessions, panes, times of a sliding window, rows that wait for their turn in a
    /// state window) of a key that are kept at once, of each kind.
    pub windows: usize,
    /// Most bytes. What counts is what a state takes at most, or for texts, digests and sketches a
    /// fixed guess: so that it does not depend on when memory is asked for.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keys: 10_000_000,
            windows: 10_000,
            bytes: 4 << 30,
        }
    }
}

/// What is wrong with a [`WindowSpec`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// Nothing to make.
    #[error("there are no windows: give at least one kind")]
    NoKinds,
    /// Too much of something.
    #[error("there are more than {MANY} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// A size is wrong.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// A time is wrong.
    #[error("{what} is {micros} microseconds; it must be {must}")]
    Time {
        /// Which.
        what: &'static str,
        /// What it is.
        micros: i64,
        /// What it must be.
        must: &'static str,
    },
    /// An aggregate without an argument.
    #[error("`{function}` needs an argument")]
    NoArgument {
        /// The aggregate.
        function: Function,
    },
    /// An aggregate of an argument that is not there.
    #[error("`{function}` is of argument {argument}, which is not there")]
    UnknownArgument {
        /// The aggregate.
        function: Function,
        /// The argument's number.
        argument: usize,
    },
    /// An aggregate of something else than numbers.
    #[error("`{function}` is of numbers, not of {}", argument.as_str())]
    NotANumber {
        /// The aggregate.
        function: Function,
        /// What it was given.
        argument: ArgumentType,
    },
    /// A quantile without a share.
    #[error("the share of a quantile is a number from 0 to 1")]
    Share,
    /// These windows cannot be revised.
    #[error(
        "only tumbling and hopping windows can be revised; sliding windows, sessions and states \
         are put out when they close"
    )]
    NotRevisable,
    /// A limit of nothing.
    #[error("the limit of {what} is zero")]
    ZeroLimit {
        /// Of what.
        what: &'static str,
    },
}

impl WindowSpec {
    /// Says what is wrong with it, if anything is.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        let sizes = [
            ("kinds", self.kinds.len()),
            ("arguments", self.arguments.len()),
            ("aggregates", self.aggregates.len()),
            ("key columns", self.key.columns()),
        ];
        if let Some((what, _)) = sizes.into_iter().find(|(_, many)| *many > MANY) {
            return Err(SpecError::TooMany { what });
        }
        if self.kinds.is_empty() {
            return Err(SpecError::NoKinds);
        }
        for kind in &self.kinds {
            self.check_kind(kind)?;
        }
        for aggregate in &self.aggregates {
            self.result(aggregate)?;
        }
        self.time.check()?;
        if let Emit::Update { retain } = self.emit {
            not_negative("`retain`", retain)?;
        }
        let limits = [
            ("keys", self.limits.keys),
            ("windows", self.limits.windows),
            ("bytes", self.limits.bytes),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == 0) {
            Some((what, _)) => Err(SpecError::ZeroLimit { what }),
            None => Ok(()),
        }
    }

    fn check_kind(&self, kind: &Kind) -> Result<(), SpecError> {
        let revisable = match *kind {
            Kind::Tumbling { size } => {
                Grid::new(size, None, self.zone)?;
                true
            }
            Kind::Hopping { size, every } => {
                Grid::new(size, Some(every), self.zone)?;
                true
            }
            Kind::Sliding { size } => {
                positive("`size`", size)?;
                false
            }
            Kind::Session { gap, max } => {
                positive("`gap`", gap)?;
                positive("`max`", max.unwrap_or(1))?;
                false
            }
            Kind::State { max } => {
                positive("`max`", max.unwrap_or(1))?;
                false
            }
        };
        if !revisable && self.emit != Emit::Close {
            return Err(SpecError::NotRevisable);
        }
        Ok(())
    }

    /// The type of an aggregate's result.
    ///
    /// # Errors
    /// What is wrong with the aggregate.
    pub fn result(&self, aggregate: &Aggregate) -> Result<ArgumentType, SpecError> {
        let function = aggregate.function;
        let argument = match aggregate.argument {
            None => None,
            Some(argument) => Some(
                *self
                    .arguments
                    .get(argument)
                    .ok_or(SpecError::UnknownArgument { function, argument })?,
            ),
        };
        let share = aggregate.parameter;
        if function == Function::Quantile
            && !share.is_some_and(|share| (0.0..=1.0).contains(&share))
        {
            return Err(SpecError::Share);
        }
        function.result(argument)
    }
}

pub(crate) fn positive(what: &'static str, micros: i64) -> Result<(), SpecError> {
    within(what, micros, micros > 0, "above zero")
}

pub(crate) fn not_negative(what: &'static str, micros: i64) -> Result<(), SpecError> {
    within(what, micros, micros >= 0, "zero or more")
}

fn within(
    what: &'static str,
    micros: i64,
    holds: bool,
    must: &'static str,
) -> Result<(), SpecError> {
    if holds {
        return Ok(());
    }
    Err(SpecError::Time { what, micros, must })
}
