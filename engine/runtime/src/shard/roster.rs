//! Every identity that a shard knows: its ledger, and the sequences of its senders.
//!
//! Most senders are not connected and have one (producer, stream) of which nothing is under way.
//! Those take a slot of fixed size and nothing else; what has rejects, refused rows or more pairs is
//! packed into bytes. A [`SenderState`] is there only of who is connected or has something in
//! flight, and can be had only by [`Roster::wake`] or [`Roster::awake`]: what these give goes to rest
//! by itself. Some that rest stay unpacked for a while ([`RESTING_MAX`]), because they may come back.
//!
//! ```text
//! Unknown ─▶ Bare ─▶ One ─▶ Packed          wake: any of them ─▶ Live
//!                                            rest: Live ─▶ the smallest that holds it
//! ```
//!
//! Slots are numbered in the order in which identities were first seen: what goes through all of
//! them does so in the same order on every run.

mod kept;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::{Deref, DerefMut},
};

use quiver_model::{
    DeviceId, NameTable, Pages, Producer, ProducerKind, SenderId, SenderKind, Sequence, SessionId,
    Timestamp,
};

use super::{
    Ledger, PairKey, ProducerState, SenderState,
    pair_bytes::{put_pair, read_pair},
    stream_set::StreamSet,
};
use crate::{
    compact_bytes::{Bytes, put_number},
    identity_name::{self, IdentityName},
};

pub(super) use kept::{KeptSender, PairsOf};

/// Senders that rest and are not packed yet.
const RESTING_MAX: usize = 64;
/// The number of a place that is of nobody.
const NOBODY: u32 = u32::MAX;

/// What there is of each identity.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Rows stored, of its ledger.
    stored: u64,
    /// Number of its last connection; not if it is live.
    last_session: u64,
    /// Of [`Form::One`].
    producer: u64,
    /// Of [`Form::One`].
    durable: u64,
    /// Of [`Form::One`], in microseconds since 1970.
    last_used: i64,
    /// Of [`Form::One`] the number of its stream, of [`Form::Live`] that of its place.
    at: u32,
    form: Form,
    ledger: LedgerForm,
}

/// Where the sequences of a sender are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// It never was a sender.
    #[default]
    Unknown,
    /// It was connected, and no batch of it is settled.
    Bare,
    /// One dense pair, without rejects or refused rows.
    One,
    /// Bytes.
    Packed,
    /// A [`SenderState`].
    Live,
}

/// Where a ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LedgerForm {
    /// There is none.
    #[default]
    None,
    /// Only rows were stored: the slot has it.
    Stored,
    /// The slot has the rows stored, and a map the rest.
    Whole,
}

/// A sender that is not packed.
#[derive(Debug, Default)]
struct Place {
    state: SenderState,
    /// Slot of its identity.
    number: u32,
    /// Whether it waits to be packed.
    is_resting: bool,
}

/// Every identity of a shard.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// An identity's number is its slot.
    names: NameTable,
    slots: Pages<Slot>,
    ledgers: HashMap<u32, Ledger>,
    streams: StreamSet,
    packed: HashMap<u32, Box<[u8]>>,
    live: Vec<Place>,
    /// Places that nobody has.
    free: Vec<u32>,
    /// Places whose senders rest, oldest first.
    resting: VecDeque<u32>,
}

/// Where a roster has an identity: what was looked up once need not be again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known(Option<usize>);

impl Roster {
    fn find(&self, sender: &SenderId) -> Option<usize> {
        self.names.find(IdentityName::of(sender)?.as_bytes())
    }

    /// The number of an identity. All numbers are given away only beyond what any memory holds.
    fn number(&mut self, name: &IdentityName) -> Option<usize> {
        let number = self.names.intern(name.as_bytes())?;
        if number == self.slots.len() {
            self.slots.push(Slot::default());
        }
        Some(number)
    }

    fn sender_at(&self, number: usize) -> Option<SenderId> {
        identity_name::sender(self.names.names().get(number)?)
    }

    /// Where an identity is, which is added if it is new.
    pub(super) fn known(&mut self, sender: &SenderId) -> Known {
        Known(IdentityName::of(sender).and_then(|name| self.number(&name)))
    }

    /// Counts rows of a device that were stored.
    pub(super) fn add_stored(&mut self, device: &str, rows: u64) {
        let Some(name) = IdentityName::new(SenderKind::Device, device) else {
            return;
        };
        let number = match self.names.find(name.as_bytes()) {
            Some(number) => Some(number),
            None if DeviceId::is_well_formed(device) => self.number(&name),
            None => None,
        };
        if let Some(slot) = number.and_then(|number| self.slots.get_mut(number)) {
            slot.stored += rows;
            if slot.ledger == LedgerForm::None {
                slot.ledger = LedgerForm::Stored;
            }
        }
    }

