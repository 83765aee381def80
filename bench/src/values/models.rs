//! Numbers and messages without a story.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, StringArray};
use arrow_schema::{DataType, Field};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::scenario::{Scenario, Values};

/// Devices whose walks are kept apart; beyond, several share one.
const WALKS_MAX: usize = 4_096;

/// Fields `f0`, `f1` … of floats.
pub(super) struct Numbers {
    kind: Values,
    fields: usize,
    /// Ten to the decimal places.
    factor: f64,
    /// Where each walk is, by device and field.
    state: Vec<f64>,
    walks: usize,
    random: SmallRng,
}

impl Numbers {
    pub(super) fn new(scenario: &Scenario, devices: usize, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let fields = scenario.fields as usize;
        let walks = devices.clamp(1, WALKS_MAX);
        let state = match scenario.values {
            Values::Walk => (0..walks * fields)
                .map(|_| random.random::<f64>() * 100.0)
                .collect(),
            _ => Vec::new(),
        };
        Self {
            kind: scenario.values,
            fields,
            factor: 10_f64.powi(scenario.decimals as i32),
            state,
            walks,
            random,
        }
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        (0..self.fields)
            .map(|field| Field::new(format!("f{field}"), DataType::Float64, false))
            .collect()
    }

    pub(super) fn columns(&mut self, rows: usize, begin: usize, among: usize) -> Vec<ArrayRef> {
        (0..self.fields)
            .map(|field| {
                let column: Vec<f64> = match self.kind {
                    Values::Noise => (0..rows)
                        .map(|_| self.random.random::<f64>() * 1e6)
                        .collect(),
                    Values::Constant => vec![field as f64; rows],
                    _ => self.walk(field, rows, begin, among),
                };
                Arc::new(Float64Array::from(column)) as ArrayRef
            })
            .collect()
    }

    fn walk(&mut self, field: usize, rows: usize, begin: usize, among: usize) -> Vec<f64> {
        let mut column = Vec::with_capacity(rows);
        for row in 0..rows {
            let walk = (begin + row % among) % self.walks;
            let step = self.random.random::<f64>() - 0.5;
            let Some(value) = self.state.get_mut(walk * self.fields + field) else {
                column.push(step);
                continue;
            };
            *value = (*value + step).clamp(-1_000.0, 1_000.0);
            column.push((*value * self.factor).round() / self.factor);
        }
        column
    }
}

/// A field `message` of text, and `id`-less: what a broker carries.
pub(super) struct Messages {
    bytes: usize,
    random: SmallRng,
}

impl Messages {
    pub(super) fn new(bytes: usize, seed: u64) -> Self {
        Self {
            bytes,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        vec![Field::new("message", DataType::Utf8, false)]
    }

    pub(super) fn columns(&mut self, rows: usize) -> Vec<ArrayRef> {
        let mut text = String::with_capacity(self.bytes + 16);
        let messages = (0..rows).map(|_| {
            text.clear();
            while text.len() < self.bytes {
                let mut digits: u64 = self.random.random();
                for _ in 0..10 {
                    // Six bits a character, all of them printable.
                    text.push(char::from(b'0' + (digits & 0x3f) as u8));
                    digits >>= 6;
                }
            }
            text.truncate(self.bytes);
            text.clone()
        });
        vec![Arc::new(StringArray::from_iter_values(messages))]
    }
}
