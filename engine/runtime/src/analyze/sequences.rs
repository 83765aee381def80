//! Which sequence a part of a node's rows has, and what is in the log already.
//!
//! Rows of a node that one record caused are divided into parts, each a record of the log. Part `p`
//! of what the record at position `c` caused has the sequence `MARK | c << 12 | p`. So sequences rise
//! with what the graph goes through, whatever definition a node had before, and name fixed rows: how
//! rows are divided depends on them alone. After a crash between two parts the graph goes through the
//! record again, and what the log has of it is left out, to the part.
//!
//! The other way would have been to let all parts of a cause share a commit group. A group is as
//! large as the log's memory for it, and what a record causes is not bounded by that: there would
//! still be rows that can never be written.
//!
//! Without [`MARK`] a sequence is of before there were parts: the position alone. All of these are
//! lower, and of what they caused everything is there.

use std::collections::{BTreeMap, HashMap};

use quiver_model::{Position, Producer, Sequence, StreamName};

/// Sequences from here on have parts. They fit an i64.
const MARK: u64 = 1 << 62;
/// Bits of the number of a part.
const PART_BITS: u32 = 12;
/// Most parts of what one record causes.
pub(super) const PARTS_MAX: u32 = 1 << PART_BITS;
/// Positions end here, for nodes: with a million rows a second after 35 years.
const CAUSE_END: u64 = MARK >> PART_BITS;

/// The sequence of a part; `None` if there are no more parts, or positions.
pub(super) fn sequence(cause: Position, part: u32) -> Option<Sequence> {
    let is_there = cause.get() < CAUSE_END && part < PARTS_MAX;
    is_there.then(|| Sequence(MARK | cause.get() << PART_BITS | u64::from(part)))
}

/// Whether the log has what would have the sequence `of`, where a producer goes on with `next`.
pub(super) fn is_there(next: Sequence, of: Sequence) -> bool {
    if next.get() > MARK || next == Sequence(0) {
        return of < next;
    }
    last_cause(next).is_some_and(|last| (of.get() & !MARK) >> PART_BITS <= last.get())
}

/// The record that caused the last rows of a producer that goes on with `next`.
fn last_cause(next: Sequence) -> Option<Position> {
    let last = next.get().checked_sub(1)?;
    Some(Position(if last >= MARK {
        (last & !MARK) >> PART_BITS
    } else {
        last
    }))
}

/// The producer of a node's rows: another one for each definition of what it remembers.
pub(super) fn producer(stream: &StreamName, generation: u64) -> Producer {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in stream.as_str().bytes().chain(generation.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Producer(hash)
}

/// What the log has of every node: the sequences that producers go on with. Nobody but the graph
/// writes as a node, so what was recovered, and what it has written since, is all there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written(BTreeMap<StreamName, HashMap<u64, Sequence>>);

impl Written {
    /// The log has everything of a producer below `next`.
    pub(crate) fn note(&mut self, stream: &StreamName, producer: Producer, next: Sequence) {
        if !self.0.contains_key(stream) {
            self.0.insert(stream.clone(), HashMap::new());
        }
        if let Some(producers) = self.0.get_mut(stream) {
            let known = producers.entry(producer.get()).or_default();
            *known = next.max(*known);
        }
    }

    /// The streams that nodes have written.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &StreamName> {
        self.0.keys()
    }

    /// Whether nodes have written the stream.
    pub(super) fn knows(&self, stream: &StreamName) -> bool {
        self.0.contains_key(stream)
    }

    /// The sequence that a producer goes on with.
    pub(super) fn next(&self, stream: &StreamName, producer: Producer) -> Sequence {
        let producers = self.0.get(stream);
        let next = producers.and_then(|producers| producers.get(&producer.get()));
        next.copied().unwrap_or_default()
    }

    /// The last record that a node put out rows for, however it was defined.
    pub(super) fn last(&self, stream: &StreamName) -> Option<Position> {
        let producers = self.0.get(stream)?.values();
        producers.filter_map(|next| last_cause(*next)).max()
    }

    /// The last record that other definitions of a node put out rows for.
    pub(super) fn others_last(&self, stream: &StreamName, generation: u64) -> Option<Position> {
        let own = producer(stream, generation).get();
        let producers = self.0.get(stream)?.iter();
        let others = producers.filter(|(other, _)| **other != own);
        others.filter_map(|(_, next)| last_cause(*next)).max()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bounds_are_what_they_are() {
        assert_eq!(
            sequence(Position(CAUSE_END - 1), PARTS_MAX - 1),
            Some(Sequence(2 * MARK - 1))
        );
        assert_eq!(sequence(Position(CAUSE_END), 0), None);
        assert_eq!(sequence(Position(1), PARTS_MAX), None);
        assert!(i64::try_from(2 * MARK - 1).is_ok());
    }

    #[test]
    fn what_was_written_before_there_were_parts_is_there() {
        let of = |cause, part| sequence(Position(cause), part).unwrap();
        // Position 7 was the last.
        assert!(is_there(Sequence(8), of(7, 0)) && is_there(Sequence(8), of(7, 3)));
        assert!(!is_there(Sequence(8), of(8, 0)));
        assert!(!is_there(Sequence(0), of(0, 0)));
    }

    #[test]
    fn another_definition_begins_behind_what_was_put_out_before() {
        let stream = StreamName::new("minutes").unwrap();
        let mut written = Written::default();
        assert_eq!(written.others_last(&stream, 1), None);
        let after = |cause, part| sequence(Position(cause), part).unwrap().next();
        written.note(&stream, producer(&stream, 1), after(40, 2));
        written.note(&stream, producer(&stream, 2), Sequence(31));
        assert_eq!(written.others_last(&stream, 1), Some(Position(30)));
        assert_eq!(written.others_last(&stream, 2), Some(Position(40)));
        assert_eq!(written.others_last(&stream, 3), Some(Position(40)));
        assert_eq!(written.last(&stream), Some(Position(40)));
        let other = StreamName::new("hours").unwrap();
        assert_eq!(written.others_last(&other, 1), None);
    }

    proptest! {
        /// After a crash anywhere, exactly the parts behind the last durable one are written.
        #[test]
        fn what_is_left_is_written_once(
            causes in proptest::collection::btree_map(0_u64..1 << 40, 1_u32..6, 1..8),
            cut in 0_usize..48,
        ) {
            let all: Vec<Sequence> = causes
                .iter()
                .flat_map(|(cause, parts)| (0..*parts).map(|part| sequence(Position(*cause), part).unwrap()))
                .collect();
            prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
            let cut = cut.min(all.len());
            let next = cut.checked_sub(1).map_or(Sequence(0), |last| all[last].next());
            let again: Vec<Sequence> = all.iter().copied().filter(|of| !is_there(next, *of)).collect();
            prop_assert_eq!(&again[..], &all[cut..]);
        }
    }
}