    /// Changes the ledger of an identity.
    pub(super) fn count(&mut self, sender: &SenderId, change: impl FnOnce(&mut Ledger)) {
        let Known(Some(number)) = self.known(sender) else {
            return;
        };
        let mut ledger = self.ledger_at(number).unwrap_or_default();
        change(&mut ledger);
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        slot.stored = ledger.stored;
        ledger.stored = 0;
        let key = number as u32;
        if ledger == Ledger::default() {
            slot.ledger = LedgerForm::Stored;
            self.ledgers.remove(&key);
        } else {
            slot.ledger = LedgerForm::Whole;
            self.ledgers.insert(key, ledger);
        }
    }

    fn ledger_at(&self, number: usize) -> Option<Ledger> {
        let slot = self.slots.get(number)?;
        let rest = match slot.ledger {
            LedgerForm::None => return None,
            LedgerForm::Stored => Ledger::default(),
            LedgerForm::Whole => self.ledgers.get(&(number as u32)).copied()?,
        };
        Some(Ledger {
            stored: slot.stored,
            ..rest
        })
    }

    /// The ledgers.
    pub(super) fn ledgers(&self) -> BTreeMap<SenderId, Ledger> {
        let numbers = 0..self.slots.len();
        numbers
            .filter_map(|number| Some((self.sender_at(number)?, self.ledger_at(number)?)))
            .collect()
    }

    /// The next sequence of a pair; `None` if the pair is not known.
    pub(super) fn durable(&self, sender: &SenderId, key: &PairKey) -> Option<Sequence> {
        let number = self.find(sender)?;
        let slot = self.slots.get(number)?;
        match slot.form {
            Form::Unknown | Form::Bare => None,
            Form::One => self.is_pair(slot, key).then_some(Sequence(slot.durable)),
            Form::Packed => {
                let pairs = self.unpack(self.packed.get(&(number as u32))?, 0);
                let pair = pairs.into_iter().find(|(known, _, _)| known == key)?;
                Some(pair.1.durable)
            }
            Form::Live => {
                let place = self.live.get(slot.at as usize)?;
                Some(place.state.pairs.get(key)?.durable)
            }
        }
    }

    /// The next sequence of every pair of the senders of a kind.
    pub(super) fn sequences_of(&self, kind: SenderKind) -> Vec<(PairKey, Sequence)> {
        let mut sequences = Vec::new();
        for (number, name) in self.names.names().iter().enumerate() {
            let is_kind = identity_name::kind_and_id(name).is_some_and(|(own, _)| own == kind);
            let Some(slot) = self.slots.get(number).filter(|_| is_kind) else {
                continue;
            };
            match slot.form {
                Form::Unknown | Form::Bare => {}
                Form::One => {
                    let pair = self.one(slot, 0);
                    sequences.extend(pair.map(|(key, pair)| (key, pair.durable)));
                }
                Form::Packed => {
                    let packed = self.packed.get(&(number as u32));
                    let pairs = packed.map(|packed| self.unpack(packed, 0));
                    let pairs = pairs.into_iter().flatten();
                    sequences.extend(pairs.map(|(key, pair, _)| (key, pair.durable)));
                }
                Form::Live => {
                    let place = self.live.get(slot.at as usize);
                    let pairs = place.into_iter().flat_map(|place| &place.state.pairs);
                    sequences.extend(pairs.map(|(key, pair)| (key.clone(), pair.durable)));
                }
            }
        }
        sequences
    }

    /// Whether `key` is the pair of a slot of [`Form::One`].
    fn is_pair(&self, slot: &Slot, key: &PairKey) -> bool {
        slot.producer == key.1.get() && self.streams.get(slot.at) == Some(&key.0)
    }

