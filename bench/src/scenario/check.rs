//! What the values of a scenario must satisfy together, and the numbers that follow from them.

use super::knobs::{Arrivals, Identity, Scenario, Values};

/// A key whose value cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub key: &'static str,
    pub message: String,
}

fn fault<T>(key: &'static str, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault {
        key,
        message: message.into(),
    })
}

impl Scenario {
    /// Connections in all.
    pub fn connection_count(&self) -> u32 {
        match (self.identity, self.connections) {
            (Identity::Device, _) => self.devices,
            (_, 0) => self.devices.min(8),
            (_, connections) => connections,
        }
    }

    /// Names of the streams that each connection writes to.
    pub fn stream_names(&self) -> Vec<String> {
        match (self.values, self.streams) {
            (Values::Trucks, _) => ["readings", "diagnostics"]
                .iter()
                .map(|part| format!("{}_{part}", self.stream))
                .collect(),
            (_, 1) => vec![self.stream.clone()],
            (_, streams) => (0..streams)
                .map(|index| format!("{}_{index}", self.stream))
                .collect(),
        }
    }

    /// Sources of batches: streams of connections.
    pub fn source_count(&self) -> usize {
        self.connection_count() as usize * self.stream_names().len()
    }

    /// Whether packets go through the proxy.
    pub fn needs_proxy(&self) -> bool {
        self.loss.0 > 0.0 || !self.delay.is_zero() || !self.jitter.is_zero()
    }

    /// Whether acknowledgements, not a schedule, say when the next batch is sent.
    pub fn is_flat_out(&self) -> bool {
        self.rate == 0 && self.arrivals != Arrivals::Replay
    }

    /// Rows that follow each other on one source are this far apart, in microseconds.
    pub fn row_interval_us(&self) -> i64 {
        if self.rate == 0 {
            return 0;
        }
        let per_source = self.rate as f64 / self.source_count().max(1) as f64;
        (1e6 / per_source).max(1.0) as i64
    }

    /// Finds values that cannot be, or contradict each other.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.check_counts()?;
        self.check_values()?;
        if self.duration.is_zero() {
            return fault("duration", "must be longer than nothing, such as 30s");
        }
        if !(self.speed > 0.0 && self.speed.is_finite()) {
            return fault(
                "speed",
                "must be above 0; 1 is as recorded, 10 ten times faster",
            );
        }
        if !(self.connect_rate >= 0.0 && self.connect_rate.is_finite()) {
            return fault("connect_rate", "must be 0 (all at once) or more");
        }
        if self.loss.0 >= 1.0 {
            return fault("loss", "must be below 1: nothing would arrive at all");
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), Fault> {
        for (key, value, most) in [
            ("devices", self.devices, 1_000_000),
            ("streams", self.streams, 128),
            ("rows", self.rows, 65_536),
            ("fields", self.fields, 1_000),
            ("burst", self.burst, 100_000),
            ("window", self.window, 1_000_000),
            ("devices_per_batch", self.devices_per_batch, 65_536),
            ("message_bytes", self.message_bytes, 1 << 20),
        ] {
            if value == 0 || value > most {
                return fault(key, format!("is {value}; give 1 to {most}"));
            }
        }
        if self.identity == Identity::Device {
            if self.connections != 0 && self.connections != self.devices {
                return fault(
                    "connections",
                    "with identity = device each device has its own; leave it out, or set identity = gateway or operator",
                );
            }
            if self.devices_per_batch != 1 {
                return fault(
                    "devices_per_batch",
                    "a device sends its own rows only; set identity = gateway or operator",
                );
            }
            if self.streams > 16 {
                return fault(
                    "streams",
                    "a device may have 16 at once; gateways and operators 128",
                );
            }
        } else if self.connection_count() > self.devices {
            return fault(
                "connections",
                "there are more connections than devices; a gateway without devices sends nothing",
            );
        }
        let sends_fields = !matches!(
            self.values,
            Values::Trucks | Values::Messages | Values::File
        );
        if self.fields > 64 && sends_fields && self.identity != Identity::Operator {
            return fault(
                "fields",
                "a device or gateway may bring 64 new fields a day; set identity = operator",
            );
        }
        if self.devices > 20_000 && self.identity == Identity::Device {
            return fault(
                "devices",
                "a server takes 20,000 connections; let gateways speak for more devices",
            );
        }
        if self.prebuilt > 0 && !self.coalesce.is_zero() {
            return fault(
                "prebuilt",
                "what is collected cannot be encoded before; leave out coalesce or prebuilt",
            );
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), Fault> {
        let is_name = |name: &str| {
            name.len() <= 40
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        if !is_name(&self.stream) || self.stream.starts_with("quiver_") {
            return fault(
                "stream",
                format!(
                    "{:?} is no stream's name; use up to 40 of [a-z0-9_], the first a letter, not quiver_",
                    self.stream
                ),
            );
        }
        let needs_file = self.values == Values::File || self.arrivals == Arrivals::Replay;
        if needs_file && self.file.as_os_str().is_empty() {
            return fault(
                "file",
                "is needed with values = file and arrivals = replay: name a Parquet file or a directory of them",
            );
        }
        if self.arrivals == Arrivals::Replay && self.values != Values::File {
            return fault(
                "values",
                "must be \"file\" with arrivals = replay: what was recorded is sent",
            );
        }
        if self.arrivals == Arrivals::Replay && !self.coalesce.is_zero() {
            return fault(
                "coalesce",
                "does not go with arrivals = replay, whose batches are as recorded",
            );
        }
        if self.decimals > 12 {
            return fault("decimals", "give 0 to 12");
        }
        if self.late.0 + self.future.0 > 1.0 {
            return fault(
                "future",
                "late and future together are more than all devices",
            );
        }
        for (key, span) in [
            ("late_by", self.late_by),
            ("future_by", self.future_by),
            ("disorder_by", self.disorder_by),
        ] {
            if span.0.as_secs() > 300 * 86_400 {
                return fault(
                    key,
                    "give at most 300d: the rows of a batch may lie 366 days apart",
                );
            }
        }
        Ok(())
    }
}
