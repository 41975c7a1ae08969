//! TLS: names, certificates of services and of devices.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::path::Path;
use std::process::Command;

use bytes::BytesMut;
use hub_emulator::{Authority, CloseReason, DeviceAuth, Fault, Flaw, HubConfig};
use rumqttc::mqttbytes::v4::{Connect, Login};
use support::{Client, DEVICE, HUB, config, connect_packet, hub, not_authorized, start, user_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DPS: &str = "global.azure-devices-provisioning.net";
const HUB_B: &str = "hub-b.azure-devices.net";

#[tokio::test]
async fn one_port_serves_every_name_and_a_foreign_name_is_refused() {
    let emulator = start(config().hub("hub-b").gateway_name("edge-1")).await;
    let connect = |name: &'static str| Client::tls(emulator.tls_addr(), emulator.ca_pem(), name, None);
    for name in [HUB, "localhost", "127.0.0.1", "edge-1"] {
        connect(name).await.unwrap().accepted(connect_packet()).await;
    }
    for name in [HUB_B, DPS] {
        assert_eq!(connect(name).await.unwrap().connect_with(connect_packet()).await, not_authorized(), "{name}");
    }
    assert!(connect("hub-z.azure-devices.net").await.is_err());
}

#[tokio::test]
async fn an_unknown_ca_is_not_trusted_and_a_stored_one_is() {
    let authority = Authority::new().unwrap();
    let emulator = start(config().authority(authority.clone())).await;
    let again = Authority::from_pem(authority.pem(), authority.key_pem()).unwrap();
    let second = start(config().authority(again)).await;
    for address in [emulator.tls_addr(), second.tls_addr()] {
        Client::tls(address, authority.pem(), HUB, None).await.unwrap().accepted(connect_packet()).await;
    }
    let stranger = Authority::new().unwrap();
    assert!(Client::tls(emulator.tls_addr(), stranger.pem(), HUB, None).await.is_err());
    assert!(Authority::from_pem(authority.pem(), stranger.key_pem()).is_err());
    assert!(Authority::from_pem("no pem", stranger.key_pem()).is_err());
}

#[tokio::test]
async fn flawed_certificates_are_refused_by_a_client_that_checks() {
    let emulator = start(config()).await;
    let hub = emulator.hub(HUB);
    for flaw in [Flaw::Expired, Flaw::NotYetValid, Flaw::WrongName, Flaw::SelfSigned, Flaw::UnknownIssuer] {
        hub.set_certificate_flaw(Some(flaw)).unwrap();
        let outcome = Client::tls(emulator.tls_addr(), emulator.ca_pem(), HUB, None).await;
        assert!(outcome.is_err(), "{flaw:?}");
    }
    hub.set_certificate_flaw(None).unwrap();
    Client::tls(emulator.tls_addr(), emulator.ca_pem(), HUB, None).await.unwrap().accepted(connect_packet()).await;
    let records = emulator.ledger().connections();
    assert!(records[..5].iter().all(|record| record.connect_at.is_none()), "no MQTT byte came before");
}

#[tokio::test]
async fn a_device_authenticates_by_thumbprint() {
    let authority = Authority::new().unwrap();
    let right = authority.device_certificate(DEVICE).unwrap();
    let wrong = authority.device_certificate(DEVICE).unwrap();
    let auth = DeviceAuth::Thumbprint { primary: "00".to_owned(), secondary: Some(right.thumbprint.to_uppercase()) };
    let emulator = start(hub_emulator::Config::new().hub_with(HubConfig::new(HUB).device(DEVICE, auth))).await;
    let mut connect = Connect::new(DEVICE);
    connect.login = Some(Login::new(user_name(HUB, DEVICE), ""));
    for (certificate, accepted) in [(Some(&right), true), (Some(&wrong), false), (None, false)] {
        let identity = certificate.map(|one| (one.certificate_pem.as_str(), one.key_pem.as_str()));
        let mut client = Client::tls(emulator.tls_addr(), emulator.ca_pem(), HUB, identity).await.unwrap();
        if accepted {
            client.accepted(connect.clone()).await;
        } else {
            assert_eq!(client.connect_with(connect.clone()).await, not_authorized());
        }
    }
}

/// Runs `openssl` in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let done = done.expect("openssl is installed");
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn a_certificate_without_extensions_authenticates_by_thumbprint_and_by_ca() {
    let authority = Authority::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("ca-key.pem"), authority.key_pem()).unwrap();
    for key in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256"] {
        let request = format!("req -new -newkey {key} -nodes -subj /CN={DEVICE} -keyout key.pem -out request.pem");
        openssl(folder.path(), &request);
        openssl(folder.path(), "x509 -req -in request.pem -signkey key.pem -days 30 -out own.pem");
        openssl(
            folder.path(),
            "x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 30 -out signed.pem",
        );
        openssl(folder.path(), "x509 -in own.pem -outform der -out own.der");
        let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(std::fs::read(path("own.der")).unwrap());
        let primary = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        let by_thumbprint = DeviceAuth::Thumbprint { primary, secondary: None };
        let by_ca = DeviceAuth::CertificateAuthority { pem: authority.pem().to_owned(), common_name: None };
        let hub = HubConfig::new(HUB).device(DEVICE, by_thumbprint);
        let hub_b = HubConfig::new("hub-b").device(DEVICE, by_ca);
        let emulator = start(hub_emulator::Config::new().hub_with(hub).hub_with(hub_b)).await;
        let key = read("key.pem");
        for (name, certificate, accepted) in
            [(HUB, "own.pem", true), (HUB, "signed.pem", false), (HUB_B, "signed.pem", true), (HUB_B, "own.pem", false)]
        {
            let certificate = read(certificate);
            let mut connect = Connect::new(DEVICE);
            connect.login = Some(Login::new(user_name(name, DEVICE), ""));
            let identity = Some((certificate.as_str(), key.as_str()));
            let mut client = Client::tls(emulator.tls_addr(), emulator.ca_pem(), name, identity).await.unwrap();
            if accepted {
                client.accepted(connect).await;
            } else {
                assert_eq!(client.connect_with(connect).await, not_authorized());
            }
        }
    }
}

