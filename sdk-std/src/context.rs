//! The state that all devices of a process share.

use std::sync::LazyLock;
use std::time::Duration;

use crate::names::{self, Names};
use crate::threads::Threads;

/// The state that all devices of a process share: threads for blocking work, and name look-ups.
pub(crate) struct Context {
    pub(crate) names: Names,
    /// Read roots, certificates, keys and stored state.
    pub(crate) readers: &'static Threads,
    /// Timeout of reading files.
    pub(crate) reading: Duration,
    /// Write stored state.
    pub(crate) writers: &'static Threads,
}

/// Wait for a token or a TPM.
#[cfg(any(feature = "pkcs11", feature = "tpm2"))]
pub(crate) static KEYS: Threads = Threads::new("steadfast-keys", 8);

/// Read the sources of uploads.
#[cfg(feature = "upload")]
pub(crate) static SOURCES: Threads = Threads::new("steadfast-files", 4);

impl Context {
    /// The one of this process.
    pub(crate) fn shared() -> &'static Self {
        static LOOK_UPS: Threads = Threads::new("steadfast-names", 16);
        static READERS: Threads = Threads::new("steadfast-read", 4);
        static WRITERS: Threads = Threads::new("steadfast-write", 2);
        static SHARED: LazyLock<Context> = LazyLock::new(|| Context {
            names: Names::new(&LOOK_UPS, names::system),
            readers: &READERS,
            reading: Duration::from_secs(10),
            writers: &WRITERS,
        });
        &SHARED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use steadfast_core::{Failure, LocalFailure, RetryPolicy, State};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use crate::threads::tests::{jam, scarce, threads};
    use crate::{BuildError, Builder, ClientCertificate, Device, Tls, TlsError};

    /// Nothing on this machine takes longer.
    const SOON: Duration = Duration::from_secs(20);

    fn context(
        most: usize,
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> &'static Context {
        Box::leak(Box::new(Context {
            names: Names::new(threads(most), resolve),
            readers: threads(1),
            reading: Duration::from_millis(200),
            writers: threads(1),
        }))
    }

    fn client(context: &'static Context, port: u16) -> Builder {
        let mut builder = Device::builder()
            .broker("localhost", "c")
            .port(port)
            .anonymous()
            .plaintext_unprotected()
            .retry(RetryPolicy::DEFAULT.divided_by(1_000));
        builder.context = context;
        builder
    }

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn loopback(_: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(vec!["127.0.0.1:0".parse().unwrap()])
    }

