//! A process that has no descriptor left.
#![cfg(target_os = "linux")]

mod support;

use std::fs::File;
use std::process::Command;

use steadfast::{Advice, Device, Failure, FailureClass, LocalFailure};
use support::{hasty, soon};

/// Tells the child of this test that it is one.
const CHILD: &str = "STEADFAST_STARVED_CHILD";

#[tokio::test]
async fn the_child_of_the_other_test() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    for address in [None, Some("127.0.0.1:1".parse().unwrap())] {
        let builder =
            Device::builder().broker("broker.example", "c").anonymous().plaintext_unprotected().retry(hasty());
        let builder = address.iter().fold(builder, |builder, address| builder.resolve("broker.example", [*address]));
        let (device, driver) = builder.build().unwrap();
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        assert!(files.len() < 100, "the limit holds");
        let driver = tokio::spawn(driver);
        let mut status = device.status_changes();
        let status = soon(status.wait_for(|status| status.failures > 1)).await.unwrap().clone();
        drop(files);
        assert_eq!(status.first_failure, Some(Failure::Local(LocalFailure::Resources)));
        assert_eq!(status.last_failure, Some(Failure::Local(LocalFailure::Resources)));
        // Which the link never takes for evidence about the hub.
        assert_eq!(status.last_failure.map(Failure::class), Some(FailureClass::Local));
        assert_eq!(status.advice(), Advice::CheckDevice);
        driver.abort();
    }
}

#[test]
fn descriptors_that_are_used_up_are_told_as_such_whether_a_name_or_a_socket_is_wanted() {
    let child = Command::new("sh")
        .args(["-c", r#"ulimit -n 64; exec "$0" --exact the_child_of_the_other_test"#])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}
