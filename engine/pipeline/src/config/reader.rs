//! Reading a table key by key: what is there, of which kind, and what nobody asked for.

use std::collections::BTreeSet;

use quiver_model::meant;

use crate::{
    config::duration::parse_duration,
    diagnostics::{Diagnostic, Diagnostics},
    source::{Located, Place},
    value::{Table, Text, Value},
};

/// Reads a table. What is wrong is told, and counts as not there.
pub(crate) struct TableReader<'a> {
    table: &'a Table,
    /// Of what: ``window `coolant_5m` ``.
    pub(crate) subject: String,
    /// Where it is named.
    pub(crate) place: Place,
    asked: BTreeSet<&'static str>,
    pub(crate) diagnostics: &'a mut Diagnostics,
}

impl<'a> TableReader<'a> {
    pub(crate) fn new(
        table: &'a Table,
        subject: String,
        place: Place,
        diagnostics: &'a mut Diagnostics,
    ) -> Self {
        Self {
            table,
            subject,
            place,
            asked: BTreeSet::new(),
            diagnostics,
        }
    }

    /// The value of a key, whatever it is.
    pub(crate) fn any(&mut self, key: &'static str) -> Option<&'a Located<Value>> {
        self.asked.insert(key);
        self.table.get(key).map(|(_, value)| value)
    }

    fn kind_of(&mut self, key: &str, found: &Located<Value>, wanted: &str) {
        let message = format!(
            "`{key}` of {} is {}, and has to be {wanted}",
            self.subject,
            found.value.word()
        );
        self.diagnostics
            .push(Diagnostic::error(message, found.place.clone()));
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<Located<Text>> {
        let value = self.any(key)?;
        match &value.value {
            Value::Text(text) => Some(Located::new(text.clone(), value.place.clone())),
            _ => {
                self.kind_of(key, value, "a text");
                None
            }
        }
    }

    pub(crate) fn required_text(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Located<Text>> {
        if self.any(key).is_none() {
            self.missing(key, example);
        }
        self.text(key)
    }

    pub(crate) fn missing(&mut self, key: &str, example: &str) {
        let message = format!("{} has no `{key}`", self.subject);
        self.diagnostics.push(
            Diagnostic::error(message, self.place.clone())
                .help(format!("write `{key} = {example}`")),
        );
    }

    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<Located<bool>> {
        let value = self.any(key)?;
        match &value.value {
            Value::Boolean(is_true) => Some(Located::new(*is_true, value.place.clone())),
            _ => {
                self.kind_of(key, value, "true or false");
                None
            }
        }
    }

    pub(crate) fn number(&mut self, key: &'static str) -> Option<Located<f64>> {
        let value = self.any(key)?;
        let number = match &value.value {
            Value::Integer(number) => *number as f64,
            Value::Float(number) => *number,
            _ => {
                self.kind_of(key, value, "a number");
                return None;
            }
        };
        Some(Located::new(number, value.place.clone()))
    }

    pub(crate) fn integer(&mut self, key: &'static str) -> Option<Located<i64>> {
        let value = self.any(key)?;
        match &value.value {
            Value::Integer(number) => Some(Located::new(*number, value.place.clone())),
            _ => {
                self.kind_of(key, value, "an integer");
                None
            }
        }
    }

    /// A span of time in microseconds: `"1m30s"`.
    pub(crate) fn duration(&mut self, key: &'static str) -> Option<Located<i64>> {
        let text = self.text(key)?;
        match parse_duration(text.as_str()) {
            Ok(micros) => Some(Located::new(micros, text.place)),
            Err(problem) => {
                self.invalid(key, &problem, text.place);
                None
            }
        }
    }

    pub(crate) fn invalid(&mut self, key: &str, problem: &str, place: Place) {
        let message = format!("`{key}` of {}: {problem}", self.subject);
        self.diagnostics.push(Diagnostic::error(message, place));
    }

    /// One text, or a list of them.
    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Located<Vec<Located<Text>>>> {
        let value = self.any(key)?;
        let items = match &value.value {
            Value::Text(text) => vec![Located::new(text.clone(), value.place.clone())],
            Value::List(items) => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    match &item.value {
                        Value::Text(text) => {
                            texts.push(Located::new(text.clone(), item.place.clone()));
                        }
                        _ => self.kind_of(key, item, "a text, as every item of the list"),
                    }
                }
                texts
            }
            _ => {
                self.kind_of(key, value, "a text, or a list of them");
                return None;
            }
        };
        Some(Located::new(items, value.place.clone()))
    }

    pub(crate) fn table(&mut self, key: &'static str) -> Option<(&'a Table, Place)> {
        let value = self.any(key)?;
        match &value.value {
            Value::Table(table) => Some((table, value.place.clone())),
            _ => {
                self.kind_of(key, value, "a table");
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn one_of<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Option<Located<T>> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.as_str()) {
            return Some(Located::new(*value, text.place));
        }
        let all: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message = format!("`{key}` of {} cannot be {:?}", self.subject, text.as_str());
        self.diagnostics.push(
            Diagnostic::error(message, text.place).help(format!("it is one of {}", all.join(", "))),
        );
        None
    }

    /// Says which keys mean nothing here.
    pub(crate) fn finish(self) {
        for (key, _) in &self.table.entries {
            if self.asked.contains(key.value.as_str()) {
                continue;
            }
            let known: Vec<String> = self.asked.iter().map(|key| (*key).to_owned()).collect();
            let help = match meant(&key.value, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                _ => format!("there is {}", listed(&known)),
            };
            let message = format!("{} has no setting `{}`", self.subject, key.value);
            self.diagnostics
                .push(Diagnostic::error(message, key.place.clone()).help(help));
        }
    }
}

pub(crate) fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
