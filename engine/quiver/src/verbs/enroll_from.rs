//! `quiver devices enroll --from`: identities from a file, one a line, many in one request.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use quiver_model::{DeviceId, SenderKind};

use crate::{
    exit::{DATA, Failure, IO, UNAVAILABLE},
    http::{BulkAnswer, BulkRequest, EnrollRequest},
    numbers::grouped,
    remote::Remote,
    say::{say, tell},
};

/// Identities, and bytes of them, in one request: below what the engine takes.
const IDENTITIES_AT_ONCE: usize = 2_000;
const BYTES_AT_ONCE: usize = 512 << 10;
/// Longest line: an id, a kind and a gateway are far shorter.
const LINE_BYTES_MAX: usize = 4_096;

/// What the command line says of every identity of the file.
pub struct Common {
    /// Of those whose line names no other.
    pub kind: String,
    /// Beside the one that a line may name.
    pub gateways: Vec<String>,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
}

/// Enrolls every identity of a file; `-` is standard input. Lines that are wrong are told with
/// their number, and the others are enrolled.
///
/// # Errors
/// If lines were wrong, the file cannot be read, or the engine does not take it.
pub fn run(engine: &Remote, from: &Path, common: &Common) -> Result<(), Failure> {
    let unreadable =
        |error: io::Error| Failure::new(IO, format!("{} cannot be read: {error}", from.display()));
    let mut input: Box<dyn BufRead> = if from == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(from).map_err(unreadable)?))
    };
    let mut batch = Batch::new(engine, common);
    let mut columns: Option<Vec<Column>> = None;
    let mut number = 0;
    while let Some(line) = next_line(&mut *input).map_err(unreadable)? {
        number += 1;
        let text = match line.text() {
            Ok(text) => text.trim_start_matches('\u{feff}').trim(),
            Err(problem) => {
                batch.wrong(number, problem);
                continue;
            }
        };
        if text.is_empty() {
            continue;
        }
        let cells: Vec<&str> = text.split(',').map(unquoted).collect();
        let Some(columns) = &columns else {
            let header = Column::header(&cells)?;
            let is_header = header.is_some();
            let known = columns.insert(header.unwrap_or_else(|| vec![Column::Id]));
            if !is_header {
                batch.line(number, &cells, known)?;
            }
            continue;
        };
        batch.line(number, &cells, columns)?;
    }
    batch.send()?;
    if batch.lines == 0 {
        let text = format!("{} names no identity; give one id a line", from.display());
        return Err(Failure::new(DATA, text));
    }
    say!("{} identities are enrolled", grouped(batch.enrolled));
    if batch.refused > 0 {
        let text = format!(
            "{} of {} lines are wrong and were left out; mend them and run it again, which changes nothing of the others",
            grouped(batch.refused),
            grouped(batch.lines)
        );
        return Err(Failure::new(DATA, text));
    }
    Ok(())
}

fn unquoted(cell: &str) -> &str {
    let cell = cell.trim();
    let inner = cell
        .strip_prefix('"')
        .and_then(|cell| cell.strip_suffix('"'));
    inner.unwrap_or(cell).trim()
}

/// A line without its end.
struct Line {
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl Line {
    fn text(&self) -> Result<&str, String> {
        if self.is_too_long {
            return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
        }
        std::str::from_utf8(&self.bytes).map_err(|_| "it is not UTF-8".to_owned())
    }
}

/// The next line, of which no more than [`LINE_BYTES_MAX`] bytes are kept.
fn next_line(input: &mut dyn BufRead) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    if (&mut *input).take(limit).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let is_too_long = bytes.len() > LINE_BYTES_MAX && !bytes.ends_with(b"\n");
    if is_too_long {
        let mut rest = Vec::new();
        // The rest of it, piece by piece.
        while (&mut *input).take(limit).read_until(b'\n', &mut rest)? > 0 {
            if rest.ends_with(b"\n") {
                break;
            }
            rest.clear();
        }
    }
    Ok(Some(Line { bytes, is_too_long }))
}

/// What a column says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Id,
    Kind,
    Gateway,
}

impl Column {
    /// The columns that the first line names; `None` if it is an id and no header.
    fn header(cells: &[&str]) -> Result<Option<Vec<Self>>, Failure> {
        let column = |cell: &&str| match *cell {
            "id" => Ok(Self::Id),
            "kind" => Ok(Self::Kind),
            "gateway" => Ok(Self::Gateway),
            other => Err(Failure::new(
                DATA,
                format!(
                    "the header has column {other:?}, which is not id, kind or gateway; a file of several columns begins with their names"
                ),
            )),
        };
        if cells.len() == 1 && cells != ["id"] {
            return Ok(None);
        }
        let columns = cells.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let ids = columns.iter().filter(|column| **column == Self::Id);
        let is_twice = (1..columns.len()).any(|at| columns[..at].contains(&columns[at]));
        if ids.count() != 1 || is_twice {
            let text = "the header must name id, and may name kind and gateway, each once";
            return Err(Failure::new(DATA, text));
        }
        Ok(Some(columns))
    }
}

