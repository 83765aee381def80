use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    MemoryArchive, MemoryBudget, MemoryLimits, Share,
    test_rows::{at, positions_of, schema},
};

const NOW: Duration = Duration::from_secs(7);

fn table(shards: u16) -> StreamTable {
    StreamTable::new(schema(&["speed"]), shards)
}

fn append(
    table: &StreamTable,
    shard: u16,
    positions: impl IntoIterator<Item = i64>,
) -> Result<Appended, AppendError> {
    table.append(
        ShardId(shard),
        at(&table.schema(), positions),
        Reservation::none(),
        NOW,
    )
}

/// What a table as of `q` holds, in hot and archive together; panics on a row that is in both.
fn rows_as_of(table: &StreamTable, archive: &MemoryArchive, q: u64) -> BTreeSet<i64> {
    rows_of(&table.snapshot(Position(q)).unwrap(), archive)
}

fn rows_of(snapshot: &TableSnapshot, archive: &MemoryArchive) -> BTreeSet<i64> {
    let limit = snapshot
        .archived_limit
        .map_or(i64::MAX, |limit| limit.get() as i64);
    let archived = positions_of(&archive.rows(&snapshot.archived))
        .into_iter()
        .filter(|at| *at <= limit);
    let mut rows = BTreeSet::new();
    for position in archived.chain(positions_of(&snapshot.hot)) {
        assert!(
            rows.insert(position),
            "row {position} is in the snapshot twice"
        );
    }
    rows
}

fn flush(table: &StreamTable, archive: &MemoryArchive, input: FlushInput) {
    let barrier = input.barrier;
    let snapshot = block_on(crate::Archive::flush(archive, input)).unwrap();
    table.complete_flush(barrier, snapshot).unwrap();
}

/// [`MemoryArchive`] without faults never waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

fn complete(outcome: FreezeOutcome) -> FlushInput {
    match outcome {
        FreezeOutcome::Complete(input) => input,
        FreezeOutcome::Waiting { remaining } => panic!("waits for {remaining} shards"),
    }
}

#[test]
fn the_last_shard_gets_the_flush_and_nobody_else() {
    let table = table(3);
    for shard in 0..3 {
        append(&table, shard, [i64::from(shard) + 1]).unwrap();
    }
    for (shard, remaining) in [(0, 2), (2, 1)] {
        let outcome = table.freeze(ShardId(shard), Position(3)).unwrap();
        assert!(
            matches!(outcome, FreezeOutcome::Waiting { remaining: found } if found == remaining)
        );
    }
    let input = complete(table.freeze(ShardId(1), Position(3)).unwrap());
    assert_eq!((input.rows(), input.barrier), (3, Position(3)));
    assert!(matches!(
        table.freeze(ShardId(1), Position(3)),
        Err(FreezeError::Order { .. })
    ));
    assert_eq!(table.pending_flush().unwrap().rows(), 3);
}

