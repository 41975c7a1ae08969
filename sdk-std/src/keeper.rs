//! Keeps the assignment and the back-off in their files, beside everything else: the disk may take its time.

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

/// How long until it is tried again where there was no thread to write with.
const PAUSE: Duration = Duration::from_secs(10);

/// What is to be kept.
#[derive(Clone, Default)]
struct Kept {
    assignment: Option<Assignment>,
    memory: Option<BackoffSnapshot>,
}

/// What is to be written, of each the latest, and what is being written.
#[derive(Default)]
pub(crate) struct Keeper {
    next: Option<Box<Kept>>,
    writing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Set once nothing but the disk is waited for.
    last_wait: Option<Pin<Box<Sleep>>>,
}

impl Keeper {
    /// Takes what is to be kept, in place of what has not been begun.
    pub(crate) fn keep(&mut self, assignment: Option<Assignment>, memory: Option<BackoffSnapshot>) {
        let next = self.next.get_or_insert_default();
        next.assignment = assignment.or(next.assignment.take());
        next.memory = memory.or(next.memory.take());
    }

    /// Goes on with the writing.
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
                tracing::warn!(%path, %error, "the assignment was not kept; the next start will provision anew");
            }
            if let Some((file, memory)) = theirs.backoff_file.as_ref().zip(kept.memory)
                && let Err(error) = file.save(&memory)
            {
                let path = file.path().display();
                tracing::warn!(%path, %error, "the back-off was not kept; the next start will begin afresh");
            }
        });
        if written.await.is_ok() {
            return;
        }
        sleep(PAUSE).await;
    }
}