/// Identities that wait for the next request.
struct Batch<'a> {
    engine: &'a Remote,
    common: &'a Common,
    identities: Vec<EnrollRequest>,
    /// The line of each.
    numbers: Vec<u64>,
    /// Bytes that the request will have, about.
    bytes: usize,
    lines: u64,
    enrolled: u64,
    refused: u64,
}

impl<'a> Batch<'a> {
    const fn new(engine: &'a Remote, common: &'a Common) -> Self {
        Self {
            engine,
            common,
            identities: Vec::new(),
            numbers: Vec::new(),
            bytes: 0,
            lines: 0,
            enrolled: 0,
            refused: 0,
        }
    }

    fn wrong(&mut self, number: u64, problem: impl std::fmt::Display) {
        self.lines += 1;
        self.refused += 1;
        tell!("line {number}: {problem}");
    }

    /// Takes a line with these cells, and sends what there is when it is enough.
    fn line(&mut self, number: u64, cells: &[&str], columns: &[Column]) -> Result<(), Failure> {
        match self.identity(cells, columns) {
            Ok(identity) => {
                let texts = |texts: &BTreeMap<String, String>| -> usize {
                    texts
                        .iter()
                        .map(|(key, value)| key.len() + value.len() + 8)
                        .sum()
                };
                let gateways = identity.gateways.iter().map(|gateway| gateway.len() + 4);
                self.bytes += 160
                    + identity.id.len()
                    + gateways.sum::<usize>()
                    // As JSON a character may take six.
                    + 6 * texts(&identity.attributes);
                self.lines += 1;
                self.identities.push(identity);
                self.numbers.push(number);
            }
            Err(problem) => self.wrong(number, problem),
        }
        if self.identities.len() >= IDENTITIES_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            self.send()?;
        }
        Ok(())
    }

    fn identity(&self, cells: &[&str], columns: &[Column]) -> Result<EnrollRequest, String> {
        if cells.len() != columns.len() {
            return Err(format!(
                "it has {} columns, not {}",
                cells.len(),
                columns.len()
            ));
        }
        let cell = |wanted: Column| {
            let found = columns
                .iter()
                .zip(cells)
                .find(|(column, _)| **column == wanted);
            found.map(|(_, cell)| *cell).filter(|cell| !cell.is_empty())
        };
        let id = cell(Column::Id).ok_or("it has no id")?;
        DeviceId::new(id).map_err(|error| error.to_string())?;
        let kind = cell(Column::Kind).unwrap_or(&self.common.kind);
        if SenderKind::from_word(kind).is_none() {
            return Err(format!("kind {kind:?} is not device, gateway or operator"));
        }
        let mut gateways: BTreeSet<String> = self.common.gateways.iter().cloned().collect();
        if let Some(gateway) = cell(Column::Gateway) {
            DeviceId::new(gateway).map_err(|error| format!("gateway: {error}"))?;
            gateways.insert(gateway.to_owned());
        }
        Ok(EnrollRequest {
            id: id.to_owned(),
            kind: kind.to_owned(),
            fingerprint: None,
            token_sha256: None,
            gateways,
            attributes: self.common.attributes.clone(),
        })
    }

    fn send(&mut self) -> Result<(), Failure> {
        let Some(first) = self.numbers.first().copied() else {
            return Ok(());
        };
        let request = BulkRequest {
            identities: std::mem::take(&mut self.identities),
        };
        let body = serde_json::to_value(&request).map_err(Failure::with(DATA))?;
        let answer = self
            .engine
            .post_text("/api/v1/devices/bulk", &body)
            .map_err(|failure| {
                let text = format!(
                    "{failure}; the lines before line {first} are enrolled, and perhaps some from there on: run it again, which changes nothing of those that are"
                );
                Failure::new(failure.code(), text)
            })?;
        let answer: BulkAnswer =
            serde_json::from_str(&answer).map_err(Failure::with(UNAVAILABLE))?;
        self.enrolled += answer.enrolled as u64;
        for refusal in answer.refused {
            self.refused += 1;
            let number = self.numbers.get(refusal.index).copied().unwrap_or(first);
            tell!("line {number}: {}", refusal.error);
        }
        self.numbers.clear();
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_a_header_or_an_id() {
        let header = |cells: &[&str]| Column::header(cells).map_err(|failure| failure.to_string());
        assert_eq!(header(&["truck_1"]), Ok(None));
        assert_eq!(header(&["id"]), Ok(Some(vec![Column::Id])));
        assert_eq!(
            header(&["kind", "id", "gateway"]),
            Ok(Some(vec![Column::Kind, Column::Id, Column::Gateway]))
        );
        for wrong in [
            &["id", "site"][..],
            &["id", "id"],
            &["kind", "gateway"],
            &["a", "b"],
        ] {
            assert!(header(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn lines_end_where_they_end_and_no_more_of_them_is_kept_than_may_be() {
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let text = format!("a\r\n\n{long}\n\"b\"\nlast");
        let mut input = text.as_bytes();
        let mut found = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            assert!(line.bytes.len() <= LINE_BYTES_MAX + 1);
            found.push(line.text().map(|text| unquoted(text).to_owned()).ok());
        }
        let expected = ["a", "", "-", "b", "last"];
        let expected = expected.map(|text| (text != "-").then(|| text.to_owned()));
        assert_eq!(found, expected);
    }
}
