//! The command line. Every flag has a `QUIVER_*` twin in the environment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    given::Given,
    logging::LogFormat,
    numbers::{parse_duration, parse_interval, parse_lifetime},
    settings::EngineArgs,
    verbs::{send::SendArgs, top::Column},
};

/// Where data are unless said otherwise.
const DATA_DIR: &str = "quiver-data";

/// A time-series engine for device fleets: QUIC in, Arrow through, Parquet out.
#[derive(Parser, Debug)]
#[command(
    name = "quiver",
    version,
    about,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// Form of diagnostics on standard error
    #[arg(long, global = true, env = "QUIVER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What diagnostics are shown, for instance info or warn,quiver_runtime=debug [default: info for serve, warn otherwise]
    #[arg(long, global = true, env = "QUIVER_LOG")]
    pub log: Option<String>,
    /// Which settings were given.
    #[arg(skip)]
    pub given: Given,
}

impl Cli {
    /// The command line of this process.
    pub fn read() -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches()?;
        let mut cli =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut Self::command()))?;
        cli.given = Given::of(&matches);
        Ok(cli)
    }
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Run the engine with a simulated fleet of trucks, no configuration needed
    #[command(
        after_help = "Examples:\n  quiver demo --devices 200 --rate 50000 --duration 12s\n  quiver demo --config examples/fleet.toml"
    )]
    Demo(DemoArgs),
    /// Run the engine
    #[command(
        after_help = "Example:\n  quiver serve --data-dir /var/lib/quiver --quic 127.0.0.1:4433 --http 127.0.0.1:8080"
    )]
    Serve(ServeArgs),
    /// Stream a file of rows to an engine; running it again stores nothing twice
    #[command(
        after_help = crate::verbs::send::HELP
    )]
    Send(SendArgs),
    /// Run a query over hot and archived rows
    #[command(
        after_help = "Examples:\n  quiver sql \"SELECT device, count(*) FROM readings GROUP BY device\"\n  quiver sql --format parquet \"SELECT * FROM readings\" > readings.parquet\n  quiver sql \"SELECT * FROM last_cache('readings')\""
    )]
    Sql(SqlArgs),
    /// Prove that nothing was lost: rows received against rows that queries find
    #[command(after_help = "Example:\n  quiver audit --data-dir quiver-data")]
    Audit(AuditArgs),
    /// The archive: its files, whether they are sound, merging small ones, deleting replaced ones
    #[command(
        after_help = "Examples:\n  quiver archive files readings\n  quiver archive check\n  quiver archive suggest readings\n  quiver archive compact readings\n  quiver archive vacuum --older-than 7d --dry-run"
    )]
    Archive(ArchiveArgs),
    /// Load an engine and measure it: open loop, HDR histograms, loss audit
    #[command(
        after_help = "Examples:\n  quiver bench --list\n  quiver bench --serve --scenario few-large --html report.html --json after.json\n  quiver bench --scenario gateway --rate 200000 --duration 1m --data-dir quiver-data\n  quiver bench compare before.json after.json"
    )]
    Bench(Box<quiver_bench::cli::BenchArgs>),
    /// Certificates for development and for fleets
    #[command(
        after_help = "Examples:\n  quiver pki issue device truck_1 --out truck_1\n  quiver pki show truck_1/cert.pem"
    )]
    Pki(PkiArgs),
    /// The identities that may connect
    #[command(
        after_help = "Examples:\n  quiver devices enroll truck_1 truck_2 --attribute fleet=north\n  quiver devices enroll --from fleet.csv --gateway gw_1\n  quiver devices set truck_1 truck_2 --attribute fleet=west --remove model\n  quiver devices import fleet.csv\n  quiver devices list --where fleet=west\n  quiver devices revoke truck_1"
    )]
    Devices(DevicesArgs),
    /// The streams: what fields they have
    #[command(
        after_help = "Example:\n  quiver streams declare readings fuel=decimal(1) velocity=decimal(0) note=utf8"
    )]
    Streams(StreamsArgs),
    /// Check a configuration: every problem at once, with its place and how to mend it
    #[command(after_help = "Example:\n  quiver validate fleet.toml")]
    Validate(ValidateArgs),
    /// Draw a configuration's graph
    #[command(
        after_help = "Examples:\n  quiver graph fleet.toml\n  quiver graph fleet.toml --format svg > fleet.svg\n  quiver graph fleet.toml --format svg --server 127.0.0.1:8080 > now.svg"
    )]
    Graph(GraphArgs),
    /// Say what an engine would do with a changed configuration: what is kept, what begins anew
    #[command(after_help = "Example:\n  quiver plan fleet.toml --server 127.0.0.1:8080")]
    Plan(PlanArgs),
    /// Show rows of a stream, node or port as they come
    #[command(
        after_help = "Examples:\n  quiver tail readings\n  quiver tail coolant_5m\n  quiver tail coolant_5m.late --json --limit 10"
    )]
    Tail(TailArgs),
    /// Show what passes through the graph of an engine, live: rows a second in and out of every node
    #[command(
        after_help = "Examples:\n  quiver top\n  quiver top --server 127.0.0.1:8080 --sort in/s\n  quiver top --once > now.txt\n\nKeys: q, Esc or Ctrl-C ends; left and right choose the column to sort by, r reverses, g is the order of the graph; up and down scroll. Not on a terminal: one table."
    )]
    Top(TopArgs),
    /// Run the tests of a configuration, in virtual time
    #[command(
        after_help = "Examples:\n  quiver test fleet.toml\n  quiver test fleet.toml --only hot --junit report.xml\n\nTests are in the configuration, or beside it in NAME.test.toml. Exit code 65: a test failed."
    )]
    Test(TestArgs),
    /// Show the version
    #[command(after_help = "Example:\n  quiver version")]
    Version,
}

