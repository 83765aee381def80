//! `quiver tail`.

use std::io::{BufRead, BufReader};

use serde_json::{Map, Value};

use super::running;
use crate::{
    cli::TailArgs,
    exit::{Failure, UNAVAILABLE},
    say::{say, tell},
};

/// Shows rows as they come.
pub fn run(args: &TailArgs) -> Result<(), Failure> {
    let query: String = url_part(&args.port);
    let body = running(&args.target)?.stream(&format!("/api/v1/tail?port={query}"))?;
    let mut lines = BufReader::new(body);
    let mut shown = 0;
    let mut line = String::new();
    while args.limit.is_none_or(|limit| shown < limit) {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) => {
                return Err(Failure::new(UNAVAILABLE, "the engine has stopped"));
            }
            Ok(_) => {}
            Err(error) => {
                return Err(Failure::new(
                    UNAVAILABLE,
                    format!("the rows broke off: {error}"),
                ));
            }
        }
        let Ok(row) = serde_json::from_str::<Map<String, Value>>(&line) else {
            continue;
        };
        if let (Some(missed), 1) = (row.get("missed"), row.len()) {
            tell!("… {missed} rows were left out: they came faster than they could be shown");
            continue;
        }
        if args.json {
            say!("{}", line.trim_end());
        } else {
            say!("{}", readable(&row));
        }
        shown += 1;
    }
    Ok(())
}

/// A row as people read it: time, device, then the fields.
fn readable(row: &Map<String, Value>) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let fixed = |name: &str| row.get(name).map_or_else(String::new, text);
    let mut line = format!(
        "{}  {}",
        fixed(quiver_model::TS),
        fixed(quiver_model::DEVICE)
    );
    for (name, value) in row {
        if !quiver_model::RESERVED_COLUMNS.contains(&name.as_str()) {
            line.push_str(&format!("  {name}={}", text(value)));
        }
    }
    line
}

/// A text as a part of a URL.
fn url_part(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => (byte as char).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}
