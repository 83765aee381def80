//! Everything that is queued and not settled, without sockets, disks or clocks: which batch has
//! which producer and sequence, what may be written to which QUIC stream next, and what each
//! message of the server settles.
//!
//! ```text
//!              online: assigned at once                       Ack, Welcome
//! push ──┬──────────────────────────────▶ lane (live)    ──▶ settled
//!        └─▶ unassigned ──connected──┬──▶  "   (young)
//!              offline               └──▶ lane (backlog)
//! ```
//!
//! A **lane** is one (producer, stream). A batch gets its sequence in a lane when it may be sent
//! for the first time, not before: so what piled up while offline can still go to the backlog's
//! producer, and live data does not wait behind it. Whoever drives the queue makes that choice
//! durable before calling [`Queue::push`], [`Queue::assign`] or [`Queue::renumber`]; recovery calls
//! the same functions.

mod lane;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use quiver_model::{Producer, RejectCode, Sequence, StreamName};
use quiver_protocol::{ProducerStream, RefusedRowCount, Resumed, StreamCloseCode};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    event::{ClientEvent, Settled, Totals},
    spool::{LaneState, Record, is_spooled},
};
pub(crate) use lane::{Lane, Link};

/// How long a stream that the server refuses is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// How long to wait for the reject of a batch that could not be read, before sending again.
const REJECT_PATIENCE: Duration = Duration::from_secs(30);
/// Least time between two QUIC streams of a lane when the first was closed by the server.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// What a lane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LaneKind {
    Live,
    /// What piled up while there was no connection; marked `replayed`.
    Backlog,
    /// A producer whose batches the caller can make again, such as a file.
    Named(Producer),
}

/// A lane of this client; its producer may change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneKey {
    pub stream: StreamName,
    pub kind: LaneKind,
}

/// Where a batch's bytes lie in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u64,
    pub offset: u64,
    pub length: u32,
    /// CRC-32C of the bytes.
    pub crc: u32,
}

/// A queued batch.
#[derive(Debug)]
pub(crate) struct Entry {
    pub id: u64,
    pub sequence: u64,
    pub rows: u32,
    /// Bytes it takes on the wire.
    pub length: u32,
    pub schema: Bytes,
    /// Where to read it, if it is spooled.
    pub place: Option<Place>,
    /// Its bytes, if they are in memory.
    pub body: Option<Bytes>,
    /// Since when it waits; `None` if it comes from an earlier run.
    pub queued: Option<Instant>,
    pub waiter: Option<oneshot::Sender<Settled>>,
    /// Written to the lane's current QUIC stream.
    pub sent: bool,
}

/// How to open a lane's next QUIC stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenPlan {
    pub stream: StreamName,
    pub producer: Producer,
    pub first_sequence: u64,
    pub lost_before: u64,
    pub replayed: bool,
}

/// Whether a lane wants a QUIC stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OpenStep {
    Open(OpenPlan),
    /// Not before then, or not before something changes.
    Wait(Option<Instant>),
}

/// What to do next on a lane's QUIC stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendStep {
    Send {
        id: u64,
        sequence: u64,
        bytes: Source,
    },
    /// Finish the QUIC stream; the lane opens another one once all on this one is settled.
    Finish,
    /// Nothing before something changes.
    Wait,
    /// The QUIC stream is no longer the lane's.
    Stop,
}

/// Where a batch's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Memory(Bytes),
    Spool(Place),
}

/// A decision that has to be durable before it is carried out by [`Queue::assign`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssignPlan {
    pub key: LaneKey,
    pub from_id: u64,
    pub to_id: u64,
}

/// A lane that needs a new producer, made durable and then carried out by [`Queue::renumber`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenumberPlan {
    pub key: LaneKey,
    pub settled_before: u64,
    pub reason: crate::event::RenumberReason,
}

/// The server closed a telemetry QUIC stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamClosed {
    pub quic_stream: u64,
    pub next_sequence: u64,
    pub code: u32,
    pub retry_after: Duration,
    pub message: String,
}

