//! Direct methods, and the commands of Plug and Play components.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use steadfast_core::{RespondError, Subscriptions};

use crate::clock;
use crate::services::Waiting;
use crate::shared::Shared;

/// The calls of direct methods, a [`Stream`]: [`crate::Device::direct_methods`]. [`crate::Methods`] takes them for an
/// application with a handler for each method.
///
/// Each call is given once: two of these share the calls between them. A component whose commands are
/// [taken apart](crate::Component::commands) is left out.
///
/// ```no_run
/// # async fn example(device: steadfast::Device) {
/// let mut calls = device.direct_methods();
/// while let Some(call) = calls.next().await {
///     let status = if call.name() == "reboot" { 202 } else { 404 };
///     // The connection may have ended: then the caller has its answer from the hub.
///     let _ = call.respond(status, b"");
/// }
/// # }
/// ```
#[must_use = "a stream that is dropped gives nothing"]
pub struct DirectMethods {
    shared: Arc<Shared>,
    component: Option<Box<str>>,
    /// The service has methods.
    open: bool,
}

impl DirectMethods {
    pub(crate) fn open(shared: &Arc<Shared>, component: Option<&str>) -> Self {
        let open = shared.command(|inner| {
            let open = inner.open(Subscriptions::METHODS);
            if let Some(component) = component {
                inner.services.command(component);
            }
            open
        });
        Self { shared: Arc::clone(shared), component: component.map(Box::from), open }
    }

    /// Waits for the next call; `None` when the link was stopped, or the service is a broker, which has no methods.
    ///
    /// Cancel-safe: a future dropped before its end has taken nothing.
    pub async fn next(&mut self) -> Option<MethodCall> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<MethodCall>> {
        let mut inner = self.shared.lock();
        if let Some(waiting) = inner.services.next_call(self.component.as_deref()) {
            drop(inner);
            return Poll::Ready(Some(MethodCall { waiting, shared: Arc::clone(&self.shared), answered: false }));
        }
        if inner.end.is_some() || !self.open {
            return Poll::Ready(None);
        }
        inner.wake_when_served(cx.waker());
        drop(inner);
        self.shared.expect_driver();
        Poll::Pending
    }
}

impl Stream for DirectMethods {
    type Item = MethodCall;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MethodCall>> {
        self.poll(cx)
    }
}

impl Drop for DirectMethods {
    fn drop(&mut self) {
        if let Some(component) = &self.component {
            self.shared.lock().services.uncommand(component);
        }
    }
}

impl fmt::Debug for DirectMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectMethods").field("component", &self.component).finish_non_exhaustive()
    }
}

/// A method call. Dropped without an answer it is answered with 500.
pub struct MethodCall {
    waiting: Waiting,
    shared: Arc<Shared>,
    answered: bool,
}

impl MethodCall {
    /// Returns the method's name; of a component's command, `component*command`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.waiting.name
    }

    /// Returns the body: JSON or nothing.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.waiting.payload
    }

    /// Answers with a status, usually an HTTP-like one, and a body of JSON or nothing.
    ///
    /// # Errors
    /// [`RespondError`] when the call's connection has ended, so that the hub has answered the caller, or the body does not
    /// fit or is no JSON; the answer is not sent, to this call or any other. A caller who still waits is answered with 500.
    pub fn respond(mut self, status: u16, body: &[u8]) -> Result<(), RespondError> {
        let taken = self.shared.command(|inner| inner.link.respond(self.waiting.id, status, body, clock::now()));
        self.answered = taken.is_ok();
        taken
    }
}

impl Drop for MethodCall {
    fn drop(&mut self) {
        if !self.answered {
            // Nobody waits for the answer if it cannot be given.
            let _ = self.shared.command(|inner| inner.link.respond(self.waiting.id, 500, b"", clock::now()));
        }
    }
}

impl fmt::Debug for MethodCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MethodCall")
            .field("name", &self.name())
            .field("len", &self.payload().len())
            .finish_non_exhaustive()
    }
}
