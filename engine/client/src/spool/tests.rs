use proptest::prelude::*;
use quiver_model::Producer;

use super::*;
use crate::queue::{OpenStep, SendStep, Source, Window};

const WINDOW: Window = Window {
    bytes: 1 << 20,
    batches: 1_000,
};
const P: Producer = Producer(7);

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn new_queue() -> Queue {
    Queue::new(WINDOW)
}

fn open(directory: &MemoryDirectory) -> (Spool, Queue, Vec<ClientEvent>) {
    let mut queue = new_queue();
    let options = SpoolOptions::with(Arc::new(directory.clone()));
    let (spool, events) = Spool::open(options, 42, &mut queue).unwrap();
    (spool, queue, events)
}

fn batch(id: u64, sequence: Option<u64>, body: &[u8]) -> NewRecord {
    NewRecord::Batch(NewBatch {
        id,
        stream: stream("readings"),
        assignment: sequence.map(|sequence| Assignment {
            kind: LaneKind::Live,
            producer: P,
            sequence,
        }),
        rows: 3,
        schema: Bytes::from_static(b"schema"),
        body: Bytes::copy_from_slice(body),
    })
}

fn live() -> LaneKey {
    LaneKey {
        stream: stream("readings"),
        kind: LaneKind::Live,
    }
}

/// (sequence, body) of every batch in the lane, read back from the disk.
fn contents(queue: &Queue, directory: &MemoryDirectory, key: &LaneKey) -> Vec<(u64, Bytes)> {
    queue.lane(key).map_or_else(Vec::new, |lane| {
        lane.entries
            .iter()
            .map(|entry| {
                (
                    entry.sequence,
                    read_batch(directory, entry.place.unwrap()).unwrap(),
                )
            })
            .collect()
    })
}

#[test]
fn what_was_appended_is_there_after_a_power_failure_with_its_numbers() {
    let disk = MemoryDirectory::new();
    let (mut spool, queue, _) = open(&disk);
    assert_eq!(spool.instance(), 42);
    spool
        .append(
            vec![
                batch(0, Some(0), b"one"),
                batch(1, Some(1), b"two"),
                batch(2, None, b"three"),
            ],
            None,
        )
        .unwrap();
    drop((spool, queue));
    let disk = disk.crash(|_| 0);
    let (spool, mut queue, events) = open(&disk);
    assert_eq!(events, []);
    assert_eq!(
        contents(&queue, &disk, &live()),
        [(0, Bytes::from("one")), (1, Bytes::from("two"))]
    );
    assert_eq!(queue.next_id(), 3);
    assert_eq!(spool.instance(), 42, "the installation is the same");
    queue.assign(&live(), P, 2, 0, 3);
    assert_eq!(
        contents(&queue, &disk, &live()).last().unwrap(),
        &(2, Bytes::from("three"))
    );
}

#[test]
fn a_second_client_is_kept_out_and_a_later_format_is_not_touched() {
    let disk = MemoryDirectory::new();
    let (spool, ..) = open(&disk);
    let again = Spool::open(
        SpoolOptions::with(Arc::new(disk.clone())),
        1,
        &mut new_queue(),
    );
    assert!(matches!(again, Err(SpoolError::Locked)));
    drop(spool);
    let disk = MemoryDirectory::new();
    let mut header = [
        &record::MAGIC[..],
        &2_u32.to_le_bytes(),
        &1_u64.to_le_bytes(),
    ]
    .concat();
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    disk.create(1).unwrap().append(&header).unwrap();
    let newer = Spool::open(SpoolOptions::with(Arc::new(disk)), 1, &mut new_queue());
    assert!(matches!(
        newer,
        Err(SpoolError::UnsupportedVersion { version: 2, .. })
    ));
}

