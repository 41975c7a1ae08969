//! Keys, certificates, connection strings and addresses that are not as they should be: what can be understood is taken,
//! and what is told of the rest has no secret in it.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

#[path = "support/forms.rs"]
mod forms;
mod support;

use std::error::Error;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use steadfast::{BuildError, Builder, ClientCertificate, Device, Proxy, Seed, SharedKey, State, Tls};
use support::{Log, hasty, soon};

const HOST: &str = "hub.example";

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn with(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>, roots: &str) -> Builder {
    Device::builder()
        .broker(HOST, "c")
        .resolve(HOST, ["127.0.0.1:1".parse().unwrap()])
        .tls(Tls::without_system_roots().and_pem(roots))
        .client_certificate(ClientCertificate::from_pem(chain, key))
        .seed(Seed::from_number(1))
}

/// Everything that an error shows.
fn shown(error: &BuildError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(" {error} {error:?}"));
        next = error.source();
    }
    text
}

fn has_none_of(text: &str, forms: &[String], what: &str) {
    let found = forms.iter().find(|form| form.len() >= 8 && text.contains(&***form));
    assert_eq!(found, None, "{what}: {text}");
}

/// The forms of a key in PEM: of its base64 and of the bytes.
fn forms_of(key: &str) -> Vec<String> {
    let body: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = KeyPair::from_pem(key).unwrap().serialize_der();
    // The beginning of every key of the kind is the same, and so in the names of its parts.
    [forms::forms(&body.as_bytes()[36..]), forms::forms(&der[30..])].concat()
}

#[test]
fn line_ends_that_got_lost_on_the_way_are_no_obstacle() {
    let (certificate, key) = pair();
    let lost: [fn(&str) -> String; 7] = [
        |text| text.replace('\n', "\\n"),
        |text| text.replace('\n', "\\r\\n"),
        |text| text.replace('\n', "\r\n"),
        |text| text.replace('\n', " "),
        |text| text.replace('\n', ""),
        |text| text.replace('\n', "\n    "),
        |text| format!("\u{feff}\"{}\"", text.replace('\n', "\\n")),
    ];
    for change in lost {
        let _device = with(change(&certificate), change(&key), &change(&certificate)).build().unwrap();
    }
}

#[test]
fn a_certificate_of_version_1_is_shown_and_trusted_and_its_key_checked() {
    let device = include_str!("data/version-1-device.pem");
    let _device = with(device, device, include_str!("data/version-1-device-root.pem")).build().unwrap();
    let _device = with(device, device, include_str!("data/version-1-root.pem")).build().unwrap();
    let (_, other) = pair();
    let error = with(device, other.as_str(), device).build().unwrap_err();
    assert!(shown(&error).contains("the key does not belong to the certificate"), "{error}");
}

