//! Power lost during every single call of a fixed run, and again during every call of recovery.

use quiver_log::{CommittedRecord, Log, Record, SimVfs};
use quiver_model::Position;

use crate::support::*;

/// What the run has been told, and what it was doing when the power went.
#[derive(Default)]
struct Run {
    acknowledged: Vec<CommittedRecord>,
    in_flight: Vec<Record>,
    /// Everything below may be gone.
    trimmed_below: Position,
}

impl Run {
    fn append(&mut self, log: &mut Log, records: Vec<Record>) -> Option<()> {
        self.in_flight = records;
        let committed = log.append_group(&mut self.in_flight).ok()?;
        self.acknowledged
            .extend(placed(committed.first, &self.in_flight));
        self.in_flight.clear();
        Some(())
    }

    /// Groups of all sizes, several segments, a group larger than a segment, trims, reuse of
    /// files, a clean restart.
    fn go(&mut self, disk: &SimVfs) -> Option<()> {
        let mut sequence = 0;
        for _round in 0..2 {
            let (mut log, _) = try_open(disk, small(), 0).ok()?;
            for size in [10, 900, 700, 1500, 6000, 300, 2500, 100, 3000] {
                let records = vec![batch(sequence, 2, size), batch(sequence + 1, 0, 5)];
                sequence += 2;
                self.append(&mut log, records)?;
                if matches!(size, 6000 | 100) {
                    let floor = self.acknowledged[self.acknowledged.len() - 3].position;
                    self.trimmed_below = floor;
                    log.trim(floor).ok()?;
                }
            }
        }
        Some(())
    }

    fn check(&self, log: &Log, context: &str) -> Vec<CommittedRecord> {
        let found = contents(log);
        let mut possible = self.acknowledged.clone();
        let next = possible.last().map_or(Position(1), CommittedRecord::end);
        let with_last = [possible.clone(), placed(next, &self.in_flight)].concat();
        if found.last().is_some_and(|last| last.position >= next) {
            possible = with_last;
        }
        assert!(
            found.len() <= possible.len(),
            "{context}: more than was written"
        );
        let missing = possible.len() - found.len();
        assert_eq!(found, possible[missing..], "{context}");
        assert!(
            possible[..missing]
                .iter()
                .all(|record| record.end() <= self.trimmed_below),
            "{context}: an acknowledged record is lost"
        );
        found
    }
}

#[test]
fn power_lost_at_any_call_loses_nothing_acknowledged_even_if_lost_again_in_recovery() {
    let calls = {
        let disk = SimVfs::new(0);
        Run::default().go(&disk).unwrap();
        disk.mutating_calls()
    };
    assert!(calls > 80, "{calls}");
    for nth in 1..=calls {
        let disk = SimVfs::new(nth);
        let mut run = Run::default();
        disk.power_off_at(nth);
        assert!(run.go(&disk).is_none());
        disk.crash();
        let context = format!("call {nth}");
        // Recovery alone, from this state, interrupted at each of its own calls.
        for again in 1.. {
            let copy = disk.fork(nth * 1000 + again);
            copy.power_off_at(again);
            let interrupted = try_open(&copy, small(), 0).is_err();
            copy.crash();
            let (log, report) = open(&copy);
            assert_eq!(report.damaged, [], "{context}, recovery call {again}");
            run.check(&log, &format!("{context}, recovery call {again}"));
            if !interrupted {
                break;
            }
        }
        let (mut log, report) = open(&disk);
        assert_eq!(report.damaged, [], "{context}");
        let before = run.check(&log, &context);
        // What was shown once is durable, and the log goes on behind it.
        disk.crash();
        log = open(&disk).0;
        assert_eq!(contents(&log), before, "{context}");
        let more = append(&mut log, &[batch(1_000, 4, 50)]);
        disk.crash();
        assert_eq!(
            contents(&open(&disk).0),
            [before, more].concat(),
            "{context}"
        );
    }
}

#[test]
fn any_failing_call_is_an_error_and_never_a_lie() {
    for kind in [
        quiver_log::FaultKind::Io,
        quiver_log::FaultKind::NoSpace,
        quiver_log::FaultKind::ShortWrite,
    ] {
        let calls = 120;
        for nth in 1..=calls {
            let disk = SimVfs::new(nth);
            let mut run = Run::default();
            disk.fail_nth(None, nth, kind);
            let _ = run.go(&disk);
            disk.restart();
            run.check(&open(&disk).0, &format!("{kind:?} at call {nth}, restart"));
            disk.crash();
            run.check(&open(&disk).0, &format!("{kind:?} at call {nth}, crash"));
        }
    }
}
