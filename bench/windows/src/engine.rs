//! The engine's windows.

use arrow_array::{Array as _, Float64Array, Int64Array};
use quiver_analysis::{
    Aggregate, ArgumentType, Emit, Function, Key, Kind as Shape, Limits, Output, Rows, Size,
    TimePolicy, WindowSpec, Windows as Engine,
};

use crate::{
    Fault, Results, Windows,
    case::{Case, GAP, HOPS, Kind, MINUTE, SECOND, TOLERANCE},
    rows::{Batch, FIELDS},
};

/// A case, as the engine computes it.
#[derive(Debug)]
pub struct OfEngine {
    engine: Engine,
    out: Output,
    now: i64,
}

impl OfEngine {
    /// Windows without rows.
    ///
    /// # Errors
    /// Never in practice: the definition is a right one.
    pub fn new(case: Case) -> Result<Self, Fault> {
        let engine = Engine::new(spec(case))?;
        let out = engine.output();
        Ok(Self {
            engine,
            out,
            now: i64::MIN,
        })
    }

    /// What its state takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.engine.usage().bytes
    }
}

impl Windows for OfEngine {
    fn push(&mut self, batch: &Batch) -> Result<(), Fault> {
        // Record time comes with the rows, and is looked at by the second.
        let now = batch.ts.first().copied().unwrap_or_default().max(self.now);
        let second = now.div_euclid(SECOND);
        if second > self.now.div_euclid(SECOND) {
            self.engine.advance(second * SECOND, &mut self.out);
        }
        self.now = now;
        let rows = Rows {
            ts: &batch.ts,
            arrival: &batch.ts,
            device: &batch.device,
            keys: &[],
            arguments: &batch.fields,
            open: None,
            close: None,
        };
        self.engine.push(&rows, now, &mut self.out)?;
        if let Some(late) = self.out.late.first() {
            return Err(format!("no row is late here: {late:?}").into());
        }
        Ok(())
    }

    fn close(&mut self) {
        self.engine.advance(i64::MAX / 2, &mut self.out);
    }

    fn take(&mut self) -> Results {
        let closed = self.out.take();
        let device = closed.device.iter().flatten().flatten();
        let mut columns = closed.results.iter().map(|column| column.as_any());
        let count = columns.next().and_then(|any| any.downcast_ref());
        let floats = |any: &dyn std::any::Any| {
            let column = any.downcast_ref::<Float64Array>();
            column.map_or(Vec::new(), |column| column.values().to_vec())
        };
        Results {
            device: device.map(str::to_owned).collect(),
            start: closed.start.values().to_vec(),
            count: count.map_or(Vec::new(), |count: &Int64Array| count.values().to_vec()),
            values: columns.map(floats).collect(),
        }
    }

    fn discard(&mut self) -> u64 {
        std::hint::black_box(self.out.take()).len() as u64
    }
}

fn spec(case: Case) -> WindowSpec {
    let kind = match case.kind {
        Kind::Tumbling => Shape::Tumbling {
            size: Size::Micros(MINUTE),
        },
        Kind::Hopping => Shape::Hopping {
            size: Size::Micros(HOPS * MINUTE),
            every: MINUTE,
        },
        Kind::Session => Shape::Session {
            gap: GAP,
            max: None,
        },
    };
    let functions: &[Function] = if case.with_ends {
        &[Function::Avg, Function::Min, Function::Max]
    } else {
        &[Function::Avg]
    };
    let aggregate = |function: Function, argument: Option<usize>| Aggregate {
        function,
        argument,
        parameter: None,
    };
    let of_fields = (0..FIELDS).flat_map(|field| {
        let functions = functions.iter();
        functions.map(move |function| aggregate(*function, Some(field)))
    });
    WindowSpec {
        kinds: vec![kind],
        key: Key::Device,
        arguments: vec![ArgumentType::Float64; FIELDS],
        aggregates: std::iter::once(aggregate(Function::Rows, None))
            .chain(of_fields)
            .collect(),
        time: TimePolicy {
            out_of_order: TOLERANCE,
            ..TimePolicy::default()
        },
        emit: Emit::Close,
        zone: None,
        limits: Limits::default(),
    }
}
