//! Twin and direct methods, as applications use them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::Arc;

use steadfast_core::iothub::Event;
use steadfast_core::iothub::operator_commands::OperatorCommand;
use steadfast_core::{CallId, ReportError, ReportId, RespondError, TwinDocument};

use crate::clock;
use crate::device::Device;
use crate::shared::Shared;

/// Limit of queued desired property patches. Beyond it the whole twin is requested instead.
const CHANGES: usize = 16;

/// Limit of queued operator commands; beyond it the oldest is dropped.
const ORDERS: usize = 16;

/// The twin as the service sent it.
pub type Twin = TwinDocument<String>;

/// Desired properties, from [`Device::desired`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Desired {
    /// All desired properties: properties that are not in it were removed.
    Full(Twin),
    /// A patch to the properties delivered before.
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

/// Why a twin read or a report of properties failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TwinError {
    /// The service refused with this HTTP-like status; a retry would not help.
    Refused(u16),
    /// Each connection ended before the twin arrived: it may be larger than the link accepts.
    GivenUp,
    /// The device does not subscribe to twin responses.
    NotSubscribed,
    /// The link was stopped, or its driver dropped.
    Ended,
}

impl fmt::Display for TwinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the service refused with status {status}"),
            Self::GivenUp => f.write_str("the connection ended each time the twin was awaited"),
            Self::NotSubscribed => f.write_str(
                "the device does not subscribe to twin responses; set Subscriptions::twin_responses when building it",
            ),
            Self::Ended => f.write_str("the link was stopped or its driver dropped"),
        }
    }
}

impl std::error::Error for TwinError {}

/// Queues between the services and the application.
#[derive(Debug, Default)]
pub(crate) struct Services {
    changes: VecDeque<Desired>,
    /// Patches overflowed the queue: the whole twin follows.
    behind: bool,
    /// It was requested.
    catching_up: bool,
    /// The version that was queued last.
    queued: Option<u64>,
    calls: VecDeque<Waiting>,
    /// Limit of queued calls.
    most_calls: usize,
    orders: VecDeque<OperatorCommand>,
    reports: HashMap<u32, Claim>,
    /// Calls of [`Device::get_twin`] that wait.
    askers: usize,
    /// The number of answers to them, and the latest.
    answers: u64,
    answer: Option<Result<Twin, TwinError>>,
}

#[derive(Debug)]
struct Waiting {
    id: CallId,
    name: String,
    payload: Vec<u8>,
}

/// Reports whose outcome is awaited.
#[derive(Debug)]
struct Claim {
    holders: usize,
    outcome: Option<Result<Option<u64>, TwinError>>,
}

impl Services {
    pub(crate) fn new(most_calls: usize) -> Self {
        Self { most_calls, ..Self::default() }
    }

    pub(crate) fn take_twin(&mut self, twin: TwinDocument<&str>) {
        if self.askers > 0 {
            self.answer(Ok(twin.map(str::to_owned)));
        }
        let newer = self.queued.is_none_or(|queued| twin.desired_version > queued);
        if newer || twin.reset || self.behind {
            self.behind = false;
            self.catching_up = false;
            self.changes.clear();
            self.queue(Desired::Full(twin.map(str::to_owned)));
        }
    }

    pub(crate) fn take_change(&mut self, version: u64, patch: &str) {
        if self.changes.len() >= CHANGES {
            self.changes.clear();
            self.behind = true;
        }
        if self.behind {
            self.queued = Some(version);
        } else {
            self.queue(Desired::Patch { version, patch: patch.to_owned() });
        }
    }

    fn queue(&mut self, change: Desired) {
        self.queued = Some(change.version());
        self.changes.push_back(change);
    }

    pub(crate) fn take_call(&mut self, id: CallId, name: String, payload: &[u8]) {
        if self.calls.len() >= self.most_calls {
            // The link limits open calls, so the oldest queued call has ended.
            self.calls.pop_front();
        }
        self.calls.push_back(Waiting { id, name, payload: payload.to_vec() });
    }

    /// Forgets calls whose connection has ended.
    pub(crate) fn forget_calls(&mut self) {
        self.calls.clear();
    }

    /// Records an event; returns whether a task may wait for it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are the link's")]
    pub(crate) fn take_event(&mut self, event: &Event) -> bool {
        match *event {
            Event::Reported { report, version } => self.settle(report, Ok(version)),
            Event::ReportRefused { report, status } => self.settle(report, Err(TwinError::Refused(status))),
            Event::TwinRefused { status } => self.answer(Err(TwinError::Refused(status))),
            Event::TwinGivenUp => self.answer(Err(TwinError::GivenUp)),
            Event::OperatorCommand(order) => {
                if self.orders.len() >= ORDERS {
                    self.orders.pop_front();
                }
                self.orders.push_back(order);
            }
            _ => return false,
        }
        true
    }

    fn settle(&mut self, report: ReportId, outcome: Result<Option<u64>, TwinError>) {
        if let Some(claim) = self.reports.get_mut(&report.get()) {
            claim.outcome = Some(outcome);
        }
    }

