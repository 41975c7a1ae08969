//! An MQTT client of `embedded-svc` as ESP-IDF has it, over the rig: ids and acknowledgements of its own, no reasons.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use embedded_io::{ErrorKind, Read as _, Write as _};
use embedded_svc::mqtt::client::{
    Client, Connection, Details, Enqueue, ErrorType, Event, EventPayload, InitialChunkData, MessageId, QoS,
    SubsequentChunkData,
};
use rumqttc::mqttbytes::QoS as Level;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Login, Packet, PubAck, Publish, Subscribe};
use steadfast_esp32::Stream as _;
use steadfast_esp32::mqtt_client::{Clients, Inbox, Session, report};

use crate::rig::{Pipe, Shared};

/// Most bytes of a message that come in one event.
const CHUNK: usize = 4;

/// The client's ids begin here, far from the link's.
const FIRST_ID: u16 = 1000;

/// Makes clients over a rig.
pub(crate) struct FakeClients {
    net: Shared,
    /// It tells the code of a refusal.
    pub(crate) tells: Cell<bool>,
    pub(crate) made: Cell<usize>,
    refusal: Rc<Cell<Option<u8>>>,
}

impl FakeClients {
    pub(crate) fn new(net: &Shared) -> &'static Self {
        let (tells, made) = (Cell::new(true), Cell::new(0));
        Box::leak(Box::new(Self { net: Rc::clone(net), tells, made, refusal: Rc::default() }))
    }
}

impl Clients for FakeClients {
    type Client = FakeClient;
    type Inbox = FakeInbox;

    fn open(&self, session: &Session<'_>) -> Result<(FakeClient, FakeInbox), ErrorKind> {
        assert_eq!(session.port, 8883);
        self.made.set(self.made.get() + 1);
        self.refusal.set(None);
        let dialled = self.net.borrow_mut().dial(session.host);
        let pipe = dialled.ok().map(|id| Pipe { net: Rc::clone(&self.net), id });
        let mut esp = Esp {
            pipe,
            next_id: FIRST_ID,
            inbound: BytesMut::new(),
            events: VecDeque::new(),
            refusal: Rc::clone(&self.refusal),
        };
        let mut connect = Connect::new(session.client_id);
        connect.keep_alive = session.keep_alive.as_secs().try_into().unwrap();
        connect.clean_session = session.clean_session;
        connect.login = session.username.map(|username| Login {
            username: username.to_owned(),
            password: session.password.unwrap_or_default().to_owned(),
        });
        esp.write(&Packet::Connect(connect));
        let esp = Rc::new(RefCell::new(esp));
        Ok((
            FakeClient(Rc::clone(&esp)),
            FakeInbox { connection: FakeConnection(esp), bytes: Bytes(Vec::new()), ended: false },
        ))
    }

    fn refusal(&self) -> Option<u8> {
        self.refusal.get().filter(|_| self.tells.get())
    }
}

struct Esp {
    pipe: Option<Pipe>,
    next_id: u16,
    inbound: BytesMut,
    events: VecDeque<FakeEvent>,
    refusal: Rc<Cell<Option<u8>>>,
}

impl Esp {
    fn write(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, 1 << 20).unwrap();
        let written = self.pipe.as_mut().map(|pipe| pipe.write_all(&bytes));
        if !matches!(written, Some(Ok(()))) {
            self.end();
        }
    }

    fn id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    fn end(&mut self) {
        self.pipe = None;
        self.events.push_back(FakeEvent::Error("ESP_FAIL".into()));
        self.events.push_back(FakeEvent::Disconnected);
    }

    /// Makes events of what has arrived, after waiting for `limit` at most.
    fn look(&mut self, limit: Duration) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.wait_readable(limit) {
            Ok(false) => return,
            Ok(true) => {}
            Err(_) => return self.end(),
        }
        let mut space = [0; 256];
        match pipe.read(&mut space) {
            Ok(len) if len > 0 => self.inbound.extend_from_slice(&space[..len]),
            _ => return self.end(),
        }
        while let Ok(packet) = Packet::read(&mut self.inbound, 1 << 20) {
            self.take(packet);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a service sends no other packet with QoS 0 and 1")]
    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                self.events.push_back(FakeEvent::Connected(ack.session_present));
            }
            Packet::ConnAck(ack) => {
                self.refusal.set(Some(ack.code as u8));
                self.end();
            }
            Packet::PubAck(ack) => self.events.push_back(FakeEvent::Published(ack.pkid.into())),
            Packet::SubAck(ack) => self.events.push_back(FakeEvent::Subscribed(ack.pkid.into())),
            Packet::Publish(publish) => {
                if publish.qos == Level::AtLeastOnce {
                    self.write(&Packet::PubAck(PubAck::new(publish.pkid)));
                }
                let total = publish.payload.len();
                let mut topic = Some(publish.topic);
                for (number, data) in publish.payload.chunks(CHUNK).enumerate() {
                    let (topic, offset) = (topic.take(), number * CHUNK);
                    self.events.push_back(FakeEvent::Message { topic, data: data.to_vec(), offset, total });
                }
            }
            other => panic!("a service sends no {other:?}"),
        }
    }
}

