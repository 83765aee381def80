//! The verb `quiver bench`: from the command line to what is printed and written.

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    cli::{BenchAction, BenchArgs, RunArgs},
    compare,
    error::BenchError,
    hgrm::hgrm,
    identity::Credentials,
    report::{Live, page, table},
    result::{Benchmark, FORMAT, Machine},
    run::{Outcome, Target, run as run_once},
    scenario::{Knobs, SHIPPED, Scenario, load},
    server::{Child, Http},
};

/// What a data directory says of the engine on it.
#[derive(Clone, Debug)]
pub struct Found {
    /// QUIC and HTTP address of the engine that runs, or ran last.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Token of its HTTP door.
    pub token: Option<String>,
    /// Directory of its development CA.
    pub ca: PathBuf,
    /// Directory of its operator credential.
    pub operator: PathBuf,
}

/// Prints a text; a reader that went away has seen what it wanted.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Does what the command line says. `find` looks into a data directory, whose layout is the
/// engine's affair.
///
/// # Errors
/// If it cannot be done, the loss audit does not hold, or a comparison fails its gate.
pub fn run(args: BenchArgs, find: &dyn Fn(&Path) -> Found) -> Result<(), BenchError> {
    match args.action {
        Some(BenchAction::Compare { files, gate }) => {
            compare_files(&files, gate.map(|gate| gate.0))
        }
        None if args.run.list => {
            list();
            Ok(())
        }
        None => bench(args.run, find),
    }
}

fn list() {
    for shipped in SHIPPED {
        say(&format!("{:<12}  {}", shipped.name, shipped.purpose()));
    }
}

/// As a file that gives the same load.
fn show(scenario: &Scenario) -> Result<(), BenchError> {
    let knobs = serde_json::to_value(scenario)
        .map_err(|error| BenchError::Io(format!("cannot show the scenario: {error}")))?;
    for key in Knobs::KEYS {
        // Numbers and quoted strings are the same in TOML.
        say(&format!("{key} = {}", knobs[*key]));
    }
    Ok(())
}

fn compare_files(files: &[PathBuf], gate: Option<f64>) -> Result<(), BenchError> {
    let mut files = files.iter();
    let Some(first) = files.next() else {
        return Err(BenchError::Usage("name two results to compare".to_owned()));
    };
    let old = compare::read(first)?;
    let mut failed = Vec::new();
    for file in files {
        let new = compare::read(file)?;
        let names = (first.display().to_string(), file.display().to_string());
        let (text, worse) = compare::describe((&names.0, &names.1), &old, &new, gate);
        say(&text);
        failed.extend(
            worse
                .into_iter()
                .map(|figure| format!("{figure} in {}", names.1)),
        );
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(BenchError::Regression(format!(
        "worse beyond the gate: {}",
        failed.join(", ")
    )))
}

fn bench(args: RunArgs, find: &dyn Fn(&Path) -> Found) -> Result<(), BenchError> {
    let scenario = Arc::new(load(args.scenario.as_deref(), args.knobs.clone())?);
    if args.show {
        return show(&scenario);
    }
    let mut view = Live::new(args.quiet);
    let mut child = None;
    let data_dir = if args.serve {
        if !args.quiet {
            eprintln!("engine");
        }
        let here = PathBuf::from(".");
        let started = Child::start(args.work_dir.as_deref().unwrap_or(&here), &args.engine)?;
        let directory = started.data_dir().to_owned();
        child = Some(started);
        directory
    } else {
        args.data_dir.clone()
    };
    let target = target(&args, &find(&data_dir), &data_dir)?;
    let stop = Arc::new(AtomicBool::new(false));
    end_at_interrupt(&stop)?;
    let mut benchmark = describe(&args, &scenario, &data_dir, &target)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for _ in 0..args.repeat {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let outcome = run_once(&scenario, &target, &stop, &mut view);
        view.clear();
        let outcome = outcome?;
        benchmark.runs.push(outcome.run.clone());
        outcomes.push(outcome);
    }
    say(&table(&benchmark));
    write(&args, &benchmark, &outcomes)?;
    if let Some(child) = child {
        child.stop();
    }
    verdict(&benchmark)
}

fn verdict(benchmark: &Benchmark) -> Result<(), BenchError> {
    if benchmark.runs.iter().all(|run| run.audit.holds()) {
        return Ok(());
    }
    let not_made = benchmark
        .runs
        .iter()
        .find_map(|run| run.audit.not_made.clone());
    Err(BenchError::Audit(not_made.map_or_else(
        || "the loss audit does not hold: what was acknowledged is not what is stored".to_owned(),
        |why| format!("the loss audit could not be made: {why}"),
    )))
}

fn target(args: &RunArgs, found: &Found, data_dir: &Path) -> Result<Target, BenchError> {
    let missing = || {
        BenchError::Unavailable(format!(
            "no engine has run on {}; start one with --serve, name its --data-dir, or give --server and --http",
            data_dir.display()
        ))
    };
    let (quic, http) = match (args.server, args.http, found.addresses) {
        (Some(quic), Some(http), _) => (quic, http),
        (quic, http, Some((found_quic, found_http))) => {
            (quic.unwrap_or(found_quic), http.unwrap_or(found_http))
        }
        _ => return Err(missing()),
    };
    let own = match (&args.ca, &args.cert, &args.key) {
        (Some(ca), Some(cert), Some(key)) => Some((ca.clone(), cert.clone(), key.clone())),
        _ => None,
    };
    let token = std::env::var("QUIVER_HTTP_TOKEN").ok();
    Ok(Target {
        quic,
        http,
        server_name: args.server_name.clone(),
        token: token.or_else(|| found.token.clone()),
        credentials: Credentials {
            ca: Some(args.ca_dir.clone().unwrap_or_else(|| found.ca.clone())),
            own,
            operator: Some(found.operator.clone()),
        },
    })
}

/// Ctrl-C ends the load, not the program: what was measured is still told, and audited.
fn end_at_interrupt(stop: &Arc<AtomicBool>) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| BenchError::Io(format!("cannot listen for Ctrl-C: {error}")))?;
    let stop = stop.clone();
    // Waits for as long as the program lives.
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            // Twice: whoever waits has lost patience.
            std::process::exit(130);
        }
    });
    Ok(())
}

