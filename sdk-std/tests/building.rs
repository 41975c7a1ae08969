//! Mistakes in the description of a device, each reported before the first packet.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::time::Duration;

use steadfast::{BuildError, Builder, ClientCertificate, Device, Dps, Seed, Subscriptions, Tls, TlsError};

/// The key of the bytes 0 to 31.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn error(builder: Builder) -> BuildError {
    builder.build().unwrap_err()
}

fn hub() -> Builder {
    Device::builder().hub("contoso.azure-devices.net", "pump-7")
}

fn dps() -> Builder {
    Device::builder().provision_with(Dps::new("0ne00AB12CD", "pump-7"))
}

#[test]
fn each_mistake_has_an_error_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let junk = directory.path().join("junk.pem");
    std::fs::write(&junk, "junk").unwrap();
    let here = "127.0.0.1:1".parse().unwrap();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(97_985 - 8));
    let table = [
        (Device::builder(), "name the service"),
        (hub(), "give the device a credential"),
        (Device::builder().connection_string("HostName=a"), "the connection string has no"),
        (Device::builder().connection_string("HostName=a.net;DeviceId=d;x509=true"), "give the device a credential"),
        (hub().shared_key("not base64"), "the key is not base64"),
        (hub().group_key(KEY), "an enrollment group's key needs provision_with"),
        (dps().group_key("AAAA"), "the key has 3 bytes"),
        (hub().anonymous(), "a hub supports a shared key"),
        (hub().shared_key(KEY).window(0), "window is 0"),
        (hub().shared_key(KEY).keep_alive(Duration::ZERO), "keep-alive interval is 0 ms"),
        (hub().shared_key(KEY).outbox(0, 1), "the outbox needs room"),
        (hub().shared_key(KEY).assignment_file("/tmp/a"), "an assignment file needs provision_with"),
        (dps().shared_key(KEY).assignment_file("/"), "/ cannot be a file"),
        (hub().shared_key(KEY).resolve("a", []), "resolve names no address for a"),
        (Device::builder().broker("mqtt://a", "c").anonymous(), "\"mqtt://a\" is neither a host name nor an address"),
        (Device::builder().broker("", "c").anonymous(), "\"\" is neither a host name nor an address"),
        (Device::builder().hub("https://a.net", "d").shared_key(KEY), "leave out scheme and port"),
        (Device::builder().hub("a.net:8883", "d").shared_key(KEY), "leave out scheme and port"),
        (hub().shared_key(KEY).subscriptions(Subscriptions::INPUTS), "use Subscriptions::MODULE or ALL"),
        (hub().shared_key(KEY).product_info(&"x".repeat(129)), "the product information is 129 bytes; at most 128"),
        (
            Device::builder().provision_with(Dps::new("0ne00AB12CD", "pump-7").payload(&large)).shared_key(KEY),
            "provisioning payload is 97985 bytes; the limit is 97984",
        ),
        (hub().shared_key(KEY).plaintext_unprotected(), "without TLS the key's token or the password"),
        (
            hub().shared_key(KEY).gateway("192.168.1.9").plaintext_unprotected(),
            "readable on the network to 192.168.1.9",
        ),
        (
            hub().client_certificate(ClientCertificate::from_pem("", "")).resolve("a", [here]).plaintext_unprotected(),
            "a client certificate needs TLS",
        ),
        (hub().shared_key(KEY).tls(Tls::without_system_roots()), "no trusted root certificates"),
        (hub().shared_key(KEY).tls(Tls::without_system_roots().and_file("/no/such")), "cannot read /no/such"),
        (hub().shared_key(KEY).tls(Tls::without_system_roots().and_file(&junk)), "there is no certificate in it"),
    ];
    for (builder, text) in table {
        let message = error(builder).to_string();
        assert!(message.contains(text), "{message:?} lacks {text:?}");
        assert!(!message.contains(KEY));
    }
    assert_eq!(error(hub().shared_key(KEY).tls(Tls::without_system_roots())), BuildError::Tls(TlsError::NoRoots));
}

#[test]
fn a_credential_may_go_unprotected_within_this_machine_only() {
    let here = "127.0.0.1:1883".parse().unwrap();
    let local = [
        Device::builder().broker("127.0.0.1", "c").password("user", "secret"),
        Device::builder().broker("::1", "c").password("user", "secret"),
        Device::builder().broker("localhost", "c").password("user", "secret"),
        hub().shared_key(KEY).resolve("contoso.azure-devices.net", [here]),
        hub().shared_key(KEY).gateway("localhost"),
        Device::builder().broker("broker.example", "c").anonymous(),
    ];
    for builder in local {
        let _device = builder.plaintext_unprotected().build().unwrap();
    }
    let beyond = Device::builder().broker("broker.example", "c").password("user", "secret").plaintext_unprotected();
    assert_eq!(error(beyond), BuildError::CredentialWithoutTls("broker.example".into()));
}

#[test]
fn what_can_be_printed_has_no_secret_in_it() {
    let token = "SharedAccessSignature sr=a.net%2Fdevices%2Fd&sig=c2VjcmV0&se=4102444800";
    let string = format!("HostName=a.net;DeviceId=d;SharedAccessSignature={token}");
    let here = ["127.0.0.1:1".parse().unwrap()];
    for builder in [
        hub().shared_key(KEY).resolve("contoso.azure-devices.net", here),
        dps().group_key(KEY).resolve("global.azure-devices-provisioning.net", here),
        Device::builder().connection_string(&string).resolve("a.net", here),
        Device::builder().broker("localhost", "c").password("user", "c2VjcmV0"),
    ] {
        let mut texts = vec![format!("{builder:?}")];
        let (device, driver) = builder.seed(Seed::from_number(1)).plaintext_unprotected().build().unwrap();
        texts.push(format!("{device:?} {driver:?} {:?}", device.status()));
        for text in texts {
            assert!(!text.contains("AAEC") && !text.contains("c2Vj"), "{text}");
        }
    }
}

#[test]
fn an_assignment_kept_in_a_file_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("assignment");
    let text =
        "steadfast assignment 1\nid-scope 0ne00AB12CD\nregistration-id pump-7\nhub b.azure-devices.net\ndevice-id d\n";
    std::fs::write(&path, text).unwrap();
    let here = ["127.0.0.1:1".parse().unwrap()];
    let builder = dps().shared_key(KEY).resolve("global.azure-devices-provisioning.net", here).plaintext_unprotected();
    let (device, _driver) = builder.assignment_file(&path).build().unwrap();
    assert_eq!(device.assignment().unwrap().hub(), "b.azure-devices.net");
}
