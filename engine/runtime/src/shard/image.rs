//! A shard's part of a checkpoint. It does not say which shard it was: on the next start there may
//! be more shards, or fewer, and identities are dealt out anew.
//!
//! The identities of a shard are portions of bytes, each of which can be read by itself:
//! `version u8`, then for each identity
//! `name | flags u8 | [ledger] | [sender: last session, count, pairs]`. The name is as in
//! `identity_name`, a ledger one number or seven; a pair is its stream, then as in `pair_bytes`. A
//! stream is 0 and its name where the portion names it first, and its number from 1 on afterwards.

use std::collections::{BTreeMap, HashMap};

use quiver_hot::FrozenLastValues;
use quiver_model::{
    Producer, ProducerKind, RejectCode, SenderId, Sequence, SessionId, StreamName, Timestamp,
};
use serde::Deserialize;

use super::{
    Ledger, PairKey, ProducerState, RecentReject, Shard,
    pair_bytes::{put_pair, read_pair},
    roster::{KeptSender, PairsOf, Roster},
};
use crate::{
    compact_bytes::{Bytes, put_bytes, put_number},
    identity_name,
};

/// Version of a portion.
const VERSION: u8 = 1;
/// Bytes of a portion, about.
const PORTION_BYTES: usize = 1 << 20;

/// The ledger has nothing but rows stored.
const LEDGER_STORED: u8 = 1;
const LEDGER_WHOLE: u8 = 2;
const SENDER: u8 = 4;

/// State of a part of the identities, as of a position.
#[derive(Debug, Default)]
pub struct ShardImage {
    /// Identities.
    portions: Vec<Vec<u8>>,
    /// Of these, as they were when the image was made.
    pub(crate) last_values: FrozenLastValues,
}

impl ShardImage {
    pub(super) fn of(roster: &Roster, last_values: FrozenLastValues) -> Self {
        let mut writer = Writer::default();
        roster.for_each_kept(|name, ledger, sender| writer.identity(name, ledger, sender));
        Self {
            portions: writer.finish(),
            last_values,
        }
    }

    /// The portions of its identities.
    pub(crate) fn portions(&self) -> &[Vec<u8>] {
        &self.portions
    }

    /// The ledgers of its identities.
    pub fn ledgers(&self) -> BTreeMap<SenderId, Ledger> {
        let mut ledgers = BTreeMap::new();
        self.for_each(|sender, ledger, _| {
            ledgers.extend(ledger.map(|ledger| (sender, ledger)));
        });
        ledgers
    }

    /// Tells all identities.
    pub(super) fn for_each(
        &self,
        mut tell: impl FnMut(SenderId, Option<Ledger>, Option<KeptSender>),
    ) {
        for portion in &self.portions {
            if let Err(problem) = read(portion, &mut tell) {
                // It was made by this process.
                tracing::error!(problem, "an image of a shard cannot be read");
            }
        }
    }
}

/// Puts a portion's identities into the shards that they belong to.
///
/// # Errors
/// If the bytes are not a portion.
pub(crate) fn restore(portion: &[u8], shards: &mut [Shard]) -> Result<(), &'static str> {
    let shard_count = u16::try_from(shards.len()).unwrap_or(u16::MAX);
    read(portion, &mut |sender, ledger, kept| {
        let shard = usize::from(sender.shard(shard_count).get());
        if let Some(shard) = shards.get_mut(shard) {
            shard.restore(&sender, ledger.as_ref(), kept);
        }
    })
}

#[derive(Default)]
struct Writer {
    portions: Vec<Vec<u8>>,
    portion: Vec<u8>,
    /// Streams that the portion has named.
    streams: HashMap<StreamName, u64>,
    /// The one that was asked for last: most identities have the same.
    last: Option<(StreamName, u64)>,
}

