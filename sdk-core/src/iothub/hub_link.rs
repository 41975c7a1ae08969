//! A hub's services over a [`Link`]: twin, direct methods, cloud-to-device messages, inputs of modules.

mod commands;
mod dispatch;
mod operator;

use heapless::Vec;

use self::operator::Operator;
use super::c2d_dedup::Recent;
use super::methods::Methods;
use super::reports::Reports;
use super::twin::{Pace, Request, Twin};
use super::{CALLS_MAX, CallId, CallSlot, Event, HubProfile, Received, ReportError, ReportId, Residence, RespondError};
use crate::config::Subscriptions;
use crate::failure::Failure;
use crate::io::{Action, Attempt, Input, Output, Taken};
use crate::iothub::service_topics::{self, Inbound};
use crate::link::{self, Link};
use crate::mqtt::{Packet, PacketId, Publish};
use crate::outbox::Outbox;
use crate::queue::pop_front;
use crate::time::Instant;
use crate::timer::{Deadline, TimerReason};

/// Events that wait. Each follows an input, a timeout or a lost connection, after which the frontend polls.
const EVENTS: usize = 8;

/// Longest request of a service without its body.
const FRAME: usize = 192;

/// A [`Link`] with the services of an IoT hub.
///
/// It is driven like a link, by methods of the same names; [`link`](Self::link) is read-only, since the services need
/// the link's outputs:
///
/// ```compile_fail,E0596
/// # use steadfast_core::{HubLink, Outbox, Settings};
/// # fn example<O: Outbox, S: Settings>(hub: &mut HubLink<O, S>) {
/// hub.link().poll_output();
/// # }
/// ```
///
/// [`crate::Config::subscriptions`] selects the services:
///
/// * with [`Subscriptions::TWIN_RESPONSES`] the twin can be [requested](Self::get_twin) and properties
///   [reported](Self::report); with [`Subscriptions::TWIN_DESIRED`] as well, desired properties are followed:
///   [`Received::Twin`] after missed patches, [`Received::Desired`] for each patch. No version is delivered twice and
///   none is skipped; after a gap the twin is requested, with a random delay. A recreated twin is recognised by its
///   lower version; one that has reached the same version again is not;
/// * with [`Subscriptions::METHODS`] calls arrive as [`Received::Call`]; [answer](Self::respond) them;
/// * with [`Subscriptions::CLOUD_TO_DEVICE`] messages arrive as [`Received::CloudToDevice`];
///   [acknowledge](Self::acknowledge) them; with [`Subscriptions::INPUTS`] those routed to a module arrive as
///   [`Received::Input`].
///
/// `B` is the frontend's memory: one buffer for queued reported properties, one for queued answers. `C` has a slot for
/// each open method call, and one more to answer further calls with 503: by default seven can be open.
#[derive(Clone, Debug)]
pub struct HubLink<O, P, B = [u8; 1024], C = [CallSlot; CALLS_MAX]> {
    turn: Turn,
    /// The attempt of the current connection.
    up: Option<Attempt>,
    now: Instant,
    twin: Twin,
    operator: Option<Operator<Self>>,
    events: Vec<Event, EVENTS>,
    recent: Recent,
    link: Link<O, P>,
    reports: Reports<B>,
    methods: Methods<B, C>,
}

/// Link events that the services have not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    None,
    Up,
    Down,
}

impl<O: Outbox, P: HubProfile, B: AsRef<[u8]> + AsMut<[u8]>> HubLink<O, P, B> {
    /// Adds the services to a link.
    ///
    /// `reports` limits the queued reported properties; merging temporarily needs as much again. `answers` limits the
    /// queued method responses.
    pub fn new(link: Link<O, P>, reports: B, answers: B) -> Self {
        Self::with_calls(link, reports, answers, [const { CallSlot::EMPTY }; CALLS_MAX])
    }
}

