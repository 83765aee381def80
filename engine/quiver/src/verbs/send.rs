//! `quiver send`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quiver_client::{
    ClientEvent, ClientOptions, Compression, Observer, Token,
    file::{
        AmbiguousTimes, ColumnMap, FileError, FileFormat, FileOptions, SendFileError, SendOptions,
        TimeFormat, send_file,
    },
};
use quiver_model::{DeviceId, RejectCode, StreamName, SystemClock};
use quiver_pki::{ClientTls, Credential, rustls_client_config};

use crate::{
    access::{ServerAddresses, operator_dir},
    exit::{CONFIG, DATA, Failure, IO, UNAVAILABLE, USAGE, chain},
    numbers::grouped,
    say::{say, tell},
};

/// What `quiver send --help` ends with.
pub const HELP: &str = "Examples:
  quiver send --stream machine --device press_1 --data-dir quiver-data machine_temperature.csv
  quiver send --stream taxi --device nyc --map value=passengers nyc_taxi.csv \\
    --timezone America/New_York --ambiguous-times earlier
  quiver send --stream oven --device oven_2 --drop id --drop \"note, internal\" \\
    --timestamp-format %d.%m.%Y --map pulses=:int64 oven.csv

A file is identified by its content and these options: sent again it is stored once, but one that
has grown or changed is another file, of which all rows are sent. A file with a value that cannot
be stored is refused before its first row is sent, with the line and a remedy.

Numbers of CSV and JSON lines are float64, whole ones too; --map COLUMN=:int64 makes a column whole
numbers of up to 64 bits. What would become another number is an error: 9007199254740993 or 1e-400
as float64, 1.5 as int64. A number with leading zeros, such as 007, makes its column text. The
words inf, infinity and nan are stored as such.

Times that are numbers count from 1970 in the unit of --timestamp-format, or by their magnitude.
A pattern without a time of day, such as %d.%m.%Y, is midnight in --timezone. Timestamps of Parquet
and Arrow files beside the event time are timestamp fields; --map COLUMN=:timestamp makes any column
one, written as --timestamp-format says or as the column's first value is. Dates stay text.

Text: blanks around a value are cut unless it is quoted; \"\" is an empty text, nothing is null.";

/// `send`.
#[derive(Args, Debug)]
pub struct SendArgs {
    /// QUIC address of the engine [default: that of the engine on the data directory]
    #[arg(long, env = "QUIVER_QUIC_SERVER")]
    server: Option<SocketAddr>,
    /// Name that the server's certificate must have
    #[arg(long, env = "QUIVER_SERVER_NAME", default_value = "localhost")]
    server_name: String,
    /// Data directory of an engine on this machine: CA and credentials are found there
    #[arg(long, env = "QUIVER_DATA_DIR", default_value = "quiver-data")]
    data_dir: PathBuf,
    /// Certificates of the server's CA (PEM), with --cert and --key or with --token
    #[arg(long, env = "QUIVER_CA")]
    ca: Option<PathBuf>,
    /// Own certificate chain (PEM), of an operator, a gateway or the device itself
    #[arg(long, env = "QUIVER_CERT", requires_all = ["ca", "key"])]
    cert: Option<PathBuf>,
    /// Own private key (PEM)
    #[arg(long, env = "QUIVER_KEY", requires_all = ["ca", "cert"])]
    key: Option<PathBuf>,
    /// Bearer token of the device, instead of --cert and --key
    #[arg(
        long,
        env = "QUIVER_TOKEN",
        hide_env_values = true,
        requires = "device"
    )]
    token: Option<String>,
    /// Stream to write to
    #[arg(long, env = "QUIVER_STREAM")]
    stream: String,
    /// Device that the rows are of [default: column device of the file]
    #[arg(long, env = "QUIVER_DEVICE")]
    device: Option<String>,
    /// csv, tsv, jsonl, parquet or arrow [default: by the file's name]
    #[arg(long, env = "QUIVER_FILE_FORMAT")]
    format: Option<FileFormat>,
    /// SOURCE=NAME, SOURCE=NAME:TYPE or SOURCE=:TYPE; may be repeated, in the environment one a line
    // Not at commas: names of columns may have them.
    #[arg(long, env = "QUIVER_MAP", value_delimiter = '\n')]
    map: Vec<ColumnMap>,
    /// Column to leave out; may be repeated, in the environment one a line
    #[arg(long, env = "QUIVER_DROP", value_delimiter = '\n')]
    drop: Vec<String>,
    /// Column that has the event time [default: found by its name and content]
    #[arg(long = "timestamp", env = "QUIVER_TIMESTAMP", value_name = "COLUMN")]
    time_column: Option<String>,
    /// auto, rfc3339, s, ms, us, ns, or a pattern such as "%d.%m.%Y %H:%M"
    #[arg(
        long = "timestamp-format",
        env = "QUIVER_TIMESTAMP_FORMAT",
        value_name = "FORMAT",
        default_value = "auto"
    )]
    time_format: TimeFormat,
    /// Time zone of times that name none [default: UTC]
    #[arg(long, env = "QUIVER_TIMEZONE")]
    timezone: Option<String>,
    /// error, earlier or later: local times that the clocks showed twice
    #[arg(
        long,
        env = "QUIVER_AMBIGUOUS_TIMES",
        value_name = "WHICH",
        default_value_t = AmbiguousTimes::Error
    )]
    ambiguous_times: AmbiguousTimes,
    /// none, lz4, zstd (buffer by buffer), message (zstd over whole batches) or compact (what changes
    /// from row to row; for small batches)
    #[arg(long, env = "QUIVER_COMPRESSION", value_enum, default_value_t = SentAs::Message)]
    compression: SentAs,
    /// Send as live data, not as a backlog that live data overtakes
    #[arg(long, env = "QUIVER_LIVE")]
    live: bool,
    /// The file
    file: PathBuf,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SentAs {
    None,
    Lz4,
    Zstd,
    Message,
    Compact,
}

