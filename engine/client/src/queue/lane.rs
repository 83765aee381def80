//! One (producer, stream) of this client: its unsettled batches, and where its conversation with
//! the server stands.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quiver_model::Producer;
use tokio::time::Instant;

use super::{Entry, LaneKey, LaneKind, OpenPlan, OpenStep};

/// Where a lane's conversation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// No connection.
    Detached,
    /// A QUIC stream may be opened at `from`, the batch that the server expects.
    Ready {
        from: u64,
        not_before: Option<Instant>,
    },
    /// A QUIC stream is open; `next` is the batch to write next, `first` was the first one.
    Open {
        quic_stream: u64,
        schema: Bytes,
        first: u64,
        next: u64,
    },
    /// The QUIC stream was finished; the next one opens when all below `through` is settled.
    Draining { quic_stream: u64, through: u64 },
    /// The server could not read a batch from `from` on, and will say which.
    AwaitingReject { from: u64, not_after: Instant },
    /// A new producer is being made durable.
    Renumbering,
    /// The server does not take this stream; `None` for: not before the caller starts again.
    Refused {
        code: u32,
        message: String,
        from: u64,
        not_before: Option<Instant>,
    },
}

impl Link {
    pub fn quic_stream(&self) -> Option<u64> {
        match self {
            Self::Open { quic_stream, .. } | Self::Draining { quic_stream, .. } => {
                Some(*quic_stream)
            }
            _ => None,
        }
    }

    pub fn first(&self) -> Option<u64> {
        match self {
            Self::Open { first, .. } => Some(*first),
            _ => None,
        }
    }

    pub fn holds_quic_stream(&self) -> bool {
        self.quic_stream().is_some()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    pub key: LaneKey,
    pub producer: Producer,
    /// Sequence of the next batch to be assigned.
    pub next_sequence: u64,
    /// Every batch below is settled.
    pub settled_before: u64,
    /// Unsettled batches, ascending by sequence. Holes are batches that this side lost.
    pub entries: VecDeque<Entry>,
    /// Rejects that no Ack has passed yet: code and message by sequence.
    pub rejects: BTreeMap<u64, (u32, String)>,
    /// Rows of stored batches that the server refused one by one, by the number of the reason, as
    /// it said last.
    pub refused_rows: BTreeMap<u32, u64>,
    /// The last batch whose reject is settled.
    pub last_rejected: Option<u64>,
    pub link: Link,
    /// Lower priority than live data.
    pub replayed: bool,
    /// It would open a QUIC stream if it were allowed another one.
    pub wants_slot: bool,
    /// The server has said once where this lane stands.
    pub is_resumed: bool,
}

impl Lane {
    pub fn new(key: LaneKey, producer: Producer) -> Self {
        Self {
            replayed: key.kind == LaneKind::Backlog,
            key,
            producer,
            next_sequence: 0,
            settled_before: 0,
            entries: VecDeque::new(),
            rejects: BTreeMap::new(),
            refused_rows: BTreeMap::new(),
            last_rejected: None,
            link: Link::Detached,
            wants_slot: false,
            is_resumed: false,
        }
    }

    /// The first unsettled batch from `sequence` on.
    pub fn first_from(&self, sequence: u64) -> Option<&Entry> {
        self.entries.get(
            self.entries
                .partition_point(|entry| entry.sequence < sequence),
        )
    }

    pub fn poll_open(&mut self, now: Instant) -> OpenStep {
        let from = match &self.link {
            Link::Ready {
                not_before: Some(at),
                ..
            }
            | Link::Refused {
                not_before: Some(at),
                ..
            } if *at > now => {
                return OpenStep::Wait(Some(*at));
            }
            Link::Ready { from, .. }
            | Link::Refused {
                from,
                not_before: Some(_),
                ..
            } => *from,
            Link::AwaitingReject { not_after, .. } if *not_after > now => {
                return OpenStep::Wait(Some(*not_after));
            }
            Link::AwaitingReject { from, .. } => {
                let from = *from;
                self.link = Link::Ready {
                    from,
                    not_before: None,
                };
                from
            }
            _ => return OpenStep::Wait(None),
        };
        let Some(entry) = self.first_from(from) else {
            return OpenStep::Wait(None);
        };
        let first_sequence = entry.sequence;
        OpenStep::Open(OpenPlan {
            stream: self.key.stream.clone(),
            producer: self.producer,
            first_sequence,
            lost_before: if first_sequence > from {
                first_sequence
            } else {
                0
            },
            replayed: self.replayed,
        })
    }

    pub fn start_draining(&mut self) {
        if let Link::Open {
            quic_stream, next, ..
        } = self.link
        {
            self.link = Link::Draining {
                quic_stream,
                through: next,
            };
            self.on_settled();
        }
    }

    /// The lane's batches below `settled_before` are settled.
    pub fn on_settled(&mut self) {
        match self.link {
            Link::Draining { through, .. } if self.settled_before >= through => {
                self.link = Link::Ready {
                    from: through,
                    not_before: None,
                };
            }
            // The broken batch was rejected, and the reject is settled: go on behind it.
            Link::AwaitingReject { from, .. }
                if self.last_rejected.is_some_and(|rejected| rejected >= from) =>
            {
                self.link = Link::Ready {
                    from: self.settled_before,
                    not_before: None,
                };
            }
            _ => {}
        }
    }
}
