//! Numbers as people read them.

/// `1234567.8` as `1,234,568`.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as milliseconds.
pub(crate) fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1_000.0;
    match millis {
        m if m >= 1_000.0 => format!("{:.2} s", m / 1_000.0),
        m if m >= 100.0 => format!("{m:.0} ms"),
        m if m >= 10.0 => format!("{m:.1} ms"),
        m => format!("{m:.2} ms"),
    }
}

/// Bytes with a binary unit.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or("");
    if value >= 100.0 || unit == "B" {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A number with a decimal prefix: `1.2 M`.
pub(crate) fn si(number: f64) -> String {
    for (size, prefix) in [(1e9, " G"), (1e6, " M"), (1e3, " k")] {
        if number.abs() >= size {
            let scaled = number / size;
            let is_whole = scaled.fract().abs() < 0.05;
            let digits = usize::from(scaled.abs() < 100.0 && !is_whole);
            return format!("{scaled:.digits$}{prefix}");
        }
    }
    if number.fract().abs() < 0.05 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        assert_eq!(grouped(1_234_567.8), "1,234,568");
        assert_eq!(millis(1_234), "1.23 ms");
        assert_eq!(millis(2_500_000), "2.50 s");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(si(12_345_678.0), "12.3 M");
        assert_eq!(si(20_000.0), "20 k");
        assert_eq!(si(7.0), "7");
    }
}