#[test]
fn a_failed_sync_poisons_the_spool() {
    let disk = MemoryDirectory::new();
    let (mut spool, ..) = open(&disk);
    disk.fail_syncs(true);
    assert!(matches!(
        spool.append(vec![batch(0, None, b"x")], None),
        Err(SpoolError::Io { .. })
    ));
    disk.fail_syncs(false);
    assert!(matches!(
        spool.append(vec![batch(1, None, b"y")], None),
        Err(SpoolError::Poisoned)
    ));
}

#[test]
fn segments_go_oldest_first_once_settled_and_later_ones_stand_alone() {
    let disk = MemoryDirectory::new();
    let (mut spool, mut queue, _) = open(&disk);
    for id in 0..3 {
        let state = (id > 0).then(|| queue.state_record(spool.instance()));
        let place = spool
            .append(vec![batch(id, Some(id), &[id as u8; 10])], state)
            .unwrap()[0];
        let entry = Entry {
            id,
            sequence: id,
            rows: 3,
            length: 10,
            schema: Bytes::from_static(b"schema"),
            place: Some(place),
            body: None,
            queued: None,
            waiter: None,
            sent: false,
        };
        queue.push(&stream("readings"), Some((LaneKind::Live, P)), entry);
    }
    assert_eq!(spool.removable(&queue), [] as [u64; 0]);
    queue.on_ack(P, &stream("readings"), 1, &[]).unwrap();
    let removable = spool.removable(&queue);
    assert_eq!(removable, [1, 2]);
    spool.remove(&removable).unwrap();
    drop(spool);
    let disk = disk.crash(|_| 0);
    assert_eq!(disk.segments().unwrap(), [3]);
    let (_, restored, events) = open(&disk);
    assert_eq!(events, []);
    assert_eq!(
        contents(&restored, &disk, &live()),
        [(2, Bytes::from(vec![2; 10]))]
    );
    let lane = restored.lane(&live()).unwrap();
    assert_eq!((lane.producer, lane.next_sequence), (P, 3));
}

#[test]
fn damage_in_an_old_segment_is_reported_and_costs_no_other_segment() {
    let disk = MemoryDirectory::new();
    let (mut spool, queue, _) = open(&disk);
    let damaged = spool
        .append(vec![batch(0, Some(0), b"damaged")], None)
        .unwrap()[0];
    let state = queue.state_record(spool.instance());
    spool
        .append(vec![batch(1, Some(1), b"whole")], Some(state))
        .unwrap();
    drop(spool);
    // The same disk with one bit turned over in the first segment.
    let copy = MemoryDirectory::new();
    for segment in disk.segments().unwrap() {
        let length = disk.length(segment).unwrap();
        let mut bytes = disk.read(segment, 0, length as usize).unwrap();
        if segment == damaged.segment {
            bytes[damaged.offset as usize] ^= 1;
        }
        copy.create(segment).unwrap().append(&bytes).unwrap();
    }
    let (_, queue, events) = open(&copy);
    assert!(matches!(
        events[..],
        [ClientEvent::SpoolDamaged { segment: 1, .. }]
    ));
    assert_eq!(
        contents(&queue, &copy, &live()),
        [(1, Bytes::from("whole"))]
    );
}

#[test]
fn a_batch_that_changed_on_disk_is_not_read_back() {
    let disk = MemoryDirectory::new();
    let (mut spool, ..) = open(&disk);
    let place = spool
        .append(vec![batch(0, None, b"content")], None)
        .unwrap()[0];
    assert_eq!(read_batch(&disk, place).unwrap(), "content");
    assert_eq!(
        read_batch(
            &disk,
            Place {
                crc: place.crc ^ 1,
                ..place
            }
        ),
        None
    );
}

