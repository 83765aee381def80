//! From DataFusion's errors to [`QueryError`].

use datafusion::error::DataFusionError;

use crate::error::QueryError;

/// What DataFusion's `error` means for a query that may use `memory_limit` bytes. What the archive's
/// reader recorded is looked at before this is asked.
pub(crate) fn classify(error: DataFusionError, memory_limit: usize) -> QueryError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            classify(*inner, memory_limit)
        }
        DataFusionError::Shared(inner) => classify_shared(&inner, memory_limit),
        DataFusionError::Collection(mut errors) if !errors.is_empty() => {
            classify(errors.swap_remove(0), memory_limit)
        }
        other => classify_shared(&other, memory_limit),
    }
}

fn classify_shared(error: &DataFusionError, memory_limit: usize) -> QueryError {
    let message = text(error);
    match error.find_root() {
        DataFusionError::SQL(..) => QueryError::Syntax { message },
        DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_) => QueryError::Plan { message },
        DataFusionError::ResourcesExhausted(_) => QueryError::Memory {
            limit: memory_limit,
            detail: message,
        },
        DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => {
            QueryError::Execution { message }
        }
        _ => QueryError::Internal { message },
    }
}

/// The message without backtrace and without the class that [`QueryError`] states anyway.
fn text(error: &DataFusionError) -> String {
    let message = error.find_root().strip_backtrace();
    let prefixes = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Schema error: ",
        "SQL error: ",
        "Resources exhausted: ",
        "This feature is not implemented: ",
    ];
    for prefix in prefixes {
        if let Some(rest) = message.strip_prefix(prefix) {
            return rest.to_owned();
        }
    }
    message
}