/// Texts that are not quite `key`.
fn damaged(key: &str) -> Vec<String> {
    let (head, middle) = (key.len() / 8, key.len() / 2);
    let base64 = key.find('\n').unwrap() + 1;
    let mut all: Vec<String> = (1..8).map(|eighth| key[..eighth * head].to_owned()).collect();
    all.push(key.replace("-----END", "----END"));
    all.push(key.replace("KEY-----", "KEY----"));
    all.push(key.replace("PRIVATE KEY", "SECRET"));
    all.push(key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    all.push(key.replace("PRIVATE KEY", "PUBLIC KEY"));
    all.push(format!("{}ü{}", &key[..middle], &key[middle..]));
    all.push(format!("{}!{}", &key[..middle], &key[middle..]));
    all.push(format!("{}{}", &key[..base64], &key[base64 + 1..]));
    all.push(key.lines().filter(|line| !line.starts_with('-')).collect());
    all.push(format!("-----BEGIN {key}"));
    all.push(format!("-----BEGIN X-----{key}"));
    let joined: Vec<String> =
        all.iter().flat_map(|text| ["\\n", " ", "", "\\"].map(|between| text.replace('\n', between))).collect();
    all.extend(joined);
    all
}

#[test]
fn a_key_that_is_not_usable_is_told_without_the_key() {
    let (certificate, key) = pair();
    let forms = forms_of(&key);
    let mut refused = 0;
    for text in damaged(&key) {
        // Nothing tells the bare base64 from a path.
        let path = if text.contains("-----") { &*text } else { "/nowhere" };
        for builder in [
            with(certificate.as_str(), text.as_str(), &certificate),
            // In place of the chain, of the roots, and of a path.
            with(text.as_str(), key.as_str(), &certificate),
            with(certificate.as_str(), key.as_str(), &text),
            with("", "", &certificate).client_certificate(ClientCertificate::from_files(path, path)),
            with("", "", &certificate).tls(Tls::without_system_roots().and_file(path)),
        ] {
            has_none_of(&format!("{builder:?} {builder:#?}"), &forms, "builder");
            if let Err(error) = builder.build() {
                refused += 1;
                has_none_of(&shown(&error), &forms, "error");
            }
        }
    }
    assert!(refused > 200, "{refused}");
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let error = with(certificate.as_str(), encrypted, &certificate).build().unwrap_err();
    assert!(shown(&error).contains("it is encrypted"), "{error}");
}

#[tokio::test]
async fn a_key_file_that_breaks_while_the_device_runs_is_not_logged() {
    let log = Log::of_process();
    let (certificate, key) = pair();
    let directory = tempfile::tempdir().unwrap();
    let (chain_path, key_path) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    std::fs::write(&chain_path, &certificate).unwrap();
    std::fs::write(&key_path, &key).unwrap();
    let builder = with("", "", &certificate).client_certificate(ClientCertificate::from_files(&chain_path, &key_path));
    let (device, driver) = builder.retry(hasty().divided_by(100)).build().unwrap();
    let driver = tokio::spawn(driver);
    let mut status = device.status_changes();
    for text in damaged(&key).into_iter().step_by(3) {
        std::fs::write(&key_path, text).unwrap();
        let failures = device.status().failures;
        soon(status.wait_for(|status| status.failures > failures + 1)).await.unwrap();
    }
    soon(device.stop(Duration::from_secs(1))).await;
    soon(driver).await.unwrap();
    assert_eq!(device.status().state, State::Stopped);
    let log = log.text();
    assert!(log.contains("continuing with the previous one"), "{log}");
    has_none_of(&log, &forms_of(&key), "log");
}

#[test]
fn a_damaged_connection_string_key_token_or_password_is_told_without_the_secret() {
    const KEY: &str = "c2VjcmV0c2VjcmV0UVVJQ0tCUk9XTkZPWGp1bXBzb3Zlcg==";
    let forms = forms::forms(KEY.as_bytes());
    let whole = format!("HostName=a.example;DeviceId=d;SharedAccessKey={KEY}");
    let token =
        format!("HostName=a.example;DeviceId=d;SharedAccessSignature=SharedAccessSignature sr=a&sig={KEY}&se=1");
    for text in [whole.as_str(), &token, KEY] {
        for at in 0..text.len() {
            let (before, behind) = text.split_at(at);
            for text in [
                format!("{before}{}", &behind[1..]),
                format!("{before}ü{behind}"),
                format!("{before};{behind}"),
                format!("{before}={behind}"),
                format!("{before}\0{behind}"),
                format!("{before}\n{}", &behind[1..]),
                before.to_owned(),
                behind.to_owned(),
            ] {
                let builders = [
                    Device::builder().connection_string(&text),
                    Device::builder().hub("a.example", "d").shared_key(&text),
                    Device::builder().hub("a.example", "d").shared_keys(&text, &text),
                    Device::builder().hub("a.example", "d").token(&text),
                    Device::builder()
                        .broker("localhost", "c")
                        .password("user", &text)
                        .plaintext_unprotected()
                        .window(0),
                ];
                for builder in builders {
                    has_none_of(&format!("{builder:?}"), &forms, "builder");
                    if let Err(error) = builder.build() {
                        has_none_of(&shown(&error), &forms, "error");
                    }
                }
                if let Err(error) = SharedKey::from_base64(&text) {
                    has_none_of(&format!("{error} {error:?}"), &forms, "key");
                }
                let proxy = Proxy::http("proxy.example", 1).basic_auth(&text, &text);
                has_none_of(&format!("{proxy:?} {proxy:#?}"), &forms, "proxy");
            }
        }
    }
}
