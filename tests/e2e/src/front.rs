//! Doors in front of a service: one that speaks WebSockets, and an HTTP proxy.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::{DPS_HOST, HUB_A, HUB_B, Scene};

/// Speaks WebSockets over TLS to devices, and plain MQTT over TLS to the emulator of a scene.
#[derive(Debug)]
pub struct WebSocketFront {
    /// Where it listens, for every name of the scene.
    pub address: SocketAddr,
    /// The authority of its certificate.
    pub ca_pem: String,
    paths: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl WebSocketFront {
    /// Opens the door.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn of(scene: &Scene) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (ca_pem, config) = server_config();
        let acceptor = TlsAcceptor::from(config);
        let connector = TlsConnector::from(client_config(scene.emulator.ca_pem()));
        let mut targets = HashMap::from([(DPS_HOST.to_owned(), scene.emulator.dps().addr())]);
        targets.extend(scene.emulator.hubs().iter().map(|hub| (hub.clone(), scene.emulator.hub(hub).addr())));
        let (targets, paths) = (Arc::new(targets), Arc::<Mutex<Vec<String>>>::default());
        let noted = Arc::clone(&paths);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let serve = serve(near, acceptor.clone(), connector.clone(), Arc::clone(&targets), Arc::clone(&noted));
                // What breaks off is what the test is about.
                tokio::spawn(async move { drop(serve.await) });
            }
        });
        Self { address, ca_pem, paths, task }
    }

    /// Returns the host and the path of each upgrade so far.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for WebSocketFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    near: TcpStream,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    targets: Arc<HashMap<String, SocketAddr>>,
    paths: Arc<Mutex<Vec<String>>>,
) -> Result<(), Broken> {
    near.set_nodelay(true)?;
    let near = acceptor.accept(near).await?;
    let name = near.get_ref().1.server_name().ok_or("no SNI")?.to_owned();
    let target = *targets.get(&name).ok_or("no such service")?;
    #[expect(clippy::result_large_err, reason = "the form that the callback has")]
    let upgrade = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let path = request.uri().to_string();
        paths.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{name}{path}"));
        let asked = request.headers().get("sec-websocket-protocol").map(HeaderValue::as_bytes);
        let host = request.headers().get("host").map(HeaderValue::as_bytes);
        if asked != Some(b"mqtt") || host != Some(name.as_bytes()) || request.uri().path() != "/$iothub/websocket" {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::NOT_FOUND;
            return Err(refusal);
        }
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
        Ok(response)
    };
    let (mut frames_out, mut frames_in) = accept_hdr_async(near, upgrade).await?.split();
    let far = TcpStream::connect(target).await?;
    far.set_nodelay(true)?;
    let (mut far_in, mut far_out) = split(connector.connect(ServerName::try_from(name.clone())?, far).await?);
    let to_far = async {
        while let Some(frame) = frames_in.next().await {
            let frame = frame?;
            if frame.is_close() {
                break;
            }
            if let Message::Binary(bytes) = frame {
                far_out.write_all(&bytes).await?;
            }
        }
        far_out.shutdown().await?;
        Ok::<_, Broken>(())
    };
    let to_near = async {
        let mut bytes = vec![0; 5_000];
        loop {
            let read = far_in.read(&mut bytes).await.unwrap_or(0);
            if read == 0 {
                frames_out.close().await?;
                return Ok::<_, Broken>(());
            }
            frames_out.send(Message::binary(bytes[..read].to_vec())).await?;
        }
    };
    tokio::try_join!(to_far, to_near).map(drop)
}

/// An HTTP proxy that opens tunnels for who has the password, to names that it alone can resolve.
#[derive(Debug)]
pub struct ConnectProxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<ProxyState>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct ProxyState {
    targets: HashMap<String, SocketAddr>,
    login: Mutex<String>,
    asked: Mutex<Vec<String>>,
}

impl ConnectProxy {
    /// Starts a proxy; `targets` are by `host:port`, `login` is what the base64 of the login has to be.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(targets: impl IntoIterator<Item = (String, SocketAddr)>, login: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(ProxyState {
            targets: targets.into_iter().collect(),
            login: Mutex::new(login.to_owned()),
            asked: Mutex::default(),
        });
        let state = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let tunnel = tunnel(near, Arc::clone(&state));
                tokio::spawn(async move { drop(tunnel.await) });
            }
        });
        Self { address, shared, task }
    }

    /// Changes the login.
    pub fn set_login(&self, login: &str) {
        login.clone_into(&mut self.shared.login.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns what tunnels were asked for so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tunnel(mut near: TcpStream, state: Arc<ProxyState>) -> Result<(), Broken> {
    near.set_nodelay(true)?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if near.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8(request)?;
    let host = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).ok_or("not CONNECT")?;
    state.asked.lock().unwrap_or_else(PoisonError::into_inner).push(host.to_owned());
    let login = state.login.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !request.contains(&format!("\r\nProxy-Authorization: Basic {login}\r\n")) {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"test\"\r\n\r\n";
        near.write_all(answer.as_bytes()).await?;
        return Ok(());
    }
    let Some(target) = state.targets.get(host) else {
        near.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await?;
        return Ok(());
    };
    let mut far = TcpStream::connect(*target).await?;
    far.set_nodelay(true)?;
    // In two parts, as a slow proxy would.
    near.write_all(b"HTTP/1.1 200 Connection ").await?;
    near.write_all(b"established\r\nVia: test\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

fn server_config() -> (String, Arc<ServerConfig>) {
    let key = KeyPair::generate().expect("randomness");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "An authority for a door");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = params.self_signed(&key).expect("good parameters").pem();
    let issuer = Issuer::new(params, key);
    let own_key = KeyPair::generate().expect("randomness");
    let names = [HUB_A, HUB_B, DPS_HOST].map(str::to_owned);
    let own = CertificateParams::new(names).expect("good names").signed_by(&own_key, &issuer).expect("good parameters");
    let key = PrivateKeyDer::from_pem_slice(own_key.serialize_pem().as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of the provider")
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .expect("a pair");
    (ca_pem, Arc::new(config))
}

fn client_config(ca_pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of the provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