pub(crate) struct FakeClient(Rc<RefCell<Esp>>);

impl ErrorType for FakeClient {
    type Error = String;
}

fn level(qos: QoS) -> Level {
    match qos {
        QoS::AtMostOnce => Level::AtMostOnce,
        QoS::AtLeastOnce => Level::AtLeastOnce,
        QoS::ExactlyOnce => Level::ExactlyOnce,
    }
}

impl Client for FakeClient {
    fn subscribe<'a>(&'a mut self, topic: &'a str, qos: QoS) -> Result<MessageId, String> {
        let mut subscribe = Subscribe::new(topic, level(qos));
        subscribe.pkid = self.0.borrow_mut().id();
        let id = subscribe.pkid;
        self.0.borrow_mut().write(&Packet::Subscribe(subscribe));
        Ok(id.into())
    }

    fn unsubscribe<'a>(&'a mut self, topic: &'a str) -> Result<MessageId, String> {
        Err(format!("nobody unsubscribes from {topic}"))
    }
}

impl Enqueue for FakeClient {
    fn enqueue<'a>(
        &'a mut self,
        topic: &'a str,
        qos: QoS,
        retain: bool,
        payload: &'a [u8],
    ) -> Result<MessageId, String> {
        let mut publish = Publish::new(topic, level(qos), payload);
        publish.retain = retain;
        publish.pkid = if qos == QoS::AtMostOnce { 0 } else { self.0.borrow_mut().id() };
        let id = publish.pkid;
        self.0.borrow_mut().write(&Packet::Publish(publish));
        Ok(id.into())
    }
}

pub(crate) struct FakeConnection(Rc<RefCell<Esp>>);

impl ErrorType for FakeConnection {
    type Error = String;
}

impl Connection for FakeConnection {
    type Event<'a> = FakeEvent;

    fn next(&mut self) -> Result<FakeEvent, String> {
        self.0.borrow_mut().events.pop_front().ok_or_else(|| "closed".to_owned())
    }
}

pub(crate) enum FakeEvent {
    Connected(bool),
    Published(MessageId),
    Subscribed(MessageId),
    Message { topic: Option<String>, data: Vec<u8>, offset: usize, total: usize },
    Error(String),
    Disconnected,
}

impl ErrorType for FakeEvent {
    type Error = String;
}

impl Event for FakeEvent {
    fn payload(&self) -> EventPayload<'_, String> {
        match self {
            Self::Connected(session_present) => EventPayload::Connected(*session_present),
            Self::Published(id) => EventPayload::Published(*id),
            Self::Subscribed(id) => EventPayload::Subscribed(*id),
            Self::Message { topic, data, offset, total } => {
                let (total_data_size, current_data_offset) = (*total, *offset);
                let details = if data.len() == *total {
                    Details::Complete
                } else if topic.is_some() {
                    Details::InitialChunk(InitialChunkData { total_data_size })
                } else {
                    Details::SubsequentChunk(SubsequentChunkData { current_data_offset, total_data_size })
                };
                EventPayload::Received { id: 0, topic: topic.as_deref(), data, details }
            }
            Self::Error(error) => EventPayload::Error(error),
            Self::Disconnected => EventPayload::Disconnected,
        }
    }
}

/// What a thread and a channel are on a chip: here the events are fetched when they are asked for.
pub(crate) struct FakeInbox {
    connection: FakeConnection,
    bytes: Bytes,
    ended: bool,
}

/// The writing end.
struct Bytes(Vec<u8>);

impl embedded_io::ErrorType for Bytes {
    type Error = ErrorKind;
}

impl embedded_io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl FakeInbox {
    fn look(&mut self, limit: Duration) {
        if self.bytes.0.is_empty() && !self.ended {
            if self.connection.0.borrow().events.is_empty() {
                self.connection.0.borrow_mut().look(limit);
            }
            while !self.ended && !self.connection.0.borrow().events.is_empty() {
                self.ended = !report(&mut self.connection, &mut self.bytes).unwrap();
            }
        }
    }
}

impl embedded_io::ErrorType for FakeInbox {
    type Error = ErrorKind;
}

impl embedded_io::Read for FakeInbox {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.look(Duration::ZERO);
        if self.bytes.0.is_empty() && !self.ended {
            return Err(ErrorKind::TimedOut);
        }
        let len = buffer.len().min(self.bytes.0.len());
        buffer[..len].copy_from_slice(&self.bytes.0[..len]);
        self.bytes.0.drain(..len);
        Ok(len)
    }
}

impl Inbox for FakeInbox {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        self.look(limit);
        Ok(!self.bytes.0.is_empty() || self.ended)
    }
}
