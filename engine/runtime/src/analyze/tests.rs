//! A graph that puts out what the registry tells it, in an engine on a disk that fails.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    cast::AsArray, types::Int64Type,
};
use quiver_hot::MemoryArchive;
use quiver_log::{
    LogOptions, Vfs,
    sim::{FaultKind, SimOp, SimVfs},
};
use quiver_model::{DeviceId, OsEntropy, POSITION, SenderId, StreamName, SystemClock, Timestamp};

use super::{Analysis, AnalyzerHandle, DerivedRows, NodeDefinition, OperatorState};
use crate::{
    Engine, EngineOptions, Environment, LocalSpawner, Spawner, ThreadSpawner,
    registry::{Registry, RegistryChange, RegistryEntry},
};

/// The stream of the only node.
const NODE: &str = "node";
/// What enrolling a device makes the node put out, with the next record: rows with numbers from a
/// thousand times that of the device on.
type Rows = fn(i64) -> Vec<RecordBatch>;

/// What the node's stream has: numbers by position.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<i64, i64>>>);

impl Seen {
    /// The numbers below a device's, in the order of the log. Those of the device that was enrolled
    /// last come if any record does: of a schema, too.
    fn before(&self, device: i64) -> Vec<i64> {
        let seen = self.0.lock().unwrap();
        let numbers = seen.values().copied();
        numbers.filter(|number| *number < device * 1_000).collect()
    }
}

struct Fake {
    generation: u64,
    rows: Rows,
    seen: Seen,
    /// Of the device that was enrolled last.
    due: Option<i64>,
    is_held: bool,
    /// How long every record takes.
    busy: Duration,
}

fn numbers(numbers: impl IntoIterator<Item = i64>, note: &str) -> RecordBatch {
    let numbers: Vec<i64> = numbers.into_iter().collect();
    let times = TimestampMicrosecondArray::from(vec![1_000_000; numbers.len()]);
    let devices = StringArray::from(vec!["d"; numbers.len()]);
    let notes = StringArray::from(vec![note; numbers.len()]);
    RecordBatch::try_from_iter([
        ("ts", Arc::new(times.with_timezone("UTC")) as ArrayRef),
        ("device", Arc::new(devices)),
        ("n", Arc::new(Int64Array::from(numbers))),
        ("note", Arc::new(notes)),
    ])
    .unwrap()
}

/// A row.
fn one(number: i64) -> Vec<RecordBatch> {
    vec![numbers([number * 1_000], "")]
}

/// Four rows of which each is a part by itself, and two as much as the log takes at once.
fn many(number: i64) -> Vec<RecordBatch> {
    static NOISE: LazyLock<String> = LazyLock::new(|| noise(2_200_000));
    let first = number * 1_000;
    vec![numbers(first..first + 4, &NOISE)]
}

/// A text that cannot be compressed.
fn noise(bytes: usize) -> String {
    let mut state = 1_u32;
    let letters = (0..bytes).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + (state >> 26) as u8)
    });
    letters.collect()
}

impl Fake {
    fn new(generation: u64, rows: Rows, seen: &Seen) -> Self {
        Self {
            generation,
            rows,
            seen: seen.clone(),
            due: None,
            is_held: false,
            busy: Duration::ZERO,
        }
    }
}

impl Analysis for Fake {
    fn name(&self) -> String {
        format!("graph {}", self.generation)
    }

    fn nodes(&self) -> Vec<NodeDefinition> {
        vec![NodeDefinition {
            stream: StreamName::new(NODE).unwrap(),
            // Of two definitions with the same state each.
            generation: self.generation / 10,
            lineage: self.generation,
        }]
    }

    fn hold(&mut self, node: &StreamName, is_held: bool) {
        assert_eq!(node.as_str(), NODE);
        self.is_held = is_held;
    }

    fn takes(&self, stream: &StreamName) -> bool {
        stream.as_str() == NODE
    }

    fn begin(&mut self, _: &Registry) {}

