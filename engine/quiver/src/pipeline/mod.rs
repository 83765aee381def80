//! Reading the configuration of a graph: its files, what they refer to, and what is wrong with them.

mod live;
mod running;
mod tables;
mod watch;

use std::{
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use quiver_pipeline::{
    Config, Diagnostics, Graph, Severity, Sources, source::SourceFile, value::Reference,
};

use crate::exit::{CONFIG, Failure, IO};

pub use live::{Board, Watch, WatchError};
pub use running::{ApplyError, RunningPipeline};
pub use tables::{by_node, load as load_tables};

/// Largest file that a value may be the content of, in bytes.
const CONTENT_MAX: u64 = 1 << 20;

/// A configuration that was read.
pub struct Loaded {
    /// Its files.
    pub sources: Sources,
    /// What is in them.
    pub config: Config,
    /// The graph.
    pub graph: Arc<Graph>,
    /// What is wrong.
    pub diagnostics: Diagnostics,
    /// The directory that paths are relative to.
    pub directory: PathBuf,
}

impl Loaded {
    /// Reads a file, or a directory of files; with the tests beside it if they are asked for.
    ///
    /// # Errors
    /// If something cannot be read. What is wrong with the content is in [`Self::diagnostics`].
    pub fn read(path: &Path, with_tests: bool) -> Result<Self, Failure> {
        let mut sources = Sources::read(path).map_err(Failure::with(IO))?;
        if with_tests && let Some(beside) = tests_beside(path) {
            let tests = Sources::read(&beside).map_err(Failure::with(IO))?;
            sources.files.extend(tests.files);
        } else if !with_tests {
            sources.files.retain(|file| !is_tests(file));
        }
        let directory = if path.is_dir() {
            path.to_owned()
        } else {
            path.parent().map_or_else(PathBuf::new, Path::to_owned)
        };
        let lookup = |reference: Reference<'_>| look_up(reference, &directory);
        let mut diagnostics = Diagnostics::default();
        let config = Config::read(&sources, &lookup, &mut diagnostics);
        let schemas = tables::schemas(&config, &directory);
        let graph = Arc::new(Graph::new(&config, &schemas, &mut diagnostics));
        Ok(Self {
            sources,
            config,
            graph,
            diagnostics,
            directory,
        })
    }

    /// What is wrong, as a person reads it on standard error or output.
    pub fn rendered(&self, is_terminal: bool) -> String {
        let is_coloured = is_terminal && std::env::var_os("NO_COLOR").is_none();
        self.diagnostics.render(&self.sources, is_coloured)
    }

    /// Refuses a configuration with errors, which are told on standard error.
    ///
    /// # Errors
    /// If there are any.
    pub fn refuse_errors(&self, path: &Path) -> Result<(), Failure> {
        let rendered = self.rendered(std::io::stderr().is_terminal());
        if !rendered.is_empty() {
            crate::say::tell!("{}", rendered.trim_end());
        }
        if self.diagnostics.has_errors() {
            return Err(Failure::new(CONFIG, self.summary(path)));
        }
        Ok(())
    }

    /// How much is wrong, in one line.
    pub fn summary(&self, path: &Path) -> String {
        let many = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            count => format!("{count} {word}s"),
        };
        format!(
            "{}: {}, {}",
            path.display(),
            many(self.diagnostics.count(Severity::Error), "error"),
            many(self.diagnostics.count(Severity::Warning), "warning")
        )
    }
}

/// Tests of `fleet.toml` may be in `fleet.test.toml`.
fn tests_beside(path: &Path) -> Option<PathBuf> {
    let beside = path.with_extension("test.toml");
    (path.is_file() && beside != path && beside.is_file()).then_some(beside)
}

/// Whether a file of a directory is of tests, which an engine that runs has no use for.
fn is_tests(file: &SourceFile) -> bool {
    let name = file.path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(".test.toml"))
}

fn look_up(reference: Reference<'_>, directory: &Path) -> Result<String, String> {
    match reference {
        Reference::Environment(name) => std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => {
                format!("the environment has no variable {name}")
            }
            std::env::VarError::NotUnicode(_) => format!("the variable {name} is not UTF-8"),
        }),
        Reference::File(path) => {
            let path = directory.join(path);
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            let file = std::fs::File::open(&path).map_err(failed)?;
            let mut content = String::new();
            let read = file.take(CONTENT_MAX + 1).read_to_string(&mut content);
            if read.map_err(failed)? as u64 > CONTENT_MAX {
                return Err(format!(
                    "{}: larger than {CONTENT_MAX} bytes",
                    path.display()
                ));
            }
            let end = content
                .strip_suffix('\n')
                .map(|line| line.strip_suffix('\r').unwrap_or(line));
            Ok(end.map_or(content.clone(), str::to_owned))
        }
    }
}