impl Writer {
    fn identity(
        &mut self,
        name: &[u8],
        ledger: Option<&Ledger>,
        sender: Option<(SessionId, PairsOf<'_>)>,
    ) {
        if ledger.is_none() && sender.is_none() {
            return;
        }
        if self.portion.is_empty() {
            self.portion.reserve_exact(PORTION_BYTES);
            self.portion.push(VERSION);
        }
        put_bytes(&mut self.portion, name);
        let ledger_flag = match ledger {
            None => 0,
            Some(ledger) if ledger.is_only_stored() => LEDGER_STORED,
            Some(_) => LEDGER_WHOLE,
        };
        let sender_flag = if sender.is_some() { SENDER } else { 0 };
        self.portion.push(ledger_flag | sender_flag);
        if let Some(ledger) = ledger {
            let counts = ledger.counts();
            let counts = if ledger_flag == LEDGER_STORED {
                &counts[..1]
            } else {
                &counts[..]
            };
            for count in counts {
                put_number(&mut self.portion, *count);
            }
        }
        if let Some((session, pairs)) = sender {
            put_number(&mut self.portion, session.get());
            self.pairs(&pairs);
        }
        // What an identity may have is bounded, and far below what is left to 4 GiB.
        if self.portion.len() > PORTION_BYTES - PORTION_BYTES / 16 {
            self.end();
        }
    }

    fn pairs(&mut self, pairs: &PairsOf<'_>) {
        // A pair that was opened and never settled is not known yet.
        let is_known = |pair: &ProducerState| pair.durable > Sequence(0);
        match pairs {
            PairsOf::One {
                stream,
                producer,
                durable,
                last_used,
            } => {
                let is_known = *durable > Sequence(0);
                put_number(&mut self.portion, u64::from(is_known));
                if is_known {
                    let pair = ProducerState {
                        durable: *durable,
                        ..ProducerState::new(ProducerKind::Dense, *last_used, 0)
                    };
                    self.pair(stream, *producer, &pair);
                }
            }
            PairsOf::Listed(pairs) => {
                let known = || pairs.iter().filter(|(_, pair, _)| is_known(pair));
                put_number(&mut self.portion, known().count() as u64);
                for ((stream, producer), pair, _) in known() {
                    self.pair(stream, *producer, pair);
                }
            }
            PairsOf::Live(pairs) => {
                let known = || pairs.iter().filter(|(_, pair)| is_known(pair));
                put_number(&mut self.portion, known().count() as u64);
                for ((stream, producer), pair) in known() {
                    self.pair(stream, *producer, pair);
                }
            }
        }
    }

    fn pair(&mut self, stream: &StreamName, producer: Producer, pair: &ProducerState) {
        let number = match &self.last {
            Some((last, number)) if last == stream => Some(*number),
            _ => self.streams.get(stream).copied(),
        };
        put_number(&mut self.portion, number.unwrap_or(0));
        let number = number.unwrap_or_else(|| {
            put_bytes(&mut self.portion, stream.as_str().as_bytes());
            let number = self.streams.len() as u64 + 1;
            self.streams.insert(stream.clone(), number);
            number
        });
        if self.last.as_ref().is_none_or(|(last, _)| last != stream) {
            self.last = Some((stream.clone(), number));
        }
        put_pair(&mut self.portion, producer, pair);
    }

    fn end(&mut self) {
        if !self.portion.is_empty() {
            self.portions.push(std::mem::take(&mut self.portion));
        }
        self.streams.clear();
        self.last = None;
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        self.end();
        self.portions
    }
}

/// Tells the identities of a portion.
fn read(
    portion: &[u8],
    tell: &mut dyn FnMut(SenderId, Option<Ledger>, Option<KeptSender>),
) -> Result<(), &'static str> {
    let mut bytes = Bytes::new(portion);
    if bytes.byte() != Some(VERSION) {
        return Err("identities are of a later program, or none");
    }
    let mut streams = Vec::new();
    while !bytes.is_empty() {
        let (sender, ledger, kept) =
            read_identity(&mut bytes, &mut streams).ok_or("identities are cut or malformed")?;
        tell(sender, ledger, kept);
    }
    Ok(())
}

type Identity = (SenderId, Option<Ledger>, Option<KeptSender>);