/// Sends a file and returns when every row is settled.
pub async fn run(args: SendArgs) -> Result<(), Failure> {
    let stream = StreamName::for_sender(&args.stream).map_err(Failure::with(USAGE))?;
    let device = args
        .device
        .as_deref()
        .map(DeviceId::new)
        .transpose()
        .map_err(Failure::with(USAGE))?;
    let mut client = client_options(&args, device.as_ref())?;
    let mut file = FileOptions::new(&args.file, stream);
    file.device = device;
    file.format = args.format;
    file.map = args.map;
    file.drop = args.drop;
    file.time_column = args.time_column;
    file.time_format = args.time_format;
    file.time_zone = args.timezone;
    file.ambiguous_times = args.ambiguous_times;
    let options = SendOptions {
        is_live: args.live,
        ..SendOptions::default()
    };

    let bar = bar();
    let waits = Arc::new(Waits::default());
    client.observer = Some(observer(Arc::clone(&waits), bar.clone()));
    let mut settled = 0;
    let sent = send_file(file, client, options, |progress| {
        if progress.rows_settled > settled {
            settled = progress.rows_settled;
            say(&bar, waits.settled());
        }
        bar.set_length(progress.rows_total);
        bar.set_position(progress.rows_settled);
    })
    .await;
    bar.finish_and_clear();
    let report = sent.map_err(failure)?;
    let refused_rows: u64 = report.rows_refused.values().sum();
    let mut outcome = format!(
        "{}: {} rows settled: {} stored, {} were there already, {} refused",
        args.file.display(),
        grouped(report.rows),
        grouped(report.rows_stored),
        grouped(report.rows_duplicate),
        grouped(report.rows_rejected + refused_rows)
    );
    if report.rows_unreported > 0 {
        outcome += &format!(
            ", {} of which the engine no longer says how",
            grouped(report.rows_unreported)
        );
    }
    say!("{outcome}");
    for rejected in report.rejected.iter().take(10) {
        tell!("batch {}: {}", rejected.sequence, rejected.message);
    }
    let reasons: Vec<String> = report
        .rows_refused
        .iter()
        .map(|(number, rows)| format!("{} {}", grouped(*rows), reason(*number)))
        .collect();
    let refused = report.rows_rejected + refused_rows;
    if refused > 0 {
        let reasons = if reasons.is_empty() {
            String::new()
        } else {
            format!(" ({})", reasons.join(", "))
        };
        return Err(Failure::new(
            DATA,
            format!(
                "{} rows were refused{reasons}; see them with: quiver sql \"SELECT device, code, message, payload FROM rejects WHERE producer = '{:016x}'\"",
                grouped(refused),
                report.producer.get()
            ),
        ));
    }
    Ok(())
}