    fn answer(&mut self, answer: Result<Twin, TwinError>) {
        self.answers = self.answers.wrapping_add(1);
        self.answer = (self.askers > 0).then_some(answer);
    }
}

impl Device {
    /// Requests the twin and waits for it, across reconnections.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`TwinError`].
    pub async fn get_twin(&self) -> Result<Twin, TwinError> {
        let shared = self.shared();
        let before = shared.command(|inner| {
            let now = clock::now();
            inner.link.get_twin(now).then(|| {
                inner.services.askers += 1;
                inner.services.answers
            })
        });
        let Some(before) = before else { return Err(TwinError::NotSubscribed) };
        let _asker = Asker(shared);
        shared
            .served(|inner| {
                let services = &inner.services;
                if services.answers != before
                    && let Some(answer) = &services.answer
                {
                    return Some(answer.clone());
                }
                inner.end.is_some().then_some(Err(TwinError::Ended))
            })
            .await
    }

    /// Waits for the next change of desired properties.
    ///
    /// After missed patches, and when the application lags behind, it returns all desired properties. No version is
    /// delivered twice and none is skipped. Each is delivered once, to one caller. Returns `None` when the driver has
    /// ended and nothing is queued.
    ///
    /// Cancel-safe: a future dropped before its end has taken nothing.
    pub async fn desired(&self) -> Option<Desired> {
        let shared = self.shared();
        shared
            .served(|inner| {
                if let Some(change) = inner.services.changes.pop_front() {
                    return Some(Some(change));
                }
                if inner.services.behind && !mem::replace(&mut inner.services.catching_up, true) {
                    inner.link.get_twin(clock::now());
                    crate::shared::wake(inner.driver.take());
                }
                inner.end.is_some().then_some(None)
            })
            .await
    }

    /// Queues a patch of reported properties, a JSON object in which `null` deletes, until the service has it.
    ///
    /// It can be called in every state of the link. Queued patches are merged: the last write to a path wins. The
    /// returned future has the outcome; dropping it changes nothing.
    ///
    /// # Errors
    /// [`ReportError`]; nothing was queued.
    pub fn report(&self, patch: &str) -> Result<Report, ReportError> {
        let shared = self.shared();
        let id = shared.command(|inner| {
            let id = inner.link.report(patch.as_bytes(), clock::now())?;
            inner.services.reports.entry(id.get()).or_insert(Claim { holders: 0, outcome: None }).holders += 1;
            Ok(id)
        })?;
        Ok(Report { shared: Arc::clone(shared), id })
    }

    /// Waits for the next method call.
    ///
    /// Each call is delivered once, to one caller; [`crate::Methods`] dispatches calls to a handler for each method.
    /// Returns `None` when the driver has ended.
    ///
    /// Cancel-safe: a future dropped before its end has taken nothing.
    pub async fn next_call(&self) -> Option<MethodCall> {
        let shared = self.shared();
        let waiting = shared
            .served(|inner| match inner.services.calls.pop_front() {
                Some(call) => Some(Some(call)),
                None => inner.end.is_some().then_some(None),
            })
            .await?;
        Some(MethodCall { waiting, shared: Arc::clone(shared), answered: false })
    }

    /// Sets the version of desired properties that the application had applied before a restart, so that it is not
    /// delivered again. Call it before the first connection.
    pub fn restore_desired_version(&self, version: u64) {
        self.shared().command(|inner| inner.link.restore_desired_version(version));
    }

    /// Waits for the next operator command; see [`crate::Builder::allow_operator_commands`].
    ///
    /// The link has already executed commands to register or to set the jitter window; the application executes one
    /// about the log. Each is delivered once, to one caller; up to 16 are queued, beyond that the oldest is dropped.
    /// Returns `None` when the driver has ended and no command is queued.
    ///
    /// Cancel-safe: a future dropped before its end has taken nothing.
    pub async fn next_operator_command(&self) -> Option<OperatorCommand> {
        let shared = self.shared();
        shared
            .served(|inner| match inner.services.orders.pop_front() {
                Some(order) => Some(Some(order)),
                None => inner.end.is_some().then_some(None),
            })
            .await
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

/// A future for the outcome of reported properties.
#[must_use = "dropping the claim gives up learning whether the service has the properties"]
pub struct Report {
    shared: Arc<Shared>,
    id: ReportId,
}

impl Report {
    /// Waits until the service has the properties; returns their version if the service sent it.
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
                outcome.or_else(|| inner.end.is_some().then_some(Err(TwinError::Ended)))
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

/// A method call. If it is dropped without an answer, it is answered with 500.
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
    /// [`RespondError`] if the call's connection has ended, which the caller sees as an error, or the body does not fit
    /// or is not JSON; the answer is not sent, to this call or any other. A caller that still waits gets 500.
    pub fn respond(mut self, status: u16, body: &[u8]) -> Result<(), RespondError> {
        let taken = self.shared.command(|inner| inner.link.respond(self.waiting.id, status, body, clock::now()));
        self.answered = taken.is_ok();
        taken
    }
}

impl Drop for MethodCall {
    fn drop(&mut self) {
        if !self.answered {
            // If the answer cannot be sent, no caller waits for it.
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
