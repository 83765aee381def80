//! A configuration's values with their places, after what they refer to was put in.

use std::{fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    diagnostics::{Diagnostic, Diagnostics},
    source::{Located, Place, Sources},
};

/// Something outside of the configuration that a value refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// `${env:NAME}`: a variable of the environment.
    Environment(&'a str),
    /// `${file:PATH}`: the content of a file, without the line end it ends with.
    File(&'a str),
}

/// Says what something outside is, or why that cannot be said.
pub type Lookup<'a> = &'a dyn Fn(Reference<'_>) -> Result<String, String>;

/// A text.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// What it says.
    pub value: String,
    /// Whether it was put together from something outside, and must not be shown.
    pub is_secret: bool,
    /// Whether something that it refers to is not known, so that it cannot be judged.
    pub is_incomplete: bool,
    /// Where its first byte is in its file, if it stands there letter by letter.
    first: Option<usize>,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_secret {
            return f.write_str("***");
        }
        self.value.fmt(f)
    }
}

impl Text {
    /// A text that stands as it is.
    pub fn plain(value: &str) -> Self {
        Self {
            value: value.to_owned(),
            is_secret: false,
            is_incomplete: false,
            first: None,
        }
    }
}

impl Located<Text> {
    /// The place of a part of the text; of the whole where that is not known.
    pub fn part(&self, span: &Range<usize>) -> Place {
        match self.value.first {
            Some(first) => Place {
                file: self.place.file,
                span: first + span.start..first + span.end,
            },
            None => self.place.clone(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.value.value
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(Text),
    /// An integer.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A date, a time, or both, as it is written.
    Time(String),
    /// A list.
    List(Vec<Located<Value>>),
    /// A table.
    Table(Table),
}

impl Value {
    /// What it is, in words.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Time(_) => "a time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Keys and values in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The entries.
    pub entries: Vec<(Located<String>, Located<Value>)>,
}

impl Table {
    /// The entry of a key.
    pub fn get(&self, key: &str) -> Option<&(Located<String>, Located<Value>)> {
        self.entries.iter().find(|(name, _)| name.value == key)
    }
}

/// Reads every file. What cannot be read is told, and left out.
pub(crate) fn tables(
    sources: &Sources,
    lookup: Lookup<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<Table> {
    let read = |(number, file): (usize, &crate::source::SourceFile)| {
        let (table, errors) = DeTable::parse_recoverable(&file.text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let message = error.message().trim_end_matches('.').replace('\n', ", ");
            let place = Place { file: number, span };
            diagnostics.push(Diagnostic::error(message, place));
        }
        let mut reader = Reader {
            file: number,
            text: &file.text,
            lookup,
            diagnostics,
        };
        reader.table(table.into_inner())
    };
    sources.files.iter().enumerate().map(read).collect()
}

struct Reader<'a> {
    file: usize,
    text: &'a str,
    lookup: Lookup<'a>,
    diagnostics: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place {
            file: self.file,
            span,
        }
    }

    fn table(&mut self, table: DeTable<'_>) -> Table {
        let mut entries: Vec<_> = table
            .into_iter()
            .map(|(key, value)| {
                let place = self.place(key.span());
                let name = Located::new(key.into_inner().into_owned(), place);
                (name, self.value(value))
            })
            .collect();
        entries.sort_by_key(|(name, _)| name.place.span.start);
        Table { entries }
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>) -> Located<Value> {
        let place = self.place(value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(self.text(&text, &place)),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => {
                        let message = "an integer beyond 64 bits";
                        self.diagnostics
                            .push(Diagnostic::error(message, place.clone()));
                        Value::Integer(0)
                    }
                }
            }
            DeValue::Float(number) => {
                Value::Float(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(is_true) => Value::Boolean(is_true),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Array(items) => {
                Value::List(items.into_iter().map(|item| self.value(item)).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Located::new(value, place)
    }

    /// A text, with what it refers to in the place of `${env:NAME}` and `${file:PATH}`; `$${` stands
    /// for `${`.
    fn text(&mut self, text: &str, place: &Place) -> Text {
        let written = self.text.get(place.span.clone()).unwrap_or_default();
        let quotes = written.len() - written.trim_start_matches(['"', '\'']).len();
        // After the quotes, and the line end that follows three of them.
        let first = (quotes..=quotes + 2)
            .map(|skipped| place.span.start + skipped)
            .find(|first| {
                let written = self.text.get(*first..*first + text.len());
                written == Some(text) && first + text.len() <= place.span.end
            });
        if !text.contains("${") {
            return Text {
                value: text.to_owned(),
                is_secret: false,
                is_incomplete: false,
                first,
            };
        }
        let whole = place.clone();
        let part = |span: Range<usize>| match first {
            Some(first) => Place {
                file: whole.file,
                span: first + span.start..first + span.end,
            },
            None => whole.clone(),
        };
        let mut value = String::new();
        let mut is_secret = false;
        let mut is_incomplete = false;
        let mut at = 0;
        while let Some(found) = text[at..].find("${") {
            let start = at + found;
            if text[..start].ends_with('$') {
                value.push_str(&text[at..start - 1]);
                value.push_str("${");
                at = start + 2;
                continue;
            }
            value.push_str(&text[at..start]);
            let Some(length) = text[start..].find('}') else {
                let problem = Diagnostic::error("`${` is not closed", part(start..text.len()))
                    .help("write `${env:NAME}` or `${file:PATH}`; a `${` that is meant so is written `$${`");
                self.diagnostics.push(problem);
                is_incomplete = true;
                at = text.len();
                break;
            };
            let end = start + length + 1;
            let inner = &text[start + 2..end - 1];
            let reference = match inner.split_once(':') {
                Some(("env", name)) => Some(Reference::Environment(name)),
                Some(("file", path)) => Some(Reference::File(path)),
                _ => None,
            };
            match reference {
                Some(reference) => match (self.lookup)(reference) {
                    Ok(content) => {
                        value.push_str(&content);
                        self.diagnostics.secrets.add(&content);
                        is_secret = true;
                    }
                    Err(problem) => {
                        is_incomplete = true;
                        self.diagnostics
                            .push(Diagnostic::error(problem, part(start..end)));
                    }
                },
                None => {
                    let message = format!("`${{{inner}}}` refers to nothing");
                    let problem = Diagnostic::error(message, part(start..end))
                        .help("write `${env:NAME}` or `${file:PATH}`; a `${` that is meant so is written `$${`");
                    self.diagnostics.push(problem);
                    is_incomplete = true;
                }
            }
            at = end;
        }
        value.push_str(&text[at..]);
        Text {
            value,
            is_secret,
            is_incomplete,
            first: None,
        }
    }
}
