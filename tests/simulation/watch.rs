//! Watches a run for what nobody would report: panics in tasks, and errors in the engine's own
//! log that say an invariant does not hold.

use std::{
    cell::{Cell, RefCell},
    fmt::{self, Write},
    sync::Once,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

/// What the engine says when something that must not happen has happened.
const ALARMS: [&str; 8] = [
    "could not be applied",
    "could not be placed",
    "could not be frozen",
    "could not be kept",
    "could not be exported",
    "last values not updated",
    "cannot be archived",
    "is damaged",
];

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Counts panics of this thread, whoever catches them.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            before(panic);
        }));
    });
}

/// Watches this thread until it is dropped.
pub struct Watch {
    _log: DefaultGuard,
}

impl Watch {
    pub fn new() -> Self {
        count_panics();
        PANICS.with(|panics| panics.set(0));
        SEEN.with(|seen| seen.borrow_mut().clear());
        let is_loud = std::env::var_os("QUIVER_SIM_LOG").is_some();
        Self {
            _log: tracing::subscriber::set_default(Log { is_loud }),
        }
    }

    /// Fails if anything was seen that must not be.
    pub fn check(&self) {
        SEEN.with(|seen| {
            let seen = seen.borrow();
            assert!(seen.is_empty(), "the engine reported: {seen:#?}");
        });
        let panics = PANICS.with(Cell::get);
        assert_eq!(panics, 0, "{panics} tasks panicked");
    }
}

/// Takes back what was seen and was meant to happen.
pub fn forget(alarm: &str) {
    SEEN.with(|seen| seen.borrow_mut().retain(|text| !text.contains(alarm)));
}

struct Log {
    is_loud: bool,
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("quiver")
            && (self.is_loud || *metadata.level() == Level::ERROR)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        if self.is_loud {
            say(&format!("{} {}", event.metadata().level(), text.0));
        }
        let is_alarm = ALARMS.iter().any(|alarm| text.0.contains(alarm));
        if *event.metadata().level() == Level::ERROR && is_alarm {
            SEEN.with(|seen| seen.borrow_mut().push(text.0));
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

thread_local! {
    static START: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

/// Times in the log count from now.
pub fn start_clock() {
    START.with(|start| start.set(Some(tokio::time::Instant::now())));
}

/// A line of the run's log, with simulated time. With `QUIVER_SIM_LOG` only.
pub fn say(line: &str) {
    if std::env::var_os("QUIVER_SIM_LOG").is_some() {
        let start = START.with(Cell::get);
        let seconds = start.map_or(0.0, |start| start.elapsed().as_secs_f64());
        eprintln!("{seconds:10.3} {line}");
    }
}
