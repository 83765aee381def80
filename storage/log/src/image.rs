//! Parsing a segment that is only bytes: for tools and for the fuzz target.

use std::path::PathBuf;

use bytes::{Buf, Bytes};
use quiver_model::Position;

use crate::{
    codec,
    damage::DamagedRange,
    group::{ALIGNMENT, GroupHeader, MAGIC},
    identity::LogId,
    record::CommittedRecord,
    walk::{SegmentWalk, Step},
};

/// What a segment's bytes hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentImage {
    /// The log it belongs to, by its first sound group header; `None` if there is none.
    pub id: Option<LogId>,
    /// The records of the valid groups, in order.
    pub records: Vec<CommittedRecord>,
    /// Stretches that are damaged and followed by something of the same log.
    pub damaged: Vec<DamagedRange>,
    /// Groups that are sound but have a record that cannot be decoded.
    pub undecodable_groups: u64,
}

/// Parses a segment image as replay would read the file: never panics, and allocates in
/// proportion to `bytes` only. The log is the one whose group header comes first.
pub fn replay_bytes(bytes: &[u8]) -> SegmentImage {
    let mut image = SegmentImage::default();
    let first_header = bytes
        .chunks(ALIGNMENT)
        .filter(|sector| sector.starts_with(&MAGIC))
        .find_map(|sector| match GroupHeader::read_any(sector) {
            Ok((Ok(header), key)) => Some((header, key)),
            _ => None,
        });
    let Some((header, key)) = first_header else {
        return image;
    };
    image.id = Some(key.id);
    // Where the segment's name would be: if the first group is damaged, one before the next.
    let starts_sound = matches!(GroupHeader::read(bytes, &key), Ok(found) if found == header);
    let first = if starts_sound {
        header.first
    } else {
        Position(header.first.get().saturating_sub(1))
    };
    let mut walk = SegmentWalk::new(bytes, key, first);
    loop {
        // Errors are of files, and of formats to come.
        match walk.step(Position(0)) {
            Ok(Step::Group { header, body, .. }) => {
                image.undecodable_groups +=
                    u64::from(!push_records(&header, body, &mut image.records));
            }
            Ok(Step::Skipped) => {}
            Ok(Step::Damaged(damage)) => image.damaged.push(DamagedRange {
                segment: PathBuf::new(),
                offset: damage.offset,
                bytes: damage.bytes,
                positions: damage.positions,
                records: damage.records,
                complete: damage.complete,
            }),
            Ok(Step::Tail { .. } | Step::End) | Err(_) => return image,
        }
    }
}

/// Decodes a group; nothing is pushed unless all of it is sound.
fn push_records(header: &GroupHeader, mut body: Bytes, records: &mut Vec<CommittedRecord>) -> bool {
    let before = records.len();
    let mut position = header.first;
    for _ in 0..header.records {
        let Ok((record, taken)) = codec::decode(&body) else {
            break;
        };
        body.advance(taken);
        let committed = CommittedRecord { position, record };
        position = committed.end();
        records.push(committed);
    }
    let sound = body.is_empty()
        && position == header.end
        && records.len() - before == header.records as usize;
    if !sound {
        records.truncate(before);
    }
    sound
}
