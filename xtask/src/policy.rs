//! What `deny.toml` allows. The file is cargo-deny's, and cargo-deny reads all of it; these are
//! the parts checked where it is not installed. Not a TOML reader: it reads arrays of strings and
//! of one-line tables in the sections it knows, and refuses what it does not understand.

use crate::failure::Failure;

/// The parts of `deny.toml` that are checked here.
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    /// SPDX ids that any crate may have.
    pub licences: Vec<String>,
    /// Crates that may have one more.
    pub exceptions: Vec<Exception>,
    /// Crates that must not be there, or not older than something.
    pub bans: Vec<Ban>,
}

/// A licence for one crate alone.
#[derive(Debug, PartialEq, Eq)]
pub struct Exception {
    /// The crate.
    pub package: String,
    /// The SPDX id.
    pub licence: String,
}

/// A crate that is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Ban {
    /// The crate.
    pub package: String,
    /// The first version that is not refused; none is if this is `None`.
    pub floor: Option<Version>,
    /// Why.
    pub reason: String,
}

/// A release's version; what follows a `-` or `+` is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64, u64, u64);

impl Version {
    /// Reads `1.2.3`, `1.2` or `1`.
    pub fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(str::parse::<u64>);
        let mut next = || {
            numbers
                .next()
                .transpose()
                .ok()
                .map(Option::unwrap_or_default)
        };
        let version = Self(next()?, next()?, next()?);
        (!release.is_empty() && release.split('.').count() <= 3).then_some(version)
    }
}

impl Policy {
    /// Reads the text of `deny.toml`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let licences = quoted(&array(text, "licenses", "allow")?);
        let exceptions = tables(&array(text, "licenses", "exceptions")?)
            .map(|table| {
                let package = field(table, "crate");
                let list = table
                    .split_once('[')
                    .and_then(|(_, rest)| rest.split_once(']'));
                let licence = list.map(|(list, _)| quoted(list)).unwrap_or_default();
                match (package, licence.as_slice()) {
                    (Some(package), [licence]) => Ok(Exception {
                        package,
                        licence: licence.clone(),
                    }),
                    _ => Err(unknown("exceptions", table)),
                }
            })
            .collect::<Result<_, _>>()?;
        let bans: Vec<Ban> = tables(&array(text, "bans", "deny")?)
            .map(|table| Ban::parse(table).ok_or_else(|| unknown("deny", table)))
            .collect::<Result<_, _>>()?;
        if licences.is_empty() || bans.is_empty() {
            return Err(Failure::new(
                "deny.toml allows no licence, or bans nothing: it was not understood",
            ));
        }
        Ok(Self {
            licences,
            exceptions,
            bans,
        })
    }
}

impl Ban {
    fn parse(table: &str) -> Option<Self> {
        let spec = field(table, "crate")?;
        let reason = field(table, "reason")?;
        let (package, floor) = match spec.split_once(':') {
            None => (spec.as_str(), None),
            Some((package, range)) => (package, Some(Version::parse(range.strip_prefix('<')?)?)),
        };
        Some(Self {
            package: package.to_owned(),
            floor,
            reason,
        })
    }
}

fn unknown(key: &str, table: &str) -> Failure {
    Failure::new(format!(
        "deny.toml: `{key}` has an entry this check does not understand: {{{table}}}"
    ))
}

/// What stands between the brackets of `key = [ … ]` in `[section]`, without comments.
fn array(text: &str, section: &str, key: &str) -> Result<String, Failure> {
    let mut current = "";
    let mut lines = text.lines().map(without_comment);
    while let Some(line) = lines.next() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            current = name;
        }
        let value = line.strip_prefix(key).map(str::trim_start);
        let Some(start) = value.and_then(|rest| rest.strip_prefix('=')) else {
            continue;
        };
        if current != section {
            continue;
        }
        let mut body = start.to_owned();
        while body.matches('[').count() > body.matches(']').count() {
            let Some(line) = lines.next() else { break };
            body.push('\n');
            body.push_str(line);
        }
        let inside = body
            .trim()
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        return inside.map(str::to_owned).ok_or_else(|| {
            Failure::new(format!(
                "deny.toml: [{section}] {key} is not an array in brackets"
            ))
        });
    }
    Err(Failure::new(format!("deny.toml has no [{section}] {key}")))
}

/// A line without its comment; a `#` in a string begins none.
fn without_comment(line: &str) -> &str {
    let mut in_string = false;
    for (index, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => in_string = !in_string,
            b'#' if !in_string => return line[..index].trim(),
            _ => {}
        }
    }
    line.trim()
}

/// All strings in quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// What stands between braces.
fn tables(text: &str) -> impl Iterator<Item = &str> {
    text.split('{')
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap_or_default())
}

/// The string of `key = "…"` in a one-line table.
fn field(table: &str, key: &str) -> Option<String> {
    let start = table.find(&format!("{key} = \""))? + key.len() + 4;
    Some(table[start..].split('"').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r##"
[advisories]
version = 2
[licenses]
allow = [
    "MIT", # the "usual"
    "Apache-2.0",
]
exceptions = [{ allow = ["CC0-1.0"], crate = "tiny" }]
[bans]
multiple-versions = "allow"
deny = [
    # { crate = "not-this", reason = "a comment" },
    { crate = "quinn-proto:<0.11.18", reason = "RUSTSEC-1 # and others" },
    { crate = "openssl-sys", reason = "one TLS library" },
]
"##;

    #[test]
    fn licences_exceptions_and_floors_are_read() {
        let policy = Policy::parse(TEXT).unwrap();
        assert_eq!(policy.licences, ["MIT", "Apache-2.0"]);
        assert_eq!(
            policy.exceptions,
            [Exception {
                package: "tiny".into(),
                licence: "CC0-1.0".into()
            }]
        );
        let floor = Ban {
            package: "quinn-proto".into(),
            floor: Some(Version(0, 11, 18)),
            reason: "RUSTSEC-1 # and others".into(),
        };
        let whole = Ban {
            package: "openssl-sys".into(),
            floor: None,
            reason: "one TLS library".into(),
        };
        assert_eq!(policy.bans, [floor, whole]);
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_never_passed_over() {
        for (from, to) in [
            ("quinn-proto:<0.11.18", "quinn-proto:>=0.11.18"),
            ("reason = \"one TLS library\"", "wrappers = [\"x\"]"),
            ("[bans]", "[band]"),
            ("\"MIT\", # the \"usual\"\n    \"Apache-2.0\",", ""),
            ("crate = \"tiny\"", "name = \"tiny\""),
        ] {
            assert!(TEXT.contains(from));
            assert!(
                Policy::parse(&TEXT.replace(from, to)).is_err(),
                "{from} -> {to}"
            );
        }
    }

    #[test]
    fn versions_compare_by_number() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("0.11.9") < version("0.11.18"));
        assert!(version("1.11") == version("1.11.0"));
        assert!(version("0.103.17-rc.1+build") < version("0.104"));
        assert_eq!(Version::parse("x.1"), None);
        assert_eq!(Version::parse(""), None);
        assert_eq!(Version::parse("1.2.3.4"), None);
    }
}
