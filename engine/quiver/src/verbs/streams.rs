//! `quiver streams`.

use super::{print_table, running};
use crate::{
    cli::StreamsAction,
    exit::{Failure, UNAVAILABLE, USAGE},
    http::DeclareRequest,
};

/// Does what is asked.
pub fn run(action: StreamsAction) -> Result<(), Failure> {
    match action {
        StreamsAction::Declare {
            target,
            stream,
            fields,
        } => {
            let fields = fields.iter().map(|field| match field.split_once('=') {
                Some((name, word)) => Ok((name.to_owned(), word.to_owned())),
                None => Err(Failure::new(
                    USAGE,
                    format!("{field:?} is not name=type, such as fuel=decimal(1)"),
                )),
            });
            let request = DeclareRequest {
                stream,
                fields: fields.collect::<Result<_, _>>()?,
            };
            let body = serde_json::to_value(&request).map_err(Failure::with(USAGE))?;
            let answer = running(&target)?.post_text("/api/v1/streams", &body)?;
            let declared: DeclareRequest =
                serde_json::from_str(&answer).map_err(Failure::with(UNAVAILABLE))?;
            let head = ["stream", "field", "type"].map(str::to_owned).to_vec();
            let fields = declared.fields.into_iter();
            let rows = fields.map(|(field, word)| vec![declared.stream.clone(), field, word]);
            print_table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
            Ok(())
        }
    }
}
