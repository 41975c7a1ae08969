//! Packets to bytes.

use crate::mqtt::{MAX_FIELD_LEN, MAX_REMAINING_LEN, PacketId};
use crate::text::{Counter, Sink, Slice, Text};

use super::{Connect, EncodeError, Packet, Publish, PublishText};

impl Packet<'_> {
    /// Returns the number of bytes that [`Packet::encode`] writes.
    ///
    /// # Errors
    /// Those of [`Packet::encode`] but [`EncodeError::Full`].
    pub fn encoded_len(&self) -> Result<usize, EncodeError> {
        let mut counter = Counter(0);
        self.encode(&mut counter)?;
        Ok(counter.0)
    }

    /// Writes the packet into `out`.
    ///
    /// # Errors
    /// [`EncodeError::Full`] if `out` has no room for all of it; its content is then invalid. Any other error occurs
    /// before the first byte and is permanent: the packet violates a limit or a rule of MQTT.
    pub fn encode(&self, out: &mut dyn Sink) -> Result<(), EncodeError> {
        match self {
            Self::Connect(connect) => connect.encode(out),
            Self::Publish(publish) => publish.encode(out),
            Self::PublishText(publish) => publish.encode(out),
            Self::PubAck(id) => {
                let [high, low] = id.get().to_be_bytes();
                Ok(out.put(&[PUBACK, 2, high, low])?)
            }
            Self::Subscribe(it) => encode_filter(SUBSCRIBE, it.packet_id, &it.filter, &[it.qos as u8], out),
            Self::Unsubscribe(it) => encode_filter(UNSUBSCRIBE, it.packet_id, &it.filter, &[], out),
            Self::PingReq => Ok(out.put(&[PINGREQ, 0])?),
            Self::Disconnect => Ok(out.put(&[DISCONNECT, 0])?),
        }
    }

    /// Writes the packet to the front of `buffer` and returns how many bytes it took.
    ///
    /// # Errors
    /// Those of [`Packet::encode`].
    pub fn encode_to_slice(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let mut slice = Slice::new(buffer);
        self.encode(&mut slice)?;
        Ok(slice.len())
    }
}

impl Publish<'_> {
    /// Writes all that precedes the payload to the front of `buffer` and returns how many bytes it took.
    ///
    /// Sending these and then `payload` sends the packet, without a buffer that holds both. At most 9 bytes more than
    /// the topic has.
    ///
    /// # Errors
    /// Those of [`Packet::encode`].
    pub fn head(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let mut slice = Slice::new(buffer);
        self.put_head(&mut slice)?;
        Ok(slice.len())
    }

    fn encode(&self, out: &mut dyn Sink) -> Result<(), EncodeError> {
        self.put_head(out)?;
        Ok(out.put(self.payload)?)
    }

    fn put_head(&self, out: &mut dyn Sink) -> Result<(), EncodeError> {
        let flags = u8::from(self.retain) | if self.dup { DUP } else { 0 };
        put_publish_head(&self.topic, self.packet_id, flags, self.payload.len(), out)
    }
}

impl PublishText<'_> {
    fn encode(&self, out: &mut dyn Sink) -> Result<(), EncodeError> {
        let payload = self.message.payload();
        put_publish_head(&self.message.topic(), self.packet_id, 0, payload.len(), out)?;
        Ok(payload.write(out)?)
    }
}

impl Connect<'_> {
    fn encode(&self, out: &mut dyn Sink) -> Result<(), EncodeError> {
        let client_id = self.login.client_id();
        let user_name = self.login.user_name();
        let password = self.login.password();
        let will = self.login.will();

        let client_id_len = text_len("client id", &client_id)?;
        // [MQTT-3.1.3-7]
        if client_id_len == 0 && !self.clean_session {
            return Err(EncodeError::NoClientId);
        }
        // [MQTT-3.1.2-22]
        if user_name.is_none() && password.is_some() {
            return Err(EncodeError::NoUserName);
        }
        let mut flags = if self.clean_session { CLEAN_SESSION } else { 0 };
        let mut remaining = CONNECT_FIXED.saturating_add(usize::from(client_id_len));
        let mut count = |len: u16| remaining = remaining.saturating_add(LEN_FIELD).saturating_add(usize::from(len));

        let (mut will_topic_len, mut will_payload_len) = (0, 0);
        if let Some(will) = &will {
            // Section 3.1.2.6: the level stands in bits 3 and 4.
            flags |= WILL | (will.qos as u8) << 3 | if will.retain { WILL_RETAIN } else { 0 };
            will_topic_len = text_len("will topic", &will.topic)?;
            will_payload_len = field_len("will payload", will.payload.len())?;
            count(will_topic_len);
            count(will_payload_len);
        }
        let (mut user_name_len, mut password_len) = (0, 0);
        if let Some(user_name) = &user_name {
            flags |= USER_NAME;
            user_name_len = text_len("user name", user_name)?;
            count(user_name_len);
        }
        if let Some(password) = &password {
            flags |= PASSWORD;
            password_len = text_len("password", password)?;
            count(password_len);
        }

        put_header(CONNECT, remaining, PROTOCOL_LEN, out)?;
        let [high, low] = self.keep_alive_secs.to_be_bytes();
        let [p, q, r, s] = PROTOCOL;
        out.put(&[p, q, r, s, PROTOCOL_LEVEL, flags, high, low])?;
        // [MQTT-3.1.3-1]: the order of the fields.
        put_text(client_id_len, &client_id, out)?;
        if let Some(will) = &will {
            put_text(will_topic_len, &will.topic, out)?;
            out.put(&will_payload_len.to_be_bytes())?;
            out.put(will.payload)?;
        }
        if let Some(user_name) = &user_name {
            put_text(user_name_len, user_name, out)?;
        }
        if let Some(password) = &password {
            put_text(password_len, password, out)?;
        }
        Ok(())
    }
}