/// `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Trucks, each with a connection of its own
    #[arg(long, env = "QUIVER_DEVICES", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub devices: u32,
    /// Rows a second of the whole fleet; 0 for as fast as it goes
    #[arg(long, env = "QUIVER_RATE", default_value_t = 20_000)]
    pub rate: u64,
    /// End by itself after this long [default: at Ctrl-C]
    #[arg(long, env = "QUIVER_DURATION", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Configuration of a graph over the fleet's streams: a file, or a directory of *.toml
    #[arg(long, env = "QUIVER_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What the verbs that run an engine have in common.
#[derive(Args, Debug)]
pub struct NodeArgs {
    /// Directory of log, archive and credentials
    #[arg(long, env = "QUIVER_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// UDP address of the QUIC door [default: 127.0.0.1:4433 for serve, a free port for demo]
    #[arg(long, env = "QUIVER_QUIC")]
    pub quic: Option<SocketAddr>,
    /// TCP address of the HTTP door [default: 127.0.0.1:8080 for serve, a free port for demo]
    #[arg(long, env = "QUIVER_HTTP")]
    pub http: Option<SocketAddr>,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Name under which the HTTP door may be asked, beside localhost; may be repeated
    #[arg(long, env = "QUIVER_HTTP_HOST", value_delimiter = ',')]
    pub http_host: Vec<String>,
    /// Certificates of the CA that issues senders' certificates (PEM) [default: a development CA in the data directory]
    #[arg(long, env = "QUIVER_CA", requires_all = ["cert", "key"])]
    pub ca: Option<PathBuf>,
    /// The server's certificate chain (PEM)
    #[arg(long, env = "QUIVER_CERT", requires_all = ["ca", "key"])]
    pub cert: Option<PathBuf>,
    /// The server's private key (PEM)
    #[arg(long, env = "QUIVER_KEY", requires_all = ["ca", "cert"])]
    pub key: Option<PathBuf>,
    /// Let devices identify themselves by bearer token too
    #[arg(long, env = "QUIVER_TOKENS")]
    pub tokens: bool,
    /// Enroll unknown identities that have a certificate of the CA (loopback only)
    #[arg(long, env = "QUIVER_ENROLL_UNKNOWN")]
    pub enroll_unknown: bool,
    /// Configuration of the graph: a file, or a directory of *.toml. SIGHUP reads it again
    #[arg(long, env = "QUIVER_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Which engine or data directory a verb is about.
#[derive(Args, Debug, Clone)]
pub struct TargetArgs {
    /// HTTP address of a running engine
    #[arg(long, env = "QUIVER_SERVER")]
    pub server: Option<SocketAddr>,
    /// Data directory of an engine that runs on this machine; for sql, audit and archive also of an idle one
    #[arg(long, env = "QUIVER_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
}

/// `sql`.
#[derive(Args, Debug)]
pub struct SqlArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Form of the result: table, csv, json, jsonl, arrow or parquet
    #[arg(long, env = "QUIVER_FORMAT", default_value = "table")]
    pub format: String,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// The query
    pub query: String,
}

