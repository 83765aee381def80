//! What of a roster goes into checkpoints, and comes out of them.

use std::collections::BTreeMap;

use quiver_model::{Producer, SenderId, Sequence, SessionId, StreamName, Timestamp};

use super::{Form, Known, Roster};
use crate::shard::{Ledger, PairKey, ProducerState, SenderState};

/// What is kept of a sender beyond a restart.
#[derive(Debug, Default)]
pub(in crate::shard) struct KeptSender {
    pub(in crate::shard) last_session: SessionId,
    pub(in crate::shard) pairs: Vec<(PairKey, ProducerState)>,
}

/// The pairs of a sender, wherever they are.
pub(in crate::shard) enum PairsOf<'a> {
    One {
        stream: &'a StreamName,
        producer: Producer,
        durable: Sequence,
        last_used: Timestamp,
    },
    Listed(&'a [(PairKey, ProducerState, u32)]),
    Live(&'a BTreeMap<PairKey, ProducerState>),
}

impl Roster {
    /// Takes over what a checkpoint has of an identity.
    pub(in crate::shard) fn restore(
        &mut self,
        sender: &SenderId,
        ledger: Option<&Ledger>,
        kept: Option<KeptSender>,
    ) {
        if let Some(ledger) = ledger {
            self.count(sender, |own| own.add(ledger));
        }
        let (Some(kept), Known(Some(number))) = (kept, self.known(sender)) else {
            return;
        };
        // There are no two of a sender in a checkpoint; were there, the later one would count.
        let slot = self.slots.get(number).copied().unwrap_or_default();
        if slot.form == Form::Live {
            self.live[slot.at as usize].state = SenderState::default();
        }
        self.take(number, &slot, 0);
        let state = SenderState {
            pairs: kept.pairs.into_iter().collect(),
            sessions: BTreeMap::new(),
            last_session: kept.last_session,
        };
        if slot.form != Form::Live && state.is_passive() {
            self.keep(number as u32, state.last_session, state.pairs);
        } else {
            let at = self.place_of(number, 0);
            self.live[at].state = state;
        }
    }

    /// What is kept of every identity beyond a restart, in the order of their slots. A pair that
    /// was opened and never settled is not known yet.
    pub(in crate::shard) fn for_each_kept(
        &self,
        mut tell: impl FnMut(&[u8], Option<&Ledger>, Option<(SessionId, PairsOf<'_>)>),
    ) {
        for number in 0..self.slots.len() {
            let (Some(name), Some(slot)) = (self.names.names().get(number), self.slots.get(number))
            else {
                continue;
            };
            let ledger = self.ledger_at(number);
            let session = SessionId(slot.last_session);
            let unpacked;
            let sender = match slot.form {
                Form::Unknown => None,
                Form::Bare => Some((session, PairsOf::Listed(&[]))),
                Form::One => self.streams.get(slot.at).map(|stream| {
                    let pair = PairsOf::One {
                        stream,
                        producer: Producer(slot.producer),
                        durable: Sequence(slot.durable),
                        last_used: Timestamp(slot.last_used),
                    };
                    (session, pair)
                }),
                Form::Packed => {
                    let bytes = self.packed.get(&(number as u32));
                    unpacked = self.unpack(bytes.map_or(&[][..], |bytes| bytes), 0);
                    Some((session, PairsOf::Listed(&unpacked)))
                }
                Form::Live => self.live.get(slot.at as usize).map(|place| {
                    let state = &place.state;
                    (state.last_session, PairsOf::Live(&state.pairs))
                }),
            };
            tell(name, ledger.as_ref(), sender);
        }
    }
}