/// The server said something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server acknowledged batch {sequence} of stream {stream}, which was never sent")]
pub(crate) struct ImpossibleAck {
    stream: StreamName,
    sequence: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    pub lanes: Vec<Lane>,
    unassigned: BTreeMap<StreamName, VecDeque<Entry>>,
    unsettled: BTreeSet<u64>,
    next_id: u64,
    online: bool,
    /// The server has answered once: whatever it refuses from then on is of this run.
    was_welcomed: bool,
    quic_streams_max: usize,
    /// Most bytes and batches that may be sent and unsettled.
    window: Window,
    in_flight: Window,
    /// Bytes of bodies in memory.
    memory: usize,
    /// Unsettled batches of each segment of the spool.
    segments: BTreeMap<u64, u64>,
    totals: Totals,
}

/// An amount of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes, as encoded for the wire.
    pub bytes: usize,
    /// Batches.
    pub batches: usize,
}

impl Queue {
    pub fn new(window: Window) -> Self {
        Self {
            lanes: Vec::new(),
            unassigned: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            next_id: 0,
            online: false,
            was_welcomed: false,
            quic_streams_max: usize::MAX,
            window,
            in_flight: Window {
                bytes: 0,
                batches: 0,
            },
            memory: 0,
            segments: BTreeMap::new(),
            totals: Totals::default(),
        }
    }

    // ---- what may be asked ------------------------------------------------------------------

    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub fn is_online(&self) -> bool {
        self.online
    }

    /// Whether batches wait for a number.
    pub fn has_unassigned(&self) -> bool {
        !self.unassigned.is_empty()
    }

    pub fn unsettled_count(&self) -> usize {
        self.unsettled.len()
    }

    /// Whether every batch with an id below `id` is settled.
    pub fn is_settled_below(&self, id: u64) -> bool {
        self.unsettled.first().is_none_or(|first| *first >= id)
    }

    /// Bytes of bodies in memory.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Whether any batch in this segment of the spool is unsettled.
    pub fn is_segment_live(&self, segment: u64) -> bool {
        self.segments.get(&segment).is_some_and(|count| *count > 0)
    }