/// A reason for which single rows are refused, in words.
fn reason(number: u32) -> String {
    let code = u16::try_from(number).ok().and_then(RejectCode::from_number);
    match code {
        Some(code) if code.is_quarantine() => format!("{code}, quarantined"),
        Some(code) => code.to_string(),
        None => format!("for reason {number}"),
    }
}

/// What is said of an engine that does not take rows for now. Sending goes on by itself, so each
/// reason is said once, and then that it goes on.
#[derive(Debug, Default)]
struct Waits(Mutex<Option<Wait>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wait {
    /// Without a connection; else the stream is paused.
    is_away: bool,
    reason: String,
}

impl Waits {
    fn on_event(&self, event: &ClientEvent) -> Option<String> {
        match event {
            ClientEvent::StreamPaused { message, .. } => self.waiting(Wait {
                is_away: false,
                reason: format!("the engine takes no rows for now: {message}"),
            }),
            ClientEvent::Disconnected { reason, .. } if !reason.is_refusal() => {
                self.waiting(Wait {
                    is_away: true,
                    reason: format!("no connection: {reason}"),
                })
            }
            ClientEvent::Connected { .. } => self.end(|wait| wait.is_away, "connected"),
            _ => None,
        }
    }

    /// Rows were settled.
    fn settled(&self) -> Option<String> {
        self.end(|_| true, "the engine takes rows again; going on")
    }

    fn waiting(&self, wait: Wait) -> Option<String> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() == Some(&wait) {
            return None;
        }
        let text = format!("{}; trying again until it goes on", wait.reason);
        *told = Some(wait);
        Some(text)
    }

    fn end(&self, is_over: impl Fn(&Wait) -> bool, text: &str) -> Option<String> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.take_if(|wait| is_over(wait)).map(|_| text.to_owned())
    }
}

fn observer(waits: Arc<Waits>, bar: ProgressBar) -> Arc<dyn Observer> {
    Arc::new(move |event: &ClientEvent| say(&bar, waits.on_event(event)))
}

/// A line above the bar.
fn say(bar: &ProgressBar, text: Option<String>) {
    if let Some(text) = text {
        bar.suspend(|| tell!("{text}"));
    }
}

fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} rows  {per_sec}  {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    // indicatif draws on terminals only.
    ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style)
}

fn client_options(args: &SendArgs, device: Option<&DeviceId>) -> Result<ClientOptions, Failure> {
    let server = match args.server {
        Some(server) => server,
        None => {
            ServerAddresses::load(&args.data_dir)
                .ok_or_else(|| {
                    Failure::new(
                        UNAVAILABLE,
                        format!(
                            "no engine has run on {}; name one with --server, or its directory with --data-dir",
                            args.data_dir.display()
                        ),
                    )
                })?
                .quic
        }
    };
    let clock = Arc::new(SystemClock::new());
    let tls = match (&args.ca, &args.cert, &args.key, &args.token) {
        (Some(ca), Some(cert), Some(key), _) => {
            ClientTls::new(Credential::load_files(ca, cert, key).map_err(Failure::of_pem(CONFIG))?)
        }
        (ca, _, _, Some(_)) => {
            let ca = match ca {
                Some(ca) => ca.clone(),
                None => crate::access::ca_dir(&args.data_dir).join("ca.pem"),
            };
            let roots = quiver_pki::load_certificates(&ca).map_err(Failure::of_pem(CONFIG))?;
            ClientTls {
                roots,
                identity: None,
            }
        }
        (Some(_), _, _, None) => {
            return Err(Failure::new(
                USAGE,
                "--ca names the server's CA only; give --cert and --key, or --token and --device, as well"
                    .to_owned(),
            ));
        }
        _ => {
            let directory = operator_dir(&args.data_dir);
            let credential = Credential::load(&directory).map_err(|error| {
                Failure::new(
                    CONFIG,
                    format!(
                        "no operator credential in {}: {}; name the engine's --data-dir, or give --ca with --cert and --key, or with --token",
                        directory.display(),
                        chain(&error)
                    ),
                )
            })?;
            ClientTls::new(credential)
        }
    };
    let tls = rustls_client_config(tls, clock).map_err(Failure::with(CONFIG))?;
    let mut options = ClientOptions::new(server, args.server_name.clone(), tls);
    options.compression = match args.compression {
        SentAs::None => Compression::None,
        SentAs::Lz4 => Compression::Lz4,
        SentAs::Zstd => Compression::Zstd,
        SentAs::Message => Compression::ZstdMessage,
        SentAs::Compact => Compression::Compact,
    };
    options.software = concat!("quiver-send/", env!("CARGO_PKG_VERSION")).to_owned();
    if let (Some(secret), Some(device)) = (&args.token, device) {
        options.token = Some(Token {
            device: device.clone(),
            secret: secret.clone(),
        });
    }
    Ok(options)
}