#[test]
fn the_spool_of_a_real_directory_reads_back_what_it_wrote() {
    let root = tempfile::tempdir().unwrap();
    let options = || SpoolOptions::at(root.path().join("spool")).unwrap();
    let (mut spool, _) = Spool::open(options(), 9, &mut new_queue()).unwrap();
    assert!(matches!(
        Spool::open(options(), 9, &mut new_queue()),
        Err(SpoolError::Locked)
    ));
    let place = spool
        .append(vec![batch(0, Some(0), b"on disk")], None)
        .unwrap()[0];
    assert_eq!(read_batch(&*options().directory, place).unwrap(), "on disk");
    drop(spool);
    let mut queue = new_queue();
    let (mut spool, events) = Spool::open(options(), 1, &mut queue).unwrap();
    assert_eq!((spool.instance(), events), (9, vec![]));
    assert_eq!(queue.lane(&live()).unwrap().entries.len(), 1);
    queue.on_ack(P, &stream("readings"), 0, &[]).unwrap();
    let removable = spool.removable(&queue);
    spool.remove(&removable).unwrap();
    assert_eq!(options().directory.segments().unwrap(), [2]);
}

/// What is done to a spool, and to the naive model beside it.
#[derive(Clone, Debug)]
enum Action {
    Append { assigned: bool, length: usize },
    Assign,
    Settle(u64),
    Renumber,
    Rotate,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        5 => (any::<bool>(), 0_usize..40).prop_map(|(assigned, length)| Action::Append { assigned, length }),
        2 => Just(Action::Assign),
        2 => (0_u64..3).prop_map(Action::Settle),
        1 => Just(Action::Renumber),
        1 => Just(Action::Rotate),
    ];
    prop::collection::vec(action, 1..30)
}

/// What is queued: (producer, sequence, body), and bodies without numbers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    producer: u64,
    settled_before: u64,
    next: u64,
    assigned: Vec<(u64, Vec<u8>)>,
    unassigned: Vec<Vec<u8>>,
}

