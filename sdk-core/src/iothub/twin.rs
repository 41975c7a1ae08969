//! The twin across reconnections: when to request it, what to deliver, when to send reports again.

use core::time::Duration;

use super::reports::members;
use super::service_topics;
use crate::time::Instant;

/// Timeout of a twin response (azure-iot-sdk-c waits 60 s for a twin).
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Unanswered requests in a row after which the connection counts as lost.
const UNANSWERED: u8 = 3;

/// Connections in a row that end before the twin arrives, after which it is requested less and less often: it may be
/// larger than the frontend accepts, and the device works without it.
const BROKEN: u8 = 3;

/// The twin as the service sent it. The texts, `S`, are JSON objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TwinDocument<S> {
    /// The desired properties, `$version` among them.
    pub desired: S,
    /// Version of the desired properties.
    pub desired_version: u64,
    /// The reported properties, `$version` among them.
    pub reported: S,
    /// Version of the reported properties.
    pub reported_version: u64,
    /// The version is below one delivered before: the twin was recreated.
    pub reset: bool,
}

impl<S> TwinDocument<S> {
    /// Converts the texts with `text`.
    pub fn map<T>(self, mut text: impl FnMut(S) -> T) -> TwinDocument<T> {
        let Self { desired, desired_version, reported, reported_version, reset } = self;
        TwinDocument { desired: text(desired), desired_version, reported: text(reported), reported_version, reset }
    }
}

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Idle,
    /// Pending, with a delay still to be drawn.
    Wanted(Pace),
    /// To be sent from this moment on.
    Due(Instant),
    /// Sent under this number, to be answered by then.
    Sent(u32, Instant),
}

/// How the moment of a request is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As one of many devices that reconnected, or received a patch, at the same moment.
    FollowUp,
    /// After this many throttled requests in a row.
    Patience(u8),
    /// After this many connections too many that ended while the twin was awaited.
    Rarely(u8),
}

/// The result of a response to a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patched {
    /// The service has it.
    Done,
    /// The service refused it permanently.
    Refused,
    /// To be sent again after a while.
    Again,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Twin {
    pub(super) online: bool,
    pub(super) get: Request,
    pub(super) patch: Request,
    /// The application requested the twin, whatever its version.
    asked: bool,
    /// Latest version of desired properties that was delivered.
    known: Option<u64>,
    /// Latest version that the service sent since the twin was requested.
    newest: u64,
    number: u32,
    refusals: u8,
    unanswered: u8,
    broken: u8,
}

impl Twin {
    pub(super) const fn new() -> Self {
        Self {
            online: false,
            get: Request::Idle,
            patch: Request::Idle,
            asked: false,
            known: None,
            newest: 0,
            number: 0,
            refusals: 0,
            unanswered: 0,
            broken: 0,
        }
    }

    /// The link is up: requests missed patches, and sends queued reports.
    pub(super) fn connected(&mut self, follow: bool, reports: bool) {
        let wanted = |yes| if yes { Request::Wanted(Pace::FollowUp) } else { Request::Idle };
        self.online = true;
        self.unanswered = 0;
        self.get = match self.broken.checked_sub(BROKEN) {
            Some(many) if follow => Request::Wanted(Pace::Rarely(many)),
            _ => wanted(follow || self.asked),
        };
        self.patch = wanted(reports);
    }

    /// The connection has ended. Returns whether the twin is given up for a while.
    pub(super) fn disconnected(&mut self) -> bool {
        if !core::mem::take(&mut self.online) {
            return false;
        }
        let awaited = matches!(self.get, Request::Sent(..));
        self.get = Request::Idle;
        self.patch = Request::Idle;
        if !awaited {
            return false;
        }
        self.broken = self.broken.saturating_add(1);
        let given_up = self.broken == BROKEN;
        self.asked &= !given_up;
        given_up
    }

