//! Code that the example programs share: the device's service and credential, and a log of the link's events.
//!
//! Each program in `src/bin` is one device. With `IOTHUB_DEVICE_CONNECTION_STRING`, or `DPS_ID_SCOPE`,
//! `DPS_REGISTRATION_ID` and `DPS_KEY`, in its environment it connects to a real hub until Ctrl-C, or for `--for
//! SECONDS`. Without them it starts a local hub in its own process, which simulates the cloud ([`local`]): a few
//! seconds of work and faults, after which the program reports whether anything was lost.
#![expect(clippy::print_stdout, reason = "printing events is what the programs are for")]

pub mod local;
mod place;

use std::fmt;
use std::sync::LazyLock;
use std::time::Instant;

use steadfast::{Device, Event, LinkEvent};

pub use place::{CertificateFiles, Place};

/// The result of the programs: every error ends them with a non-zero exit code.
pub type Outcome<T = ()> = Result<T, Problem>;

/// Why a program failed, made from any error. Its `Debug`, which `main` prints, is the text alone.
pub struct Problem(String);

impl<E: fmt::Display> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints a line with the time since the first one.
pub fn say(who: &str, what: impl fmt::Display) {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    println!("{:6.2} s  {who:<6} {what}", BEGUN.elapsed().as_secs_f64());
}

/// Prints the link's events from here on, in a separate task. An application would log or display them.
pub fn narrate(device: &Device) {
    let device = device.clone();
    let mut events = device.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            tell(&device, event);
        }
    });
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is about single messages")]
fn tell(device: &Device, event: Event) {
    let Event::Link(event) = event else { return };
    let waiting = device.status().queued.messages;
    match event {
        LinkEvent::Provisioned { .. } => {
            let hub = device.assignment().map_or_else(String::new, |assignment| assignment.hub().to_owned());
            say("link", format_args!("DPS names {hub}"));
        }
        LinkEvent::Up { .. } => say("link", format_args!("up; messages waiting: {waiting}")),
        LinkEvent::Down(failure) => say("link", format_args!("down: {failure}")),
        LinkEvent::Retrying { delay, .. } => {
            say("link", format_args!("tries again in {:.2} s; messages waiting: {waiting}", delay.as_secs_f64()));
        }
        _ => {}
    }
}
