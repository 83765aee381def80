//! What verbs tell on standard output and standard error. A reader that wants no more of it, such
//! as `head`, ends neither the program nor what it does; any other failure to write a result is
//! told at the end.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write},
    sync::OnceLock,
};

use crate::exit::{Failure, result_not_written};

/// The first failure to write a result.
static FAILED: OnceLock<std::io::Error> = OnceLock::new();

/// Writes a line of the result; as `println!`, which panics when nobody reads it any more.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::line(::core::format_args!($($text)*)) };
}
/// Writes a line on standard error; as `eprintln!`.
macro_rules! tell {
    ($($text:tt)*) => { $crate::say::note(::core::format_args!($($text)*)) };
}
pub(crate) use {say, tell};

/// Writes a line of the result.
pub fn line(text: Arguments<'_>) {
    written(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Writes a part of a line of the result.
pub fn part(text: &str) {
    let mut out = std::io::stdout().lock();
    written(write!(out, "{text}").and_then(|()| out.flush()));
}

fn written(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Only the first one is told.
        let _ = FAILED.set(error);
    }
}

/// Writes a line on standard error. That nobody reads it is no failure.
pub fn note(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether everything that was said could be written.
///
/// # Errors
/// If something could not.
pub fn all_written() -> Result<(), Failure> {
    FAILED.get().map_or(Ok(()), result_not_written)
}
