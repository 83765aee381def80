//! What replay notices of sequences that a damaged part of the log has swallowed. The sequences of
//! a dense producer follow each other in the log; where they jump, and no record declares the
//! batches between lost, those batches were acknowledged, and are in the damage.

use std::collections::BTreeSet;

use quiver_log::DamagedRecord;
use quiver_model::{Position, Producer, ProducerKind, SenderId, Sequence, StreamName};

/// A jump in the sequences of a dense producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceGap {
    /// Whose.
    pub sender: SenderId,
    /// The stream.
    pub stream: StreamName,
    /// The producer.
    pub producer: Producer,
    /// First missing sequence.
    pub from: Sequence,
    /// The one that came instead.
    pub to: Sequence,
    /// Position of the record that came.
    pub position: Position,
}

/// Takes note of jumps. A log without damage has none, and its replay does not look for them.
#[derive(Debug, Default)]
pub struct GapWatch {
    gaps: Vec<SequenceGap>,
    /// Senders and streams of which replay has forgotten producers: what it takes for a new
    /// producer that begins late may be one of those.
    evicted: BTreeSet<(SenderId, StreamName)>,
}

impl GapWatch {
    /// A record of a dense producer is about to settle `sequence`; `known` is the next sequence as
    /// it was before, if the pair was known.
    pub(super) fn look(
        &mut self,
        known: Option<Sequence>,
        (sender, stream, producer): (&SenderId, &StreamName, Producer),
        sequence: Sequence,
        position: Position,
    ) {
        let from = match known {
            Some(next) => next,
            None if self.evicted.contains(&(sender.clone(), stream.clone())) => return,
            None => Sequence(0),
        };
        if sequence > from {
            self.gaps.push(SequenceGap {
                sender: sender.clone(),
                stream: stream.clone(),
                producer,
                from,
                to: sequence,
                position,
            });
        }
    }

    /// Producers of `sender` for `stream` were forgotten.
    pub(super) fn evicted(&mut self, sender: &SenderId, stream: &StreamName) {
        self.evicted.insert((sender.clone(), stream.clone()));
    }

    /// The jumps, in the order they were seen.
    pub fn into_gaps(self) -> Vec<SequenceGap> {
        self.gaps
    }
}

/// Whether a record that was named in a damaged part can be what was there: its sequence was not
/// settled before, where `known` is the next one if the pair is known. Else its bytes are those of
/// an older use of the file.
pub(super) fn is_news(known: Option<Sequence>, record: &DamagedRecord) -> bool {
    record.producer_kind == ProducerKind::Skipping
        || known.is_none_or(|next| record.sequence >= next)
}
