//! MQTT 3.1.1 packets, written by hand to keep the differences that a codec would remove.

/// The fields of a CONNECT.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connect {
    pub(crate) client_id: String,
    pub(crate) user_name: String,
    /// None omits flag and field; an empty value is a field of zero bytes.
    pub(crate) password: Option<String>,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    /// Topic and body of a will at QoS 1.
    pub(crate) will: Option<(String, String)>,
}

impl Connect {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut flags = 0x80;
        let mut fields = text(&self.client_id);
        if self.clean {
            flags |= 0x02;
        }
        if let Some((topic, body)) = &self.will {
            flags |= 0x04 | 0x08;
            fields.extend([text(topic), text(body)].concat());
        }
        fields.extend(text(&self.user_name));
        if let Some(password) = &self.password {
            flags |= 0x40;
            fields.extend(text(password));
        }
        let head = [&text("MQTT")[..], &[4, flags], &self.keep_alive.to_be_bytes()].concat();
        packet(0x10, &[head, fields].concat())
    }
}

pub(crate) fn subscribe(id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let filters = filters.iter().flat_map(|(filter, qos)| [text(filter), vec![*qos]].concat());
    packet(0x82, &id.to_be_bytes().into_iter().chain(filters).collect::<Vec<u8>>())
}

pub(crate) fn unsubscribe(id: u16, filter: &str) -> Vec<u8> {
    packet(0xa2, &[&id.to_be_bytes()[..], &text(filter)].concat())
}

/// A PUBLISH at QoS 1 where `id` is not 0.
pub(crate) fn publish(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let id = if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    packet(if id.is_empty() { 0x30 } else { 0x32 }, &[&text(topic)[..], &id, payload].concat())
}

pub(crate) fn puback(id: u16) -> Vec<u8> {
    packet(0x40, &id.to_be_bytes())
}

pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = rest.len();
    loop {
        let part = u8::try_from(length % 128).unwrap();
        length /= 128;
        bytes.push(if length > 0 { part | 0x80 } else { part });
        if length == 0 {
            break;
        }
    }
    [bytes, rest.to_vec()].concat()
}
