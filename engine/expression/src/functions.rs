//! Which of DataFusion's functions an expression may call.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use datafusion_expr::{ScalarUDF, Volatility};

use crate::json::json_functions;

/// Functions whose result can be vastly larger than their arguments: one call could take all memory
/// there is.
const AMPLIFYING: [&str; 5] = ["repeat", "lpad", "rpad", "space", "format_string"];
/// Functions that read the clock, under names that do not say so by themselves.
const OF_THE_CLOCK: [&str; 3] = ["now", "current_date", "current_time"];

/// What there is to a name.
#[derive(Clone, Debug)]
pub(crate) enum Function {
    Usable(Arc<ScalarUDF>),
    /// Its result depends on when or how often it is called.
    Unsteady,
    Amplifying,
}

static FUNCTIONS: LazyLock<HashMap<String, Function>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    let all = datafusion_functions::all_default_functions();
    for function in all.into_iter().chain(json_functions()) {
        let name = function.name();
        let entry = if AMPLIFYING.contains(&name) {
            Function::Amplifying
        } else if OF_THE_CLOCK.contains(&name)
            || function.signature().volatility == Volatility::Volatile
        {
            Function::Unsteady
        } else {
            Function::Usable(Arc::clone(&function))
        };
        for alias in function.aliases() {
            functions.insert(alias.clone(), entry.clone());
        }
        functions.insert(name.to_owned(), entry);
    }
    functions
});

/// The function of this name, in lower case.
pub(crate) fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

/// Names of all usable functions.
pub(crate) fn names() -> Vec<String> {
    let usable = |(name, function): (&String, &Function)| {
        matches!(function, Function::Usable(_)).then(|| name.clone())
    };
    let mut names: Vec<String> = FUNCTIONS.iter().filter_map(usable).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_steady_and_small_may_be_called() {
        for name in [
            "abs",
            "round",
            "upper",
            "date_trunc",
            "date_bin",
            "coalesce",
            "regexp_like",
            "to_char",
            "json_float",
            "json_text",
            "sqrt",
            "power",
            "starts_with",
            "nullif",
            "greatest",
        ] {
            assert!(
                matches!(function(name), Some(Function::Usable(_))),
                "{name}"
            );
        }
        for name in [
            "now",
            "random",
            "uuid",
            "current_date",
            "current_timestamp",
            "today",
        ] {
            assert!(
                matches!(function(name), Some(Function::Unsteady)),
                "{name} {:?}",
                function(name)
            );
        }
        assert!(matches!(function("repeat"), Some(Function::Amplifying)));
        assert!(function("sleep").is_none());
    }
}
