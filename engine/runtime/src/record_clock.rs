//! Record time: the engine's own, which drives ticks and waiting times and judges lateness.
//!
//! Within a run it is the wall time of the start, advanced by the monotonic clock: an adjusted
//! wall clock does not disturb it. It is slewed towards the wall clock by at most a thousandth of
//! the time that passes. A step of more than a minute, or a start before the log's last time,
//! calls for a ClockStepped record. After a step forward record time goes on from the wall clock's
//! (a machine that was asleep, or had no time before NTP); after one back, from where it was.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quiver_model::{Clock, Timestamp};

/// Differences up to this are slewed away; beyond it the clock is said to have stepped.
const STEP_MIN: Duration = Duration::from_secs(60);
/// Record time runs at most this many millionths faster or slower than the monotonic clock.
const SLEW_PPM: i64 = 1_000;

#[derive(Debug)]
struct State {
    /// Last time given, in record time.
    last: Timestamp,
    /// Monotonic time of that moment.
    last_monotonic: Duration,
    /// Wall clock minus record time that was already reported as a step.
    accepted_offset_us: i64,
    /// A step that nobody has asked for yet.
    found: Option<ClockStep>,
}

/// A step that was found, to be written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// Record time when it was found.
    pub record_time: Timestamp,
    /// Wall time at that moment.
    pub wall: Timestamp,
}

/// Gives record times.
#[derive(Debug)]
pub struct RecordClock {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl RecordClock {
    /// Starts at the wall clock, or at `log_end` (the last time in the log) if that is later: then
    /// the step is returned.
    pub fn new(clock: Arc<dyn Clock>, log_end: Timestamp) -> (Self, Option<ClockStep>) {
        let wall = clock.wall();
        let start = wall.max(log_end);
        let state = State {
            last: start,
            last_monotonic: clock.monotonic(),
            accepted_offset_us: wall.as_micros() - start.as_micros(),
            found: None,
        };
        let step = (wall < log_end).then_some(ClockStep {
            record_time: start,
            wall,
        });
        (
            Self {
                clock,
                state: Mutex::new(state),
            },
            step,
        )
    }

    /// The time for a record that enters now. Never decreases.
    pub fn now(&self) -> Timestamp {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.advance(&mut state)
    }

    /// The time now, and the last step of the wall clock that was found since the last call,
    /// whoever's call it was that found it.
    pub fn check(&self) -> (Timestamp, Option<ClockStep>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.advance(&mut state);
        (now, state.found.take())
    }

    /// Raises record time to that of a record which the log has raised.
    pub(crate) fn observe(&self, time: Timestamp) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last = state.last.max(time);
    }

    fn advance(&self, state: &mut State) -> Timestamp {
        let wall = self.clock.wall();
        let monotonic = self.clock.monotonic();
        let elapsed = monotonic.saturating_sub(state.last_monotonic);
        let elapsed_us = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
        let now = state.last.plus(elapsed);
        let offset = wall.as_micros() - now.as_micros() - state.accepted_offset_us;
        state.last_monotonic = monotonic;
        if offset.unsigned_abs() > STEP_MIN.as_micros() as u64 {
            state.last = now.max(wall);
            state.accepted_offset_us = wall.as_micros() - state.last.as_micros();
            state.found = Some(ClockStep {
                record_time: state.last,
                wall,
            });
            return state.last;
        }
        let slew_max = elapsed_us / (1_000_000 / SLEW_PPM);
        let slewed = Timestamp(now.as_micros() + offset.clamp(-slew_max, slew_max));
        state.last = slewed.max(state.last);
        state.last
    }
}

#[cfg(test)]
mod tests {
    use quiver_model::ManualClock;

    use super::*;

    #[test]
    fn record_time_follows_the_monotonic_clock_through_a_step() {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000)));
        let (record, step) = RecordClock::new(clock.clone(), Timestamp(0));
        assert_eq!(step, None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(record.now(), Timestamp(1_001_000_000));
        clock.step_wall(Timestamp(0));
        let (time, step) = record.check();
        assert_eq!(time, Timestamp(1_001_000_000));
        assert_eq!(step.map(|step| step.wall), Some(Timestamp(0)));
        clock.advance(Duration::from_secs(2));
        assert_eq!(record.check(), (Timestamp(1_003_000_000), None));
    }

    #[test]
    fn a_step_forward_is_followed_and_told_though_records_came_first() {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000)));
        let (record, _) = RecordClock::new(clock.clone(), Timestamp(0));
        // Asleep for two days.
        let woken = Timestamp(1_000_000_000 + 2 * 86_400_000_000);
        clock.step_wall(woken);
        assert_eq!(record.now(), woken);
        clock.advance(Duration::from_secs(1));
        let told = woken.plus(Duration::from_secs(1));
        let step = ClockStep {
            record_time: woken,
            wall: woken,
        };
        assert_eq!(record.check(), (told, Some(step)));
        assert_eq!(record.check(), (told, None));
        // Back by an hour and forward by half of it: nothing is followed, both are told.
        clock.step_wall(Timestamp(told.as_micros() - 3_600_000_000));
        assert_eq!(record.now(), told);
        assert!(record.check().1.is_some());
        clock.step_wall(Timestamp(told.as_micros() - 1_800_000_000));
        let (time, step) = record.check();
        assert_eq!(
            (time, step.map(|step| step.record_time)),
            (told, Some(told))
        );
    }

    #[test]
    fn a_small_difference_is_slewed_away_slowly() {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000)));
        let (record, _) = RecordClock::new(clock.clone(), Timestamp(0));
        clock.step_wall(Timestamp(1_001_000_000));
        clock.advance(Duration::from_secs(10));
        assert_eq!(record.now(), Timestamp(1_010_010_000));
    }

    #[test]
    fn a_start_before_the_end_of_the_log_goes_on_from_there() {
        let clock = Arc::new(ManualClock::new(Timestamp(5)));
        let (record, step) = RecordClock::new(clock, Timestamp(9_000));
        assert_eq!(step.map(|step| step.record_time), Some(Timestamp(9_000)));
        assert!(record.now() >= Timestamp(9_000));
    }
}