/// `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Show the result as JSON
    #[arg(long, env = "QUIVER_JSON")]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `archive`.
#[derive(Args, Debug)]
pub struct ArchiveArgs {
    /// What to do
    #[command(subcommand)]
    pub action: ArchiveAction,
}

/// Actions of `archive`.
#[derive(Subcommand, Debug)]
pub enum ArchiveAction {
    /// List the files that the tables list
    Files(ArchiveTarget),
    /// Check every file: present, readable, as its table says
    Check(ArchiveTarget),
    /// Find float fields that are decimals, with the least scale that is exact, and what declaring it would save
    Suggest(ArchiveTarget),
    /// Merge small files of a day into large ones; the small ones stay until vacuum
    Compact(ArchiveTarget),
    /// Delete files that no table lists any more: replaced by compact, or left by failed flushes
    Vacuum(VacuumArgs),
}

/// `archive vacuum`.
#[derive(Args, Debug)]
pub struct VacuumArgs {
    #[command(flatten)]
    pub target: ArchiveTarget,
    /// Keep files that were replaced, or left, more recently than this: a reader that opened the
    /// table before may still be reading them. Queries of the engine itself are safe with any value
    #[arg(long, env = "QUIVER_OLDER_THAN", default_value = "7d", value_parser = parse_duration)]
    pub older_than: Duration,
    /// Say what would be deleted, and delete nothing
    #[arg(long, env = "QUIVER_DRY_RUN")]
    pub dry_run: bool,
}

/// Which part of which archive.
#[derive(Args, Debug)]
pub struct ArchiveTarget {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Show the result as JSON
    #[arg(long, env = "QUIVER_JSON")]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// The stream [default: all]
    pub stream: Option<String>,
}

/// `pki`.
#[derive(Args, Debug)]
pub struct PkiArgs {
    /// What to do
    #[command(subcommand)]
    pub action: PkiAction,
}

/// Actions of `pki`.
#[derive(Subcommand, Debug)]
pub enum PkiAction {
    /// Make the development CA, if there is none, and show where it is
    Init {
        /// Data directory that has the CA
        #[arg(long, env = "QUIVER_DATA_DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
    },
    /// Issue a certificate and its key: cert.pem, key.pem and ca.pem in a new directory
    Issue {
        /// device, gateway, operator or server
        kind: String,
        /// Id of the device, gateway or operator; for a server its names, separated by commas
        id: String,
        /// Directory to make [default: KIND-ID]
        #[arg(long, env = "QUIVER_OUT")]
        out: Option<PathBuf>,
        /// How long it is valid: a second to 3650d, the lifetime of the CA
        #[arg(long, env = "QUIVER_VALID_FOR", default_value = "365d", value_parser = parse_lifetime)]
        valid_for: Duration,
        /// When it begins to be valid, RFC 3339 [default: now]
        #[arg(long, env = "QUIVER_NOT_BEFORE")]
        not_before: Option<String>,
        /// Use Ed25519 instead of ECDSA P-256
        #[arg(long, env = "QUIVER_ED25519")]
        ed25519: bool,
        /// Data directory that has the CA
        #[arg(long, env = "QUIVER_DATA_DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
    },
    /// Show what a certificate says
    Show {
        /// PEM file
        file: PathBuf,
    },
}

