//! What a shard's hot path costs with few devices known and with many: rows applied, batches
//! settled, and the question whether a gateway may speak for a device. `cargo run --release -p
//! quiver-runtime --example known_devices_cost -- 200000`. Compare two builds only by runs that
//! take turns.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "an example that measures, on the real clock"
)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use quiver_hot::{LastValues, MemoryBudget, MemoryLimits, Reservation, StreamTable, Tables};
use quiver_log::{Record, RecordKind};
use quiver_model::{
    CheckedBatch, DeviceId, FieldName, FieldType, ManualClock, Position, Producer, SchemaId,
    SenderId, SenderKind, Sequence, ShardId, StreamField, StreamName, StreamSchema, Timestamp,
    Verdict, apply,
};
use quiver_runtime::{
    Metrics, Progress,
    commit::{AppendQueue, Settlement},
    device::Outbox,
    registry::{Registry, RegistryChange, RegistryEntry},
    shard::{
        LiveStream, SettledOutcome, Shard, ShardEvent, ShardImage, ShardParts, dispatch_settlement,
    },
};

const FIELDS: usize = 10;
const RUNS: usize = 2_000;

fn device(index: usize) -> SenderId {
    SenderId::device(DeviceId::new(&format!("device-{index:06}")).unwrap())
}

fn stream() -> StreamName {
    StreamName::new("readings").unwrap()
}

fn checked(
    schema: &Arc<StreamSchema>,
    sender: &SenderId,
    devices: Option<&[String]>,
    rows: usize,
    ts: i64,
) -> CheckedBatch {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let times = (0..rows).map(|row| ts + row as i64);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let mut fields = vec![Field::new("ts", time, false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times)];
    if let Some(devices) = devices {
        let names = (0..rows).map(|row| &devices[row % devices.len()]);
        fields.push(Field::new("device", DataType::Utf8, false));
        columns.push(Arc::new(StringArray::from_iter_values(names)));
    }
    for index in 0..FIELDS {
        let values = (0..rows).map(|row| (index * row) as f64);
        fields.push(Field::new(format!("f{index}"), DataType::Float64, true));
        columns.push(Arc::new(Float64Array::from_iter_values(values)));
    }
    let wire = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    apply(&wire, schema, sender, &Verdict::default(), None).unwrap()
}

fn record(sender: &SenderId, sequence: u64) -> Record {
    let mut record = Record::control(RecordKind::Data, Timestamp(1));
    record.sender = Some(sender.clone());
    record.stream = Some(stream());
    record.producer = Producer(7);
    record.sequence = Sequence(sequence);
    record
}

fn settlement(sender: &SenderId) -> Settlement {
    Settlement {
        sender: sender.clone(),
        rows: None,
        outcome: SettledOutcome::Stored,
        received: Duration::ZERO,
    }
}

struct Fixture {
    schema: Arc<StreamSchema>,
    tables: Tables,
    shard: Shard,
    next: Position,
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
        let limits = MemoryLimits {
            device: 1 << 30,
            derived: 1 << 30,
        };
        let (queue, _) = AppendQueue::new();
        let parts = ShardParts {
            tables: Arc::new(Tables::new(1)),
            last_values: Arc::new(LastValues::new(1)),
            budget: MemoryBudget::new(limits),
            metrics: Arc::new(Metrics::default()),
            progress: Arc::new(Progress::new(1, Position(0))),
            clock: Arc::new(ManualClock::new(Timestamp(1))),
            queue,
        };
        Self {
            schema: Arc::new(StreamSchema::new(stream(), SchemaId(1), fields).unwrap()),
            tables: Tables::new(1),
            shard: Shard::new(ShardId(0), parts, Position(0), ShardImage::default()),
            next: Position(1),
        }
    }

    fn rows(&mut self, batches: Vec<CheckedBatch>) -> Duration {
        let table = Arc::new(StreamTable::new(self.schema.clone(), 1));
        let mut events = Vec::with_capacity(batches.len());
        for batch in batches {
            let first = self.next;
            self.next = first.plus(batch.row_count() as u64);
            events.push(ShardEvent::Rows {
                table: table.clone(),
                rows: batch.into(),
                reservation: Reservation::none(),
                first,
                time: Timestamp(1),
            });
        }
        let count = events.len() as u32;
        let begun = Instant::now();
        for event in events {
            self.shard.apply(black_box(event));
        }
        begun.elapsed() / count
    }

    fn settle(&mut self, senders: &[SenderId], sequence: u64) -> Duration {
        let mut events = Vec::with_capacity(senders.len());
        for sender in senders {
            dispatch_settlement(
                &self.tables,
                1,
                self.next,
                &record(sender, sequence),
                settlement(sender),
                &mut |_, event| events.push(event),
            );
            self.next = self.next.plus(1);
        }
        let begun = Instant::now();
        for event in events {
            self.shard.apply(black_box(event));
        }
        begun.elapsed() / senders.len() as u32
    }
}

