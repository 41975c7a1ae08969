//! Keys in a PKCS#11 token, of SoftHSM: they prove the device and never leave the token.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki::session::UserType;
use e2e::{Actor, DEVICE, HUB_A, Pipe, Scene, key, on_every_pipe};
use hub_emulator::{Config, DeviceAuth, HubConfig};
use steadfast::{BuildError, Device, Pkcs11, Pkcs11Error, TlsError};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TOKEN: &str = "plant";
const PIN: &str = "48151623";

/// Where SoftHSM finds its settings.
const SETTINGS: &str = "SOFTHSM2_CONF";

/// Runs a program in `directory`, with SoftHSM's tokens there.
fn run(directory: &Path, program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .current_dir(directory)
        .env(SETTINGS, directory.join("softhsm2.conf"))
        .output();
    let output = output.unwrap_or_else(|_| panic!("{program} is missing: run `cargo xtask test`, which installs it"));
    let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments}: {} {}", said.0, said.1);
    said.0.into_owned()
}

/// Runs the named test of this file in a process that finds a new token in a new directory; in that process, returns the
/// directory.
fn with_token(test: &str) -> Option<PathBuf> {
    if let Some(settings) = std::env::var_os(SETTINGS) {
        return Some(Path::new(&settings).parent().unwrap().to_owned());
    }
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let settings = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
    std::fs::write(directory.path().join("softhsm2.conf"), settings).unwrap();
    let init = format!("--init-token --free --label {TOKEN} --pin {PIN} --so-pin {PIN}");
    run(directory.path(), "softhsm2-util", &init);
    let own = std::env::current_exe().unwrap();
    run(directory.path(), own.to_str().unwrap(), &format!("--exact {test} --nocapture"));
    None
}

/// Puts a new key into the token, takes it from the disk, and returns the thumbprint of its certificate.
fn import(directory: &Path, make: &str) -> String {
    run(directory, "openssl", make);
    run(directory, "openssl", &format!("req -new -x509 -key key.pem -subj /CN={DEVICE} -days 2 -out chain.pem"));
    run(directory, "openssl", "pkcs8 -topk8 -nocrypt -in key.pem -out key.p8");
    run(directory, "softhsm2-util", &format!("--import key.p8 --token {TOKEN} --pin {PIN} --label {DEVICE} --id 01"));
    for file in ["key.pem", "key.p8"] {
        std::fs::remove_file(directory.join(file)).unwrap();
    }
    let thumbprint = run(directory, "openssl", "x509 -in chain.pem -noout -fingerprint -sha256");
    thumbprint.trim().rsplit_once('=').unwrap().1.replace(':', "")
}

/// Lets a device deliver with the token's key and a certificate.
async fn delivers_with_certificate(pipe: Pipe, test: &str, make: &str) {
    let Some(directory) = with_token(test) else { return };
    let thumbprint = import(&directory, make);
    let auth = DeviceAuth::Thumbprint { primary: thumbprint, secondary: None };
    let mut scene = Scene::start(Config::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, auth))).await;
    scene.secrets.push(PIN.to_owned());
    let token = Pkcs11::open(MODULE, TOKEN, PIN).unwrap();
    let certificate = token.client_certificate(directory.join("chain.pem"), DEVICE);
    assert!(!format!("{token:?} {certificate:?}").contains(PIN));
    let builder = scene.builder(pipe).hub(HUB_A, DEVICE).client_certificate(certificate);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.delivered().await;
    // And once more, with the session that is open.
    scene.emulator.hub(HUB_A).device(DEVICE).disconnect(false).unwrap();
    actor.send(5).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.accepted, 2);
}

on_every_pipe!(a_key_of_p256, a_key_of_p384, a_key_of_rsa, a_secret_key_signs_tokens);

/// The name of a test made by [`on_every_pipe`].
fn named(pipe: Pipe, test: &str) -> String {
    let pipe = if pipe == Pipe::Bytes { "byte_pipe" } else { "rumqttc_pipe" };
    format!("{pipe}::{test}")
}

async fn a_key_of_p256(pipe: Pipe) {
    let make = "ecparam -name prime256v1 -genkey -noout -out key.pem";
    delivers_with_certificate(pipe, &named(pipe, "a_key_of_p256"), make).await;
}

async fn a_key_of_p384(pipe: Pipe) {
    let make = "ecparam -name secp384r1 -genkey -noout -out key.pem";
    delivers_with_certificate(pipe, &named(pipe, "a_key_of_p384"), make).await;
}

async fn a_key_of_rsa(pipe: Pipe) {
    delivers_with_certificate(pipe, &named(pipe, "a_key_of_rsa"), "genrsa -out key.pem 2048").await;
}

async fn a_secret_key_signs_tokens(pipe: Pipe) {
    if with_token(&named(pipe, "a_secret_key_signs_tokens")).is_none() {
        return;
    }
    put_secret();
    let scene = Scene::at_hub().await;
    let token = Pkcs11::open(MODULE, TOKEN, PIN).unwrap();
    let builder = scene.builder(pipe).hub(HUB_A, DEVICE).signer(token.signer("secret"));
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
}

/// Puts the key of the scenes into the token, so that nobody can read it there.
fn put_secret() {
    let module = cryptoki::context::Pkcs11::new(MODULE).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&PIN.into())).unwrap();
    let key = session
        .create_object(&[
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Label(b"secret".to_vec()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Value(key_bytes()),
        ])
        .unwrap();
    assert_eq!(session.get_attributes(key, &[AttributeType::Value]).unwrap(), []);
}

/// The bytes of the key of the scenes.
fn key_bytes() -> Vec<u8> {
    let text = key().to_base64();
    let digit = |byte: u8| {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|at| *at == byte)
    };
    let (mut bytes, mut word, mut bits) = (Vec::new(), 0_usize, 0);
    for digit in text.bytes().filter_map(digit) {
        word = word << 6 | digit;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 0xff).unwrap());
        }
    }
    bytes
}

#[test]
fn what_is_wrong_with_a_token_is_told_and_a_wrong_pin_is_tried_once() {
    let Some(directory) = with_token("what_is_wrong_with_a_token_is_told_and_a_wrong_pin_is_tried_once") else {
        return;
    };
    import(&directory, "ecparam -name secp521r1 -genkey -noout -out key.pem");
    assert_eq!(Pkcs11::open(MODULE, "elsewhere", PIN).unwrap_err(), Pkcs11Error::NoToken("elsewhere".into()));
    let error = Pkcs11::open(MODULE, TOKEN, "99999999").unwrap_err();
    assert_eq!(error, Pkcs11Error::Pin);
    assert!(!format!("{error} {error:?}").contains("9999"));
    let token = Pkcs11::open(MODULE, TOKEN, PIN).unwrap();
    let build = |key: &str| {
        let certificate = token.client_certificate(directory.join("chain.pem"), key);
        Device::builder().hub(HUB_A, DEVICE).client_certificate(certificate).build().map(drop).unwrap_err()
    };
    let unusable = |error: Pkcs11Error| BuildError::Tls(TlsError::Unusable(error.to_string()));
    assert_eq!(build("other"), unusable(Pkcs11Error::NoKey("other".into())));
    assert_eq!(build(DEVICE), unusable(Pkcs11Error::KindOfKey(DEVICE.into())));
}