    async fn answer(listener: &TcpListener, code: u8) -> TcpStream {
        let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(&[0x20, 2, 0, code]).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_disk_that_is_frozen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("back-off");
        let context = context(1, loopback);
        let (listener, port) = listen().await;
        let frozen = jam(context.writers);
        let (device, driver) = client(context, port).backoff_file(&path).build().unwrap();
        let driver = tokio::spawn(driver);
        // A second refusal comes after the first was to be remembered.
        for _ in 0..3 {
            answer(&listener, 3).await;
        }
        timeout(SOON, device.stop(Duration::from_millis(100))).await.unwrap();
        timeout(SOON, driver).await.unwrap().unwrap();
        assert!(!path.exists());
        drop(frozen);
        // Pending writes are still done.
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_name_server_that_does_not_answer_holds_up_neither_stop_nor_the_next_name() {
        let asked: &AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
        let context = context(2, |host| {
            asked.fetch_add(1, Ordering::SeqCst);
            if host == "localhost" {
                loop {
                    std::thread::park()
                }
            }
            loopback(host)
        });
        let (listener, port) = listen().await;
        let mut devices = Vec::new();
        for _ in 0..1_000 {
            let (device, driver) = client(context, port).build().unwrap();
            devices.push((device, tokio::spawn(driver)));
        }
        let (other, driver) = client(context, port).broker("other.localhost", "d").build().unwrap();
        tokio::spawn(driver);
        let _up = answer(&listener, 0).await;
        for (device, driver) in devices {
            timeout(SOON, device.stop(Duration::from_secs(1))).await.unwrap();
            timeout(SOON, driver).await.unwrap().unwrap();
        }
        timeout(SOON, other.stop(Duration::ZERO)).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_driver_outlives_that_no_thread_can_be_made() {
        static SCARCE: AtomicBool = AtomicBool::new(true);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("back-off");
        let threads = scarce(&SCARCE);
        let context = Box::leak(Box::new(Context {
            names: Names::new(threads, loopback),
            readers: threads,
            reading: SOON,
            writers: threads,
        }));
        let (listener, port) = listen().await;
        let lack = Failure::Local(LocalFailure::Resources);
        // Without TLS the name is what a thread is needed for first, with TLS the files.
        let roots = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap().cert.pem();
        let mut secured = Device::builder().broker("localhost", "c").port(port).anonymous();
        secured = secured.tls(Tls::without_system_roots().and_pem(roots)).retry(RetryPolicy::DEFAULT.divided_by(1_000));
        secured.context = context;
        let mut all = Vec::new();
        for builder in [client(context, port).backoff_file(path), secured] {
            let (device, driver) = builder.build().unwrap();
            let mut status = device.status_changes();
            let driver = tokio::spawn(driver);
            let lacking = timeout(SOON, status.wait_for(|status| status.failures > 2)).await.unwrap().unwrap();
            assert_eq!(lacking.last_failure, Some(lack));
            drop(lacking);
            drop(device.send(crate::Message::to_topic("t", b"1")).await.unwrap());
            all.push((device, driver));
        }
        SCARCE.store(false, Ordering::SeqCst);
        for _ in 0..2 {
            timeout(SOON, listener.accept()).await.unwrap().unwrap();
        }
        for (device, driver) in all {
            device.stop(Duration::ZERO).await;
            timeout(SOON, driver).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn files_that_a_frozen_disk_holds_back_are_named_and_those_read_before_are_used() {
        let directory = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let [roots, chain, key] = ["roots.pem", "chain.pem", "key.pem"].map(|name| directory.path().join(name));
        std::fs::write(&roots, pair.cert.pem()).unwrap();
        std::fs::write(&chain, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let context = context(1, loopback);
        let (listener, port) = listen().await;
        let make = || {
            let mut builder = Device::builder()
                .broker("localhost", "c")
                .port(port)
                .tls(Tls::without_system_roots().and_file(&roots))
                .client_certificate(ClientCertificate::from_files(&chain, &key))
                .retry(RetryPolicy::DEFAULT.divided_by(1_000));
            builder.context = context;
            builder
        };
        let (_device, driver) = make().build().unwrap();
        let _frozen = jam(context.readers);
        let error = make().build().unwrap_err();
        let BuildError::Tls(TlsError::Silent { files, .. }) = &error else { panic!("{error}") };
        assert_eq!(files[..], [roots, chain, key]);
        let _driver = tokio::spawn(driver);
        timeout(SOON, listener.accept()).await.unwrap().unwrap();
    }

    #[test]
    fn a_file_that_gives_bytes_for_ever_or_none_is_named_when_the_device_is_built() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&*pipe, Path::new("/dev/zero")] {
            let builder = Device::builder().broker("localhost", "c").anonymous();
            let error = builder.tls(Tls::without_system_roots().and_file(path)).build().unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains("not a regular file"), "{error}");
            let certificate = ClientCertificate::from_files(path, path);
            let error = Device::builder().broker("localhost", "c").client_certificate(certificate).build().unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            // Stored state is optional: without it the device starts from its configuration.
            let builder = Device::builder().provision_with(crate::Dps::new("0ne00AB12CD", "pump-7"));
            let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
            let (device, _driver) = builder.shared_key(key).assignment_file(path).build().unwrap();
            assert_eq!((device.assignment(), device.status().state), (None, State::Idle));
        }
    }
}
