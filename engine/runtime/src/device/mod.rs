//! The live side of an identity: one actor for every connection, on the shard of its identity.

mod actor;
mod outbox;
mod rate;

pub use actor::{
    AppendBatch, AppendOutcome, CloseConnection, CloseTelemetry, DeviceActor, DeviceActorParts,
    Duplicate, IsCarried, IsSettled, NextSequence, OpenOutcome, OpenTelemetry, Refusal,
};
pub use outbox::Outbox;
pub use rate::TokenBucket;
