//! Writes what a recovery has found of damage into the log, before anything else is.

use bytes::Bytes;
use quiver_log::{AppendError, ControlKind, Encoding, Record, RecordKind};
use quiver_model::Position;

use super::{Recovered, StartError, findings::Findings};
use crate::{damage::DamageReport, record_clock::RecordClock, shard::dispatch_control};

impl Recovered {
    fn now(&self) -> quiver_model::Timestamp {
        let last_time = self.log.last_time().unwrap_or_default().max(self.last_time);
        RecordClock::new(self.parts.clock.clone(), last_time)
            .0
            .now()
    }

    /// A flush makes it look as if the rows of a damaged part had been archived before: what was
    /// passed so far is reported first. Replay comes to these reports at the log's end.
    pub(super) fn report_before_flush(
        &mut self,
        findings: &mut Findings,
    ) -> Result<(), StartError> {
        let now = self.now();
        for report in findings.early(&self.control.damage, now) {
            self.append(&report)?;
            self.report.damaged.push(report);
        }
        Ok(())
    }

    /// Reports everything that was found and not reported yet, and applies the reports.
    pub(super) fn report_damage(
        &mut self,
        findings: Findings,
        group_bytes_max: usize,
    ) -> Result<(), StartError> {
        let mut gaps = Vec::new();
        for shard in &mut self.shards {
            gaps.extend(shard.take_gaps());
        }
        let reports = findings.finish(gaps, &self.control.damage, self.now(), group_bytes_max);
        let shard_count = self.parts.tables.shard_count();
        for report in reports {
            let (position, record, is_durable) = self.append(&report)?;
            if is_durable {
                self.control.apply(position, &record);
            } else {
                self.control.damage.apply_unlogged(&report);
            }
            let (mut told, mut rows) = (Vec::new(), Vec::new());
            let mut tell = |shard, event| told.push((shard, event));
            dispatch_control(shard_count, position, &record, &mut rows, &mut tell);
            // Without a place in the log there is no row of it.
            if is_durable {
                self.tell_control(&mut rows);
            }
            for (shard, event) in told {
                self.shards[usize::from(shard.get())].apply(event);
            }
            self.report.damaged.push(report);
        }
        let committed = Position(self.log.committed_end().get().saturating_sub(1));
        self.parts.progress.set_recovered(committed);
        self.last_time = self.log.last_time().unwrap_or_default().max(self.last_time);
        Ok(())
    }

    /// Appends a report; its position, and whether it is durable. A full disk must not keep an
    /// engine from starting: then the next start finds the damage again.
    fn append(&mut self, report: &DamageReport) -> Result<(Position, Record, bool), StartError> {
        let kind = RecordKind::Control(ControlKind::DamageReported);
        let mut record = Record::control(kind, self.now());
        record.encoding = Encoding::Json;
        // A struct of numbers and strings always has a JSON form.
        record.payload = Bytes::from(serde_json::to_vec(report).unwrap_or_default());
        let mut group = [record];
        let appended = self.log.append_group(&mut group);
        let [record] = group;
        match appended {
            Ok(committed) => Ok((committed.first, record, true)),
            Err(error @ AppendError::Refused { .. }) => {
                tracing::error!(%error, %report, "damage could not be reported in the log; the next start tries again");
                Ok((self.log.committed_end(), record, false))
            }
            Err(error) => Err(StartError::Report(error)),
        }
    }
}
