//! A driver that nobody polls is noticed.

mod support;

use std::time::Duration;

use steadfast::{BuildError, Device, TopicMessage};
use support::Log;

fn broker() -> steadfast::Builder {
    Device::builder().broker("localhost", "pump-7").anonymous().plaintext_unprotected()
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_driver_that_nobody_polls_is_told_once() {
    let log = Log::of_process();
    let (device, driver) = broker().build().unwrap();
    let mut receipt = device.send(TopicMessage::new("t", "x")).await.unwrap();
    for _ in 0..3 {
        let waited = tokio::time::timeout(Duration::from_secs(7), &mut receipt).await;
        assert!(waited.is_err(), "nothing can be delivered");
    }
    let text = log.text();
    assert_eq!(text.matches("nobody polls the driver").count(), 1, "{text}");
    drop(driver);
}

#[test]
fn spawning_outside_a_runtime_is_an_error_that_says_so() {
    let error = broker().spawn().unwrap_err();
    assert!(matches!(error, BuildError::NoRuntime), "{error}");
    assert!(error.to_string().contains("spawn the driver"), "{error}");
}
