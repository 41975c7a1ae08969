//! A TLS 1.3 server that is nobody: it completes the key exchange and its side of the handshake, and shows no certificate.
//!
//! Whoever sits on the wire can do that. A client that only checks the certificates that come would take it.

use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::{aead, digest, hmac, rand};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const HASH_BYTES: usize = 32;

/// Kinds of records.
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// A listener for one client.
pub(crate) struct Impostor {
    /// Where it listens, on this host.
    pub(crate) port: u16,
    task: JoinHandle<Result<bool, String>>,
}

impl Impostor {
    pub(crate) async fn listen() -> Result<Self, String> {
        let text = |error: std::io::Error| format!("impostor: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(text)?;
        let port = listener.local_addr().map_err(text)?.port();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.map_err(text)?;
            serve(stream).await
        });
        Ok(Self { port, task })
    }

    /// Returns whether a client came and completed its side of the handshake: then the keys were right, and all that was
    /// wrong is that nobody knows who the server is.
    pub(crate) async fn completed(self) -> Result<bool, String> {
        if !self.task.is_finished() {
            self.task.abort();
            return Ok(false);
        }
        self.task.await.map_err(|error| format!("impostor: {error}"))?
    }
}

async fn serve(mut stream: TcpStream) -> Result<bool, String> {
    let (_, client_hello) = read_record(&mut stream).await.ok_or("impostor: no ClientHello")?;
    let (session, peer_key) = parse(&client_hello).ok_or("impostor: a ClientHello without a key on P-256")?;

    let random = rand::SystemRandom::new();
    let failed = |_| "impostor: the key exchange failed";
    let key = EphemeralPrivateKey::generate(&ECDH_P256, &random).map_err(failed)?;
    let public = key.compute_public_key().map_err(failed)?;
    let server_hello = server_hello(session, public.as_ref());
    let mut transcript = [client_hello.as_slice(), &server_hello].concat();

    let empty = digest::digest(&digest::SHA256, b"");
    let early = Salt::new(HKDF_SHA256, &[0; HASH_BYTES]).extract(&[0; HASH_BYTES]);
    let derived = expand(&early, "derived", empty.as_ref(), HASH_BYTES)?;
    let peer_key = UnparsedPublicKey::new(&ECDH_P256, peer_key);
    let secret = agree_ephemeral(key, &peer_key, |shared| Salt::new(HKDF_SHA256, &derived).extract(shared));
    let secret = secret.map_err(failed)?;
    let traffic = expand(&secret, "s hs traffic", hash(&transcript).as_ref(), HASH_BYTES)?;
    let traffic = Prk::new_less_safe(HKDF_SHA256, &traffic);

    // EncryptedExtensions without any, then Finished: no Certificate, no CertificateVerify.
    let mut flight = vec![8, 0, 0, 2, 0, 0];
    transcript.extend(&flight);
    let finished = expand(&traffic, "finished", &[], HASH_BYTES)?;
    let finished = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &finished), hash(&transcript).as_ref());
    flight.extend([20, 0, 0, 32]);
    flight.extend(finished.as_ref());

    let mut answer = record(HANDSHAKE, &server_hello);
    answer.extend(seal(&traffic, flight)?);
    stream.write_all(&answer).await.map_err(|error| format!("impostor: {error}"))?;
    // Its Finished is encrypted; an alert or the end says that it did not get there.
    Ok(matches!(read_record(&mut stream).await, Some((APPLICATION_DATA, _))))
}

async fn read_record(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await.ok()?;
    let [kind, _, _, high, low] = header;
    let mut body = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    stream.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 3];
    record.extend(length(body.len()));
    record.extend(body);
    record
}

/// Lengths here are far below what two bytes hold.
fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

/// Returns the session id and the key on P-256 of a ClientHello.
fn parse(hello: &[u8]) -> Option<(&[u8], &[u8])> {
    // Header of the message, version, random.
    let rest = hello.get(4 + 2 + 32..)?;
    let (session, rest) = take(rest, 1)?;
    let (_suites, rest) = take(rest, 2)?;
    let (_compression, rest) = take(rest, 1)?;
    let (mut extensions, _) = take(rest, 2)?;
    while let Some((kind, rest)) = extensions.split_at_checked(2) {
        let (body, rest) = take(rest, 2)?;
        extensions = rest;
        if kind == [0, 51] {
            let (mut shares, _) = take(body, 2)?;
            while let Some((group, rest)) = shares.split_at_checked(2) {
                let (key, rest) = take(rest, 2)?;
                shares = rest;
                if group == [0, 23] {
                    return Some((session, key));
                }
            }
        }
    }
    None
}

/// Takes a part whose length stands before it in `bytes` bytes.
fn take(from: &[u8], bytes: usize) -> Option<(&[u8], &[u8])> {
    let (len, rest) = from.split_at_checked(bytes)?;
    rest.split_at_checked(len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
}

fn server_hello(session: &[u8], key: &[u8]) -> Vec<u8> {
    // supported_versions: TLS 1.3; key_share: P-256.
    let mut extensions = vec![0, 43, 0, 2, 3, 4, 0, 51];
    extensions.extend(length(key.len() + 4));
    extensions.extend([0, 23]);
    extensions.extend(length(key.len()));
    extensions.extend(key);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(u8::try_from(session.len()).unwrap_or(u8::MAX));
    body.extend(session);
    // TLS_AES_128_GCM_SHA256, no compression.
    body.extend([0x13, 0x01, 0]);
    body.extend(length(extensions.len()));
    body.extend(extensions);
    let mut message = vec![2, 0];
    message.extend(length(body.len()));
    message.extend(body);
    message
}

fn hash(transcript: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, transcript)
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label of RFC 8446, section 7.1.
fn expand(secret: &Prk, label: &str, context: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let part = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
    let (wanted, label_len, context_len) = (length(len), [part(label.len() + 6)], [part(context.len())]);
    let info = [wanted.as_slice(), &label_len, b"tls13 ", label.as_bytes(), &context_len, context];
    let mut bytes = vec![0; len];
    let expanded = secret.expand(&info, Len(len)).and_then(|material| material.fill(&mut bytes));
    expanded.map(|()| bytes).map_err(|_| "impostor: no key could be derived".into())
}

/// Returns the first encrypted record, with handshake messages in it.
fn seal(traffic: &Prk, mut messages: Vec<u8>) -> Result<Vec<u8>, String> {
    let failed = |_| "impostor: the record was not encrypted";
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, &expand(traffic, "key", &[], 16)?).map_err(failed)?;
    let nonce = aead::Nonce::try_assume_unique_for_key(&expand(traffic, "iv", &[], 12)?).map_err(failed)?;
    messages.push(HANDSHAKE);
    let mut sealed = vec![APPLICATION_DATA, 3, 3];
    sealed.extend(length(messages.len() + aead::AES_128_GCM.tag_len()));
    let header = aead::Aad::from(sealed.clone());
    aead::LessSafeKey::new(key).seal_in_place_append_tag(nonce, header, &mut messages).map_err(failed)?;
    sealed.extend(messages);
    Ok(sealed)
}
