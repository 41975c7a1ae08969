//! Streams of what happens to a device's link.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use steadfast_core::iothub::Event;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, WatchStream};

use crate::status::Status;

/// The events of the link, those of single messages included, a [`Stream`]: [`crate::Device::events`].
pub struct Events {
    stream: BroadcastStream<Event>,
    missed: u64,
}

impl Events {
    pub(crate) fn new(events: broadcast::Receiver<Event>) -> Self {
        Self { stream: BroadcastStream::new(events), missed: 0 }
    }

    /// Waits for the next event; `None` when the device and its driver are gone.
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns how many events were missed so far: a listener more than 256 behind loses the oldest.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(event)) => return Poll::Ready(Some(event)),
                Some(Err(BroadcastStreamRecvError::Lagged(missed))) => self.missed = self.missed.saturating_add(missed),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed).finish_non_exhaustive()
    }
}

/// The changes of a device's status, a [`Stream`]: [`crate::Device::status_changes`].
///
/// It begins with the status as it is. It changes with the state of the link and what that waits for, not with each message:
/// `queued` and `in_flight` are those of the latest change. Of changes that come faster than they are taken the latest
/// counts.
pub struct StatusChanges {
    status: watch::Receiver<Status>,
    stream: WatchStream<Status>,
}

impl StatusChanges {
    pub(crate) fn new(status: watch::Receiver<Status>) -> Self {
        Self { stream: WatchStream::new(status.clone()), status }
    }

    /// Waits for the next change; `None` when the device and its driver are gone.
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Status> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Waits until the status is one that `wanted` accepts, which it may be already; `None` when the device and its driver are gone.
    ///
    /// ```no_run
    /// # async fn example(device: steadfast::Device) {
    /// device.status_changes().wait_for(|status| status.state == steadfast::State::Up).await;
    /// # }
    /// ```
    pub async fn wait_for(&mut self, wanted: impl FnMut(&Status) -> bool) -> Option<Status> {
        self.status.wait_for(wanted).await.ok().map(|status| status.clone())
    }
}

impl Stream for StatusChanges {
    type Item = Status;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        Pin::new(&mut self.stream).poll_next(cx)
    }
}

impl fmt::Debug for StatusChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusChanges").finish_non_exhaustive()
    }
}
