//! The gate that text passes before anything is planned: short enough, one statement, of a kind
//! that only reads.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::{DFParserBuilder, Statement},
    sqlparser::{
        ast::{Statement as SqlStatement, visit_relations},
        dialect::GenericDialect,
        keywords::Keyword,
        tokenizer::{Token, Tokenizer},
    },
};

use crate::{
    error::QueryError,
    limits::{OPERATORS_MAX, RELATIONS_MAX, SQL_BYTES_MAX},
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
    let relations = count_relations(statement);
    if relations > RELATIONS_MAX {
        return refuse(format!(
            "the query names more than {RELATIONS_MAX} tables; split it"
        ));
    }
    Ok(())
}

/// The relations that a statement names; counting stops beyond the limit.
fn count_relations(statement: &Statement) -> usize {
    match statement {
        Statement::Statement(statement) => {
            let mut relations = 0;
            let _stopped: ControlFlow<()> = visit_relations(statement.as_ref(), |_| {
                relations += 1;
                if relations > RELATIONS_MAX {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            relations
        }
        Statement::Explain(explain) => count_relations(&explain.statement),
        _ => 0,
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
}
