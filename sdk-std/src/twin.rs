//! The twin of a device.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use steadfast_core::{ReportError, ReportId, Subscriptions};

use crate::clock;
use crate::services::Claim;
use crate::shared::{Shared, wake};

/// The twin as the service sent it: two JSON objects and their versions.
pub type TwinDocument = steadfast_core::TwinDocument<String>;

/// A change of desired properties, as [`DesiredProperties`] gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Desired {
    /// All desired properties: a property that is not in it is not desired any more.
    Full(TwinDocument),
    /// A change to the version before.
    Patch {
        /// Version of the desired properties after it.
        version: u64,
        /// The change, a JSON object in which `null` deletes.
        patch: String,
    },
}

impl Desired {
    /// Returns the version of the desired properties.
    #[must_use]
    pub const fn version(&self) -> u64 {
        match self {
            Self::Full(twin) => twin.desired_version,
            Self::Patch { version, .. } => *version,
        }
    }
}

/// Why the twin was not read, or reported properties are not with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TwinError {
    /// The service refused with this HTTP-like status, which trying again does not change.
    Refused(u16),
    /// The connection ended each time the twin was awaited: it may be larger than the link takes.
    GivenUp,
    /// The service is a broker, which has no twins.
    NoTwin,
    /// The link was stopped, or its driver dropped.
    Stopped,
}

impl fmt::Display for TwinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the service refused with status {status}"),
            Self::GivenUp => f.write_str("the connection ended each time the twin was awaited"),
            Self::NoTwin => f.write_str("a broker has no twins; only an IoT hub does"),
            Self::Stopped => f.write_str("the link was stopped or its driver dropped"),
        }
    }
}

impl std::error::Error for TwinError {}

/// The twin of a device: [`crate::Device::twin`]. It subscribes to the twin's topics when it is used.
///
/// ```no_run
/// use steadfast::{Desired, Device};
///
/// # async fn example(device: Device) -> Result<(), Box<dyn std::error::Error>> {
/// let twin = device.twin();
/// println!("reported so far: {}", twin.get().await?.reported);
///
/// let mut changes = twin.desired();
/// while let Some(change) = changes.next().await {
///     match change {
///         Desired::Full(all) => println!("version {}: {}", all.desired_version, all.desired),
///         Desired::Patch { version, patch } => println!("version {version}: {patch}"),
///         _ => {}
///     }
///     twin.report(r#"{"applied":true}"#)?.accepted().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Twin {
    shared: Arc<Shared>,
}

impl Twin {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Asks for the twin and waits for it, across reconnections.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`TwinError`].
    pub async fn get(&self) -> Result<TwinDocument, TwinError> {
        let before = self.shared.command(|inner| {
            let now = clock::now();
            (inner.open(Subscriptions::TWIN_RESPONSES) && inner.link.get_twin(now)).then(|| {
                inner.services.askers += 1;
                inner.services.answers
            })
        });
        let Some(before) = before else { return Err(TwinError::NoTwin) };
        let _asker = Asker(&self.shared);
        self.shared
            .served(|inner| {
                let services = &inner.services;
                if services.answers != before
                    && let Some(answer) = &services.answer
                {
                    return Some(answer.clone());
                }
                inner.end.is_some().then_some(Err(TwinError::Stopped))
            })
            .await
    }

    /// Follows the desired properties: first all of them, then each change.
    ///
    /// Each stream gets every change by itself, so that two parts of an application can follow the same twin. A broker has
    /// no twins: the stream ends immediately.
    pub fn desired(&self) -> DesiredProperties {
        DesiredProperties::open(&self.shared, None)
    }

    /// Queues a patch of reported properties, a JSON object in which `null` deletes, until the service has it.
    ///
    /// It can be called in every state of the link. Patches that wait are merged: per path the last write counts. The
    /// [`Report`] gives the outcome; dropping it changes nothing.
    ///
    /// # Errors
    /// [`ReportError`]; nothing was queued.
    pub fn report(&self, patch: &str) -> Result<Report, ReportError> {
        Report::queue(&self.shared, patch)
    }

    /// As [`report`](Self::report), with `value` as JSON.
    ///
    /// ```no_run
    /// # fn example(twin: steadfast::Twin) -> Result<(), steadfast::ReportError> {
    /// twin.report_json(&serde_json::json!({ "intervalMs": 500, "alarm": null }))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ReportError`], also when the value is no JSON object or cannot be written; nothing was queued.
    #[cfg(feature = "json")]
    #[must_use = "dropping the report gives up learning whether the service has the properties"]
    pub fn report_json(&self, value: &(impl serde::Serialize + ?Sized)) -> Result<Report, ReportError> {
        self.report(&serde_json::to_string(value).unwrap_or_default())
    }

    /// Sets the version of desired properties that the application has applied, kept from before a restart, so that it is
    /// not given again. To be called before the first connection and before [`desired`](Self::desired).
    pub fn restore_desired_version(&self, version: u64) {
        self.shared.command(|inner| inner.link.restore_desired_version(version));
    }
}

