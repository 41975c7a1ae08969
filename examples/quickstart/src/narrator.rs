//! Prints events as they happen.

use std::time::Duration;

use hub_emulator::Control;
use steadfast::{Device, Event, LinkEvent};

/// Prints lines with the time since the service started.
#[derive(Clone, Debug)]
pub(crate) struct Narrator {
    service: Control,
}

impl Narrator {
    pub(crate) fn new(service: Control) -> Self {
        Self { service }
    }

    pub(crate) fn now(&self) -> Duration {
        self.service.now()
    }

    /// Begins a chapter.
    pub(crate) fn chapter(&self, title: &str, what: &str) {
        println!("\n{title}\n  {what}");
    }

    pub(crate) fn say(&self, who: &str, what: &str) {
        println!("  {:6.2} s  {who:<8} {what}", self.now().as_secs_f64());
    }

    /// Prints the events of a device, except those of single messages.
    pub(crate) fn tell(&self, name: &str, device: &Device, event: Event) {
        let Event::Link(event) = event else { return };
        let hub = device.assignment().map_or_else(String::new, |assignment| short(assignment.hub()).to_owned());
        let waits = match device.status().queued.messages {
            0 => "no message waits".to_owned(),
            1 => "1 message waits".to_owned(),
            queued => format!("{queued} messages wait"),
        };
        let text = match event {
            LinkEvent::Provisioned { migrated: false } => format!("DPS names {hub}"),
            LinkEvent::Provisioned { migrated: true } => format!("DPS names {hub}; the queue moves along"),
            LinkEvent::Up { session_present: true } => format!("up at {hub}, which kept the session; {waits}"),
            LinkEvent::Up { session_present: false } => format!("up at {hub}, a new session; {waits}"),
            LinkEvent::Down(failure) => format!("down: {failure}"),
            LinkEvent::Retrying { failure, delay } => {
                format!("tries again in {:.2} s; {waits}; cause: {failure}", delay.as_secs_f64())
            }
            LinkEvent::Renewing => "disconnects for a moment to renew its token".to_owned(),
            LinkEvent::ClockSkew { seconds } => format!("the clock is {seconds} s behind the service's"),
            LinkEvent::Dropped(dropped) => format!("{} messages were dropped: {}", dropped.count, dropped.reason),
            LinkEvent::Stopped => "stopped".to_owned(),
            LinkEvent::Delivered(_) | LinkEvent::InboundOverflow | _ => return,
        };
        self.say(name, &text);
    }
}

/// The first label of a host name.
pub(crate) fn short(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}
