use std::sync::Arc;

use proptest::prelude::*;
use quiver_model::{RejectCode, StreamName};

use super::*;
use crate::{
    device::Outbox,
    shard::{LiveStream, RecentReject},
};

/// What senders and ledgers were before they were packed: maps of whole states.
#[derive(Default)]
struct Naive {
    senders: BTreeMap<SenderId, SenderState>,
    ledgers: BTreeMap<SenderId, Ledger>,
}

fn device(index: u8) -> SenderId {
    SenderId::device(DeviceId::new(&format!("device-{index:06}")).unwrap())
}

fn key(stream: u8, producer: u8) -> PairKey {
    let stream = StreamName::new(&format!("stream_{stream}")).unwrap();
    (stream, Producer(u64::from(producer)))
}

fn live(session: SessionId, quic_stream: u64) -> LiveStream {
    LiveStream {
        session,
        instance: 1,
        quic_stream,
        signal: Arc::default(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Connect(u8),
    Disconnect(u8),
    Open(u8, u8, u8, u8),
    Accept(u8, u8, u8),
    Settle {
        device: u8,
        stream: u8,
        producer: u8,
        by: u8,
        reject: bool,
        refused: u8,
        skipping: bool,
    },
    Fail(u8, u8, u8),
    Close(u8, u8, u8),
    Rows(u8, u8),
    Count(u8, u8),
    Pack,
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0_u8..4;
    let stream = 0_u8..2;
    let producer = 0_u8..3;
    let pair = (device.clone(), stream, producer);
    prop_oneof![
        device.clone().prop_map(Step::Connect),
        device.clone().prop_map(Step::Disconnect),
        (pair.clone(), 0_u8..4).prop_map(|((d, s, p), first)| Step::Open(d, s, p, first)),
        pair.clone().prop_map(|(d, s, p)| Step::Accept(d, s, p)),
        (pair.clone(), 0_u8..3, any::<bool>(), 0_u8..3, 0_u8..8).prop_map(
            |((device, stream, producer), by, reject, refused, skipping)| Step::Settle {
                device,
                stream,
                producer,
                by,
                reject,
                refused,
                skipping: skipping == 0,
            }
        ),
        pair.clone().prop_map(|(d, s, p)| Step::Settle {
            device: d,
            stream: s,
            producer: p,
            by: 1,
            reject: false,
            refused: 0,
            skipping: false,
        }),
        pair.clone().prop_map(|(d, s, p)| Step::Fail(d, s, p)),
        pair.prop_map(|(d, s, p)| Step::Close(d, s, p)),
        (device.clone(), 0_u8..5).prop_map(|(d, rows)| Step::Rows(d, rows)),
        (device, 0_u8..5).prop_map(|(d, rows)| Step::Count(d, rows)),
        Just(Step::Pack),
    ]
}

/// Everything of a state that anybody can see; epochs are seen by what fails under them.
fn seen(state: &SenderState) -> String {
    let pairs: Vec<_> = state
        .pairs
        .iter()
        .map(|(key, pair)| {
            (
                key.clone(),
                (pair.kind, pair.accepted, pair.durable, pair.last_used),
                (
                    pair.rejects.clone(),
                    pair.rejects_total,
                    pair.refused_rows.clone(),
                ),
                (
                    pair.live
                        .clone()
                        .map(|live| (live.session, live.quic_stream)),
                    pair.ended,
                ),
            )
        })
        .collect();
    let sessions: Vec<_> = state
        .sessions
        .iter()
        .map(|(instance, handle)| (*instance, handle.session))
        .collect();
    format!("{pairs:?} {sessions:?} {:?}", state.last_session)
}

proptest! {
    #[test]
    fn it_does_what_maps_of_whole_states_did(steps in prop::collection::vec(step(), 0..120)) {
        let mut roster = Roster::default();
        let mut naive = Naive::default();
        let (mut epoch, mut time, mut quic_stream) = (1, 0, 0);
        for step in steps {
            time += 1;
            let now = Timestamp(time);
            // Does the same to both, and compares what it gives.
            macro_rules! both {
                ($device:expr, |$state:ident| $body:expr) => {{
                    let sender = device($device);
                    let one = { let $state = &mut *roster.wake(&sender, epoch); format!("{:?}", $body) };
                    let other = { let $state = naive.senders.entry(sender).or_default(); format!("{:?}", $body) };
                    prop_assert_eq!(one, other);
                }};
            }
            match step {
                Step::Connect(d) => both!(d, |state| {
                    let (session, replaced) = state.connect(1, Arc::new(Outbox::default()));
                    (session, replaced.map(|handle| handle.session))
                }),
                Step::Disconnect(d) => {
                    let sender = device(d);
                    let session = naive.senders.get(&sender).map_or(SessionId(0), |state| state.last_session);
                    if let Some(mut state) = roster.awake(&sender) {
                        state.disconnect(1, session);
                    }
                    if let Some(state) = naive.senders.get_mut(&sender) {
                        state.disconnect(1, session);
                    }
                }
                Step::Open(d, s, p, first) => {
                    quic_stream += 1;
                    let key = key(s, p);
                    both!(d, |state| {
                        let session = state.last_session;
                        // Only who is connected opens QUIC streams.
                        (!state.sessions.is_empty()).then(|| {
                            state.open(&key, Sequence(u64::from(first)), Sequence(0), live(session, quic_stream), now, epoch)
                                .map_err(|refused| (refused.code, refused.next))
                                .map(|opened| (opened.next, opened.lost, opened.superseded.map(|live| live.quic_stream)))
                        })
                    });
                }
                Step::Accept(d, s, p) => {
                    let key = key(s, p);
                    both!(d, |state| {
                        let pair = state.pairs.get(&key).cloned();
                        pair.and_then(|pair| {
                            let live = pair.live.filter(|_| !pair.ended)?;
                            let checked = state.check(&key, &live, pair.accepted, epoch);
                            state.accept(&key, pair.accepted.next(), now);
                            Some(checked)
                        })
                    });
                }
                Step::Settle { device: d, stream, producer, by, reject, refused, skipping } => {
                    let (sender, key) = (device(d), key(stream, producer));
                    let kind = if skipping { ProducerKind::Skipping } else { ProducerKind::Dense };
                    let durable = naive.senders.get(&sender)
                        .and_then(|state| Some(state.pairs.get(&key)?.durable));
                    prop_assert_eq!(roster.durable(&sender, &key), durable);
                    let next = Sequence(durable.unwrap_or_default().get() + u64::from(by));
                    let reject = reject.then(|| RecentReject {
                        sequence: next,
                        code: RejectCode::MalformedBatch,
                        message: format!("refused at {time}"),
                    });
                    let refused = u64::from(refused);
                    let done = reject.is_none() && refused == 0
                        && { let known = roster.known(&sender); roster.settle_resting(known, &key, kind, next, now) };
                    let settle = |state: &mut SenderState| {
                        state.settle(&key, kind, next, reject.clone(), now, epoch);
                        state.count_refused(&key, [(RejectCode::NotEnrolled, refused)].into_iter());
                        state.release(&key);
                    };
                    if !done {
                        settle(&mut roster.wake(&sender, epoch));
                    }
                    settle(naive.senders.entry(sender).or_default());
                    let mut all = roster.sequences_of(SenderKind::Device);
                    let pairs = naive.senders.values().flat_map(|state| &state.pairs);
                    let mut expected: Vec<_> = pairs.map(|(key, pair)| (key.clone(), pair.durable)).collect();
                    all.sort();
                    expected.sort();
                    prop_assert_eq!(all, expected);
                    prop_assert!(roster.sequences_of(SenderKind::Node).is_empty());
                }
                Step::Fail(d, s, p) => {
                    let (sender, key) = (device(d), key(s, p));
                    let in_flight = naive.senders.get(&sender).and_then(|state| {
                        let pair = state.pairs.get(&key)?;
                        (pair.accepted != pair.durable).then_some(pair.epoch)
                    });
                    // The log fails what is in flight, and then tells of each such batch.
                    if let Some(failed) = in_flight {
                        epoch += 1;
                        for _ in 0..2 {
                            let one = roster.awake(&sender).and_then(|mut state| state.fail(&key, failed, epoch));
                            let other = naive.senders.get_mut(&sender).and_then(|state| state.fail(&key, failed, epoch));
                            prop_assert_eq!(one, other);
                            roster.pack_all();
                        }
                    }
                }
                Step::Close(d, s, p) => {
                    let key = key(s, p);
                    both!(d, |state| {
                        let live = state.pairs.get(&key).and_then(|pair| pair.live.clone());
                        live.map(|live| state.close(&key, &live))
                    });
                }
                Step::Rows(d, rows) => {
                    roster.add_stored(device(d).id.as_str(), u64::from(rows));
                    naive.ledgers.entry(device(d)).or_default().stored += u64::from(rows);
                }
                Step::Count(d, rows) => {
                    roster.count(&device(d), |ledger| ledger.quarantined += u64::from(rows));
                    naive.ledgers.entry(device(d)).or_default().quarantined += u64::from(rows);
                }
                Step::Pack => roster.pack_all(),
            }
        }
        prop_assert_eq!(&roster.ledgers(), &naive.ledgers);
        let connected: Vec<_> = roster.connected(None).into_iter()
            .map(|(sender, state)| (sender, seen(state))).collect();
        let expected: Vec<_> = naive.senders.iter()
            .filter(|(_, state)| !state.sessions.is_empty())
            .map(|(sender, state)| (sender.clone(), seen(state))).collect();
        prop_assert_eq!(connected, expected);
        roster.pack_all();
        for (sender, state) in &naive.senders {
            prop_assert_eq!(seen(&roster.wake(sender, epoch)), seen(state));
        }
    }
}

#[test]
fn who_rests_is_packed_and_comes_back_as_it_was() {
    let mut roster = Roster::default();
    let numbers = 0..200_u8;
    for index in numbers.clone() {
        let sender = device(index);
        let (session, _) = roster
            .wake(&sender, 0)
            .connect(1, Arc::new(Outbox::default()));
        let mut state = roster.wake(&sender, 0);
        for producer in 0..=index % 3 {
            let key = key(index % 2, producer);
            state.settle(
                &key,
                ProducerKind::Dense,
                Sequence(9),
                None,
                Timestamp(5),
                0,
            );
        }
        drop(state);
        assert!(roster.look(&sender).is_some());
        roster.awake(&sender).unwrap().disconnect(1, session);
    }
    assert!(roster.live.len() <= RESTING_MAX + 2);
    assert!(roster.connected(None).is_empty());
    roster.pack_all();
    assert_eq!(roster.live.len(), roster.free.len());
    assert_eq!(roster.streams.len(), 2);
    for index in numbers {
        let state = roster.wake(&device(index), 7);
        assert_eq!(state.last_session, SessionId(1));
        assert_eq!(state.pairs.len(), usize::from(index % 3) + 1);
        for pair in state.pairs.values() {
            assert_eq!((pair.durable, pair.accepted), (Sequence(9), Sequence(9)));
            assert_eq!(pair.epoch, 7, "nothing of it failed before now");
        }
    }
}

#[test]
fn a_gateway_with_very_many_producers_is_not_packed_and_unpacked() {
    let mut roster = Roster::default();
    let gateway = device(1);
    let mut state = roster.wake(&gateway, 0);
    for producer in 0..2_000 {
        let key = (StreamName::new("readings").unwrap(), Producer(producer));
        state.settle(
            &key,
            ProducerKind::Dense,
            Sequence(1),
            None,
            Timestamp(1),
            0,
        );
    }
    drop(state);
    assert!(roster.resting.is_empty());
    assert_eq!(roster.look(&gateway).unwrap().pairs.len(), 2_000);
}
