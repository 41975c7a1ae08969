//! Registration over HTTPS: what the link says by MQTT to the Device Provisioning Service is said by HTTP, and what the
//! service answers comes back as it would by MQTT.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use steadfast_core::azure::sas::Resource;
use steadfast_core::dps::https::{self, Attestation, Request as Asked, Step};
use steadfast_core::{Failure, LocalFailure, ProvisioningFailure, ServiceKind, SignRequest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use zeroize::Zeroizing;

use crate::clock;
use crate::connector::Setup;
use crate::http::{Answer, Request, Way};
use crate::tokens;
use crate::tpm::Tpm;

/// Bytes on their way between the link and here.
const ROOM: usize = 16 * 1024;

/// Longest packet of the link: a registration and its payload.
const LONGEST: usize = 128 * 1024;

/// Who registers.
pub(crate) struct Registrar {
    pub(crate) id_scope: Box<str>,
    pub(crate) registration_id: Box<str>,
    pub(crate) tpm: Option<Arc<dyn Tpm>>,
}

/// What the link takes for a connection of MQTT.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) stream: DuplexStream,
    /// Why the other end is gone, where more is known than that it is.
    told: Arc<OnceLock<Failure>>,
}

impl Line {
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(match self.told.get() {
            Some(failure) if buffer.filled().len() == before => Err(io::Error::other(*failure)),
            _ => Ok(()),
        })
    }
}

/// Connects to the service at `host`.
pub(crate) async fn open(setup: Arc<Setup>, host: String, shown: bool) -> Result<Line, Failure> {
    let mut way = Way::to(&host).ok_or(Failure::Unresolved)?;
    way.open(&setup, shown).await?;
    let (stream, service) = duplex(ROOM);
    let told = Arc::new(OnceLock::new());
    let line = Line { stream, told: Arc::clone(&told) };
    tokio::spawn(async move {
        let (token, attestation) = (Zeroizing::default(), Attestation::new());
        let mut dialogue = Dialogue { setup, way, shown, token, attestation, service, told };
        // An end without an answer is the end of the connection, which the link notices.
        if let Err(error) = dialogue.run().await {
            tracing::debug!(%error, "the registration ended");
        }
    });
    Ok(line)
}

/// A dialogue under way.
struct Dialogue {
    setup: Arc<Setup>,
    way: Way,
    shown: bool,
    /// The password of CONNECT, a token that is as good here, or the one the TPM signed.
    token: Zeroizing<String>,
    attestation: Attestation,
    service: DuplexStream,
    told: Arc<OnceLock<Failure>>,
}