impl Model {
    fn of(queue: &mut Queue, disk: &MemoryDirectory) -> Self {
        let mut model = Self::default();
        if let Some(lane) = queue.lane(&live()) {
            model.producer = lane.producer.get();
            model.settled_before = lane.settled_before;
            model.next = lane.next_sequence;
        }
        model.assigned = contents(queue, disk, &live())
            .into_iter()
            .map(|(sequence, body)| (sequence, body.to_vec()))
            .collect();
        let key = LaneKey {
            stream: stream("readings"),
            kind: LaneKind::Backlog,
        };
        let next_id = queue.next_id();
        queue.assign(&key, Producer(u64::MAX), 0, 0, next_id);
        model.unassigned = contents(queue, disk, &key)
            .into_iter()
            .map(|(_, body)| body.to_vec())
            .collect();
        model
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every prefix of the last segment's bytes is what a crash may leave. Recovery must give the
    /// model as it was after the last action whose records are whole.
    #[test]
    fn cut_at_any_byte_the_spool_is_what_a_naive_model_was(actions in actions()) {
        let disk = MemoryDirectory::new();
        let (mut spool, mut queue, _) = open(&disk);
        let mut model = Model { producer: P.get(), ..Model::default() };
        // After each action: segment, its length, and the model.
        let mut history: Vec<(u64, u64, Option<Model>)> = vec![(1, 0, None)];
        for (round, action) in actions.into_iter().enumerate() {
            let id = queue.next_id();
            let mut state = None;
            let mut changes = Vec::new();
            match action {
                Action::Append { assigned, length } => {
                    let body = vec![round as u8; length];
                    let sequence = assigned.then_some(model.next);
                    changes.push(batch(id, sequence, &body));
                    match sequence {
                        Some(sequence) => {
                            model.assigned.push((sequence, body));
                            model.next += 1;
                        }
                        None => model.unassigned.push(body),
                    }
                }
                Action::Assign => {
                    changes.push(NewRecord::Other(Record::Assign { key: live(), producer: Producer(model.producer), first_sequence: model.next, from_id: 0, to_id: id }));
                    for body in model.unassigned.drain(..) {
                        model.assigned.push((model.next, body));
                        model.next += 1;
                    }
                }
                Action::Settle(count) => {
                    let before = (model.settled_before + count).min(model.next);
                    changes.push(NewRecord::Other(Record::Settled { key: live(), settled_before: before }));
                    model.settled_before = before;
                    model.assigned.retain(|(sequence, _)| *sequence >= before);
                }
                Action::Renumber => {
                    model.producer += 1;
                    changes.push(NewRecord::Other(Record::Renumber { key: live(), producer: Producer(model.producer), settled_before: model.settled_before }));
                    for (sequence, (old, _)) in (0..).zip(&mut model.assigned) {
                        *old = sequence;
                    }
                    model.next = model.assigned.len() as u64;
                    model.settled_before = 0;
                }
                Action::Rotate => state = Some(queue.state_record(spool.instance())),
            }
            // A lane exists for the queue from its first batch on.
            if queue.lane(&live()).is_none() {
                let exists = changes.iter().any(|change| matches!(change, NewRecord::Batch(NewBatch { assignment: Some(_), .. }) | NewRecord::Other(Record::Assign { .. })));
                if !exists {
                    (model.producer, model.settled_before) = (P.get(), 0);
                    changes.retain(|change| matches!(change, NewRecord::Batch(_)));
                }
            }
            let places = spool.append(changes.clone(), state).unwrap();
            let mut places = places.into_iter();
            for change in changes {
                match change {
                    NewRecord::Batch(new) => {
                        let place = places.next().unwrap();
                        let entry = Entry {
                            id: new.id,
                            sequence: new.assignment.map_or(0, |assignment| assignment.sequence),
                            rows: new.rows,
                            length: place.length,
                            schema: new.schema,
                            place: Some(place),
                            body: None,
                            queued: None,
                            waiter: None,
                            sent: false,
                        };
                        // The producer in the record is the lane's when it exists.
                        let lane = new.assignment.map(|assignment| (assignment.kind, assignment.producer));
                        queue.push(&new.stream, lane, entry);
                    }
                    NewRecord::Other(Record::Assign { key, producer, first_sequence, from_id, to_id }) => queue.assign(&key, producer, first_sequence, from_id, to_id),
                    NewRecord::Other(Record::Settled { key, settled_before }) => queue.restore_settled(&key, settled_before),
                    NewRecord::Other(Record::Renumber { key, producer, settled_before }) => queue.renumber(&key, producer, settled_before),
                    NewRecord::Other(_) => unreachable!(),
                }
            }
            let lane_exists = queue.lane(&live()).is_some();
            let shown = if lane_exists { model.clone() } else { Model { producer: 0, ..model.clone() } };
            history.push((spool.segment, spool.length, Some(shown)));
        }
        let (last_segment, length) = (spool.segment, spool.length);
        drop(spool);
        for cut in 0..=length {
            let torn = disk.copy();
            torn.truncate(last_segment, cut).unwrap();
            let (_spool, mut restored, events) = open(&torn);
            prop_assert_eq!(&events, &[]);
            let expected = history
                .iter()
                .rfind(|(segment, length, _)| *segment < last_segment || *length <= cut)
                .and_then(|(.., model)| model.clone())
                .unwrap_or_default();
            let mut found = Model::of(&mut restored, &torn);
            if expected.producer == 0 {
                found.producer = 0;
            }
            prop_assert_eq!(found, expected, "cut at {} of {}", cut, length);
        }
    }
}

#[test]
fn a_spooled_batch_is_sent_from_the_disk() {
    let disk = MemoryDirectory::new();
    let (mut spool, ..) = open(&disk);
    spool
        .append(vec![batch(0, Some(0), b"body")], None)
        .unwrap();
    drop(spool);
    let (_spool, mut queue, _) = open(&disk);
    queue.on_welcome(&[], 16);
    let OpenStep::Open(plan) = queue.poll_open(0, tokio::time::Instant::now()) else {
        panic!()
    };
    assert_eq!(queue.on_opened(0, 2, &plan).unwrap(), "schema");
    let SendStep::Send {
        bytes: Source::Spool(place),
        ..
    } = queue.poll_send(0, 2)
    else {
        panic!()
    };
    assert_eq!(read_batch(&disk, place).unwrap(), "body");
}
