//! Columns that lookups add: those of their tables, or attributes of the device.

use arrow_schema::{DataType, SchemaRef};
use quiver_model::{ARRIVAL, DEVICE, POSITION, TS, meant};

use super::Checker;
use crate::{
    config::{LookupConfig, LookupTable, listed},
    diagnostics::Diagnostic,
    graph::Columns,
    source::Located,
    value::Text,
};

impl Checker<'_> {
    /// The rows' columns and those that are added, which replace those of the same name.
    pub(super) fn lookup(&mut self, lookup: &LookupConfig) -> Columns {
        let rows = self.union();
        for (column, _) in &lookup.on {
            let is_of_every_row = [TS, DEVICE, ARRIVAL, POSITION].contains(&column.as_str());
            if !rows.is_unknown() && !is_of_every_row {
                self.has_column(column, &rows, "the rows have");
            }
        }
        let added = match &lookup.table {
            Some(LookupTable::Registry) => self.of_registry(lookup),
            Some(LookupTable::File(_)) => match self.tables.get(self.node.name()) {
                Some(schema) => self.of_table(lookup, schema),
                // Why the table cannot be read is told by whoever reads it.
                None => return Columns::unknown(),
            },
            None => return Columns::unknown(),
        };
        let replaced = |columns: Columns, (name, data_type): (String, DataType)| {
            columns.with(&name, data_type)
        };
        added.into_iter().fold(rows, replaced)
    }

    fn of_registry(&mut self, lookup: &LookupConfig) -> Vec<(String, DataType)> {
        if lookup.columns.is_empty() {
            let message = format!("lookup `{}` adds nothing", self.node.name());
            let place = self.node.config.name.place.clone();
            self.diagnostics.push(
                Diagnostic::error(message, place)
                    .help("name attributes of the device: `columns = [\"fleet\"]`"),
            );
        }
        for column in &lookup.columns {
            self.named(column.as_str(), &column.place);
        }
        let columns = lookup.columns.iter();
        columns
            .map(|column| (column.as_str().to_owned(), DataType::Utf8))
            .collect()
    }

    fn of_table(&mut self, lookup: &LookupConfig, schema: &SchemaRef) -> Vec<(String, DataType)> {
        let columns = schema.fields().iter().filter_map(|field| {
            let stored = crate::execute::stored_type(field.data_type())?;
            Some((field.name().clone(), stored))
        });
        let table = Columns::of(columns);
        for (_, key) in &lookup.on {
            self.has_column(key, &table, "the table has");
        }
        for column in &lookup.columns {
            self.has_column(column, &table, "the table has");
        }
        let has_device = table.fields.iter().any(|(name, _)| name == DEVICE);
        if lookup.on.is_empty() && !has_device {
            let message = format!(
                "the table of lookup `{}` has no column `{DEVICE}`",
                self.node.name()
            );
            let place = self.node.config.name.place.clone();
            self.diagnostics.push(
                Diagnostic::error(message, place)
                    .help("say which columns have to be equal: `on = { device = \"truck_id\" }`"),
            );
        }
        let is_key = |name: &str| match lookup.on.is_empty() {
            true => name == DEVICE,
            false => lookup.on.iter().any(|(_, key)| key.as_str() == name),
        };
        let is_added = |name: &str| match lookup.columns.is_empty() {
            true => !is_key(name),
            false => lookup.columns.iter().any(|column| column.as_str() == name),
        };
        let fields = table.fields.into_iter();
        fields.filter(|(name, _)| is_added(name)).collect()
    }

    /// Tells if a name is no column; `owner` is who has the columns, as a sentence begins.
    fn has_column(&mut self, name: &Located<Text>, columns: &Columns, owner: &str) {
        let known: Vec<String> = columns
            .fields
            .iter()
            .map(|(known, _)| known.clone())
            .collect();
        if known.iter().any(|known| known == name.as_str()) {
            return;
        }
        let message = format!("{owner} no column `{}`", name.as_str());
        let help = match meant(name.as_str(), known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there is {}", listed(&known)),
        };
        self.diagnostics
            .push(Diagnostic::error(message, name.place.clone()).help(help));
    }
}