fn failure(error: SendFileError) -> Failure {
    let code = match &error {
        SendFileError::File(FileError::Io { .. } | FileError::Aborted { .. }) => IO,
        SendFileError::File(_) | SendFileError::Send(_) | SendFileError::Flush(_) => DATA,
        SendFileError::Start(_) => CONFIG,
        SendFileError::Refused(_) | SendFileError::Unavailable { .. } => UNAVAILABLE,
    };
    Failure::with(code)(error)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use quiver_client::Disconnect;

    use super::*;
    use crate::cli::{Cli, Verb};

    #[test]
    fn columns_are_named_whole_also_with_commas() {
        let flags = ["--drop", "a,b", "--drop", "c", "--map", "temp, C=t:int64"];
        let (verb, more) = (
            ["quiver", "send", "--stream", "s"],
            ["--map", "d=e", "f.csv"],
        );
        let all = verb.iter().chain(&flags).chain(&more);
        let Verb::Send(args) = Cli::try_parse_from(all).unwrap().verb else {
            panic!("another verb");
        };
        assert_eq!(args.drop, ["a,b", "c"]);
        let sources: Vec<_> = args.map.iter().map(|map| map.source.as_str()).collect();
        assert_eq!(sources, ["temp, C", "d"]);
        // What is wrong is said of all that was given.
        let wrong = [
            "quiver",
            "send",
            "--stream",
            "s",
            "--map",
            "a,b=c,d:float",
            "f.csv",
        ];
        let error = Cli::try_parse_from(wrong).unwrap_err().to_string();
        assert!(error.contains("a,b=c,d:float"), "{error}");
    }

    #[test]
    fn a_reason_to_wait_is_said_once_and_again_when_it_changes_or_is_over() {
        let waits = Waits::default();
        let paused = |message: &str| ClientEvent::StreamPaused {
            stream: StreamName::for_sender("s").unwrap(),
            code: 0xffff_ffff,
            message: message.to_owned(),
        };
        let lost = ClientEvent::Disconnected {
            reason: Disconnect::Failed("timed out".into()),
            retry_in: std::time::Duration::ZERO,
        };
        let connected = ClientEvent::Connected {
            session: 1,
            server: "s".into(),
        };
        assert_eq!(waits.settled(), None);
        assert_eq!(waits.on_event(&connected), None);
        let said = waits.on_event(&paused("the disk is full")).unwrap();
        assert!(said.contains("the disk is full"), "{said}");
        assert_eq!(waits.on_event(&paused("the disk is full")), None);
        assert!(waits.on_event(&paused("too many rows")).is_some());
        assert_eq!(waits.on_event(&connected), None, "it is still paused");
        assert!(waits.settled().is_some());
        assert_eq!(waits.settled(), None);
        assert!(waits.on_event(&lost).unwrap().contains("timed out"));
        assert_eq!(waits.on_event(&lost), None);
        assert!(waits.on_event(&connected).is_some());
    }
}