impl Dialogue {
    /// Takes the link's packets to the end of them (MQTT 3.1.1, section 3).
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let first = self.service.read_u8().await?;
            let mut packet = Zeroizing::new(vec![0; self.length().await?]);
            self.service.read_exact(&mut packet).await?;
            match first >> 4 {
                1 => {
                    self.token = Zeroizing::new(password(&packet).unwrap_or_default().into());
                    self.service.write_all(&[0x20, 2, 0, 0]).await?;
                }
                3 => self.publish(first, &packet).await?,
                8 if packet.len() > 2 => self.service.write_all(&[0x90, 3, packet[0], packet[1], 1]).await?,
                12 => self.service.write_all(&[0xd0, 0]).await?,
                4 => {}
                _ => return Ok(()),
            }
        }
    }

    async fn length(&mut self) -> io::Result<usize> {
        let mut length = 0;
        for place in 0..4 {
            let byte = self.service.read_u8().await?;
            length |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
        if length > LONGEST { Err(io::ErrorKind::InvalidData.into()) } else { Ok(length) }
    }

    /// Asks what a publish asks, and publishes the answer.
    async fn publish(&mut self, first: u8, packet: &[u8]) -> io::Result<()> {
        let Some((topic, mut rest)) = field(packet) else { return Err(io::ErrorKind::InvalidData.into()) };
        if first & 6 != 0
            && let Some((id, behind)) = rest.split_at_checked(2)
        {
            self.service.write_all(&[0x40, 2, id[0], id[1]]).await?;
            rest = behind;
        }
        let Some(asked) = Asked::parse(topic) else { return Ok(()) };
        self.attestation.begin(&asked);
        let (request_id, answer) = match asked {
            Asked::Register { request_id } => (request_id, self.register(rest).await),
            Asked::Poll { request_id, operation_id } => (request_id, self.poll(operation_id).await),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                tracing::warn!(device = %self.setup.name, %failure, "no answer to the registration");
                if matches!(failure, Failure::Local(_) | Failure::Provisioning(_)) {
                    let _ = self.told.set(failure);
                }
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        };
        let topic = https::response_topic(answer.status, request_id, answer.retry_after_secs).to_string();
        let mut publish = vec![0x30];
        let mut length = 2 + topic.len() + answer.body.len();
        loop {
            let more = length > 0x7f;
            publish.push(u8::try_from(length & 0x7f).unwrap_or_default() | if more { 0x80 } else { 0 });
            length >>= 7;
            if !more {
                break;
            }
        }
        publish.extend_from_slice(&u16::try_from(topic.len()).unwrap_or_default().to_be_bytes());
        publish.extend_from_slice(topic.as_bytes());
        publish.extend_from_slice(&answer.body);
        self.service.write_all(&publish).await
    }

    async fn register(&mut self, body: &[u8]) -> Result<Answer, Failure> {
        let Some(tpm) = self.tpm() else {
            let body = Bytes::copy_from_slice(body);
            return self.put(&body).await;
        };
        let keys = tpm.keys().await.map_err(|error| self.told(&error))?;
        let [endorsement, storage] = [&keys.endorsement_key, &keys.storage_root_key].map(|key| STANDARD.encode(key));
        let body = std::str::from_utf8(body).map_err(|_| Failure::Local(LocalFailure::Buffer))?;
        let whole = Bytes::from(https::tpm_body(body, &endorsement, &storage).to_string());
        loop {
            let answer = self.put(&whole).await?;
            match self.attestation.judge(answer.status, &answer.body) {
                Step::RegisterAgain(wrapped) => {
                    self.activate(&*tpm, ServiceKind::Provisioning, wrapped).await?;
                    self.token = self.sign(&*tpm).await?;
                }
                Step::TakeHubKey(wrapped) => {
                    self.activate(&*tpm, ServiceKind::Hub, wrapped).await?;
                    return Ok(answer);
                }
                Step::Answer => return Ok(answer),
            }
        }
    }

    async fn poll(&mut self, operation_id: &str) -> Result<Answer, Failure> {
        let operation_id = decoded(operation_id);
        let Some(Registrar { id_scope, registration_id, .. }) = self.registrar() else {
            return Err(Failure::Local(LocalFailure::Credential));
        };
        let path = https::operation_path(id_scope, registration_id, &operation_id).to_string();
        let answer = self.send(Method::GET, path, &Bytes::new()).await?;
        if let Some(tpm) = self.tpm()
            && let Step::TakeHubKey(wrapped) = self.attestation.judge(answer.status, &answer.body)
        {
            // The link goes to its hub when it has the answer, and needs the key then.
            self.activate(&*tpm, ServiceKind::Hub, wrapped).await?;
        }
        Ok(answer)
    }

    async fn put(&mut self, body: &Bytes) -> Result<Answer, Failure> {
        let Some(Registrar { id_scope, registration_id, .. }) = self.registrar() else {
            return Err(Failure::Local(LocalFailure::Credential));
        };
        let path = https::register_path(id_scope, registration_id).to_string();
        self.send(Method::PUT, path, body).await
    }

    async fn send(&mut self, method: Method, path: String, body: &Bytes) -> Result<Answer, Failure> {
        let mut request = Request::new(method, path)
            .header("content-type", "application/json; charset=utf-8")
            .header("accept", "application/json")
            .header("user-agent", concat!("steadfast/", env!("CARGO_PKG_VERSION")));
        let bare = self.tpm().is_some() && !self.attestation.has_token();
        if !bare && !self.token.is_empty() {
            request = request.header("authorization", self.token.as_str());
        }
        self.way.send(&self.setup, self.shown, &request, body).await
    }

    async fn activate(&self, tpm: &dyn Tpm, role: ServiceKind, wrapped: &str) -> Result<(), Failure> {
        let wrapped = STANDARD.decode(wrapped).map_err(|_| Failure::Provisioning(ProvisioningFailure::BadAnswer))?;
        tpm.activate(role, wrapped).await.map_err(|error| self.told(&error))
    }

    async fn sign(&self, tpm: &dyn Tpm) -> Result<Zeroizing<String>, Failure> {
        let Some(Registrar { id_scope, registration_id, .. }) = self.registrar() else {
            return Err(Failure::Local(LocalFailure::Credential));
        };
        let resource = Resource::Registration { id_scope, registration_id };
        let expiry = clock::unix_secs() + https::TOKEN_LIFETIME.as_secs();
        let request = SignRequest::new(ServiceKind::Provisioning, 0, resource.string_to_sign(expiry));
        let signature = tpm.sign(request).await.map_err(|error| self.told(&error))?;
        Ok(tokens::written(&resource.token(&signature, expiry)))
    }

    fn told(&self, error: &crate::signer::SignError) -> Failure {
        tracing::error!(device = %self.setup.name, %error, "the TPM failed");
        error.failure()
    }

    fn tpm(&self) -> Option<Arc<dyn Tpm>> {
        self.registrar()?.tpm.clone()
    }

    fn registrar(&self) -> Option<&Registrar> {
        self.setup.registrar.as_deref()
    }
}

/// Takes a field with two bytes of length before it.
fn field(packet: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = packet.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// Returns the password of a CONNECT (MQTT 3.1.1, section 3.1): protocol, level, flags and keep-alive, then client id, user
/// name and password. The link sends no will.
fn password(connect: &[u8]) -> Option<&str> {
    let (_, rest) = field(connect)?;
    let (head, rest) = rest.split_at_checked(4)?;
    if head[1] & 0xc4 != 0xc0 {
        return None;
    }
    let (_, rest) = field(rest)?;
    let (_, rest) = field(rest)?;
    field(rest).map(|(password, _)| password)
}

/// Decodes percent-encoding of the link's own.
fn decoded(text: &str) -> String {
    let bytes: Vec<u8> = steadfast_core::iothub::property_bag::Encoded::new(text).bytes().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_connect_is_the_token() {
        let connect = b"\x00\x04MQTT\x04\xc2\x00\xf0\x00\x01c\x00\x01u\x00\x03tok";
        assert_eq!(password(connect), Some("tok"));
        assert_eq!(password(b"\x00\x04MQTT\x04\x02\x00\xf0\x00\x01c"), None);
        for end in 0..connect.len() {
            assert_ne!(password(&connect[..end]), Some("tok"));
        }
    }

    #[test]
    fn what_the_link_encodes_is_decoded() {
        assert_eq!(decoded("4.d0%2Fa6"), "4.d0/a6");
    }
}
