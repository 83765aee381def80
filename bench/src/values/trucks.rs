//! Trucks in the shape of the Time Series Benchmark Suite's iot case: random walks with the suite's
//! steps, bounds and rounding.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, Int64Array};
use arrow_schema::{DataType, Field};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Name, step, lowest, highest, decimal places of each reading.
const READINGS: [(&str, f64, f64, f64, i32); 7] = [
    ("latitude", 0.005, -90.0, 90.0, 5),
    ("longitude", 0.005, -180.0, 180.0, 5),
    ("elevation", 10.0, 0.0, 5_000.0, 0),
    ("velocity", 10.0, 0.0, 100.0, 0),
    ("heading", 5.0, 0.0, 360.0, 0),
    ("grade", 5.0, 0.0, 100.0, 0),
    ("fuel_consumption", 5.0, 0.0, 50.0, 1),
];

/// What the suite says of each truck, beside its rows.
const ATTRIBUTES: [(&str, &[&str]); 4] = [
    ("fleet", &["East", "West", "North", "South"]),
    (
        "driver",
        &["Derek", "Rodney", "Albert", "Andy", "Seth", "Trish"],
    ),
    ("model", &["F-150", "G-2000", "H-2"]),
    ("device_version", &["v1.0", "v1.5", "v2.0", "v2.3"]),
];

/// The attributes of a truck, the same in every run.
pub(super) fn attributes(truck: u32) -> BTreeMap<&'static str, &'static str> {
    let mut digits = u64::from(truck).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let pick = |(name, choices): &(&'static str, &'static [&'static str])| {
        digits = digits.rotate_left(23).wrapping_mul(0xd134_2543_de82_ef95);
        let index = (digits >> 32) as usize % choices.len().max(1);
        Some((*name, *choices.get(index)?))
    };
    ATTRIBUTES.iter().filter_map(pick).collect()
}

/// One of the two streams of a group of trucks.
pub(super) struct Trucks {
    diagnostics: bool,
    /// Per truck the readings, or fuel, load and status.
    state: Vec<[f64; 7]>,
    random: SmallRng,
}

fn rounded(value: f64, places: i32) -> f64 {
    let factor = 10_f64.powi(places);
    (value * factor).round() / factor
}

impl Trucks {
    pub(super) fn new(diagnostics: bool, trucks: usize, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let state = (0..trucks.max(1))
            .map(|_| {
                let mut part = |most: f64| random.random::<f64>() * most;
                if diagnostics {
                    [1.0, part(5_000.0), 0.0, 0.0, 0.0, 0.0, 0.0]
                } else {
                    [
                        part(90.0),
                        part(180.0),
                        part(500.0),
                        0.0,
                        part(360.0),
                        0.0,
                        25.0,
                    ]
                }
            })
            .collect();
        Self {
            diagnostics,
            state,
            random,
        }
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        let float = |name: &str| Field::new(name, DataType::Float64, false);
        if self.diagnostics {
            vec![
                float("fuel_state"),
                float("current_load"),
                Field::new("status", DataType::Int64, false),
            ]
        } else {
            READINGS.iter().map(|(name, ..)| float(name)).collect()
        }
    }

    pub(super) fn columns(&mut self, rows: usize, begin: usize, among: usize) -> Vec<ArrayRef> {
        if self.diagnostics {
            self.diagnostics(rows, begin, among)
        } else {
            self.readings(rows, begin, among)
        }
    }

    fn readings(&mut self, rows: usize, begin: usize, among: usize) -> Vec<ArrayRef> {
        let trucks = self.state.len();
        let mut columns: [Vec<f64>; 7] = std::array::from_fn(|_| Vec::with_capacity(rows));
        for row in 0..rows {
            let Some(state) = self.state.get_mut((begin + row % among) % trucks) else {
                continue;
            };
            for ((column, value), (_, step, low, high, places)) in
                columns.iter_mut().zip(state).zip(READINGS)
            {
                let change = (self.random.random::<f64>() * 2.0 - 1.0) * step;
                *value = (*value + change).clamp(low, high);
                column.push(rounded(*value, places));
            }
        }
        columns
            .into_iter()
            .map(|column| Arc::new(Float64Array::from(column)) as ArrayRef)
            .collect()
    }

    fn diagnostics(&mut self, rows: usize, begin: usize, among: usize) -> Vec<ArrayRef> {
        let trucks = self.state.len();
        let (mut fuels, mut loads) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let mut states = Vec::with_capacity(rows);
        for row in 0..rows {
            let Some([fuel, load, status, ..]) = self.state.get_mut((begin + row % among) % trucks)
            else {
                continue;
            };
            *fuel -= self.random.random::<f64>() * 0.001;
            if *fuel <= 0.0 {
                *fuel = 1.0;
            }
            if self.random.random::<f64>() < 0.05 {
                *load = self.random.random::<f64>() * 5_000.0;
            }
            let change = (self.random.random::<f64>() * 2.0 - 1.0) * 1.5;
            *status = (*status + change).clamp(0.0, 5.0);
            fuels.push(rounded(*fuel, 1));
            loads.push(load.round());
            states.push(*status as i64);
        }
        vec![
            Arc::new(Float64Array::from(fuels)),
            Arc::new(Float64Array::from(loads)),
            Arc::new(Int64Array::from(states)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trucks_are_spread_over_all_fleets() {
        let fleets: std::collections::BTreeSet<_> =
            (0..100).map(|truck| attributes(truck)["fleet"]).collect();
        assert_eq!(fleets.len(), 4);
        assert_eq!(attributes(7), attributes(7));
        assert_eq!(attributes(7).len(), 4);
    }

    #[test]
    fn readings_stay_in_their_bounds_and_have_their_digits() {
        use arrow_array::{cast::AsArray, types::Float64Type};

        let mut trucks = Trucks::new(false, 3, 1);
        let columns = trucks.columns(300, 0, 3);
        assert_eq!(columns.len(), 7);
        for (column, (name, _, low, high, places)) in columns.iter().zip(READINGS) {
            for value in column.as_primitive::<Float64Type>().values() {
                assert!((low..=high).contains(value), "{name} {value}");
                assert_eq!(rounded(*value, places), *value, "{name}");
            }
        }
        assert_eq!(Trucks::new(true, 3, 1).columns(10, 0, 3).len(), 3);
    }
}
