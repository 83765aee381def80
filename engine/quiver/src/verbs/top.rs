//! `quiver top`: what passes through the graph of an engine, live.
//!
//! ```text
//! thread: GET /api/v1/status, /pipeline every interval ─look, or why there is none─▶ Screen ─▶ terminal
//!                                                                                     ▲ keys
//! ```
//!
//! Where standard output is no terminal it is one table of text.

mod figures;
mod screen;

use std::{
    io::IsTerminal,
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    time::Duration,
};

use quiver_model::{Clock as _, SystemClock};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};

use super::running;
use crate::{
    cli::{TargetArgs, TopArgs},
    exit::{Failure, IO, UNAVAILABLE},
    remote::Remote,
    say::say,
};

pub use figures::Column;
use figures::{Figures, Look};
use screen::{Screen, Wish};

/// How often keys are looked at, and the terminal's size.
const FRAME: Duration = Duration::from_millis(100);

/// Shows what passes through the graph.
pub fn run(args: &TopArgs) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let remote = running(&args.target)?;
    let first = look(&remote, &clock)?;
    if args.once || !std::io::stdout().is_terminal() {
        std::thread::sleep(args.interval);
        let second = look(&remote, &clock)?;
        say!("{}", Figures::of(Some(&first), &second).text(args.sort));
        return Ok(());
    }
    let (sender, looks) = sync_channel(1);
    let (target, interval) = (args.target.clone(), args.interval);
    std::thread::Builder::new()
        .name("quiver-top".to_owned())
        .spawn(move || follow(&target, interval, &clock, &sender))
        .map_err(Failure::with(IO))?;
    let is_coloured = std::env::var_os("NO_COLOR").is_none();
    let mut screen = Screen::new(first, args.sort, is_coloured);
    let mut terminal = Terminal::open().map_err(Failure::with(IO))?;
    show(&mut terminal.0, &mut screen, &looks)
}

/// The engine as it is now.
fn look(remote: &Remote, clock: &SystemClock) -> Result<Look, Failure> {
    let unreadable = |error: serde_json::Error| {
        let text = format!("{} answers something else: {error}", remote.base());
        Failure::new(UNAVAILABLE, text)
    };
    let pipeline = remote.get("/api/v1/pipeline")?;
    let status = remote.get("/api/v1/status")?;
    Ok(Look {
        at: clock.monotonic(),
        engine: remote.base().to_owned(),
        pipeline: serde_json::from_str(&pipeline).map_err(unreadable)?,
        status: serde_json::from_str(&status).map_err(unreadable)?,
    })
}

/// Looks again and again, until nobody wants to know. An engine that is gone may come back
/// elsewhere: it is looked for anew.
fn follow(
    target: &TargetArgs,
    interval: Duration,
    clock: &SystemClock,
    looks: &SyncSender<Result<Look, String>>,
) {
    let mut known = None;
    loop {
        std::thread::sleep(interval);
        let remote = match known.take() {
            Some(remote) => Ok(remote),
            None => running(target),
        };
        let looked = remote.and_then(|remote| {
            let look = look(&remote, clock)?;
            known = Some(remote);
            Ok(look)
        });
        if looks
            .send(looked.map_err(|failure| failure.to_string()))
            .is_err()
        {
            return;
        }
    }
}

/// A terminal that is as it was when this is dropped; after a panic, too.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn open() -> std::io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            // What has been done to it before it failed.
            ratatui::restore();
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    looks: &Receiver<Result<Look, String>>,
) -> Result<(), Failure> {
    loop {
        match looks.try_recv() {
            Ok(look) => screen.take(look),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                return Err(Failure::new(IO, "nobody looks at the engine any more"));
            }
        }
        terminal
            .draw(|frame| screen.draw(frame))
            .map_err(Failure::with(IO))?;
        if event::poll(FRAME).map_err(Failure::with(IO))?
            && let Event::Key(key) = event::read().map_err(Failure::with(IO))?
            && key.kind != KeyEventKind::Release
            && screen.press(key) == Wish::End
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
