//! Rows into blocks: kind by kind of cells, and for each run by run, so that what is to be done is
//! decided once a batch and not once a value, and a block's cells are filled while it is at hand. Whatever the runs, a block's rows are folded in the
//! order they came in: a result's bits do not depend on where batches end.

use arrow_buffer::NullBuffer;

use crate::{
    cells::{
        blocks::Blocks,
        column::{Column, Values},
        large::Large,
        layout::{Cell, Class, ROWS, What},
        order,
    },
    states::Moments,
};

/// Most cells that are filled together.
const GROUP: usize = 16;

/// Rows that follow each other and belong to one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) block: u32,
    pub(crate) from: u32,
    /// Behind its last row.
    pub(crate) to: u32,
}

impl Run {
    const fn rows(self) -> std::ops::Range<usize> {
        self.from as usize..self.to as usize
    }
}

impl Blocks {
    /// Adds rows to their blocks.
    pub(crate) fn fold(&mut self, runs: &[Run], ts: &[i64], columns: &[Column<'_>]) {
        let width = self.layout.empty.len();
        for run in runs {
            if let Some(rows) = self.words.get_mut(run.block as usize * width + ROWS) {
                *rows += u64::from(run.to - run.from);
            }
        }
        let layout = std::sync::Arc::clone(&self.layout);
        // Cells of one kind lie together, and are filled together if no value is null.
        let is_whole = |cell: &Cell| {
            let column = columns.get(cell.argument);
            column.is_some_and(|column| column.nulls.is_none())
        };
        let alike = |cell: &Cell, next: &Cell| {
            cell.what == next.what && cell.class == next.class && is_whole(cell) && is_whole(next)
        };
        for cells in layout.cells.chunk_by(alike) {
            for cells in cells.chunks(GROUP) {
                self.fold_cells(cells, runs, ts, columns);
            }
        }
    }

    /// Fills cells of one kind: one, or several without nulls.
    fn fold_cells(&mut self, cells: &[Cell], runs: &[Run], ts: &[i64], columns: &[Column<'_>]) {
        let Some(cell) = cells.first() else {
            return;
        };
        let Some(column) = columns.get(cell.argument) else {
            return;
        };
        let width = self.layout.empty.len();
        if cell.what == What::Nulls {
            self.count_nulls(cells, runs, columns);
            return;
        }
        if let Some(empty) = Large::empty(cell.what) {
            for cell in cells {
                let Some(column) = columns.get(cell.argument) else {
                    continue;
                };
                for run in runs {
                    self.fold_large(cell, *run, ts, column, &empty);
                }
            }
            return;
        }
        let mut group = Cells {
            words: &mut self.words,
            width,
            at: cell.at,
            runs,
            ts,
            nulls: column.nulls,
        };
        // The columns were checked against the arguments: all are of the class.
        match cell.class {
            Class::Float => {
                let values = slices(cells, columns, |column| match &column.values {
                    Values::Float(values) => Some(*values),
                    _ => None,
                });
                floats(
                    &mut group,
                    cell.what,
                    values.get(..cells.len()).unwrap_or(&[]),
                );
            }
            Class::Int => {
                let values = slices(cells, columns, |column| match &column.values {
                    Values::Int(values) => Some(&**values),
                    _ => None,
                });
                ints(
                    &mut group,
                    cell.what,
                    values.get(..cells.len()).unwrap_or(&[]),
                );
            }
            Class::Text => {
                for cell in cells {
                    self.fold_texts(cell, runs, ts, columns);
                }
            }
        }
    }

    fn count_nulls(&mut self, cells: &[Cell], runs: &[Run], columns: &[Column<'_>]) {
        let width = self.layout.empty.len();
        for cell in cells {
            let Some(nulls) = columns.get(cell.argument).and_then(|column| column.nulls) else {
                continue;
            };
            for run in runs {
                let many = run.rows().filter(|row| nulls.is_null(*row)).count();
                if let Some(count) = self.words.get_mut(run.block as usize * width + cell.at) {
                    *count += many as u64;
                }
            }
        }
    }

    fn fold_texts(&mut self, cell: &Cell, runs: &[Run], ts: &[i64], columns: &[Column<'_>]) {
        let Some(column) = columns.get(cell.argument) else {
            return;
        };
        let Values::Text(texts) = &column.values else {
            return;
        };
        for run in runs {
            for row in run.rows().filter(|row| column.has(*row)) {
                let at = ts.get(row).copied().unwrap_or_default();
                self.fold_text(cell, run.block, texts.value(row), at);
            }
        }
    }

    /// Adds rows to a state of its own.
    fn fold_large(
        &mut self,
        cell: &Cell,
        run: Run,
        ts: &[i64],
        column: &Column<'_>,
        empty: &Large,
    ) {
        let at = run.block as usize * self.layout.empty.len() + cell.at;
        let Some(number) = self.words.get_mut(at) else {
            return;
        };
        if *number == 0 && run.rows().any(|row| column.has(row)) {
            self.large.put(number, empty.clone());
        }
        let Some(state) = self.large.get_mut(*number) else {
            return;
        };
        for row in run.rows().filter(|row| column.has(*row)) {
            match state {
                Large::Digest(digest) => digest.push(column.number(row)),
                Large::Distinct(distinct) => distinct.push(column.hash(row)),
                Large::Weighted(weighted) => {
                    let at = ts.get(row).copied().unwrap_or_default();
                    weighted.push(at, column.number(row));
                }
                Large::Text(_) => {}
            }
        }
    }

    /// Adds a text to a cell of texts.
    pub(crate) fn fold_text(&mut self, cell: &Cell, block: u32, text: &str, ts: i64) {
        let at = block as usize * self.layout.empty.len() + cell.at;
        let Some(words) = self.words.get_mut(at..) else {
            return;
        };
        let (Some((number, rest)), large) = (words.split_first_mut(), &mut self.large) else {
            return;
        };
        let held = large.get(*number).and_then(Large::text);
        let time = rest.first_mut();
        let time_held = time.as_ref().map_or(0, |time| time.cast_signed());
        let taken = match (cell.what, held) {
            (What::Min, held) => held.is_none_or(|held| text < held),
            (What::Max, held) => held.is_none_or(|held| text > held),
            (What::MinAt, held) => {
                held.is_none_or(|held| text < held || (text == held && ts < time_held))
            }
            (What::MaxAt, held) => {
                held.is_none_or(|held| text > held || (text == held && ts < time_held))
            }
            (What::First, _) => ts < time_held,
            (What::Last, _) => ts >= time_held,
            _ => false,
        };
        if !taken {
            return;
        }
        if held != Some(text) {
            large.put(number, Large::Text(Box::from(text)));
        }
        if let Some(time) = time
            && !matches!(cell.what, What::Min | What::Max)
        {
            *time = ts.cast_unsigned();
        }
    }
}

/// The values of each cell's column.
fn slices<'a, V>(
    cells: &[Cell],
    columns: &'a [Column<'a>],
    values: impl Fn(&'a Column<'a>) -> Option<&'a [V]>,
) -> [&'a [V]; GROUP] {
    let mut slices: [&[V]; GROUP] = [&[]; GROUP];
    for (slice, cell) in slices.iter_mut().zip(cells) {
        *slice = columns.get(cell.argument).and_then(&values).unwrap_or(&[]);
    }
    slices
}

/// Cells of one kind that lie together in all blocks, and the rows that come to them.
struct Cells<'a> {
    words: &'a mut [u64],
    width: usize,
    /// Where the first is.
    at: usize,
    runs: &'a [Run],
    ts: &'a [i64],
    /// Of a cell that is alone.
    nulls: Option<&'a NullBuffer>,
}

impl Cells<'_> {
    /// Steps the states of `W` words, one of each column of values, through their rows.
    #[inline]
    fn each<const W: usize, V: Copy, S>(
        &mut self,
        columns: &[&[V]],
        load: impl Fn([u64; W]) -> S,
        step: impl Fn(&mut S, V, usize),
        store: impl Fn(S) -> [u64; W],
    ) {
        self.each_or_many(columns, &load, &step, &store, |cells, columns, run| {
            for (words, values) in cells.iter_mut().zip(columns) {
                let values = values.get(run.rows()).unwrap_or(&[]);
                let mut state = load(*words);
                for (value, row) in values.iter().zip(run.rows()) {
                    step(&mut state, *value, row);
                }
                *words = store(state);
            }
        });
    }

