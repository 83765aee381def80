//! What a device takes in memory that is known, has a last row of ten numbers, and is not
//! connected: counted by the allocator, over everything that is kept of it. Alone in its process,
//! so that nobody else allocates.
//!
//! `QUIVER_KNOWN_DEVICES=1000000 cargo test --release -p quiver-runtime --test known_devices --
//! --nocapture` prints the shares, and what a checkpoint of them costs.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a test on the real clock, and only an allocator can count"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use quiver_hot::{LastValues, MemoryBudget, MemoryLimits, Reservation, StreamTable, Tables};
use quiver_log::{Record, RecordKind};
use quiver_model::{
    DeviceId, FieldName, FieldType, ManualClock, Position, Producer, SchemaId, SenderId,
    SenderKind, Sequence, ShardId, StreamField, StreamName, StreamSchema, Timestamp, Verdict,
    apply,
};
use quiver_runtime::{
    Metrics, Progress,
    checkpoint::{CheckpointState, StoredCheckpoint},
    commit::{AppendQueue, Settlement},
    control::ControlState,
    device::Outbox,
    registry::{RegistryChange, RegistryEntry},
    shard::{
        LiveStream, RowPart, RowParts, SettledOutcome, Shard, ShardEvent, ShardImage, ShardParts,
        dispatch_settlement,
    },
};

const SHARDS: u16 = 2;
const FIELDS: usize = 10;
/// What a device may take, in bytes.
const BYTES_MAX: usize = 300;
/// What allocators round sizes up to, at least.
const GRANULE: usize = 16;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes.next_multiple_of(GRANULE), Ordering::Relaxed);
    PEAK.fetch_max(live + bytes, Ordering::Relaxed);
}

fn remove(bytes: usize) {
    LIVE.fetch_sub(bytes.next_multiple_of(GRANULE), Ordering::Relaxed);
}

