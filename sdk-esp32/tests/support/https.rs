//! A network whose HTTP client has the habits of ESP-IDF's, and troubles by the number of a request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use embedded_io::{ErrorKind, ErrorType};
use embedded_svc::http::client::asynch::Connection as AsyncConnection;
use embedded_svc::http::client::{Connection, Headers, Method, Status};
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::{Failure, Instant, ServiceKind, SignRequest};
use steadfast_esp32::Board;
use steadfast_esp32::upload::HttpRequest;
use steadfast_esp32::upload::embedded_svc::{AsyncConnections, Connections};
use steadfast_sim::uploads::CloudHub;

pub(crate) const HUB: &str = "hub-a.example";

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No connection comes about.
    Refused,
    /// The connection breaks while the body is written.
    BreaksWhileWriting,
    /// It breaks before the answer, which the service has given.
    BreaksBeforeAnswer,
    /// It breaks in the middle of the answer's body.
    BreaksWhileReading,
    /// The service answers this and asks for patience.
    Busy(u16, &'static str),
    /// The storage answers this, with a body longer than any buffer.
    Wordy(u16),
}

pub(crate) struct State {
    pub(crate) now_ms: u64,
    pub(crate) clock_set: bool,
    pub(crate) cloud: CloudHub,
    pub(crate) trouble: BTreeMap<usize, Trouble>,
    pub(crate) requests: Vec<String>,
    pub(crate) opened: u32,
    pub(crate) tokens: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Net(pub(crate) Rc<RefCell<State>>);

impl Net {
    pub(crate) fn new(trouble: impl IntoIterator<Item = (usize, Trouble)>) -> Self {
        Self(Rc::new(RefCell::new(State {
            now_ms: 0,
            clock_set: true,
            cloud: CloudHub::new(0),
            trouble: trouble.into_iter().collect(),
            requests: Vec::new(),
            opened: 0,
            tokens: Vec::new(),
        })))
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.borrow())
    }

    fn open(&self, request: &HttpRequest<'_>) -> Result<Line, Failure> {
        let mut state = self.0.borrow_mut();
        assert!(!request.client_certificate || request.to_hub, "the certificate is for the hub");
        if state.trouble.get(&state.requests.len()) == Some(&Trouble::Refused) {
            state.requests.push(String::from("refused"));
            return Err(Failure::ConnectionRefused);
        }
        state.opened += 1;
        Ok(Line { net: self.clone(), shown: request.client_certificate, ..Line::closed(self.clone()) })
    }
}

impl Board for Net {
    fn now(&self) -> Instant {
        Instant::from_millis(self.0.borrow().now_ms)
    }

    fn unix_secs(&self) -> Option<u64> {
        self.look(|state| state.clock_set.then_some(1_780_000_000 + state.now_ms / 1_000))
    }

    fn sign(&mut self, request: SignRequest<'_>) -> Result<[u8; 32], Failure> {
        assert_eq!(request.role, ServiceKind::Hub);
        Ok(SymmetricKey::from_bytes(b"0123456789abcdef").unwrap().sign(&request.text))
    }

    fn sleep(&mut self, span: Duration) {
        self.0.borrow_mut().now_ms += u64::try_from(span.as_millis()).unwrap();
    }
}

impl Connections for Net {
    type Connection = Line;

    fn open(&mut self, request: &HttpRequest<'_>) -> Result<Line, Failure> {
        Self::open(self, request)
    }
}

impl AsyncConnections for Net {
    type Connection = Line;

