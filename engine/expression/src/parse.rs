//! From text to a syntax tree, which is no deeper than [`deep`](crate::deep) allows.

use datafusion_sql::sqlparser::{
    ast::{Expr, SelectItem, Visit, VisitMut},
    dialect::GenericDialect,
    parser::{Parser, ParserError},
    tokenizer::{Token, Tokenizer},
};

use crate::{
    deep::{self, NESTING_MAX},
    error::Problem,
    text::{offset, place_in, word_at},
};

/// Longest text of an expression or a list of them, in bytes.
const TEXT_MAX: usize = 64 << 10;

/// One expression.
pub(crate) fn expression(text: &str) -> Result<Expr, Problem> {
    parsed(text, |parser| parser.parse_expr())
}

/// What may follow `SELECT`.
pub(crate) fn projection(text: &str) -> Result<Vec<SelectItem>, Problem> {
    parsed(text, |parser| parser.parse_projection())
}

fn parsed<T: Visit + VisitMut>(
    text: &str,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Result<T, Problem> {
    if text.len() > TEXT_MAX {
        return Err(Problem::new(
            format!("the expression is longer than {TEXT_MAX} bytes"),
            0..0,
        ));
    }
    if text.trim().is_empty() {
        return Err(Problem::new("the expression is empty", 0..text.len()));
    }
    let explain = |error| explained(text, error);
    let tokens = Tokenizer::new(&GenericDialect, text)
        .tokenize_with_location()
        .map_err(|error| explain(error.into()))?;
    deep::check_tokens(&tokens, text)?;
    let mut parser = Parser::new(&GenericDialect)
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(tokens);
    let mut tree = parse(&mut parser).map_err(explain)?;
    let rest = parser.peek_token();
    if rest.token == Token::EOF {
        deep::level(&mut tree, text)?;
        return Ok(tree);
    }
    let start = offset(text, rest.span.start);
    Err(Problem::new(
        format!("`{}` is not expected here", rest.token),
        word_at(text, start),
    ))
}

fn explained(text: &str, error: ParserError) -> Problem {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return deep::nests(text);
        }
    };
    let (message, place) = place_in(&message);
    let start = place.map_or(text.len(), |place| offset(text, place));
    let mut letters = message.chars();
    let message = match letters.next() {
        // `Expected: …` as a part of a sentence.
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => message,
    };
    Problem::new(
        message.replace("found: EOF", "found: the end"),
        word_at(text, start),
    )
}