    /// The application requests the twin.
    pub(super) fn ask(&mut self, now: Instant) {
        self.asked = true;
        self.broken = 0;
        // A request sent earlier may be answered with an older twin than the application expects.
        if self.online && !matches!(self.get, Request::Wanted(Pace::Patience(_))) {
            self.get = Request::Due(now);
        }
    }

    /// There is something to report.
    pub(super) fn report(&mut self, now: Instant) {
        if self.online && self.patch == Request::Idle {
            self.patch = Request::Due(now);
        }
    }

    pub(super) fn restore(&mut self, version: u64) {
        self.known.get_or_insert(version);
    }

    pub(super) fn known(&self) -> Option<u64> {
        self.known
    }

    /// Takes the due twin request.
    pub(super) fn take_get(&mut self, now: Instant) -> Option<u32> {
        let number = take_due(&mut self.get, &mut self.number, now)?;
        self.newest = 0;
        Some(number)
    }

    /// Takes the due patch.
    pub(super) fn take_patch(&mut self, now: Instant) -> Option<u32> {
        take_due(&mut self.patch, &mut self.number, now)
    }

    /// Handles requests that timed out. Returns whether the connection counts as lost.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        for request in [&mut self.get, &mut self.patch] {
            if matches!(request, Request::Sent(_, until) if *until <= now) {
                *request = Request::Wanted(Pace::FollowUp);
                self.unanswered = self.unanswered.saturating_add(1);
            }
        }
        self.unanswered >= UNANSWERED
    }

    /// The earliest deadline, unless it has passed and only room is missing.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let at = |request| match request {
            Request::Due(at) => Some(at).filter(|at| *at > now),
            Request::Sent(_, until) => Some(until),
            Request::Idle | Request::Wanted(_) => None,
        };
        match (at(self.get), at(self.patch)) {
            (Some(get), Some(patch)) => Some(get.min(patch)),
            (get, patch) => get.or(patch),
        }
    }

    /// Whether `number` is that of the twin's request.
    pub(super) fn is_get(&self, number: u32) -> bool {
        matches!(self.get, Request::Sent(sent, _) if sent == number)
    }

    /// Whether `number` is that of the patch.
    pub(super) fn is_patch(&self, number: u32) -> bool {
        matches!(self.patch, Request::Sent(sent, _) if sent == number)
    }

    /// Takes the twin, and returns it if it must be delivered.
    pub(super) fn take_document<'a>(&mut self, body: &'a [u8]) -> Result<Option<TwinDocument<&'a str>>, ()> {
        self.answered();
        self.broken = 0;
        self.refusals = 0;
        self.get = Request::Idle;
        let Some(mut twin) = document(body) else {
            return Err(());
        };
        let version = twin.desired_version;
        if version < self.newest && !self.asked {
            // The service answered with the twin before its latest patch.
            if self.known != Some(self.newest) {
                self.get = Request::Wanted(Pace::FollowUp);
            }
            if self.known.is_some_and(|known| version <= known) {
                return Ok(None);
            }
        }
        let asked = core::mem::take(&mut self.asked);
        if self.known == Some(version) && !asked {
            return Ok(None);
        }
        if self.known == Some(self.newest) && version < self.newest {
            // Requested and older than the known version: delivered, but not as recreated.
            return Ok(Some(twin));
        }
        twin.reset = self.known.is_some_and(|known| version < known);
        self.known = Some(version);
        Ok(Some(twin))
    }

    /// Takes a patch of desired properties, and returns its version if it must be delivered.
    pub(super) fn take_desired(&mut self, version: Option<u64>) -> Option<u64> {
        let Some(version) = version else {
            self.miss();
            return None;
        };
        self.newest = self.newest.max(version);
        match self.known {
            Some(known) if known.checked_add(1) == Some(version) => {
                self.known = Some(version);
                return Some(version);
            }
            Some(known) if known == version => {}
            // A patch was missed, or the twin was recreated.
            Some(_) | None => self.miss(),
        }
        None
    }

    /// The service refused the twin with `status`. Returns whether it is requested again.
    pub(super) fn get_refused(&mut self, status: u16) -> bool {
        self.answered();
        let again = is_passing(status);
        self.get = if again { self.patience() } else { Request::Idle };
        self.asked &= again;
        again
    }

    /// Takes the response to the patch.
    pub(super) fn take_patched(&mut self, status: u16) -> Patched {
        self.answered();
        if status < 300 {
            self.refusals = 0;
            self.patch = Request::Idle;
            Patched::Done
        } else if is_passing(status) {
            self.patch = self.patience();
            Patched::Again
        } else {
            self.patch = Request::Idle;
            Patched::Refused
        }
    }

    fn patience(&mut self) -> Request {
        self.refusals = self.refusals.saturating_add(1);
        Request::Wanted(Pace::Patience(self.refusals))
    }

    fn answered(&mut self) {
        self.unanswered = 0;
    }

    fn miss(&mut self) {
        if self.online && self.get == Request::Idle {
            self.get = Request::Wanted(Pace::FollowUp);
        }
    }
}