    async fn open(&mut self, request: &HttpRequest<'_>) -> Result<Line, Failure> {
        Self::open(self, request)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Request,
    Response,
}

/// A connection with the habits of ESP-IDF's: headers stay from one request to the next, and a call in the wrong phase is
/// the end of the program.
pub(crate) struct Line {
    net: Net,
    shown: bool,
    phase: Phase,
    number: usize,
    url: String,
    headers: BTreeMap<String, String>,
    sent: Vec<u8>,
    status: u16,
    retry_after: Option<&'static str>,
    answer: Vec<u8>,
    broken: bool,
}

impl Line {
    fn closed(net: Net) -> Self {
        Self {
            net,
            shown: false,
            phase: Phase::New,
            number: 0,
            url: String::new(),
            headers: BTreeMap::new(),
            sent: Vec::new(),
            status: 0,
            retry_after: None,
            answer: Vec::new(),
            broken: false,
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        self.net.look(|state| state.trouble.get(&self.number).copied())
    }

    fn begin(&mut self, method: Method, url: &str, headers: &[(&str, &str)]) {
        assert!(self.phase != Phase::Request && !self.broken, "a request before the last one ended");
        let mut state = self.net.0.borrow_mut();
        self.number = state.requests.len();
        let path = url.split_once(".example").unwrap().1.split('?').next().unwrap();
        state.requests.push(format!("{method:?} {path}"));
        for (name, value) in headers {
            assert!(!name.is_empty());
            self.headers.insert(name.to_ascii_lowercase(), (*value).to_owned());
        }
        url.clone_into(&mut self.url);
        self.sent.clear();
        self.phase = Phase::Request;
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        assert_eq!(self.phase, Phase::Request);
        if self.trouble() == Some(Trouble::BreaksWhileWriting) {
            self.broken = true;
            return Err(ErrorKind::ConnectionReset);
        }
        let len = bytes.len().min(100);
        self.sent.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn respond(&mut self) -> Result<(), ErrorKind> {
        assert_eq!(self.phase, Phase::Request);
        assert_eq!(self.headers["content-length"], self.sent.len().to_string());
        let mut state = self.net.0.borrow_mut();
        let (host, path) = self.url.strip_prefix("https://").unwrap().split_once('/').unwrap();
        let authorization = self.headers.get("authorization");
        if host == HUB {
            match authorization {
                Some(token) => state.tokens.push(token.clone()),
                None => assert!(self.shown, "the hub wants a proof"),
            }
            assert_eq!(self.headers["content-type"], "application/json; charset=utf-8");
        } else {
            assert!(authorization.is_none() && !self.shown, "the device's proofs are not for the storage");
        }
        let whole = host != HUB && !path.contains("comp=");
        assert_eq!(self.headers.contains_key("x-ms-blob-type"), whole, "{path}");
        let now_secs = state.now_ms / 1_000;
        let trouble = state.trouble.get(&self.number).copied();
        (self.status, self.answer) = match trouble {
            Some(Trouble::Busy(status, retry_after)) => {
                self.retry_after = Some(retry_after);
                (status, vec![])
            }
            Some(Trouble::Wordy(status)) => (status, vec![b'x'; 10_000]),
            _ => state.cloud.take(host, &format!("/{path}"), &self.sent, now_secs).expect("a request of an upload"),
        };
        if trouble == Some(Trouble::BreaksBeforeAnswer) {
            self.broken = true;
            return Err(ErrorKind::TimedOut);
        }
        self.phase = Phase::Response;
        Ok(())
    }

    fn get(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        assert_eq!(self.phase, Phase::Response);
        if self.trouble() == Some(Trouble::BreaksWhileReading) {
            self.broken = true;
            return Err(ErrorKind::ConnectionReset);
        }
        let len = buffer.len().min(self.answer.len()).min(60);
        buffer[..len].copy_from_slice(&self.answer[..len]);
        self.answer.drain(..len);
        Ok(len)
    }
}

impl ErrorType for Line {
    type Error = ErrorKind;
}

impl embedded_io::Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.get(buffer)
    }
}

impl embedded_io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.put(bytes)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl embedded_io_async::Read for Line {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.get(buffer)
    }
}

impl embedded_io_async::Write for Line {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.put(bytes)
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Status for Line {
    fn status(&self) -> u16 {
        assert_eq!(self.phase, Phase::Response);
        self.status
    }

    fn status_message(&self) -> Option<&str> {
        None
    }
}

impl Headers for Line {
    fn header(&self, name: &str) -> Option<&str> {
        self.retry_after.filter(|_| name.eq_ignore_ascii_case("retry-after"))
    }
}

impl Connection for Line {
    type Headers = Self;
    type Read = Self;
    type RawConnectionError = ErrorKind;
    type RawConnection = Self;

    fn initiate_request<'a>(
        &'a mut self,
        method: Method,
        uri: &'a str,
        headers: &'a [(&'a str, &'a str)],
    ) -> Result<(), ErrorKind> {
        self.begin(method, uri, headers);
        Ok(())
    }

    fn is_request_initiated(&self) -> bool {
        self.phase == Phase::Request
    }

    fn initiate_response(&mut self) -> Result<(), ErrorKind> {
        self.respond()
    }

    fn is_response_initiated(&self) -> bool {
        self.phase == Phase::Response
    }

    fn split(&mut self) -> (&Self, &mut Self) {
        panic!("nobody asks for both halves")
    }

    fn raw_connection(&mut self) -> Result<&mut Self, ErrorKind> {
        Ok(self)
    }
}

impl AsyncConnection for Line {
    type Headers = Self;
    type Read = Self;
    type RawConnectionError = ErrorKind;
    type RawConnection = Self;

    async fn initiate_request(&mut self, method: Method, uri: &str, headers: &[(&str, &str)]) -> Result<(), ErrorKind> {
        self.begin(method, uri, headers);
        Ok(())
    }

    fn is_request_initiated(&self) -> bool {
        self.phase == Phase::Request
    }

    async fn initiate_response(&mut self) -> Result<(), ErrorKind> {
        self.respond()
    }

    fn is_response_initiated(&self) -> bool {
        self.phase == Phase::Response
    }

    fn split(&mut self) -> (&Self, &mut Self) {
        panic!("nobody asks for both halves")
    }

    fn raw_connection(&mut self) -> Result<&mut Self, ErrorKind> {
        Ok(self)
    }
}
