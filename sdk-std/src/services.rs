//! What came for the services of a hub, kept until the application takes it.

use std::collections::{HashMap, VecDeque};
use std::mem;

use steadfast_core::iothub::Event;
use steadfast_core::iothub::operator_commands::OperatorCommand;
use steadfast_core::{CallId, ReportId, json};

use crate::twin::{Desired, TwinDocument, TwinError};

/// Most changes of desired properties that wait in a stream. With more the whole twin is asked for instead.
const CHANGES: usize = 16;

/// Most commands of an operator that wait for the application; of more the latest count.
const COMMANDS: usize = 16;

/// Queues between the services and the application.
#[derive(Debug, Default)]
pub(crate) struct Services {
    streams: Vec<Stream>,
    next_stream: u64,
    calls: VecDeque<Waiting>,
    /// Most calls that wait for the application.
    most_calls: usize,
    /// Components whose commands are taken apart, and how many streams do so.
    commanded: HashMap<Box<str>, usize>,
    commands: VecDeque<OperatorCommand>,
    pub(crate) reports: HashMap<u32, Claim>,
    /// Calls of [`crate::Twin::get`] that wait.
    pub(crate) askers: usize,
    /// How many answers to them there were, and the latest.
    pub(crate) answers: u64,
    pub(crate) answer: Option<Result<TwinDocument, TwinError>>,
}

/// The changes of desired properties that wait in one stream.
#[derive(Debug)]
struct Stream {
    id: u64,
    component: Option<Box<str>>,
    changes: VecDeque<Desired>,
    /// Version of what was queued last; `None` until the whole twin has come.
    queued: Option<u64>,
    /// Changes were more than the application took: the whole twin is to come.
    behind: bool,
    /// It was requested.
    catching_up: bool,
}

/// A method call that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) id: CallId,
    pub(crate) name: String,
    pub(crate) payload: Vec<u8>,
}

/// Reports whose outcome is awaited.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) holders: usize,
    pub(crate) outcome: Option<Result<Option<u64>, TwinError>>,
}

impl Services {
    pub(crate) fn new(most_calls: usize) -> Self {
        Self { most_calls, ..Self::default() }
    }

    /// Opens a stream of desired properties, of a component alone where one is named. Returns its number.
    pub(crate) fn open_stream(&mut self, component: Option<&str>) -> u64 {
        let id = self.next_stream;
        self.next_stream = id.wrapping_add(1);
        let component = component.map(Box::from);
        self.streams.push(Stream {
            id,
            component,
            changes: VecDeque::new(),
            queued: None,
            behind: false,
            catching_up: false,
        });
        id
    }

    pub(crate) fn close_stream(&mut self, id: u64) {
        self.streams.retain(|stream| stream.id != id);
    }

    /// Returns the next change in a stream, and whether the whole twin is to be asked for.
    pub(crate) fn next_change(&mut self, id: u64) -> (Option<Desired>, bool) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return (None, false) };
        let change = stream.changes.pop_front();
        let asks = change.is_none() && stream.behind && !mem::replace(&mut stream.catching_up, true);
        (change, asks)
    }

    pub(crate) fn take_twin(&mut self, twin: &steadfast_core::TwinDocument<&str>) {
        if self.askers > 0 {
            self.answer(Ok(twin.map(str::to_owned)));
        }
        for stream in &mut self.streams {
            let newer = stream.queued.is_none_or(|queued| twin.desired_version > queued);
            if newer || twin.reset || stream.behind {
                stream.behind = false;
                stream.catching_up = false;
                stream.changes.clear();
                stream.queued = Some(twin.desired_version);
                stream.changes.push_back(Desired::Full(match &stream.component {
                    None => twin.map(str::to_owned),
                    Some(component) => twin.map(|document| part(document, component).unwrap_or("{}").to_owned()),
                }));
            }
        }
    }

    pub(crate) fn take_change(&mut self, version: u64, patch: &str) {
        for stream in &mut self.streams {
            if stream.changes.len() >= CHANGES {
                stream.changes.clear();
                stream.behind = true;
            }
            // A stream that was opened since the twin was read begins with the whole of it.
            if stream.queued.replace(version).is_none() {
                stream.behind = true;
            }
            if stream.behind {
                continue;
            }
            let patch = match &stream.component {
                None => patch,
                Some(component) => match part(patch, component) {
                    Some(patch) => patch,
                    None => continue,
                },
            };
            stream.changes.push_back(Desired::Patch { version, patch: patch.to_owned() });
        }
    }

    /// Has the commands of a component taken apart from the other methods.
    pub(crate) fn command(&mut self, component: &str) {
        *self.commanded.entry(component.into()).or_default() += 1;
    }

    pub(crate) fn uncommand(&mut self, component: &str) {
        if let Some(count) = self.commanded.get_mut(component) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.commanded.remove(component);
            }
        }
    }

    pub(crate) fn take_call(&mut self, id: CallId, name: String, payload: &[u8]) {
        if self.calls.len() >= self.most_calls {
            // The link limits open calls, so the oldest queued call has ended.
            self.calls.pop_front();
        }
        self.calls.push_back(Waiting { id, name, payload: payload.to_vec() });
    }

    /// Returns the next call of a component's commands, or of the methods that no component takes.
    pub(crate) fn next_call(&mut self, component: Option<&str>) -> Option<Waiting> {
        let place = self.calls.iter().position(|call| match component {
            Some(component) => component_of(&call.name) == Some(component),
            None => component_of(&call.name).is_none_or(|component| !self.commanded.contains_key(component)),
        })?;
        self.calls.remove(place)
    }

    /// Forgets calls whose connection has ended.
    pub(crate) fn forget_calls(&mut self) {
        self.calls.clear();
    }

    pub(crate) fn next_command(&mut self) -> Option<OperatorCommand> {
        self.commands.pop_front()
    }

    /// Takes note of an event; returns whether somebody may wait for it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are the link's")]
    pub(crate) fn take_event(&mut self, event: &Event) -> bool {
        match *event {
            Event::Reported { report, version } => self.settle(report, Ok(version)),
            Event::ReportRefused { report, status } => self.settle(report, Err(TwinError::Refused(status))),
            Event::TwinRefused { status } => self.answer(Err(TwinError::Refused(status))),
            Event::TwinGivenUp => self.answer(Err(TwinError::GivenUp)),
            Event::OperatorCommand(command) => {
                if self.commands.len() >= COMMANDS {
                    self.commands.pop_front();
                }
                self.commands.push_back(command);
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

    fn answer(&mut self, answer: Result<TwinDocument, TwinError>) {
        self.answers = self.answers.wrapping_add(1);
        self.answer = (self.askers > 0).then_some(answer);
    }
}

/// The component whose command a method is (IoT Plug and Play convention, "Commands": `component*command`).
fn component_of(method: &str) -> Option<&str> {
    method.split_once('*').map(|(component, _)| component)
}

/// The properties of a component in desired properties.
fn part<'t>(properties: &'t str, component: &str) -> Option<&'t str> {
    json::member(properties.as_bytes(), component).map(|value| value.raw())
}
