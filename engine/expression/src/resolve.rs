//! Names in a syntax tree, as the inputs that they mean.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::{
    ast::{
        Expr, Function as Call, Ident, ObjectNamePart, Query, Spanned as _, VisitMut as _,
        VisitorMut,
    },
    tokenizer::Span,
};
use quiver_model::nearest;

use crate::{
    aggregate,
    compiled::Input,
    error::Problem,
    functions::{self, Function},
    scope::{ATTRIBUTES, LAST, Scope},
    text::range,
};

/// What an expression names, in the order of first mention; its tree then has a quoted name of
/// one part for each.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) inputs: Vec<(String, Input)>,
}

/// Replaces every name of `tree` by that of an input. All problems are told, not only the first.
pub(crate) fn resolve(
    tree: &mut Expr,
    text: &str,
    scope: &Scope,
    problems: &mut Vec<Problem>,
) -> Names {
    let mut resolver = Resolver {
        text,
        scope,
        problems,
        names: Names::default(),
    };
    // It never breaks off.
    let _ = tree.visit(&mut resolver);
    resolver.names
}

struct Resolver<'a> {
    text: &'a str,
    scope: &'a Scope,
    problems: &'a mut Vec<Problem>,
    names: Names,
}

impl VisitorMut for Resolver<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let span = range(self.text, query.span());
        let problem = Problem::new("an expression cannot have a query in it", span);
        self.problems
            .push(problem.help("join other data with a lookup node"));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) => {
                if let Some(input) = self.column(name) {
                    *expr = self.input(input, name.span);
                }
            }
            Expr::CompoundIdentifier(parts) => {
                let place = Span::union_iter(parts.iter().map(|part| part.span));
                let span = range(self.text, place);
                match &parts[..] {
                    [qualifier, key] if qualifier.value.eq_ignore_ascii_case(ATTRIBUTES) => {
                        if self.scope.has_attributes() {
                            let input = Input::Attribute(key.value.clone());
                            *expr = self.input(input, place);
                        } else {
                            let message =
                                format!("{} has no attributes of devices", self.scope.subject());
                            self.problems.push(Problem::new(message, span));
                        }
                    }
                    [qualifier, stream, field] if qualifier.value.eq_ignore_ascii_case(LAST) => {
                        if let Some(input) = self.last(&stream.value, &field.value, span) {
                            *expr = self.input(input, place);
                        }
                    }
                    _ => {
                        let name = self.text.get(span.clone()).unwrap_or_default();
                        let message = format!("unknown name `{name}` in {}", self.scope.subject());
                        self.problems.push(Problem::new(message, span).help(
                            "a column is named by itself, an attribute of a device as `device.key`, a last value as `last.stream.field`",
                        ));
                    }
                }
            }
            Expr::Function(call) => self.call(call),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Resolver<'_> {
    fn input(&mut self, input: Input, place: Span) -> Expr {
        let name = match &input {
            Input::Column(index) => self.scope.columns()[*index].name.clone(),
            Input::Attribute(key) => format!("{ATTRIBUTES}.{key}"),
            Input::Last { stream, field } => format!("{LAST}.{stream}.{field}"),
        };
        if !self.names.inputs.iter().any(|(_, known)| *known == input) {
            self.names.inputs.push((name.clone(), input));
        }
        Expr::Identifier(Ident::with_quote_and_span('"', place, name))
    }

    fn last(&mut self, stream: &str, field: &str, span: std::ops::Range<usize>) -> Option<Input> {
        let input = Input::Last {
            stream: stream.to_owned(),
            field: field.to_owned(),
        };
        let lasts = self.scope.lasts();
        let Some(known) = lasts.iter().find(|known| known.name == stream) else {
            let message = format!("there is no stream `{stream}` whose last values are known");
            let help = meant(
                stream,
                lasts.iter().map(|known| known.name.clone()).collect(),
            );
            self.problems.push(Problem {
                help,
                ..Problem::new(message, span)
            });
            return None;
        };
        if known.is_open || known.fields.iter().any(|known| known.name == field) {
            return Some(input);
        }
        let message = format!("unknown field `{field}` in stream `{stream}`");
        let names = known.fields.iter().map(|known| known.name.clone());
        self.problems.push(Problem {
            help: meant(field, names.collect()),
            ..Problem::new(message, span)
        });
        None
    }

    fn column(&mut self, name: &Ident) -> Option<Input> {
        let is_quoted = name.quote_style.is_some();
        if let Some(index) = self.scope.find(&name.value, is_quoted) {
            return Some(Input::Column(index));
        }
        let span = range(self.text, name.span);
        let mut problem = Problem::new(
            format!("unknown field `{}` in {}", name.value, self.scope.subject()),
            span,
        );
        problem.unknown_column = Some(name.value.clone());
        let columns = self.scope.columns().iter();
        let columns: Vec<String> = columns.map(|column| column.name.clone()).collect();
        if is_quoted && name.quote_style == Some('"') && columns.is_empty() {
            problem = problem.help("a text is in single quotes: 'so'");
        } else if let Some(help) = meant(&name.value, columns) {
            problem = problem.help(help);
        }
        self.problems.push(problem);
        None
    }

    fn call(&mut self, call: &Call) {
        let name = name_of(call);
        let first = call.name.0.first();
        let place = |part: &ObjectNamePart| match part {
            ObjectNamePart::Identifier(name) => range(self.text, name.span),
            ObjectNamePart::Function(_) => 0..self.text.len(),
        };
        let span = first.map_or(0..self.text.len(), place);
        if call.over.is_some() {
            let problem = Problem::new("an expression sees one row, and has no OVER", span);
            self.problems
                .push(problem.help("aggregate rows with a window node"));
            return;
        }
        let problem = match functions::function(&name) {
            Some(Function::Usable(_)) => return,
            Some(Function::Unsteady) => Problem::new(
                format!("`{name}` depends on when it is called, and the same rows must always give the same"),
                span,
            )
            .help("use the columns `ts` (when it was measured) and `arrival` (when it came)"),
            Some(Function::Amplifying) => Problem::new(
                format!("`{name}` can make a text of any size out of a small one, and is not allowed"),
                span,
            ),
            None if aggregate::is_aggregate(&name) => {
                Problem::new(format!("`{name}` is an aggregate of several rows"), span)
                    .help("it can be used in the `select` of a window, and not within another aggregate")
            }
            None => {
                let problem = Problem::new(format!("unknown function `{name}`"), span);
                match meant(&name, functions::names()) {
                    Some(help) => problem.help(help),
                    None => problem,
                }
            }
        };
        self.problems.push(problem);
    }
}

/// A function's name in lower case.
pub(crate) fn name_of(call: &Call) -> String {
    call.name.to_string().to_lowercase()
}

/// The advice of names that are like this one.
pub(crate) fn meant(name: &str, names: Vec<String>) -> Option<String> {
    if let Some(meant) = quiver_model::meant(name, names.iter().cloned()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    let few = names.len() <= 5;
    let near = nearest(name, names);
    match &near[..] {
        [] => None,
        _ if few => Some(format!("there is {}", listed(&near))),
        [best, ..] => Some(format!("did you mean `{best}`?")),
    }
}

fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
