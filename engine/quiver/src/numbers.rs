//! Numbers and durations as people read them.

use std::time::Duration;

use quiver_pki::CA_LIFETIME;

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary unit.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{number} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Microseconds as milliseconds.
pub fn milliseconds(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1_000.0)
}

/// Parses `12s`, `500ms`, `10m`, `2h`, `1d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unit {unit:?} is not one of ms, s, m, h, d")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration such as 12s"))?;
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

/// Parses the time between two looks.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_millis(100) || interval > Duration::from_secs(3_600) {
        return Err("the time between two looks is 100ms to 1h".to_owned());
    }
    Ok(interval)
}

/// Parses the lifetime of a certificate, which a CA outlives.
pub fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = parse_duration(text)?;
    // Certificates count whole seconds.
    if lifetime < Duration::from_secs(1) {
        return Err("a certificate must be valid for a second at least, as in 365d".to_owned());
    }
    if lifetime > CA_LIFETIME {
        return Err(format!(
            "a certificate is of no use for longer than its CA is valid, {}d",
            CA_LIFETIME.as_secs() / 86_400
        ));
    }
    Ok(lifetime)
}

/// Parses `512MiB`, `64k`, `1G`; a bare number is bytes. Units are binary.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit
        .to_ascii_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("unit {unit:?} is not one of B, KiB, MiB, GiB, TiB")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a size such as 512MiB"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written_as_people_do() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(parse_duration("12s"), Ok(Duration::from_secs(12)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_duration("5 parsecs").is_err());
        assert_eq!(parse_interval("100ms"), Ok(Duration::from_millis(100)));
        assert!(parse_interval("0").is_err() && parse_interval("2h").is_err());
        assert_eq!(
            parse_lifetime("365d"),
            Ok(Duration::from_secs(365 * 86_400))
        );
        for wrong in [
            "0d",
            "500ms",
            "3651d",
            "100000000d",
            "99999999999999999999d",
            "-1d",
        ] {
            assert!(parse_lifetime(wrong).is_err(), "{wrong}");
        }
        assert!(parse_lifetime("3650d").is_ok() && parse_lifetime("1s").is_ok());
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("64k"), Ok(64 << 10));
        assert!(parse_bytes("x").is_err());
    }
}
