//! The command line's side of the HTTP door.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use crate::{
    access::{self, ServerAddresses},
    exit::{DATA, Failure, UNAVAILABLE, result_not_written},
};

/// Bytes of a result that are handed on at a time.
const COPY_BYTES: usize = 64 * 1024;

/// Largest answer that is taken as a whole, in bytes: what is said of millions of devices.
const ANSWER_BYTES_MAX: u64 = 2 << 30;

/// An engine that answers over HTTP.
pub struct Remote {
    base: String,
    token: String,
    agent: ureq::Agent,
}

impl Remote {
    /// The engine at an address; the token is that of `data_dir`, or of `QUIVER_HTTP_TOKEN`.
    pub fn new(address: SocketAddr, data_dir: Option<&Path>) -> Result<Self, Failure> {
        let token = match std::env::var("QUIVER_HTTP_TOKEN") {
            Ok(token) => token,
            Err(_) => {
                let data_dir = data_dir.unwrap_or(Path::new("quiver-data"));
                let path = data_dir.join("http-token");
                std::fs::read_to_string(&path).map_err(|error| {
                    Failure::new(
                        UNAVAILABLE,
                        format!(
                            "no token for {address}: {} cannot be read ({error}); name the server's --data-dir, or set QUIVER_HTTP_TOKEN",
                            path.display()
                        ),
                    )
                })?
            }
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Self {
            base: format!("http://{address}"),
            token: token.trim().to_owned(),
            agent,
        })
    }

    /// The engine that runs on a data directory, if one does.
    pub fn running_on(data_dir: &Path) -> Option<Self> {
        let addresses = ServerAddresses::load(data_dir)?;
        if !Path::new(&format!("/proc/{}", addresses.pid)).exists() {
            return None;
        }
        let token = access::http_token(data_dir).ok()?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let remote = Self {
            base: format!("http://{}", addresses.http),
            token,
            agent,
        };
        remote.get("/api/v1/status").ok().map(|_| remote)
    }

    /// Where it is: `http://127.0.0.1:8080`.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn failed(&self, error: &ureq::Error) -> Failure {
        Failure::new(
            UNAVAILABLE,
            format!("{} does not answer: {error}", self.base),
        )
    }

    fn checked(
        &self,
        mut response: ureq::http::Response<ureq::Body>,
    ) -> Result<ureq::Body, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let message = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned))
            .unwrap_or_else(|| format!("{} answers {status}", self.base));
        let code = if status.is_server_error() || status.as_u16() == 401 {
            UNAVAILABLE
        } else {
            DATA
        };
        Err(Failure::new(code, message))
    }

    /// GET, as JSON text.
    pub fn get(&self, path: &str) -> Result<String, Failure> {
        self.get_with(path, &[])
    }

    /// GET with these parameters (name and value), as JSON text.
    pub fn get_with(&self, path: &str, parameters: &[(&str, &str)]) -> Result<String, Failure> {
        let response = self
            .agent
            .get(format!("{}{path}", self.base))
            .query_pairs(parameters.iter().copied())
            .header("Authorization", format!("Bearer {}", self.token))
            .call()
            .map_err(|error| self.failed(&error))?;
        self.checked(response)?
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| self.failed(&error))
    }

    /// GET of an answer that does not end by itself.
    pub fn stream(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        let response = self
            .agent
            .get(format!("{}{path}", self.base))
            .header("Authorization", format!("Bearer {}", self.token))
            .call()
            .map_err(|error| self.failed(&error))?;
        Ok(self
            .checked(response)?
            .into_with_config()
            .limit(u64::MAX)
            .reader())
    }

    /// POST of JSON; the body of the answer.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Result<ureq::Body, Failure> {
        let response = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Content-Type", "application/json")
            .send(body.to_string())
            .map_err(|error| self.failed(&error))?;
        self.checked(response)
    }

    /// POST of JSON; the answer as JSON text.
    pub fn post_text(&self, path: &str, body: &serde_json::Value) -> Result<String, Failure> {
        self.post(path, body)?
            .read_to_string()
            .map_err(|error| self.failed(&error))
    }

    /// A query, which may take `timeout` if one is given; writes the result to `sink` as it comes.
    pub fn sql(
        &self,
        sql: &str,
        format: &str,
        timeout: Option<Duration>,
        sink: &mut dyn Write,
    ) -> Result<(), Failure> {
        let mut body = serde_json::json!({ "sql": sql, "format": format });
        if let Some(timeout) = timeout {
            // Never 0, which the engine does not take.
            let milliseconds = timeout.as_millis().max(1);
            body["timeout_ms"] = u64::try_from(milliseconds).unwrap_or(u64::MAX).into();
        }
        let mut reader = self.post("/api/v1/sql", &body)?.into_reader();
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let bytes = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let text = format!("the result broke off: {error}");
                    return Err(Failure::new(UNAVAILABLE, text));
                }
            };
            if let Err(error) = sink.write_all(&buffer[..bytes]) {
                return result_not_written(&error);
            }
        }
        sink.flush().or_else(|error| result_not_written(&error))
    }
}