fn main() {
    let known: usize = std::env::args()
        .nth(1)
        .map_or(200_000, |count| count.parse().unwrap());
    for known in [100, known] {
        println!("{known} devices known");
        let mut fixture = Fixture::new();
        let schema = fixture.schema.clone();
        let some = |run: usize| device(run * 7_919 % known);
        let operator = SenderId {
            kind: SenderKind::Operator,
            id: DeviceId::new("local").unwrap(),
        };
        let names: Vec<String> = (0..known)
            .map(|index| format!("device-{index:06}"))
            .collect();
        for names in names.chunks(1_000) {
            let batch = checked(&schema, &operator, Some(names), names.len(), 1);
            fixture.rows(vec![batch]);
        }
        let mut ts = 10;
        for (rows, devices) in [(1, 1), (100, 1), (1_000, 1), (100, 100), (1_000, 1_000)] {
            let batches = (0..RUNS / devices.min(10)).map(|run| {
                ts += 10_000;
                if devices == 1 {
                    return checked(&schema, &some(run), None, rows, ts);
                }
                let names: Vec<String> = (0..devices)
                    .map(|index| names[(run * 7_919 + index * 31) % known].clone())
                    .collect();
                checked(&schema, &operator, Some(&names), rows, ts)
            });
            let each = fixture.rows(batches.collect());
            println!("  rows    {rows:>5} of {devices:>5} devices: {each:?} a batch");
        }
        let senders: Vec<_> = (0..RUNS).map(some).collect();
        let all: Vec<_> = (0..known).map(device).collect();
        println!(
            "  settle  first of a sender (replay): {:?}",
            fixture.settle(&all, 0)
        );
        println!(
            "  settle  nobody connected (replay): {:?}",
            fixture.settle(&senders, 1)
        );
        let connected = &senders[..100];
        for sender in connected {
            let (session, _) = fixture
                .shard
                .sender(sender)
                .connect(1, Arc::new(Outbox::default()));
            let live = LiveStream {
                session,
                instance: 1,
                quic_stream: 2,
                signal: Arc::default(),
            };
            let key = (stream(), Producer(7));
            let (zero, now) = (Sequence(0), Timestamp(1));
            fixture
                .shard
                .sender(sender)
                .open(&key, zero, zero, live, now, 0)
                .unwrap();
        }
        let many: Vec<_> = connected.iter().cycle().take(RUNS * 10).cloned().collect();
        println!("  settle  connected: {:?}", fixture.settle(&many, 2));
        let begun = Instant::now();
        for sender in &many {
            black_box(fixture.shard.sender(black_box(sender)).pairs.len());
        }
        println!(
            "  sender  connected: {:?}",
            begun.elapsed() / many.len() as u32
        );

        let registry = Registry::default();
        for sender in &all {
            let mut entry = RegistryEntry::new(sender, Timestamp(1));
            entry.gateways.insert("gateway-1".to_owned());
            registry.apply(&RegistryChange::Put { entry });
        }
        let gateway = SenderId {
            kind: SenderKind::Gateway,
            id: DeviceId::new("gateway-1").unwrap(),
        };
        let begun = Instant::now();
        let mut allowed = 0;
        for run in 0..RUNS * 10 {
            allowed += usize::from(registry.may_speak_for(&gateway, &names[run * 7_919 % known]));
        }
        assert_eq!(allowed, RUNS * 10);
        println!(
            "  may_speak_for: {:?}",
            begun.elapsed() / (RUNS * 10) as u32
        );
    }
}
