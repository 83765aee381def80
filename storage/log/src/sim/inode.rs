//! A simulated file's content: what reads see, what a crash leaves, and what is in between.

use std::collections::BTreeMap;

/// Bytes that a disk writes as one.
pub(super) const SECTOR: usize = 512;
/// States of one sector that are remembered between two syncs, oldest first.
const VERSIONS_MAX: usize = 4;

type Sector = [u8; SECTOR];

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// A file's content. A sector that is missing is zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    cached: BTreeMap<u64, Box<Sector>>,
    pub cached_len: u64,
    durable: BTreeMap<u64, Box<Sector>>,
    durable_len: u64,
    /// States of each sector since the last sync.
    dirty: BTreeMap<u64, Vec<Sector>>,
    /// Bytes that count against the capacity.
    pub reserved: u64,
    pub handles: u64,
    /// Cut since the last sync: durable sectors may have to go.
    shrunk: bool,
}

impl Inode {
    pub fn set_cached_len(&mut self, len: u64) {
        if len < self.cached_len {
            let kept = len.div_ceil(SECTOR as u64);
            let cut: Vec<u64> = self.cached.range(kept..).map(|(index, _)| *index).collect();
            for index in cut {
                self.cached.remove(&index);
                self.dirty.remove(&index);
            }
            // Bytes behind the end read as zeros if the file grows again.
            let tail = (len % SECTOR as u64) as usize;
            if tail > 0
                && let Some(sector) = self.cached.get_mut(&(len / SECTOR as u64))
            {
                sector[tail..].fill(0);
                let zeroed = **sector;
                self.dirty
                    .entry(len / SECTOR as u64)
                    .or_default()
                    .push(zeroed);
            }
            self.shrunk = true;
            self.reserved = self.reserved.min(len.next_multiple_of(SECTOR as u64));
        }
        self.cached_len = len;
    }

    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % SECTOR as u64) as usize;
            let count = (SECTOR - within).min(bytes.len() - done);
            let index = at / SECTOR as u64;
            let sector = self
                .cached
                .entry(index)
                .or_insert_with(|| Box::new([0; SECTOR]));
            sector[within..within + count].copy_from_slice(&bytes[done..done + count]);
            let versions = self.dirty.entry(index).or_default();
            if versions.len() == VERSIONS_MAX {
                versions.remove(0);
            }
            versions.push(**sector);
            done += count;
        }
        let end = offset + bytes.len() as u64;
        self.cached_len = self.cached_len.max(end);
        self.reserved = self.reserved.max(end.next_multiple_of(SECTOR as u64));
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let available = self
            .cached_len
            .saturating_sub(offset)
            .min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < available {
            let at = offset + done as u64;
            let within = (at % SECTOR as u64) as usize;
            let count = (SECTOR - within).min(available - done);
            let target = &mut buffer[done..done + count];
            match self.cached.get(&(at / SECTOR as u64)) {
                Some(sector) => target.copy_from_slice(&sector[within..within + count]),
                None => target.fill(0),
            }
            done += count;
        }
        available
    }

    pub fn sync(&mut self) {
        self.sync_len();
        for index in std::mem::take(&mut self.dirty).into_keys() {
            if let Some(sector) = self.cached.get(&index) {
                self.durable.insert(index, sector.clone());
            }
        }
    }

    pub fn sync_len(&mut self) {
        self.durable_len = self.cached_len;
        if std::mem::take(&mut self.shrunk) {
            let (cached, dirty) = (&self.cached, &self.dirty);
            self.durable
                .retain(|index, _| cached.contains_key(index) && !dirty.contains_key(index));
        }
    }

    /// Writes back a random part of what is dirty, as a disk does of which power or patience ends.
    pub fn write_back_some(&mut self, random: &mut Random) {
        // All, none, or each by itself: the extremes are the likely ones in life.
        let mode = random.below(4);
        let mut reach = 0;
        for (index, versions) in std::mem::take(&mut self.dirty) {
            let written = match mode {
                0 => false,
                1 => true,
                _ => random.coin(),
            };
            if written && !versions.is_empty() {
                let version = random.below(versions.len() as u64 * 2) as usize;
                // The last state is the likeliest.
                let state = &versions[version.min(versions.len() - 1)];
                self.durable.insert(index, Box::new(*state));
                reach = (index + 1) * SECTOR as u64;
            }
        }
        if self.cached_len > self.durable_len {
            let keep = if random.coin() {
                self.cached_len
            } else {
                reach.min(self.cached_len)
            };
            self.durable_len = self.durable_len.max(keep);
        } else if random.coin() {
            self.sync_len();
        }
    }

    pub fn fall_back_to_durable(&mut self) {
        self.dirty.clear();
        self.shrunk = false;
        self.cached = self.durable.clone();
        self.cached_len = self.durable_len;
        self.reserved = self.cached_len.next_multiple_of(SECTOR as u64);
        self.handles = 0;
    }
}
