//! `quiver serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::ServeArgs,
    exit::{CONFIG, Failure, IO},
    node::Node,
    say::{say, tell},
    settings::Doors,
};

/// Where it listens unless said otherwise; [`crate::cli::NodeArgs`] names them in its help.
const QUIC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4433);
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Runs the engine until it is told to stop, or its log fails.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    let quic = args.node.quic.unwrap_or(QUIC);
    if args.enroll_unknown && !quic.ip().is_loopback() {
        return Err(Failure::new(
            CONFIG,
            "--enroll-unknown is for loopback only: enroll devices with quiver devices enroll",
        ));
    }
    let certificates = match (args.ca, args.cert, args.key) {
        (Some(ca), Some(cert), Some(key)) => Some((ca, cert, key)),
        _ => None,
    };
    let doors = Doors {
        quic,
        http: args.node.http.unwrap_or(HTTP),
        http_hosts: args.http_host,
        certificates,
        tokens: args.tokens,
        enroll_unknown: args.enroll_unknown,
        config: args.config,
    };
    let mut signals = Signals::new()?;
    let node = Node::start(&args.node.data_dir, &args.node.engine, doors).await?;
    say!("quic  {}", node.addresses.quic);
    say!("http  http://{}", node.addresses.http);
    say!("data  {}", args.node.data_dir.display());
    let fatal = loop {
        tokio::select! {
            what = signals.next() => match what {
                Told::Stop => break None,
                Told::Reload => reload(&node).await,
            },
            fatal = node.failed() => break Some(fatal),
        }
    };
    if let Some(fatal) = fatal {
        // Nothing is acknowledged any more; recovery finds out what survived.
        tracing::error!(%fatal, "stopping");
        return Err(Failure::new(IO, fatal.to_string()));
    }
    tell!("stopping: draining, flushing, taking a checkpoint");
    node.stop().await
}

/// Reads certificates and the graph again; what cannot be read leaves the old in force.
async fn reload(node: &Node) {
    match node.reload_certificates() {
        Ok(()) => tracing::info!("certificates reloaded"),
        Err(error) => {
            tracing::error!(%error, "certificates not reloaded; the old ones stay in force");
        }
    }
    let Some(pipeline) = &node.pipeline else {
        return;
    };
    match pipeline.reload(&node.engine).await {
        Ok(applied) => tracing::info!(from = %applied.from, nodes = applied.nodes, "graph applied"),
        Err(error) => {
            tracing::error!(%error, "the graph was not applied; the old one stays in force");
        }
    }
}

/// What a signal asks for.
pub enum Told {
    /// SIGTERM or Ctrl-C.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that are listened to.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::with(IO));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
