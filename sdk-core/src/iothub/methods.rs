//! Direct methods: open calls, and queued answers.

use core::fmt;
use core::time::Duration;

use heapless::String;

use super::reports::remove_front;
use super::service_topics;
use crate::io::Attempt;
use crate::json::{JsonError, Problem, Reader};
use crate::text::{Sink, Slice};
use crate::time::Instant;

/// Places for method calls, unless the frontend gives [others](super::HubLink::with_calls).
///
/// A call occupies a slot from its arrival until its answer is sent. The last slot answers calls beyond the limit, so
/// one fewer can be open at a time.
pub const CALLS_MAX: usize = 8;

/// Longest name a service gives a call; it is 32 hexadecimal digits or fewer in practice.
const REQUEST_MAX: usize = 40;

/// Longest time the service waits for an answer (IoT Hub, `iot-hub-devguide-direct-methods.md`: response timeout up to
/// 300 s).
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// Largest body of an answer, in bytes (the same page).
pub const PAYLOAD_MAX: usize = 128 * 1024;

/// The id of a method call, valid until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    attempt: Attempt,
    number: u32,
}

/// Why an answer was refused. It is never sent to another call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RespondError {
    /// The call's connection has ended, and the service has reported that to the caller.
    ConnectionLost,
    /// The call is already answered, or has timed out.
    NotOpen,
    /// The body is neither JSON nor empty: the service would report an error to the caller.
    Json(JsonError),
    /// The body is larger than the limit of the service or the frontend's buffer.
    TooLarge {
        /// Bytes of the body.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// Queued answers leave no room; try again.
    Full,
}

impl fmt::Display for RespondError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionLost => f.write_str("the connection the method call came on has ended"),
            Self::NotOpen => f.write_str("the method call is already answered, or has timed out"),
            Self::Json(error) => write!(f, "the answer to a method call: {error}"),
            Self::TooLarge { size, limit } => write!(f, "the answer has {size} bytes; the limit is {limit}"),
            Self::Full => f.write_str("queued answers leave no room; try again"),
        }
    }
}

impl core::error::Error for RespondError {}

/// A slot for a method call.
#[derive(Clone, Debug, Default)]
pub struct CallSlot(Option<Call>);

impl CallSlot {
    /// An empty slot.
    pub const EMPTY: Self = Self(None);
}

#[derive(Clone, Debug)]
struct Call {
    number: u32,
    request: String<REQUEST_MAX, u8>,
    until: Instant,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    /// Its position in the order of sending.
    turn: u32,
    status: u16,
    len: usize,
    /// The packet is being written.
    sent: bool,
}

/// The result of an incoming call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is the application's.
    Open(CallId),
    /// Answered as busy, since too many are open.
    Busy,
    /// It cannot be answered at all.
    Lost,
}

#[derive(Clone)]
pub(super) struct Methods<B, C> {
    /// Bodies of answers, in the order of sending.
    buffer: B,
    calls: C,
    attempt: Attempt,
    number: u32,
    /// The positions of the next answer to send, and of the next one to queue.
    first: u32,
    turn: u32,
}

impl<B, C> fmt::Debug for Methods<B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the buffer: answers may be confidential.
        f.debug_struct("Methods").field("attempt", &self.attempt).field("number", &self.number).finish_non_exhaustive()
    }
}

