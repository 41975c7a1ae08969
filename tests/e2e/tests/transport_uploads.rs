//! Files on their way to the storage of the emulator's hub, over TLS.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{ConnectProxy, DEVICE, HUB_A, Pipe, Scene, key, soon};
use hub_emulator::{Authority, Config, DeviceAuth, Fault, HubConfig, Injection, Operation};
use steadfast::{Builder, ClientCertificate, Device, Ledger, Proxy, UploadSource};
use tokio::task::JoinHandle;

const STORAGE: &str = "emulator.blob.core.windows.net";

async fn at_hub(auth: impl Into<DeviceAuth>) -> Scene {
    Scene::start(Config::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, auth)).https_port(0)).await
}

/// Tells the device where the emulator's HTTPS is.
fn with_files(scene: &Scene, builder: Builder) -> Builder {
    let https = scene.emulator.https_addr().unwrap();
    builder.resolve_https(HUB_A, [https]).resolve_https(STORAGE, [https])
}

fn run(builder: Builder) -> (Device, JoinHandle<Ledger>) {
    let (device, driver) = builder.build().unwrap();
    (device, tokio::spawn(driver))
}

async fn end(scene: &Scene, device: Device, driver: JoinHandle<Ledger>) {
    soon(device.stop(Duration::from_secs(5))).await;
    soon(driver).await.unwrap();
    for secret in &scene.secrets {
        assert!(!scene.logs.text().contains(secret.as_str()), "a secret is in the log");
    }
}

fn payload(len: u32) -> Vec<u8> {
    (0..len).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

/// What the hub was told of each upload.
fn told(scene: &Scene) -> Vec<bool> {
    let operations = scene.emulator.ledger().operations_of(DEVICE);
    let told = operations.iter().filter_map(|operation| {
        if let Operation::UploadNotified { success, .. } = operation { Some(*success) } else { None }
    });
    told.collect()
}

#[tokio::test]
async fn a_file_of_a_provisioned_device_goes_to_the_hub_it_was_assigned() {
    let scene = Scene::start(Scene::with_dps().https_port(0)).await;
    let (device, driver) = run(with_files(&scene, scene.member(Pipe::Bytes)));
    // Nobody has been assigned yet.
    let upload = device.upload("logs/day 1.bin", UploadSource::bytes(payload(3_000_000)));
    let report = soon(upload.into_future()).await.unwrap();
    assert_eq!((report.bytes, report.blocks, report.failures), (3_000_000, 3, 0));
    assert_eq!(report.blob, format!("{DEVICE}/logs/day 1.bin"));
    assert!(scene.emulator.uploaded(DEVICE, "logs/day 1.bin").unwrap() == payload(3_000_000));
    assert_eq!(told(&scene), [true]);
    end(&scene, device, driver).await;
}

#[tokio::test]
async fn a_device_with_a_certificate_uploads_too() {
    let certificate = Authority::new().unwrap().device_certificate(DEVICE).unwrap();
    let scene = at_hub(DeviceAuth::Thumbprint { primary: certificate.thumbprint.clone(), secondary: None }).await;
    let shown = ClientCertificate::from_pem(certificate.certificate_pem, certificate.key_pem);
    let builder = scene.builder(Pipe::Bytes).hub(HUB_A, DEVICE).client_certificate(shown);
    let (device, driver) = run(with_files(&scene, builder));
    soon(device.upload("f", UploadSource::bytes("content")).into_future()).await.unwrap();
    assert_eq!(scene.emulator.uploaded(DEVICE, "f").as_deref(), Some(b"content".as_slice()));
    end(&scene, device, driver).await;
}

#[tokio::test]
async fn every_fault_on_the_way_is_survived() {
    let scene = at_hub(key()).await;
    let hub = scene.emulator.hub(HUB_A).device(DEVICE);
    for fault in [
        Injection::times(Fault::UploadStatus { status: 429 }, 2),
        Injection::once(Fault::StorageDrop { bytes: 70_000 }).after(1),
        Injection::once(Fault::StorageStatus { status: 503 }).after(2),
        // The token is over.
        Injection::once(Fault::StorageStatus { status: 403 }).after(4),
    ] {
        hub.inject(fault);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, payload(1_000_000)).unwrap();
    let (device, driver) = run(with_files(&scene, scene.device(Pipe::Bytes)));
    let upload = device.upload("f", UploadSource::file(path)).block_size(100_000);
    let report = soon(upload.into_future()).await.unwrap();
    assert_eq!((report.bytes, report.blocks), (1_000_000, 10));
    assert!(report.failures >= 4, "{report:?}");
    assert!(scene.emulator.uploaded(DEVICE, "f").unwrap() == payload(1_000_000));
    assert_eq!(told(&scene), [false, true]);
    end(&scene, device, driver).await;
}

#[tokio::test]
async fn a_file_goes_through_the_proxy() {
    let mut scene = at_hub(key()).await;
    scene.secrets.push(String::from("dTpw"));
    let https = scene.emulator.https_addr().unwrap();
    let storage = format!("{STORAGE}:{}", https.port());
    let targets = [
        (format!("{HUB_A}:8883"), scene.emulator.hub(HUB_A).addr()),
        (format!("{HUB_A}:443"), https),
        (storage.clone(), https),
    ];
    let proxy = ConnectProxy::start(targets, "dTpw").await;
    let way = Proxy::http("proxy.example", 3128).basic_auth("u", "p");
    let builder = scene.device(Pipe::Bytes).resolve("proxy.example", [proxy.address]).proxy(way);
    let (device, driver) = run(builder);
    soon(device.upload("f", UploadSource::bytes("content")).into_future()).await.unwrap();
    assert_eq!(scene.emulator.uploaded(DEVICE, "f").as_deref(), Some(b"content".as_slice()));
    let asked = proxy.asked();
    assert!(asked.contains(&storage) && asked.contains(&format!("{HUB_A}:443")), "{asked:?}");
    end(&scene, device, driver).await;
}

#[tokio::test]
async fn more_uploads_than_the_hub_allows_take_turns() {
    let scene = at_hub(key()).await;
    let (device, driver) = run(with_files(&scene, scene.device(Pipe::Bytes)));
    let uploads: Vec<_> = (0..25)
        .map(|number| {
            let upload = device.upload(&format!("f{number}"), UploadSource::bytes(payload(50_000))).block_size(10_000);
            tokio::spawn(upload.into_future())
        })
        .collect();
    for upload in uploads {
        assert_eq!(soon(upload).await.unwrap().unwrap().failures, 0);
    }
    assert_eq!(told(&scene), [true; 25]);
    end(&scene, device, driver).await;
}
