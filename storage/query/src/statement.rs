//! The gate that text passes before anything is planned: short enough, one statement, of a kind
//! that only reads.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use datafusion::sql::{
    parser::{DFParserBuilder, Statement},
    sqlparser::{
        ast::{Cte, Query, Statement as SqlStatement, Visit, Visitor, visit_relations},
        dialect::GenericDialect,
        keywords::Keyword,
        tokenizer::{Token, Tokenizer},
    },
};

use crate::{
    error::QueryError,
    limits::{EXPANDED_RELATIONS_MAX, OPERATORS_MAX, RELATIONS_MAX, SQL_BYTES_MAX},
};

/// Deepest nesting of parentheses and sub-queries that the parser follows.
const NESTING_MAX: usize = 50;

/// Parses `sql` as one statement that may be run. Recursion is as deep as the text nests: call it
/// on a large stack.
pub(crate) fn parse(sql: &str) -> Result<Statement, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        return refuse(format!(
            "the query has {} bytes; at most {SQL_BYTES_MAX} are read",
            sql.len()
        ));
    }
    check_operators(sql)?;
    let syntax = |error: datafusion::error::DataFusionError| crate::classify::classify(error, 0);
    let mut statements = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect)
        .with_recursion_limit(NESTING_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(syntax)?;
    let count = statements.len();
    let Some(statement) = statements.pop_front() else {
        return Err(QueryError::Syntax {
            message: "the query is empty; try SHOW TABLES".into(),
        });
    };
    if count > 1 {
        return refuse(format!(
            "the text has {count} statements; send them one at a time"
        ));
    }
    check_kind(&statement)?;
    check_relations(&statement)?;
    Ok(statement)
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, QueryError> {
    Err(QueryError::Refused {
        reason: reason.into(),
    })
}

/// Each of these tokens may make an expression or a plan one level deeper.
fn deepens(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::COLLATE
                | Keyword::EXPLAIN
                | Keyword::OVER
        ),
        Token::EOF
        | Token::Number(..)
        | Token::Char(_)
        | Token::Comma
        | Token::Whitespace(_)
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::SemiColon
        | Token::Placeholder(_) => false,
        other => !is_literal(other),
    }
}

fn is_literal(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

fn check_operators(sql: &str) -> Result<(), QueryError> {
    let tokens = Tokenizer::new(&GenericDialect, sql)
        .tokenize()
        .map_err(|error| QueryError::Syntax {
            message: error.to_string(),
        })?;
    let operators = tokens.iter().filter(|token| deepens(token)).count();
    if operators > OPERATORS_MAX {
        return refuse(format!(
            "the query has {operators} operators; at most {OPERATORS_MAX} are allowed (long OR chains can be written as IN lists)"
        ));
    }
    Ok(())
}

fn check_kind(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(statement) => check_sql_kind(statement),
        Statement::Explain(explain) => check_kind(&explain.statement),
        Statement::CreateExternalTable(_) => {
            refuse("CREATE EXTERNAL TABLE; only streams can be queried")
        }
        Statement::CopyTo(_) => refuse("COPY; ask for the result in the format you need instead"),
        Statement::Reset(_) => refuse("RESET; settings belong to the engine's configuration"),
    }
}

fn check_sql_kind(statement: &SqlStatement) -> Result<(), QueryError> {
    match statement {
        SqlStatement::Query(_)
        | SqlStatement::ExplainTable { .. }
        | SqlStatement::ShowTables { .. }
        | SqlStatement::ShowColumns { .. }
        | SqlStatement::ShowFunctions { .. } => Ok(()),
        SqlStatement::Explain { statement, .. } => check_sql_kind(statement),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            refuse(format!(
                "{}; queries only read: SELECT, EXPLAIN, SHOW TABLES, SHOW COLUMNS, SHOW FUNCTIONS and DESCRIBE",
                words.join(" ")
            ))
        }
    }
}

fn check_relations(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(statement) => {
            let named = relations(statement.as_ref(), |_| 1);
            if named > RELATIONS_MAX {
                return refuse(format!(
                    "the query names {named} tables; at most {RELATIONS_MAX} are allowed, split it"
                ));
            }
            let expanded = Expansion::of(statement);
            if expanded > EXPANDED_RELATIONS_MAX {
                return refuse(format!(
                    "the query reads more than {EXPANDED_RELATIONS_MAX} tables once its common table expressions are expanded; those that use each other multiply"
                ));
            }
            Ok(())
        }
        Statement::Explain(explain) => check_relations(&explain.statement),
        _ => Ok(()),
    }
}

/// Sum of what `cost` says of each relation that `node` names.
fn relations(node: &impl Visit, cost: impl Fn(&str) -> usize) -> usize {
    let mut sum = 0_usize;
    let _all: ControlFlow<()> = visit_relations(node, |relation| {
        let name = relation.0.last().and_then(|part| part.as_ident());
        let name = name
            .map(|name| name.value.to_lowercase())
            .unwrap_or_default();
        sum = sum.saturating_add(cost(&name));
        ControlFlow::Continue(())
    });
    sum
}

/// How many relations a statement reads once each use of a common table expression is replaced by
/// the expression. Planning walks the expanded plan many times, so this must be known before.
/// Scopes are ignored; of expressions with the same name the larger counts.
#[derive(Default)]
struct Expansion {
    costs: HashMap<String, usize>,
    seen: HashSet<*const Cte>,
}

impl Expansion {
    fn of(statement: &SqlStatement) -> usize {
        let mut expansion = Self::default();
        let _all: ControlFlow<()> = statement.visit(&mut expansion);
        let whole = relations(statement, |name| expansion.cost(name));
        expansion.costs.values().copied().fold(whole, usize::max)
    }

