//! Changing what is said of identities, many in one request: what `quiver devices set` and `import`
//! have in common.

use std::fmt::Display;

use super::portion::Portion;
use crate::{
    exit::{DATA, Failure, UNAVAILABLE},
    http::{AmendRequest, SetAnswer, SetRequest},
    numbers::grouped,
    remote::Remote,
    say::{say, tell},
};

/// Identities that wait for the next request, each with the line of a file that names it, if it is
/// of one.
pub struct Amendments<'a> {
    engine: &'a Remote,
    enrolls_unknown: bool,
    waiting: Portion<AmendRequest, Option<u64>>,
    /// What became of those that were sent.
    pub counts: Counts,
}

/// What became of identities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Identities that were named, each time.
    pub named: u64,
    enrolled: u64,
    changed: u64,
    unchanged: u64,
    /// Those that are wrong, and were told.
    pub refused: u64,
}

impl<'a> Amendments<'a> {
    /// Nothing yet.
    pub fn new(engine: &'a Remote, enrolls_unknown: bool) -> Self {
        Self {
            engine,
            enrolls_unknown,
            waiting: Portion::new(),
            counts: Counts::default(),
        }
    }

    /// Tells what is wrong with one that is left out.
    pub fn wrong(&mut self, line: Option<u64>, problem: impl Display) {
        self.counts.named += 1;
        self.refused(line, problem);
    }

    fn refused(&mut self, line: Option<u64>, problem: impl Display) {
        self.counts.refused += 1;
        match line {
            Some(line) => tell!("line {line}: {problem}"),
            None => tell!("{problem}"),
        }
    }

    /// Takes one, and sends what there is when it is enough.
    ///
    /// # Errors
    /// If the engine does not take it.
    pub fn push(&mut self, identity: AmendRequest, line: Option<u64>) -> Result<(), Failure> {
        self.counts.named += 1;
        if self.waiting.push(identity, line)? {
            self.send()?;
        }
        Ok(())
    }

    /// Sends what there is.
    ///
    /// # Errors
    /// If the engine does not take it.
    pub fn send(&mut self) -> Result<(), Failure> {
        let (identities, lines) = self.waiting.take();
        let Some(first) = lines.first() else {
            return Ok(());
        };
        let request = SetRequest {
            identities,
            enroll_unknown: self.enrolls_unknown,
        };
        let body = serde_json::to_value(&request).map_err(Failure::with(DATA))?;
        let answer = self.engine.post_text("/api/v1/devices/set", &body);
        let answer = answer.map_err(|failure| {
            let done = first.map_or_else(
                || "perhaps some are changed".to_owned(),
                |line| {
                    format!("the lines before line {line} are done, and perhaps some from there on")
                },
            );
            let text =
                format!("{failure}; {done}: run it again, which changes nothing of those that are");
            Failure::new(failure.code(), text)
        })?;
        let answer: SetAnswer =
            serde_json::from_str(&answer).map_err(Failure::with(UNAVAILABLE))?;
        self.counts.enrolled += answer.enrolled as u64;
        self.counts.changed += answer.changed as u64;
        self.counts.unchanged += answer.unchanged as u64;
        for refusal in answer.refused {
            let line = lines.get(refusal.index).copied().flatten();
            self.refused(line, refusal.error);
        }
        Ok(())
    }
}

impl Counts {
    /// Says what became of them.
    pub fn say(&self) {
        let mut parts = vec![
            format!("{} changed", grouped(self.changed)),
            format!("{} as before", grouped(self.unchanged)),
        ];
        if self.enrolled > 0 {
            parts.insert(0, format!("{} enrolled", grouped(self.enrolled)));
        }
        if self.refused > 0 {
            parts.push(format!("{} left out", grouped(self.refused)));
        }
        say!("{}", parts.join(", "));
    }
}