    /// As [`Self::each`]; runs of several rows without nulls are left to `many`.
    #[inline]
    fn each_or_many<const W: usize, V: Copy, S>(
        &mut self,
        columns: &[&[V]],
        load: impl Fn([u64; W]) -> S,
        step: impl Fn(&mut S, V, usize),
        store: impl Fn(S) -> [u64; W],
        many: impl Fn(&mut [[u64; W]], &[&[V]], Run),
    ) {
        for run in self.runs {
            let at = run.block as usize * self.width + self.at;
            let Some(words) = self.words.get_mut(at..at + W * columns.len()) else {
                continue;
            };
            let (cells, _) = words.as_chunks_mut::<W>();
            match self.nulls {
                // A row of each of many devices: as little as possible is done around it.
                None if run.to - run.from == 1 => {
                    let row = run.from as usize;
                    for (words, values) in cells.iter_mut().zip(columns) {
                        if let Some(value) = values.get(row) {
                            let mut state = load(*words);
                            step(&mut state, *value, row);
                            *words = store(state);
                        }
                    }
                }
                None => many(cells, columns, *run),
                Some(nulls) => {
                    for (words, values) in cells.iter_mut().zip(columns) {
                        let values = values.get(run.rows()).unwrap_or(&[]);
                        let mut state = load(*words);
                        for (value, row) in values.iter().zip(run.rows()) {
                            if nulls.is_valid(row) {
                                step(&mut state, *value, row);
                            }
                        }
                        *words = store(state);
                    }
                }
            }
        }
    }