/// `devices`.
#[derive(Args, Debug)]
pub struct DevicesArgs {
    /// What to do
    #[command(subcommand)]
    pub action: DevicesAction,
}

/// Actions of `devices`.
#[derive(Subcommand, Debug)]
pub enum DevicesAction {
    /// List every identity, or those that have an attribute
    #[command(after_help = "Example:\n  quiver devices list --where fleet=west --where model=TGX")]
    List {
        #[command(flatten)]
        target: TargetArgs,
        /// Attribute that it must have, key=value; may be repeated, in the environment one a line:
        /// it must have all of them
        #[arg(
            long = "where",
            env = "QUIVER_WHERE",
            value_name = "KEY=VALUE",
            value_delimiter = '\n'
        )]
        with: Vec<String>,
        /// Show the result as JSON
        #[arg(long, env = "QUIVER_JSON")]
        json: bool,
    },
    /// Show one identity
    Show {
        #[command(flatten)]
        target: TargetArgs,
        /// device, gateway or operator
        #[arg(long, env = "QUIVER_KIND", default_value = "device")]
        kind: String,
        /// Its id
        id: String,
    },
    /// Let an identity connect, or change what is said of it
    Enroll {
        #[command(flatten)]
        target: TargetArgs,
        /// device, gateway or operator
        #[arg(long, env = "QUIVER_KIND", default_value = "device")]
        kind: String,
        /// SHA-256 of the one certificate it may use [default: any of the CA]
        #[arg(long, env = "QUIVER_FINGERPRINT")]
        fingerprint: Option<String>,
        /// Gateway that may speak for it; may be repeated
        #[arg(long, env = "QUIVER_GATEWAY", value_delimiter = ',')]
        gateway: Vec<String>,
        /// key=value; may be repeated, in the environment one a line. At most 64, of 256 bytes; keys
        /// are [A-Za-z_][A-Za-z0-9_]{0,62}, so that expressions can name them: device.key
        // Not at commas: values may have them.
        #[arg(long, env = "QUIVER_ATTRIBUTE", value_delimiter = '\n')]
        attribute: Vec<String>,
        /// Make a bearer token for it, and show it this once
        #[arg(long, env = "QUIVER_NEW_TOKEN")]
        token: bool,
        /// File of identities, - for standard input: one id a line, or CSV with the header
        /// id[,kind][,gateway]. Wrong lines are named and left out
        #[arg(long, env = "QUIVER_FROM", value_name = "FILE", conflicts_with_all = ["ids", "token", "fingerprint"])]
        from: Option<PathBuf>,
        /// Its id; several may be enrolled at once
        #[arg(required_unless_present = "from", value_name = "ID")]
        ids: Vec<String>,
    },
    /// Change attributes of identities, and nothing else: they stay connected
    #[command(
        after_help = "Examples:\n  quiver devices set truck_1 truck_2 --attribute fleet=west --attribute \"site=Oslo, north\"\n  quiver devices set truck_1 --remove model\n\nWhat is not named stays as it is, and so does what is so already. An identity that is not enrolled is named (exit code 65), and the others are done."
    )]
    Set {
        #[command(flatten)]
        target: TargetArgs,
        /// device, gateway or operator
        #[arg(long, env = "QUIVER_KIND", default_value = "device")]
        kind: String,
        /// key=value to be set; may be repeated, in the environment one a line. At most 64 in all, of
        /// 256 bytes; keys are [A-Za-z_][A-Za-z0-9_]{0,62}, so that expressions can name them: device.key
        #[arg(
            long,
            env = "QUIVER_ATTRIBUTE",
            value_name = "KEY=VALUE",
            value_delimiter = '\n',
            required_unless_present = "remove"
        )]
        attribute: Vec<String>,
        /// Key of an attribute to be removed; may be repeated
        #[arg(long, env = "QUIVER_REMOVE", value_name = "KEY", value_delimiter = ',')]
        remove: Vec<String>,
        /// Ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Take attributes of many identities from a CSV file; running it again changes nothing
    #[command(
        after_help = "Examples:\n  quiver devices import fleet.csv\n  quiver devices import --existing-only - < fleet.csv\n\nThe file begins with a header: id[,kind][,gateway][,fingerprint], and any other column is an attribute.\n  id,gateway,fleet,site\n  truck_1,gw_1,west,\"Oslo, north\"\n  truck_2,,east,\nAn empty cell of an attribute removes it (truck_2 has no site then), an empty one of another column leaves what there is. A gateway is one more that may speak for the device. Who is not known is enrolled; who is revoked stays so. A cell does not have line breaks. Lines that are wrong are named with their number and left out (exit code 65), and the others are done."
    )]
    Import {
        #[command(flatten)]
        target: TargetArgs,
        /// Leave out, and name, identities that are not enrolled, instead of enrolling them
        #[arg(long, env = "QUIVER_EXISTING_ONLY")]
        existing_only: bool,
        /// The file, - for standard input
        file: PathBuf,
    },
    /// Close its connections, and let it connect no more
    Revoke {
        #[command(flatten)]
        target: TargetArgs,
        /// device, gateway or operator
        #[arg(long, env = "QUIVER_KIND", default_value = "device")]
        kind: String,
        /// Its id
        id: String,
    },
}

