//! `quiver devices enroll --from`: identities from a file, one a line, many in one request.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use quiver_model::{DeviceId, SenderKind};

use super::{
    csv_lines::{Lines, cells},
    portion::Portion,
};
use crate::{
    exit::{DATA, Failure, UNAVAILABLE},
    http::{BulkAnswer, BulkRequest, EnrollRequest},
    numbers::grouped,
    remote::Remote,
    say::{say, tell},
};

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
    let mut lines = Lines::open(from)?;
    let mut batch = Batch::new(engine, common);
    let mut columns: Option<Vec<Column>> = None;
    while let Some(line) = lines.next()? {
        let cells = match line.text.as_deref().map_err(Clone::clone).and_then(cells) {
            Ok(cells) => cells,
            Err(problem) => {
                batch.wrong(line.number, problem);
                continue;
            }
        };
        let Some(columns) = &columns else {
            let header = Column::header(&cells)?;
            let is_header = header.is_some();
            let known = columns.insert(header.unwrap_or_else(|| vec![Column::Id]));
            if !is_header {
                batch.line(line.number, &cells, known)?;
            }
            continue;
        };
        batch.line(line.number, &cells, columns)?;
    }
    batch.send()?;
    if batch.lines == 0 {
        let text = format!("{} names no identity; give one id a line", from.display());
        return Err(Failure::new(DATA, text));
    }
    say!("{} identities are enrolled", grouped(batch.enrolled));
    some_lines_are_wrong(batch.refused, batch.lines)
}

/// What it means that lines were left out.
///
/// # Errors
/// If some were.
pub fn some_lines_are_wrong(refused: u64, lines: u64) -> Result<(), Failure> {
    if refused == 0 {
        return Ok(());
    }
    let text = format!(
        "{} of {} lines are wrong and were left out; mend them and run it again, which changes nothing of the others",
        grouped(refused),
        grouped(lines)
    );
    Err(Failure::new(DATA, text))
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
    fn header(cells: &[Cow<'_, str>]) -> Result<Option<Vec<Self>>, Failure> {
        let column = |cell: &Cow<'_, str>| match cell.as_ref() {
            "id" => Ok(Self::Id),
            "kind" => Ok(Self::Kind),
            "gateway" => Ok(Self::Gateway),
            other => Err(Failure::new(
                DATA,
                format!(
                    "the header has column {other:?}, which is not id, kind or gateway; a file of several columns begins with their names. Attributes in columns are for: quiver devices import"
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
    /// With their lines.
    identities: Portion<EnrollRequest, u64>,
    lines: u64,
    enrolled: u64,
    refused: u64,
}

impl<'a> Batch<'a> {
    const fn new(engine: &'a Remote, common: &'a Common) -> Self {
        Self {
            engine,
            common,
            identities: Portion::new(),
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
    fn line(
        &mut self,
        number: u64,
        cells: &[Cow<'_, str>],
        columns: &[Column],
    ) -> Result<(), Failure> {
        match self.identity(cells, columns) {
            Ok(identity) => {
                self.lines += 1;
                if self.identities.push(identity, number)? {
                    self.send()?;
                }
            }
            Err(problem) => self.wrong(number, problem),
        }
        Ok(())
    }

    fn identity(
        &self,
        cells: &[Cow<'_, str>],
        columns: &[Column],
    ) -> Result<EnrollRequest, String> {
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
            found
                .map(|(_, cell)| cell.as_ref())
                .filter(|cell| !cell.is_empty())
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
        let (identities, numbers) = self.identities.take();
        let Some(first) = numbers.first().copied() else {
            return Ok(());
        };
        let request = BulkRequest { identities };
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
            let number = numbers.get(refusal.index).copied().unwrap_or(first);
            tell!("line {number}: {}", refusal.error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_a_header_or_an_id() {
        let header = |cells: &[&str]| {
            let cells: Vec<_> = cells.iter().copied().map(Cow::from).collect();
            Column::header(&cells).map_err(|failure| failure.to_string())
        };
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
}
