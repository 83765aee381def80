//! Rows into blocks: cell by cell, and for each cell run by run, so that what is to be done is
//! decided once a batch and not once a value. Whatever the runs, a block's rows are folded in the
//! order they came in: a result's bits do not depend on where batches end.

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
        for cell in &layout.cells {
            if let Some(column) = columns.get(cell.argument) {
                self.fold_cell(cell, runs, ts, column);
            }
        }
    }

    fn fold_cell(&mut self, cell: &Cell, runs: &[Run], ts: &[i64], column: &Column<'_>) {
        let width = self.layout.empty.len();
        if cell.what == What::Nulls {
            let Some(nulls) = column.nulls else {
                return;
            };
            for run in runs {
                let many = run.rows().filter(|row| nulls.is_null(*row)).count();
                if let Some(count) = self.words.get_mut(run.block as usize * width + cell.at) {
                    *count += many as u64;
                }
            }
            return;
        }
        if let Some(empty) = Large::empty(cell.what) {
            for run in runs {
                self.fold_large(cell, *run, ts, column, &empty);
            }
            return;
        }
        let mut cells = Cells {
            words: &mut self.words,
            width,
            at: cell.at,
            runs,
            ts,
            column,
        };
        match (&column.values, cell.class) {
            (Values::Float(values), Class::Float) => floats(&mut cells, cell.what, values),
            (Values::Int(values), Class::Int) => ints(&mut cells, cell.what, values),
            (Values::Text(texts), Class::Text) => {
                for run in runs {
                    for row in run.rows().filter(|row| column.has(*row)) {
                        let at = ts.get(row).copied().unwrap_or_default();
                        self.fold_text(cell, run.block, texts.value(row), at);
                    }
                }
            }
            // The columns were checked against the arguments.
            _ => {}
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

/// One cell of all blocks, and the rows that come to it.
struct Cells<'a> {
    words: &'a mut [u64],
    width: usize,
    at: usize,
    runs: &'a [Run],
    ts: &'a [i64],
    column: &'a Column<'a>,
}

impl Cells<'_> {
    /// Steps each block's state, of `W` words, through its rows.
    #[inline]
    fn each<const W: usize, V: Copy, S>(
        &mut self,
        values: &[V],
        load: impl Fn([u64; W]) -> S,
        step: impl Fn(&mut S, V, usize),
        store: impl Fn(S) -> [u64; W],
    ) {
        let nulls = self.column.nulls;
        for run in self.runs {
            let at = run.block as usize * self.width + self.at;
            let words = self.words.get_mut(at..).and_then(<[u64]>::first_chunk_mut);
            let (Some(words), Some(first)) = (words, values.get(run.from as usize)) else {
                continue;
            };
            let mut state = load(*words);
            match nulls {
                // A row of each of many devices: as little as possible is done around it.
                None if run.to - run.from == 1 => step(&mut state, *first, run.from as usize),
                None => {
                    let values = values.get(run.rows()).unwrap_or(&[]);
                    for (value, row) in values.iter().zip(run.rows()) {
                        step(&mut state, *value, row);
                    }
                }
                Some(nulls) => {
                    let values = values.get(run.rows()).unwrap_or(&[]);
                    for (value, row) in values.iter().zip(run.rows()) {
                        if nulls.is_valid(row) {
                            step(&mut state, *value, row);
                        }
                    }
                }
            }
            *words = store(state);
        }
    }

    /// Keeps, of values and times, what `is_better` than what is held.
    #[inline]
    fn best<V: Copy>(
        &mut self,
        values: &[V],
        of_word: impl Fn(u64) -> V,
        to_word: impl Fn(V) -> u64,
        is_better: impl Fn(V, i64, V, i64) -> bool,
    ) {
        let times = self.ts;
        self.each(
            values,
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

fn floats(cells: &mut Cells<'_>, what: What, values: &[f64]) {
    let (of, to) = (f64::from_bits, f64::to_bits);
    match what {
        What::Nulls => {}
        What::Sum => cells.each(
            values,
            |[sum, lost]| (of(sum), of(lost)),
            |(sum, lost), value, _| order::add(sum, lost, value),
            |(sum, lost)| [to(sum), to(lost)],
        ),
        What::Min => cells.each(
            values,
            |[least]| of(least),
            |least, value, _| {
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

fn ints(cells: &mut Cells<'_>, what: What, values: &[i64]) {
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
