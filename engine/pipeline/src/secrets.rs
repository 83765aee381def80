//! What came into a configuration from outside, and is not shown with it.
//!
//! ```text
//! ${env:NAME}, ${file:PATH} ─value─▶ Secrets ─▶ diagnostics, pictures, results of tests, reasons of rows that failed
//! ```
//!
//! Values go many ways before they are shown: as names that are not known, as times that cannot be
//! read, in what a cast says of its argument. So what is shown is looked through in the end, not each
//! way watched.

use std::{borrow::Cow, sync::Arc};

/// Shorter values are in everything, and nobody's secret.
const BYTES_MIN: usize = 3;
/// What is shown in their place.
const MASK: &str = "***";

/// Values from outside.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<Vec<Box<[u8]>>>);

impl Secrets {
    /// Adds a value, and its lines if it has several, as they are and as they are quoted.
    pub fn add(&mut self, value: &str) {
        let all = Arc::make_mut(&mut self.0);
        for secret in std::iter::once(value).chain(value.lines()) {
            let secret = secret.trim();
            let quoted = secret.escape_debug().to_string();
            for secret in [secret.as_bytes(), quoted.as_bytes()] {
                if secret.len() >= BYTES_MIN && !all.iter().any(|known| **known == *secret) {
                    all.push(secret.into());
                }
            }
        }
        // What has another in it goes first, and goes whole.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text without them, whatever their letters' case: SQL changes that of names.
    pub fn masked<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut masked = Cow::Borrowed(text);
        for secret in self.0.iter() {
            if let Some(changed) = without(&masked, secret) {
                masked = Cow::Owned(changed);
            }
        }
        masked
    }

    /// Masks a text in its place.
    pub fn mask(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.masked(text) {
            *text = masked;
        }
    }
}

/// The text without a secret; `None` if it is not there.
fn without(text: &str, secret: &[u8]) -> Option<String> {
    let is_at = |start: usize| {
        let part = text.as_bytes().get(start..start + secret.len());
        part.is_some_and(|part| part.eq_ignore_ascii_case(secret))
    };
    let mut masked = String::new();
    let (mut copied, mut at) = (0, 0);
    while at + secret.len() <= text.len() {
        if is_at(at) {
            // ASCII ignores case, all else is equal: it begins and ends between characters.
            masked.push_str(text.get(copied..at)?);
            masked.push_str(MASK);
            at += secret.len();
            copied = at;
        } else {
            at += 1;
        }
    }
    if copied == 0 {
        return None;
    }
    masked.push_str(text.get(copied..)?);
    Some(masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_masked_whatever_became_of_them() {
        let mut secrets = Secrets::default();
        for value in [
            "Geheim",
            "5",
            "line one\nline \"two\"\n",
            "Geheimnis",
            "grün",
        ] {
            secrets.add(value);
        }
        for (text, expected) in [
            ("there is no stream `geheim`", "there is no stream `***`"),
            ("GEHEIMNIS, geheimgeheim", "***, ******"),
            ("5 is too short", "5 is too short"),
            ("in \"line one\"", "in \"***\""),
            (r#"cannot read "line \"two\"""#, r#"cannot read "***""#),
            ("ein grünes Blatt", "ein ***es Blatt"),
            ("", ""),
        ] {
            assert_eq!(secrets.masked(text), expected);
        }
        assert!(matches!(secrets.masked("nothing"), Cow::Borrowed(_)));
    }
}
