//! What the example programs share: where the device belongs, and its link's scenario in words.
//!
//! Each program in `src/bin` is one device. With `IOTHUB_DEVICE_CONNECTION_STRING`, or `DPS_ID_SCOPE`,
//! `DPS_REGISTRATION_ID` and `DPS_KEY`, in its environment it works at a real hub until Ctrl-C, or for `--for SECONDS`.
//! Without them it starts a local hub in its own process, which plays the cloud ([`local`]): a few seconds of work and
//! trouble, after which the program says whether anything was lost.
#![expect(clippy::print_stdout, reason = "telling what happens is what the programs are for")]

pub mod local;
mod place;

use std::fmt;
use std::sync::LazyLock;
use std::time::Instant;

use steadfast::{Device, Event, LinkEvent};

pub use place::{CertificateFiles, Place};

/// What the programs return: whatever goes wrong ends them with an exit code that is not 0.
pub type Outcome<T = ()> = Result<T, Problem>;

/// Why a program failed, made of any error. Its `Debug` is the words alone, which is what `main` prints.
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

/// Tells the scenario of the link from here on, in a task of its own. An application would log this, or show it.
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
