//! `quiver send`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quiver_client::{
    ClientOptions, Compression, Token,
    file::{
        ColumnMap, FileError, FileFormat, FileOptions, SendFileError, SendOptions, TimeFormat,
        send_file,
    },
};
use quiver_model::{DeviceId, RejectCode, StreamName, SystemClock};
use quiver_pki::{ClientTls, Credential, rustls_client_config};

use crate::{
    access::{ServerAddresses, operator_dir},
    exit::{CONFIG, DATA, Failure, IO, UNAVAILABLE, USAGE, chain},
    numbers::grouped,
};

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
    /// Certificates of the server's CA (PEM)
    #[arg(long, env = "QUIVER_CA", requires_all = ["cert", "key"])]
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
    /// SOURCE=NAME, SOURCE=NAME:TYPE or SOURCE=:TYPE; may be repeated
    #[arg(long, env = "QUIVER_MAP", value_delimiter = ',')]
    map: Vec<ColumnMap>,
    /// Column to leave out; may be repeated
    #[arg(long, env = "QUIVER_DROP", value_delimiter = ',')]
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
    /// none, lz4, zstd (buffer by buffer) or message (zstd over whole batches)
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
    let client = client_options(&args, device.as_ref())?;
    let mut file = FileOptions::new(&args.file, stream);
    file.device = device;
    file.format = args.format;
    file.map = args.map;
    file.drop = args.drop;
    file.time_column = args.time_column;
    file.time_format = args.time_format;
    file.time_zone = args.timezone;
    let options = SendOptions {
        is_live: args.live,
        ..SendOptions::default()
    };

    let bar = bar();
    let sent = send_file(file, client, options, |progress| {
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
    println!("{outcome}");
    for rejected in report.rejected.iter().take(10) {
        eprintln!("batch {}: {}", rejected.sequence, rejected.message);
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
        (_, _, _, Some(_)) => {
            let ca = crate::access::ca_dir(&args.data_dir).join("ca.pem");
            let roots = quiver_pki::load_certificates(&ca).map_err(Failure::of_pem(CONFIG))?;
            ClientTls {
                roots,
                identity: None,
            }
        }
        _ => {
            let directory = operator_dir(&args.data_dir);
            let credential = Credential::load(&directory).map_err(|error| {
                Failure::new(
                    CONFIG,
                    format!(
                        "no operator credential in {}: {}; name the engine's --data-dir, or give --ca, --cert and --key",
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
        SendFileError::File(FileError::Io { .. }) => IO,
        SendFileError::File(_) | SendFileError::Send(_) | SendFileError::Flush(_) => DATA,
        SendFileError::Start(_) => CONFIG,
        SendFileError::Refused(_) | SendFileError::Unavailable { .. } => UNAVAILABLE,
    };
    Failure::with(code)(error)
}
