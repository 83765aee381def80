//! README's commands, word for word: what a reader types must do what the page says.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::server::binary;

/// The commands of README's section "Use it", without their comments.
fn commands() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let section = readme.split("## Use it").nth(1).unwrap();
    let block = section.split("```console\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let lines = block.lines().filter_map(|line| line.strip_prefix("$ "));
    lines
        .map(|line| line.split("  #").next().unwrap_or(line))
        .map(|line| line.split(" # ").next().unwrap_or(line).trim().to_owned())
        .collect()
}

struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(directory: &Path, line: &str) -> Command {
    let bin = directory.join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .current_dir(directory)
        .stdin(Stdio::null())
        // Free ports: the page's own may be in use where tests run.
        .env("QUIVER_QUIC", "127.0.0.1:0")
        .env("QUIVER_HTTP", "127.0.0.1:0")
        .env("PATH", format!("{}:{path}", bin.display()));
    command
}

#[test]
fn what_the_page_says_works_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let bin = directory.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(binary(), bin.join("quiver")).unwrap();
    let sample =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/nab/rogue_agent_key_hold.csv");
    let rows = std::fs::read_to_string(&sample).unwrap().lines().count() - 1;
    std::fs::copy(&sample, directory.path().join("machine_temperature.csv")).unwrap();

    let mut server = None;
    let mut counted = false;
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for line in commands {
        if let Some(line) = line.strip_suffix('&') {
            let child = shell(directory.path(), &format!("exec {line}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            server = Some(Background(child));
            let doors = directory.path().join("fleet-data/server.json");
            let begun = Instant::now();
            while !doors.exists() {
                assert!(begun.elapsed() < Duration::from_secs(60), "{line}");
                std::thread::sleep(Duration::from_millis(20));
            }
            continue;
        }
        let output = shell(directory.path(), &line).output().unwrap();
        assert!(
            output.status.success(),
            "{line}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        if line.contains("count(*)") {
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(&rows.to_string()), "{line}:\n{text}");
            counted = true;
        }
    }
    assert!(counted && server.is_some());
    let written = directory.path().join("machine.parquet");
    assert!(std::fs::read(written).unwrap().starts_with(b"PAR1"));
}