fn describe(
    args: &RunArgs,
    scenario: &Scenario,
    data_dir: &Path,
    target: &Target,
) -> Result<Benchmark, BenchError> {
    let name = args
        .scenario
        .clone()
        .unwrap_or_else(|| "unnamed".to_owned());
    let shipped = SHIPPED.iter().find(|shipped| shipped.name == name);
    let knobs = serde_json::to_value(scenario)
        .map_err(|error| BenchError::Io(format!("cannot describe the scenario: {error}")))?;
    Ok(Benchmark {
        format: FORMAT,
        purpose: shipped.map(|shipped| shipped.purpose()).unwrap_or_default(),
        name,
        scenario: knobs,
        machine: Machine::this(data_dir.exists().then_some(data_dir)),
        harness: env!("CARGO_PKG_VERSION").to_owned(),
        server: Http::new(target.http, target.token.clone())
            .version()
            .unwrap_or_default(),
        runs: Vec::new(),
    })
}

fn write(args: &RunArgs, benchmark: &Benchmark, outcomes: &[Outcome]) -> Result<(), BenchError> {
    let save = |path: &Path, content: &[u8]| {
        std::fs::write(path, content).map_err(|error| BenchError::io("write", path, &error))
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_vec_pretty(benchmark)
            .map_err(|error| BenchError::Io(format!("cannot write the result as JSON: {error}")))?;
        save(path, &text)?;
    }
    if let Some(path) = &args.html {
        save(path, page(benchmark).as_bytes())?;
    }
    if let Some(path) = &args.hgrm {
        let mut all = crate::record::histogram();
        for outcome in outcomes {
            crate::record::merge(&mut all, &outcome.latency);
        }
        save(path, hgrm(&all).as_bytes())?;
    }
    if let Some(path) = &args.hlog {
        for (number, outcome) in outcomes.iter().enumerate() {
            let text = outcome
                .log
                .text(outcome.began_us, &benchmark.name)
                .map_err(|error| BenchError::io("write", path, &error))?;
            let path = match number {
                0 => path.clone(),
                _ => path.with_extension(format!("{}.hlog", number + 1)),
            };
            save(&path, &text)?;
        }
    }
    Ok(())
}