    fn cost(&self, name: &str) -> usize {
        self.costs.get(name).copied().unwrap_or(1)
    }
}

impl Visitor for Expansion {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let Some(with) = &query.with else {
            return ControlFlow::Continue(());
        };
        for cte in &with.cte_tables {
            // The walk comes here again when it visits the expression itself.
            if !self.seen.insert(std::ptr::from_ref(cte)) {
                continue;
            }
            let name = cte.alias.name.value.to_lowercase();
            // Those defined within it first.
            cte.query.visit(self)?;
            let cost = relations(cte.query.as_ref(), |used| {
                if used == name { 1 } else { self.cost(used) }
            })
            .max(1);
            let known = self.costs.entry(name).or_default();
            *known = cost.max(*known);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(sql: &str) -> String {
        match parse(sql) {
            Err(QueryError::Refused { reason }) => reason,
            other => panic!("{sql:.100}: {other:?}"),
        }
    }

    #[test]
    fn statements_that_read_pass() {
        for sql in [
            "SELECT 1",
            "select * from readings where device = 'a' order by ts",
            "WITH t AS (SELECT 1 AS a) SELECT * FROM t;",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT * FROM readings",
            "SHOW TABLES",
            "SHOW COLUMNS FROM readings",
            "DESCRIBE readings",
            "VALUES (1), (2)",
        ] {
            assert!(parse(sql).is_ok(), "{sql}: {:?}", parse(sql).err());
        }
    }

    #[test]
    fn statements_that_change_anything_are_refused_by_name() {
        for (sql, word) in [
            ("CREATE TABLE t (a int)", "CREATE TABLE"),
            ("CREATE TABLE t AS SELECT 1", "CREATE TABLE"),
            ("CREATE VIEW v AS SELECT 1", "CREATE VIEW"),
            (
                "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc/'",
                "CREATE EXTERNAL TABLE",
            ),
            ("COPY (SELECT 1) TO '/tmp/x.parquet'", "COPY"),
            ("COPY readings TO '/tmp/x.csv' STORED AS CSV", "COPY"),
            ("INSERT INTO readings VALUES (1)", "INSERT"),
            ("UPDATE readings SET a = 1", "UPDATE"),
            ("DELETE FROM readings", "DELETE"),
            ("DROP TABLE readings", "DROP"),
            ("TRUNCATE TABLE readings", "TRUNCATE"),
            ("SET datafusion.execution.target_partitions = 1000", "SET"),
            ("RESET datafusion.execution.batch_size", "RESET"),
            ("BEGIN", "BEGIN"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("EXECUTE p", "EXECUTE"),
            ("EXPLAIN DELETE FROM readings", "DELETE"),
            (
                "EXPLAIN ANALYZE COPY readings TO '/tmp/x.csv' STORED AS CSV",
                "COPY",
            ),
        ] {
            assert!(refused(sql).starts_with(word), "{sql}: {}", refused(sql));
        }
    }

    #[test]
    fn several_statements_are_refused() {
        assert!(refused("SELECT 1; DROP TABLE readings").contains("2 statements"));
    }

    #[test]
    fn an_empty_text_is_a_syntax_error() {
        assert!(matches!(parse(" ; "), Err(QueryError::Syntax { .. })));
        assert!(matches!(
            parse("-- nothing"),
            Err(QueryError::Syntax { .. })
        ));
    }

    #[test]
    fn texts_beyond_the_limits_are_refused() {
        let long = format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX));
        assert!(refused(&long).contains("bytes"));
        let chain = format!("SELECT 1 WHERE 1 = 1{}", " OR 1 = 1".repeat(10_000));
        assert!(refused(&chain).contains("operators"));
        let tables = format!("SELECT * FROM t{}", ", t".repeat(RELATIONS_MAX));
        assert!(refused(&tables).contains("tables"));
    }

    #[test]
    fn an_in_list_may_be_long() {
        let list: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
        assert!(parse(&format!("SELECT 1 WHERE 1 IN ({})", list.join(","))).is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error_not_an_overflow() {
        for (open, close) in [
            ("(", ")"),
            ("(SELECT ", ")"),
            ("abs(", ")"),
            ("CASE WHEN ", " THEN 1 END"),
        ] {
            let sql = format!("SELECT {}1{}", open.repeat(5_000), close.repeat(5_000));
            assert!(parse(&sql).is_err(), "{open}");
        }
    }

    /// Levels of expressions that each use the one before twice.
    fn doubling(levels: usize) -> String {
        let mut sql = String::from("WITH t0 AS (SELECT 1 AS a)");
        for level in 1..=levels {
            sql += &format!(
                ", t{level} AS (SELECT x.a FROM t{0} x CROSS JOIN t{0} y)",
                level - 1
            );
        }
        sql + &format!(" SELECT * FROM t{levels}")
    }

    #[test]
    fn common_table_expressions_that_multiply_are_refused_wherever_they_are() {
        assert!(parse(&doubling(6)).is_ok());
        assert!(refused(&doubling(25)).contains("multiply"));
        assert!(refused(&format!("EXPLAIN {}", doubling(25))).contains("multiply"));
        assert!(refused(&format!("SELECT * FROM ({})", doubling(25))).contains("multiply"));
        assert!(refused(&format!("WITH w AS ({}) SELECT 1", doubling(25))).contains("multiply"));
        let shadowing =
            "WITH readings AS (SELECT * FROM readings a, readings b) SELECT * FROM readings";
        assert!(parse(shadowing).is_ok());
    }
}