    /// Does what [`SenderState::settle`] would do, if that needs no [`SenderState`]: nothing else
    /// is to be done then, because nobody is connected. `false` if the sender has to be woken.
    pub(super) fn settle_resting(
        &mut self,
        known: Known,
        key: &PairKey,
        kind: ProducerKind,
        next: Sequence,
        now: Timestamp,
    ) -> bool {
        if kind != ProducerKind::Dense {
            return false;
        }
        let Some(slot) = known.0.and_then(|number| self.slots.get_mut(number)) else {
            return false;
        };
        match slot.form {
            Form::One
                if slot.producer == key.1.get() && self.streams.get(slot.at) == Some(&key.0) =>
            {
                slot.durable = slot.durable.max(next.get());
                slot.last_used = slot.last_used.max(now.as_micros());
                true
            }
            Form::Unknown | Form::Bare => {
                let Some(stream) = self.streams.refer(&key.0) else {
                    return false;
                };
                (slot.form, slot.at) = (Form::One, stream);
                (slot.producer, slot.durable) = (key.1.get(), next.get());
                slot.last_used = now.as_micros();
                true
            }
            Form::One | Form::Packed | Form::Live => false,
        }
    }

    /// The state of a sender, made if there is none. `epoch` is the log's now: nothing of a sender
    /// that rests can have failed under it.
    pub(super) fn wake(&mut self, sender: &SenderId, epoch: u64) -> LiveSender<'_> {
        let known = self.known(sender);
        self.wake_known(known, epoch)
    }

    /// [`Roster::wake`] of who was looked up already.
    pub(super) fn wake_known(&mut self, known: Known, epoch: u64) -> LiveSender<'_> {
        self.pack_oldest();
        let at = match known.0 {
            Some(number) => self.place_of(number, epoch),
            // There are no numbers left: its state is found by nobody, and so it stores nothing.
            None => self.settle_in(NOBODY, SenderState::default()),
        };
        LiveSender {
            place: &mut self.live[at],
            at: at as u32,
            resting: &mut self.resting,
        }
    }

    /// The state of a sender that is connected or has something under way; perhaps of others.
    pub(super) fn awake(&mut self, sender: &SenderId) -> Option<LiveSender<'_>> {
        let slot = self.slots.get(self.find(sender)?)?;
        let at = (slot.form == Form::Live).then_some(slot.at)?;
        Some(LiveSender {
            place: self.live.get_mut(at as usize)?,
            at,
            resting: &mut self.resting,
        })
    }

    /// As [`Roster::awake`], only to look at.
    pub(super) fn look(&self, sender: &SenderId) -> Option<&SenderState> {
        let slot = self.slots.get(self.find(sender)?)?;
        (slot.form == Form::Live).then_some(&self.live.get(slot.at as usize)?.state)
    }

    /// Those who are connected, in one order, however they came: of all, or one.
    pub(super) fn connected(&self, sender: Option<&SenderId>) -> Vec<(SenderId, &SenderState)> {
        let mut connected: Vec<_> = match sender {
            Some(sender) => {
                let state = self.look(sender);
                state
                    .map(|state| (sender.clone(), state))
                    .into_iter()
                    .collect()
            }
            None => {
                let places = self
                    .live
                    .iter()
                    .filter(|place| !place.state.sessions.is_empty());
                places
                    .filter_map(|place| {
                        Some((self.sender_at(place.number as usize)?, &place.state))
                    })
                    .collect()
            }
        };
        connected.sort_by(|(a, _), (b, _)| a.cmp(b));
        connected
    }

    /// The place of an identity's sender, which is unpacked into one if it has none.
    fn place_of(&mut self, number: usize, epoch: u64) -> usize {
        let slot = self.slots.get(number).copied().unwrap_or_default();
        if slot.form == Form::Live {
            return slot.at as usize;
        }
        let kept = self.take(number, &slot, epoch);
        let state = SenderState {
            pairs: kept.pairs.into_iter().collect(),
            sessions: BTreeMap::new(),
            last_session: kept.last_session,
        };
        self.settle_in(number as u32, state)
    }

    fn settle_in(&mut self, number: u32, state: SenderState) -> usize {
        let at = match self.free.pop() {
            Some(at) => at as usize,
            None => {
                self.live.push(Place::default());
                self.live.len() - 1
            }
        };
        self.live[at] = Place {
            state,
            number,
            is_resting: false,
        };
        if let Some(slot) = self.slots.get_mut(number as usize) {
            (slot.form, slot.at) = (Form::Live, at as u32);
        }
        at
    }

    /// Takes what a sender that is not live has, out of where it is.
    fn take(&mut self, number: usize, slot: &Slot, epoch: u64) -> KeptSender {
        let pairs = match slot.form {
            Form::Unknown | Form::Bare | Form::Live => Vec::new(),
            Form::One => {
                let pair = self.one(slot, epoch);
                self.streams.release(slot.at);
                pair.into_iter().collect()
            }
            Form::Packed => {
                let bytes = self.packed.remove(&(number as u32)).unwrap_or_default();
                let pairs = self.unpack(&bytes, epoch);
                let pair = |(key, pair, stream): (PairKey, ProducerState, u32)| {
                    self.streams.release(stream);
                    (key, pair)
                };
                pairs.into_iter().map(pair).collect()
            }
        };
        KeptSender {
            last_session: SessionId(slot.last_session),
            pairs,
        }
    }

    /// The pair of a slot of [`Form::One`].
    fn one(&self, slot: &Slot, epoch: u64) -> Option<(PairKey, ProducerState)> {
        let stream = self.streams.get(slot.at)?.clone();
        let last_used = Timestamp(slot.last_used);
        let pair = ProducerState {
            accepted: Sequence(slot.durable),
            durable: Sequence(slot.durable),
            ..ProducerState::new(ProducerKind::Dense, last_used, epoch)
        };
        Some(((stream, Producer(slot.producer)), pair))
    }

    /// The pairs of a sender that is packed, with the numbers of their streams.
    fn unpack(&self, bytes: &[u8], epoch: u64) -> Vec<(PairKey, ProducerState, u32)> {
        let mut bytes = Bytes::new(bytes);
        let mut pairs = Vec::new();
        while !bytes.is_empty() {
            let pair = (|| {
                let number = u32::try_from(bytes.number()?).ok()?;
                let (producer, pair) = read_pair(&mut bytes, epoch)?;
                let stream = self.streams.get(number)?.clone();
                Some(((stream, producer), pair, number))
            })();
            // It was written here: that it cannot be read is never expected, and never silent.
            let Some(pair) = pair else {
                tracing::error!("a packed sender cannot be read");
                break;
            };
            pairs.push(pair);
        }
        pairs
    }

    /// Packs those who rest for longest.
    fn pack_oldest(&mut self) {
        while self.resting.len() > RESTING_MAX {
            self.pack_next();
        }
    }

    /// Packs everybody who rests.
    #[cfg(test)]
    pub(super) fn pack_all(&mut self) {
        while !self.resting.is_empty() {
            self.pack_next();
        }
    }

    fn pack_next(&mut self) {
        let Some(at) = self.resting.pop_front() else {
            return;
        };
        let Some(place) = self.live.get_mut(at as usize) else {
            return;
        };
        place.is_resting = false;
        if !place.state.is_passive() {
            return;
        }
        let Place { state, number, .. } = std::mem::take(place);
        place.number = NOBODY;
        self.free.push(at);
        if number != NOBODY {
            self.keep(number, state.last_session, state.pairs);
        }
    }

    /// Keeps a sender that is not live in the smallest form.
    fn keep(
        &mut self,
        number: u32,
        last_session: SessionId,
        pairs: BTreeMap<PairKey, ProducerState>,
    ) {
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return;
        };
        slot.last_session = last_session.get();
        if pairs.is_empty() {
            slot.form = if last_session.get() == 0 {
                Form::Unknown
            } else {
                Form::Bare
            };
            return;
        }
        if let (1, Some(((stream, producer), pair))) = (pairs.len(), pairs.first_key_value())
            && pair.is_plain()
            && let Some(stream) = self.streams.refer(stream)
        {
            (slot.form, slot.at) = (Form::One, stream);
            (slot.producer, slot.durable) = (producer.get(), pair.durable.get());
            slot.last_used = pair.last_used.as_micros();
            return;
        }
        let mut bytes = Vec::new();
        for ((stream, producer), pair) in &pairs {
            // All numbers of streams are given away only beyond what any memory holds.
            if let Some(stream) = self.streams.refer(stream) {
                put_number(&mut bytes, u64::from(stream));
                put_pair(&mut bytes, *producer, pair);
            }
        }
        slot.form = Form::Packed;
        self.packed.insert(number, bytes.into_boxed_slice());
    }

    /// How many identities there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

/// A sender's state, as long as somebody works with it. When it is dropped and nothing of the
/// sender is under way, the sender goes to rest.
pub struct LiveSender<'a> {
    place: &'a mut Place,
    at: u32,
    resting: &'a mut VecDeque<u32>,
}

impl Deref for LiveSender<'_> {
    type Target = SenderState;

    fn deref(&self) -> &SenderState {
        &self.place.state
    }
}

impl DerefMut for LiveSender<'_> {
    fn deref_mut(&mut self) -> &mut SenderState {
        &mut self.place.state
    }
}

impl Drop for LiveSender<'_> {
    fn drop(&mut self) {
        if !self.place.is_resting && self.place.state.is_passive() {
            self.place.is_resting = true;
            self.resting.push_back(self.at);
        }
    }
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
