//! Random lives of a log against a list.

use proptest::prelude::*;
use quiver_log::{AppendError, CommittedRecord, FaultKind, Log, LogOptions, Record, SimOp, SimVfs};
use quiver_model::Position;

use crate::support::*;

#[derive(Clone, Debug)]
enum Step {
    /// A group of batches of these (rows, payload bytes).
    Append(Vec<(u32, usize)>),
    /// Below this share (of 255) of the positions.
    Trim(u8),
    Crash,
    Restart,
    Fail(Option<SimOp>, u64, FaultKind),
    PowerOff(u64),
    /// Free sectors left, or no limit.
    Capacity(Option<u16>),
    /// Raise the floor by so many positions at the next opening.
    Floor(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let group = proptest::collection::vec((0..6_u32, 0..1500_usize), 1..4);
    let op = proptest::option::of(prop::sample::select(vec![
        SimOp::Write,
        SimOp::SyncData,
        SimOp::SyncAll,
        SimOp::SyncDir,
        SimOp::Rename,
        SimOp::Create,
        SimOp::Preallocate,
        SimOp::Unlink,
    ]));
    let kind = prop::sample::select(vec![
        FaultKind::Io,
        FaultKind::NoSpace,
        FaultKind::ShortWrite,
    ]);
    prop_oneof![
        12 => group.prop_map(Step::Append),
        1 => Just(Step::Append(vec![(3, 9000)])),
        2 => any::<u8>().prop_map(Step::Trim),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
        3 => (op, 1..6_u64, kind).prop_map(|(op, nth, kind)| Step::Fail(op, nth, kind)),
        1 => (1..20_u64).prop_map(Step::PowerOff),
        1 => proptest::option::of(0..40_u16).prop_map(Step::Capacity),
        1 => (0..50_u8).prop_map(Step::Floor),
    ]
}

/// The naive log: a list.
struct Model {
    disk: SimVfs,
    log: Option<Log>,
    options: LogOptions,
    acknowledged: Vec<CommittedRecord>,
    /// Written under a failed sync or a lost power, or refused and not undone yet: there or not.
    uncertain: Option<Vec<CommittedRecord>>,
    trimmed_below: Position,
    floor: u64,
    sequence: u64,
}

impl Model {
    fn append(&mut self, sizes: &[(u32, usize)]) {
        let Some(log) = &mut self.log else { return };
        let mut records: Vec<Record> = sizes
            .iter()
            .map(|(rows, bytes)| {
                self.sequence += 1;
                batch(self.sequence, *rows, *bytes)
            })
            .collect();
        let first = log.committed_end();
        match log.append_group(&mut records) {
            Ok(committed) => {
                // What was still to be undone has been.
                self.uncertain = None;
                assert_eq!(committed.first, first);
                self.acknowledged.extend(placed(first, &records));
                assert_eq!(committed.end, self.acknowledged.last().unwrap().end());
            }
            // Never to be seen again: the check would find it.
            Err(AppendError::Refused { action, .. }) => match log.is_repair_due() {
                false => self.uncertain = None,
                // The one before is still to be undone.
                true if action == "undo a failed write to" => {}
                true => self.uncertain = Some(placed(first, &records)),
            },
            Err(AppendError::Poisoned { .. }) => {
                self.uncertain
                    .get_or_insert_with(|| placed(first, &records));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn trim(&mut self, share: u8) {
        let Some(log) = &mut self.log else { return };
        let floor = Position(log.committed_end().get() * u64::from(share) / 255);
        self.trimmed_below = self.trimmed_below.max(floor);
        if let Ok(trimmed) = log.trim(floor) {
            assert_eq!(trimmed.oldest, log.oldest_position());
        }
    }

    /// Opens again, twice: what is shown once must stay.
    fn reopen(&mut self, crashed: bool) {
        self.log = None;
        if crashed || self.disk.is_off() {
            self.disk.crash()
        } else {
            self.disk.restart()
        }
        // Recovery itself needs room for one group.
        self.disk.set_capacity(None);
        let (log, report) = try_open(&self.disk, self.options.clone(), self.floor).unwrap();
        assert_eq!(report.damaged, []);
        assert!(report.next.get() > self.floor);
        self.check(&log);
        assert_eq!(report.oldest, log.oldest_position());
        self.log = Some(log);
    }

    fn check(&mut self, log: &Log) {
        let found = contents(log);
        if let Some(group) = self.uncertain.take()
            && found.last() == group.last()
        {
            self.acknowledged.extend(group);
        }
        let missing = self
            .acknowledged
            .len()
            .checked_sub(found.len())
            .expect("more than was written");
        assert_eq!(found, self.acknowledged[missing..]);
        let lost = &self.acknowledged[..missing];
        assert!(
            lost.iter().all(|record| record.end() <= self.trimmed_below),
            "lost {lost:?}"
        );
        self.acknowledged.drain(..missing);
        assert!(self.acknowledged.windows(2).all(|pair| {
            pair[0].end() <= pair[1].position && pair[0].record.time <= pair[1].record.time
        }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 4000, ..ProptestConfig::default() })]
    #[test]
    fn acknowledged_records_are_there_in_order_once_whatever_happens(
        seed in any::<u64>(),
        spares in 0..3_usize,
        retention in prop::sample::select(vec![0_u64, 10_000]),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let disk = SimVfs::new(seed);
        let options =
            LogOptions { spare_segments_max: spares, retention_bytes: retention, ..small() };
        let (log, _) = try_open(&disk, options.clone(), 0).unwrap();
        let mut model = Model {
            disk,
            log: Some(log),
            options,
            acknowledged: Vec::new(),
            uncertain: None,
            trimmed_below: Position(0),
            floor: 0,
            sequence: 0,
        };
        for step in steps {
            match step {
                Step::Append(sizes) => model.append(&sizes),
                Step::Trim(share) => model.trim(share),
                Step::Crash => model.reopen(true),
                Step::Restart => model.reopen(false),
                Step::Fail(op, nth, kind) => model.disk.fail_nth(op, nth, kind),
                Step::PowerOff(nth) => model.disk.power_off_at(nth),
                Step::Capacity(sectors) => {
                    let limit = sectors.map(|sectors| model.disk.used() + u64::from(sectors) * 512);
                    model.disk.set_capacity(limit);
                }
                Step::Floor(more) => {
                    let end = model.log.as_ref().map_or(0, |log| log.committed_end().get());
                    model.floor = model.floor.max(end + u64::from(more));
                }
            }
        }
        model.reopen(false);
        model.reopen(true);
        model.append(&[(1, 10)]);
        prop_assert!(model.log.as_ref().is_some_and(|log| log.epoch() == 0));
        model.reopen(true);
    }
}
