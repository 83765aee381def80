//! The books of one source: what is due, what is on its way, what the server has settled. No I/O,
//! no clock: the tasks around it do both.
//!
//! ```text
//! due ─▶ queue ─build─▶ inflight ─settle─▶ recorded
//!                         ▲   cursor: the next one to write on the present QUIC stream
//! ```
//!
//! Promises: a sequence names the same bytes for as long as the producer lives; a batch is settled
//! once, however often it was sent; what was due is either settled or still here at the end.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use quiver_model::{Producer, Sequence, StreamName};
use quiver_protocol::ProducerStream;

/// Settled batches that are kept, to be sent again as duplicates.
const KEPT: usize = 4;

/// A batch that was made.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub bytes: Bytes,
    pub rows: u64,
    pub points: u64,
    /// Rows by device.
    pub devices: Vec<(u32, u32)>,
    /// When its arrivals were due, from the start of the load.
    pub due: Vec<Duration>,
    /// Whether the server refused it.
    pub rejected: bool,
}

/// The books.
#[derive(Debug)]
pub(crate) struct Lane {
    pub stream: StreamName,
    pub producer: Producer,
    /// Arrivals that wait to be made into batches.
    pub queue: VecDeque<Duration>,
    /// Unsettled, from sequence `base` on.
    inflight: VecDeque<Batch>,
    base: u64,
    /// The last that were settled, ending before `base`.
    kept: VecDeque<Bytes>,
    keeps: bool,
    cursor: u64,
    /// Before this sequence everything was written once.
    written: u64,
    /// Rises when the present QUIC stream must be left for another.
    generation: u64,
    /// The QUIC stream that is written, and how long to wait before the next.
    pub quic_stream: Option<u64>,
    pub pause: Duration,
    /// The server will not have this stream; nothing more is sent.
    pub refused: bool,
}

/// A batch to write.
#[derive(Debug)]
pub(crate) struct ToWrite {
    pub bytes: Bytes,
    /// When its first arrival was due; `None` if it was written before.
    pub first_due: Option<Duration>,
}

impl Lane {
    /// New books; with `keeps`, settled batches are kept for duplicates.
    pub(crate) fn new(stream: StreamName, producer: Producer, keeps: bool) -> Self {
        Self {
            stream,
            producer,
            queue: VecDeque::new(),
            inflight: VecDeque::new(),
            base: 0,
            kept: VecDeque::new(),
            keeps,
            cursor: 0,
            written: 0,
            generation: 0,
            quic_stream: None,
            pause: Duration::ZERO,
            refused: false,
        }
    }

    fn next(&self) -> u64 {
        self.base + self.inflight.len() as u64
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.inflight.len()
    }

    /// Whether nothing is due and nothing under way.
    pub(crate) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.inflight.is_empty()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The pair as `Hello` names it, if there is anything to resume.
    pub(crate) fn last_ack(&self) -> Option<(ProducerStream, Sequence)> {
        let pair = (self.producer, self.stream.clone());
        (self.written > 0).then_some((pair, Sequence(self.base)))
    }

    pub(crate) fn push(&mut self, batch: Batch) {
        self.inflight.push_back(batch);
    }

    /// The next batch to write, if any is left.
    pub(crate) fn next_to_write(&mut self) -> Option<ToWrite> {
        let at = self.cursor;
        if at >= self.next() {
            return None;
        }
        let (bytes, due) = if at < self.base {
            let back = usize::try_from(self.base - at).ok()?;
            let index = self.kept.len().checked_sub(back)?;
            (self.kept.get(index)?.clone(), None)
        } else {
            let batch = self.inflight.get(usize::try_from(at - self.base).ok()?)?;
            (batch.bytes.clone(), batch.due.first().copied())
        };
        let first_due = if at >= self.written { due } else { None };
        self.cursor = at + 1;
        self.written = self.written.max(self.cursor);
        Some(ToWrite { bytes, first_due })
    }

    /// Whether there is a batch that the present QUIC stream has not had.
    pub(crate) fn has_to_write(&self) -> bool {
        self.cursor < self.next()
    }

    /// The sequence from which a new QUIC stream begins.
    pub(crate) fn open(&mut self) -> Sequence {
        Sequence(self.cursor)
    }

    /// Leaves the present QUIC stream; the next begins with what is not settled.
    pub(crate) fn reopen(&mut self) {
        self.cursor = self.base;
        self.quic_stream = None;
        self.generation += 1;
    }