#[test]
fn a_flush_between_the_choice_of_q_and_the_read_of_the_state_loses_and_doubles_nothing() {
    let (table, archive) = (table(1), MemoryArchive::new());
    append(&table, 0, 1..=5).unwrap();
    let q = 3;
    append(&table, 0, 6..=9).unwrap();
    flush(
        &table,
        &archive,
        complete(table.freeze(ShardId(0), Position(9)).unwrap()),
    );
    let snapshot = table.snapshot(Position(q)).unwrap();
    assert_eq!(snapshot.archived_limit, Some(Position(q)));
    assert_eq!(rows_of(&snapshot, &archive), BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_snapshot_taken_before_a_flush_stays_whole_after_it() {
    let (table, archive) = (table(1), MemoryArchive::new());
    append(&table, 0, 1..=5).unwrap();
    let before = table.snapshot(Position(5)).unwrap();
    flush(
        &table,
        &archive,
        complete(table.freeze(ShardId(0), Position(5)).unwrap()),
    );
    append(&table, 0, 6..=7).unwrap();
    assert_eq!(rows_of(&before, &archive), (1..=5).collect());
    assert_eq!(rows_as_of(&table, &archive, 7), (1..=7).collect());
}

#[test]
fn a_flush_without_rows_advances_without_a_commit() {
    let (table, archive) = (table(1), MemoryArchive::new());
    let input = complete(table.freeze(ShardId(0), Position(5)).unwrap());
    assert!(input.is_empty());
    table
        .complete_flush(Position(5), Arc::clone(table.state().archived()))
        .unwrap();
    assert_eq!(
        (table.state().flushed(), table.state().archived().version),
        (Position(5), -1)
    );
    append(&table, 0, 6..=7).unwrap();
    assert_eq!(rows_as_of(&table, &archive, 7), BTreeSet::from([6, 7]));
}

#[test]
fn flushes_complete_in_barrier_order_and_only_with_their_rows() {
    let (table, archive) = (table(1), MemoryArchive::new());
    append(&table, 0, [1]).unwrap();
    let first = complete(table.freeze(ShardId(0), Position(1)).unwrap());
    append(&table, 0, [2]).unwrap();
    let second = complete(table.freeze(ShardId(0), Position(2)).unwrap());
    let absent = Arc::clone(table.state().archived());
    let early = table
        .complete_flush(Position(2), Arc::clone(&absent))
        .unwrap_err();
    assert!(matches!(early, CompleteError::Order { .. }));
    let empty_handed = table.complete_flush(Position(1), absent).unwrap_err();
    assert!(matches!(empty_handed, CompleteError::NotArchived { .. }));
    flush(&table, &archive, first.clone());
    flush(&table, &archive, second);
    // A retry that comes late changes nothing.
    flush(&table, &archive, first);
    assert_eq!(rows_as_of(&table, &archive, 2), BTreeSet::from([1, 2]));
    assert_eq!(table.stats(), TableStats::default());
    assert!(table.pending_flush().is_none());
}

#[test]
fn a_shard_that_misses_a_barrier_or_runs_past_it_is_told() {
    let table = table(2);
    append(&table, 0, [5]).unwrap();
    assert!(matches!(
        table.freeze(ShardId(0), Position(4)),
        Err(FreezeError::AppliedBeyond { .. })
    ));
    table.freeze(ShardId(0), Position(5)).unwrap();
    assert!(matches!(
        table.freeze(ShardId(1), Position(6)),
        Err(FreezeError::Missed { .. })
    ));
    assert!(matches!(
        table.freeze(ShardId(2), Position(5)),
        Err(FreezeError::Shard { .. })
    ));
}

#[test]
fn rows_that_recovery_replays_are_skipped_if_they_are_archived() {
    let (before, archive) = (table(1), MemoryArchive::new());
    append(&before, 0, 1..=5).unwrap();
    flush(
        &before,
        &archive,
        complete(before.freeze(ShardId(0), Position(5)).unwrap()),
    );

    let after = table(1);
    after
        .install_archived(archive.table(after.name()).unwrap())
        .unwrap();
    assert_eq!(append(&after, 0, 1..=3), Ok(Appended::AlreadyArchived));
    assert_eq!(append(&after, 0, 4..=8), Ok(Appended::Stored));
    assert_eq!(rows_as_of(&after, &archive, 8), (1..=8).collect());
}

#[test]
fn misplaced_batches_are_refused() {
    let table = table(1);
    append(&table, 0, 5..=6).unwrap();
    assert!(matches!(
        append(&table, 0, [6]),
        Err(AppendError::Order { .. })
    ));
    assert!(matches!(
        append(&table, 1, [7]),
        Err(AppendError::Shard { .. })
    ));
    let wider = at(&schema(&["speed", "fuel"]), [7]);
    let error = table
        .append(ShardId(0), wider.clone(), Reservation::none(), NOW)
        .unwrap_err();
    assert!(
        matches!(
            error,
            AppendError::Layout {
                source: LayoutError::UnknownColumns { .. },
                ..
            }
        ),
        "{error}"
    );
    table.set_schema(&schema(&["speed", "fuel"]));
    table
        .append(ShardId(0), wider, Reservation::none(), NOW)
        .unwrap();
    let snapshot = table.snapshot(Position(7)).unwrap();
    assert!(
        snapshot.hot.iter().all(|batch| batch.num_columns() == 6),
        "old rows get the new column"
    );
}

#[test]
fn stats_say_what_is_in_memory_and_since_when() {
    let (table, archive) = (table(2), MemoryArchive::new());
    append(&table, 0, [3, 4]).unwrap();
    append(&table, 1, [2]).unwrap();
    let stats = table.stats();
    assert_eq!(
        (stats.rows, stats.active_rows, stats.oldest_position),
        (3, 3, Some(Position(2)))
    );
    assert_eq!(stats.active_since, Some(NOW));
    assert!(stats.bytes > 0 && stats.bytes == stats.active_bytes);
    table.freeze(ShardId(0), Position(4)).unwrap();
    let input = complete(table.freeze(ShardId(1), Position(4)).unwrap());
    append(&table, 0, [5]).unwrap();
    let stats = table.stats();
    assert_eq!((stats.rows, stats.active_rows), (4, 1));
    assert_eq!(
        (stats.oldest_position, stats.oldest_active_position),
        (Some(Position(2)), Some(Position(5)))
    );
    flush(&table, &archive, input);
    assert_eq!(table.stats().oldest_position, Some(Position(5)));
}

#[test]
fn memory_of_flushed_rows_is_freed_when_no_reader_holds_them() {
    let budget = MemoryBudget::new(MemoryLimits {
        device: 100,
        derived: 0,
    });
    let (table, archive) = (table(1), MemoryArchive::new());
    let reservation = budget.try_reserve(100, Share::Device).unwrap();
    table
        .append(ShardId(0), at(&table.schema(), [1]), reservation, NOW)
        .unwrap();
    let reader = table.state();
    flush(
        &table,
        &archive,
        complete(table.freeze(ShardId(0), Position(1)).unwrap()),
    );
    assert_eq!(
        budget.used(Share::Device),
        100,
        "a reader holds the old state"
    );
    drop(reader);
    assert_eq!(budget.used(Share::Device), 0);
}

/// One step of a run. Positions, shards and barriers follow from the state.
#[derive(Clone, Debug)]
enum Step {
    /// The log commits a batch of a shard's rows and broadcasts it.
    Commit { shard: u16, rows: u8 },
    /// The log sends a barrier to all shards.
    Barrier,
    /// A shard handles the next thing in its queue.
    Apply { shard: u16 },
    /// The archive writes the oldest complete flush; the table does not know yet.
    Archive,
    /// The table learns of the oldest flush that was archived.
    Complete,
    /// A query chooses Q, the greatest position that every shard has applied.
    Choose,
    /// The oldest such query reads.
    Read,
}

#[derive(Clone, Debug)]
enum Message {
    Rows(Vec<i64>),
    Barrier(u64),
    Watermark(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u16..3, 1_u8..20).prop_map(|(shard, rows)| Step::Commit { shard, rows }),
        1 => Just(Step::Barrier),
        8 => (0_u16..3).prop_map(|shard| Step::Apply { shard }),
        1 => Just(Step::Archive),
        1 => Just(Step::Complete),
        2 => Just(Step::Choose),
        2 => Just(Step::Read),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn in_any_interleaving_a_snapshot_holds_each_row_up_to_q_exactly_once(steps in steps()) {
        const SHARDS: usize = 3;
        let (table, archive) = (table(3), MemoryArchive::new());
        let mut queues = vec![std::collections::VecDeque::new(); SHARDS];
        let mut applied = [0_u64; SHARDS];
        let mut log_end = 0_u64;
        let mut committed: BTreeSet<i64> = BTreeSet::new();
        let mut inputs: std::collections::VecDeque<FlushInput> = Default::default();
        let mut archived: std::collections::VecDeque<(Position, Arc<ArchiveSnapshot>)> = Default::default();
        let mut queries: std::collections::VecDeque<u64> = Default::default();
        let mut held: Vec<(u64, TableSnapshot)> = Vec::new();
        for step in steps {
            match step {
                Step::Commit { shard, rows } => {
                    let positions: Vec<i64> = (1..=i64::from(rows)).map(|row| log_end as i64 + row).collect();
                    log_end += u64::from(rows);
                    committed.extend(&positions);
                    queues[usize::from(shard)].push_back(Message::Rows(positions));
                    queues.iter_mut().for_each(|queue| queue.push_back(Message::Watermark(log_end)));
                }
                Step::Barrier => {
                    // A control record takes a position of its own.
                    log_end += 1;
                    queues.iter_mut().for_each(|queue| queue.push_back(Message::Barrier(log_end)));
                }
                Step::Apply { shard } => {
                    let index = usize::from(shard);
                    match queues[index].pop_front() {
                        Some(Message::Rows(positions)) => {
                            append(&table, shard, positions).unwrap();
                        }
                        Some(Message::Watermark(position)) => applied[index] = position,
                        Some(Message::Barrier(barrier)) => {
                            if let FreezeOutcome::Complete(input) = table.freeze(ShardId(shard), Position(barrier)).unwrap() {
                                inputs.push_back(input);
                            }
                            applied[index] = barrier;
                        }
                        None => {}
                    }
                }
                Step::Archive => {
                    if let Some(input) = inputs.pop_front() {
                        let barrier = input.barrier;
                        archived.push_back((barrier, block_on(crate::Archive::flush(&archive, input)).unwrap()));
                    }
                }
                Step::Complete => {
                    if let Some((barrier, snapshot)) = archived.pop_front() {
                        table.complete_flush(barrier, snapshot).unwrap();
                    }
                }
                Step::Choose => queries.extend(applied.iter().min()),
                Step::Read => {
                    if let Some(q) = queries.pop_front() {
                        let snapshot = table.snapshot(Position(q)).unwrap();
                        let expected: BTreeSet<i64> = committed.range(..=q as i64).copied().collect();
                        prop_assert_eq!(rows_of(&snapshot, &archive), expected);
                        held.push((q, snapshot));
                    }
                }
            }
        }
        // Snapshots do not change while they are held.
        for (q, snapshot) in held {
            let expected: BTreeSet<i64> = committed.range(..=q as i64).copied().collect();
            prop_assert_eq!(rows_of(&snapshot, &archive), expected);
        }
    }
}

#[test]
fn readers_on_other_threads_see_whole_snapshots_while_shards_write_and_flush() {
    let table = Arc::new(table(2));
    let archive = MemoryArchive::new();
    let applied = Arc::new([
        std::sync::atomic::AtomicU64::new(0),
        std::sync::atomic::AtomicU64::new(0),
    ]);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    use std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for shard in 0..2_u16 {
            let (table, applied, archive) =
                (Arc::clone(&table), Arc::clone(&applied), archive.clone());
            scope.spawn(move || {
                for round in 0..500_i64 {
                    // Odd positions are of shard 1, even ones of shard 0.
                    let first = round * 10 + i64::from(shard);
                    append(
                        &table,
                        shard,
                        (first..first + 10).step_by(2).filter(|at| *at > 0),
                    )
                    .unwrap();
                    let end = (round * 10 + 9) as u64;
                    if round % 20 == 19
                        && let FreezeOutcome::Complete(input) =
                            table.freeze(ShardId(shard), Position(end)).unwrap()
                    {
                        flush(&table, &archive, input);
                    }
                    applied[usize::from(shard)].store(end, SeqCst);
                }
            });
        }
        let reader = scope.spawn(|| {
            while !done.load(SeqCst) {
                let q = applied
                    .iter()
                    .map(|position| position.load(SeqCst))
                    .min()
                    .unwrap();
                assert_eq!(rows_as_of(&table, &archive, q).len() as u64, q, "as of {q}");
            }
        });
        while applied.iter().any(|position| position.load(SeqCst) < 4_999) {
            assert!(!reader.is_finished(), "a snapshot was not whole");
            std::thread::yield_now();
        }
        done.store(true, SeqCst);
    });
}