    /// Keeps, of values and times, what `is_better` than what is held.
    #[inline]
    fn best<V: Copy>(
        &mut self,
        columns: &[&[V]],
        of_word: impl Fn(u64) -> V,
        to_word: impl Fn(V) -> u64,
        is_better: impl Fn(V, i64, V, i64) -> bool,
    ) {
        let times = self.ts;
        self.each(
            columns,
            |[value, at]| (of_word(value), at.cast_signed()),
            |held, value, row| {
                let ts = times.get(row).copied().unwrap_or_default();
                if is_better(value, ts, held.0, held.1) {
                    *held = (value, ts);
                }
            },
            |(value, at)| [to_word(value), at.cast_unsigned()],
        );
    }
}

/// Adds a run's rows to sums.
fn sum_many(cells: &mut [[u64; 2]], columns: &[&[f64]], run: Run) {
    let (fours, rest) = cells.as_chunks_mut::<4>();
    let (columns_of_fours, columns) = columns.as_chunks::<4>();
    for (cells, columns) in fours.iter_mut().zip(columns_of_fours) {
        sum_abreast(cells, columns, run);
    }
    let (twos, rest) = rest.as_chunks_mut::<2>();
    let (columns_of_twos, columns) = columns.as_chunks::<2>();
    for (cells, columns) in twos.iter_mut().zip(columns_of_twos) {
        sum_abreast(cells, columns, run);
    }
    let (ones, _) = rest.as_chunks_mut::<1>();
    let (columns_of_ones, _) = columns.as_chunks::<1>();
    for (cells, columns) in ones.iter_mut().zip(columns_of_ones) {
        sum_abreast(cells, columns, run);
    }
}