/// `validate`.
#[derive(Args, Debug)]
pub struct ValidateArgs {
    /// Show the problems as JSON
    #[arg(long, env = "QUIVER_JSON")]
    pub json: bool,
    /// The configuration: a file, or a directory of *.toml
    pub file: PathBuf,
}

/// `graph`.
#[derive(Args, Debug)]
pub struct GraphArgs {
    /// Form of the picture: ascii, svg, dot or mermaid
    #[arg(long, env = "QUIVER_FORMAT", default_value = "ascii")]
    pub format: String,
    /// HTTP address of an engine that runs the graph: rows a second are drawn at the connections
    #[arg(long, env = "QUIVER_SERVER")]
    pub server: Option<SocketAddr>,
    /// Data directory of that engine, which has its token
    #[arg(long, env = "QUIVER_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// How long rows are counted for
    #[arg(long, env = "QUIVER_DURATION", value_parser = parse_duration, default_value = "2s")]
    pub duration: Duration,
    /// The configuration: a file, or a directory of *.toml
    pub file: PathBuf,
}

/// `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// The configuration: a file, or a directory of *.toml
    pub file: PathBuf,
}

/// `tail`.
#[derive(Args, Debug)]
pub struct TailArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Show rows as JSON, one a line
    #[arg(long, env = "QUIVER_JSON")]
    pub json: bool,
    /// End after so many rows
    #[arg(long, env = "QUIVER_LIMIT")]
    pub limit: Option<u64>,
    /// Stream, node, or node.port
    pub port: String,
}

/// `top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print one table and end
    #[arg(long, env = "QUIVER_ONCE")]
    pub once: bool,
    /// Time between two looks, at least 100ms: rates are of this time
    #[arg(long, env = "QUIVER_INTERVAL", value_parser = parse_interval, default_value = "1s")]
    pub interval: Duration,
    /// Column to sort by: name, kind, in/s, out/s, in, out, late, errors, delay or state [default: the order of the graph]
    #[arg(long, env = "QUIVER_SORT")]
    pub sort: Option<Column>,
}

