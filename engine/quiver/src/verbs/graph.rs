//! `quiver graph`.

use std::{io::IsTerminal, path::Path};

use quiver_pipeline::{
    draw::{Format, Rates, Terminal, draw, draw_text},
    graph::Port,
};

use crate::{
    cli::GraphArgs,
    exit::{CONFIG, Failure, UNAVAILABLE, USAGE},
    http::PipelineStatus,
    pipeline::Loaded,
    remote::Remote,
    say::{part, tell},
};

/// Columns of a text that nobody says the width of.
const COLUMNS: usize = 100;

/// Draws a configuration.
pub fn run(args: &GraphArgs) -> Result<(), Failure> {
    let format: Format = args
        .format
        .parse()
        .map_err(|error| Failure::new(USAGE, format!("{error}")))?;
    let loaded = Loaded::read(&args.file, false)?;
    // A graph with errors is drawn as far as it goes: the picture may show what is wrong.
    let is_terminal = std::io::stderr().is_terminal();
    if loaded.diagnostics.has_errors() {
        tell!("{}", loaded.rendered(is_terminal).trim_end());
    }
    let rates = match args.server {
        Some(server) => {
            let remote = Remote::new(server, Some(&args.data_dir))?;
            Some(rates(&remote, args.duration)?)
        }
        None => None,
    };
    let graph = &loaded.graph;
    let drawn = match format {
        Format::Ascii => {
            let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
                .iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
            let is_unicode = locale.is_none_or(|locale| locale.to_uppercase().contains("UTF"));
            let columns = std::env::var("COLUMNS").ok();
            let columns = columns.and_then(|columns| columns.parse().ok());
            let terminal = Terminal {
                columns: columns.unwrap_or(COLUMNS),
                is_unicode,
            };
            draw_text(graph, rates.as_ref(), terminal)
        }
        format => draw(graph, rates.as_ref(), format),
    };
    let drawn = drawn.map_err(|error| Failure::new(CONFIG, error.to_string()))?;
    part(&drawn);
    if !drawn.ends_with('\n') {
        part("\n");
    }
    if loaded.diagnostics.has_errors() {
        return Err(Failure::new(CONFIG, loaded.summary(Path::new(&args.file))));
    }
    Ok(())
}

/// Rows a second of every port, from what two looks differ by.
fn rates(remote: &Remote, during: std::time::Duration) -> Result<Rates, Failure> {
    let look = || -> Result<PipelineStatus, Failure> {
        serde_json::from_str(&remote.get("/api/v1/pipeline")?).map_err(Failure::with(UNAVAILABLE))
    };
    let before = look()?;
    std::thread::sleep(during);
    let after = look()?;
    let seconds = during.as_secs_f64().max(1e-3);
    let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
    let mut rates = Rates::default();
    for (stream, rows) in &after.streams {
        let known = before.streams.get(stream).copied().unwrap_or(0);
        rates.set(stream, Port::Out, rate(known, *rows));
    }
    for node in &after.nodes {
        let known = before.nodes.iter().find(|known| known.name == node.name);
        let known = known.cloned().unwrap_or_default();
        rates.set(&node.name, Port::Out, rate(known.rows_out, node.rows_out));
        rates.set(&node.name, Port::Late, rate(known.late, node.late));
        rates.set(&node.name, Port::Errors, rate(known.errors, node.errors));
    }
    Ok(rates)
}
