//! The HTTP door of the server under load.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// Enrolments under way at once.
const ENROLLING: usize = 16;
/// Longest answer that is read.
const ANSWER_BYTES: u64 = 256 << 20;

/// Metrics of the server at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSample {
    /// Processor time since the process began, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Identified connections.
    pub connections: u64,
    /// Rows it accepted.
    pub rows: u64,
    /// Batches that were there already.
    pub duplicate_batches: u64,
    /// Median of write and fdatasync of a commit group since its start, in seconds.
    pub commit_p50: f64,
    /// 99th percentile of that.
    pub commit_p99: f64,
    /// Commit groups.
    pub commit_groups: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Bytes of archived files of all streams.
    pub archived_bytes: u64,
    /// Rows in the archive.
    pub archived_rows: u64,
}

impl ServerSample {
    /// Reads the exposition text.
    pub(crate) fn parse(text: &str) -> Self {
        let mut sample = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else {
                continue;
            };
            let family = name.split('{').next().unwrap_or(name);
            match (family, name) {
                ("process_cpu_seconds_total", _) => sample.cpu_seconds = value,
                ("process_resident_memory_bytes", _) => sample.resident_bytes = value as u64,
                ("quiver_connections", _) => sample.connections = value as u64,
                ("quiver_ingest_rows_total", _) => sample.rows = value as u64,
                ("quiver_duplicate_batches_total", _) => sample.duplicate_batches = value as u64,
                ("quiver_log_groups_total", _) => sample.commit_groups = value as u64,
                ("quiver_log_bytes_total", _) => sample.log_bytes = value as u64,
                ("quiver_archived_bytes", _) => sample.archived_bytes += value as u64,
                ("quiver_archived_rows", _) => sample.archived_rows += value as u64,
                ("quiver_log_commit_seconds", name) if name.contains("\"0.5\"") => {
                    sample.commit_p50 = value;
                }
                ("quiver_log_commit_seconds", name) if name.contains("\"0.99\"") => {
                    sample.commit_p99 = value;
                }
                _ => {}
            }
        }
        sample
    }
}

/// The door.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Enrolled {
    id: String,
    kind: String,
    state: String,
    #[serde(default)]
    gateways: BTreeSet<String>,
}

/// An identity that is to be enrolled.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Enrolment {
    pub id: String,
    pub kind: &'static str,
    pub gateways: Vec<String>,
    /// What is said of it.
    pub attributes: BTreeMap<&'static str, &'static str>,
}

