//! `quiver plan`.

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
    say!("\n{changed} changed, {lost} lose what they remember");
    Ok(())
}
