use std::time::Duration;

use proptest::prelude::*;
use quiver_protocol::ResumedReject;

use super::*;
use crate::event::RenumberReason;

const WINDOW: Window = Window {
    bytes: 1_000,
    batches: 4,
};
const P: Producer = Producer(7);

fn readings() -> StreamName {
    StreamName::new("readings").unwrap()
}

fn entry(id: u64) -> Entry {
    Entry {
        id,
        sequence: 0,
        rows: 10,
        length: 100,
        schema: Bytes::from_static(b"schema"),
        place: None,
        body: Some(Bytes::from(vec![id as u8; 100])),
        queued: Some(Instant::now()),
        waiter: None,
        sent: false,
    }
}

/// A queue that is online with `count` batches in its live lane.
fn online(count: u64) -> Queue {
    let mut queue = Queue::new(WINDOW);
    queue.on_welcome(&[], 16);
    queue.set_online();
    for id in 0..count {
        queue.push(&readings(), Some((LaneKind::Live, P)), entry(id));
    }
    queue
}

fn open(queue: &mut Queue, quic_stream: u64) -> OpenPlan {
    let OpenStep::Open(plan) = queue.poll_open(0, Instant::now()) else {
        panic!("wants no QUIC stream")
    };
    assert!(queue.on_opened(0, quic_stream, &plan).is_some());
    plan
}

fn send_all(queue: &mut Queue, quic_stream: u64) -> Vec<u64> {
    let mut sent = Vec::new();
    while let SendStep::Send { sequence, .. } = queue.poll_send(0, quic_stream) {
        sent.push(sequence);
    }
    sent
}

fn closed(quic_stream: u64, next_sequence: u64, code: StreamCloseCode) -> StreamClosed {
    StreamClosed {
        quic_stream,
        next_sequence,
        code: code.number(),
        retry_after: Duration::ZERO,
        message: "because".into(),
    }
}