impl<B, C: AsRef<[CallSlot]>> Methods<B, C> {
    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.as_ref().iter().filter_map(|slot| slot.0.as_ref())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.calls().filter(|call| call.answer.is_none()).map(|call| call.until).min()
    }

    fn used(&self) -> usize {
        self.calls().filter_map(|call| call.answer).fold(0, |sum, answer| sum.saturating_add(answer.len))
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>, C: AsRef<[CallSlot]> + AsMut<[CallSlot]>> Methods<B, C> {
    pub(super) fn new(buffer: B, calls: C) -> Self {
        Self { buffer, calls, attempt: Attempt::default(), number: 0, first: 0, turn: 0 }
    }

    pub(super) fn connected(&mut self, attempt: Attempt) {
        self.attempt = attempt;
    }

    /// Drops the calls of the ended connection, and returns their number.
    pub(super) fn disconnected(&mut self) -> u8 {
        self.finish_sent();
        self.first = self.turn;
        self.attempt = Attempt::default();
        self.forget(|_| true)
    }

    /// Adds a call of this attempt. The last slot is reserved for the answer that there are too many.
    pub(super) fn take(&mut self, request: &str, attempt: Attempt, now: Instant) -> Taken {
        self.attempt = attempt;
        self.finish_sent();
        let Ok(request) = String::try_from(request) else { return Taken::Lost };
        let mut free = self.calls.as_mut().iter_mut().filter(|slot| slot.0.is_none());
        let Some(slot) = free.next() else { return Taken::Lost };
        let busy = free.next().is_none();
        self.number = self.number.wrapping_add(1);
        let answer = busy.then_some(Answer { turn: self.turn, status: service_topics::BUSY, len: 0, sent: false });
        slot.0 = Some(Call { number: self.number, request, until: now.after(ANSWER_TIME), answer });
        if busy {
            self.turn = self.turn.wrapping_add(1);
            return Taken::Busy;
        }
        Taken::Open(CallId { attempt, number: self.number })
    }

    pub(super) fn respond(&mut self, id: CallId, status: u16, body: &[u8]) -> Result<(), RespondError> {
        if id.attempt != self.attempt {
            return Err(RespondError::ConnectionLost);
        }
        self.finish_sent();
        let limit = self.buffer.as_ref().len().min(PAYLOAD_MAX);
        let used = self.used();
        let mut calls = self.calls.as_mut().iter_mut().filter_map(|slot| slot.0.as_mut());
        let open = calls.find(|call| call.number == id.number && call.answer.is_none());
        let Some(call) = open else { return Err(RespondError::NotOpen) };
        if body.len() > limit {
            return Err(RespondError::TooLarge { size: body.len(), limit });
        }
        check_json(body)?;
        let free = self.buffer.as_mut().get_mut(used..).unwrap_or_default();
        if Slice::new(free).put(body).is_err() {
            return Err(RespondError::Full);
        }
        call.answer = Some(Answer { turn: self.turn, status, len: body.len(), sent: false });
        self.turn = self.turn.wrapping_add(1);
        Ok(())
    }

    /// Drops calls that have timed out, and returns their number.
    pub(super) fn expire(&mut self, now: Instant) -> u8 {
        self.forget(|call| call.answer.is_none() && call.until <= now)
    }

    /// Bytes of the body that is to be sent next.
    pub(super) fn next_len(&self) -> Option<usize> {
        let first = |answer: &Answer| answer.turn == self.first && !answer.sent;
        self.calls().filter_map(|call| call.answer).find(first).map(|answer| answer.len)
    }

    /// Returns the next answer to send: the call's id, status and body.
    pub(super) fn take_next(&mut self) -> Option<(&str, u16, &[u8])> {
        let first = self.first;
        for call in self.calls.as_mut().iter_mut().filter_map(|slot| slot.0.as_mut()) {
            if let Some(answer) = &mut call.answer
                && answer.turn == first
                && !answer.sent
            {
                // It stays until the packet is written; the next call on this table removes it.
                answer.sent = true;
                return Some((&call.request, answer.status, self.buffer.as_ref().get(..answer.len)?));
            }
        }
        None
    }

    /// Removes the answer that was sent.
    pub(super) fn finish_sent(&mut self) {
        let sent = self.calls().filter_map(|call| call.answer).find(|answer| answer.sent);
        if let Some(Answer { turn, len, .. }) = sent {
            let used = self.used();
            self.forget(|call| call.answer.is_some_and(|answer| answer.turn == turn));
            self.first = turn.wrapping_add(1);
            remove_front(self.buffer.as_mut().get_mut(..used).unwrap_or_default(), len);
        }
    }

    /// Forgets these calls, and returns how many they are.
    fn forget(&mut self, which: impl Fn(&Call) -> bool) -> u8 {
        let mut count = 0_u8;
        for slot in self.calls.as_mut() {
            if slot.0.as_ref().is_some_and(&which) {
                slot.0 = None;
                count = count.saturating_add(1);
            }
        }
        count
    }
}

/// Checks that a body is JSON or empty, as deep as this library reads.
fn check_json(body: &[u8]) -> Result<(), RespondError> {
    let mut reader = Reader::new(body);
    while !body.is_empty() {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) | Err(JsonError { problem: Problem::Depth, .. }) => break,
            Err(error) => return Err(RespondError::Json(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ORIGIN;

    type Table = Methods<[u8; 16], [CallSlot; CALLS_MAX]>;

    fn table() -> (Table, Attempt) {
        let mut methods = Methods::new([0; 16], Default::default());
        let attempt = Attempt::default().next();
        methods.connected(attempt);
        (methods, attempt)
    }

    fn open(methods: &mut Table, request: &str, attempt: Attempt) -> CallId {
        match methods.take(request, attempt, NOW) {
            Taken::Open(id) => id,
            other @ (Taken::Busy | Taken::Lost) => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_go_out_in_their_order_each_to_its_call() {
        let (mut methods, attempt) = table();
        let [a, b, c] = ["a", "b", "c"].map(|request| open(&mut methods, request, attempt));
        assert_eq!(methods.respond(c, 200, b"3"), Ok(()));
        assert_eq!(methods.respond(a, 500, b"1"), Ok(()));
        assert_eq!(methods.take_next(), Some(("c", 200, &b"3"[..])));
        assert_eq!(methods.respond(b, 204, b""), Ok(()));
        assert_eq!(methods.take_next(), Some(("a", 500, &b"1"[..])));
        methods.finish_sent();
        assert_eq!(methods.take_next(), Some(("b", 204, &b""[..])));
        methods.finish_sent();
        assert_eq!(methods.take_next(), None);
        assert_eq!(methods.respond(a, 200, b""), Err(RespondError::NotOpen));
    }

    #[test]
    fn an_answer_never_outlives_its_connection() {
        let (mut methods, attempt) = table();
        let queued = open(&mut methods, "1", attempt);
        let late = open(&mut methods, "2", attempt);
        methods.respond(queued, 200, b"4").unwrap();
        assert_eq!(methods.disconnected(), 2);
        assert_eq!(methods.respond(late, 200, b""), Err(RespondError::ConnectionLost));
        methods.connected(attempt.next());
        assert_eq!(methods.respond(late, 200, b""), Err(RespondError::ConnectionLost));
        assert_eq!(methods.take_next(), None);
        let new = open(&mut methods, "2", attempt.next());
        methods.respond(new, 200, b"5").unwrap();
        assert_eq!(methods.take_next(), Some(("2", 200, &b"5"[..])));
    }

    #[test]
    fn too_many_calls_are_answered_as_busy_and_more_are_lost() {
        let (mut methods, attempt) = table();
        let first = open(&mut methods, "0", attempt);
        for _ in 2..CALLS_MAX {
            open(&mut methods, "n", attempt);
        }
        assert_eq!(methods.take("busy", attempt, NOW), Taken::Busy);
        assert_eq!(methods.take("lost", attempt, NOW), Taken::Lost);
        assert_eq!(methods.take_next(), Some(("busy", 503, &b""[..])));
        assert_eq!(methods.take("busy again", attempt, NOW), Taken::Busy);
        methods.take_next();
        methods.respond(first, 200, b"").unwrap();
        methods.take_next();
        assert!(matches!(methods.take("fits", attempt, NOW), Taken::Open(_)));
        assert_eq!(methods.take(&"x".repeat(REQUEST_MAX + 1), attempt, NOW), Taken::Lost);
    }

    #[test]
    fn as_many_calls_are_open_as_the_frontend_has_places_for() {
        let attempt = Attempt::default().next();
        for places in [0, 1, 2, 65, 300] {
            let mut methods = Methods::new([0; 16], std::vec![CallSlot::default(); places]);
            methods.connected(attempt);
            let mut ids = std::vec::Vec::new();
            let last = loop {
                match methods.take("n", attempt, NOW) {
                    Taken::Open(id) => ids.push(id),
                    last @ (Taken::Busy | Taken::Lost) => break last,
                }
            };
            assert_eq!(ids.len(), places.saturating_sub(1));
            assert_eq!(last, if places == 0 { Taken::Lost } else { Taken::Busy });
            assert_eq!(methods.take_next().is_some(), places > 0);
            for id in &ids {
                methods.respond(*id, 200, b"1").unwrap();
                assert_eq!(methods.take_next(), Some(("n", 200, &b"1"[..])));
            }
            methods.finish_sent();
            assert_eq!((methods.used(), methods.next_len(), methods.disconnected()), (0, None, 0));
        }
    }

    #[test]
    fn a_body_has_to_fit() {
        let (mut methods, attempt) = table();
        let [a, b] = ["a", "b"].map(|request| open(&mut methods, request, attempt));
        assert_eq!(methods.respond(a, 200, &[0; 17]), Err(RespondError::TooLarge { size: 17, limit: 16 }));
        methods.respond(a, 200, &[b'1'; 12]).unwrap();
        assert_eq!(methods.respond(b, 200, &[b'2'; 5]), Err(RespondError::Full));
        methods.take_next();
        assert_eq!(methods.respond(b, 200, &[b'2'; 5]), Ok(()));
        assert_eq!(methods.take_next(), Some(("b", 200, &[b'2'; 5][..])));
    }

    #[test]
    fn a_body_that_is_no_json_is_refused_before_the_caller_sees_it() {
        let (mut methods, attempt) = table();
        let call = open(&mut methods, "a", attempt);
        for body in ["done", "{'a':1}", "[1,", "1 2", " "] {
            let refused = methods.respond(call, 200, body.as_bytes());
            assert!(matches!(refused, Err(RespondError::Json(_))), "{body:?}: {refused:?}");
        }
        // JSON deeper than the reader's limit is accepted unchecked.
        let deep = check_json(&[&[b'['; 40][..], &[b']'; 40]].concat());
        assert_eq!(deep, Ok(()));
        assert_eq!(methods.respond(call, 200, b" \"done\" "), Ok(()));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut methods, attempt) = table();
        let id = open(&mut methods, "a", attempt);
        let end = methods.deadline().unwrap();
        assert_eq!(methods.expire(end), 1);
        assert_eq!(methods.respond(id, 200, b""), Err(RespondError::NotOpen));
    }
}
