//! An expression that was checked and can be evaluated.

use std::sync::Arc;

use arrow_schema::{DataType, SchemaRef};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::sqlparser::ast::Expr;

use crate::{
    deep::on_large_stack,
    error::{Problem, Problems},
    parse, plan,
    resolve::resolve,
    scope::Scope,
};

/// Something that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The column of this index in the scope.
    Column(usize),
    /// The attribute of the row's device that has this key: text.
    Attribute(String),
    /// The last value of a field of a stream, of the row's device.
    Last {
        /// The stream.
        stream: String,
        /// The field.
        field: String,
    },
}

/// An expression that was checked against a [`Scope`].
#[derive(Clone, Debug)]
pub struct Compiled {
    pub(crate) inputs: Vec<Input>,
    pub(crate) schema: SchemaRef,
    pub(crate) physical: Arc<dyn PhysicalExpr>,
    pub(crate) data_type: DataType,
}

impl Compiled {
    /// Compiles a text.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its places.
    pub fn new(text: &str, scope: &Scope) -> Result<Self, Problems> {
        on_large_stack(|| {
            let tree = parse::expression(text)?;
            Self::of_tree(tree, text, scope)
        })
    }

    /// Compiles a condition: what is neither true nor false counts as not met.
    ///
    /// # Errors
    /// As [`Self::new`]; or if it is no condition.
    pub fn condition(text: &str, scope: &Scope) -> Result<Self, Problems> {
        let compiled = Self::new(text, scope)?;
        if matches!(compiled.data_type, DataType::Boolean | DataType::Null) {
            return Ok(compiled);
        }
        let found = type_word(&compiled.data_type);
        Err(Problem::new(
            format!("a condition must be true or false, and this is {found}"),
            0..text.len(),
        )
        .help("compare it with something: `… > 0`, `… = 'so'`")
        .into())
    }

    /// Compiles a tree; to be called on a large stack.
    pub(crate) fn of_tree(mut tree: Expr, text: &str, scope: &Scope) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let names = resolve(&mut tree, text, scope, &mut problems);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        plan::compile(tree, text, names, scope)
    }

    /// What has to be given to [`Self::evaluate`], in this order.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The type of its values.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The index of the scope's column that this is, if it is nothing else.
    pub fn as_column(&self) -> Option<usize> {
        let is_column = self
            .physical
            .downcast_ref::<datafusion_physical_expr::expressions::Column>()
            .is_some();
        match &self.inputs[..] {
            [Input::Column(index)] if is_column => Some(*index),
            _ => None,
        }
    }
}

/// A type as messages say it.
pub(crate) fn type_word(data_type: &DataType) -> String {
    match data_type {
        DataType::Int64 => "an integer".to_owned(),
        DataType::Float64 => "a number".to_owned(),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(..) => {
            "a text".to_owned()
        }
        DataType::Boolean => "true or false".to_owned(),
        DataType::Timestamp(..) => "a time".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "a span of time".to_owned(),
        other => format!("of type {other}"),
    }
}