fn sum_abreast<const N: usize>(cells: &mut [[u64; 2]; N], columns: &[&[f64]; N], run: Run) {
    let columns = columns.map(|values| values.get(run.rows()).unwrap_or(&[]));
    let mut sums = cells.map(|[sum, _]| f64::from_bits(sum));
    let mut losses = cells.map(|[_, lost]| f64::from_bits(lost));
    order::add_columns(&mut sums, &mut losses, columns);
    for (cell, (sum, lost)) in cells.iter_mut().zip(sums.into_iter().zip(losses)) {
        *cell = [sum.to_bits(), lost.to_bits()];
    }
}

fn floats(cells: &mut Cells<'_>, what: What, values: &[&[f64]]) {
    let (of, to) = (f64::from_bits, f64::to_bits);
    match what {
        What::Nulls => {}
        What::Sum => cells.each_or_many(
            values,
            |[sum, lost]| (of(sum), of(lost)),
            |(sum, lost), value, _| order::add(sum, lost, value),
            |(sum, lost)| [to(sum), to(lost)],
            sum_many,
        ),
        What::Min => cells.each(
            values,
            |[least]| of(least),
            |least, value, _| {
                // Told by one comparison, nearly always.
                if value >= *least {
                    return;
                }
                if order::less(value, *least) {
                    *least = value;
                }
            },
            |least| [to(least)],
        ),
        What::Max => cells.each(
            values,
            |[most]| of(most),
            |most, value, _| {
                if value <= *most {
                    return;
                }
                if order::less(*most, value) {
                    *most = value;
                }
            },
            |most| [to(most)],
        ),
        What::MinAt => cells.best(values, of, to, |value, ts, held, at| {
            order::less(value, held) || (order::same(value, held) && ts < at)
        }),
        What::MaxAt => cells.best(values, of, to, |value, ts, held, at| {
            order::less(held, value) || (order::same(value, held) && ts < at)
        }),
        What::First => cells.best(values, of, to, |_, ts, _, at| ts < at),
        What::Last => cells.best(values, of, to, |_, ts, _, at| ts >= at),
        What::Moments => cells.each(
            values,
            Moments::of_words,
            |moments, value, _| moments.push(value),
            |moments| moments.words(),
        ),
        // In the slab.
        What::Digest | What::Distinct | What::Weighted => {}
    }
}

fn ints(cells: &mut Cells<'_>, what: What, values: &[&[i64]]) {
    let (of, to) = (u64::cast_signed, i64::cast_unsigned);
    match what {
        What::Nulls => {}
        What::Sum => cells.each(
            values,
            wide,
            // 2^63 values of 2^63 would have to come to leave 128 bits.
            |sum, value, _| *sum = sum.wrapping_add(i128::from(value)),
            narrow,
        ),
        What::Min => cells.each(
            values,
            |[least]| of(least),
            |least, value, _| *least = value.min(*least),
            |least| [to(least)],
        ),
        What::Max => cells.each(
            values,
            |[most]| of(most),
            |most, value, _| *most = value.max(*most),
            |most| [to(most)],
        ),
        What::MinAt => cells.best(values, of, to, |value, ts, held, at| {
            value < held || (value == held && ts < at)
        }),
        What::MaxAt => cells.best(values, of, to, |value, ts, held, at| {
            value > held || (value == held && ts < at)
        }),
        What::First => cells.best(values, of, to, |_, ts, _, at| ts < at),
        What::Last => cells.best(values, of, to, |_, ts, _, at| ts >= at),
        What::Moments => cells.each(
            values,
            Moments::of_words,
            |moments, value, _| moments.push(value as f64),
            |moments| moments.words(),
        ),
        // In the slab.
        What::Digest | What::Distinct | What::Weighted => {}
    }
}

/// A sum of integers of its words.
pub(crate) const fn wide([low, high]: [u64; 2]) -> i128 {
    ((high as i128) << 64) | low as i128
}

/// The words of a sum of integers.
#[expect(clippy::cast_possible_truncation, reason = "the words are its halves")]
pub(crate) const fn narrow(sum: i128) -> [u64; 2] {
    [sum as u64, (sum >> 64) as u64]
}
