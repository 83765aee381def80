//! Loops written for one case each: what a person would write who knows that there are ten fields,
//! no nulls, only these windows, and that no row is later than the tolerance. Sums are plain ones.

use std::collections::HashMap;

use arrow_array::{Array as _, Float64Array, StringArray};

use crate::{
    Fault, Results, Windows,
    case::{Case, GAP, HOPS, Kind, MINUTE},
    rows::{Batch, FIELDS},
};

/// A loop for a case.
pub fn of(case: Case) -> Box<dyn Windows> {
    match (case.kind, case.with_ends) {
        (Kind::Tumbling, false) => Box::new(ByHand::<Minutes<2, false>>::new(1)),
        (Kind::Tumbling, true) => Box::new(ByHand::<Minutes<2, true>>::new(1)),
        (Kind::Hopping, _) => Box::new(ByHand::<Minutes<8, false>>::new(HOPS)),
        (Kind::Session, _) => Box::new(ByHand::<Session>::new(1)),
    }
}

/// What is known of rows.
#[derive(Clone, Copy, Debug)]
struct Sums {
    count: u64,
    sums: [f64; FIELDS],
}

impl Sums {
    const NONE: Self = Self {
        count: 0,
        sums: [0.0; FIELDS],
    };

    #[inline]
    fn add(&mut self, row: usize, fields: &[&[f64]; FIELDS]) {
        self.count += 1;
        for (sum, values) in self.sums.iter_mut().zip(fields) {
            *sum += values[row];
        }
    }
}

/// Least and greatest values; nothing if they are not wanted.
#[derive(Clone, Copy, Debug)]
struct Ends<const WANTED: bool>([[f64; FIELDS]; 2]);

impl<const WANTED: bool> Ends<WANTED> {
    const NONE: Self = Self([[f64::INFINITY; FIELDS], [f64::NEG_INFINITY; FIELDS]]);

    #[inline]
    fn add(&mut self, row: usize, fields: &[&[f64]; FIELDS]) {
        if WANTED {
            let [least, most] = &mut self.0;
            for ((least, most), values) in least.iter_mut().zip(most).zip(fields) {
                *least = least.min(values[row]);
                *most = most.max(values[row]);
            }
        }
    }
}

/// What is kept of a device.
trait State: Sized {
    fn new() -> Self;

    fn add(
        &mut self,
        device: u32,
        ts: i64,
        row: usize,
        fields: &[&[f64]; FIELDS],
        minutes: i64,
        closed: &mut Vec<Closed>,
    );

    fn close(&mut self, device: u32, minutes: i64, closed: &mut Vec<Closed>);
}

/// A window's result.
#[derive(Clone, Debug)]
struct Closed {
    device: u32,
    start: i64,
    count: u64,
    averages: [f64; FIELDS],
    ends: Option<Box<[[f64; FIELDS]; 2]>>,
}

impl Closed {
    fn new(device: u32, start: i64, sums: &Sums) -> Self {
        Self {
            device,
            start,
            count: sums.count,
            averages: sums.sums.map(|sum| sum / sums.count as f64),
            ends: None,
        }
    }
}

#[derive(Debug)]
struct ByHand<S> {
    /// Minutes of a window.
    minutes: i64,
    numbers: HashMap<String, u32>,
    states: Vec<S>,
    closed: Vec<Closed>,
}

