//! Why a part failed, for people to read: what is wrong, where, and how to mend it.

use std::fmt;

/// One or more findings.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(Vec<String>);

impl Failure {
    /// A single finding.
    pub fn new(finding: impl Into<String>) -> Self {
        Self(vec![finding.into()])
    }

    /// `Ok` if there are no findings.
    pub fn unless_empty(findings: Vec<String>) -> Result<(), Self> {
        if findings.is_empty() {
            Ok(())
        } else {
            Err(Self(findings))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}
