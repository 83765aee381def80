//! Windows of 10,000 devices, and the loops written by hand for the same case: their limit.

use quiver_bench_windows::{
    Batch, Case, FIELDS, Kind, Order, Rows, Windows, by_hand, engine::OfEngine,
};

use crate::{Entry, Fault, Kernel};

/// Devices.
const DEVICES: usize = 10_000;
/// Rows of a run.
const ROWS: usize = 10_000;

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for kind in [Kind::Tumbling, Kind::Hopping, Kind::Session] {
        let case = Case::averages(kind);
        for order in Order::ALL {
            let name = format!("{}/{}", case.name(), order.name());
            let points = (ROWS * FIELDS) as u64;
            entries.push(Entry::new("windows", name.clone(), points, move || {
                Ok(Turn::new(order, Box::new(OfEngine::new(case)?)))
            }));
            entries.push(Entry::new(
                "windows",
                format!("{name}/by_hand"),
                points,
                move || Ok(Turn::new(order, by_hand::of(case))),
            ));
        }
    }
    entries
}

/// One batch with a row of every device, or one of each of some devices: the next ones in each run,
/// so that windows close as they would.
struct Turn {
    rows: Rows,
    batches: Vec<Batch>,
    next: usize,
    windows: Box<dyn Windows>,
}

impl Turn {
    fn new(order: Order, windows: Box<dyn Windows>) -> Self {
        let rows = Rows::new(order, DEVICES);
        let mut batches = Vec::new();
        let mut many = 0;
        while many < ROWS {
            let batch = rows.batch(batches.len());
            many += batch.ts.len();
            batches.push(batch);
        }
        Self {
            rows,
            batches,
            next: 0,
            windows,
        }
    }
}

impl Kernel for Turn {
    fn prepare(&mut self) -> Result<(), Fault> {
        for batch in &mut self.batches {
            self.rows.turn_into(self.next, batch);
            self.next += 1;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<u64, Fault> {
        let mut points = 0;
        for batch in &self.batches {
            self.windows.push(batch)?;
            points += batch.ts.len() * FIELDS;
        }
        self.windows.discard();
        Ok(points as u64)
    }
}
