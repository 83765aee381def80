//! A task that takes its time: a commit waits for the disk, and meanwhile more queues up behind it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::Sleep;

use crate::seeded::Random;

/// Longest time between a task's wake-up and its turn, in milliseconds.
const PAUSE_MS: u64 = 12;

/// Gives a task its turn a while after it was woken.
pub struct Slow<F> {
    task: Pin<Box<F>>,
    pause: Option<Pin<Box<Sleep>>>,
    random: Random,
}

impl<F> Slow<F> {
    pub fn new(task: F, random: Random) -> Self {
        Self {
            task: Box::pin(task),
            pause: None,
            random,
        }
    }
}

impl<F: Future> Future for Slow<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let pause = self.random.clone().millis(0, PAUSE_MS);
        let sleep = self
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(sleep.as_mut().poll(context));
        self.random.draw();
        self.pause = None;
        self.task.as_mut().poll(context)
    }
}
