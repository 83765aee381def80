//! Numbers with a meaning. Each is a newtype, so that a position cannot be passed where a
//! sequence is wanted; arithmetic is offered only where it makes sense.

use std::fmt;

use crate::DeviceId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl $name {
            /// The bare number, for formats and arithmetic.
            pub const fn get(self) -> $inner { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl From<$inner> for $name {
            fn from(value: $inner) -> Self { Self(value) }
        }
    };
}

id! {
    /// A place in the log, engine-wide. The first position ever given is 1; 0 means "before
    /// everything". A record with r rows takes r positions, a control record one.
    Position(u64)
}
id! {
    /// The number of a batch: dense from 0 per (sender, producer, stream). A sequence names fixed
    /// bytes for ever.
    Sequence(u64)
}
id! {
    /// A random number a spool is created with: the scope in which sequences are dense.
    Producer(u64)
}
id! {
    /// Number of a connection of one identity; rises when a second connection takes over.
    SessionId(u64)
}
id! {
    /// Number of a schema record in the log, engine-wide, from 1. 0 means "none".
    SchemaId(u32)
}
id! {
    /// A unit of parallelism in memory. Appears in no durable format.
    ShardId(u16)
}
id! {
    /// One of [`PARTITION_COUNT`] fixed slices of the devices; shards own sets of partitions.
    Partition(u8)
}

/// Number of partitions, fixed for ever: durable state may be keyed by partition.
pub const PARTITION_COUNT: u8 = 64;

impl Position {
    /// The position `rows` further on.
    #[must_use]
    pub const fn plus(self, rows: u64) -> Self {
        Self(self.0 + rows)
    }
}

impl Sequence {
    /// The sequence after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Partition {
    /// The partition of a device: 64-bit FNV-1a of its id's UTF-8 bytes, folded by the finaliser
    /// of SplitMix64, modulo [`PARTITION_COUNT`]. Part of the durable format: never change it.
    pub fn of(device: &DeviceId) -> Self {
        Self::of_str(device.as_str())
    }

    /// [`Partition::of`] for an id that is still a plain string.
    pub fn of_str(device: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in device.as_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        Self((hash % u64::from(PARTITION_COUNT)) as u8)
    }

    /// The shard that owns this partition when there are `shard_count` shards.
    pub fn shard(self, shard_count: u16) -> ShardId {
        ShardId(u16::from(self.0) % shard_count.max(1))
    }
}

/// How a producer counts its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ProducerKind {
    /// 0, 1, 2, …: devices, gateways, operators. A jump is a gap.
    #[default]
    Dense,
    /// Rising with holes: derived producers, whose sequence is the causing record's position.
    Skipping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_of_a_device_never_changes() {
        // Durable formats depend on these values.
        assert_eq!(Partition::of_str("truck_0"), Partition(PINNED[0]));
        assert_eq!(Partition::of_str("truck_1"), Partition(PINNED[1]));
        assert_eq!(Partition::of_str(""), Partition(PINNED[2]));
    }
    const PINNED: [u8; 3] = [33, 17, 27];

    #[test]
    fn partitions_spread_over_shards() {
        let mut counts = [0u32; 4];
        for index in 0..4000 {
            let shard = Partition::of_str(&format!("truck_{index}")).shard(4);
            counts[usize::from(shard.get())] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }
}