fn read_identity(bytes: &mut Bytes<'_>, streams: &mut Vec<StreamName>) -> Option<Identity> {
    let sender = identity_name::sender(bytes.prefixed()?)?;
    let flags = bytes.byte()?;
    let ledger = if flags & LEDGER_STORED != 0 {
        Some(Ledger {
            stored: bytes.number()?,
            ..Ledger::default()
        })
    } else if flags & LEDGER_WHOLE != 0 {
        let mut counts = Ledger::default().counts();
        for count in &mut counts {
            *count = bytes.number()?;
        }
        Some(Ledger::of_counts(counts))
    } else {
        None
    };
    if flags & SENDER == 0 {
        return Some((sender, ledger, None));
    }
    let mut kept = KeptSender {
        last_session: SessionId(bytes.number()?),
        pairs: Vec::new(),
    };
    for _ in 0..bytes.number()? {
        let stream = match bytes.number()?.checked_sub(1) {
            Some(index) => streams.get(usize::try_from(index).ok()?)?.clone(),
            None => {
                let stream = StreamName::new(bytes.text()?).ok()?;
                streams.push(stream.clone());
                stream
            }
        };
        let (producer, pair) = read_pair(bytes, 0)?;
        kept.pairs.push(((stream, producer), pair));
    }
    Some((sender, ledger, Some(kept)))
}

/// A shard's part of a checkpoint as it was written before (JSON).
#[derive(Debug, Default, Deserialize)]
pub(crate) struct OldShardImage {
    senders: Vec<OldSender>,
    ledger: Vec<(String, Ledger)>,
}

#[derive(Debug, Deserialize)]
struct OldSender {
    /// `urn:quiver:<kind>:<id>`.
    urn: String,
    last_session: u64,
    pairs: Vec<OldPair>,
}

#[derive(Debug, Deserialize)]
struct OldPair {
    stream: String,
    producer: u64,
    skipping: bool,
    durable: u64,
    last_used_us: i64,
    rejects_total: u64,
    rejects: Vec<(u64, u16, String)>,
    /// Rows by the number of their code.
    #[serde(default)]
    refused_rows: Vec<(u16, u64)>,
}

impl OldShardImage {
    /// Puts its identities into the shards that they belong to.
    pub(crate) fn restore(self, shards: &mut [Shard]) {
        let shard_count = u16::try_from(shards.len()).unwrap_or(u16::MAX);
        let mut restore = |urn: &str, ledger: Option<&Ledger>, kept: Option<KeptSender>| {
            let Some(sender) = SenderId::from_urn(urn) else {
                return;
            };
            let shard = usize::from(sender.shard(shard_count).get());
            if let Some(shard) = shards.get_mut(shard) {
                shard.restore(&sender, ledger, kept);
            }
        };
        for sender in self.senders {
            let kept = KeptSender {
                last_session: SessionId(sender.last_session),
                pairs: sender.pairs.into_iter().filter_map(OldPair::read).collect(),
            };
            restore(&sender.urn, None, Some(kept));
        }
        for (urn, ledger) in &self.ledger {
            restore(urn, Some(ledger), None);
        }
    }
}

impl OldPair {
    fn read(self) -> Option<(PairKey, ProducerState)> {
        let stream = StreamName::new(&self.stream).ok()?;
        let kind = if self.skipping {
            ProducerKind::Skipping
        } else {
            ProducerKind::Dense
        };
        let reject = |(sequence, code, message): (u64, u16, String)| {
            Some(RecentReject {
                sequence: Sequence(sequence),
                code: RejectCode::from_number(code)?,
                message,
            })
        };
        let refused = |(code, rows): (u16, u64)| Some((RejectCode::from_number(code)?, rows));
        let pair = ProducerState {
            accepted: Sequence(self.durable),
            durable: Sequence(self.durable),
            rejects: self.rejects.into_iter().filter_map(reject).collect(),
            rejects_total: self.rejects_total,
            refused_rows: self.refused_rows.into_iter().filter_map(refused).collect(),
            ..ProducerState::new(kind, Timestamp(self.last_used_us), 0)
        };
        Some(((stream, Producer(self.producer)), pair))
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
