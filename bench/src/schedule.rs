//! When batches are due: fixed ahead, whatever the server does. A source that falls behind does not
//! get a gentler schedule; its batches wait, and their latency counts from when they were due.

use std::{collections::VecDeque, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::scenario::{Arrivals, Scenario};

/// The due times of one source, from the start of the load, in order, without end (or until the
/// recording ends).
#[derive(Debug)]
pub(crate) struct Schedule {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Constant {
        /// Seconds between batches.
        interval: f64,
        phase: f64,
        index: u64,
    },
    Poisson {
        interval: f64,
        at: f64,
        random: Box<SmallRng>,
    },
    Bursts {
        interval: f64,
        phase: f64,
        size: u64,
        index: u64,
    },
    Recorded(VecDeque<Duration>),
}

impl Schedule {
    /// That of source `index` of `count` which share the scenario's rate. `None` when flat out.
    pub(crate) fn of(scenario: &Scenario, index: usize, count: usize) -> Option<Self> {
        if scenario.rate == 0 {
            return None;
        }
        let interval = f64::from(scenario.rows) * count as f64 / scenario.rate as f64;
        // Sources do not all begin at the same moment.
        let phase = interval * index as f64 / count.max(1) as f64;
        let kind = match scenario.arrivals {
            Arrivals::Constant | Arrivals::Replay => Kind::Constant {
                interval,
                phase,
                index: 0,
            },
            Arrivals::Poisson => Kind::Poisson {
                interval,
                at: 0.0,
                random: Box::new(SmallRng::seed_from_u64(
                    scenario.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index as u64,
                )),
            },
            Arrivals::Bursts => Kind::Bursts {
                interval: interval * f64::from(scenario.burst),
                phase: phase * f64::from(scenario.burst),
                size: u64::from(scenario.burst),
                index: 0,
            },
        };
        Some(Self { kind })
    }

    /// These times.
    pub(crate) fn recorded(times: impl IntoIterator<Item = Duration>) -> Self {
        Self {
            kind: Kind::Recorded(times.into_iter().collect()),
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match &mut self.kind {
            Kind::Constant {
                interval,
                phase,
                index,
            } => {
                *index += 1;
                *phase + *interval * (*index - 1) as f64
            }
            Kind::Poisson {
                interval,
                at,
                random,
            } => {
                // 1 - u is in (0, 1], whose logarithm is finite.
                *at -= *interval * (1.0 - random.random::<f64>()).ln();
                *at
            }
            Kind::Bursts {
                interval,
                phase,
                size,
                index,
            } => {
                *index += 1;
                *phase + *interval * ((*index - 1) / *size) as f64
            }
            Kind::Recorded(times) => return times.pop_front(),
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Knobs;

    fn scenario(arrivals: Arrivals) -> Scenario {
        let knobs = Knobs {
            arrivals: Some(arrivals),
            rate: Some(1_000),
            rows: Some(10),
            burst: Some(5),
            ..Knobs::default()
        };
        knobs.resolve()
    }

    #[test]
    fn a_constant_schedule_is_even_and_staggered() {
        let s = scenario(Arrivals::Constant);
        // 100 batches a second over two sources.
        let first: Vec<_> = Schedule::of(&s, 0, 2).unwrap().take(3).collect();
        let second: Vec<_> = Schedule::of(&s, 1, 2).unwrap().take(2).collect();
        assert_eq!(first, [0, 20, 40].map(Duration::from_millis));
        assert_eq!(second, [10, 30].map(Duration::from_millis));
    }

    #[test]
    fn a_poisson_schedule_has_the_right_mean_and_the_spread_of_chance() {
        let s = scenario(Arrivals::Poisson);
        let times: Vec<f64> = Schedule::of(&s, 0, 1)
            .unwrap()
            .take(20_000)
            .map(|time| time.as_secs_f64())
            .collect();
        let mean = times[times.len() - 1] / times.len() as f64;
        assert!((mean - 0.01).abs() < 0.0005, "{mean}");
        let variance = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0] - mean).powi(2))
            .sum::<f64>()
            / times.len() as f64;
        // An exponential gap's deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05);
        let again: Vec<_> = Schedule::of(&s, 0, 1).unwrap().take(5).collect();
        assert_eq!(
            again[4].as_secs_f64(),
            times[4],
            "the same seed, the same load"
        );
    }

    #[test]
    fn bursts_come_together_and_keep_the_rate() {
        let s = scenario(Arrivals::Bursts);
        let times: Vec<_> = Schedule::of(&s, 0, 1).unwrap().take(11).collect();
        assert_eq!(times[0], times[4]);
        assert_eq!(times[5], Duration::from_millis(50));
        assert_eq!(times[10], Duration::from_millis(100));
    }
}
