//! The sequences of one sender: which batches are accepted into the log's queue, which are
//! durable, which QUIC stream carries each (producer, stream).
//!
//! Accepted runs ahead of durable by what is in the queue. A failed commit group sets it back:
//! what failed was never acknowledged, and will be sent again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quiver_model::{
    Producer, ProducerKind, RefusedRows, RejectCode, SenderKind, Sequence, SessionId, StreamName,
    Timestamp,
};
use quiver_protocol::StreamCloseCode;
use tokio::sync::Notify;

use crate::device::Outbox;

/// Producers remembered per stream of a device; the one used longest ago is forgotten.
const DEVICE_PRODUCERS_MAX: usize = 64;
/// Producers remembered per stream of a gateway or operator.
const GATEWAY_PRODUCERS_MAX: usize = 100_000;
/// Producers remembered of a device for all streams together: it may name streams that never come
/// into being.
const DEVICE_PAIRS_MAX: usize = 2_048;
/// Producers remembered of a gateway or operator for all streams together.
const GATEWAY_PAIRS_MAX: usize = 200_000;
/// A producer that was silent for so long is forgotten.
const PRODUCER_AGE_MAX: Duration = Duration::from_secs(90 * 86_400);
/// Rejects remembered per (producer, stream), to be repeated to a client that resumes.
const RECENT_REJECTS_MAX: usize = 256;

/// Pairs and rejects of a sender that is packed while nothing of it is under way: what it takes to
/// unpack it stays short. Those with more are few.
const PACKED_MAX: usize = 512;

/// What sequences are dense in.
pub type PairKey = (StreamName, Producer);

/// A connection of a sender, as its shard sees it.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    /// Its number.
    pub session: SessionId,
    /// Where its answers go.
    pub outbox: Arc<Outbox>,
}

/// A QUIC stream that carries a (producer, stream).
#[derive(Clone, Debug)]
pub struct LiveStream {
    /// Connection it belongs to.
    pub session: SessionId,
    /// Instance of the sender that connection is of.
    pub instance: u64,
    /// Its id within the connection.
    pub quic_stream: u64,
    /// Ends the task that reads it.
    pub signal: Arc<StopSignal>,
}

impl PartialEq for LiveStream {
    fn eq(&self, other: &Self) -> bool {
        (self.session, self.instance, self.quic_stream)
            == (other.session, other.instance, other.quic_stream)
    }
}

impl Eq for LiveStream {}

impl LiveStream {
    /// Has the task that reads it stop, with this code. What is to be said of it is said
    /// separately.
    pub fn stop(&self, code: StreamCloseCode) {
        self.signal.code.store(code.number(), Ordering::SeqCst);
        self.signal.wake.notify_one();
    }
}

/// Tells the task that reads a QUIC stream to stop.
#[derive(Debug, Default)]
pub struct StopSignal {
    code: AtomicU32,
    wake: Notify,
}

impl StopSignal {
    /// Waits until it is told; the code for STOP_SENDING.
    pub async fn stopped(&self) -> u32 {
        loop {
            let code = self.code.load(Ordering::SeqCst);
            if code != 0 {
                return code;
            }
            self.wake.notified().await;
        }
    }
}

/// A batch that was refused lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentReject {
    /// Its number.
    pub sequence: Sequence,
    /// Why.
    pub code: RejectCode,
    /// What is wrong.
    pub message: String,
}

/// One (producer, stream) of a sender.
#[derive(Clone, Debug)]
pub struct ProducerState {
    /// How it counts.
    pub kind: ProducerKind,
    /// Batches in the log's queue or in the log: the next sequence that is accepted.
    pub accepted: Sequence,
    /// Batches that are durable.
    pub durable: Sequence,
    /// Epoch in which `accepted` was last equal to `durable` or set.
    pub epoch: u64,
    /// Record time of the last use.
    pub last_used: Timestamp,
    /// Latest rejects, oldest first.
    pub rejects: VecDeque<RecentReject>,
    /// Rejects in all.
    pub rejects_total: u64,
    /// Rows refused one by one, in all.
    pub refused_rows: RefusedRows,
    /// The QUIC stream that carries it now, or that has carried what is in flight.
    pub live: Option<LiveStream>,
    /// `live` has ended. It is kept until all it brought is settled, so that the sender is told.
    pub ended: bool,
}

