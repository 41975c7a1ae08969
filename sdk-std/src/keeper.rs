//! Writes the assignment and the back-off state to their files in the background, since the disk may be slow.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use steadfast_core::{Assignment, BackoffSnapshot};
use tokio::time::{Sleep, sleep};

use crate::connector::Setup;

/// How long a stop waits for the disk.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Delay before a retry if no thread was available.
const PAUSE: Duration = Duration::from_secs(10);

/// Data to store.
#[derive(Clone, Default)]
struct Kept {
    assignment: Option<Assignment>,
    memory: Option<BackoffSnapshot>,
}

/// The latest of each kind to write, and the one being written.
#[derive(Default)]
pub(crate) struct Keeper {
    next: Option<Box<Kept>>,
    writing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Set once only the disk is outstanding.
    last_wait: Option<Pin<Box<Sleep>>>,
}

impl Keeper {
    /// Queues data to store; it replaces data whose writing has not started.
    pub(crate) fn keep(&mut self, assignment: Option<Assignment>, memory: Option<BackoffSnapshot>) {
        let next = self.next.get_or_insert_default();
        next.assignment = assignment.or(next.assignment.take());
        next.memory = memory.or(next.memory.take());
    }

    /// Continues writing.
    pub(crate) fn poll(&mut self, setup: &Arc<Setup>, cx: &mut Context<'_>) {
        loop {
            if let Some(writing) = &mut self.writing {
                if writing.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.writing = None;
            }
            let Some(next) = self.next.take() else { return };
            self.writing = Some(Box::pin(write(Arc::clone(setup), next)));
        }
    }

    /// Whether all is written, or a stop has waited long enough for it.
    pub(crate) fn is_done(&mut self, setup: &Setup, cx: &mut Context<'_>) -> bool {
        if self.writing.is_none() {
            return true;
        }
        let last_wait = self.last_wait.get_or_insert_with(|| Box::pin(sleep(LAST_WAIT)));
        let over = last_wait.as_mut().poll(cx).is_ready();
        if over {
            let paths = paths(setup);
            tracing::warn!(device = %setup.name, ?paths, "the disk does not answer; stopping without waiting for it");
        }
        over
    }
}

fn paths(setup: &Setup) -> Vec<&std::path::Path> {
    let assignment = setup.assignment.as_deref().map(crate::assignment_file::AssignmentFile::path);
    let memory = setup.backoff_file.as_deref().map(crate::backoff_file::BackoffFile::path);
    assignment.into_iter().chain(memory).collect()
}

async fn write(setup: Arc<Setup>, kept: Box<Kept>) {
    loop {
        let (theirs, kept) = (Arc::clone(&setup), kept.clone());
        let written = setup.context.writers.run_always(move || {
            if let Some((file, assignment)) = theirs.assignment.as_ref().zip(kept.assignment)
                && let Err(error) = file.save(&assignment)
            {
                let path = file.path().display();
                tracing::warn!(%path, %error, "the assignment was not stored; the next start will provision again");
            }
            if let Some((file, memory)) = theirs.backoff_file.as_ref().zip(kept.memory)
                && let Err(error) = file.save(&memory)
            {
                let path = file.path().display();
                tracing::warn!(%path, %error, "the back-off state was not stored; the next start will begin without it");
            }
        });
        if written.await.is_ok() {
            return;
        }
        sleep(PAUSE).await;
    }
}
