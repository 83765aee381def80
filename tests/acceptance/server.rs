//! A server process in a directory of its own.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a start, with recovery, may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Path of the built binary.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("QUIVER_TEST_BINARY") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap();
    let beside = test.parent().and_then(Path::parent).unwrap().join("quiver");
    assert!(
        beside.exists(),
        "{} is not built: run cargo build -p quiver, or cargo xtask test",
        beside.display()
    );
    beside
}

/// Runs the binary to its end.
pub fn quiver(args: &[&str]) -> Output {
    Command::new(binary())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs the binary; what it printed, if it succeeded.
#[track_caller]
pub fn quiver_ok(args: &[&str]) -> String {
    let output = quiver(args);
    assert!(
        output.status.success(),
        "quiver {args:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A server and its data directory.
pub struct Server {
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    quic: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Starts one with these further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let quic = SocketAddr::from(([127, 0, 0, 1], free_udp_port()));
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            quic,
            child: None,
        };
        server.restart();
        server
    }

    /// Starts it again on the same data directory and QUIC address.
    pub fn restart(&mut self) {
        assert!(self.child.is_none());
        let mut child = Command::new(binary())
            .arg("serve")
            .args(["--data-dir", self.data(), "--http", "127.0.0.1:0"])
            .args(["--quic", &self.quic.to_string()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("QUIVER_TEST_LOG").is_some() {
                Stdio::inherit()
            } else {
                Stdio::null()
            })
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (told, ready) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            // The third line says that every door is open; the rest is read so that nothing blocks.
            for (index, line) in BufReader::new(stdout).lines().enumerate() {
                if line.is_ok() && index == 2 {
                    let _ = told.try_send(());
                }
            }
        });
        let ready = ready.recv_timeout(START_TIMEOUT);
        self.child = Some(child);
        assert!(
            ready.is_ok(),
            "the server did not start; run with QUIVER_TEST_LOG=1 to see why"
        );
    }

    /// The next start has these further arguments.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Its data directory.
    pub fn data(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// A path in its data directory's parent that nobody else uses.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// UDP address of its QUIC door.
    pub fn quic(&self) -> SocketAddr {
        self.quic
    }

    /// TCP address of its HTTP door.
    pub fn http(&self) -> SocketAddr {
        let text = std::fs::read_to_string(self.path("server.json")).unwrap();
        let addresses: serde_json::Value = serde_json::from_str(&text).unwrap();
        addresses["http"].as_str().unwrap().parse().unwrap()
    }

    /// Content of its HTTP token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.path("http-token")).unwrap()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let pid = self.child.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1_024
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGHUP.
    pub fn reload(&self) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let signalled = Command::new("kill").args(["-HUP", &pid]).status();
        assert!(signalled.unwrap().success());
    }

    /// SIGTERM, and waits for the graceful end.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(60) {
                child.kill().unwrap();
                panic!("the server did not stop within a minute of SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "the server ended with {status}");
    }

    /// A query's result as CSV lines, without the header; on the running engine, or the idle data
    /// directory.
    #[track_caller]
    pub fn sql(&self, query: &str) -> Vec<String> {
        let text = quiver_ok(&["sql", "--data-dir", self.data(), "--format", "csv", query]);
        text.lines().skip(1).map(str::to_owned).collect()
    }

    /// A query's only value.
    #[track_caller]
    pub fn number(&self, query: &str) -> u64 {
        let rows = self.sql(query);
        assert_eq!(rows.len(), 1, "{query}: {rows:?}");
        rows[0].parse().unwrap()
    }

    /// Asserts that everything received is accounted for.
    #[track_caller]
    pub fn audit(&self) {
        quiver_ok(&["audit", "--data-dir", self.data()]);
    }

    /// Issues a certificate; its directory.
    pub fn issue(&self, kind: &str, id: &str, more: &[&str]) -> PathBuf {
        let out = self.path(&format!("credential-{kind}-{id}"));
        let mut args = vec![
            "pki",
            "issue",
            kind,
            id,
            "--data-dir",
            self.data(),
            "--out",
            out.to_str().unwrap(),
        ];
        args.extend(more);
        quiver_ok(&args);
        out
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
