//! An engine of the same program in a child process with a directory of its own, so that one
//! command does everything and the two sides still share neither process nor allocator.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::error::BenchError;

/// How long a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a graceful end may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines that say that every door is open.
const READY_LINES: usize = 3;

/// A running child. Ends with this value.
pub(crate) struct Child {
    process: std::process::Child,
    directory: PathBuf,
    /// Removed in the end.
    _temporary: TempDir,
}

impl Child {
    /// Starts `quiver serve` with `more` arguments, in a new directory in `parent`.
    pub(crate) fn start(parent: &Path, more: &[String]) -> Result<Self, BenchError> {
        let temporary = tempfile::Builder::new()
            .prefix("quiver-bench-")
            .tempdir_in(parent)
            .map_err(|error| BenchError::io("make a directory in", parent, &error))?;
        let directory = temporary.path().join("data");
        let program = std::env::current_exe()
            .map_err(|error| BenchError::Io(format!("cannot find this program: {error}")))?;
        let mut process = Command::new(&program)
            .arg("serve")
            .arg("--data-dir")
            .arg(&directory)
            .args([
                "--quic",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--enroll-unknown",
            ])
            .args(more)
            .env("QUIVER_LOG", "warn")
            // Ctrl-C is for the harness alone: the server must live until the audit is done.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| BenchError::io("start", &program, &error))?;
        let output = process.stdout.take();
        let (told, ready) = std::sync::mpsc::sync_channel(1);
        if let Some(output) = output {
            // Reads on to the end, so that nothing blocks; ends with the process.
            std::thread::spawn(move || {
                for (index, line) in BufReader::new(output).lines().enumerate() {
                    if line.is_ok() && index + 1 == READY_LINES {
                        let _ = told.try_send(());
                    }
                }
            });
        }
        let child = Self {
            process,
            directory,
            _temporary: temporary,
        };
        match ready.recv_timeout(START_TIMEOUT) {
            Ok(()) => Ok(child),
            Err(_) => Err(BenchError::Unavailable(format!(
                "the engine did not start in {}; what it said is above",
                child.directory.display()
            ))),
        }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.directory
    }

    /// Lets it flush and end.
    pub(crate) fn stop(mut self) {
        let pid = self.process.id().to_string();
        // Without it the wait below ends in a kill, which loses nothing that was acknowledged.
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let naps = STOP_TIMEOUT.as_millis() / 20;
        for _ in 0..naps {
            if matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
