//! Which settings were given on the command line or in the environment, and which are defaults.

use std::collections::BTreeMap;

use clap::{ArgMatches, Args, parser::ValueSource};

use crate::{
    exit::{Failure, USAGE},
    settings::EngineArgs,
};

/// Settings that were given, by the name of their field, and whether by a flag.
#[derive(Clone, Debug, Default)]
pub struct Given(BTreeMap<String, bool>);

impl Given {
    /// What was given to the verb, and to its action if it has some.
    pub fn of(matches: &ArgMatches) -> Self {
        let mut leaf = matches;
        while let Some((_, action)) = leaf.subcommand() {
            leaf = action;
        }
        let given = leaf.ids().filter_map(|id| {
            let by_flag = match leaf.value_source(id.as_str())? {
                ValueSource::CommandLine => true,
                ValueSource::EnvVariable => false,
                _ => return None,
            };
            Some((id.as_str().to_owned(), by_flag))
        });
        Self(given.collect())
    }

    /// Whether it was given at all.
    pub fn has(&self, setting: &str) -> bool {
        self.0.contains_key(setting)
    }

    /// Refuses the engine's settings, but those that are passed on to it, where an engine runs: it
    /// has its own. Variables of the environment are not refused, as they may be there for `serve`.
    pub fn check_for_running_engine(&self, passed_on: &[&str]) -> Result<(), Failure> {
        let engine = EngineArgs::augment_args(clap::Command::new("engine"));
        let flags: Vec<String> = engine
            .get_arguments()
            .map(|setting| setting.get_id().as_str())
            .filter(|id| self.0.get(*id) == Some(&true) && !passed_on.contains(id))
            .map(|id| format!("--{}", id.replace('_', "-")))
            .collect();
        if flags.is_empty() {
            return Ok(());
        }
        let flags = flags.join(" and ");
        Err(Failure::new(
            USAGE,
            format!(
                "{flags} would have no effect: an engine is running and has its own settings, and these are for a data directory on which none runs; leave {flags} out, or start the engine with it"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn given(line: &[&str]) -> Given {
        Given::of(
            &crate::cli::Cli::command()
                .try_get_matches_from(line)
                .unwrap(),
        )
    }

    #[test]
    fn only_flags_that_were_given_and_are_not_passed_on_are_refused() {
        let none = given(&["quiver", "sql", "SELECT 1"]);
        assert!(!none.has("query_timeout"));
        assert!(none.check_for_running_engine(&[]).is_ok());
        let time = given(&["quiver", "sql", "--query-timeout", "1s", "SELECT 1"]);
        assert!(time.has("query_timeout"));
        assert!(time.check_for_running_engine(&["query_timeout"]).is_ok());
        let line = [
            "quiver",
            "archive",
            "check",
            "--query-memory",
            "1MiB",
            "--shards",
            "2",
        ];
        let failure = given(&line).check_for_running_engine(&[]).unwrap_err();
        assert_eq!(failure.code(), USAGE);
        let text = failure.to_string();
        assert!(text.contains("--shards and --query-memory"), "{text}");
    }
}
