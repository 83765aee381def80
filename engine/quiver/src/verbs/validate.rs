//! `quiver validate`.

use std::io::IsTerminal;

use quiver_pipeline::Severity;
use serde_json::json;

use crate::{
    cli::ValidateArgs,
    exit::{CONFIG, Failure, IO},
    pipeline::{Loaded, load_tables},
    say::say,
};

/// Tells everything that is wrong with a configuration.
pub fn run(args: &ValidateArgs) -> Result<(), Failure> {
    let loaded = Loaded::read(&args.file, true)?;
    if args.json {
        let problems: Vec<_> = loaded
            .diagnostics
            .sorted()
            .into_iter()
            .map(|problem| {
                let (line, column) = loaded.sources.line_column(&problem.place);
                let file = loaded.sources.files.get(problem.place.file);
                json!({
                    "severity": match problem.severity {
                        Severity::Error => "error",
                        Severity::Warning => "warning",
                    },
                    "file": file.map(|file| file.path.display().to_string()),
                    "line": line,
                    "column": column,
                    "bytes": [problem.place.span.start, problem.place.span.end],
                    "message": problem.message,
                    "help": problem.help,
                })
            })
            .collect();
        let text = serde_json::to_string_pretty(&problems).map_err(Failure::with(IO))?;
        say!("{text}");
    } else {
        let rendered = loaded.rendered(std::io::stdout().is_terminal());
        if !rendered.is_empty() {
            say!("{}\n", rendered.trim_end());
        }
    }
    if loaded.diagnostics.has_errors() {
        return Err(Failure::new(CONFIG, loaded.summary(&args.file)));
    }
    load_tables(&loaded.graph, &loaded.directory)?;
    if !args.json {
        let graph = &loaded.graph;
        let warnings = loaded.diagnostics.count(Severity::Warning);
        let told = match warnings {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            count => format!(", {count} warnings"),
        };
        say!(
            "{}: good: {} streams, {} nodes, {} stores, {} tests{told}",
            args.file.display(),
            graph.streams.len(),
            graph.nodes.len(),
            graph.stores.len(),
            loaded.config.tests.len()
        );
    }
    Ok(())
}
