//! The loss audit: what was acknowledged against what queries find, device by device.
//!
//! For each device: rows found in its streams and in `rejects`, less those that were there before,
//! equal the rows acknowledged; rows that were sent and never acknowledged may be there or not, once.
//! Rows in `rejects` are as many as the scenario's clocks make expect.

use std::collections::{BTreeMap, HashMap};

use crate::{
    error::BenchError,
    result::AuditResult,
    scenario::{Scenario, Span},
    server::Http,
    values::device_name,
};

/// Rows further ahead than this are quarantined, by the server's default.
const FUTURE_LIMIT: Span = Span::seconds(86_400);
/// Faults that are told in words.
const TOLD: usize = 5;

/// What queries find at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stock {
    /// By device, over all streams of the scenario.
    stored: BTreeMap<String, u64>,
    /// By device, in `rejects`.
    rejects: BTreeMap<String, u64>,
}

impl Stock {
    pub(crate) fn take(http: &Http, scenario: &Scenario) -> Result<Self, BenchError> {
        let mut stock = Self::default();
        for stream in scenario.stream_names() {
            let sql = format!("SELECT device, count(*) FROM {stream} GROUP BY device");
            for (device, rows) in http.numbers(&stream, &sql)? {
                *stock.stored.entry(device).or_default() += rows;
            }
        }
        let sql = "SELECT device, sum(rows) FROM rejects GROUP BY device";
        stock.rejects = http.numbers("rejects", sql)?;
        Ok(stock)
    }
}

/// What the load generator knows.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Acknowledged rows by device.
    pub acked: HashMap<u32, u64>,
    /// Rows sent and not acknowledged, of all devices.
    pub unsettled_rows: u64,
    /// Rows of batches that were refused as a whole.
    pub rejected_rows: u64,
}

/// Compares.
pub(crate) fn audit(
    scenario: &Scenario,
    claims: &Claims,
    before: &Stock,
    after: &Stock,
) -> AuditResult {
    let more = |after: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>, name: &str| {
        let of = |stock: &BTreeMap<String, u64>| stock.get(name).copied().unwrap_or(0);
        of(after).saturating_sub(of(before))
    };
    let beyond_limit = scenario.future_by > FUTURE_LIMIT;
    let mut result = AuditResult {
        unsettled_rows: claims.unsettled_rows,
        ..AuditResult::default()
    };
    let mut spare = claims.unsettled_rows;
    for device in 0..scenario.devices {
        let name = device_name(scenario, device);
        let acked = claims.acked.get(&device).copied().unwrap_or(0);
        let stored = more(&after.stored, &before.stored, &name);
        let rejects = more(&after.rejects, &before.rejects, &name);
        let is_ahead = beyond_limit
            && (f64::from(device) + 0.5) / f64::from(scenario.devices.max(1))
                > 1.0 - scenario.future.0;
        result.acked_rows += acked;
        result.stored_rows += stored;
        result.rejects_rows += rejects;
        if is_ahead {
            result.expected_quarantined += acked;
        }
        let found = stored + rejects;
        let surplus = found.saturating_sub(acked);
        // What was sent and not acknowledged may be stored, but no row more than that.
        let explained = surplus.min(spare);
        spare -= explained;
        let wrong_place = if is_ahead { stored } else { rejects };
        let allowed = if claims.rejected_rows > 0 {
            wrong_place
        } else {
            0
        };
        if found < acked || surplus > explained || wrong_place > allowed {
            result.faulty_devices += 1;
            if result.faults.len() < TOLD {
                result.faults.push(format!(
                    "{name}: {acked} rows acknowledged, {stored} found stored and {rejects} in rejects"
                ));
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Knobs, Share};

    fn stock(stored: &[u64], rejects: &[u64]) -> Stock {
        let named = |rows: &[u64]| {
            let named = rows.iter().enumerate();
            named
                .map(|(device, rows)| (format!("bench-{device}"), *rows))
                .collect()
        };
        Stock {
            stored: named(stored),
            rejects: named(rejects),
        }
    }

    fn claims(acked: &[u64], unsettled_rows: u64) -> Claims {
        let numbered = acked.iter().enumerate();
        Claims {
            acked: numbered
                .map(|(device, rows)| (device as u32, *rows))
                .collect(),
            unsettled_rows,
            rejected_rows: 0,
        }
    }

    #[test]
    fn loss_and_surplus_of_single_devices_are_found_even_if_the_sum_is_right() {
        let scenario = Knobs {
            devices: Some(2),
            ..Knobs::default()
        }
        .resolve();
        let check = |acked: &[u64], unsettled, after: &[u64]| {
            audit(
                &scenario,
                &claims(acked, unsettled),
                &stock(&[5, 5], &[]),
                &stock(after, &[]),
            )
        };
        assert!(check(&[10, 20], 0, &[15, 25]).holds());
        let lost = check(&[10, 20], 0, &[14, 25]);
        assert!(
            !lost.holds() && lost.faults[0].contains("bench-0: 10 rows"),
            "{lost:?}"
        );
        assert!(
            !check(&[10, 20], 0, &[16, 24]).holds(),
            "one lost, one twice"
        );
        assert!(
            check(&[10, 20], 5, &[18, 27]).holds(),
            "unacknowledged rows may be stored"
        );
        assert!(
            !check(&[10, 20], 5, &[18, 28]).holds(),
            "but not more than were sent"
        );
    }

    #[test]
    fn rows_from_the_future_must_be_in_quarantine_and_no_others() {
        let scenario = Knobs {
            devices: Some(2),
            future: Some(Share(0.5)),
            ..Knobs::default()
        }
        .resolve();
        let none = Stock::default();
        let good = audit(
            &scenario,
            &claims(&[7, 9], 0),
            &none,
            &stock(&[7, 0], &[0, 9]),
        );
        assert!(good.holds() && good.expected_quarantined == 9, "{good:?}");
        let bad = audit(
            &scenario,
            &claims(&[7, 9], 0),
            &none,
            &stock(&[6, 0], &[1, 9]),
        );
        assert!(!bad.holds());
        let bad = audit(
            &scenario,
            &claims(&[7, 9], 0),
            &none,
            &stock(&[7, 9], &[0, 0]),
        );
        assert!(!bad.holds());
    }
}