    /// Leaves the present QUIC stream; the next begins with batches that were settled already.
    pub(crate) fn repeat(&mut self) {
        self.reopen();
        self.cursor = self.base - self.kept.len() as u64;
    }

    /// How many batches a repetition would send again.
    pub(crate) const fn repetition() -> usize {
        KEPT
    }

    /// Everything before `next` is settled; what was not before, oldest first.
    pub(crate) fn settle(&mut self, next: u64) -> Vec<Batch> {
        let mut settled = Vec::new();
        while self.base < next {
            let Some(batch) = self.inflight.pop_front() else {
                break;
            };
            self.base += 1;
            if self.keeps {
                self.kept.push_back(batch.bytes.clone());
                if self.kept.len() > KEPT {
                    self.kept.pop_front();
                }
            }
            settled.push(batch);
        }
        if self.cursor < self.base && self.kept.len() < (self.base - self.cursor) as usize {
            // What a repetition had still to send is kept no more.
            self.cursor = self.base - self.kept.len() as u64;
            self.generation += 1;
            self.quic_stream = None;
        }
        settled
    }

    /// The server refused a batch.
    pub(crate) fn reject(&mut self, sequence: u64) {
        let index = sequence
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(batch) = index.and_then(|index| self.inflight.get_mut(index)) {
            batch.rejected = true;
        }
    }

    /// The server does not know the producer: everything unsettled is numbered anew.
    pub(crate) fn renumber(&mut self, producer: Producer) {
        self.producer = producer;
        self.base = 0;
        self.written = 0;
        self.kept.clear();
        self.reopen();
    }

    /// What is left at the end: unsettled batches and arrivals that were never sent.
    pub(crate) fn remains(&self) -> (impl Iterator<Item = &Batch>, &VecDeque<Duration>) {
        (self.inflight.iter(), &self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        let mut lane = Lane::new(StreamName::new("s").unwrap(), Producer(1), true);
        for index in 0..6_u8 {
            lane.push(Batch {
                bytes: Bytes::from(vec![index]),
                rows: 1,
                points: 1,
                devices: vec![(0, 1)],
                due: vec![Duration::from_secs(u64::from(index))],
                rejected: false,
            });
        }
        lane
    }

    fn written(lane: &mut Lane) -> Vec<(u8, bool)> {
        let mut out = Vec::new();
        while let Some(next) = lane.next_to_write() {
            out.push((next.bytes[0], next.first_due.is_some()));
        }
        out
    }

    #[test]
    fn a_reopened_stream_begins_with_what_is_not_settled() {
        let mut lane = lane();
        assert_eq!(lane.last_ack(), None);
        assert_eq!(written(&mut lane).len(), 6);
        assert_eq!(lane.settle(4).len(), 4);
        assert_eq!(lane.settle(4).len(), 0, "settled once");
        lane.reopen();
        assert_eq!(lane.open(), Sequence(4));
        assert_eq!(written(&mut lane), [(4, false), (5, false)]);
        assert_eq!(lane.last_ack().unwrap().1, Sequence(4));
        lane.settle(6);
        assert!(lane.is_done());
    }

    #[test]
    fn a_repetition_sends_settled_batches_again_under_their_sequences() {
        let mut lane = lane();
        written(&mut lane);
        lane.settle(5);
        lane.repeat();
        assert_eq!(lane.open(), Sequence(1));
        assert_eq!(
            written(&mut lane),
            [(1, false), (2, false), (3, false), (4, false), (5, false)]
        );
    }

    #[test]
    fn an_unknown_producer_numbers_anew_and_loses_nothing() {
        let mut lane = lane();
        written(&mut lane);
        lane.settle(2);
        lane.renumber(Producer(2));
        assert_eq!(lane.open(), Sequence(0));
        assert_eq!(written(&mut lane).len(), 4);
        assert_eq!(lane.settle(4).len(), 4);
    }

    #[test]
    fn a_repetition_that_falls_behind_does_not_send_what_it_lost() {
        let mut lane = lane();
        written(&mut lane);
        lane.settle(4);
        lane.repeat();
        assert_eq!(lane.next_to_write().unwrap().bytes[0], 0);
        let before = lane.generation();
        lane.settle(6);
        assert!(lane.generation() > before, "it must be opened anew");
        assert_eq!(lane.open(), Sequence(2));
    }
}
