//! A checkpoint's bytes, inside the file format of `quiver_log::CheckpointStore`.
//!
//! `version u8 (2)`, then sections `kind u8 | length u32 LE | bytes`: the header (JSON) first, then
//! portions of the registry, of the shards' identities and of their last values, and an empty one of
//! kind 0 at the end. Each portion can be read by itself, so that neither writing nor reading has
//! more than one of them in memory beside what is there anyway.
//!
//! Version 1 had everything but the last values in its header (`length u32 LE | JSON`), and then for
//! each shard its last values (`length u32 LE | bytes`). It is read, and not written any more.

use std::{io, ops::Range};

use quiver_hot::LastValues;
use quiver_model::{Position, Timestamp};
use serde::{Deserialize, Serialize};

use super::CheckpointState;
use crate::{
    catalog::CatalogImage,
    control::ControlState,
    damage::DamageImage,
    registry::{Registry, RegistryChange, RegistryEntry},
    shard::{self, OldShardImage, Shard, ShardImage},
};

const VERSION: u8 = 2;
const OLD_VERSION: u8 = 1;

const END: u8 = 0;
const HEADER: u8 = 1;
const REGISTRY: u8 = 2;
const IDENTITIES: u8 = 3;
const LAST_VALUES: u8 = 4;

#[derive(Serialize)]
struct HeaderRef<'a> {
    replay_from: u64,
    record_time_us: i64,
    catalog: &'a Option<CatalogImage>,
    damage: &'a DamageImage,
}

#[derive(Deserialize)]
struct Header {
    replay_from: u64,
    record_time_us: i64,
    catalog: Option<CatalogImage>,
    /// Absent in checkpoints of before damage was kept.
    #[serde(default)]
    damage: DamageImage,
    /// In version 1 only.
    #[serde(default)]
    registry: Vec<RegistryEntry>,
    /// In version 1 only.
    #[serde(default)]
    images: Vec<OldShardImage>,
}

/// A checkpoint's payload does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint at position {position} is unreadable: {problem}")]
pub struct CheckpointError {
    /// Its position.
    pub position: Position,
    /// What is wrong.
    pub problem: String,
}

impl CheckpointState {
    /// What the engine knows as of `position`: the shards' part of it, and what the control records
    /// up to there add up to.
    pub fn of(position: Position, control: &ControlState, images: Vec<ShardImage>) -> Self {
        Self {
            position,
            catalog: Some(control.catalog.export()),
            registry: control.registry.freeze(),
            damage: control.damage.export(),
            images,
            replay_from: position.plus(1),
            record_time: Timestamp(0),
        }
    }

    /// Writes the payload, a piece at a time.
    ///
    /// # Errors
    /// Those of `sink`, and if something has no encoding.
    pub fn write(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        sink(&[VERSION])?;
        let header = serde_json::to_vec(&HeaderRef {
            replay_from: self.replay_from.get(),
            record_time_us: self.record_time.as_micros(),
            catalog: &self.catalog,
            damage: &self.damage,
        })?;
        put_section(sink, HEADER, &header)?;
        for portion in self.registry.portions() {
            put_section(sink, REGISTRY, &portion?)?;
        }
        for image in &self.images {
            for portion in image.portions() {
                put_section(sink, IDENTITIES, portion)?;
            }
        }
        for image in &self.images {
            for portion in image.last_values.portions() {
                put_section(sink, LAST_VALUES, &portion.map_err(io::Error::other)?)?;
            }
        }
        put_section(sink, END, &[])
    }
}

fn put_section(
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    kind: u8,
    bytes: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| io::Error::other("a section of a checkpoint has more than 4 GiB"))?;
    let mut head = vec![kind];
    head.extend(length.to_le_bytes());
    sink(&head)?;
    sink(bytes)
}

/// A checkpoint that was read. What it says of senders and devices stays as bytes until it is put
/// where it belongs.
pub struct StoredCheckpoint {
    /// The position it is as of.
    pub position: Position,
    pub(crate) catalog: Option<CatalogImage>,
    pub(crate) damage: DamageImage,
    /// Recovery needs the log from here on.
    pub replay_from: Position,
    /// Record time when it was taken.
    pub record_time: Timestamp,
    payload: Vec<u8>,
    /// Kind and place of each section but the header.
    sections: Vec<(u8, Range<usize>)>,
    /// Of version 1.
    old_registry: Vec<RegistryEntry>,
    /// Of version 1.
    old_images: Vec<OldShardImage>,
}

