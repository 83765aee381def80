//! `quiver plan`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quiver_pipeline::config::duration_text;

use super::{print_table, running};
use crate::{
    cli::PlanArgs,
    exit::{Failure, UNAVAILABLE},
    http::PipelineStatus,
    pipeline::{Loaded, load_tables},
    say::say,
};

/// Says what an engine would do with a configuration.
pub fn run(args: &PlanArgs) -> Result<(), Failure> {
    let loaded = Loaded::read(&args.file, false)?;
    loaded.refuse_errors(&args.file)?;
    load_tables(&loaded.graph, &loaded.directory)?;
    let answer = running(&args.target)?.get("/api/v1/pipeline")?;
    let now: PipelineStatus = serde_json::from_str(&answer).map_err(Failure::with(UNAVAILABLE))?;
    let head = ["node", "kind", "change", "what it remembers"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let (mut changed, mut lost) = (0, 0);
    for node in &loaded.graph.nodes {
        let known = now.nodes.iter().find(|known| known.name == node.name());
        let (change, state) = match known {
            None => ("new", if node.has_state() { "begins" } else { "-" }),
            Some(known) => {
                let is_same = known.definition == format!("{:016x}", node.definition());
                let is_kept = known.generation == format!("{:016x}", node.generation());
                let state = match (known.has_state, node.has_state(), is_kept) {
                    (false, false, _) => "-",
                    (true, true, true) => "kept",
                    (_, true, _) => "lost: it begins anew",
                    (true, false, _) => "lost",
                };
                (if is_same { "unchanged" } else { "changed" }, state)
            }
        };
        changed += usize::from(change != "unchanged");
        lost += usize::from(state.starts_with("lost"));
        rows.push(
            [node.name(), node.section(), change, state]
                .map(str::to_owned)
                .to_vec(),
        );
    }
    for known in &now.nodes {
        if !loaded
            .graph
            .nodes
            .iter()
            .any(|node| node.name() == known.name)
        {
            changed += 1;
            lost += usize::from(known.has_state);
            let state = if known.has_state { "lost" } else { "-" };
            rows.push(
                [known.name.as_str(), known.kind.as_str(), "removed", state]
                    .map(str::to_owned)
                    .to_vec(),
            );
        }
    }
    print_table(&rows);
    for change in kept_otherwise(&now.kept_for, &loaded.graph.retention()) {
        say!("\n{change}");
    }
    say!("\n{changed} changed, {lost} lose what they remember");
    Ok(())
}

/// Streams whose rows are to be kept for another time than now.
fn kept_otherwise(
    now: &BTreeMap<String, f64>,
    planned: &BTreeMap<String, Duration>,
) -> Vec<String> {
    let streams: BTreeSet<&String> = now.keys().chain(planned.keys()).collect();
    let text = |seconds: Option<f64>| {
        let span = seconds.map(|seconds| duration_text((seconds * 1e6).round() as i64));
        span.unwrap_or_else(|| "for ever".to_owned())
    };
    streams
        .into_iter()
        .filter_map(|stream| {
            let before = now.get(stream).copied();
            let after = planned.get(stream).map(Duration::as_secs_f64);
            if before == after {
                return None;
            }
            let (from, to) = (text(before), text(after));
            let is_less = after < before.or(Some(f64::INFINITY)) && after.is_some();
            let what = if is_less { "; what is older goes" } else { "" };
            Some(format!(
                "rows of {stream} are kept {to} (now: {from}){what}"
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_kept_otherwise_is_told() {
        let span = Duration::from_secs;
        let now = [("a", 60.0), ("b", 3_600.0), ("c", 60.0), ("d", 60.0)];
        let now = now.map(|(stream, seconds)| (stream.to_owned(), seconds));
        let planned = [("a", 60), ("b", 60), ("c", 3_600), ("e", 86_400)];
        let planned = planned.map(|(stream, seconds)| (stream.to_owned(), span(seconds)));
        assert_eq!(
            kept_otherwise(&now.into(), &planned.into()),
            [
                "rows of b are kept 1m (now: 1h); what is older goes",
                "rows of c are kept 1h (now: 1m)",
                "rows of d are kept for ever (now: 1m)",
                "rows of e are kept 1d (now: for ever); what is older goes",
            ]
        );
    }
}