impl fmt::Debug for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Twin").finish_non_exhaustive()
    }
}

struct Asker<'s>(&'s Arc<Shared>);

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let services = &mut self.0.lock().services;
        services.askers -= 1;
        if services.askers == 0 {
            services.answer = None;
        }
    }
}

/// The changes of desired properties, a [`Stream`].
///
/// It begins with all of them ([`Desired::Full`]); then comes each change. After a connection that missed changes, after a
/// gap, and when the application lags behind by more than 16 changes, all of them come again. No version comes twice and
/// none is skipped.
#[must_use = "a stream that is dropped gives nothing"]
pub struct DesiredProperties {
    shared: Arc<Shared>,
    id: Option<u64>,
}

impl DesiredProperties {
    pub(crate) fn open(shared: &Arc<Shared>, component: Option<&str>) -> Self {
        let id = shared.command(|inner| {
            let followed = inner.follows_twin();
            if !inner.open(Subscriptions::TWIN) {
                return None;
            }
            if followed {
                // The twin was read before: this stream needs it, too.
                inner.link.get_twin(clock::now());
            }
            Some(inner.services.open_stream(component))
        });
        Self { shared: Arc::clone(shared), id }
    }

    /// Waits for the next change; `None` when the link was stopped and no change waits.
    ///
    /// Cancel-safe: a future dropped before its end has taken nothing.
    pub async fn next(&mut self) -> Option<Desired> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Desired>> {
        let Some(id) = self.id else { return Poll::Ready(None) };
        let mut inner = self.shared.lock();
        let (change, asks) = inner.services.next_change(id);
        if change.is_some() || inner.end.is_some() {
            return Poll::Ready(change);
        }
        let driver = if asks && inner.link.get_twin(clock::now()) { inner.driver.take() } else { None };
        inner.wake_when_served(cx.waker());
        drop(inner);
        wake(driver);
        self.shared.expect_driver();
        Poll::Pending
    }
}

impl Stream for DesiredProperties {
    type Item = Desired;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Desired>> {
        self.poll(cx)
    }
}

impl Drop for DesiredProperties {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.lock().services.close_stream(id);
        }
    }
}

impl fmt::Debug for DesiredProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DesiredProperties").finish_non_exhaustive()
    }
}

/// Reported properties on their way to the service.
#[must_use = "dropping the report gives up learning whether the service has the properties"]
pub struct Report {
    shared: Arc<Shared>,
    id: ReportId,
}

impl Report {
    pub(crate) fn queue(shared: &Arc<Shared>, patch: &str) -> Result<Self, ReportError> {
        let id = shared.command(|inner| {
            inner.open(Subscriptions::TWIN_RESPONSES);
            let id = inner.link.report(patch.as_bytes(), clock::now())?;
            inner.services.reports.entry(id.get()).or_insert(Claim { holders: 0, outcome: None }).holders += 1;
            Ok(id)
        })?;
        Ok(Self { shared: Arc::clone(shared), id })
    }

    /// Waits until the service has the properties; returns their version, where the service names it.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`TwinError`].
    pub async fn accepted(&self) -> Result<Option<u64>, TwinError> {
        let number = self.id.get();
        self.shared
            .served(|inner| {
                let outcome = inner.services.reports.get(&number).and_then(|claim| claim.outcome);
                outcome.or_else(|| inner.end.is_some().then_some(Err(TwinError::Stopped)))
            })
            .await
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let reports = &mut self.shared.lock().services.reports;
        if let Some(claim) = reports.get_mut(&self.id.get()) {
            claim.holders -= 1;
            if claim.holders == 0 {
                reports.remove(&self.id.get());
            }
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Report({})", self.id.get())
    }
}
