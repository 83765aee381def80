//! Judging a batch under a schema that has all its fields.

use std::{collections::BTreeSet, sync::Arc};

use quiver_model::{
    BatchRefusal, DEVICE, DeviceId, Judged, NormaliseContext, RefusedRow, RejectCode, SenderId,
    SenderKind, StreamSchema, judge,
};
use quiver_protocol::{StreamCloseCode, WireBatch};

use super::{Closed, TelemetryReader};
use crate::{
    control::EnsureError,
    registry::{RegistryChange, RegistryEntry},
    shard::{device_in_row, distinct_devices},
};

/// Enrollments that are under way at once.
const ENROLLED_AT_ONCE: usize = 256;
/// Rows for devices that are not enrolled that are looked at, and other devices that are named.
const UNKNOWN_DEVICES_MAX: usize = 64;
const UNKNOWN_DEVICES_NAMED: usize = 3;

/// Why a batch was not judged.
pub(super) enum Judgement {
    Refused(BatchRefusal),
    Closed(Closed),
}

impl From<EnsureError> for Judgement {
    fn from(error: EnsureError) -> Self {
        match error {
            EnsureError::Refused(refusal) => Self::Refused(refusal),
            EnsureError::NotAllowed(message) => {
                Self::Closed(Closed::new(StreamCloseCode::NotAllowed, message))
            }
            EnsureError::Append(failure) => {
                Self::Closed(Closed::new(StreamCloseCode::Retry, failure.to_string()))
            }
        }
    }
}

impl TelemetryReader {
    /// Judges the batch under a schema that has all its fields.
    pub(super) async fn judge(
        &self,
        batch: &WireBatch,
    ) -> Result<(Arc<StreamSchema>, Judged), Judgement> {
        let context = &self.session.context;
        let stream = self.opened().map_err(Judgement::Closed)?.key.0.clone();
        // Rules may have changed since the QUIC stream was opened.
        let columns = batch.batch.schema_ref().fields().iter();
        let columns = columns.map(|field| field.name().as_str());
        context.control.rules().check(&stream, columns)?;
        let enrolls =
            context.options.enroll_unknown && self.session.sender.kind == SenderKind::Operator;
        loop {
            let schema = context.control.state().catalog.stream(&stream);
            let registry = &context.control.state().registry;
            let judged = judge(
                &batch.batch,
                &NormaliseContext {
                    sender: &self.session.sender,
                    stream: &stream,
                    schema: schema.as_deref(),
                    now: context.record_clock.now(),
                    future_limit: context.options.future_limit,
                    may_speak_for: &|device| registry.may_speak_for(&self.session.sender, device),
                },
            )
            .map_err(Judgement::Refused)?;
            let is_unknown = |refused: &RefusedRow| refused.code == RejectCode::NotEnrolled;
            if enrolls
                && judged.verdict.refused.iter().any(is_unknown)
                && self.enroll_devices(batch).await?
            {
                continue;
            }
            self.all_enrolled(batch, &judged)?;
            match schema {
                Some(schema) if judged.new_fields.is_empty() => return Ok((schema, judged)),
                _ => {
                    context
                        .control
                        .ensure_fields(&self.session.sender, &stream, &judged.new_fields)
                        .await?;
                }
            }
        }
    }

    /// An operator's batch for devices that are not enrolled is not taken: the operator is at hand
    /// and can enroll them, and its sequence must not be used up meanwhile. (A gateway runs
    /// unattended: such rows of its batches go to `rejects`, and the others are stored.)
    pub(super) fn all_enrolled(&self, batch: &WireBatch, judged: &Judged) -> Result<(), Judgement> {
        if self.session.sender.kind != SenderKind::Operator {
            return Ok(());
        }
        let Some(column) = batch.batch.column_by_name(DEVICE) else {
            return Ok(());
        };
        let refused = judged.verdict.refused.iter();
        let unknown: BTreeSet<DeviceId> = refused
            .filter(|refused| refused.code == RejectCode::NotEnrolled)
            .filter_map(|refused| device_in_row(column, refused.row as usize))
            .take(UNKNOWN_DEVICES_MAX)
            .collect();
        let Some(first) = unknown.first() else {
            return Ok(());
        };
        let others: Vec<&str> = unknown.iter().skip(1).map(DeviceId::as_str).collect();
        let also = match others.len() {
            0 => String::new(),
            1..=UNKNOWN_DEVICES_NAMED => format!("; nor is {}", others.join(", ")),
            _ => format!(
                "; nor are {} and more",
                others[..UNKNOWN_DEVICES_NAMED].join(", ")
            ),
        };
        Err(Judgement::Closed(Closed::new(
            StreamCloseCode::NotAllowed,
            format!(
                "device {first} is not enrolled, or revoked: enroll it (quiver devices enroll {first}) and send again; nothing is stored from here on{also}"
            ),
        )))
    }

    /// Enrolls devices that an operator speaks for (demonstrations and loopback only); whether there
    /// were any to enroll.
    pub(super) async fn enroll_devices(&self, batch: &WireBatch) -> Result<bool, Judgement> {
        let context = &self.session.context;
        let Some(column) = batch.batch.column_by_name(DEVICE) else {
            return Ok(false);
        };
        let registry = &context.control.state().registry;
        let unknown: Vec<DeviceId> = distinct_devices(column)
            .into_iter()
            .filter(|device| !registry.knows_device(device.as_str()))
            .collect();
        // Asked for together, they are durable together.
        for some in unknown.chunks(ENROLLED_AT_ONCE) {
            let changes: Vec<_> = some
                .iter()
                .map(|device| {
                    let sender = SenderId::device(device.clone());
                    let entry = RegistryEntry::new(&sender, context.record_clock.now());
                    RegistryChange::Put { entry }
                })
                .collect();
            for result in context.control.change_registry_all(&changes).await {
                result.map_err(|error| {
                    Judgement::Closed(Closed::new(StreamCloseCode::Retry, error.to_string()))
                })?;
            }
        }
        Ok(!unknown.is_empty())
    }
}
