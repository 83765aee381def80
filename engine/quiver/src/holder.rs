//! Who holds a data directory that cannot be opened: an engine, which stays, or a verb at work on
//! an idle directory, which ends soon.

use std::path::Path;

/// Verbs that run an engine.
const ENGINES: [&str; 3] = ["serve", "demo", "bench"];
/// Verbs that open an idle directory.
const VERBS: [&str; 3] = ["sql", "audit", "archive"];

/// What a process does that holds a data directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Holder {
    /// It runs an engine.
    Engine,
    /// It works on the idle directory, with this verb.
    Verb(&'static str),
    /// It has ended, or has not yet written down its number.
    Gone,
    /// It is another program.
    Other,
}

impl Holder {
    /// The process with this number.
    pub fn of(pid: Option<u32>) -> Self {
        let Some(pid) = pid else {
            return Self::Gone;
        };
        let process = format!("/proc/{pid}");
        match std::fs::read(format!("{process}/cmdline")) {
            Ok(line) => Self::named(&line),
            Err(_) if Path::new(&process).exists() => Self::Other,
            Err(_) => Self::Gone,
        }
    }

    fn named(command_line: &[u8]) -> Self {
        // Nothing is left of a process that has ended and was not waited for.
        if command_line.is_empty() {
            return Self::Gone;
        }
        for argument in command_line.split(|byte| *byte == 0).skip(1) {
            if ENGINES.iter().any(|verb| verb.as_bytes() == argument) {
                return Self::Engine;
            }
            if let Some(verb) = VERBS.iter().find(|verb| verb.as_bytes() == argument) {
                return Self::Verb(verb);
            }
        }
        Self::Other
    }

    /// Whether it can be expected to let go by itself.
    pub fn ends_soon(&self) -> bool {
        matches!(self, Self::Verb(_) | Self::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verb_is_found_in_the_command_line() {
        let named = |line: &str| Holder::named(line.replace(' ', "\0").as_bytes());
        assert_eq!(
            named("/usr/bin/quiver serve --data-dir sql"),
            Holder::Engine
        );
        assert_eq!(named("quiver --log info sql serve"), Holder::Verb("sql"));
        assert_eq!(named("quiver archive check"), Holder::Verb("archive"));
        assert_eq!(named("vim"), Holder::Other);
        assert_eq!(Holder::of(Some(u32::MAX)), Holder::Gone);
        assert_eq!(Holder::of(None), Holder::Gone);
    }
}