fn resumed(producer: Producer, next: u64, known: bool) -> Resumed {
    Resumed {
        producer,
        stream: readings(),
        next_sequence: Sequence(next),
        known,
        rejects: vec![],
        rejects_total: 0,
        refused_rows: vec![],
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

#[test]
fn no_more_is_in_flight_than_the_window_allows_and_an_ack_makes_room() {
    let mut queue = online(10);
    open(&mut queue, 2);
    assert_eq!(send_all(&mut queue, 2), [0, 1, 2, 3]);
    queue.on_ack(P, &readings(), 1, &[]).unwrap();
    assert_eq!(send_all(&mut queue, 2), [4, 5]);
    assert_eq!(queue.totals().stored, 2);
    assert_eq!(queue.unsettled_count(), 8);
}

#[test]
fn a_batch_larger_than_the_window_is_sent_alone_rather_than_never() {
    let mut queue = online(0);
    queue.push(
        &readings(),
        Some((LaneKind::Live, P)),
        Entry {
            length: 5_000,
            ..entry(0)
        },
    );
    queue.push(&readings(), Some((LaneKind::Live, P)), entry(1));
    open(&mut queue, 2);
    assert_eq!(send_all(&mut queue, 2), [0]);
}

#[test]
fn a_reject_is_reported_once_and_settled_by_the_ack_that_passes_it() {
    let mut queue = online(0);
    let (waiter, mut settled) = oneshot::channel();
    queue.push(
        &readings(),
        Some((LaneKind::Live, P)),
        Entry {
            waiter: Some(waiter),
            ..entry(0)
        },
    );
    assert!(
        queue
            .on_reject(P, &readings(), 0, 3, "bad".into())
            .is_some()
    );
    assert!(
        queue
            .on_reject(P, &readings(), 0, 3, "bad".into())
            .is_none()
    );
    assert!(settled.try_recv().is_err());
    queue.on_ack(P, &readings(), 0, &[]).unwrap();
    let expected = Settled::Rejected {
        code: Some(RejectCode::TypeConflict),
        number: 3,
        message: "bad".into(),
    };
    assert_eq!(settled.try_recv().unwrap(), expected);
    assert_eq!((queue.totals().rejected, queue.totals().stored), (1, 0));
}

#[test]
fn an_ack_of_a_batch_that_was_never_made_is_an_error() {
    let mut queue = online(2);
    assert!(queue.on_ack(P, &readings(), 2, &[]).is_err());
    assert!(
        queue.on_ack(Producer(99), &readings(), 7, &[]).is_ok(),
        "pairs of the past are ignored"
    );
}

#[test]
fn a_gap_behind_what_is_held_is_resent_and_one_before_it_is_declared_lost() {
    let mut queue = online(4);
    open(&mut queue, 2);
    send_all(&mut queue, 2);
    queue.on_ack(P, &readings(), 1, &[]).unwrap();
    let (_, event) = queue.on_stream_closed(closed(2, 3, StreamCloseCode::Gap), Instant::now());
    assert_eq!(event, None);
    let plan = open(&mut queue, 6);
    assert_eq!((plan.first_sequence, plan.lost_before), (3, 0));
    let (_, event) = queue.on_stream_closed(closed(6, 1, StreamCloseCode::Gap), Instant::now());
    assert!(matches!(
        event,
        Some(ClientEvent::LostByServer {
            from: Sequence(1),
            to: Sequence(2),
            ..
        })
    ));
    let plan = open(&mut queue, 10);
    assert_eq!((plan.first_sequence, plan.lost_before), (2, 2));
}

#[test]
fn an_unknown_producer_is_renumbered_from_zero_without_what_was_settled() {
    let mut queue = online(4);
    open(&mut queue, 2);
    send_all(&mut queue, 2);
    queue.on_ack(P, &readings(), 1, &[]).unwrap();
    let (plan, _) = queue.on_stream_closed(
        closed(2, 0, StreamCloseCode::UnknownProducer),
        Instant::now(),
    );
    let plan = plan.unwrap();
    assert_eq!(
        (plan.settled_before, plan.reason),
        (2, RenumberReason::UnknownToServer)
    );
    assert!(
        matches!(queue.poll_open(0, later()), OpenStep::Wait(None)),
        "not before it is durable"
    );
    queue.renumber(&plan.key, Producer(8), plan.settled_before);
    let plan = open(&mut queue, 6);
    assert_eq!((plan.producer, plan.first_sequence), (Producer(8), 0));
    assert_eq!(send_all(&mut queue, 6), [0, 1]);
}

#[test]
fn a_server_that_has_more_than_was_ever_made_means_a_new_producer() {
    let mut queue = online(3);
    queue.set_offline();
    let (plans, _) = queue.on_welcome(&[resumed(P, 9, true)], 16);
    assert_eq!(plans[0].reason, RenumberReason::ServerAhead);
    assert_eq!(
        queue.unsettled_count(),
        0,
        "the server has these very batches"
    );
    queue.renumber(&plans[0].key, Producer(8), plans[0].settled_before);
    let lane = queue.lane(&plans[0].key).unwrap();
    assert_eq!((lane.producer, lane.next_sequence), (Producer(8), 0));
}

#[test]
fn welcome_settles_what_the_server_has_and_names_the_rejects() {
    let mut queue = online(0);
    let mut settled = Vec::new();
    for id in 0..4 {
        let (waiter, receiver) = oneshot::channel();
        settled.push(receiver);
        queue.push(
            &readings(),
            Some((LaneKind::Live, P)),
            Entry {
                waiter: Some(waiter),
                ..entry(id)
            },
        );
    }
    queue.set_offline();
    let reject = ResumedReject {
        sequence: Sequence(1),
        code: 1,
        message: "broken".into(),
    };
    let answer = Resumed {
        rejects: vec![reject],
        rejects_total: 2,
        ..resumed(P, 3, true)
    };
    let (_, events) = queue.on_welcome(&[answer], 16);
    assert!(matches!(
        events[..],
        [
            ClientEvent::Rejected { .. },
            ClientEvent::RejectsUnlisted { count: 1, .. }
        ]
    ));
    assert_eq!(settled[0].try_recv().unwrap(), Settled::Stored);
    assert!(matches!(
        settled[1].try_recv().unwrap(),
        Settled::Rejected { .. }
    ));
    assert_eq!(
        settled[2].try_recv().unwrap(),
        Settled::Unreported,
        "it may be the one not listed"
    );
    assert!(settled[3].try_recv().is_err());
    assert_eq!(open(&mut queue, 2).first_sequence, 3);
}

fn refused(code: u32, rows: u64) -> Vec<RefusedRowCount> {
    vec![RefusedRowCount { code, rows }]
}

#[test]
fn rows_refused_one_by_one_are_counted_once_and_not_as_stored() {
    let mut queue = Queue::new(WINDOW);
    let answer = Resumed {
        refused_rows: refused(103, 5),
        ..resumed(P, 0, true)
    };
    queue.push(&readings(), Some((LaneKind::Live, P)), entry(0));
    let (_, events) = queue.on_welcome(&[answer], 16);
    assert!(events.is_empty(), "those are of an earlier run: {events:?}");
    queue.set_online();
    open(&mut queue, 2);
    send_all(&mut queue, 2);
    let rows = queue.lanes[0].entries[0].rows;
    let event = queue.on_ack(P, &readings(), 0, &refused(103, 6)).unwrap();
    let Some(ClientEvent::RowsRefused { rows: new, .. }) = event else {
        panic!("{event:?}")
    };
    assert_eq!(new, refused(103, 1));
    let totals = queue.totals();
    assert_eq!(
        (totals.refused_rows, totals.stored_rows),
        (1, u64::from(rows) - 1)
    );
    // The same counts again, and after a reconnect: nothing new.
    assert_eq!(
        queue.on_ack(P, &readings(), 0, &refused(103, 6)).unwrap(),
        None
    );
    queue.set_offline();
    let answer = Resumed {
        refused_rows: refused(103, 8),
        ..resumed(P, 1, true)
    };
    let (_, events) = queue.on_welcome(&[answer], 16);
    assert!(
        matches!(&events[..], [ClientEvent::RowsRefused { rows, .. }] if *rows == refused(103, 2)),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waited_long_goes_to_the_backlog_and_what_is_new_does_not_wait_behind_it() {
    let mut queue = Queue::new(WINDOW);
    queue.push(
        &readings(),
        None,
        Entry {
            queued: None,
            ..entry(0)
        },
    );
    queue.push(&readings(), None, entry(1));
    tokio::time::advance(Duration::from_secs(31)).await;
    queue.push(&readings(), None, entry(2));
    queue.on_welcome(&[], 16);
    let plans = queue.assign_plans(Instant::now(), Duration::from_secs(30));
    let summary: Vec<_> = plans
        .iter()
        .map(|plan| (plan.key.kind, plan.from_id, plan.to_id))
        .collect();
    assert_eq!(summary, [(LaneKind::Backlog, 0, 2), (LaneKind::Live, 2, 3)]);
    for (plan, producer) in plans.iter().zip([Producer(1), Producer(2)]) {
        queue.assign(&plan.key, producer, 0, plan.from_id, plan.to_id);
    }
    assert!(queue.lanes[0].replayed && !queue.lanes[1].replayed);
    assert_eq!(queue.lanes[0].entries.len(), 2);
    assert_eq!(queue.lanes[1].entries.len(), 1);
}

#[test]
fn another_schema_waits_for_a_quic_stream_of_its_own_until_all_before_it_is_settled() {
    let mut queue = online(1);
    queue.push(
        &readings(),
        Some((LaneKind::Live, P)),
        Entry {
            schema: Bytes::from_static(b"other"),
            ..entry(1)
        },
    );
    open(&mut queue, 2);
    assert_eq!(send_all(&mut queue, 2), [0]);
    assert_eq!(
        queue.poll_open(0, later()),
        OpenStep::Wait(None),
        "batch 0 is not settled"
    );
    queue.on_ack(P, &readings(), 0, &[]).unwrap();
    assert_eq!(open(&mut queue, 6).first_sequence, 1);
}

#[test]
fn after_a_framing_error_the_lane_waits_for_the_reject_and_goes_on_behind_it() {
    let mut queue = online(4);
    open(&mut queue, 2);
    send_all(&mut queue, 2);
    queue.on_stream_closed(closed(2, 1, StreamCloseCode::Framing), Instant::now());
    assert!(matches!(
        queue.poll_open(0, Instant::now()),
        OpenStep::Wait(Some(_))
    ));
    queue.on_ack(P, &readings(), 1, &[]).unwrap();
    assert!(
        matches!(queue.poll_open(0, Instant::now()), OpenStep::Wait(Some(_))),
        "batch 1 was good"
    );
    queue.on_reject(P, &readings(), 2, 1, "unreadable".into());
    queue.on_ack(P, &readings(), 2, &[]).unwrap();
    assert_eq!(open(&mut queue, 6).first_sequence, 3);
}

#[tokio::test(start_paused = true)]
async fn a_retryable_close_waits_as_long_as_the_server_says_and_a_refusal_a_minute() {
    let mut queue = online(2);
    open(&mut queue, 2);
    let close = StreamClosed {
        retry_after: Duration::from_secs(5),
        ..closed(2, 0, StreamCloseCode::StorageFull)
    };
    queue.on_stream_closed(close, Instant::now());
    assert_eq!(
        queue.poll_open(0, Instant::now()),
        OpenStep::Wait(Some(Instant::now() + Duration::from_secs(5)))
    );
    tokio::time::advance(Duration::from_secs(5)).await;
    open(&mut queue, 6);
    let (_, event) =
        queue.on_stream_closed(closed(6, 0, StreamCloseCode::NotAllowed), Instant::now());
    assert!(matches!(event, Some(ClientEvent::StreamRefused { .. })));
    assert!(queue.refused_lane().is_some());
    tokio::time::advance(Duration::from_secs(60)).await;
    open(&mut queue, 10);
    assert!(queue.refused_lane().is_none());
}

#[test]
fn a_close_of_a_quic_stream_of_the_past_changes_nothing() {
    let mut queue = online(2);
    open(&mut queue, 2);
    queue.on_stream_closed(
        closed(99, 0, StreamCloseCode::UnknownProducer),
        Instant::now(),
    );
    assert_eq!(send_all(&mut queue, 2), [0, 1]);
}

#[test]
fn a_batch_that_the_disk_lost_is_settled_as_damaged_and_declared_lost() {
    let mut queue = online(3);
    open(&mut queue, 2);
    send_all(&mut queue, 2);
    queue.on_ack(P, &readings(), 0, &[]).unwrap();
    queue.drop_damaged(0, 1);
    queue.on_broken(0, 2, Instant::now());
    let OpenStep::Open(plan) = queue.poll_open(0, later()) else {
        panic!()
    };
    assert_eq!((plan.first_sequence, plan.lost_before), (2, 2));
    assert_eq!(queue.totals().damaged, 1);
}

#[test]
fn an_idle_lane_gives_its_quic_stream_to_one_that_needs_it() {
    let other = StreamName::new("diagnostics").unwrap();
    let mut queue = Queue::new(WINDOW);
    queue.on_welcome(&[], 1);
    queue.set_online();
    queue.push(&readings(), Some((LaneKind::Live, P)), entry(0));
    assert!(!queue.has_room_for_stream(&other));
    queue.push(&other, Some((LaneKind::Live, Producer(8))), entry(1));
    open(&mut queue, 2);
    send_all(&mut queue, 2);
    assert_eq!(queue.poll_open(1, later()), OpenStep::Wait(None));
    assert_eq!(queue.poll_send(0, 2), SendStep::Finish);
    assert_eq!(
        queue.poll_open(1, later()),
        OpenStep::Wait(None),
        "batch 0 is not settled"
    );
    queue.on_ack(P, &readings(), 0, &[]).unwrap();
    assert!(matches!(queue.poll_open(1, later()), OpenStep::Open(_)));
}

/// What may happen to a lane and its server.
#[derive(Clone, Debug)]
enum Action {
    Push,
    Send,
    /// The server makes so many more batches durable, and says so.
    Ack(u64),
    Reject,
    Close(StreamCloseCode),
    Reconnect,
    /// The server forgets the producer while there is no connection.
    Forget,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let close = prop::sample::select(vec![
        StreamCloseCode::Retry,
        StreamCloseCode::Gap,
        StreamCloseCode::Superseded,
        StreamCloseCode::StorageFull,
    ]);
    let action = prop_oneof![
        4 => Just(Action::Push),
        4 => Just(Action::Send),
        3 => (0_u64..4).prop_map(Action::Ack),
        1 => Just(Action::Reject),
        1 => close.prop_map(Action::Close),
        1 => Just(Action::Reconnect),
        1 => Just(Action::Forget),
    ];
    prop::collection::vec(action, 1..120)
}

/// A server that keeps ids in order, and refuses anything but the next batch or a known one.
#[derive(Default)]
struct NaiveServer {
    producer: Option<Producer>,
    stored: Vec<u64>,
    /// Received on the current QUIC stream and not durable.
    received: Vec<u64>,
    everything: Vec<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_batch_reaches_a_naive_server_exactly_once_in_order_whatever_happens(actions in actions()) {
        let mut queue = online(0);
        let mut server = NaiveServer::default();
        let mut rejected = Vec::new();
        let (mut pushed, mut quic_stream, mut producers) = (0, 2, 100);
        let finish = [Action::Send, Action::Ack(4)].into_iter().cycle().take(400);
        for action in actions.into_iter().chain(finish) {
            match action {
                Action::Push => {
                    let producer = queue.lanes.first().map_or(P, |lane| lane.producer);
                    queue.push(&readings(), Some((LaneKind::Live, producer)), entry(pushed));
                    pushed += 1;
                }
                Action::Send if !queue.lanes.is_empty() => {
                    if let OpenStep::Open(plan) = queue.poll_open(0, later()) {
                        quic_stream += 4;
                        if server.producer != Some(plan.producer) {
                            prop_assert_eq!(plan.first_sequence, 0, "a new producer begins at 0");
                            server.producer = Some(plan.producer);
                            server.stored.clear();
                        }
                        server.received.clear();
                        prop_assert!(plan.first_sequence <= server.stored.len() as u64, "a gap");
                        prop_assert!(queue.on_opened(0, quic_stream, &plan).is_some());
                    }
                    while let SendStep::Send { sequence, id, .. } = queue.poll_send(0, quic_stream) {
                        let known = server.stored.len() + server.received.len();
                        match server.stored.iter().chain(&server.received).nth(sequence as usize) {
                            Some(original) => prop_assert_eq!(*original, id, "a sequence names one batch"),
                            None => {
                                prop_assert_eq!(sequence as usize, known, "dense");
                                server.received.push(id);
                            }
                        }
                    }
                }
                Action::Ack(count) => {
                    let count = (count as usize).min(server.received.len());
                    if count > 0 {
                        for id in server.received.drain(..count) {
                            server.stored.push(id);
                            server.everything.push(id);
                        }
                        let last = server.stored.len() as u64 - 1;
                        queue.on_ack(server.producer.unwrap(), &readings(), last, &[]).unwrap();
                    }
                }
                Action::Reject if !server.received.is_empty() => {
                    let sequence = server.stored.len() as u64;
                    queue.on_reject(server.producer.unwrap(), &readings(), sequence, 1, String::new());
                    let id = server.received.remove(0);
                    server.stored.push(id);
                    server.everything.push(id);
                    rejected.push(id);
                    queue.on_ack(server.producer.unwrap(), &readings(), sequence, &[]).unwrap();
                }
                Action::Close(code) => {
                    queue.on_stream_closed(closed(quic_stream, server.stored.len() as u64, code), Instant::now());
                    server.received.clear();
                }
                Action::Reconnect | Action::Forget => {
                    queue.set_offline();
                    server.received.clear();
                    if matches!(action, Action::Forget) {
                        server.producer = None;
                        server.stored.clear();
                    }
                    let questions = queue.resume_questions(256);
                    let answers: Vec<_> = questions.iter().map(|((producer, _), _)| {
                        let known = server.producer == Some(*producer);
                        resumed(*producer, if known { server.stored.len() as u64 } else { 0 }, known)
                    }).collect();
                    let (plans, _) = queue.on_welcome(&answers, 16);
                    for plan in plans {
                        producers += 1;
                        queue.renumber(&plan.key, Producer(producers), plan.settled_before);
                    }
                    queue.set_online();
                }
                Action::Send | Action::Reject => {}
            }
        }
        prop_assert_eq!(server.everything, (0..pushed).collect::<Vec<_>>());
        prop_assert!(queue.is_settled_below(pushed));
        prop_assert_eq!(queue.memory(), 0);
        prop_assert_eq!(queue.in_flight, Window { bytes: 0, batches: 0 });
        prop_assert_eq!(queue.totals().rejected as usize, rejected.len());
        prop_assert_eq!(queue.totals().stored + queue.totals().rejected, pushed);
    }
}
