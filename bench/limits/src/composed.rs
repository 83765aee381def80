//! The limit composed from the stages measured alone: the processor time that all of them take for
//! a point, on all cores, the generator's included.

use crate::{
    measure::{Report, Row},
    options::Scenario,
};

/// Stages of the server, each measured on its own.
const STAGES: [&str; 5] = ["quic", "decode", "append", "sort", "parquet"];

/// Adds the composed limit, and what fraction of it the bare pipeline reached.
pub fn compose(scenario: &Scenario, report: &mut Report) {
    let cpu = |stage: &str| {
        report
            .find(&scenario.name, stage)
            .and_then(|row| row.cpu_per_million)
    };
    // The log in the largest groups that were measured: that is what it does under load.
    let log = report
        .rows
        .iter()
        .rfind(|row| row.scenario == scenario.name && row.stage.starts_with("log, "));
    let (Some(log_cpu), Some(file)) = (
        log.and_then(|row| row.cpu_per_million),
        cpu("file and fsync"),
    ) else {
        return;
    };
    let Some(stages) = STAGES.map(cpu).into_iter().sum::<Option<f64>>() else {
        return;
    };
    let generator = report
        .find(&scenario.name, "quic")
        .and_then(|row| row.generator_cpu_per_million)
        .unwrap_or_default();
    let server = stages + log_cpu + file;
    let by_cpu = report.cores as f64 * 1e6 / (server + generator).max(f64::MIN_POSITIVE);
    let by_disk = disk_limit(scenario, report).unwrap_or(f64::INFINITY);
    let limit = by_cpu.min(by_disk);
    let mut row = Row {
        scenario: scenario.name.clone(),
        stage: "composed limit".to_owned(),
        points_per_second: Some(limit),
        cpu_per_million: Some(server),
        generator_cpu_per_million: Some(generator),
        ..Row::default()
    };
    if by_disk.is_finite() {
        row = row.note("Mpoints/s by the disk", by_disk / 1e6);
    }
    if let Some(pipeline) = report.find(&scenario.name, "bare pipeline") {
        let reached = pipeline.points_per_second.unwrap_or_default() / limit;
        row = row.note("bare pipeline reached", reached);
    }
    report.add(row);
}

/// Points a second that the disk takes, log and files one after the other.
fn disk_limit(scenario: &Scenario, report: &Report) -> Option<f64> {
    let log = report
        .rows
        .iter()
        .rfind(|row| row.scenario == scenario.name && row.stage.starts_with("log, "))?
        .points_per_second?;
    let file = report
        .find(&scenario.name, "file and fsync")?
        .points_per_second?;
    Some(1.0 / (1.0 / log + 1.0 / file))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::options::Codec;

    fn row(stage: &str, points_per_second: f64, cpu: f64) -> Row {
        Row {
            scenario: "few-large/zstd".to_owned(),
            stage: stage.to_owned(),
            points_per_second: Some(points_per_second),
            cpu_per_million: Some(cpu),
            ..Row::default()
        }
    }

    #[test]
    fn the_limit_is_the_cores_over_what_all_stages_take() {
        let mut report = Report::new(Duration::from_secs(1));
        report.cores = 2;
        for stage in STAGES {
            report.rows.push(row(stage, 1e9, 0.03));
        }
        report.rows.push(row("log, groups of 1", 1.0, 9.0));
        report.rows.push(row("log, groups of 64", 1e9, 0.03));
        report.rows.push(row("file and fsync", 1e9, 0.02));
        report.rows.push(row("bare pipeline", 5e6, 0.2));
        let scenario = Scenario {
            name: "few-large/zstd".to_owned(),
            rows: 1_000,
            codec: Codec::Zstd,
            connections: 64,
            devices: 1,
            devices_per_batch: 1,
            duration: Duration::from_secs(1),
        };
        compose(&scenario, &mut report);
        let limit = report.find("few-large/zstd", "composed limit").unwrap();
        assert!((limit.points_per_second.unwrap() - 1e7).abs() < 1.0);
        let reached = limit.notes.last().unwrap();
        assert_eq!(reached.0, "bare pipeline reached");
        assert!((reached.1 - 0.5).abs() < 1e-9);
    }
}
