//! How many different values there were, without keeping them: a HyperLogLog of 2¹⁴ registers.
//!
//! Values are hashed to 64 bits ([`hash`]). The first 14 bits choose a register, which keeps the
//! greatest rank (leading zeros of the other bits, and one) of what fell into it. One standard error
//! is 1.04 / √2¹⁴ = 0.81 % of the count: of a hundred sets of many values, one or two are counted
//! more than 2 % wrongly.
//!
//! ```text
//! push ─▶ few: the hashes themselves, 25 bits and the rank of the rest ──more than FEW──▶ registers
//! ```
//!
//! The sparse form is that of Heule, Nunkesser and Hall (HyperLogLog in Practice, EDBT 2013) with
//! 25 bits. It counts up to [`FEW`] values nearly exactly: two of them fall together in 1 of 16 such
//! sets. The registers are read by the improved estimator of Ertl (New Cardinality Estimation
//! Algorithms for HyperLogLog Sketches, arXiv:1702.01284, algorithm 6), which has no bias to be
//! corrected by tables at any count. A state depends on the set of its values alone, not on their
//! order or on how they were divided, so merging is exact.

use crate::bytes::{ReadBytes, SavedError, WriteBytes};

pub mod hash;

/// How many hashes are kept before there are registers: they take half of the registers' memory.
pub const FEW: usize = 2_048;

/// Bits of a hash that choose a register, and bits that the sparse form keeps.
const BITS: u32 = 14;
const SPARSE_BITS: u32 = 25;
const REGISTERS: usize = 1 << BITS;
/// Ranks in a register are 0 (nothing fell into it) to this.
const RANK_MAX: u8 = (64 - BITS + 1) as u8;
/// Bits of a rank in a sparse entry; the place is in the higher bits.
const RANK_BITS: u32 = 6;
/// Versions of the saved forms.
const SPARSE: u8 = 0;
const DENSE: u8 = 1;

/// The set of the values seen, as far as their number needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distinct {
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Place and rank of each hash, rising; of each place the greatest rank only.
    Sparse(Vec<u32>),
    /// [`REGISTERS`] ranks.
    Dense(Box<[u8]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self {
            form: Form::Sparse(Vec::new()),
        }
    }
}

impl Distinct {
    /// Takes a value by its hash, made by one of the functions of [`hash`].
    pub fn push(&mut self, hash: u64) {
        match &mut self.form {
            Form::Dense(registers) => raise(registers, dense_of(hash)),
            Form::Sparse(entries) => {
                insert(entries, sparse_of(hash));
                self.limit();
            }
        }
    }

    /// Takes what another state has taken: the result is that of all values in one.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.form, &other.form) {
            (Form::Sparse(entries), Form::Sparse(others)) => {
                *entries = union(entries, others);
                self.limit();
            }
            (Form::Sparse(entries), Form::Dense(others)) => {
                let mut registers = others.clone();
                raise_all(&mut registers, entries);
                self.form = Form::Dense(registers);
            }
            (Form::Dense(registers), Form::Sparse(others)) => raise_all(registers, others),
            (Form::Dense(registers), Form::Dense(others)) => {
                for (rank, other) in registers.iter_mut().zip(others) {
                    *rank = (*rank).max(*other);
                }
            }
        }
    }

    /// Makes registers of what is no longer few.
    fn limit(&mut self) {
        if let Form::Sparse(entries) = &self.form
            && entries.len() > FEW
        {
            let mut registers = vec![0; REGISTERS].into_boxed_slice();
            raise_all(&mut registers, entries);
            self.form = Form::Dense(registers);
        }
    }

    /// About how many different values there were.
    pub fn count(&self) -> u64 {
        match &self.form {
            // Linear counting over 2²⁵ places would add less than a tenth to at most `FEW`.
            Form::Sparse(entries) => entries.len() as u64,
            Form::Dense(registers) => estimate(registers).round() as u64,
        }
    }

    /// Bytes of memory it takes beside itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Sparse(entries) => entries.capacity() * size_of::<u32>(),
            Form::Dense(registers) => registers.len(),
        }
    }

    /// Adds the state to `out`: 12 KiB and a byte at most.
    pub fn write(&self, out: &mut Vec<u8>) {
        match &self.form {
            Form::Sparse(entries) => {
                out.put_byte(SPARSE);
                out.put_count(entries.len());
                let mut before = 0;
                for entry in entries {
                    out.put_varint(u64::from(entry - before));
                    before = *entry;
                }
            }
            Form::Dense(registers) => {
                out.put_byte(DENSE);
                // Four ranks of six bits in three bytes.
                for four in registers.chunks_exact(4) {
                    let bits = four
                        .iter()
                        .rev()
                        .fold(0_u32, |bits, rank| bits << RANK_BITS | u32::from(*rank));
                    let [low, middle, high, _] = bits.to_le_bytes();
                    out.extend_from_slice(&[low, middle, high]);
                }
            }
        }
    }

    /// Takes a state off the front of `from`.
    pub fn read(from: &mut &[u8]) -> Result<Self, SavedError> {
        let form = match from.byte()? {
            SPARSE => Form::Sparse(read_sparse(from)?),
            DENSE => Form::Dense(read_dense(from)?),
            other => return Err(SavedError::Version(other)),
        };
        Ok(Self { form })
    }
}

