//! What is kept of a window's rows: a block of words, cut into cells. Aggregates that can be made
//! of the same cells share them: `avg(x)`, `sum(x)` and `count(x)` are two cells.

use crate::spec::{Aggregate, ArgumentType, Function, SpecError, WindowSpec};

/// What a cell keeps of an argument's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum What {
    /// How many are null: of most columns none, so that nothing is to be counted.
    Nulls,
    /// Their sum, in two words: of floats with what rounding lost, of integers in 128 bits.
    Sum,
    /// The least.
    Min,
    /// The least, and when it was.
    MinAt,
    /// The greatest.
    Max,
    /// The greatest, and when it was.
    MaxAt,
    /// The earliest, and when it was.
    First,
    /// The latest, and when it was.
    Last,
    /// Count, mean and squares.
    Moments,
    /// A t-digest.
    Digest,
    /// A HyperLogLog.
    Distinct,
    /// How long each held.
    Weighted,
}

impl What {
    pub(crate) const fn words(self) -> usize {
        match self {
            Self::Nulls
            | Self::Min
            | Self::Max
            | Self::Digest
            | Self::Distinct
            | Self::Weighted => 1,
            Self::Moments => 3,
            Self::Sum | Self::MinAt | Self::MaxAt | Self::First | Self::Last => 2,
        }
    }

    /// Whether it is one of the values.
    const fn is_value(self) -> bool {
        matches!(
            self,
            Self::Min | Self::MinAt | Self::Max | Self::MaxAt | Self::First | Self::Last
        )
    }

    /// What it is guessed to take in the slab, in bytes.
    const fn guess(self) -> usize {
        match self {
            Self::Digest => 4_096,
            Self::Distinct => 8_192,
            Self::Weighted => 384,
            _ => 64,
        }
    }
}

/// How a value lies in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// The bits of a float64.
    Float,
    /// Those of an int64; booleans and times, too.
    Int,
    /// The number of a text in a slab.
    Text,
}

impl Class {
    const fn of(argument: ArgumentType) -> Self {
        match argument {
            ArgumentType::Float64 => Self::Float,
            ArgumentType::Int64 | ArgumentType::Bool | ArgumentType::Time => Self::Int,
            ArgumentType::Text => Self::Text,
        }
    }
}

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) what: What,
    pub(crate) class: Class,
    pub(crate) argument: usize,
    /// Its first word in the block.
    pub(crate) at: usize,
}

impl Cell {
    /// Whether its first word is a number in a slab.
    pub(crate) const fn is_in_slab(&self) -> bool {
        match self.what {
            What::Digest | What::Distinct | What::Weighted => true,
            what => matches!(self.class, Class::Text) && what.is_value(),
        }
    }

    /// Whether the word there is a float that arithmetic gave.
    pub(crate) const fn is_computed(&self, at: usize) -> bool {
        match self.what {
            What::Sum => matches!(self.class, Class::Float),
            What::Moments => at > self.at,
            _ => false,
        }
    }
}

/// How to make an aggregate's result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) function: Function,
    pub(crate) parameter: f64,
    pub(crate) class: Class,
    pub(crate) result: ArgumentType,
    /// Where the number of the argument's nulls is; `None` without an argument.
    pub(crate) nulls: Option<usize>,
    /// The cells it is made of, by their first words; the second is of `delta` and `rate` only.
    pub(crate) cells: [usize; 2],
}

/// Most words of a cell.
pub(crate) const WORDS_MAX: usize = 3;
/// The word that counts the rows.
pub(crate) const ROWS: usize = 0;

/// The cells of a block.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) cells: Vec<Cell>,
    pub(crate) recipes: Vec<Recipe>,
    /// A block without rows.
    pub(crate) empty: Vec<u64>,
    /// What a block counts, in bytes.
    pub(crate) bytes: usize,
}

