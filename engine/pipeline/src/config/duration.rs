//! Spans of time as people write them: `250ms`, `1m30s`, `2h`, `7d`.

/// Units and their microseconds. A day is 24 hours here; days of the calendar are said otherwise.
const UNITS: [(&str, i64); 9] = [
    ("us", 1),
    ("µs", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
    ("w", 604_800_000_000),
];

/// Microseconds of a span of time.
///
/// # Errors
/// What is wrong, and how it is written.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "{text:?} is no span of time; write a number and a unit (us, ms, s, m, h, d, w), as in \"1m30s\""
        )
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    if rest == "0" {
        return Ok(0);
    }
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = rest[digits..].trim_start();
        let letters = rest
            .find(|letter: char| !letter.is_alphabetic())
            .unwrap_or(rest.len());
        let unit = &rest[..letters];
        let (_, micros) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        total += number * *micros as f64;
        rest = rest[letters..].trim_start();
    }
    // A hundred years, and far from what an i64 or the integers of an f64 can have.
    if total > 3.2e15 {
        return Err(format!("{text:?} is longer than a hundred years"));
    }
    Ok(total.round() as i64)
}

/// The shortest way to write microseconds.
pub fn duration_text(micros: i64) -> String {
    if micros == 0 {
        return "0s".to_owned();
    }
    let mut rest = micros.unsigned_abs();
    let mut text = String::new();
    if micros < 0 {
        text.push('-');
    }
    for (unit, size) in [
        ("d", 86_400_000_000_u64),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ] {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, micros) in [
            ("250ms", 250_000),
            ("1m30s", 90_000_000),
            ("1.5h", 5_400_000_000),
            ("2 h", 7_200_000_000),
            ("7d", 604_800_000_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(micros), "{text}");
            assert_eq!(parse_duration(&duration_text(micros)), Ok(micros));
        }
        for text in ["", "5", "m", "5 parsecs", "-1s", "1s-", "1..2s", "5000000d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(duration_text(90_000_000), "1m30s");
    }
}