impl<S: State> ByHand<S> {
    fn new(minutes: i64) -> Self {
        Self {
            minutes,
            numbers: HashMap::new(),
            states: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        self.states.push(S::new());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

impl<S: State> Windows for ByHand<S> {
    fn push(&mut self, batch: &Batch) -> Result<(), Fault> {
        let names = batch.device.values().as_any();
        let names = names.downcast_ref::<StringArray>().ok_or("no names")?;
        let numbers: Vec<u32> = names
            .iter()
            .flatten()
            .map(|name| self.number(name))
            .collect();
        let mut fields: [&[f64]; FIELDS] = [&[]; FIELDS];
        for (slice, field) in fields.iter_mut().zip(&batch.fields) {
            let floats = field.as_any().downcast_ref::<Float64Array>();
            *slice = floats.ok_or("no floats")?.values();
        }
        let devices = batch.device.keys().values().iter();
        for (row, (ts, device)) in batch.ts.iter().zip(devices).enumerate() {
            let device = numbers[*device as usize];
            let state = &mut self.states[device as usize];
            state.add(device, *ts, row, &fields, self.minutes, &mut self.closed);
        }
        Ok(())
    }

    fn close(&mut self) {
        for (device, state) in (0..).zip(&mut self.states) {
            state.close(device, self.minutes, &mut self.closed);
        }
    }

    fn take(&mut self) -> Results {
        let mut names = vec![""; self.states.len()];
        for (name, number) in &self.numbers {
            names[*number as usize] = name;
        }
        let mut results = Results::default();
        for closed in self.closed.drain(..) {
            results
                .device
                .push(names[closed.device as usize].to_owned());
            results.start.push(closed.start);
            results.count.push(closed.count.cast_signed());
            let mut values = Vec::new();
            for (field, average) in closed.averages.iter().enumerate() {
                values.push(*average);
                values.extend(
                    closed
                        .ends
                        .iter()
                        .flat_map(|ends| ends.map(|end| end[field])),
                );
            }
            results.values.resize(values.len(), Vec::new());
            for (column, value) in results.values.iter_mut().zip(values) {
                column.push(value);
            }
        }
        results
    }

    fn discard(&mut self) -> u64 {
        let many = std::hint::black_box(&self.closed).len() as u64;
        self.closed.clear();
        many
    }
}

/// Windows of whole minutes: a place for each of the last `N` minutes.
#[derive(Debug)]
struct Minutes<const N: usize, const ENDS: bool> {
    /// The latest minute with a row.
    latest: i64,
    places: [(i64, Sums, Ends<ENDS>); N],
}

impl<const N: usize, const ENDS: bool> Minutes<N, ENDS> {
    /// No row was so early.
    const NEVER: i64 = -1;
    const EMPTY: (i64, Sums, Ends<ENDS>) = (Self::NEVER, Sums::NONE, Ends::NONE);

    /// The window that starts with a minute.
    fn window(&self, device: u32, first: i64, minutes: i64, closed: &mut Vec<Closed>) {
        let (mut whole, mut ends) = (Sums::NONE, None);
        for minute in first..first + minutes {
            let (held, sums, of_minute) = &self.places[(minute as usize) % N];
            if *held == minute {
                whole.count += sums.count;
                for (sum, more) in whole.sums.iter_mut().zip(sums.sums) {
                    *sum += more;
                }
                ends = ENDS.then(|| Box::new(of_minute.0));
            }
        }
        if whole.count > 0 {
            closed.push(Closed {
                ends,
                ..Closed::new(device, first * MINUTE, &whole)
            });
        }
    }
}

impl<const N: usize, const ENDS: bool> State for Minutes<N, ENDS> {
    fn new() -> Self {
        Self {
            latest: Self::NEVER,
            places: [Self::EMPTY; N],
        }
    }

    #[inline]
    fn add(
        &mut self,
        device: u32,
        ts: i64,
        row: usize,
        fields: &[&[f64]; FIELDS],
        minutes: i64,
        closed: &mut Vec<Closed>,
    ) {
        let minute = ts.div_euclid(MINUTE);
        if minute > self.latest {
            // A row of the minute before may still come; of those before that, none.
            if self.latest != Self::NEVER {
                for last in self.latest - 1..minute - 1 {
                    self.window(device, last - minutes + 1, minutes, closed);
                    self.places[((last - minutes + 1) as usize) % N] = Self::EMPTY;
                }
            }
            self.latest = minute;
        }
        let place = &mut self.places[(minute as usize) % N];
        place.0 = minute;
        place.1.add(row, fields);
        place.2.add(row, fields);
    }

    fn close(&mut self, device: u32, minutes: i64, closed: &mut Vec<Closed>) {
        for last in self.latest - 1..self.latest + minutes {
            self.window(device, last - minutes + 1, minutes, closed);
        }
    }
}

/// The session that is open.
#[derive(Debug)]
struct Session {
    start: i64,
    last: i64,
    sums: Sums,
}

impl State for Session {
    fn new() -> Self {
        Self {
            start: 0,
            last: i64::MIN / 2,
            sums: Sums::NONE,
        }
    }

    #[inline]
    fn add(
        &mut self,
        device: u32,
        ts: i64,
        row: usize,
        fields: &[&[f64]; FIELDS],
        minutes: i64,
        closed: &mut Vec<Closed>,
    ) {
        if ts >= self.last + GAP {
            self.close(device, minutes, closed);
            (self.start, self.last, self.sums) = (ts, ts, Sums::NONE);
        }
        self.start = self.start.min(ts);
        self.last = self.last.max(ts);
        self.sums.add(row, fields);
    }

    fn close(&mut self, device: u32, _: i64, closed: &mut Vec<Closed>) {
        if self.sums.count > 0 {
            closed.push(Closed::new(device, self.start, &self.sums));
        }
    }
}
