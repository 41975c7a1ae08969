//! Mosquitto, as a real broker that can be killed.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{soon, until};

/// The name in the broker's certificate.
pub const BROKER: &str = "broker.test";

/// A Mosquitto of the test's own, on ports of its own. It ends with this value.
#[derive(Debug)]
pub struct Broker {
    directory: TempDir,
    persistent: bool,
    /// Where it listens without TLS.
    pub plain: SocketAddr,
    /// Where it listens with TLS.
    pub secured: SocketAddr,
    /// Where it listens for WebSockets with TLS.
    pub web: SocketAddr,
    ca_pem: String,
    child: Option<Child>,
}

impl Broker {
    /// Starts one; `persistent` ones keep sessions and messages over a restart, as far as they were saved.
    ///
    /// # Panics
    /// When Mosquitto is not installed or does not start.
    pub async fn start(persistent: bool) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ca_pem = write_certificates(directory.path());
        let mut broker = Self {
            directory,
            persistent,
            plain: free_address(),
            secured: free_address(),
            web: free_address(),
            ca_pem,
            child: None,
        };
        broker.run().await;
        broker
    }

    /// Returns the certificate of the authority that the broker's is from, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Runs it again after an end.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn run(&mut self) {
        let path = self.directory.path().join("mosquitto.conf");
        std::fs::write(&path, self.settings()).expect("the settings are written");
        let log = self.directory.path().join("mosquitto.log");
        let said = File::create(&log).expect("a file in a new directory");
        let child =
            Command::new(program()).arg("-c").arg(&path).stdout(Stdio::null()).stderr(said).kill_on_drop(true).spawn();
        let child = self.child.insert(child.expect("mosquitto starts"));
        until("the broker listens", || {
            let ended = child.try_wait().expect("a process of this test").is_some();
            assert!(!ended, "mosquitto ended: {}", std::fs::read_to_string(&log).unwrap_or_default());
            [self.plain, self.secured, self.web].iter().all(|address| std::net::TcpStream::connect(address).is_ok())
        })
        .await;
    }

    /// Kills it without a warning.
    ///
    /// # Panics
    /// When it is not running.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("a running broker");
        soon(child.kill()).await.expect("a process of this test");
    }

    /// Ends it in order: a persistent one saves everything first.
    ///
    /// # Panics
    /// When it is not running, or does not end.
    pub async fn end(&mut self) {
        let mut child = self.child.take().expect("a running broker");
        let id = child.id().expect("it was not waited for").to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status().await.expect("`kill` is everywhere");
        assert!(asked.success(), "{asked}");
        soon(child.wait()).await.expect("it ends");
    }

    fn settings(&self) -> String {
        let at = self.directory.path().display();
        let (plain, secured, persistent) = (self.plain.port(), self.secured.port(), self.persistent);
        let web = self.web.port();
        format!(
            "user root\nlog_type error\nallow_anonymous true\n\
             max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n\
             persistence {persistent}\npersistence_location {at}/\nautosave_interval 1\nautosave_on_changes true\n\
             listener {plain} 127.0.0.1\n\
             listener {web} 127.0.0.1\nprotocol websockets\n\
             cafile {at}/ca.pem\ncertfile {at}/broker.pem\nkeyfile {at}/broker.key\n\
             listener {secured} 127.0.0.1\ncafile {at}/ca.pem\ncertfile {at}/broker.pem\nkeyfile {at}/broker.key\n"
        )
    }
}

fn program() -> &'static Path {
    let path = Path::new("/usr/sbin/mosquitto");
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, which installs it", path.display());
    path
}

/// Finds a port below those that the system gives to connections, which could take it while the broker is down.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 97).unwrap_or(0) * 100;
    for _ in 0..1000 {
        let place = own.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 9_700;
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + place));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("none of a thousand ports is free");
}

/// Writes the broker's certificate and key, and returns the authority's certificate.
fn write_certificates(directory: &Path) -> String {
    let key = KeyPair::generate().expect("randomness");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "An authority for a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = params.self_signed(&key).expect("good parameters").pem();
    let issuer = Issuer::new(params, key);
    let own_key = KeyPair::generate().expect("randomness");
    let own = CertificateParams::new([BROKER.to_owned()]).expect("a good name");
    let own = own.signed_by(&own_key, &issuer).expect("good parameters");
    for (name, text) in [("ca.pem", ca_pem.clone()), ("broker.pem", own.pem()), ("broker.key", own_key.serialize_pem())]
    {
        std::fs::write(directory.join(name), text).expect("a file in a new directory");
    }
    ca_pem
}