    fn rows(&mut self, _: &StreamName, rows: RecordBatch, _: Timestamp) -> Vec<DerivedRows> {
        let column = |name| {
            rows.column_by_name(name)
                .unwrap()
                .as_primitive::<Int64Type>()
        };
        let pairs = column(POSITION).values().iter().zip(column("n").values());
        let pairs = pairs.map(|(position, number)| (*position, *number));
        self.seen.0.lock().unwrap().extend(pairs);
        Vec::new()
    }

    fn tick(&mut self, _: Timestamp) -> Vec<DerivedRows> {
        std::thread::sleep(self.busy);
        let Some(due) = self.due.take() else {
            return Vec::new();
        };
        let derived = (self.rows)(due).into_iter().map(|rows| DerivedRows {
            stream: StreamName::new(NODE).unwrap(),
            generation: self.generation / 10,
            rows,
        });
        derived.collect()
    }

    fn waits_for_time(&self) -> bool {
        false
    }

    fn registry(&mut self, change: &RegistryChange) {
        let RegistryChange::Put { entry } = change else {
            return;
        };
        if !self.is_held {
            self.due = Some(entry.id[1..].parse().unwrap());
        }
    }

    fn state(&mut self, _: bool) -> Vec<OperatorState> {
        let due = self.due.map(|due| due.to_le_bytes().into());
        vec![OperatorState {
            node: NODE.to_owned(),
            generation: self.generation / 10,
            entries: BTreeMap::from([(b"due".as_slice().into(), due)]),
        }]
    }

    fn restore(&mut self, state: &OperatorState) -> Result<bool, String> {
        if state.generation != self.generation / 10 {
            return Ok(false);
        }
        let due = state.entries.values().next().cloned().flatten();
        self.due = due.map(|due| i64::from_le_bytes(due[..].try_into().unwrap()));
        Ok(true)
    }

    fn load(&mut self, _: &str, _: &RecordBatch) -> Result<(), String> {
        Err("there are no tables".to_owned())
    }
}

/// What outlives an engine.
struct Machine {
    disk: SimVfs,
    archive: MemoryArchive,
    seen: Seen,
}

impl Machine {
    fn new(seed: u64) -> Self {
        Self {
            disk: SimVfs::new(seed),
            archive: MemoryArchive::new(),
            seen: Seen::default(),
        }
    }

    async fn start(&self, spawner: Arc<dyn Spawner>) -> Engine {
        let archive = Arc::new(self.archive.clone());
        let environment = Environment {
            vfs: Arc::new(self.disk.clone()) as Arc<dyn Vfs>,
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(OsEntropy),
            archive: Box::new(move |_| Ok(archive)),
        };
        let options = EngineOptions {
            shard_count: 2,
            disk_reserve_bytes: 0,
            analysis_patience: Duration::from_millis(200),
            log: LogOptions {
                segment_bytes: 8 << 20,
                ..LogOptions::default()
            },
            ..EngineOptions::new(PathBuf::from("/data"))
        };
        Engine::start(options, environment, spawner).await.unwrap()
    }

    /// An engine with a graph, until `work` is done with it; then the power fails.
    fn run<T>(
        &self,
        generation: u64,
        rows: Rows,
        work: impl AsyncFnOnce(&Engine, &AnalyzerHandle) -> T,
    ) -> T {
        let done = actix_rt::System::new().block_on(async {
            let engine = self.start(Arc::new(LocalSpawner)).await;
            let fake = Fake::new(generation, rows, &self.seen);
            let analyzer = engine.analyze(Box::new(fake), Arc::new(OsEntropy)).unwrap();
            work(&engine, &analyzer).await
        });
        self.disk.crash();
        done
    }
}

/// Enrolls devices; whether the log took it.
async fn enroll(engine: &Engine, numbers: impl IntoIterator<Item = i64>) -> bool {
    for number in numbers {
        let id = DeviceId::new(&format!("d{number}")).unwrap();
        let entry = RegistryEntry::new(&SenderId::device(id), Timestamp(1));
        if engine
            .change_registry(RegistryChange::Put { entry })
            .await
            .is_err()
        {
            return false;
        }
    }
    true
}