    pub fn lane(&self, key: &LaneKey) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.key == *key)
    }

    /// The lane that the server means by this pair.
    pub fn find(&self, producer: Producer, stream: &StreamName) -> Option<usize> {
        self.lanes
            .iter()
            .position(|lane| lane.producer == producer && lane.key.stream == *stream)
    }

    /// Whether one more stream of live data has a QUIC stream to go with.
    pub fn has_room_for_stream(&self, stream: &StreamName) -> bool {
        let live = |lane: &&Lane| lane.key.kind != LaneKind::Backlog;
        self.lanes
            .iter()
            .filter(live)
            .any(|lane| lane.key.stream == *stream)
            || self.lanes.iter().filter(live).count() < self.quic_streams_max
    }

    /// The first lane that the server refuses and that has something queued.
    pub fn refused_lane(&self) -> Option<(&StreamName, u32, &str)> {
        self.lanes.iter().find_map(|lane| match &lane.link {
            Link::Refused { code, message, .. } if !lane.entries.is_empty() => {
                Some((&lane.key.stream, *code, message.as_str()))
            }
            _ => None,
        })
    }

    // ---- what is made durable before --------------------------------------------------------

    /// Continues the ids of an earlier run.
    pub fn raise_next_id(&mut self, next_id: u64) {
        self.next_id = self.next_id.max(next_id);
    }

    /// The lane at `key`; made with `producer` if it is missing.
    pub fn lane_or_new(&mut self, key: &LaneKey, producer: Producer) -> &mut Lane {
        let index = match self.lanes.iter().position(|lane| lane.key == *key) {
            Some(index) => index,
            None => {
                let mut lane = Lane::new(key.clone(), producer);
                if self.online {
                    lane.link = Link::Ready {
                        from: 0,
                        not_before: None,
                    };
                }
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        };
        &mut self.lanes[index]
    }

    /// Queues a batch: in a lane, or unassigned.
    pub fn push(
        &mut self,
        stream: &StreamName,
        lane: Option<(LaneKind, Producer)>,
        mut entry: Entry,
    ) {
        self.next_id = self.next_id.max(entry.id + 1);
        self.unsettled.insert(entry.id);
        self.memory += entry.body.as_ref().map_or(0, Bytes::len);
        if let Some(place) = entry.place {
            *self.segments.entry(place.segment).or_default() += 1;
        }
        match lane {
            None => self
                .unassigned
                .entry(stream.clone())
                .or_default()
                .push_back(entry),
            Some((kind, producer)) => {
                let lane = self.lane_or_new(
                    &LaneKey {
                        stream: stream.clone(),
                        kind,
                    },
                    producer,
                );
                entry.sequence = entry.sequence.max(lane.next_sequence);
                lane.next_sequence = entry.sequence + 1;
                lane.entries.push_back(entry);
            }
        }
    }

    /// Moves unassigned batches of the lane's stream with ids in `from_id..to_id` into the lane.
    pub fn assign(
        &mut self,
        key: &LaneKey,
        producer: Producer,
        first_sequence: u64,
        from_id: u64,
        to_id: u64,
    ) {
        let waiting = self.unassigned.remove(&key.stream).unwrap_or_default();
        let (moved, rest): (VecDeque<_>, VecDeque<_>) = waiting
            .into_iter()
            .partition(|entry| (from_id..to_id).contains(&entry.id));
        if !rest.is_empty() {
            self.unassigned.insert(key.stream.clone(), rest);
        }
        let lane = self.lane_or_new(key, producer);
        lane.next_sequence = lane.next_sequence.max(first_sequence);
        for mut entry in moved {
            entry.sequence = lane.next_sequence;
            lane.next_sequence += 1;
            lane.entries.push_back(entry);
        }
    }

    /// Settles a lane through `settled_before`, and numbers the rest from 0 under a new producer.
    pub fn renumber(&mut self, key: &LaneKey, producer: Producer, settled_before: u64) {
        let Some(index) = self.lanes.iter().position(|lane| lane.key == *key) else {
            return;
        };
        self.settle(index, settled_before, None);
        self.unsend(index);
        let online = self.online;
        let lane = &mut self.lanes[index];
        lane.producer = producer;
        lane.rejects.clear();
        lane.refused_rows.clear();
        for (sequence, entry) in (0..).zip(&mut lane.entries) {
            entry.sequence = sequence;
        }
        lane.next_sequence = lane.entries.len() as u64;
        lane.settled_before = 0;
        let online = online || lane.link != Link::Detached;
        lane.link = if online {
            Link::Ready {
                from: 0,
                not_before: None,
            }
        } else {
            Link::Detached
        };
    }

    /// What a segment of the spool begins with.
    pub fn state_record(&self, instance: u64) -> Record {
        let lanes = self
            .lanes
            .iter()
            .filter(|lane| is_spooled(&lane.key))
            .map(|lane| LaneState {
                key: lane.key.clone(),
                producer: lane.producer,
                next: lane.next_sequence,
                settled_before: lane.settled_before,
            });
        Record::State {
            instance,
            next_id: self.next_id,
            lanes: lanes.collect(),
        }
    }

    /// A lane as an earlier run left it.
    pub fn restore_lane(&mut self, state: &LaneState) {
        let lane = self.lane_or_new(&state.key, state.producer);
        if lane.producer != state.producer {
            // The record that says so was lost with a damaged part of the spool.
            let settled_before = lane.settled_before;
            self.renumber(&state.key, state.producer, settled_before);
        }
        self.restore_settled(&state.key, state.settled_before);
        let lane = self.lane_or_new(&state.key, state.producer);
        lane.next_sequence = lane.next_sequence.max(state.next);
    }

    /// What an earlier run knew to be settled; it is not counted again.
    pub fn restore_settled(&mut self, key: &LaneKey, settled_before: u64) {
        if let Some(index) = self.lanes.iter().position(|lane| lane.key == *key) {
            let totals = self.totals;
            self.settle(index, settled_before, None);
            self.totals = totals;
        }
    }

    // ---- settling ---------------------------------------------------------------------------

    /// Settles the lane's batches below `before`. Those from `unreported_from` on without a known
    /// reject may have been rejected too.
    pub fn settle(&mut self, index: usize, before: u64, unreported_from: Option<u64>) {
        let lane = &mut self.lanes[index];
        while lane
            .entries
            .front()
            .is_some_and(|entry| entry.sequence < before)
        {
            let Some(entry) = lane.entries.pop_front() else {
                break;
            };
            let rows = u64::from(entry.rows);
            let outcome = match lane.rejects.remove(&entry.sequence) {
                Some((number, message)) => {
                    lane.last_rejected = Some(entry.sequence);
                    self.totals.rejected += 1;
                    self.totals.rejected_rows += rows;
                    let code = u16::try_from(number).ok().and_then(RejectCode::from_number);
                    Settled::Rejected {
                        code,
                        number,
                        message,
                    }
                }
                None if unreported_from.is_some_and(|from| entry.sequence >= from) => {
                    self.totals.unreported += 1;
                    self.totals.unreported_rows += rows;
                    Settled::Unreported
                }
                None => {
                    self.totals.stored += 1;
                    self.totals.stored_rows += rows;
                    Settled::Stored
                }
            };
            Self::release(
                &mut self.unsettled,
                &mut self.memory,
                &mut self.in_flight,
                &mut self.segments,
                entry,
                outcome,
            );
        }
        lane.settled_before = lane.settled_before.max(before);
        lane.next_sequence = lane.next_sequence.max(before);
        lane.rejects = lane.rejects.split_off(&lane.settled_before);
        lane.on_settled();
    }

    fn release(
        unsettled: &mut BTreeSet<u64>,
        memory: &mut usize,
        in_flight: &mut Window,
        segments: &mut BTreeMap<u64, u64>,
        entry: Entry,
        outcome: Settled,
    ) {
        unsettled.remove(&entry.id);
        *memory -= entry.body.as_ref().map_or(0, Bytes::len);
        if entry.sent {
            in_flight.bytes -= entry.length as usize;
            in_flight.batches -= 1;
        }
        if let Some(place) = entry.place
            && let Some(count) = segments.get_mut(&place.segment)
        {
            *count -= 1;
            if *count == 0 {
                segments.remove(&place.segment);
            }
        }
        if let Some(waiter) = entry.waiter {
            // Nobody has to wait.
            let _nobody_waits = waiter.send(outcome);
        }
    }

    /// The spool's disk lost a batch: it leaves a hole, which the lane declares lost.
    pub fn drop_damaged(&mut self, index: usize, sequence: u64) {
        let lane = &mut self.lanes[index];
        let at = lane
            .entries
            .partition_point(|entry| entry.sequence < sequence);
        if lane
            .entries
            .get(at)
            .is_some_and(|entry| entry.sequence == sequence)
            && let Some(entry) = lane.entries.remove(at)
        {
            self.totals.damaged += 1;
            Self::release(
                &mut self.unsettled,
                &mut self.memory,
                &mut self.in_flight,
                &mut self.segments,
                entry,
                Settled::Damaged,
            );
        }
    }

    /// `Ack`: everything up to `sequence` is settled. Pairs of the past are ignored. What was newly
    /// refused of its rows comes as an event.
    pub fn on_ack(
        &mut self,
        producer: Producer,
        stream: &StreamName,
        sequence: u64,
        refused_rows: &[RefusedRowCount],
    ) -> Result<Option<ClientEvent>, ImpossibleAck> {
        let Some(index) = self.find(producer, stream) else {
            return Ok(None);
        };
        let lane = &self.lanes[index];
        if sequence >= lane.next_sequence {
            return Err(ImpossibleAck {
                stream: lane.key.stream.clone(),
                sequence,
            });
        }
        self.settle(index, sequence + 1, None);
        Ok(self.note_refused_rows(index, refused_rows))
    }

    /// Takes the server's counts of rows that it refused one by one, which are of all times, and
    /// says what is new in them.
    fn note_refused_rows(
        &mut self,
        index: usize,
        counts: &[RefusedRowCount],
    ) -> Option<ClientEvent> {
        let lane = &mut self.lanes[index];
        let mut new = Vec::new();
        for count in counts {
            let known = lane.refused_rows.entry(count.code).or_default();
            let rows = count.rows.saturating_sub(*known);
            *known += rows;
            if rows > 0 {
                new.push(RefusedRowCount { rows, ..*count });
            }
        }
        if new.is_empty() {
            return None;
        }
        let rows = new.iter().map(|count| count.rows).sum::<u64>();
        self.totals.refused_rows += rows;
        self.totals.stored_rows = self.totals.stored_rows.saturating_sub(rows);
        Some(ClientEvent::RowsRefused {
            stream: lane.key.stream.clone(),
            producer: lane.producer,
            rows: new,
        })
    }

    /// `Reject`: the batch will never be stored. It is settled by the `Ack` that passes it.
    pub fn on_reject(
        &mut self,
        producer: Producer,
        stream: &StreamName,
        sequence: u64,
        code: u32,
        message: String,
    ) -> Option<ClientEvent> {
        let index = self.find(producer, stream)?;
        self.note_reject(index, sequence, code, message)
    }

    fn note_reject(
        &mut self,
        index: usize,
        sequence: u64,
        code: u32,
        message: String,
    ) -> Option<ClientEvent> {
        let lane = &mut self.lanes[index];
        // A named producer's earlier run may have sent what this one has not.
        let is_known = sequence < lane.next_sequence || matches!(lane.key.kind, LaneKind::Named(_));
        if sequence < lane.settled_before || !is_known || lane.rejects.contains_key(&sequence) {
            return None;
        }
        lane.rejects.insert(sequence, (code, message.clone()));
        Some(ClientEvent::Rejected {
            stream: lane.key.stream.clone(),
            producer: lane.producer,
            sequence: Sequence(sequence),
            number: code,
            message,
        })
    }

    // ---- connecting -------------------------------------------------------------------------

    /// The pairs to ask the server about, those with something queued first.
    pub fn resume_questions(&self, count_max: usize) -> Vec<(ProducerStream, Sequence)> {
        let mut lanes: Vec<&Lane> = self.lanes.iter().collect();
        lanes.sort_by_key(|lane| {
            lane.entries.is_empty() && !matches!(lane.key.kind, LaneKind::Named(_))
        });
        lanes
            .into_iter()
            .take(count_max)
            .map(|lane| {
                (
                    (lane.producer, lane.key.stream.clone()),
                    Sequence(lane.settled_before),
                )
            })
            .collect()
    }

    /// `Welcome`: settles what the server has, and says which lanes need a new producer. Lanes
    /// that were not asked about go on where this client believes they are.
    pub fn on_welcome(
        &mut self,
        resume: &[Resumed],
        quic_streams_max: usize,
    ) -> (Vec<RenumberPlan>, Vec<ClientEvent>) {
        use crate::event::RenumberReason::{ServerAhead, UnknownToServer};

        self.quic_streams_max = quic_streams_max.max(1);
        let (mut plans, mut events) = (Vec::new(), Vec::new());
        for lane in &mut self.lanes {
            lane.link = Link::Ready {
                from: lane.settled_before,
                not_before: None,
            };
        }
        for answer in resume {
            let Some(index) = self.find(answer.producer, &answer.stream) else {
                continue;
            };
            let is_named = matches!(self.lanes[index].key.kind, LaneKind::Named(_));
            let next = answer.next_sequence.get();
            for reject in &answer.rejects {
                events.extend(self.note_reject(
                    index,
                    reject.sequence.get(),
                    reject.code,
                    reject.message.clone(),
                ));
            }
            let unlisted = answer
                .rejects_total
                .saturating_sub(answer.rejects.len() as u64);
            let unreported_from = (unlisted > 0).then(|| {
                answer
                    .rejects
                    .last()
                    .map_or(0, |reject| reject.sequence.get() + 1)
            });
            let lane = &self.lanes[index];
            let stream = lane.key.stream.clone();
            if unlisted > 0 {
                events.push(ClientEvent::RejectsUnlisted {
                    stream: stream.clone(),
                    count: unlisted,
                });
            }
            let is_ahead = next > lane.next_sequence && !(is_named && lane.next_sequence == 0);
            let is_forgotten = !answer.known && (lane.settled_before > 0);
            if is_named && (is_ahead || is_forgotten || next < lane.settled_before) {
                self.lanes[index].link = Link::Refused {
                    code: StreamCloseCode::UnknownProducer.number(),
                    message: format!(
                        "the server's record of this producer changed (it expects batch {next}); start again"
                    ),
                    from: next,
                    not_before: None,
                };
            } else if is_ahead {
                let settled_before = lane.next_sequence;
                self.settle(index, settled_before, unreported_from);
                self.lanes[index].link = Link::Renumbering;
                plans.push(RenumberPlan {
                    key: self.lanes[index].key.clone(),
                    settled_before,
                    reason: ServerAhead,
                });
            } else if is_forgotten {
                let settled_before = lane.settled_before;
                self.lanes[index].link = Link::Renumbering;
                plans.push(RenumberPlan {
                    key: self.lanes[index].key.clone(),
                    settled_before,
                    reason: UnknownToServer,
                });
            } else {
                if next < lane.settled_before {
                    let (from, to) = (Sequence(next), Sequence(lane.settled_before));
                    events.push(ClientEvent::LostByServer { stream, from, to });
                }
                self.settle(index, next, unreported_from);
                self.lanes[index].link = Link::Ready {
                    from: next,
                    not_before: None,
                };
                self.lanes[index].is_resumed = true;
                if self.was_welcomed {
                    events.extend(self.note_refused_rows(index, &answer.refused_rows));
                } else {
                    // What was refused before this run, it has been told or cannot be.
                    let counts = answer.refused_rows.iter();
                    self.lanes[index].refused_rows =
                        counts.map(|count| (count.code, count.rows)).collect();
                }
            }
        }
        self.was_welcomed = true;
        (plans, events)
    }

    /// What to do with the batches that no lane has: those that wait longer than `backlog_after`
    /// are a backlog.
    pub fn assign_plans(&self, now: Instant, backlog_after: Duration) -> Vec<AssignPlan> {
        let is_old = |entry: &Entry| {
            entry
                .queued
                .is_none_or(|queued| now.saturating_duration_since(queued) > backlog_after)
        };
        let mut plans = Vec::new();
        for (stream, entries) in &self.unassigned {
            let old = entries.iter().take_while(|entry| is_old(entry)).count();
            let edge = |at: usize| entries.get(at).map(|entry| entry.id);
            let end = entries.back().map_or(0, |entry| entry.id + 1);
            let Some(first) = edge(0) else { continue };
            let boundary = edge(old).unwrap_or(end);
            for (kind, from_id, to_id) in [
                (LaneKind::Backlog, first, boundary),
                (LaneKind::Live, boundary, end),
            ] {
                if from_id < to_id {
                    plans.push(AssignPlan {
                        key: LaneKey {
                            stream: stream.clone(),
                            kind,
                        },
                        from_id,
                        to_id,
                    });
                }
            }
        }
        plans
    }

    /// From now on batches get a sequence as they come.
    pub fn set_online(&mut self) {
        self.online = true;
        for lane in &mut self.lanes {
            if lane.link == Link::Detached {
                lane.link = Link::Ready {
                    from: lane.settled_before,
                    not_before: None,
                };
            }
        }
    }

    /// The connection is gone: nothing is in flight any more.
    pub fn set_offline(&mut self) {
        self.online = false;
        for index in 0..self.lanes.len() {
            self.unsend(index);
            let lane = &mut self.lanes[index];
            if !(matches!(lane.key.kind, LaneKind::Named(_))
                && matches!(lane.link, Link::Refused { .. }))
            {
                lane.link = Link::Detached;
            }
        }
    }

    fn unsend(&mut self, index: usize) {
        for entry in &mut self.lanes[index].entries {
            if std::mem::take(&mut entry.sent) {
                self.in_flight.bytes -= entry.length as usize;
                self.in_flight.batches -= 1;
            }
        }
    }

    // ---- sending ----------------------------------------------------------------------------

    fn open_count(&self) -> usize {
        self.lanes
            .iter()
            .filter(|lane| lane.link.holds_quic_stream())
            .count()
    }

    /// Whether the lane wants a QUIC stream now.
    pub fn poll_open(&mut self, index: usize, now: Instant) -> OpenStep {
        let has_slot = self.open_count() < self.quic_streams_max;
        let step = self.lanes[index].poll_open(now);
        match step {
            OpenStep::Open(_) if !has_slot => {
                self.lanes[index].wants_slot = true;
                OpenStep::Wait(None)
            }
            step => {
                self.lanes[index].wants_slot = false;
                step
            }
        }
    }

    /// The QUIC stream of a plan is open. Returns the schema to begin it with, or `None` if the
    /// plan is no longer good.
    pub fn on_opened(&mut self, index: usize, quic_stream: u64, plan: &OpenPlan) -> Option<Bytes> {
        let lane = &mut self.lanes[index];
        let is_ready = matches!(lane.link, Link::Ready { .. } | Link::Refused { .. });
        if !is_ready || lane.producer != plan.producer {
            return None;
        }
        let schema = lane.first_from(plan.first_sequence)?.schema.clone();
        lane.link = Link::Open {
            quic_stream,
            schema: schema.clone(),
            first: plan.first_sequence,
            next: plan.first_sequence,
        };
        Some(schema)
    }

    /// What to write next on the lane's QUIC stream.
    pub fn poll_send(&mut self, index: usize, quic_stream: u64) -> SendStep {
        let slot_wanted = self.lanes.iter().any(|lane| lane.wants_slot);
        let lane = &mut self.lanes[index];
        let is_backlog = lane.key.kind == LaneKind::Backlog;
        let Link::Open {
            quic_stream: current,
            schema,
            next,
            ..
        } = &mut lane.link
        else {
            return SendStep::Stop;
        };
        if *current != quic_stream {
            return SendStep::Stop;
        }
        let at = lane.entries.partition_point(|entry| entry.sequence < *next);
        let Some(entry) = lane.entries.get_mut(at) else {
            // A backlog gives its QUIC stream back, and an idle lane one that another waits for.
            if is_backlog || slot_wanted {
                lane.start_draining();
                return SendStep::Finish;
            }
            return SendStep::Wait;
        };
        if entry.sequence > *next || entry.schema != *schema {
            lane.start_draining();
            return SendStep::Finish;
        }
        let length = entry.length as usize;
        let is_full = self.in_flight.batches > 0
            && (self.in_flight.batches >= self.window.batches
                || self.in_flight.bytes + length > self.window.bytes);
        if is_full {
            return SendStep::Wait;
        }
        let bytes = match (&entry.body, entry.place) {
            (Some(body), _) => Source::Memory(body.clone()),
            (None, Some(place)) => Source::Spool(place),
            // Neither in memory nor spooled: cannot be, and must not stop the others.
            (None, None) => Source::Memory(Bytes::new()),
        };
        entry.sent = true;
        self.in_flight.bytes += length;
        self.in_flight.batches += 1;
        *next = entry.sequence + 1;
        let (id, sequence) = (entry.id, entry.sequence);
        if entry.place.is_some()
            && let Some(body) = entry.body.take()
        {
            self.memory -= body.len();
        }
        SendStep::Send {
            id,
            sequence,
            bytes,
        }
    }

    /// The lane's QUIC stream ended without a word from the server on why, or never got going.
    pub fn on_broken(&mut self, index: usize, quic_stream: u64, now: Instant) {
        let lane = &self.lanes[index];
        if lane.link.quic_stream() == Some(quic_stream) {
            let link = Link::Ready {
                from: lane.settled_before,
                not_before: Some(now + REOPEN_PAUSE),
            };
            self.unsend(index);
            self.lanes[index].link = link;
        }
    }

    /// `StreamClosed`: when and where the lane goes on, or that it needs a new producer.
    pub fn on_stream_closed(
        &mut self,
        closed: StreamClosed,
        now: Instant,
    ) -> (Option<RenumberPlan>, Option<ClientEvent>) {
        let by_id = |lane: &Lane| lane.link.quic_stream() == Some(closed.quic_stream);
        let Some(index) = self.lanes.iter().position(by_id) else {
            return (None, None);
        };
        self.unsend(index);
        let lane = &mut self.lanes[index];
        let stream = lane.key.stream.clone();
        let is_named = matches!(lane.key.kind, LaneKind::Named(_));
        let (from, message) = (closed.next_sequence, closed.message);
        let attempted = lane.link.first();
        let retry_after = closed.retry_after.max(REOPEN_PAUSE);
        let code = StreamCloseCode::from_number(closed.code);
        let refuse = || Link::Refused {
            code: closed.code,
            message: message.clone(),
            from,
            not_before: Some(now + REFUSED_PAUSE),
        };
        let ready = |pause: Option<Duration>| Link::Ready {
            from,
            not_before: pause.map(|pause| now + pause),
        };
        let mut event = None;
        match code {
            Some(StreamCloseCode::Gap) => {
                if from < lane.settled_before {
                    if is_named {
                        lane.link = Link::Refused {
                            code: closed.code,
                            message: format!(
                                "the server expects batch {from} again, which it had acknowledged; start again"
                            ),
                            from,
                            not_before: None,
                        };
                        return (
                            None,
                            Some(ClientEvent::StreamRefused {
                                stream,
                                code: closed.code,
                                message,
                            }),
                        );
                    }
                    event = Some(ClientEvent::LostByServer {
                        stream,
                        from: Sequence(from),
                        to: lane
                            .entries
                            .front()
                            .map_or(Sequence(lane.next_sequence), |entry| {
                                Sequence(entry.sequence)
                            }),
                    });
                }
                // The same question would get the same answer: ask it slowly.
                lane.link = ready((attempted == Some(from)).then_some(Duration::from_secs(1)));
            }
            Some(StreamCloseCode::UnknownProducer) if !is_named => {
                let (key, settled_before) = (lane.key.clone(), lane.settled_before);
                lane.link = Link::Renumbering;
                let reason = crate::event::RenumberReason::UnknownToServer;
                return (
                    Some(RenumberPlan {
                        key,
                        settled_before,
                        reason,
                    }),
                    None,
                );
            }
            Some(StreamCloseCode::Framing | StreamCloseCode::TooLarge) => {
                // The broken batch is the last one the server counts, if its reject came before.
                let is_told = from.checked_sub(1).is_some_and(|last| {
                    lane.last_rejected == Some(last) || lane.rejects.contains_key(&last)
                });
                lane.link = if is_told {
                    ready(Some(REOPEN_PAUSE))
                } else {
                    Link::AwaitingReject {
                        from,
                        not_after: now + REJECT_PATIENCE,
                    }
                };
                event = Some(ClientEvent::StreamPaused {
                    stream,
                    code: closed.code,
                    message,
                });
            }
            Some(StreamCloseCode::Superseded) => {
                lane.link = ready(Some(Duration::from_secs(5)));
                event = Some(ClientEvent::StreamPaused {
                    stream,
                    code: closed.code,
                    message,
                });
            }
            Some(code) if code.is_retryable() => {
                lane.link = ready(Some(retry_after));
                event = Some(ClientEvent::StreamPaused {
                    stream,
                    code: closed.code,
                    message,
                });
            }
            None if closed.code >= StreamCloseCode::RETRYABLE_FROM => {
                lane.link = ready(Some(retry_after));
                event = Some(ClientEvent::StreamPaused {
                    stream,
                    code: closed.code,
                    message,
                });
            }
            Some(_) | None => {
                lane.link = refuse();
                event = Some(ClientEvent::StreamRefused {
                    stream,
                    code: closed.code,
                    message,
                });
            }
        }
        (None, event)
    }
}
