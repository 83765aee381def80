//! Trees as deep as their text is long, whatever stack there is.
//!
//! ```text
//! text ─words counted─▶ parsed ─long chains of AND and OR balanced─▶ measured ─▶ planned ─▶ measured again
//!        └────────────────────────── on a stack of its own ──────────────────────────────┘
//! ```
//!
//! The parser bounds how deep it nests itself, but not the chains that it reads in a loop: each
//! operator of `a - b - c - …` puts what is before it one level down. Whatever walks such a tree,
//! and be it to drop it, needs a stack as deep. Invariant: what leaves this crate is at most
//! [`PLANNED_DEPTH_MAX`] levels deep, which any thread can evaluate.

use std::{ops::ControlFlow, panic::resume_unwind, sync::Arc, thread};

use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::sqlparser::{
    ast::{BinaryOperator, Expr, Value, Visit, VisitMut, Visitor, VisitorMut},
    tokenizer::{Token, TokenWithSpan},
};

use crate::error::{Problem, Problems};

/// Stack on which expressions are read: of a tree of 64 KiB of text, each byte of which is a level,
/// the parser's drops take some 300 bytes a level without optimisation. Only what is used of it
/// takes memory.
const STACK_BYTES: usize = 256 << 20;
/// Most levels of parentheses and the like.
pub(crate) const NESTING_MAX: usize = 64;
/// Most words that open a list or a type made of others.
const LISTS_MAX: usize = 256;
/// Most levels of a tree.
const DEPTH_MAX: usize = 128;
/// Most parts of a tree: names, values, operators, calls.
const PARTS_MAX: usize = 10_000;
/// Chains of AND or OR of this many terms are balanced; shorter ones stay as they are written.
const CHAIN_MIN: usize = 32;
/// Most levels of what is evaluated: a level of the text can be two of it, with a cast.
pub(crate) const PLANNED_DEPTH_MAX: usize = 2 * DEPTH_MAX + 64;
/// Most parts of what is evaluated.
const PLANNED_PARTS_MAX: usize = 100_000;

/// Does something with trees of any depth, on a stack of its own.
pub(crate) fn on_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, Problems> + Send,
) -> Result<T, Problems> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("expression".to_owned());
        let thread = builder
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| {
                let message = format!("there is no memory to read the expression: {error}");
                Problems::from(Problem::new(message, 0..0))
            })?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Refuses words among which the parser would nest without bound.
pub(crate) fn check_tokens(tokens: &[TokenWithSpan], text: &str) -> Result<(), Problem> {
    let (mut open, mut lists) = (0_usize, 0_usize);
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen | Token::LBrace => open += 1,
            Token::RParen | Token::RBrace => open = open.saturating_sub(1),
            Token::LBracket => {
                open += 1;
                lists += 1;
            }
            Token::RBracket => open = open.saturating_sub(1),
            // A type of others: `ARRAY<STRUCT<…`.
            Token::Lt if is_type(tokens.get(index.wrapping_sub(1))) => lists += 1,
            _ => {}
        }
        if open > NESTING_MAX {
            return Err(nests(text));
        }
        if lists > LISTS_MAX {
            let message = format!("the expression has more than {LISTS_MAX} lists");
            return Err(Problem::new(message, 0..text.len()));
        }
    }
    Ok(())
}

fn is_type(token: Option<&TokenWithSpan>) -> bool {
    let Some(Token::Word(word)) = token.map(|token| &token.token) else {
        return false;
    };
    ["array", "struct", "map", "list"]
        .iter()
        .any(|name| word.value.eq_ignore_ascii_case(name))
}

/// The parser's own limit, or that of parentheses.
pub(crate) fn nests(text: &str) -> Problem {
    Problem::new(
        format!("the expression nests deeper than {NESTING_MAX} levels"),
        0..text.len(),
    )
}