fn take_due(request: &mut Request, number: &mut u32, now: Instant) -> Option<u32> {
    if !matches!(*request, Request::Due(at) if at <= now) {
        return None;
    }
    *number = number.wrapping_add(1);
    *request = Request::Sent(*number, now.after(ANSWER_TIME));
    Some(*number)
}

/// Whether a request may be repeated after a while: throttled, a failing service, or a condition that other changes
/// broke.
const fn is_passing(status: u16) -> bool {
    matches!(status, service_topics::THROTTLED | service_topics::PRECONDITION_FAILED | 500..=599)
}

/// Parses a twin response. Members may be missing; their versions are 0 then.
fn document(body: &[u8]) -> Option<TwinDocument<&str>> {
    let mut twin =
        TwinDocument { desired: "{}", desired_version: 0, reported: "{}", reported_version: 0, reset: false };
    let mut reader = crate::json::Reader::new(body);
    if !reader.value().ok()?.is_object() {
        return None;
    }
    for (key, value) in members(body) {
        let (text, version) = if key == "desired" {
            (&mut twin.desired, &mut twin.desired_version)
        } else if key == "reported" {
            (&mut twin.reported, &mut twin.reported_version)
        } else {
            continue;
        };
        if !value.is_object() {
            return None;
        }
        *text = value.raw();
        let found = members(value.raw().as_bytes()).find(|(key, _)| *key == "$version");
        *version = found.and_then(|(_, version)| version.as_u64()).unwrap_or(0);
    }
    Some(twin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    const NOW: Instant = Instant::from_millis(1_000);

    fn body(version: u64) -> String {
        format!(r#"{{"desired":{{"a":{version},"$version":{version}}},"reported":{{"$version":3}}}}"#)
    }

    fn up() -> Twin {
        let mut twin = Twin::new();
        twin.connected(true, false);
        assert_eq!(twin.get, Request::Wanted(Pace::FollowUp));
        twin
    }

    fn answer(twin: &mut Twin, version: u64) -> Option<(u64, bool)> {
        twin.get = Request::Due(NOW);
        twin.take_get(NOW).unwrap();
        give(twin, version)
    }

    fn give(twin: &mut Twin, version: u64) -> Option<(u64, bool)> {
        let text = body(version);
        let twin = twin.take_document(text.as_bytes()).unwrap()?;
        assert_eq!(twin.reported_version, 3);
        Some((twin.desired_version, twin.reset))
    }

    #[test]
    fn each_version_is_delivered_once_and_in_order() {
        let mut twin = up();
        assert_eq!(twin.take_desired(Some(5)), None, "the twin is on its way and has it");
        assert_eq!(answer(&mut twin, 5), Some((5, false)));
        assert_eq!(twin.take_desired(Some(5)), None);
        assert_eq!(twin.take_desired(Some(6)), Some(6));
        assert_eq!(twin.get, Request::Idle);
        twin.disconnected();
        twin.connected(true, false);
        assert_eq!(answer(&mut twin, 6), None, "nothing changed meanwhile");
    }

    #[test]
    fn a_gap_is_filled_by_one_request() {
        let mut twin = up();
        answer(&mut twin, 5);
        assert_eq!(twin.take_desired(Some(7)), None);
        assert_eq!(twin.take_desired(Some(8)), None);
        assert_eq!(twin.get, Request::Wanted(Pace::FollowUp));
        assert_eq!(answer(&mut twin, 8), Some((8, false)));
        assert_eq!(twin.get, Request::Idle);
    }

    #[test]
    fn an_answer_older_than_a_change_that_overtook_it_takes_nothing_back() {
        let mut twin = up();
        answer(&mut twin, 5);
        twin.get = Request::Due(NOW);
        twin.take_get(NOW).unwrap();
        assert_eq!(twin.take_desired(Some(6)), Some(6));
        assert_eq!(give(&mut twin, 5), None);
        assert_eq!((twin.known, twin.get), (Some(6), Request::Idle));

        twin.get = Request::Due(NOW);
        twin.take_get(NOW).unwrap();
        assert_eq!(twin.take_desired(Some(8)), None);
        assert_eq!(give(&mut twin, 7), Some((7, false)));
        assert_eq!(twin.get, Request::Wanted(Pace::FollowUp), "version 8 is still missing");
    }

    #[test]
    fn a_twin_made_anew_is_told_as_such() {
        let mut twin = up();
        answer(&mut twin, 9);
        assert_eq!(twin.take_desired(Some(2)), None);
        assert_eq!(answer(&mut twin, 2), Some((2, true)));
        assert_eq!(twin.take_desired(Some(3)), Some(3));
    }

    #[test]
    fn an_application_that_asks_gets_the_twin_whatever_its_version() {
        let mut twin = up();
        answer(&mut twin, 4);
        twin.ask(NOW);
        twin.take_get(NOW).unwrap();
        assert_eq!(give(&mut twin, 4), Some((4, false)));
    }

    #[test]
    fn a_service_that_never_answers_costs_the_connection() {
        let mut twin = up();
        let mut now = NOW;
        for round in 1..=UNANSWERED {
            twin.get = Request::Due(now);
            twin.take_get(now).unwrap();
            now = now.after(ANSWER_TIME);
            assert_eq!(twin.expire(now), round == UNANSWERED);
        }
    }

    #[test]
    fn a_twin_that_breaks_connections_is_asked_for_rarely() {
        let mut twin = up();
        for round in 1..=BROKEN {
            twin.get = Request::Due(NOW);
            twin.take_get(NOW).unwrap();
            assert_eq!(twin.disconnected(), round == BROKEN);
            twin.connected(true, false);
        }
        assert_eq!(twin.get, Request::Wanted(Pace::Rarely(0)));
        twin.ask(NOW);
        assert!(twin.take_get(NOW).is_some());
    }

    #[test]
    fn throttled_requests_wait_longer_each_time_and_refused_ones_end() {
        let mut twin = up();
        assert!(twin.get_refused(429));
        assert_eq!(twin.get, Request::Wanted(Pace::Patience(1)));
        assert_eq!(twin.take_patched(503), Patched::Again);
        assert_eq!(twin.patch, Request::Wanted(Pace::Patience(2)));
        assert_eq!(twin.take_patched(204), Patched::Done);
        assert_eq!(twin.take_patched(400), Patched::Refused);
        assert!(!twin.get_refused(404));
        assert_eq!(twin.get, Request::Idle);
    }

    #[test]
    fn answers_that_are_no_twin_are_refused() {
        for body in ["", "[]", "{\"desired\":1}", "{\"desired\":{}", "nonsense"] {
            assert!(up().take_document(body.as_bytes()).is_err(), "{body}");
        }
        let mut twin = up();
        assert_eq!(twin.take_document(b"{}").unwrap().unwrap().desired_version, 0);
    }
}