impl ProducerState {
    pub(super) fn new(kind: ProducerKind, now: Timestamp, epoch: u64) -> Self {
        Self {
            kind,
            accepted: Sequence(0),
            durable: Sequence(0),
            epoch,
            last_used: now,
            rejects: VecDeque::new(),
            rejects_total: 0,
            refused_rows: RefusedRows::default(),
            live: None,
            ended: false,
        }
    }

    /// It is dense, and no batch or row of it was ever refused.
    pub(super) fn is_plain(&self) -> bool {
        self.kind == ProducerKind::Dense
            && self.rejects_total == 0
            && self.rejects.is_empty()
            && self.refused_rows.is_empty()
    }

    /// It was opened, and no batch of it ever came.
    fn is_unused(&self) -> bool {
        self.is_idle() && self.durable == Sequence(0)
    }

    /// Nothing of it is under way, and no QUIC stream carries it.
    fn is_idle(&self) -> bool {
        self.live.is_none() && !self.in_flight()
    }

    fn in_flight(&self) -> bool {
        self.accepted != self.durable
    }

    /// Forgets a QUIC stream that has ended and of which all is settled.
    fn release(&mut self) {
        if self.ended && !self.in_flight() {
            self.live = None;
            self.ended = false;
        }
    }
}

/// How a telemetry QUIC stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Batches below this are duplicates; the next new one has this number.
    pub next: Sequence,
    /// Whether the batches below `first_sequence` that never came must be declared lost first.
    pub lost: bool,
    /// The QUIC stream that carried the pair before, to be closed as superseded.
    pub superseded: Option<LiveStream>,
}

/// A telemetry QUIC stream cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRefused {
    /// Why.
    pub code: StreamCloseCode,
    /// Durable batches.
    pub next: Sequence,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// A batch that is not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendRefused {
    /// It is there already, or on its way.
    Duplicate,
    /// Another QUIC stream carries the pair now, or the log took the stream back to an earlier
    /// sequence: this QUIC stream is over.
    StreamOver,
}

/// A sender's producers and connections.
#[derive(Clone, Debug, Default)]
pub struct SenderState {
    /// By stream and producer.
    pub pairs: BTreeMap<PairKey, ProducerState>,
    /// Connections, by instance.
    pub sessions: BTreeMap<u64, SessionHandle>,
    /// Number of the last connection.
    pub last_session: SessionId,
}

/// Producers that can be forgotten, the one used longest ago first.
fn oldest_idle<'a>(
    pairs: impl Iterator<Item = (&'a PairKey, &'a ProducerState)>,
) -> Vec<(Timestamp, PairKey)> {
    let mut idle: Vec<(Timestamp, PairKey)> = pairs
        .filter(|(_, pair)| pair.is_idle())
        .map(|(key, pair)| (pair.last_used, key.clone()))
        .collect();
    idle.sort();
    idle
}

impl SenderState {
    /// A new connection of `instance`; the one it takes over from, if there is one.
    pub fn connect(
        &mut self,
        instance: u64,
        outbox: Arc<Outbox>,
    ) -> (SessionId, Option<SessionHandle>) {
        self.last_session = SessionId(self.last_session.get() + 1);
        let handle = SessionHandle {
            session: self.last_session,
            outbox,
        };
        let replaced = self.sessions.insert(instance, handle);
        (self.last_session, replaced)
    }

    /// A connection has ended.
    pub fn disconnect(&mut self, instance: u64, session: SessionId) {
        if self
            .sessions
            .get(&instance)
            .is_some_and(|handle| handle.session == session)
        {
            self.sessions.remove(&instance);
        }
        self.pairs.retain(|_, pair| {
            let is_its = |live: &LiveStream| live.session == session;
            if !pair.live.as_ref().is_some_and(is_its) {
                return true;
            }
            pair.live = None;
            pair.ended = false;
            !pair.is_unused()
        });
    }

    /// The connection that carries `live`, if it is still the current one of its instance.
    pub fn session_of(&self, live: &LiveStream) -> Option<&SessionHandle> {
        let handle = self.sessions.get(&live.instance)?;
        (handle.session == live.session).then_some(handle)
    }

    /// Whether `session` is the connection of `instance` now.
    pub fn is_current(&self, instance: u64, session: SessionId) -> bool {
        self.sessions
            .get(&instance)
            .is_some_and(|handle| handle.session == session)
    }