impl StoredCheckpoint {
    /// Reads a payload.
    ///
    /// # Errors
    /// If it is cut, malformed, or of a later program.
    pub fn decode(position: Position, payload: Vec<u8>) -> Result<Self, CheckpointError> {
        let fail = |problem: &str| CheckpointError {
            position,
            problem: problem.to_owned(),
        };
        let version = *payload.first().ok_or_else(|| fail("it is empty"))?;
        let (header, sections) = match version {
            VERSION => sections(&payload),
            OLD_VERSION => old_sections(&payload),
            _ => return Err(fail(&format!("version {version} is from a later program"))),
        }
        .map_err(fail)?;
        let header = payload.get(header).unwrap_or_default();
        let header: Header =
            serde_json::from_slice(header).map_err(|error| fail(&error.to_string()))?;
        if version == OLD_VERSION && sections.len() != header.images.len() {
            return Err(fail("its last values are cut"));
        }
        Ok(Self {
            position,
            catalog: header.catalog,
            damage: header.damage,
            replay_from: Position(header.replay_from),
            record_time: Timestamp(header.record_time_us),
            payload,
            sections,
            old_registry: header.registry,
            old_images: header.images,
        })
    }

    fn portions(&self, kind: u8) -> impl Iterator<Item = &[u8]> {
        let places = self.sections.iter().filter(move |(own, _)| *own == kind);
        places.filter_map(|(_, place)| self.payload.get(place.clone()))
    }

    fn unreadable(&self, problem: impl ToString) -> CheckpointError {
        CheckpointError {
            position: self.position,
            problem: problem.to_string(),
        }
    }

    /// Puts its registry into `registry`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn restore_registry(&mut self, registry: &Registry) -> Result<(), CheckpointError> {
        for entry in std::mem::take(&mut self.old_registry) {
            registry.apply(&RegistryChange::Put { entry });
        }
        for portion in self.portions(REGISTRY) {
            let restored = registry.restore(portion);
            restored.map_err(|problem| self.unreadable(problem))?;
        }
        Ok(())
    }

    /// Puts its last values into `last_values`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn restore_last_values(&self, last_values: &LastValues) -> Result<(), CheckpointError> {
        for portion in self.portions(LAST_VALUES) {
            let restored = last_values.import(portion);
            restored.map_err(|error| self.unreadable(error))?;
        }
        Ok(())
    }

    /// Puts its identities into the shards that they belong to.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn restore_identities(&mut self, shards: &mut [Shard]) -> Result<(), CheckpointError> {
        for image in std::mem::take(&mut self.old_images) {
            image.restore(shards);
        }
        for portion in self.portions(IDENTITIES) {
            let restored = shard::restore(portion, shards);
            restored.map_err(|problem| self.unreadable(problem))?;
        }
        Ok(())
    }
}

type Sections = (Range<usize>, Vec<(u8, Range<usize>)>);

/// The place of `length u32 LE | bytes` at `at`.
fn prefixed(payload: &[u8], at: usize) -> Option<Range<usize>> {
    let (length, rest) = payload.get(at..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let start = at + length_bytes();
    (length <= rest.len()).then_some(start..start + length)
}

const fn length_bytes() -> usize {
    size_of::<u32>()
}

fn sections(payload: &[u8]) -> Result<Sections, &'static str> {
    let mut at = 1;
    let mut header = None;
    let mut sections = Vec::new();
    loop {
        let kind = *payload.get(at).ok_or("it is cut")?;
        let place = prefixed(payload, at + 1).ok_or("it is cut")?;
        at = place.end;
        match kind {
            HEADER if header.is_none() => header = Some(place),
            REGISTRY | IDENTITIES | LAST_VALUES => sections.push((kind, place)),
            END if at == payload.len() => break,
            END => return Err("bytes follow its end"),
            _ => return Err("it has a section of a later program"),
        }
    }
    Ok((header.ok_or("it has no header")?, sections))
}

fn old_sections(payload: &[u8]) -> Result<Sections, &'static str> {
    let header = prefixed(payload, 1).ok_or("its header is cut")?;
    let mut at = header.end;
    let mut sections = Vec::new();
    while at < payload.len() {
        let place = prefixed(payload, at).ok_or("its last values are cut")?;
        at = place.end;
        sections.push((LAST_VALUES, place));
    }
    Ok((header, sections))
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
