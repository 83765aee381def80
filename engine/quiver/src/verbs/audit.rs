//! `quiver audit`.

use quiver_query::query_runtime;

use super::{on_system, print_table, remote};
use crate::{
    audit::{Audit, audit},
    cli::AuditArgs,
    exit::{DATA, Failure, IO},
    given::Given,
    idle::{Idle, Opened},
    remote::Remote,
    say::say,
};

/// Audits, and fails if anything is unaccounted for.
pub fn run(args: &AuditArgs, given: &Given) -> Result<(), Failure> {
    let audit = match remote(&args.target)? {
        Some(remote) => ask(&remote, given)?,
        None => on_system(idle_audit(args, given))?,
    };
    if args.json {
        say!(
            "{}",
            serde_json::to_string_pretty(&audit).map_err(Failure::with(IO))?
        );
    } else {
        show(&audit);
    }
    if audit.holds() {
        return Ok(());
    }
    Err(Failure::new(DATA, failure(&audit)))
}

/// Has a running engine audit.
fn ask(remote: &Remote, given: &Given) -> Result<Audit, Failure> {
    given.check_for_running_engine(&[])?;
    serde_json::from_str(&remote.get("/api/v1/audit")?).map_err(Failure::with(DATA))
}

async fn idle_audit(args: &AuditArgs, given: &Given) -> Result<Audit, Failure> {
    let idle = match Idle::open(&args.target.data_dir, &args.engine).await? {
        Opened::Idle(idle) => idle,
        Opened::Running(remote) => return ask(&remote, given),
    };
    let limits = args.engine.query_limits(&args.target.data_dir);
    let queries = idle.sources().query_engine(limits, None)?;
    let ledgers = idle.recovered.ledgers();
    let streams: Vec<String> = idle
        .recovered
        .tables()
        .all()
        .iter()
        .map(|table| table.name().to_string())
        .collect();
    let position = idle.recovered.progress().committed().get();
    let runtime = query_runtime(2).map_err(Failure::with(IO))?;
    let (archive, control) = (idle.archive.clone(), idle.recovered.control.clone());
    let task = runtime.spawn(async move {
        audit(
            position,
            &ledgers,
            &streams,
            &queries,
            &archive,
            &control.damage,
        )
        .await
    });
    let finished = task.await;
    // Before any error leaves: a runtime may not be dropped on this thread.
    runtime.shutdown_background();
    finished
        .map_err(Failure::with(IO))?
        .map_err(Failure::with(DATA))
}

fn failure(audit: &Audit) -> &'static str {
    if audit.unreadable.is_empty() && audit.balances() {
        "data were lost in damaged parts of the log: see the lines marked with ! and the parts named; check the disk"
    } else {
        "the audit does not hold: see the lines marked with ✗"
    }
}

fn show(audit: &Audit) {
    let mut rows = vec![
        [
            "",
            "identity",
            "received",
            "stored",
            "found",
            "expired",
            "rejected",
            "quarantined",
            "in rejects",
            "damaged",
            "damaged batches",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for line in &audit.lines {
        let is_whole = line.damaged == 0 && line.batches_damaged == 0;
        let mark = match (line.holds(), is_whole) {
            (true, true) => "✓",
            (true, false) => "!",
            (false, _) => "✗",
        };
        let mut row = vec![mark.to_owned(), line.sender.clone()];
        row.extend(
            [
                line.received,
                line.stored,
                line.found,
                line.expired,
                line.rejected,
                line.quarantined,
                line.rejects_found,
                line.damaged,
                line.batches_damaged,
            ]
            .map(|number| number.to_string()),
        );
        rows.push(row);
    }
    print_table(&rows);
    for line in audit.lines.iter().filter(|line| line.doubled > 0) {
        say!(
            "✗ {}: {} of the rows found have a position that another row has",
            line.sender,
            line.doubled
        );
    }
    for range in &audit.damaged {
        let mark = if range.harmless { "✓" } else { "!" };
        say!("{mark}  damaged: {range}");
    }
    for unreadable in &audit.unreadable {
        say!("✗ {unreadable}");
    }
    if audit.duplicate_batches_since_start > 0 {
        say!(
            "{} batches came again since the engine started, and were dropped",
            crate::numbers::grouped(audit.duplicate_batches_since_start)
        );
    }
    let received: u64 = audit.lines.iter().map(|line| line.received).sum();
    let verdict = if audit.holds() {
        "everything is accounted for".to_owned()
    } else if audit.unreadable.is_empty() && audit.balances() {
        format!(
            "everything is accounted for, and {} damaged parts of the log have lost {} batches that are known",
            audit.damaged_ranges, audit.damaged_batches
        )
    } else {
        "NOT everything is accounted for".to_owned()
    };
    say!(
        "{} rows of {} identities up to position {}: {verdict}",
        crate::numbers::grouped(received),
        audit.lines.len(),
        audit.position
    );
}
