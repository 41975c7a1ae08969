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

/// Most changes of desired properties that wait for the application. With more the whole twin is asked for instead.
const CHANGES: usize = 16;

/// Most orders of an operator that wait for the application; of more the latest count.
const ORDERS: usize = 16;

/// The twin as the service sent it.
pub type Twin = TwinDocument<String>;

/// What [`Device::desired`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Desired {
    /// All desired properties: what is not in it is not desired any more.
    Full(Twin),
    /// A change to what was told before.
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

/// Why the twin was not got, or reported properties are not with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TwinError {
    /// The service refused with this HTTP-like status, which trying again does not change.
    Refused(u16),
    /// The connection ended each time the twin was awaited: it may be larger than the link takes.
    GivenUp,
    /// The device does not subscribe to twin answers.
    NotSubscribed,
    /// The link was stopped, or its driver dropped.
    Ended,
}

impl fmt::Display for TwinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the service refused with status {status}"),
            Self::GivenUp => f.write_str("the connection ended each time the twin was awaited"),
            Self::NotSubscribed => {
                f.write_str("the device does not subscribe to twin answers; ask for that when building it")
            }
            Self::Ended => f.write_str("the link was stopped or its driver dropped"),
        }
    }
}

impl std::error::Error for TwinError {}

/// What the services keep for the application.
#[derive(Debug, Default)]
pub(crate) struct Services {
    changes: VecDeque<Desired>,
    /// Changes were more than the application took: the whole twin is to come.
    behind: bool,
    /// It was asked for.
    catching_up: bool,
    /// Version of what was queued last.
    queued: Option<u64>,
    calls: VecDeque<Waiting>,
    /// Most calls that wait for the application.
    most_calls: usize,
    orders: VecDeque<OperatorCommand>,
    reports: HashMap<u32, Claim>,
    /// Calls of [`Device::get_twin`] that wait.
    askers: usize,
    /// How many answers to them there were, and the latest.
    answers: u64,
    answer: Option<Result<Twin, TwinError>>,
}

#[derive(Debug)]
struct Waiting {
    id: CallId,
    name: String,
    payload: Vec<u8>,
}

/// Reported properties that somebody wants to hear of.
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
            // The link bounds those that are open: nobody waits for the oldest any more.
            self.calls.pop_front();
        }
        self.calls.push_back(Waiting { id, name, payload: payload.to_vec() });
    }

    /// Forgets calls whose connection has ended.
    pub(crate) fn forget_calls(&mut self) {
        self.calls.clear();
    }

    /// Takes note of an event; returns whether somebody may wait for it.
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
    /// Asks for the twin and waits for it, across reconnections.
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
    /// After a connection that missed changes, after a gap, and when the application lags behind, it is all of them. No
    /// version is told twice and none is skipped. Each change is given out once, whoever asks. Returns `None` when the
    /// driver has ended and nothing waits.
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
    /// It can be called in every state of the link. What waits is merged: per path the last write counts. The claim
    /// returned tells the outcome; dropping it changes nothing.
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
    /// Each is given out once, whoever asks; [`crate::Methods`] does so for an application with a handler for each
    /// method. Returns `None` when the driver has ended.
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

    /// Tells the version of desired properties the application has applied, kept from before a restart, so that it is
    /// not told again. Of use before the first connection.
    pub fn restore_desired_version(&self, version: u64) {
        self.shared().command(|inner| inner.link.restore_desired_version(version));
    }

    /// Waits for the next order of an operator; see [`crate::Builder::allow_operator_commands`].
    ///
    /// OperatorCommands to register or to spread have been carried out by then; one about the log is for the application. Each is
    /// given out once, whoever asks; up to 16 wait, and of more the latest count. Returns `None` when the driver has ended
    /// and no order waits.
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

/// The claim to learn what became of reported properties.
#[must_use = "dropping the claim gives up learning whether the service has the properties"]
pub struct Report {
    shared: Arc<Shared>,
    id: ReportId,
}

impl Report {
    /// Waits until the service has the properties; returns their version, when the service told it.
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
    /// [`RespondError`] when the call's connection has ended, which the caller was told, or the body does not fit or is no
    /// JSON; the answer is not sent, to this call or any other. A caller who still waits is answered with 500.
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