impl Http {
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(std::time::Duration::from_secs(600)))
            .build()
            .into();
        Self {
            base: format!("http://{address}"),
            token,
            agent,
        }
    }

    /// Whether requests that need a token can be made.
    pub(crate) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    fn answer(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<String, BenchError> {
        let failed = |error: &dyn std::fmt::Display| {
            BenchError::Unavailable(format!("{} does not answer: {error}", self.base))
        };
        let mut response = response.map_err(|error| failed(&error))?;
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES)
            .read_to_string()
            .map_err(|error| failed(&error))?;
        if status.is_success() {
            return Ok(text);
        }
        Err(BenchError::Unavailable(format!(
            "{} answers {status}: {}",
            self.base,
            text.trim()
        )))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.as_deref().unwrap_or(""))
    }

    fn get(&self, path: &str) -> Result<String, BenchError> {
        let request = self.agent.get(format!("{}{path}", self.base));
        self.answer(request.header("Authorization", self.bearer()).call())
    }

    fn post(&self, path: &str, body: &serde_json::Value) -> Result<String, BenchError> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.answer(
            request
                .header("Authorization", self.bearer())
                .header("Content-Type", "application/json")
                .send(body.to_string()),
        )
    }

    /// The metrics now.
    pub(crate) fn sample(&self) -> Result<ServerSample, BenchError> {
        self.get("/metrics").map(|text| ServerSample::parse(&text))
    }

    /// The version of the server's program.
    pub(crate) fn version(&self) -> Option<String> {
        let status: serde_json::Value =
            serde_json::from_str(&self.get("/api/v1/status").ok()?).ok()?;
        status["version"].as_str().map(str::to_owned)
    }

    /// A query that gives a name and a number a row; nothing if its table does not exist.
    pub(crate) fn numbers(
        &self,
        table: &str,
        sql: &str,
    ) -> Result<BTreeMap<String, u64>, BenchError> {
        let tables = "SELECT table_name FROM information_schema.tables";
        let body = serde_json::json!({ "sql": tables, "format": "csv" });
        let exists = self.post("/api/v1/sql", &body);
        // A server without that schema says at the query itself that there is no such table.
        if exists.is_ok_and(|names| !names.lines().any(|name| name.trim() == table)) {
            return Ok(BTreeMap::new());
        }
        let body = serde_json::json!({ "sql": sql, "format": "csv" });
        let text = match self.post("/api/v1/sql", &body) {
            Ok(text) => text,
            Err(error) if error.to_string().contains("not found") => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
        };
        let mut numbers = BTreeMap::new();
        for line in text.lines().skip(1) {
            if let Some((name, number)) = line.rsplit_once(',') {
                let number = number.trim().parse().unwrap_or(0);
                *numbers
                    .entry(name.trim_matches('"').to_owned())
                    .or_default() += number;
            }
        }
        Ok(numbers)
    }

    /// Whether the server's own audit holds.
    pub(crate) fn audit_holds(&self) -> Result<bool, BenchError> {
        let audit: serde_json::Value = serde_json::from_str(&self.get("/api/v1/audit")?)
            .map_err(|error| BenchError::Data(format!("the server's audit: {error}")))?;
        let number = |line: &serde_json::Value, key: &str| line[key].as_u64().unwrap_or(0);
        let lines = audit["lines"].as_array().cloned().unwrap_or_default();
        Ok(audit["damaged"].as_array().is_none_or(Vec::is_empty)
            && lines.iter().all(|line| {
                number(line, "stored") == number(line, "found")
                    && number(line, "rejected") + number(line, "quarantined")
                        == number(line, "rejects_found")
            }))
    }

    /// Enrolls whoever is not yet, several at a time; how many those were.
    pub(crate) fn enroll(&self, mut wanted: Vec<Enrolment>) -> Result<usize, BenchError> {
        let known: Vec<Enrolled> = serde_json::from_str(&self.get("/api/v1/devices")?)
            .map_err(|error| BenchError::Data(format!("the server's devices: {error}")))?;
        let known: BTreeMap<(&str, &str), &Enrolled> = known
            .iter()
            .filter(|entry| entry.state == "active")
            .map(|entry| ((entry.kind.as_str(), entry.id.as_str()), entry))
            .collect();
        wanted.retain(|one| {
            known.get(&(one.kind, one.id.as_str())).is_none_or(|entry| {
                !one.gateways
                    .iter()
                    .all(|name| entry.gateways.contains(name))
            })
        });
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(one) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.post("/api/v1/devices", &serde_json::json!(one))?;
            }
            Ok(())
        };
        let outcomes: Vec<Result<(), BenchError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..ENROLLING).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| {
                        Err(BenchError::Unavailable(
                            "a thread that enrolls failed".to_owned(),
                        ))
                    })
                })
                .collect()
        });
        outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(wanted.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_of_the_server_is_read() {
        let text = "# TYPE quiver_connections gauge\nquiver_connections 7\n\
                    quiver_log_commit_seconds{quantile=\"0.5\"} 0.0012\n\
                    quiver_log_commit_seconds{quantile=\"0.99\"} 0.004\n\
                    quiver_archived_bytes{stream=\"a\"} 5\nquiver_archived_bytes{stream=\"b\"} 6\n\
                    process_cpu_seconds_total 1.25\nprocess_resident_memory_bytes 4096\n# EOF\n";
        let sample = ServerSample::parse(text);
        assert_eq!(sample.connections, 7);
        assert_eq!(sample.cpu_seconds, 1.25);
        assert_eq!(sample.resident_bytes, 4_096);
        assert_eq!((sample.commit_p50, sample.commit_p99), (0.0012, 0.004));
        assert_eq!(sample.archived_bytes, 11);
    }
}
