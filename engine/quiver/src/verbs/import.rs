//! `quiver devices import`: attributes of a fleet from a CSV file, a device a line.
//!
//! The file is right about the columns that it has: a cell is the attribute's value, and where it is
//! empty the device has none. What is in no column stays as it is, and so does a fingerprint whose
//! cell is empty; a gateway is one more that may speak for the device.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use quiver_model::{DeviceId, SenderKind};
use quiver_runtime::registry::{ATTRIBUTES_MAX, check_attribute_key};

use super::{
    amend::Amendments,
    csv_lines::{Lines, cells},
    enroll_from::some_lines_are_wrong,
};
use crate::{
    exit::{DATA, Failure},
    http::AmendRequest,
    remote::Remote,
};

/// Imports a file; `-` is standard input. Lines that are wrong are told with their number, and the
/// others are done; so are those of unknown identities if only known ones are wanted.
///
/// # Errors
/// If the header or lines were wrong, the file cannot be read, or the engine does not take it.
pub fn run(engine: &Remote, from: &Path, existing_only: bool) -> Result<(), Failure> {
    let mut lines = Lines::open(from)?;
    let first = lines.next()?.ok_or_else(|| {
        let text = format!("{} is empty; it begins with a header", from.display());
        Failure::new(DATA, text)
    })?;
    let header = first.text.as_deref().map_err(Clone::clone);
    let header = header.and_then(cells).and_then(|cells| header_of(&cells));
    let columns = header.map_err(|problem| {
        let text = format!("the header, line {}: {problem}", first.number);
        Failure::new(DATA, text)
    })?;
    let mut amendments = Amendments::new(engine, !existing_only);
    while let Some(line) = lines.next()? {
        let number = Some(line.number);
        let text = line.text.as_deref().map_err(Clone::clone);
        match text
            .and_then(cells)
            .and_then(|cells| identity(&columns, cells))
        {
            Ok(identity) => amendments.push(identity, number)?,
            Err(problem) => amendments.wrong(number, problem),
        }
    }
    amendments.send()?;
    amendments.counts.say();
    some_lines_are_wrong(amendments.counts.refused, amendments.counts.named)
}

/// What a column says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Id,
    Kind,
    Gateway,
    Fingerprint,
    /// The attribute of this key.
    Attribute(String),
}

/// The columns that the first line names.
fn header_of(cells: &[Cow<'_, str>]) -> Result<Vec<Column>, String> {
    let mut columns: Vec<Column> = Vec::with_capacity(cells.len());
    for cell in cells {
        let column = match cell.as_ref() {
            "id" => Column::Id,
            "kind" => Column::Kind,
            "gateway" => Column::Gateway,
            "fingerprint" => Column::Fingerprint,
            key => {
                check_attribute_key(key).map_err(|error| {
                    format!("{error}; columns are separated by commas, and each has a name")
                })?;
                Column::Attribute(key.to_owned())
            }
        };
        if columns.contains(&column) {
            return Err(format!("column {cell:?} is there twice"));
        }
        columns.push(column);
    }
    if !columns.contains(&Column::Id) {
        return Err("it names no column id".to_owned());
    }
    let attributes = columns
        .iter()
        .filter(|column| matches!(column, Column::Attribute(_)))
        .count();
    if attributes > ATTRIBUTES_MAX {
        return Err(format!(
            "{attributes} columns of attributes are more than the {ATTRIBUTES_MAX} that an identity may have"
        ));
    }
    Ok(columns)
}

/// What a line with these cells asks for. What the engine checks of it is left to the engine.
fn identity(columns: &[Column], cells: Vec<Cow<'_, str>>) -> Result<AmendRequest, String> {
    if cells.len() != columns.len() {
        return Err(format!(
            "it has {} columns, not {}",
            cells.len(),
            columns.len()
        ));
    }
    let mut asked = AmendRequest {
        id: String::new(),
        kind: SenderKind::Device.as_str().to_owned(),
        fingerprint: None,
        gateways: BTreeSet::new(),
        attributes: BTreeMap::new(),
    };
    for (column, cell) in columns.iter().zip(cells) {
        let given = Some(cell.into_owned()).filter(|cell| !cell.is_empty());
        match (column, given) {
            (Column::Id, id) => asked.id = id.ok_or("it has no id")?,
            (Column::Kind, Some(kind)) => asked.kind = kind,
            (Column::Gateway, Some(gateway)) => {
                DeviceId::new(&gateway).map_err(|error| format!("gateway: {error}"))?;
                asked.gateways.insert(gateway);
            }
            (Column::Fingerprint, fingerprint) => asked.fingerprint = fingerprint,
            (Column::Kind | Column::Gateway, None) => {}
            (Column::Attribute(key), value) => {
                asked.attributes.insert(key.clone(), value);
            }
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(line: &str) -> Result<Vec<Column>, String> {
        header_of(&cells(line).unwrap())
    }

    #[test]
    fn the_header_names_an_id_and_what_may_be_an_attribute() {
        let columns = header("fleet,id,\"gateway\",fingerprint,kind,Id").unwrap();
        let attribute = |key: &str| Column::Attribute(key.to_owned());
        let expected = [
            attribute("fleet"),
            Column::Id,
            Column::Gateway,
            Column::Fingerprint,
            Column::Kind,
            attribute("Id"),
        ];
        assert_eq!(columns, expected);
        for (wrong, part) in [
            ("truck_1", "no column id"),
            ("fleet,model", "no column id"),
            ("id;fleet", "separated by commas"),
            ("id,", "each has a name"),
            ("id,two words", "two words"),
            ("id,fleet,fleet", "\"fleet\" is there twice"),
            ("id,id", "\"id\" is there twice"),
        ] {
            let problem = header(wrong).unwrap_err();
            assert!(problem.contains(part), "{wrong}: {problem}");
        }
        let many = |count: usize| {
            let columns = (0..count).map(|n| format!(",k{n}"));
            format!("id{}", columns.collect::<String>())
        };
        assert!(header(&many(ATTRIBUTES_MAX)).is_ok());
        assert!(header(&many(ATTRIBUTES_MAX + 1)).is_err());
    }

    #[test]
    fn an_empty_cell_is_an_attribute_that_is_not_there() {
        let columns = header("id,kind,gateway,fingerprint,fleet,model").unwrap();
        let asked = |line: &str| identity(&columns, cells(line).unwrap());
        let empty = asked("truck_1,,,,west,").unwrap();
        assert_eq!(
            (empty.id.as_str(), empty.kind.as_str()),
            ("truck_1", "device")
        );
        assert!(empty.gateways.is_empty() && empty.fingerprint.is_none());
        let expected = [("fleet", Some("west")), ("model", None)];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(empty.attributes, BTreeMap::from(expected));
        let full = asked(r#"gw_1,gateway,gw_0,AB:CD,"a, b",x"#).unwrap();
        assert_eq!((full.kind.as_str(), full.gateways.len()), ("gateway", 1));
        assert_eq!(full.fingerprint.as_deref(), Some("AB:CD"));
        for wrong in ["truck_1", ",,,,west,", "truck_1,,no gateway,,,", "a,,,,,,"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