fn read_sparse(from: &mut &[u8]) -> Result<Vec<u32>, SavedError> {
    const ENTRIES: SavedError =
        SavedError::Invalid("the hashes of distinct values rise, and are not too many");
    let count = from.count(1)?;
    if count > FEW {
        return Err(ENTRIES);
    }
    let mut entries: Vec<u32> = Vec::with_capacity(count);
    for _ in 0..count {
        let before = entries.last().copied();
        let entry = u64::from(before.unwrap_or(0)).saturating_add(from.varint()?);
        let entry = u32::try_from(entry).map_err(|_| ENTRIES)?;
        let (place, rank) = parts(entry);
        let rises = before.is_none_or(|before| parts(before).0 < place);
        let is_rank = (1..=64 - SPARSE_BITS + 1).contains(&rank);
        if !rises || !is_rank || place >> SPARSE_BITS != 0 {
            return Err(ENTRIES);
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn read_dense(from: &mut &[u8]) -> Result<Box<[u8]>, SavedError> {
    let bytes = from.slice(REGISTERS / 4 * 3)?;
    let mut registers = Vec::with_capacity(REGISTERS);
    let (threes, _) = bytes.as_chunks::<3>();
    for [low, middle, high] in threes {
        let mut bits = u32::from_le_bytes([*low, *middle, *high, 0]);
        for _ in 0..4 {
            let rank = (bits & ((1 << RANK_BITS) - 1)) as u8;
            if rank > RANK_MAX {
                return Err(SavedError::Invalid("a rank is of what 64 bits allow"));
            }
            registers.push(rank);
            bits >>= RANK_BITS;
        }
    }
    Ok(registers.into_boxed_slice())
}

/// The place of a sparse entry, and its rank.
const fn parts(entry: u32) -> (u32, u32) {
    (entry >> RANK_BITS, entry & ((1 << RANK_BITS) - 1))
}

/// A hash as a sparse entry: its first 25 bits, and the rank of the others.
fn sparse_of(hash: u64) -> u32 {
    let place = (hash >> (64 - SPARSE_BITS)) as u32;
    let rest = hash << SPARSE_BITS;
    let rank = rest.leading_zeros().min(64 - SPARSE_BITS) + 1;
    place << RANK_BITS | rank
}

/// The register of a hash, and its rank.
fn dense_of(hash: u64) -> (usize, u8) {
    let rest = hash << BITS;
    let rank = rest.leading_zeros().min(64 - BITS) + 1;
    ((hash >> (64 - BITS)) as usize, rank as u8)
}

/// What [`dense_of`] says of the hash that an entry was made of.
fn dense_of_sparse(entry: u32) -> (usize, u8) {
    const BETWEEN: u32 = SPARSE_BITS - BITS;
    let (place, rank) = parts(entry);
    let between = place & ((1 << BETWEEN) - 1);
    let rank = if between == 0 {
        BETWEEN + rank
    } else {
        between.leading_zeros() - (u32::BITS - BETWEEN) + 1
    };
    ((place >> BETWEEN) as usize, rank as u8)
}

fn raise(registers: &mut [u8], (register, rank): (usize, u8)) {
    if let Some(old) = registers.get_mut(register) {
        *old = rank.max(*old);
    }
}

fn raise_all(registers: &mut [u8], entries: &[u32]) {
    for entry in entries {
        raise(registers, dense_of_sparse(*entry));
    }
}

fn insert(entries: &mut Vec<u32>, entry: u32) {
    let place = parts(entry).0;
    match entries.binary_search_by_key(&place, |other| parts(*other).0) {
        Ok(at) => {
            if let Some(old) = entries.get_mut(at) {
                *old = entry.max(*old);
            }
        }
        Err(at) => entries.insert(at, entry),
    }
}

/// Two lists of entries as one.
fn union(left: &[u32], right: &[u32]) -> Vec<u32> {
    let mut both: Vec<u32> = left.iter().chain(right).copied().collect();
    both.sort_unstable();
    // Of equal places the last has the greatest rank.
    both.reverse();
    both.dedup_by_key(|entry| parts(*entry).0);
    both.reverse();
    both
}

/// Ertl's improved estimator.
fn estimate(registers: &[u8]) -> f64 {
    let mut counts = [0_u32; RANK_MAX as usize + 1];
    for rank in registers {
        if let Some(count) = counts.get_mut(usize::from(*rank)) {
            *count += 1;
        }
    }
    let [empty, ranks @ .., full] = counts;
    let all = REGISTERS as f64;
    let mut z = all * tau(1.0 - f64::from(full) / all);
    for count in ranks.iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += all * sigma(f64::from(empty) / all);
    // 1 / (2 ln 2), and no number is infinite: of no values nothing is asked.
    all * all / (2.0 * std::f64::consts::LN_2) / z
}

/// x + Σ x^(2^k) 2^(k−1), for 0 ≤ x < 1.
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

/// (1 − x − Σ (1 − x^(2^−k))² 2^−k) / 3, for 0 < x < 1.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests;
