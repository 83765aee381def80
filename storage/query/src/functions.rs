//! Which of DataFusion's functions a query may call.
//!
//! Operators account for the memory they take; functions do not. Those that make a large value out
//! of a small one are left out: one call could take all memory there is.

use std::sync::Arc;

use datafusion::{execution::SessionStateDefaults, logical_expr::ScalarUDF};

/// Names (and aliases) of functions whose result can be vastly larger than their arguments.
const AMPLIFYING: [&str; 12] = [
    "repeat",
    "lpad",
    "rpad",
    "space",
    "range",
    "generate_series",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "array_pad",
    "format_string",
];

/// The scalar functions of a query.
pub(crate) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .filter(|function| !AMPLIFYING.contains(&function.name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_functions_stay_and_amplifying_ones_go() {
        let functions = scalar_functions();
        let has = |name: &str| {
            functions.iter().any(|function| {
                function.name() == name || function.aliases().iter().any(|alias| alias == name)
            })
        };
        for name in [
            "date_bin",
            "date_trunc",
            "abs",
            "concat",
            "upper",
            "regexp_like",
            "to_timestamp",
            "coalesce",
        ] {
            assert!(has(name), "{name}");
        }
        for name in AMPLIFYING {
            assert!(!has(name), "{name}");
        }
    }
}