impl<O, P, B, C> HubLink<O, P, B, C>
where
    O: Outbox,
    P: HubProfile,
    B: AsRef<[u8]> + AsMut<[u8]>,
    C: AsRef<[CallSlot]> + AsMut<[CallSlot]>,
{
    /// Like [`new`](HubLink::new), with the frontend's own slots for method calls, all of them empty.
    pub fn with_calls(link: Link<O, P>, reports: B, answers: B, calls: C) -> Self {
        let now = link.now();
        Self {
            link,
            twin: Twin::new(),
            reports: Reports::new(reports),
            methods: Methods::new(answers, calls),
            recent: Recent::new(),
            events: Vec::new(),
            operator: None,
            up: None,
            turn: Turn::None,
            now,
        }
    }

    /// Sets the version of desired properties that the application had applied before a reboot, so that it is not
    /// delivered again. Without effect once a version is known.
    pub fn restore_desired_version(&mut self, version: u64) {
        self.twin.restore(version);
    }

    /// Subscribes to these as well, now or once the link is up, and on every later connection. With
    /// [`Subscriptions::TWIN_DESIRED`] the twin is asked for.
    ///
    /// Returns false when they are not for this identity (a device has no inputs, a module no cloud-to-device messages, a
    /// broker none at all), or when the settings have no room for them: [`crate::Settings::subscribe`].
    pub fn open(&mut self, more: Subscriptions, now: Instant) -> bool {
        self.tick(now);
        self.hear();
        let profile = self.link.profile_mut();
        let identity = if profile.module_id().is_some() { Subscriptions::MODULE } else { Subscriptions::ALL };
        if profile.subscriptions().contains(more) {
            return true;
        }
        if !identity.contains(more) || !profile.subscribe(more) {
            return false;
        }
        if self.up.is_some() {
            self.twin.connected(self.follows(), !self.reports.is_empty());
        }
        true
    }

    /// Gives other memory for reported properties that wait, and returns whether it could: not while some wait.
    pub fn set_report_room(&mut self, reports: B) -> bool {
        let empty = self.reports.is_empty();
        if empty {
            self.reports.set_room(reports);
        }
        empty
    }

    /// Gives other memory for method calls and their answers. Calls that are open are forgotten.
    pub fn set_call_room(&mut self, answers: B, calls: C) {
        self.methods = Methods::new(answers, calls);
        self.methods.connected(self.link.attempt());
    }

    /// Whether desired properties are followed.
    fn follows(&self) -> bool {
        self.holds(Subscriptions::TWIN_RESPONSES | Subscriptions::TWIN_DESIRED)
    }

    /// Returns the latest version of desired properties that was delivered.
    #[must_use]
    pub fn desired_version(&self) -> Option<u64> {
        self.twin.known()
    }

    /// Requests the twin, now or once the link is up: it arrives as [`Received::Twin`], whatever its version.
    ///
    /// Returns false without [`Subscriptions::TWIN_RESPONSES`].
    pub fn get_twin(&mut self, now: Instant) -> bool {
        self.tick(now);
        let holds = self.holds(Subscriptions::TWIN_RESPONSES);
        if holds {
            self.twin.ask(self.now);
        }
        holds
    }

    /// Queues a patch of reported properties, a JSON object in which `null` deletes, until the service has it.
    ///
    /// It can be called in any state. Queued patches are merged if the result is the same; others are sent in order.
    /// Each ends in [`Event::Reported`] or [`Event::ReportRefused`] with the id returned here, or with a later one; a
    /// patch is sent again after a lost connection, a timeout, or a throttled or failing service.
    ///
    /// # Errors
    /// [`ReportError`]; nothing was queued.
    pub fn report(&mut self, patch: &[u8], now: Instant) -> Result<ReportId, ReportError> {
        self.tick(now);
        if !self.holds(Subscriptions::TWIN_RESPONSES) {
            return Err(ReportError::NotSubscribed);
        }
        let limit = self.link.profile().session().max_outbound.saturating_sub(FRAME);
        if patch.len() > limit {
            return Err(ReportError::TooLarge { size: patch.len(), limit });
        }
        let id = self.reports.push(patch)?;
        self.twin.report(self.now);
        Ok(id)
    }

    /// Answers a method call with a status, usually an HTTP-like one, and a body, which is JSON or empty.
    ///
    /// # Errors
    /// [`RespondError`]; the answer is not sent, to this call or any other.
    pub fn respond(&mut self, call: CallId, status: u16, body: &[u8], now: Instant) -> Result<(), RespondError> {
        self.tick(now);
        self.hear();
        let limit = self.link.profile().session().max_outbound.saturating_sub(FRAME);
        if body.len() > limit {
            return Err(RespondError::TooLarge { size: body.len(), limit });
        }
        self.methods.respond(call, status, body)
    }

    /// As [`Link::acknowledge`]. Also records the message so that a redelivery is reported as a duplicate, even after a
    /// reconnect.
    pub fn acknowledge(&mut self, packet_id: PacketId, attempt: Attempt, now: Instant) -> bool {
        self.recent.complete(packet_id, attempt);
        self.link.acknowledge(packet_id, attempt, now)
    }

    /// Returns whether the application has acknowledged a cloud-to-device message before, in this copy or another, for
    /// a frontend that queues messages; [`Received::CloudToDevice`] has it at arrival.
    #[must_use]
    pub fn is_duplicate(&self, packet_id: PacketId, attempt: Attempt) -> bool {
        self.recent.is_completed(packet_id, attempt)
    }

    /// As [`Link::handle_input`].
    pub fn handle_input<'b>(
        &mut self,
        input: Input<'b>,
        attempt: Attempt,
        now: Instant,
    ) -> Taken<Received<&'b str, &'b [u8]>> {
        self.tick(now);
        self.hear();
        let taken = self.link.handle_input(input, attempt, now);
        let received = match taken.received {
            Some(received) => self.sort(received, attempt),
            None => None,
        };
        taken.with(received)
    }

    /// Dispatches received data to its service; returns the part for the application.
    fn sort<'b>(
        &mut self,
        received: link::Received<&'b str, &'b [u8]>,
        attempt: Attempt,
    ) -> Option<Received<&'b str, &'b [u8]>> {
        let link::Received::Message { topic, payload, packet_id, dup } = received else {
            return Some(Received::Link(received));
        };
        let inbound = Inbound::parse(topic, self.link.profile().device_id(), self.link.profile().module_id());
        match inbound.filter(|_| self.link.profile().residence() != Residence::NoHub) {
            None => Some(Received::Link(received)),
            Some(Inbound::CloudToDevice { properties }) => {
                let duplicate = self.recent.take(properties, packet_id, attempt);
                Some(Received::CloudToDevice { properties, payload, packet_id, dup, duplicate })
            }
            Some(Inbound::Input { name, properties }) => {
                Some(Received::Input { name, properties, payload, packet_id, dup })
            }
            Some(inbound @ (Inbound::TwinAnswer { .. } | Inbound::Desired { .. } | Inbound::Method { .. })) => {
                // Its loss would be noticed, so it need not be sent again.
                if let Some(packet_id) = packet_id {
                    self.link.acknowledge(packet_id, attempt, self.now);
                }
                self.take(inbound, payload, attempt)
            }
        }
    }

    /// As [`Link::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        self.hear();
        self.link.handle_timeout(now);
        if self.up.is_some() && self.twin.expire(self.now) {
            self.link.break_off(Failure::TwinUnanswered);
        }
        let dropped = self.methods.expire(self.now);
        self.calls_dropped(dropped);
    }

    /// As [`Link::poll_output`].
    pub fn poll_output(&mut self) -> Output<'_, Event> {
        self.poll_output_within(usize::MAX)
    }

    /// As [`Link::poll_output_within`].
    pub fn poll_output_within(&mut self, room: usize) -> Output<'_, Event> {
        self.now = self.now.max(self.link.now());
        self.hear();
        self.methods.finish_sent();
        self.draw();
        if let Some(event) = pop_front(&mut self.events) {
            return Output::Event(event);
        }
        // What is opened while the link is up waits for its SUBACK.
        let subscribed = self.link.is_subscribed();
        let deadline = match self.link.next_output(room) {
            Output::Wait(deadline) => deadline,
            output @ (Output::Action(_) | Output::Event(_)) => {
                if matches!(output, Output::Event(Event::Link(link::Event::Up { .. }))) {
                    self.turn = Turn::Up;
                } else if matches!(
                    output,
                    Output::Event(Event::Link(link::Event::Down(_) | link::Event::Stopped))
                        | Output::Action(Action::Close { .. })
                ) {
                    self.turn = Turn::Down;
                }
                return output;
            }
        };
        let Some(attempt) = self.up else { return Output::Wait(deadline) };
        let fits = |len: usize| len.saturating_add(FRAME) <= room;
        let send = |topic, payload| {
            let publish = Publish { topic, payload, packet_id: None, dup: false, retain: false };
            Output::Action(Action::Send { attempt, packet: Packet::Publish(publish) })
        };
        if self.methods.next_len().is_some_and(fits) {
            return match self.methods.take_next() {
                Some((request, status, body)) => send(service_topics::method_answer_topic(status, request), body),
                None => Output::Wait(deadline),
            };
        }
        if !subscribed {
            return Output::Wait(deadline);
        }
        if fits(0)
            && let Some(number) = self.twin.take_get(self.now)
        {
            return send(service_topics::twin_get_topic(number), &[]);
        }
        if self.reports.first().is_some_and(|patch| fits(patch.len()))
            && let Some(number) = self.twin.take_patch(self.now)
        {
            self.reports.freeze();
            return send(service_topics::reported_topic(number), self.reports.first().unwrap_or_default());
        }
        Output::Wait(earliest(deadline, &self.twin, &self.methods, self.now))
    }

    /// As [`Link::next_deadline`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Deadline> {
        let deadline = self.link.next_deadline();
        if self.up.is_some() && self.link.is_subscribed() {
            earliest(deadline, &self.twin, &self.methods, self.now)
        } else {
            deadline
        }
    }

    /// Returns whether a pending packet may need more than `room` bytes.
    #[must_use]
    pub fn is_held_back(&self, room: usize) -> bool {
        let queued = self.link.outbox().usage().bytes;
        let answer = self.methods.next_len().unwrap_or(0);
        let patch =
            if matches!(self.twin.patch, Request::Due(_)) { self.reports.first().map_or(0, <[u8]>::len) } else { 0 };
        // No packet is longer than all messages together and a frame.
        const MESSAGE_FRAME: usize = 4096;
        room < queued.max(answer).max(patch).saturating_add(MESSAGE_FRAME)
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn holds(&self, subscriptions: Subscriptions) -> bool {
        self.link.profile().subscriptions().contains(subscriptions)
    }

    /// Passes the link's events to the services.
    fn hear(&mut self) {
        match core::mem::replace(&mut self.turn, Turn::None) {
            Turn::None => {}
            Turn::Up => {
                let attempt = self.link.attempt();
                let answers = self.holds(Subscriptions::TWIN_RESPONSES);
                self.up = Some(attempt);
                self.twin.connected(self.follows(), answers && !self.reports.is_empty());
                self.methods.connected(attempt);
            }
            Turn::Down => {
                if self.up.take().is_none() {
                    return;
                }
                self.reports.thaw();
                if self.twin.disconnected() {
                    self.tell(Event::TwinGivenUp);
                }
                let dropped = self.methods.disconnected();
                self.calls_dropped(dropped);
            }
        }
    }

    /// Draws the delays of pending requests.
    fn draw(&mut self) {
        let (now, link) = (self.now, &mut self.link);
        for request in [&mut self.twin.get, &mut self.twin.patch] {
            if let Request::Wanted(pace) = *request {
                let delay = match pace {
                    Pace::FollowUp => link.follow_up_delay(),
                    Pace::Patience(refusals) => link.patience_delay(refusals),
                    Pace::Rarely(many) => link.rare_delay(many),
                };
                *request = Request::Due(now.after(delay));
            }
        }
    }

    fn calls_dropped(&mut self, count: u8) {
        if count > 0 {
            self.tell(Event::CallsDropped { count });
        }
    }

    /// If the queue is full, the latest event counts.
    fn tell(&mut self, event: Event) {
        if self.events.is_full() {
            self.events.pop();
        }
        let _ = self.events.push(event);
    }
}

/// The earliest of the link's deadline and those of the services.
fn earliest<B, C: AsRef<[CallSlot]>>(
    link: Option<Deadline>,
    twin: &Twin,
    methods: &Methods<B, C>,
    now: Instant,
) -> Option<Deadline> {
    let mut earliest = link;
    for (at, reason) in [(twin.deadline(now), TimerReason::Twin), (methods.deadline(), TimerReason::Method)] {
        if let Some(at) = at
            && earliest.is_none_or(|deadline| at < deadline.at)
        {
            earliest = Some(Deadline { at, reason });
        }
    }
    earliest
}
