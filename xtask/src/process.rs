//! Running other programs. None of them reads our standard input.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::failure::Failure;

/// Runs to the end with output passed through.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| Failure::new(format!("cannot run {}: {error}", shown(command))))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} ended with {status}",
        shown(command)
    )))
}

/// Runs to the end and returns what it printed; its standard error is passed through.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let mut text = String::new();
    lines(command, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    Ok(text)
}

/// Runs to the end and hands over each line of its standard output as it comes; its standard
/// error is passed through. Output that is not UTF-8 is read with replacement characters.
pub fn lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<(), Failure> {
    let program = shown(command);
    let cannot = |error| Failure::new(format!("cannot run {program}: {error}"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(cannot)? > 0 {
            each(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            line.clear();
        }
    }
    let status = child.wait().map_err(cannot)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{program} ended with {status}")))
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_read_and_a_failure_names_the_command() {
        assert_eq!(
            output(Command::new("echo").args(["a", "b"])),
            Ok("a b\n".to_owned())
        );
        let failure = run(&mut Command::new("false")).unwrap_err();
        assert!(
            failure.to_string().starts_with("false ended with"),
            "{failure}"
        );
        let failure = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(
            failure.to_string().contains("cannot run no-such-program"),
            "{failure}"
        );
    }
}
