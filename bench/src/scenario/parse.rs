//! Scenario files: TOML with one key a knob.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Knobs, Scenario, check::Fault, shipped::SHIPPED};
use crate::error::BenchError;

/// A scenario by the name of a shipped one or the path of a file, with `flags` over it.
///
/// # Errors
/// If there is none, or it cannot be; see [`parse`].
pub fn load(which: Option<&str>, flags: Knobs) -> Result<Scenario, BenchError> {
    let Some(which) = which else {
        return finish(Knobs::default(), flags, None);
    };
    if let Some(shipped) = SHIPPED.iter().find(|shipped| shipped.name == which) {
        return parse(&format!("{}.toml", shipped.name), shipped.text, flags);
    }
    let path = Path::new(which);
    if !path.exists() && !which.contains(['/', '.']) {
        let names: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
        return Err(BenchError::Usage(format!(
            "there is no scenario {which:?}; shipped are {}, or give the path of a TOML file",
            names.join(", ")
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| BenchError::io("read the scenario", path, &error))?;
    parse(which, &text, flags)
}

/// A scenario from the text of a file that is called `name`, with `flags` over it.
///
/// # Errors
/// Names the file and line, or the flag, of a key that is not known or a value that cannot be, and
/// says what to write instead.
pub fn parse(name: &str, text: &str, flags: Knobs) -> Result<Scenario, BenchError> {
    let wrong = |offset: usize, message: &str| {
        BenchError::Usage(format!(
            "{name}:{}: {}; quiver bench --help describes every key",
            line_of(text, offset),
            message.trim_end().replace('\n', ": ")
        ))
    };
    let table = DeTable::parse(text)
        .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message()))?;
    let mut knobs = Knobs::default();
    // Key by key, so that an error has the place of its own.
    for (key, value) in table.get_ref() {
        let object = serde_json::json!({ key.get_ref().as_ref(): json(value.get_ref()) });
        let one: Knobs = serde_json::from_value(object)
            .map_err(|error| wrong(key.span().start, &format!("{}: {error}", key.get_ref())))?;
        knobs = one.over(knobs);
    }
    finish(knobs, flags, Some((name, text)))
}

fn finish(knobs: Knobs, flags: Knobs, file: Option<(&str, &str)>) -> Result<Scenario, BenchError> {
    let scenario = flags.over(knobs).resolve();
    scenario
        .check()
        .map_err(|fault| BenchError::Usage(describe(&fault, file)))?;
    Ok(scenario)
}

fn describe(fault: &Fault, file: Option<(&str, &str)>) -> String {
    let Fault { key, message } = fault;
    let flag = format!("--{}", key.replace('_', "-"));
    let place = file.and_then(|(name, text)| {
        let line = text.lines().position(|line| key_of(line) == Some(key))?;
        Some(format!("{name}:{}", line + 1))
    });
    match place {
        Some(place) => format!("{place}: {key}: {message} (or override it with {flag})"),
        None => format!("{flag}: {message}"),
    }
}

fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.as_str().into(), serde_json::Value::from),
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .map_or_else(|_| number.as_str().into(), serde_json::Value::from),
        DeValue::Boolean(flag) => (*flag).into(),
        // No knob is one of these: the error says what it should be.
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => serde_json::Value::Null,
    }
}

fn key_of(line: &str) -> Option<&str> {
    line.split_once('=').map(|(key, _)| key.trim())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Identity, Span};

    fn error(text: &str) -> String {
        parse("x.toml", text, Knobs::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn every_shipped_scenario_is_sound_and_begins_with_its_purpose() {
        for shipped in SHIPPED {
            let flags = Knobs {
                // Those that replay need a file from the user.
                file: Some("recorded.parquet".into()),
                ..Knobs::default()
            };
            let parsed = parse(shipped.name, shipped.text, flags);
            assert!(parsed.is_ok(), "{}: {parsed:?}", shipped.name);
            assert!(shipped.text.starts_with("# "), "{}", shipped.name);
            assert!(shipped.purpose().len() > 20, "{}", shipped.name);
        }
        assert!(SHIPPED.len() >= 12);
    }

    #[test]
    fn errors_name_file_line_and_remedy() {
        let text = error("# x\ndevices = 5\ndevises = 6\n");
        assert!(
            text.starts_with("x.toml:3: ") && text.contains("devises"),
            "{text}"
        );
        let text = error("devices = 5\nduration = \"5 parsecs\"\n");
        assert!(
            text.starts_with("x.toml:2: ") && text.contains("us, ms, s"),
            "{text}"
        );
        let text = error("rows = 10\n\nloss = 1.5\n");
        assert!(
            text.starts_with("x.toml:3: ") && text.contains("0 to 1"),
            "{text}"
        );
        let text = error("rows = 0\n");
        assert!(
            text.starts_with("x.toml:1: rows: ") && text.contains("--rows"),
            "{text}"
        );
        let text = error("values = \"file\"\n");
        assert!(
            text.starts_with("--file: ") && text.contains("Parquet"),
            "{text}"
        );
        let text = error("arrivals = \"sometimes\"\n");
        assert!(text.contains("poisson"), "{text}");
    }

    #[test]
    fn flags_go_over_the_file_and_defaults_under_it() {
        let flags = Knobs {
            rows: Some(7),
            ..Knobs::default()
        };
        let scenario = parse("x.toml", "rows = 5\nidentity = \"gateway\"\n", flags).unwrap();
        assert_eq!(scenario.rows, 7);
        assert_eq!(scenario.identity, Identity::Gateway);
        assert_eq!(scenario.duration, Span::seconds(30));
        let unknown = load(Some("no-such"), Knobs::default()).unwrap_err();
        assert!(unknown.to_string().contains("few-large"));
    }
}