impl Layout {
    pub(crate) fn new(spec: &WindowSpec) -> Result<Self, SpecError> {
        let mut wanted = Vec::new();
        for aggregate in &spec.aggregates {
            spec.result(aggregate)?;
            let Some(argument) = aggregate.argument else {
                continue;
            };
            wanted.push((argument, What::Nulls));
            let whats = needs(aggregate.function).iter();
            wanted.extend(whats.map(|what| (argument, *what)));
        }
        let class = |argument: usize| {
            let kind = spec.arguments.get(argument).copied();
            Class::of(kind.unwrap_or(ArgumentType::Float64))
        };
        // Cells that are filled alike lie together; and those last that hardly ever are.
        wanted.sort_by_key(|(argument, what)| {
            (*what == What::Nulls, *what, class(*argument), *argument)
        });
        wanted.dedup();
        let timed: Vec<_> = wanted.clone();
        wanted.retain(|(argument, what)| {
            let more = match what {
                What::Min => What::MinAt,
                What::Max => What::MaxAt,
                _ => return true,
            };
            !timed.contains(&(*argument, more))
        });

        let mut layout = Self {
            cells: Vec::new(),
            recipes: Vec::new(),
            empty: vec![0],
            bytes: 0,
        };
        let mut guessed = 0;
        for (argument, what) in wanted {
            let class = class(argument);
            let cell = Cell {
                what,
                class,
                argument,
                at: layout.empty.len(),
            };
            if cell.is_in_slab() {
                guessed += what.guess();
            }
            layout.cells.push(cell);
            layout.empty.extend(&initial(what, class)[..what.words()]);
        }
        layout.bytes = layout.empty.len() * size_of::<u64>() + guessed;
        for aggregate in &spec.aggregates {
            let recipe = layout.recipe(aggregate, spec)?;
            layout.recipes.push(recipe);
        }
        Ok(layout)
    }

    fn find(&self, argument: usize, what: What) -> Option<usize> {
        let found = self
            .cells
            .iter()
            .find(|cell| cell.argument == argument && cell.what == what);
        found.map(|cell| cell.at)
    }

    fn recipe(&self, aggregate: &Aggregate, spec: &WindowSpec) -> Result<Recipe, SpecError> {
        let mut cells = [ROWS; 2];
        let mut nulls = None;
        let mut class = Class::Int;
        if let Some(argument) = aggregate.argument {
            nulls = self.find(argument, What::Nulls);
            let kind = spec.arguments.get(argument).copied();
            class = Class::of(kind.unwrap_or(ArgumentType::Float64));
            for (cell, what) in cells.iter_mut().zip(needs(aggregate.function)) {
                let more = match what {
                    What::Min => What::MinAt,
                    What::Max => What::MaxAt,
                    other => *other,
                };
                let found = self.find(argument, *what);
                *cell = found.or_else(|| self.find(argument, more)).unwrap_or(ROWS);
            }
        }
        let parameter = match aggregate.function {
            Function::Median => 0.5,
            _ => aggregate.parameter.unwrap_or(0.0),
        };
        Ok(Recipe {
            function: aggregate.function,
            parameter,
            class,
            result: spec.result(aggregate)?,
            nulls,
            cells,
        })
    }

    /// A number that is another one if blocks lie otherwise.
    pub(crate) fn mark(&self) -> u64 {
        let mut mark = Mark::default();
        for cell in &self.cells {
            mark.add(cell.what as u64);
            mark.add(cell.class as u64);
            mark.add(cell.argument as u64);
        }
        mark.0
    }
}

/// What an aggregate is made of, beside the numbers of rows and nulls.
const fn needs(function: Function) -> &'static [What] {
    match function {
        Function::Rows | Function::Count => &[],
        Function::Sum | Function::Avg => &[What::Sum],
        Function::Min => &[What::Min],
        Function::Max => &[What::Max],
        Function::MinAt => &[What::MinAt],
        Function::MaxAt => &[What::MaxAt],
        Function::First => &[What::First],
        Function::Last => &[What::Last],
        Function::Delta | Function::Rate => &[What::First, What::Last],
        Function::Stddev | Function::StddevPop | Function::Var | Function::VarPop => {
            &[What::Moments]
        }
        Function::Median | Function::Quantile => &[What::Digest],
        Function::TimeWeightedAvg => &[What::Weighted],
        Function::ApproxCountDistinct => &[What::Distinct],
    }
}

/// The words of a cell without values. Those of a least, greatest, first or last value are such
/// that every value replaces them.
fn initial(what: What, class: Class) -> [u64; WORDS_MAX] {
    let value = |float: f64, int: i64| match class {
        Class::Float => float.to_bits(),
        Class::Int => int.cast_unsigned(),
        Class::Text => 0,
    };
    let (early, late) = (i64::MIN.cast_unsigned(), i64::MAX.cast_unsigned());
    match what {
        // NaN is above all numbers.
        What::Min | What::MinAt => [value(f64::NAN, i64::MAX), late, 0],
        What::Max | What::MaxAt => [value(f64::NEG_INFINITY, i64::MIN), late, 0],
        What::First => [value(f64::NAN, 0), late, 0],
        What::Last => [value(f64::NAN, 0), early, 0],
        What::Nulls
        | What::Sum
        | What::Moments
        | What::Digest
        | What::Distinct
        | What::Weighted => [0; WORDS_MAX],
    }
}

/// FNV-1a over words: tells definitions apart, no more.
pub(crate) struct Mark(pub(crate) u64);

impl Default for Mark {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Mark {
    pub(crate) fn add(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
