//! Routes: some of the rows, as they are.

use arrow_array::{Array as _, BooleanArray};
use hashbrown::HashMap;
use quiver_expression::FailedRow;

use crate::{
    config::RouteConfig,
    execute::{
        Beside,
        bound::{Bound, PerSchema},
        rows::Rows,
        state::{Entries, Key},
    },
    graph::Columns,
};

/// Most devices whose rate is limited; rows of others are taken until there is room.
const LIMITED_DEVICES_MAX: usize = 1_000_000;

/// A route node.
#[derive(Debug)]
pub(crate) struct Route {
    condition: Option<String>,
    bound: PerSchema<Bound>,
    sample: Option<Sample>,
    limit: Option<Limit>,
}

impl Route {
    pub(crate) fn new(name: &str, config: &RouteConfig) -> Self {
        Self {
            condition: config
                .condition
                .as_ref()
                .map(|text| text.as_str().to_owned()),
            bound: PerSchema::default(),
            sample: config
                .sample
                .as_ref()
                .map(|share| Sample::new(name, share.value)),
            limit: config.limit.as_ref().map(|limit| Limit::new(limit.value)),
        }
    }

    /// The rows that meet its condition, and those for which it has no value. `None`: all meet it.
    pub(crate) fn matching(
        &mut self,
        rows: &Rows,
        declared: &Columns,
        beside: &Beside,
    ) -> (Option<BooleanArray>, Vec<FailedRow>) {
        let Some(text) = &self.condition else {
            return (None, Vec::new());
        };
        let bound = self.bound.get(rows.schema(), beside, || {
            Bound::condition(text, rows.schema(), declared, beside)
        });
        let (mask, failed) = bound.mask(rows, beside);
        (Some(mask), failed)
    }

    /// Of the rows that meet the condition, those that are sampled and within the rate.
    pub(crate) fn thin(&mut self, rows: Rows) -> Rows {
        let rows = match &self.sample {
            Some(sample) => sample.of(&rows),
            None => rows,
        };
        match &mut self.limit {
            Some(limit) => limit.of(&rows),
            None => rows,
        }
    }

    pub(crate) fn changed(&mut self, is_all: bool, entries: &mut Entries) {
        if let Some(limit) = &mut self.limit {
            limit.changed(is_all, entries);
        }
    }

    pub(crate) fn restore(&mut self, entries: &Entries) -> Result<(), String> {
        let Some(limit) = &mut self.limit else {
            // It was limited before.
            return Ok(());
        };
        for (key, value) in entries {
            if let Some(value) = value {
                limit.restore(key, value)?;
            }
        }
        Ok(())
    }
}

/// A share of rows, chosen by their positions: the same ones whenever they are evaluated.
#[derive(Debug)]
struct Sample {
    seed: u64,
    below: u64,
}

impl Sample {
    fn new(name: &str, share: f64) -> Self {
        // FNV-1a: two routes of one stream sample independently of each other.
        let mut seed = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self {
            seed,
            below: (share * u64::MAX as f64) as u64,
        }
    }

    fn of(&self, rows: &Rows) -> Rows {
        let positions = rows.position().values().iter();
        let mask: BooleanArray = positions
            .map(|position| Some(mixed(self.seed ^ *position as u64) <= self.below))
            .collect();
        rows.filter(&mask)
    }
}

/// SplitMix64's finaliser: every bit of the result depends on every bit of the number.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// At most so many rows a second of each device, by arrival: a token bucket that holds one second's
/// rows, at least one.
#[derive(Debug)]
struct Limit {
    rate: f64,
    size: f64,
    buckets: HashMap<Box<str>, Bucket>,
    dirty: Vec<Box<str>>,
    /// When full buckets were last looked for.
    swept: i64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    /// Microseconds since 1970.
    at: i64,
    is_dirty: bool,
}

impl Limit {
    fn new(rate: f64) -> Self {
        Self {
            rate,
            size: rate.max(1.0),
            buckets: HashMap::new(),
            dirty: Vec::new(),
            swept: i64::MIN,
        }
    }

    fn of(&mut self, rows: &Rows) -> Rows {
        let devices = rows.devices();
        let keys = rows.device().keys();
        let arrival = rows.arrival().values();
        let mut mask = Vec::with_capacity(rows.len());
        for (row, at) in arrival.iter().enumerate() {
            let device = usize::try_from(keys.value(row))
                .ok()
                .filter(|key| *key < devices.len())
                .map_or("", |key| devices.value(key));
            mask.push(self.takes(device, *at));
        }
        rows.filter(&BooleanArray::from(mask))
    }

    fn takes(&mut self, device: &str, at: i64) -> bool {
        if !self.buckets.contains_key(device) {
            if !self.has_room(at) {
                return true;
            }
            let full = Bucket {
                tokens: self.size,
                at,
                is_dirty: false,
            };
            self.buckets.insert(device.into(), full);
        }
        let Some(bucket) = self.buckets.get_mut(device) else {
            return true;
        };
        let seconds = at.saturating_sub(bucket.at).max(0) as f64 / 1e6;
        bucket.tokens = (bucket.tokens + seconds * self.rate).min(self.size);
        bucket.at = bucket.at.max(at);
        if !std::mem::replace(&mut bucket.is_dirty, true) {
            self.dirty.push(device.into());
        }
        let is_taken = bucket.tokens >= 1.0;
        if is_taken {
            bucket.tokens -= 1.0;
        }
        is_taken
    }

    /// Forgets devices whose buckets are full, as those of new devices are.
    fn has_room(&mut self, at: i64) -> bool {
        if self.buckets.len() < LIMITED_DEVICES_MAX {
            return true;
        }
        if at < self.swept.saturating_add(1_000_000) {
            return false;
        }
        self.swept = at;
        let fills = (self.size / self.rate * 1e6) as i64;
        let dirty = &mut self.dirty;
        self.buckets.retain(|device, bucket| {
            let is_kept = bucket.at.saturating_add(fills) > at;
            if !is_kept && !bucket.is_dirty {
                dirty.push(device.clone());
            }
            is_kept
        });
        self.buckets.len() < LIMITED_DEVICES_MAX
    }

    fn changed(&mut self, is_all: bool, entries: &mut Entries) {
        if is_all {
            self.dirty = self.buckets.keys().cloned().collect();
        }
        for device in std::mem::take(&mut self.dirty) {
            let key = Key::from(device.as_bytes());
            match self.buckets.get_mut(&device) {
                Some(bucket) => {
                    bucket.is_dirty = false;
                    let mut value = Vec::with_capacity(16);
                    value.extend(bucket.tokens.to_le_bytes());
                    value.extend(bucket.at.to_le_bytes());
                    entries.insert(key, Some(value.into()));
                }
                None => {
                    entries.insert(key, None);
                }
            }
        }
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let device = std::str::from_utf8(key).map_err(|error| error.to_string())?;
        let (Some(tokens), Some(at), 16) = (
            value.first_chunk::<8>(),
            value.last_chunk::<8>(),
            value.len(),
        ) else {
            return Err("the state of a limit has 16 bytes".to_owned());
        };
        let tokens = f64::from_le_bytes(*tokens);
        if !(0.0..=self.size).contains(&tokens) {
            return Err(format!("a limit has {tokens} tokens"));
        }
        let bucket = Bucket {
            tokens,
            at: i64::from_le_bytes(*at),
            is_dirty: false,
        };
        self.buckets.insert(device.into(), bucket);
        Ok(())
    }
}
