//! A future whose polls run on a large stack.
//!
//! Parsing and planning recurse as deep as the text nests. DataFusion guards its own recursion, but
//! derived code (clone, compare, drop of expression trees) recurses unguarded; on a worker's
//! ordinary stack a long `OR` chain would overflow it, which no `catch_unwind` survives.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::limits::STACK_BYTES;

pub(crate) struct DeepStack<F> {
    inner: Pin<Box<F>>,
}

impl<F> DeepStack<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self {
            inner: Box::pin(inner),
        }
    }
}

impl<F: Future> Future for DeepStack<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.inner.as_mut();
        // Threads of a query runtime have as much. Elsewhere memory is mapped, not touched: only what
        // recursion reaches costs anything, but for unmapping it, which interrupts every other core.
        stacker::maybe_grow(STACK_BYTES, STACK_BYTES, || inner.poll(context))
    }
}
