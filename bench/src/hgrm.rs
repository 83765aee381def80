//! Histograms as files that HdrHistogram's own tools read: `.hgrm`, the percentile distribution that
//! its plotter draws, and `.hlog`, a histogram for each interval.

use std::{
    fmt::Write as _,
    io::Write,
    time::{Duration, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder},
};

/// Lines for each halving of the distance to 100 %.
const TICKS: u32 = 5;
/// Microseconds in a millisecond, the unit of both files.
const MILLI: f64 = 1_000.0;

/// A point of the percentile distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percentile {
    /// Value, in microseconds.
    pub value: u64,
    /// Part of all values that are not above it.
    pub quantile: f64,
    /// How many those are.
    pub count: u64,
}

/// The distribution of a histogram, finer towards 100 %.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> Vec<Percentile> {
    let mut total = 0;
    histogram
        .iter_quantiles(TICKS)
        .map(|step| {
            total += step.count_since_last_iteration();
            Percentile {
                value: step.value_iterated_to(),
                quantile: step.quantile_iterated_to(),
                count: total,
            }
        })
        .collect()
}

/// A histogram of microseconds as the text of an `.hgrm` file, in milliseconds.
pub(crate) fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for step in percentiles(histogram) {
        let value = step.value as f64 / MILLI;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{value:12.3} {:2.12} {:10}",
            step.quantile, step.count
        );
        let _ = if step.quantile < 1.0 {
            writeln!(text, " {:14.2}", 1.0 / (1.0 - step.quantile))
        } else {
            // As the Java implementation writes it.
            writeln!(text)
        };
    }
    let (mean, deviation) = if histogram.is_empty() {
        (0.0, 0.0)
    } else {
        (histogram.mean() / MILLI, histogram.stdev() / MILLI)
    };
    let _ = writeln!(
        text,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    );
    let _ = writeln!(
        text,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        histogram.max() as f64 / MILLI,
        histogram.len()
    );
    let _ = writeln!(
        text,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        2_048
    );
    text
}

/// The intervals of a run, for an `.hlog` file.
pub(crate) struct IntervalLog {
    /// Start of each interval from the start of the load, its length, and what was recorded.
    intervals: Vec<(Duration, Duration, Histogram<u64>)>,
}

impl IntervalLog {
    pub(crate) const fn new() -> Self {
        Self {
            intervals: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, start: Duration, length: Duration, histogram: Histogram<u64>) {
        self.intervals.push((start, length, histogram));
    }

    /// The text of the file. `began` is the start of the load, in microseconds since 1970.
    pub(crate) fn text(&self, began_us: i64, comment: &str) -> std::io::Result<Vec<u8>> {
        let began =
            SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(began_us).unwrap_or(0));
        let mut out = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new()
            // What readers of the original look for.
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(comment)
            .with_start_time(began)
            .with_base_time(began)
            .with_max_value_divisor(MILLI)
            .begin_log_with(&mut out, &mut serializer)?;
        for (start, length, histogram) in &self.intervals {
            log.write_histogram(histogram, *start, *length, None)
                .map_err(|error| std::io::Error::other(format!("{error:?}")))?;
        }
        out.flush()?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::record::{histogram, record};

    fn filled() -> Histogram<u64> {
        let mut filled = histogram();
        for millis in 1..=1_000 {
            record(&mut filled, Duration::from_millis(millis));
        }
        filled
    }

    #[test]
    fn an_hgrm_has_the_columns_and_footer_of_the_original() {
        let text = hgrm(&filled());
        let mut lines = text.lines();
        assert_eq!(
            lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = lines
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|cell| cell.parse().unwrap())
                    .collect()
            })
            .collect();
        assert!(rows.len() > 20);
        assert!(
            rows.windows(2)
                .all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1])
        );
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!(
            (median[0] - 500.0).abs() < 2.0 && (median[3] - 2.0).abs() < 0.01,
            "{median:?}"
        );
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 1_000.0, 3));
        assert!(text.contains("#[Mean    =      500."), "{text}");
        assert!(text.contains("Total count    =         1000]"));
    }

    #[test]
    fn an_hlog_is_read_back_by_the_reader_of_the_format() {
        let mut log = IntervalLog::new();
        for second in 0..3 {
            log.add(
                Duration::from_secs(second),
                Duration::from_secs(1),
                filled(),
            );
        }
        let text = log.text(1_700_000_000_000_000, "few-large").unwrap();
        let mut intervals = 0;
        for entry in IntervalLogIterator::new(&text) {
            if let Ok(LogEntry::Interval(interval)) = entry {
                assert_eq!(interval.start_timestamp(), Duration::from_secs(intervals));
                assert!((interval.max() - 1_000.0).abs() < 1.0);
                assert!(!interval.encoded_histogram().is_empty());
                intervals += 1;
            }
        }
        assert_eq!(intervals, 3);
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("#[Histogram log format version 1.3]\n#few-large\n"),
            "{text}"
        );
    }
}