/// `test`.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Run only the tests whose names have this in them
    #[arg(long, env = "QUIVER_ONLY")]
    pub only: Option<String>,
    /// Write the results as JUnit XML to this file
    #[arg(long, env = "QUIVER_JUNIT", value_name = "REPORT")]
    pub junit: Option<PathBuf>,
    /// The configuration: a file, or a directory of *.toml
    pub file: PathBuf,
}

/// `streams`.
#[derive(Args, Debug)]
pub struct StreamsArgs {
    /// What to do
    #[command(subcommand)]
    pub action: StreamsAction,
}

/// Actions of `streams`.
#[derive(Subcommand, Debug)]
pub enum StreamsAction {
    /// Give a stream fields before rows bring them; a field never changes its type afterwards
    Declare {
        #[command(flatten)]
        target: TargetArgs,
        /// The stream
        stream: String,
        /// name=type, the type being int64, float64, utf8, bool, timestamp (microseconds UTC), or
        /// decimal(N): a float64 with N digits after the point, 0 to 9, which takes less in the archive;
        /// other values are refused
        #[arg(required = true, value_name = "NAME=TYPE")]
        fields: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Command;

    use super::*;

    /// Every variable of a command and its subcommands, with whether its flag takes a value.
    fn variables(
        command: &Command,
        verb: &str,
        all: &mut BTreeMap<String, BTreeMap<bool, String>>,
    ) {
        for arg in command.get_arguments() {
            if let Some(variable) = arg.get_env() {
                let kinds = all
                    .entry(variable.to_string_lossy().into_owned())
                    .or_default();
                kinds.insert(
                    arg.get_action().takes_values(),
                    format!("{verb} --{}", arg.get_id()),
                );
            }
        }
        for sub in command.get_subcommands() {
            variables(sub, &format!("{verb} {}", sub.get_name()), all);
        }
    }

    #[test]
    fn a_variable_is_a_switch_or_a_value_the_same_for_every_verb() {
        let mut all = BTreeMap::new();
        variables(&Cli::command(), "quiver", &mut all);
        assert!(all.len() > 30);
        for (variable, kinds) in all {
            assert_eq!(kinds.len(), 1, "{variable}: {kinds:?}");
        }
    }

    #[test]
    fn ids_are_given_or_a_file_of_them() {
        let enroll = |more: &[&str]| {
            let arguments = [&["quiver", "devices", "enroll"][..], more].concat();
            Cli::command().try_get_matches_from(arguments).is_ok()
        };
        assert!(enroll(&["truck_1", "truck_2"]) && enroll(&["--from", "-"]));
        assert!(enroll(&[
            "--from",
            "fleet.csv",
            "--gateway",
            "gw_1",
            "--kind",
            "device"
        ]));
        assert!(!enroll(&[]) && !enroll(&["truck_1", "--from", "-"]));
        assert!(!enroll(&["--from", "-", "--token"]));
    }

    #[test]
    fn a_set_names_what_it_changes_and_of_whom() {
        let set = |more: &[&str]| {
            let arguments = [&["quiver", "devices", "set"][..], more].concat();
            Cli::command().try_get_matches_from(arguments).is_ok()
        };
        assert!(set(&["truck_1", "--attribute", "fleet=west"]));
        assert!(set(&["truck_1", "truck_2", "--remove", "fleet,model"]));
        assert!(set(&["a", "--remove", "x", "--attribute", "y=1"]));
        assert!(!set(&["truck_1"]) && !set(&["--remove", "model"]));
    }

    #[test]
    fn an_attribute_may_have_commas() {
        let attributes = ["--attribute", "site=Oslo, north", "--attribute", "a=b"];
        let enroll = ["quiver", "devices", "enroll", "truck_1"];
        let matches = Cli::command()
            .try_get_matches_from(enroll.iter().chain(&attributes))
            .unwrap();
        let (_, devices) = matches.subcommand().unwrap();
        let (_, enroll) = devices.subcommand().unwrap();
        let found: Vec<&String> = enroll.get_many("attribute").unwrap().collect();
        assert_eq!(found, ["site=Oslo, north", "a=b"]);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
