//! From a decoded batch to its record in the log's queue.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use quiver_hot::Share;
use quiver_log::{Encoding, Record, RecordKind};
use quiver_model::{BatchRefusal, RejectCode, SchemaId, Sequence, Verdict};
use quiver_protocol::{
    DecodeLimits, StreamCloseCode, WireBatch, decode_schema, encode_self_contained,
};

use super::{Closed, TelemetryReader, gone, judging::Judgement};
use crate::{
    admit::{Prepared, RejectPayload, prepare},
    catalog::KnownWireSchema,
    commit::{AppendRequest, OnCommit, Settlement},
    control::EnsureError,
    device::{AppendBatch, AppendOutcome},
    shard::{AppendRefused, SettledOutcome, note_for_batch, rejects_schema},
};

impl TelemetryReader {
    pub(super) async fn batch(&mut self, batch: WireBatch) -> Result<(), Closed> {
        let context = self.session.context.clone();
        let received = context.clock.monotonic();
        if batch.sequence < self.opened()?.next {
            context.metrics.duplicate_batches.add(1);
            context
                .metrics
                .duplicate_rows
                .add(batch.batch.num_rows() as u64);
            let (key, live) = (self.opened()?.key.clone(), self.opened()?.live.clone());
            let duplicate = crate::device::Duplicate { key, live };
            return self.session.actor.send(duplicate).await.map_err(|_| gone());
        }
        self.admission()?;
        let (schema, judged) = match self.judge(&batch).await {
            Ok(judged) => judged,
            Err(Judgement::Refused(refusal)) => {
                let rows = batch.batch.num_rows() as u64;
                let excerpt = if rows > 0 {
                    quiver_model::row_as_json(&batch.batch, 0, 1_024)
                } else {
                    String::new()
                };
                return self.reject(batch.sequence, &refusal, rows, excerpt).await;
            }
            Err(Judgement::Closed(closed)) => return Err(closed),
        };
        let (wire_schema, encoding, payload) = self.stored_bytes(&batch).await?;
        let prepared = match prepare(
            &batch.batch,
            &schema,
            &self.session.sender,
            &judged.verdict,
            judged.devices.as_ref(),
            context.options.shard_count,
        ) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                return self
                    .reject(batch.sequence, &refusal, 0, String::new())
                    .await;
            }
        };
        let rows = batch.batch.num_rows() as u64;
        let stored = prepared.row_count() as u64;
        let points = prepared.point_count();
        let Some(rows_and_memory) = self.reserve(prepared, payload.len()).await? else {
            let refusal = BatchRefusal::new(
                RejectCode::BatchTooLarge,
                "the batch takes more memory than the engine has for all batches; send smaller ones",
            );
            return self
                .reject(batch.sequence, &refusal, rows, String::new())
                .await;
        };
        let mut record = self.record(RecordKind::Data, batch.sequence)?;
        record.encoding = encoding;
        record.wire_schema = wire_schema.id;
        record.schema = schema.id();
        record.rows = batch.batch.num_rows() as u32;
        record.verdict = judged.verdict.clone();
        record.payload = payload;
        let settlement = Settlement {
            sender: self.session.sender.clone(),
            rows: Some(rows_and_memory),
            outcome: SettledOutcome::Stored,
            received,
        };
        if self
            .append(record, settlement, batch.sequence.next(), rows)
            .await?
        {
            count(&context.metrics, &judged.verdict, stored, points);
        }
        Ok(())
    }

    /// Conditions that pass: the QUIC stream is closed, and the client comes back.
    pub(super) fn admission(&self) -> Result<(), Closed> {
        if self.session.context.disk_low.load(Ordering::Relaxed) {
            return Err(Closed::new(
                StreamCloseCode::StorageFull,
                "the server's disk is nearly full; nothing is accepted until space is free",
            ));
        }
        Ok(())
    }

    /// Bytes that decode on their own together with a schema record, and that record.
    pub(super) async fn stored_bytes(
        &mut self,
        batch: &WireBatch,
    ) -> Result<(Arc<KnownWireSchema>, Encoding, Bytes), Closed> {
        let control = self.session.context.control.clone();
        let ensured = |error: EnsureError| match error {
            EnsureError::NotAllowed(message) => Closed::new(StreamCloseCode::NotAllowed, message),
            other => Closed::new(StreamCloseCode::Retry, other.to_string()),
        };
        if batch.self_contained {
            let encoding = match batch.encoding {
                quiver_protocol::Encoding::Arrow => Encoding::ArrowIpcMessage,
                quiver_protocol::Encoding::ArrowZstd => Encoding::ArrowIpcZstd,
                quiver_protocol::Encoding::Compact => Encoding::Compact,
            };
            if let Some(known) = &self.known_wire {
                return Ok((known.clone(), encoding, batch.message.clone()));
            }
            let wire = self.wire.as_ref().ok_or_else(gone)?;
            let known = control
                .ensure_wire_schema(&self.session.sender, &wire.schema, &wire.message)
                .await
                .map_err(ensured)?;
            self.known_wire = Some(known.clone());
            return Ok((known, encoding, batch.message.clone()));
        }
        let failed = |error: String| Closed::new(StreamCloseCode::Retry, error);
        let (message, payload) =
            encode_self_contained(&batch.batch).map_err(|error| failed(error.to_string()))?;
        if let Some(known) = self
            .known_wire
            .as_ref()
            .filter(|known| known.bytes == message)
        {
            return Ok((known.clone(), Encoding::ArrowIpcMessage, payload));
        }
        let schema = decode_schema(&message, &DecodeLimits::STORED)
            .map_err(|error| failed(error.to_string()))?;
        let known = control
            .ensure_wire_schema(&self.session.sender, &schema, &message)
            .await
            .map_err(ensured)?;
        self.known_wire = Some(known.clone());
        Ok((known, Encoding::ArrowIpcMessage, payload))
    }

    /// Waits for the memory that the batch takes, and its record while it is queued; `None` if there
    /// is not so much in all for the batch.
    pub(super) async fn reserve(
        &self,
        prepared: Prepared,
        record: usize,
    ) -> Result<Option<crate::shard::RowParts>, Closed> {
        let context = &self.session.context;
        let capacity = context.budget.capacity(Share::Device);
        let rows = prepared.bytes();
        let bytes = rows + record.min(capacity.saturating_sub(rows));
        let reservation = match context.budget.try_reserve(bytes, Share::Device) {
            Some(reservation) => reservation,
            None => {
                context.metrics.memory_waits.add(1);
                context.flusher.poke();
                match context.budget.reserve(bytes, Share::Device).await {
                    Ok(reservation) => reservation,
                    Err(_) => return Ok(None),
                }
            }
        };
        Ok(Some(prepared.into_parts(&context.tables, reservation)))
    }

    /// Makes it durable that batch `sequence` is refused for ever.
    pub(super) async fn reject(
        &mut self,
        sequence: Sequence,
        refusal: &BatchRefusal,
        rows: u64,
        excerpt: String,
    ) -> Result<(), Closed> {
        if sequence < self.opened()?.next {
            self.session.context.metrics.duplicate_batches.add(1);
            return Ok(());
        }
        self.admission()?;
        let mut record = self.record(RecordKind::Reject, sequence)?;
        record.encoding = Encoding::Json;
        record.schema = SchemaId(0);
        record.payload = RejectPayload {
            code: refusal.code.number(),
            message: refusal.message.clone(),
            rows,
            excerpt: excerpt.clone(),
        }
        .encode();
        let note = note_for_batch(
            &self.session.sender,
            refusal.code,
            &refusal.message,
            rows,
            &excerpt,
        );
        let schema = rejects_schema().ok_or_else(gone)?;
        let rows_and_memory = self.reserve(Prepared::refused(schema, note), 0).await?;
        let settlement = Settlement {
            sender: self.session.sender.clone(),
            rows: rows_and_memory,
            outcome: SettledOutcome::Rejected {
                code: refusal.code,
                message: refusal.message.clone(),
            },
            received: self.session.context.clock.monotonic(),
        };
        if self.append(record, settlement, sequence.next(), 0).await? {
            self.session
                .context
                .metrics
                .add_rejected(refusal.code, rows.max(1));
        }
        Ok(())
    }

    /// Brings a record into the log's queue; whether it was new.
    pub(super) async fn append(
        &mut self,
        record: Record,
        settlement: Settlement,
        next: Sequence,
        rows: u64,
    ) -> Result<bool, Closed> {
        let context = self.session.context.clone();
        let opened = self.opened()?;
        let sequence = record.sequence;
        let on_commit = OnCommit::Settle(Box::new(settlement));
        let mut request = Box::new(AppendRequest {
            record,
            on_commit,
            epoch: 0,
        });
        loop {
            let message = AppendBatch {
                key: opened.key.clone(),
                live: opened.live.clone(),
                sequence,
                next,
                rows,
                ack_received: opened.ack_received,
                request,
            };
            match self.session.actor.send(message).await.map_err(|_| gone())? {
                AppendOutcome::Accepted(pause) => {
                    self.not_before = tokio::time::Instant::now() + pause;
                    return Ok(true);
                }
                AppendOutcome::Refused(AppendRefused::Duplicate) => {
                    context.metrics.duplicate_batches.add(1);
                    return Ok(false);
                }
                AppendOutcome::Refused(AppendRefused::StreamOver) => {
                    return Err(Closed::told(StreamCloseCode::Superseded));
                }
                AppendOutcome::Full(back) => {
                    context.metrics.queue_waits.add(1);
                    request = back;
                    context.queue.space().await;
                }
            }
        }
    }

    /// Waits until everything before `next` is durable, or the engine takes too long for it.
    pub(super) async fn settled(&self, next: Sequence) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while self.durable().await < next && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn count(metrics: &crate::Metrics, verdict: &Verdict, rows: u64, points: u64) {
    metrics.batches.add(1);
    metrics.rows.add(rows);
    metrics.points.add(points);
    metrics
        .device_mismatch
        .add(u64::from(verdict.counts.device_mismatch));
    metrics
        .truncated_timestamps
        .add(u64::from(verdict.counts.truncated_timestamps));
    for refused in &verdict.refused {
        metrics.add_rejected(refused.code, 1);
    }
}
