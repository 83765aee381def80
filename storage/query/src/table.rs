//! One stream at Q, as DataFusion sees it. Only the trait's face is here; [`crate::scan`] has the
//! substance. (An async trait implementation costs seconds of compile time at each edit.)

use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};

use crate::scan::{StreamScan, scan};

/// A stream's rows up to Q.
#[derive(Debug)]
pub(crate) struct StreamAtPosition {
    pub(crate) scan: StreamScan,
}

#[async_trait]
impl TableProvider for StreamAtPosition {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.scan.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // Filters choose files here; the physical optimiser hands them to the Parquet reader, and
        // what neither applies exactly stays above the scan.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        scan(&self.scan, session, projection, filters, limit)
    }
}
