//! The table function `last_cache('stream')`: the last row of each device, from memory.

use std::sync::Arc;

use datafusion::{
    catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider},
    common::{ScalarValue, plan_err},
    error::Result,
    logical_expr::Expr,
};

use crate::catalog::QueryCatalog;

/// Its name in SQL.
pub(crate) const LAST_CACHE: &str = "last_cache";

/// The function, within one query.
#[derive(Debug)]
pub(crate) struct LastCache(pub(crate) Arc<QueryCatalog>);

impl TableFunctionImpl for LastCache {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        match arguments.exprs() {
            [
                Expr::Literal(
                    ScalarValue::Utf8(Some(stream)) | ScalarValue::Utf8View(Some(stream)),
                    _,
                ),
            ] => self.0.last_rows(stream),
            _ => plan_err!(
                "{LAST_CACHE} takes the name of a stream as text, as in {LAST_CACHE}('readings')"
            ),
        }
    }
}