/// Waits until the graph is through with everything; `false` if that does not come.
async fn settle(engine: &Engine, analyzer: &AnalyzerHandle) -> bool {
    for _ in 0..1_000 {
        if analyzer.status().position == engine.progress().committed() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

#[test]
fn rows_that_one_record_causes_are_there_once_however_many_and_whenever_the_power_fails() {
    // How many changes of the disk there are without a failure.
    let whole = Machine::new(0);
    let (before, after) = whole.run(10, many, async |engine, analyzer| {
        assert!(settle(engine, analyzer).await);
        let before = whole.disk.mutating_calls();
        assert!(enroll(engine, [1, 2]).await && settle(engine, analyzer).await);
        (before, whole.disk.mutating_calls())
    });
    let all: Vec<i64> = (1_000..1_004).collect();
    assert_eq!(whole.seen.before(2), all);
    let mut partly = 0;
    for nth in 1..=after - before {
        let machine = Machine::new(nth);
        let told = machine.run(10, many, async |engine, analyzer| {
            assert!(settle(engine, analyzer).await);
            machine.disk.power_off_at(nth);
            let told = enroll(engine, [1, 2]).await;
            let patience = Duration::from_millis(300);
            let _ = tokio::time::timeout(patience, settle(engine, analyzer)).await;
            told
        });
        partly += machine.run(10, many, async |engine, analyzer| {
            assert!(settle(engine, analyzer).await);
            if !told {
                assert!(enroll(engine, [1, 2]).await && settle(engine, analyzer).await);
            }
            u64::from(engine.metrics().derived_again.get() % 4 != 0)
        });
        // Who was not told may have enrolled the device once before.
        let numbers = machine.seen.before(2);
        let times = if told { 1 } else { numbers.len() / 4 };
        assert!(
            (1..=2).contains(&times),
            "power failed at {nth}: {numbers:?}"
        );
        assert_eq!(numbers, all.repeat(times), "power failed at {nth}");
    }
    assert!(partly > 0, "the power never failed between two parts");
}

#[test]
fn another_definition_puts_nothing_out_again_after_a_kill() {
    // Its state is another one, or it is not.
    for (first, second) in [(10, 20), (10, 11)] {
        defined_otherwise(first, second);
    }
}

fn defined_otherwise(first: u64, second: u64) {
    let machine = Machine::new(1);
    let run = |generation, devices: std::ops::Range<i64>| {
        machine.run(generation, one, async |engine, analyzer| {
            assert!(enroll(engine, devices).await && settle(engine, analyzer).await);
        });
    };
    run(first, 1..6);
    let before = [1_000, 2_000, 3_000, 4_000];
    assert_eq!(machine.seen.before(5), before);
    // Twice: what it begins behind is not forgotten by a kill.
    run(second, 0..0);
    run(second, 0..0);
    run(second, 6..9);
    // What waited in the node that was may be lost with it.
    let mut numbers = machine.seen.before(8);
    numbers.retain(|number| *number != 5_000);
    assert_eq!(numbers, [&before[..], &[6_000, 7_000]].concat());
    run(second, 9..10);
    // The first one comes back.
    run(first, 10..12);
    let mut numbers = machine.seen.before(11);
    numbers.retain(|number| ![5_000, 9_000].contains(number));
    let expected = [&before[..], &[6_000, 7_000, 8_000, 10_000]].concat();
    assert_eq!(numbers, expected);
}

#[test]
fn a_graph_is_replaced_wholly_or_not_at_all() {
    let mut done = 0;
    for nth in 1..=8 {
        let machine = Machine::new(nth);
        let twice: Rows = |number| vec![numbers([number * 1_000 + 1], "")];
        let is_done = machine.run(10, one, async |engine, analyzer| {
            assert!(settle(engine, analyzer).await);
            machine
                .disk
                .fail_nth(Some(SimOp::Write), nth, FaultKind::NoSpace);
            let next = Fake::new(20, twice, &machine.seen);
            let replaced = analyzer.replace(Box::new(next)).await;
            machine.disk.clear_faults();
            assert!(enroll(engine, 1..4).await && settle(engine, analyzer).await);
            replaced.is_ok()
        });
        // The one that was in force is in force after a kill, too.
        let (generation, rows, more) = if is_done {
            (20, twice, 1)
        } else {
            (10, one as Rows, 0)
        };
        machine.run(generation, rows, async |engine, analyzer| {
            assert!(enroll(engine, 4..6).await && settle(engine, analyzer).await);
        });
        let expected: Vec<i64> = (1..5).map(|number| number * 1_000 + more).collect();
        assert_eq!(machine.seen.before(5), expected, "write {nth} failed");
        done += u64::from(is_done);
    }
    assert!((1..8).contains(&done), "{done} of 8 were replaced");
}

#[test]
fn rows_that_no_stream_can_take_are_counted_and_the_others_are_stored() {
    let mixed: Rows = |number| {
        if number > 1 {
            return one(number);
        }
        let wrong = numbers([0, 0], "");
        let text = wrong.column_by_name("note").unwrap().clone();
        let wrong = RecordBatch::try_from_iter([
            ("ts", wrong.column(0).clone()),
            ("device", wrong.column(1).clone()),
            ("n", text),
        ]);
        let other = Float64Array::from(vec![1.0]);
        let row = numbers([0], "");
        let badly_named = RecordBatch::try_from_iter([
            ("ts", row.column(0).clone()),
            ("device", row.column(1).clone()),
            ("no name", Arc::new(other) as ArrayRef),
        ]);
        let first = number * 1_000;
        vec![
            numbers([first], ""),
            wrong.unwrap(),
            badly_named.unwrap(),
            numbers([first + 1], &noise(9 << 20)),
            numbers([first + 2], ""),
        ]
    };
    let machine = Machine::new(1);
    let refused = machine.run(10, mixed, async |engine, analyzer| {
        assert!(enroll(engine, [1, 2]).await && settle(engine, analyzer).await);
        let total = engine.metrics().derived_refused.get();
        let of_node = analyzer
            .refused()
            .get(&StreamName::new(NODE).unwrap())
            .copied();
        assert_eq!(of_node, Some(total));
        total
    });
    assert_eq!(refused, 4);
    assert_eq!(machine.seen.before(2), [1_000, 1_002]);
}

#[test]
fn a_stop_does_not_wait_for_a_record_that_takes_long() {
    let io = tokio::runtime::Runtime::new().unwrap();
    let background = tokio::runtime::Runtime::new().unwrap();
    let machine = Machine::new(1);
    actix_rt::System::new().block_on(async {
        let spawner = ThreadSpawner::new(2, io.handle().clone(), background.handle().clone());
        let engine = machine.start(Arc::new(spawner)).await;
        let mut fake = Fake::new(10, one, &machine.seen);
        fake.busy = Duration::from_millis(1_500);
        let analyzer = engine.analyze(Box::new(fake), Arc::new(OsEntropy)).unwrap();
        assert!(enroll(&engine, 1..3).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = tokio::time::Instant::now();
        engine.stop(None).await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(1_200), "{took:?}");
        assert!(!analyzer.is_ended(), "it is busy");
        for _ in 0..300 {
            if analyzer.is_ended() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(
            analyzer.is_ended(),
            "it ends when it finds that nobody waits"
        );
    });
    machine.disk.restart();
    assert!(machine.seen.before(9).is_empty());
    machine.run(10, one, async |engine, analyzer| {
        assert!(enroll(engine, 3..4).await && settle(engine, analyzer).await);
    });
    assert_eq!(machine.seen.before(3), [1_000, 2_000]);
    io.shutdown_background();
    background.shutdown_background();
}

#[test]
fn an_engine_tells_which_graph_is_in_force_once() {
    let machine = Machine::new(1);
    let told = |generation| {
        machine.run(generation, one, async |engine, analyzer| {
            let before = engine.progress().committed();
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                assert!(settle(engine, analyzer).await);
            }
            engine.progress().committed().get() - before.get()
        })
    };
    assert_eq!(
        [told(10), told(10), told(20), told(20), told(10)],
        [1, 0, 1, 0, 1]
    );
}
