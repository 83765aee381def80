//! How the program ends: the exit codes of sysexits.h, and a failure that carries one.

use std::fmt;

use quiver_pki::PemError;

/// The command line was used wrongly.
pub const USAGE: u8 = 64;
/// The data are not what they should be.
pub const DATA: u8 = 65;
/// A service is not available.
pub const UNAVAILABLE: u8 = 69;
/// Reading or writing failed.
pub const IO: u8 = 74;
/// The configuration is not what it should be.
pub const CONFIG: u8 = 78;

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// A failure with an exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Made into a function of the error, for `map_err`.
    pub fn with<E: std::error::Error>(code: u8) -> impl FnOnce(E) -> Self {
        move |error| Self::new(code, chain(&error))
    }

    /// For a PEM file: what cannot be read is a matter of reading, whatever the file was for;
    /// `code` says what it means if the content is wrong.
    pub fn of_pem(code: u8) -> impl FnOnce(PemError) -> Self {
        move |error| {
            let code = match &error {
                PemError::Io { .. } => IO,
                _ => code,
            };
            Self::with(code)(error)
        }
    }

    /// The exit code.
    pub const fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What it means that a result cannot be written. A reader that wants no more of it, such as
/// `head`, is no failure.
pub fn result_not_written(error: &std::io::Error) -> Result<(), Failure> {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    let text = format!("the result cannot be written: {error}");
    Err(Failure::new(IO, text))
}

/// An error with its causes in one line, none of them twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