#[tokio::test]
async fn certificates_name_the_revocation_list_and_pass_its_check() {
    const ADDRESS: &str = "http://127.0.0.1:8080/ca.crl";
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    for named in [true, false] {
        let config = if named { config().revocation_list(ADDRESS) } else { config() };
        let emulator = start(config).await;
        write("ca.pem", emulator.ca_pem().as_bytes());
        write("ca.crl", &emulator.revocation_list().unwrap());
        openssl(folder.path(), "crl -inform der -in ca.crl -out crl.pem");
        for (name, sends_name) in [(HUB, true), (DPS, true), (DPS, false)] {
            let connecting = support::tls_stream_that(emulator.tls_addr(), emulator.ca_pem(), name, None, sends_name);
            let stream = connecting.await.unwrap();
            let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            assert_eq!(leaf.windows(ADDRESS.len()).any(|part| part == ADDRESS.as_bytes()), named);
            write("leaf.der", &leaf);
            openssl(folder.path(), "x509 -inform der -in leaf.der -out leaf.pem");
            openssl(folder.path(), "verify -crl_check -CAfile ca.pem -CRLfile crl.pem leaf.pem");
        }
    }
}

#[tokio::test]
async fn tls_is_cut_or_answered_with_a_page() {
    let emulator = start(config()).await;
    for fault in [Fault::CloseBeforeTls, Fault::HtmlInsteadOfTls] {
        emulator.hub(HUB).inject(fault);
        assert!(Client::tls(emulator.tls_addr(), emulator.ca_pem(), HUB, None).await.is_err());
    }
    Client::tls(emulator.tls_addr(), emulator.ca_pem(), HUB, None).await.unwrap().accepted(connect_packet()).await;
}

#[tokio::test]
async fn any_bytes_after_the_end_of_tls_are_ignored() {
    let emulator = start(config()).await;
    let alert = [0x15, 3, 3, 0, 2, 1, 40];
    let strays = [(&alert[..], false), (&alert, true), (b"GET / HTTP/1.1\r\n\r\n", false), (&[0xff; 4096], false)];
    for (number, (stray, says_goodbye)) in strays.into_iter().enumerate() {
        let mut stream = support::tls_stream(emulator.tls_addr(), emulator.ca_pem(), HUB, None).await.unwrap();
        let mut bytes = BytesMut::new();
        connect_packet().write(&mut bytes).unwrap();
        // DISCONNECT; the hub responds by ending TLS.
        bytes.extend_from_slice(&[0xe0, 0]);
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [0x20, 2, u8::from(number > 0), 0]);
        if says_goodbye {
            stream.shutdown().await.unwrap();
        }
        // The hub may have closed already; the connection record shows it.
        let _ = stream.get_mut().0.write_all(stray).await;
        let ended = || emulator.ledger().connections().iter().filter(|record| record.closed.is_some()).count();
        support::eventually("the connection ended", || ended() == number + 1).await;
    }
    let reasons: Vec<_> = emulator.ledger().connections().into_iter().map(|record| record.closed).collect();
    assert_eq!(reasons, vec![Some(CloseReason::Disconnected); 4]);
}

#[tokio::test]
async fn a_client_without_sni_gets_a_certificate_with_all_names() {
    let emulator = start(config().gateway_name("edge-1").storage_host("files.core.windows.net")).await;
    let nameless =
        async |name: &str| support::tls_stream_that(emulator.tls_addr(), emulator.ca_pem(), name, None, false).await;
    for name in [HUB, DPS, "files.core.windows.net", "localhost", "edge-1"] {
        nameless(name).await.unwrap();
    }
    Client::over(nameless(HUB).await.unwrap()).accepted(connect_packet()).await;
    assert!(nameless(HUB_B).await.is_err());
    emulator.add_hub(HubConfig::new("hub-b")).unwrap();
    nameless(HUB_B).await.unwrap();
}

#[tokio::test]
async fn a_hub_added_while_running_is_served() {
    let emulator = start(config()).await;
    emulator.add_hub(HubConfig::new("hub-c").device(DEVICE, support::key())).unwrap();
    assert!(emulator.add_hub(hub()).is_err());
    let name = "hub-c.azure-devices.net";
    let mut client = Client::tls(emulator.tls_addr(), emulator.ca_pem(), name, None).await.unwrap();
    client.accepted(support::connect_for(name, DEVICE, &support::key())).await;
}