/// Balances long chains of AND and OR, and refuses a tree that is too deep or too large then.
pub(crate) fn level<T: Visit + VisitMut>(tree: &mut T, text: &str) -> Result<(), Problem> {
    // It never breaks off.
    let _ = tree.visit(&mut Balance);
    let mut measure = Measure { depth: 0, parts: 0 };
    match Visit::visit(tree, &mut measure) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(TooMuch::Depth) => Err(too_deep(text)),
        ControlFlow::Break(TooMuch::Parts) => Err(Problem::new(
            format!("the expression has more than {PARTS_MAX} names, values and operators"),
            0..text.len(),
        )
        .help("split it into several nodes, or join a table with a lookup node")),
    }
}

fn too_deep(text: &str) -> Problem {
    Problem::new(
        format!("the expression nests deeper than {DEPTH_MAX} levels: each operator of a long chain is one (but AND and OR)"),
        0..text.len(),
    )
    .help("write `concat(a, b, …)` for `a || b || …`, `x IN (1, 2, …)` for comparisons with one column, or a chain in parts: `(a + b + …) + (c + d + …)`")
}

/// Refuses what is too deep or too large to be evaluated: planning may repeat parts of a tree.
pub(crate) fn check_planned(planned: &Arc<dyn PhysicalExpr>, text: &str) -> Result<(), Problem> {
    let mut waiting = vec![(planned, 1)];
    let mut parts = 0;
    while let Some((part, depth)) = waiting.pop() {
        if depth > PLANNED_DEPTH_MAX {
            return Err(too_deep(text));
        }
        parts += 1;
        if parts > PLANNED_PARTS_MAX {
            return Err(Problem::new(
                format!("the expression takes more than {PLANNED_PARTS_MAX} steps to evaluate"),
                0..text.len(),
            )
            .help("split it into several nodes"));
        }
        waiting.extend(part.children().into_iter().map(|child| (child, depth + 1)));
    }
    Ok(())
}

/// Balances chains before it goes down into them.
struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::BinaryOp { op, .. } = &*expr
            && matches!(op, BinaryOperator::And | BinaryOperator::Or)
        {
            let op = op.clone();
            if is_long(expr, &op) {
                balance(expr, &op);
            }
        }
        ControlFlow::Continue(())
    }
}

fn is_long(chain: &Expr, op: &BinaryOperator) -> bool {
    let mut waiting = vec![chain];
    let mut terms = 0;
    while let Some(tree) = waiting.pop() {
        match tree {
            Expr::BinaryOp {
                left,
                op: other,
                right,
            } if other == op => waiting.extend([&**right, &**left]),
            _ => terms += 1,
        }
        if terms + waiting.len() >= CHAIN_MIN {
            return true;
        }
    }
    false
}

/// The terms of a chain in their order, in a tree as low as can be.
fn balance(chain: &mut Expr, op: &BinaryOperator) {
    let mut terms = Vec::new();
    let mut waiting = vec![std::mem::replace(chain, Expr::Value(Value::Null.into()))];
    while let Some(tree) = waiting.pop() {
        match tree {
            Expr::BinaryOp {
                left,
                op: other,
                right,
            } if other == *op => waiting.extend([*right, *left]),
            term => terms.push(term),
        }
    }
    let count = terms.len();
    if let Some(balanced) = joined(&mut terms.into_iter(), count, op) {
        *chain = balanced;
    }
}

fn joined(
    terms: &mut impl Iterator<Item = Expr>,
    count: usize,
    op: &BinaryOperator,
) -> Option<Expr> {
    if count < 2 {
        return terms.next();
    }
    let left = joined(terms, count / 2, op)?;
    let right = joined(terms, count - count / 2, op)?;
    Some(Expr::BinaryOp {
        left: Box::new(left),
        op: op.clone(),
        right: Box::new(right),
    })
}

struct Measure {
    depth: usize,
    parts: usize,
}

enum TooMuch {
    Depth,
    Parts,
}

impl Visitor for Measure {
    type Break = TooMuch;

    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<TooMuch> {
        self.depth += 1;
        self.parts += 1;
        if self.depth > DEPTH_MAX {
            return ControlFlow::Break(TooMuch::Depth);
        }
        if self.parts > PARTS_MAX {
            return ControlFlow::Break(TooMuch::Parts);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<TooMuch> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}