// SAFETY: every call is handed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        remove(layout.size());
        add(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live_bytes() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// What `work` takes at most beyond what there was before, while it runs.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = live_bytes();
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

fn device(index: usize) -> SenderId {
    SenderId::device(DeviceId::new(&format!("device-{index:06}")).unwrap())
}

fn stream() -> StreamName {
    StreamName::new("readings").unwrap()
}

struct Fixture {
    schema: Arc<StreamSchema>,
    /// Rows are not what is counted: they go to a table that is thrown away now and then.
    table: Arc<StreamTable>,
    tables: Tables,
    last_values: Arc<LastValues>,
    shards: Vec<Shard>,
    next: Position,
}

fn shards(last_values: &Arc<LastValues>) -> Vec<Shard> {
    let limits = MemoryLimits {
        device: 1 << 30,
        derived: 1 << 30,
    };
    let (queue, _) = AppendQueue::new();
    let parts = ShardParts {
        tables: Arc::new(Tables::new(SHARDS)),
        last_values: last_values.clone(),
        budget: MemoryBudget::new(limits),
        metrics: Arc::new(Metrics::default()),
        progress: Arc::new(Progress::new(SHARDS, Position(0))),
        clock: Arc::new(ManualClock::new(Timestamp(1))),
        queue,
    };
    (0..SHARDS)
        .map(|id| {
            Shard::new(
                ShardId(id),
                parts.clone(),
                Position(0),
                ShardImage::default(),
            )
        })
        .collect()
}

impl Fixture {
    fn new() -> Self {
        let field = |index| {
            StreamField::new(
                FieldName::new(&format!("f{index}")).unwrap(),
                FieldType::Float64,
            )
        };
        let fields = (0..FIELDS).map(field).collect();
        let schema = Arc::new(StreamSchema::new(stream(), SchemaId(1), fields).unwrap());
        let last_values = Arc::new(LastValues::new(SHARDS));
        Self {
            table: Arc::new(StreamTable::new(schema.clone(), SHARDS)),
            schema,
            tables: Tables::new(SHARDS),
            shards: shards(&last_values),
            last_values,
            next: Position(1),
        }
    }

    fn shard(&mut self, sender: &SenderId) -> &mut Shard {
        let shard = sender.shard(SHARDS);
        &mut self.shards[usize::from(shard.get())]
    }

    /// A batch as it is sent, committed and applied.
    fn batch(&mut self, sender: &SenderId, sequence: u64, devices: Option<&[String]>, rows: usize) {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let from = self.next.get() as i64;
        let times = (0..rows).map(|row| from + row as i64);
        let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
        let mut fields = vec![Field::new("ts", time, false)];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(times)];
        if let Some(devices) = devices {
            fields.push(Field::new("device", DataType::Utf8, false));
            columns.push(Arc::new(StringArray::from_iter_values(devices)));
        }
        for index in 0..FIELDS {
            let values = (0..rows).map(|row| (index + row) as f64);
            fields.push(Field::new(format!("f{index}"), DataType::Float64, true));
            columns.push(Arc::new(Float64Array::from_iter_values(values)));
        }
        let wire = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let checked = apply(&wire, &self.schema, sender, &Verdict::default(), None).unwrap();
        let parts = checked.split_by_shard(SHARDS);
        let part = |(shard, rows)| RowPart {
            shard,
            rows,
            reservation: Reservation::none(),
        };
        let parts = RowParts {
            table: Some(self.table.clone()),
            parts: parts.into_iter().map(part).collect(),
            rejects: Vec::new(),
            rejects_reservation: None,
            queued: Reservation::none(),
        };
        self.settle(sender, sequence, rows, Some(parts));
    }

    fn settle(&mut self, sender: &SenderId, sequence: u64, rows: usize, parts: Option<RowParts>) {
        let mut record = Record::control(RecordKind::Data, Timestamp(1));
        record.sender = Some(sender.clone());
        record.stream = Some(stream());
        record.producer = Producer(0x5eed);
        record.sequence = Sequence(sequence);
        record.rows = rows as u32;
        let settlement = Settlement {
            sender: sender.clone(),
            rows: parts,
            outcome: SettledOutcome::Stored,
            received: Duration::ZERO,
        };
        let position = self.next;
        self.next = position.plus(record.positions());
        let shards = &mut self.shards;
        let mut tell = |shard: ShardId, event| shards[usize::from(shard.get())].apply(event);
        dispatch_settlement(
            &self.tables,
            SHARDS,
            position,
            &record,
            settlement,
            &mut tell,
        );
        // The end of the commit group: what was pending goes into the tables.
        for shard in &mut self.shards {
            shard.apply(ShardEvent::Watermark(position));
        }
        if self.table.stats().rows > 20_000 {
            self.table = Arc::new(StreamTable::new(self.schema.clone(), SHARDS));
        }
    }

    /// A device connects, sends batches that become durable, and disconnects.
    fn visit(&mut self, sender: &SenderId, batches: u64, rows: usize) {
        let key = (stream(), Producer(0x5eed));
        let shard = self.shard(sender);
        let (session, replaced) = shard.sender(sender).connect(1, Arc::new(Outbox::default()));
        assert!(replaced.is_none());
        let live = LiveStream {
            session,
            instance: 1,
            quic_stream: 2,
            signal: Arc::default(),
        };
        let (zero, now) = (Sequence(0), Timestamp(1));
        let opened = shard
            .sender(sender)
            .open(&key, zero, zero, live.clone(), now, 0);
        let first = opened.unwrap().next;
        for sequence in first.get()..first.get() + batches {
            let shard = self.shard(sender);
            let mut state = shard.sender(sender);
            state.check(&key, &live, Sequence(sequence), 0).unwrap();
            state.accept(&key, Sequence(sequence + 1), now);
            drop(state);
            self.batch(sender, sequence, None, rows);
        }
        self.shard(sender).sender(sender).close(&key, &live);
        self.shard(sender).disconnect(sender, 1, session);
    }
}