    /// A telemetry QUIC stream wants to carry `key` from `first` on.
    pub fn open(
        &mut self,
        key: &PairKey,
        first: Sequence,
        lost_before: Sequence,
        live: LiveStream,
        now: Timestamp,
        epoch: u64,
    ) -> Result<Opened, OpenRefused> {
        let Some(pair) = self.pairs.get_mut(key) else {
            if first > Sequence(0) {
                return Err(OpenRefused {
                    code: StreamCloseCode::UnknownProducer,
                    next: Sequence(0),
                    message: format!(
                        "producer {:016x} is not known for stream {}: number its batches from 0 under a new producer",
                        key.1.get(),
                        key.0
                    ),
                });
            }
            let mut pair = ProducerState::new(ProducerKind::Dense, now, epoch);
            pair.live = Some(live);
            self.pairs.insert(key.clone(), pair);
            return Ok(Opened {
                next: Sequence(0),
                lost: false,
                superseded: None,
            });
        };
        let gap = first > pair.accepted;
        if gap && lost_before < first {
            return Err(OpenRefused {
                code: StreamCloseCode::Gap,
                next: pair.durable,
                message: format!(
                    "batch {} is expected, and first_sequence is {first}: reopen at {}, or declare what is missing lost with lost_before = {first}",
                    pair.accepted, pair.durable
                ),
            });
        }
        if let Some(present) = &pair.live
            && present.session == live.session
            && present.quic_stream > live.quic_stream
        {
            return Err(OpenRefused {
                code: StreamCloseCode::Superseded,
                next: pair.durable,
                message: format!(
                    "QUIC stream {} carries this producer and stream",
                    present.quic_stream
                ),
            });
        }
        let had_ended = std::mem::take(&mut pair.ended);
        let superseded = pair.live.replace(live).filter(|_| !had_ended);
        pair.last_used = now;
        Ok(Opened {
            next: if gap { first } else { pair.accepted },
            lost: gap,
            superseded,
        })
    }

    /// A telemetry QUIC stream has ended. What it brought may still be on its way to the disk.
    pub fn close(&mut self, key: &PairKey, live: &LiveStream) {
        if let Some(pair) = self.pairs.get_mut(key)
            && pair.live.as_ref() == Some(live)
        {
            pair.ended = true;
            pair.release();
            if pair.is_unused() {
                self.pairs.remove(key);
            }
        }
    }

