//! A (producer, stream) of which nothing is under way, as bytes: in memory, while its sender is not
//! connected, and in checkpoints. What refers to its stream is not part of them.
//!
//! `flags u8 | producer u64 | last used i64 | durable | [rejects in all, count, rejects] | [count,
//! refused rows]`; a reject is `sequence, code, message`, refused rows are `code, rows`. What is
//! not of fixed width is as in [`crate::compact_bytes`].

use std::collections::VecDeque;

use quiver_model::{Producer, ProducerKind, RefusedRows, RejectCode, Sequence, Timestamp};

use super::{ProducerState, RecentReject};
use crate::compact_bytes::{Bytes, put_bytes, put_number};

const SKIPPING: u8 = 1;
const REJECTS: u8 = 2;
const REFUSED_ROWS: u8 = 4;

/// Appends a pair. What it has in flight, and the QUIC stream that carries it, are not kept.
pub(super) fn put_pair(out: &mut Vec<u8>, producer: Producer, pair: &ProducerState) {
    let has_rejects = pair.rejects_total > 0 || !pair.rejects.is_empty();
    let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
    out.push(
        flag(SKIPPING, pair.kind == ProducerKind::Skipping)
            | flag(REJECTS, has_rejects)
            | flag(REFUSED_ROWS, !pair.refused_rows.is_empty()),
    );
    out.extend_from_slice(&producer.get().to_le_bytes());
    out.extend_from_slice(&pair.last_used.as_micros().to_le_bytes());
    put_number(out, pair.durable.get());
    if has_rejects {
        put_number(out, pair.rejects_total);
        put_number(out, pair.rejects.len() as u64);
        for reject in &pair.rejects {
            put_number(out, reject.sequence.get());
            put_number(out, u64::from(reject.code.number()));
            put_bytes(out, reject.message.as_bytes());
        }
    }
    if !pair.refused_rows.is_empty() {
        put_number(out, pair.refused_rows.iter().count() as u64);
        for (code, rows) in pair.refused_rows.iter() {
            put_number(out, u64::from(code.number()));
            put_number(out, rows);
        }
    }
}

/// Reads a pair, of which nothing failed under an epoch before `epoch`. Codes that only a later
/// version knows are left out.
pub(super) fn read_pair(bytes: &mut Bytes<'_>, epoch: u64) -> Option<(Producer, ProducerState)> {
    let flags = bytes.byte()?;
    let producer = Producer(u64::from_le_bytes(bytes.array()?));
    let last_used = Timestamp(i64::from_le_bytes(bytes.array()?));
    let durable = Sequence(bytes.number()?);
    let code = |number: u64| u16::try_from(number).ok().and_then(RejectCode::from_number);
    let (mut rejects_total, mut rejects) = (0, VecDeque::new());
    if flags & REJECTS != 0 {
        rejects_total = bytes.number()?;
        for _ in 0..bytes.number()? {
            let sequence = Sequence(bytes.number()?);
            let code = code(bytes.number()?);
            let message = bytes.text()?;
            if let Some(code) = code {
                rejects.push_back(RecentReject {
                    sequence,
                    code,
                    message: message.to_owned(),
                });
            }
        }
    }
    let mut refused_rows = RefusedRows::default();
    if flags & REFUSED_ROWS != 0 {
        for _ in 0..bytes.number()? {
            let code = code(bytes.number()?);
            let rows = bytes.number()?;
            if let Some(code) = code {
                refused_rows.add(code, rows);
            }
        }
    }
    let kind = if flags & SKIPPING == 0 {
        ProducerKind::Dense
    } else {
        ProducerKind::Skipping
    };
    let state = ProducerState {
        kind,
        accepted: durable,
        durable,
        epoch,
        last_used,
        rejects,
        rejects_total,
        refused_rows,
        live: None,
        ended: false,
    };
    Some((producer, state))
}