#[test]
fn a_device_that_is_not_connected_takes_less_than_300_bytes() {
    let count = std::env::var("QUIVER_KNOWN_DEVICES").map_or(200_000, |text| text.parse().unwrap());
    let mut fixture = Fixture::new();
    let control = ControlState::default();
    let gateway = SenderId {
        kind: SenderKind::Gateway,
        id: DeviceId::new("gateway-1").unwrap(),
    };
    fixture.visit(&gateway, 0, 0);
    fixture.batch(&gateway, 0, Some(&["device-000000".to_owned()]), 1);
    let start = live_bytes();

    for index in 0..count {
        let mut entry = RegistryEntry::new(&device(index), Timestamp(index as i64));
        if index % 2 == 0 {
            entry.gateways.insert("gateway-1".to_owned());
        }
        control.registry.apply(&RegistryChange::Put { entry });
    }
    let registered = live_bytes();

    // Each comes twice, for few or many rows; every fourth is spoken for by a gateway, too.
    for index in 0..count {
        fixture.visit(
            &device(index),
            1 + u64::from(index % 8 == 0),
            [1, 1, 2, 7, 30][index % 5],
        );
    }
    for index in (0..count).rev() {
        if index % 10 == 0 {
            fixture.visit(&device(index), 1, 1);
        }
    }
    let names: Vec<String> = (0..count)
        .step_by(4)
        .map(|index| format!("device-{index:06}"))
        .collect();
    for (sequence, names) in names.chunks(1_000).enumerate() {
        fixture.batch(&gateway, sequence as u64 + 1, Some(names), names.len());
    }
    drop(names);
    fixture.table = Arc::new(StreamTable::new(fixture.schema.clone(), SHARDS));
    let end = live_bytes();

    let each = |bytes: usize| bytes as f64 / count as f64;
    let last_values = fixture.last_values.bytes();
    println!(
        "{count} devices: registry {:.1}, last values {:.1}, sequences and ledgers {:.1} bytes each; together {:.1}",
        each(registered - start),
        each(last_values),
        each(end - registered - last_values),
        each(end - start),
    );
    assert_eq!(fixture.last_values.devices(&stream()), count);
    assert_eq!(control.registry.len(), count);
    assert!(
        end - start <= count * BYTES_MAX,
        "{} bytes each",
        each(end - start)
    );
    // What is said of it is true, but for what allocators round up.
    let registry = control.registry.bytes();
    let is_near = |said: usize, counted: usize| said.abs_diff(counted) <= counted / 20;
    assert!(
        is_near(registry, registered - start),
        "{registry} {}",
        registered - start
    );

    let before = fixture
        .shards
        .iter()
        .map(Shard::ledgers)
        .fold(0, |sum, ledgers| {
            sum + ledgers.values().map(|ledger| ledger.stored).sum::<u64>()
        });
    assert_eq!(before, fixture.next.get() - 1, "every row is in a ledger");
    checkpoint(&control, fixture, count, end - start);
}

/// Takes a checkpoint, while rows come, and restores it: what both cost.
fn checkpoint(control: &ControlState, mut fixture: Fixture, count: usize, held: usize) {
    let ledgers = |shards: &[Shard]| -> Vec<_> { shards.iter().map(Shard::ledgers).collect() };
    let begun = Instant::now();
    let ((images, pause), image_bytes) = peak_of(|| {
        let mut pause = Duration::ZERO;
        let images = fixture.shards.iter().map(|shard| {
            let begun = Instant::now();
            let image = shard.image();
            pause = pause.max(begun.elapsed());
            image
        });
        let images: Vec<_> = images.collect();
        (images, pause)
    });
    let shards_took = begun.elapsed();
    let begun = Instant::now();
    let state = CheckpointState::of(fixture.next, control, images);
    let commit_pause = begun.elapsed();
    let expected = ledgers(&fixture.shards);
    for index in (0..count).step_by(1_000) {
        fixture.visit(&device(index), 1, 1);
    }
    let mut payload = 0;
    let begun = Instant::now();
    let ((), write_bytes) = peak_of(|| {
        state
            .write(&mut |bytes| {
                payload += bytes.len();
                Ok(())
            })
            .unwrap();
    });
    let wrote = begun.elapsed();
    println!(
        "checkpoint of {count}: shards {shards_took:?} in all, {pause:?} the longest, {:.1} bytes each meanwhile; commit loop {commit_pause:?}; written in {wrote:?} with {:.1} MB more; {:.1} bytes each on disk",
        image_bytes as f64 / count as f64,
        write_bytes as f64 / 1e6,
        payload as f64 / count as f64,
    );
    assert!(write_bytes < 24 << 20, "portion by portion: {write_bytes}");
    let mut bytes = Vec::with_capacity(payload);
    state
        .write(&mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
    drop(state);
    drop(fixture);

    let restored = ControlState::default();
    let last_values = Arc::new(LastValues::new(SHARDS));
    let mut shards = shards(&last_values);
    let begun = Instant::now();
    let before = live_bytes();
    let (mut stored, peak) = peak_of(|| {
        let mut stored = StoredCheckpoint::decode(Position(1), bytes).unwrap();
        stored.restore_registry(&restored.registry).unwrap();
        stored.restore_last_values(&last_values).unwrap();
        stored.restore_identities(&mut shards).unwrap();
        stored
    });
    stored.replay_from = Position(0);
    println!(
        "restored in {:?}: {:.1} bytes each, {:.1} at the peak beside the file",
        begun.elapsed(),
        (live_bytes() - before) as f64 / count as f64,
        peak as f64 / count as f64,
    );
    drop(stored);
    assert_eq!(ledgers(&shards), expected);
    assert_eq!(restored.registry.len(), count);
    assert_eq!(last_values.devices(&stream()), count);
    assert!(
        peak < held + held / 8 + (24 << 20),
        "nothing is built twice: {peak}"
    );
}
