//! A device that loses power in an outage.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use steadfast::{Builder, RetryPolicy, Seed, State};
use support::{Server, soon};

/// What the memory says, once it is there and says something new.
async fn memory(path: &Path, before: &str) -> String {
    soon(async {
        loop {
            if let Ok(text) = std::fs::read_to_string(path)
                && text != before
            {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// The first delay of a device that starts, the longest of several seeds.
async fn first_delay(make: impl Fn() -> Builder) -> Duration {
    let mut longest = Duration::ZERO;
    for seed in 0..20 {
        let (device, driver) = make().seed(Seed::from_number(seed)).build().unwrap();
        // One poll begins the wait; more might end it.
        let polled = pin!(driver).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let waiting = device.status();
        longest = longest.max(waiting.next_attempt.map_or(Duration::ZERO, |(at, _)| at.since(waiting.since)));
    }
    longest
}

#[tokio::test]
async fn a_power_cut_in_an_outage_does_not_make_a_new_device_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("back-off");
    let server = Server::start().await;
    let make = || server.client().retry(RetryPolicy::DEFAULT).backoff_file(&path);
    assert!(first_delay(make).await <= RetryPolicy::DEFAULT.first_jitter);
    assert!(!path.exists(), "without trouble there is nothing to remember");

    let hasty = RetryPolicy::DEFAULT.divided_by(1_000);
    let (device, driver) = make().retry(hasty).build().unwrap();
    let driver = tokio::spawn(driver);
    let mut peer = server.accept().await;
    let Some(Packet::Connect(_)) = peer.next().await else { panic!("no CONNECT") };
    peer.answer(ConnectReturnCode::ServiceUnavailable, false).await;
    let trouble = memory(&path, "").await;
    driver.abort();
    drop(device);

    let delay = first_delay(make).await;
    assert!(delay > Duration::from_secs(20), "{delay:?}");

    // The hasty device may have dialled again before it was cut off.
    server.turn_away().await;
    // Once the connection has lasted, the trouble is over and forgotten.
    let (device, driver) = make().retry(hasty).build().unwrap();
    let driver = tokio::spawn(driver);
    let _peer = server.welcome(false).await;
    soon(device.status_changes().wait_for(|status| status.state == State::Up)).await.unwrap();
    memory(&path, &trouble).await;
    driver.abort();
    assert!(first_delay(make).await <= RetryPolicy::DEFAULT.first_jitter);
}

#[tokio::test]
async fn the_hint_of_an_operator_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("back-off");
    let server = Server::start().await;
    let make = || server.client().retry(RetryPolicy::DEFAULT).backoff_file(&path);
    let (device, driver) = make().build().unwrap();
    let driver = tokio::spawn(driver);
    device.set_spread(Duration::from_secs(0x0abc));
    let text = memory(&path, "").await;
    driver.abort();
    assert!(text.contains("bc0a0000"), "{text}");
}

#[test]
fn a_memory_file_that_can_be_no_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let wrong = steadfast::Device::builder()
        .hub("a.azure-devices.net", "pump-7")
        .shared_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        .backoff_file(directory.path().join(".."))
        .build()
        .unwrap_err();
    assert!(wrong.to_string().contains("name the back-off file"), "{wrong}");
}
