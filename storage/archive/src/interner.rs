//! The distinct values of a column, in order, and each value's place among them: what a dictionary
//! is made of.
//!
//! In order, because a dictionary is compressed, and neighbours are alike: of decimals with two
//! digits it takes half of what it takes in the order they come.

/// Slots that a table of values begins with, and doubles from: a power of two.
const SLOTS_MIN: usize = 1 << 10;
/// Longest search for a free slot. Values that were made to collide end it; then there is no
/// dictionary.
const PROBES_MAX: usize = 64;
/// 2^64 over the golden ratio: multiplying by it spreads neighbours over the upper bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Code of a slot that is free.
const FREE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    value: u64,
    code: u32,
}

const EMPTY: Slot = Slot {
    value: 0,
    code: FREE,
};

/// Finds distinct values. Its memory is used again.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    slots: Vec<Slot>,
    distinct: Vec<u64>,
    codes: Vec<u32>,
    /// New code of each old one.
    places: Vec<u32>,
}

/// What was found of a column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interned<'a> {
    /// The distinct values, in order.
    pub(crate) distinct: &'a [u64],
    /// The place of each value among them.
    pub(crate) codes: &'a [u32],
}

impl Interner {
    /// The distinct values of `values` in the order of `key`, which is unique for each; `None` if
    /// there are more than `distinct_max`.
    pub(crate) fn intern(
        &mut self,
        values: &[u64],
        distinct_max: usize,
        key: impl Fn(u64) -> u64,
    ) -> Option<Interned<'_>> {
        self.slots.clear();
        self.slots.resize(SLOTS_MIN, EMPTY);
        self.distinct.clear();
        self.codes.clear();
        self.codes.reserve(values.len());
        let mut last: Option<(u64, u32)> = None;
        for value in values {
            let code = match last {
                Some((last, code)) if last == *value => code,
                _ => self.code(*value, distinct_max)?,
            };
            last = Some((*value, code));
            self.codes.push(code);
        }
        self.sort(key);
        Some(Interned {
            distinct: &self.distinct,
            codes: &self.codes,
        })
    }

    /// The code of a value, a new one if it is new.
    fn code(&mut self, value: u64, distinct_max: usize) -> Option<u32> {
        let at = self.slot_of(value)?;
        let slot = self.slots.get_mut(at)?;
        if slot.code != FREE {
            return Some(slot.code);
        }
        if self.distinct.len() >= distinct_max {
            return None;
        }
        let code = u32::try_from(self.distinct.len()).ok()?;
        *slot = Slot { value, code };
        self.distinct.push(value);
        if self.distinct.len() * 2 > self.slots.len() {
            self.grow()?;
        }
        Some(code)
    }

    /// The slot that a value has, or may take; `None` if it is far from where it should be.
    fn slot_of(&self, value: u64) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let shift = u64::BITS - self.slots.len().trailing_zeros();
        let start = (value.wrapping_mul(SPREAD) >> shift) as usize;
        (start..start + PROBES_MAX)
            .map(|at| at & mask)
            .find(|at| match self.slots.get(*at) {
                Some(slot) => slot.code == FREE || slot.value == value,
                None => false,
            })
    }

    fn grow(&mut self) -> Option<()> {
        let slots = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(slots, EMPTY);
        for index in 0..self.distinct.len() {
            let value = *self.distinct.get(index)?;
            let at = self.slot_of(value)?;
            *self.slots.get_mut(at)? = Slot {
                value,
                code: index as u32,
            };
        }
        Some(())
    }

    /// Puts the distinct values in order, and gives each value its new code.
    fn sort(&mut self, key: impl Fn(u64) -> u64) {
        let mut order: Vec<(u64, u32)> = (0..)
            .zip(&self.distinct)
            .map(|(code, value)| (key(*value), code))
            .collect();
        order.sort_unstable();
        self.places.clear();
        self.places.resize(order.len(), 0);
        let sorted: Vec<u64> = (0..)
            .zip(&order)
            .filter_map(|(place, (_, code))| {
                *self.places.get_mut(*code as usize)? = place;
                self.distinct.get(*code as usize).copied()
            })
            .collect();
        self.distinct = sorted;
        for code in &mut self.codes {
            *code = self.places.get(*code as usize).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn check(values: &[u64]) {
        let mut interner = Interner::default();
        let interned = interner.intern(values, usize::MAX, |value| value).unwrap();
        let expected: Vec<u64> = values
            .iter()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(interned.distinct, expected);
        let back = interned.codes.iter().map(|code| expected[*code as usize]);
        assert!(back.eq(values.iter().copied()));
    }

    #[test]
    fn values_come_back_from_their_places() {
        check(&[]);
        check(&[0, 0, u64::MAX, 0, 7]);
        let many: Vec<u64> = (0..50_000_u64)
            .map(|at| (at * at % 9_973).wrapping_mul(0x0101_0101_0101_0101))
            .collect();
        check(&many);
        check(&(0..5_000).rev().collect::<Vec<_>>());
    }

    #[test]
    fn too_many_values_or_made_to_collide_make_no_dictionary() {
        let mut interner = Interner::default();
        let values: Vec<u64> = (0..100).collect();
        assert!(interner.intern(&values, 99, |value| value).is_none());
        assert!(interner.intern(&values, 100, |value| value).is_some());
        // The inverse of an odd number: products of these differ in the lowest bits only.
        let mut inverse = SPREAD;
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(SPREAD.wrapping_mul(inverse)));
        }
        let colliding: Vec<u64> = (0..100_u64).map(|low| low.wrapping_mul(inverse)).collect();
        assert!(
            interner
                .intern(&colliding, usize::MAX, |value| value)
                .is_none()
        );
    }
}