/// Writes the part of a PUBLISH before its payload.
fn put_publish_head(
    topic: &Text<'_>,
    packet_id: Option<PacketId>,
    flags: u8,
    payload_len: usize,
    out: &mut dyn Sink,
) -> Result<(), EncodeError> {
    let topic_len = text_len("topic", topic)?;
    let mut first = PUBLISH | flags & !DUP;
    let mut remaining = usize::from(topic_len).saturating_add(LEN_FIELD).saturating_add(payload_len);
    let mut id = [0; 2];
    let mut id_len = 0;
    if let Some(packet_id) = packet_id {
        // [MQTT-2.3.1-5]: a packet id is there with QoS 1 and only then; [MQTT-3.3.1-2]: so is DUP.
        first |= QOS_1 | flags;
        id = packet_id.get().to_be_bytes();
        id_len = id.len();
        remaining = remaining.saturating_add(id_len);
    }
    put_header(first, remaining, topic_len, out)?;
    topic.write(out)?;
    Ok(out.put(id.get(..id_len).unwrap_or(&[]))?)
}

fn encode_filter(
    first: u8,
    packet_id: PacketId,
    filter: &Text<'_>,
    qos: &[u8],
    out: &mut dyn Sink,
) -> Result<(), EncodeError> {
    let len = text_len("filter", filter)?;
    let remaining = usize::from(len).saturating_add(LEN_FIELD + PACKET_ID).saturating_add(qos.len());
    put_header(first, remaining, packet_id.get(), out)?;
    put_text(len, filter, out)?;
    Ok(out.put(qos)?)
}

/// Writes the fixed header (section 2.2) and the 16-bit number that follows it in every packet with a body.
fn put_header(first: u8, remaining: usize, number: u16, out: &mut dyn Sink) -> Result<(), EncodeError> {
    if remaining > MAX_REMAINING_LEN {
        return Err(EncodeError::TooLong { what: "packet", size: remaining, limit: MAX_REMAINING_LEN });
    }
    // The first byte, at most four of the length, two of the number.
    let mut header = [0; 7];
    let mut used = 0_usize;
    let mut places = header.iter_mut();
    let mut push = |byte: u8| {
        if let Some(place) = places.next() {
            *place = byte;
            used = used.wrapping_add(1);
        }
    };
    push(first);
    let mut rest = remaining;
    loop {
        let low = rest.to_le_bytes()[0] & 0x7f;
        rest >>= 7;
        if rest == 0 {
            push(low);
            break;
        }
        push(low | 0x80);
    }
    let [high, low] = number.to_be_bytes();
    push(high);
    push(low);
    Ok(out.put(header.get(..used).unwrap_or(&header))?)
}

fn put_text(len: u16, text: &Text<'_>, out: &mut dyn Sink) -> Result<(), EncodeError> {
    out.put(&len.to_be_bytes())?;
    Ok(text.write(out)?)
}

fn text_len(what: &'static str, text: &Text<'_>) -> Result<u16, EncodeError> {
    field_len(what, text.len())
}

fn field_len(what: &'static str, size: usize) -> Result<u16, EncodeError> {
    u16::try_from(size).map_err(|_| EncodeError::TooLong { what, size, limit: MAX_FIELD_LEN })
}

// First bytes: type and flags (sections 2.2.1 and 2.2.2). [MQTT-3.8.1-1] and [MQTT-3.10.1-1] ask for 0b0010 in
// SUBSCRIBE and UNSUBSCRIBE.
const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const UNSUBSCRIBE: u8 = 0xa2;
const PINGREQ: u8 = 0xc0;
const DISCONNECT: u8 = 0xe0;

// Flags of PUBLISH (section 3.3.1).
const DUP: u8 = 0x08;
const QOS_1: u8 = 0x02;

// Flags of CONNECT (section 3.1.2.3).
const CLEAN_SESSION: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

// Protocol name and level of 3.1.1 (sections 3.1.2.1 and 3.1.2.2).
const PROTOCOL: [u8; 4] = *b"MQTT";
const PROTOCOL_LEN: u16 = 4;
const PROTOCOL_LEVEL: u8 = 4;

/// The length in front of a string (section 1.5.3).
const LEN_FIELD: usize = 2;
/// A packet id (section 2.3.1).
const PACKET_ID: usize = 2;
/// Protocol name, level, flags, keep-alive and the length of the client id (sections 3.1.2 and 3.1.3).
const CONNECT_FIXED: usize = 2 + 4 + 1 + 1 + 2 + 2;
