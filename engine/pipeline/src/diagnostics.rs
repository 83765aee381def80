//! What is wrong with a configuration: all of it at once, each with its place and how to mend it.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::{
    secrets::Secrets,
    source::{Place, Sources},
};

/// Most problems that are told: a file that is no configuration at all has one for every line.
const PROBLEMS_MAX: usize = 200;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably is not what was meant.
    Warning,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// Where.
    pub place: Place,
    /// What is said beside the place.
    pub label: Option<String>,
    /// Other places that belong to it, and what is said there.
    pub related: Vec<(Place, String)>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Something that keeps the configuration from being used.
    pub fn error(message: impl Into<String>, place: Place) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            place,
            label: None,
            related: Vec::new(),
            help: None,
        }
    }

    /// Something that is probably not meant.
    pub fn warning(message: impl Into<String>, place: Place) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message, place)
        }
    }

    /// With how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With how to mend it, if that is known.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// With what is said beside the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With another place that belongs to it.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push((place, label.into()));
        self
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    all: Vec<Diagnostic>,
    /// What is not shown.
    pub secrets: Secrets,
}

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.all.len() < PROBLEMS_MAX && !self.all.contains(&diagnostic) {
            self.all.push(diagnostic);
        }
    }

    /// Whether there is one that keeps the configuration from being used.
    pub fn has_errors(&self) -> bool {
        self.all
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// How many there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        let alike = |diagnostic: &&Diagnostic| diagnostic.severity == severity;
        self.all.iter().filter(alike).count()
    }

    /// All of them in the order of the files and their lines, without what is secret.
    pub fn sorted(&self) -> Vec<Diagnostic> {
        let mut sorted: Vec<Diagnostic> = self.all.clone();
        for diagnostic in &mut sorted {
            self.secrets.mask(&mut diagnostic.message);
            let related = diagnostic.related.iter_mut().map(|(_, label)| label);
            let others = diagnostic.label.iter_mut().chain(&mut diagnostic.help);
            others
                .chain(related)
                .for_each(|text| self.secrets.mask(text));
        }
        sorted.sort_by_key(|diagnostic| {
            (
                diagnostic.place.file,
                diagnostic.place.span.start,
                diagnostic.severity,
            )
        });
        sorted
    }

    /// All of them as a person reads them: with file, line, column, and the text underlined.
    pub fn render(&self, sources: &Sources, is_coloured: bool) -> String {
        let renderer = if is_coloured {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for diagnostic in self.sorted() {
            let level = match diagnostic.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
            let mut files: Vec<usize> = vec![diagnostic.place.file];
            files.extend(diagnostic.related.iter().map(|(place, _)| place.file));
            files.dedup();
            for number in files {
                let Some(file) = sources.files.get(number) else {
                    continue;
                };
                let path = file.path.display().to_string();
                let mut snippet = Snippet::source(file.text.as_str()).path(path);
                if diagnostic.place.file == number {
                    let span = within(&diagnostic.place, &file.text);
                    let mut annotation = AnnotationKind::Primary.span(span);
                    if let Some(label) = &diagnostic.label {
                        annotation = annotation.label(label.as_str());
                    }
                    snippet = snippet.annotation(annotation);
                }
                for (place, label) in &diagnostic.related {
                    if place.file == number {
                        let annotation = AnnotationKind::Context.span(within(place, &file.text));
                        snippet = snippet.annotation(annotation.label(label.as_str()));
                    }
                }
                group = group.element(snippet);
            }
            if let Some(help) = &diagnostic.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out
    }
}

/// The span, on the boundaries of characters and within the text.
fn within(place: &Place, text: &str) -> std::ops::Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(place.span.start);
    start..boundary(place.span.end).max(start)
}