    /// The sender was told how far `key` is settled.
    pub fn release(&mut self, key: &PairKey) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.release();
        }
    }

    /// Whether batch `sequence` may be appended by the QUIC stream `live`; the epoch to append it
    /// under, where `epoch` is the log's now.
    pub fn check(
        &mut self,
        key: &PairKey,
        live: &LiveStream,
        sequence: Sequence,
        epoch: u64,
    ) -> Result<u64, AppendRefused> {
        let Some(pair) = self.pairs.get_mut(key) else {
            return Err(AppendRefused::StreamOver);
        };
        if pair.live.as_ref() != Some(live) {
            return Err(AppendRefused::StreamOver);
        }
        if sequence < pair.accepted {
            return Err(AppendRefused::Duplicate);
        }
        if !pair.in_flight() {
            // Nothing of it was queued under an older epoch, so nothing of it can have failed.
            pair.epoch = epoch;
        }
        Ok(pair.epoch)
    }

    /// Batch `sequence` is in the log's queue; `next` is the sequence after it.
    pub fn accept(&mut self, key: &PairKey, next: Sequence, now: Timestamp) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.accepted = pair.accepted.max(next);
            pair.last_used = now;
        }
    }

    /// A record of the log settles `key` up to `next`.
    pub fn settle(
        &mut self,
        key: &PairKey,
        kind: ProducerKind,
        next: Sequence,
        reject: Option<RecentReject>,
        now: Timestamp,
        epoch: u64,
    ) {
        let pair = self
            .pairs
            .entry(key.clone())
            .or_insert_with(|| ProducerState::new(kind, now, epoch));
        pair.kind = kind;
        pair.durable = pair.durable.max(next);
        pair.accepted = pair.accepted.max(pair.durable);
        pair.last_used = pair.last_used.max(now);
        if let Some(reject) = reject {
            pair.rejects_total += 1;
            if pair.rejects.len() == RECENT_REJECTS_MAX {
                pair.rejects.pop_front();
            }
            pair.rejects.push_back(reject);
        }
    }

    /// A batch of epoch `failed` did not become durable: nothing after it under that epoch did.
    /// Returns the QUIC stream that must be closed and reopened, if one is live.
    pub fn fail(&mut self, key: &PairKey, failed: u64, now_epoch: u64) -> Option<LiveStream> {
        let pair = self.pairs.get_mut(key)?;
        if pair.epoch > failed {
            // It was set back already, and what is accepted now is of a later epoch.
            return None;
        }
        pair.epoch = now_epoch;
        pair.accepted = pair.durable;
        pair.ended = false;
        pair.live.take()
    }

    /// Forgets producers beyond the horizon: of `stream`, and of all streams together. Called when
    /// a producer is added. Returns which were forgotten.
    pub fn evict(&mut self, kind: SenderKind, stream: &StreamName, now: Timestamp) -> Vec<PairKey> {
        let (keep, keep_all) = match kind {
            SenderKind::Device => (DEVICE_PRODUCERS_MAX, DEVICE_PAIRS_MAX),
            SenderKind::Gateway | SenderKind::Operator | SenderKind::Node => {
                (GATEWAY_PRODUCERS_MAX, GATEWAY_PAIRS_MAX)
            }
        };
        let of_stream = (stream.clone(), Producer(0))..=(stream.clone(), Producer(u64::MAX));
        let mut evicted = Vec::new();
        let (mut count, mut is_any_old) = (0, false);
        for (_, pair) in self.pairs.range(of_stream.clone()) {
            count += 1;
            is_any_old |= pair.is_idle() && now.since(pair.last_used) > PRODUCER_AGE_MAX;
        }
        if count > keep || is_any_old {
            let oldest = oldest_idle(self.pairs.range(of_stream));
            self.forget(oldest, count, keep, now, &mut evicted);
        }
        if self.pairs.len() > keep_all {
            let oldest = oldest_idle(self.pairs.iter());
            // Some more than needed, so that this is not done again for the next one.
            let keep_all = keep_all - keep_all / 8;
            self.forget(oldest, self.pairs.len(), keep_all, now, &mut evicted);
        }
        evicted
    }

    fn forget(
        &mut self,
        oldest_first: Vec<(Timestamp, PairKey)>,
        mut count: usize,
        keep: usize,
        now: Timestamp,
        forgotten: &mut Vec<PairKey>,
    ) {
        for (used, key) in oldest_first {
            if count <= keep && now.since(used) <= PRODUCER_AGE_MAX {
                break;
            }
            self.pairs.remove(&key);
            forgotten.push(key);
            count -= 1;
        }
    }

    /// Rows of a settled batch of `key` were refused one by one.
    pub fn count_refused(&mut self, key: &PairKey, rows: impl Iterator<Item = (RejectCode, u64)>) {
        if let Some(pair) = self.pairs.get_mut(key) {
            for (code, rows) in rows {
                pair.refused_rows.add(code, rows);
            }
        }
    }

    /// Whether it may be packed: it is not connected, nothing of it is under way, and it has not
    /// too much for that.
    pub(super) fn is_passive(&self) -> bool {
        self.sessions.is_empty()
            && self.pairs.len() <= PACKED_MAX
            && self.pairs.values().all(ProducerState::is_idle)
            && self
                .pairs
                .values()
                .map(|pair| 1 + pair.rejects.len())
                .sum::<usize>()
                <= PACKED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn key(producer: u64) -> PairKey {
        (StreamName::new("readings").unwrap(), Producer(producer))
    }

    #[test]
    fn what_was_opened_and_never_used_is_forgotten_and_the_rest_is_bounded() {
        let mut state = SenderState::default();
        for number in 0..3_000 {
            let stream = StreamName::new(&format!("invented_{number}")).unwrap();
            let key = (stream.clone(), Producer(7));
            let opened = live(1, number);
            state
                .open(&key, Sequence(0), Sequence(0), opened.clone(), NOW, 0)
                .unwrap();
            if number % 2 == 0 {
                // Refused batches make it durable though the stream never comes into being.
                state.settle(&key, ProducerKind::Dense, Sequence(1), None, NOW, 0);
            }
            state.evict(SenderKind::Device, &stream, NOW);
            state.close(&key, &opened);
        }
        assert_eq!(state.pairs.len(), 1_500);
        for number in 0..1_000 {
            let stream = StreamName::new(&format!("more_{number}")).unwrap();
            let key = (stream.clone(), Producer(7));
            state.settle(&key, ProducerKind::Dense, Sequence(1), None, NOW, 0);
            state.evict(SenderKind::Device, &stream, NOW);
        }
        assert!(state.pairs.len() <= DEVICE_PAIRS_MAX);
    }

    fn live(session: u64, quic_stream: u64) -> LiveStream {
        LiveStream {
            session: SessionId(session),
            instance: 1,
            quic_stream,
            signal: Arc::default(),
        }
    }

    fn open(
        state: &mut SenderState,
        first: u64,
        lost: u64,
        stream: u64,
    ) -> Result<Opened, OpenRefused> {
        state.open(
            &key(7),
            Sequence(first),
            Sequence(lost),
            live(1, stream),
            NOW,
            0,
        )
    }

    fn accept(state: &mut SenderState, from: u64, to: u64) {
        for sequence in from..to {
            state.accept(&key(7), Sequence(sequence + 1), NOW);
        }
    }

    fn settle(state: &mut SenderState, next: u64) {
        state.settle(&key(7), ProducerKind::Dense, Sequence(next), None, NOW, 0);
    }

    #[test]
    fn a_new_producer_begins_at_zero_only() {
        let mut state = SenderState::default();
        assert_eq!(
            open(&mut state, 3, 0, 2).unwrap_err().code,
            StreamCloseCode::UnknownProducer
        );
        assert_eq!(open(&mut state, 0, 0, 2).unwrap().next, Sequence(0));
    }

    #[test]
    fn an_overlap_is_duplicate_and_a_gap_is_closed_unless_declared_lost() {
        let mut state = SenderState::default();
        open(&mut state, 0, 0, 2).unwrap();
        accept(&mut state, 0, 5);
        settle(&mut state, 3);
        let opened = open(&mut state, 1, 0, 6).unwrap();
        assert_eq!(
            (opened.next, opened.superseded),
            (Sequence(5), Some(live(1, 2)))
        );
        assert_eq!(
            state.check(&key(7), &live(1, 6), Sequence(4), 0),
            Err(AppendRefused::Duplicate)
        );
        assert_eq!(
            state.check(&key(7), &live(1, 2), Sequence(5), 0),
            Err(AppendRefused::StreamOver)
        );
        let refused = open(&mut state, 9, 0, 10).unwrap_err();
        assert_eq!(
            (refused.code, refused.next),
            (StreamCloseCode::Gap, Sequence(3))
        );
        let opened = open(&mut state, 9, 9, 10).unwrap();
        assert!(opened.lost && opened.next == Sequence(9));
    }

    #[test]
    fn a_failed_group_sets_accepted_back_once() {
        let mut state = SenderState::default();
        open(&mut state, 0, 0, 2).unwrap();
        accept(&mut state, 0, 5);
        settle(&mut state, 2);
        assert_eq!(state.fail(&key(7), 0, 1), Some(live(1, 2)));
        assert_eq!(state.pairs[&key(7)].accepted, Sequence(2));
        state
            .open(&key(7), Sequence(2), Sequence(0), live(1, 6), NOW, 1)
            .unwrap();
        accept(&mut state, 2, 4);
        assert_eq!(
            state.fail(&key(7), 0, 1),
            None,
            "a late failure of the old epoch"
        );
        assert_eq!(state.pairs[&key(7)].accepted, Sequence(4));
    }

    #[test]
    fn an_older_quic_stream_does_not_supersede_a_newer_one() {
        let mut state = SenderState::default();
        open(&mut state, 0, 0, 6).unwrap();
        assert_eq!(
            open(&mut state, 0, 0, 2).unwrap_err().code,
            StreamCloseCode::Superseded
        );
    }

    #[test]
    fn the_producer_used_longest_ago_is_forgotten_first() {
        let mut state = SenderState::default();
        for producer in 0..80 {
            let now = Timestamp(NOW.0 + producer as i64);
            state.settle(
                &key(producer),
                ProducerKind::Dense,
                Sequence(1),
                None,
                now,
                0,
            );
        }
        let stream = StreamName::new("readings").unwrap();
        assert_eq!(state.evict(SenderKind::Device, &stream, NOW).len(), 16);
        assert!(!state.pairs.contains_key(&key(15)) && state.pairs.contains_key(&key(16)));
        let later = NOW.plus(Duration::from_secs(91 * 86_400));
        assert_eq!(state.evict(SenderKind::Device, &stream, later).len(), 64);
    }

    #[test]
    fn a_session_that_was_replaced_does_not_take_its_successor_with_it() {
        let mut state = SenderState::default();
        let (first, none) = state.connect(1, Arc::default());
        assert!(none.is_none());
        let (second, replaced) = state.connect(1, Arc::default());
        assert_eq!(replaced.unwrap().session, first);
        state.disconnect(1, first);
        assert!(state.is_current(1, second));
    }
}
