//! Tokens that somebody else has made, and how long they are good for.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails where it is")]

use std::time::Duration;

use steadfast_core::{
    Action, Attempt, Config, Credential, Failure, Input, Instant, IotHub, Link, LocalFailure, Output, RamOutbox, Seed,
    Service, Settings, State, TimerReason,
};

static CONFIG: Config<&str> =
    Config::new(Service::Hub { host: "contoso.azure-devices.net", device_id: "pump-7" }, Credential::SharedKey);

/// 2026-01-01 00:00 UTC.
const NOW: u64 = 1_767_225_600;

struct Keeping(Option<String>);

impl Settings for Keeping {
    type Text = &'static str;

    fn config(&self) -> &Config<&'static str> {
        &CONFIG
    }

    fn keep_token(&mut self, token: &str) -> bool {
        self.0 = Some(token.to_owned());
        true
    }

    fn token(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

type Keeper<S> = Link<RamOutbox<1, 64>, IotHub<S>>;

/// Carries out what `link` wants but packets, until it waits; returns the attempt that wants a proof, if one does, and
/// the deadline.
fn drain<S: Settings>(link: &mut Keeper<S>) -> (Option<Attempt>, Vec<String>, Option<(Instant, TimerReason)>) {
    let (mut wanted, mut packets) = (None, Vec::new());
    loop {
        match link.poll_output() {
            Output::Wait(deadline) => {
                return (wanted, packets, deadline.map(|deadline| (deadline.at, deadline.reason)));
            }
            Output::Action(Action::Sign { attempt, .. }) => wanted = Some(attempt),
            Output::Action(Action::Send { packet, .. }) => {
                let mut bytes = Vec::new();
                packet.encode(&mut Bytes(&mut bytes)).unwrap();
                packets.push(String::from_utf8_lossy(&bytes).into_owned());
            }
            _ => {}
        }
    }
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl steadfast_core::text::Sink for Bytes<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), steadfast_core::text::SinkFull> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Starts a link and lets it come to the point where it wants a proof.
fn wanting<S: Settings>(settings: S) -> (Keeper<S>, Attempt, Instant) {
    let mut link = Link::new(IotHub::new(settings), RamOutbox::new(), Seed::from_number(7), Instant::ORIGIN).unwrap();
    link.set_wall_clock(NOW, Instant::ORIGIN);
    link.start(Instant::ORIGIN);
    let (_, _, deadline) = drain(&mut link);
    let now = deadline.unwrap().0;
    link.handle_timeout(now);
    let attempt = drain(&mut link).0.unwrap();
    (link, attempt, now)
}

fn token(expiry: u64) -> String {
    format!("SharedAccessSignature sr=contoso.azure-devices.net%2fdevices%2fpump-7&sig=c2lnbmVk&se={expiry}")
}

#[test]
fn a_token_is_sent_as_it_is_and_renewed_before_its_own_expiry() {
    for (left, low, high) in [(1_000, 750, 900), (7_200, 5_400, 6_480), (5, 45, 54)] {
        let (mut link, attempt, now) = wanting(Keeping(None));
        let token = token(NOW + left + now.since(Instant::ORIGIN).as_secs());
        link.handle_input(Input::Token(&token), attempt, now);
        drain(&mut link);
        link.handle_input(Input::Ready, attempt, now);
        assert!(drain(&mut link).1[0].ends_with(&token));
        link.handle_input(Input::Bytes(&[0x20, 2, 0, 0]), attempt, now);
        assert_eq!(link.status().state, State::Up);
        let mut renewed = None;
        let mut at = now;
        // Pings and the stable time come first.
        while renewed.is_none() && at < now.after(Duration::from_secs(8_000)) {
            let (_, packets, deadline) = drain(&mut link);
            if !packets.is_empty() {
                link.handle_input(Input::Bytes(&[0xd0, 0]), attempt, at);
                continue;
            }
            let (next, reason) = deadline.unwrap();
            at = next.max(at);
            renewed = (reason == TimerReason::TokenRenewal).then_some(at);
            link.handle_timeout(at);
        }
        let renewed = renewed.unwrap().since(now).as_secs();
        assert!((low..=high).contains(&renewed), "{left} s left, renewed after {renewed} s");
    }
}

#[test]
fn a_token_that_is_none_or_has_expired_is_a_failure_of_who_made_it() {
    for bad in [token(NOW - 1), token(0), String::from("Bearer x"), String::new()] {
        let (mut link, attempt, now) = wanting(Keeping(None));
        link.handle_input(Input::Token(&bad), attempt, now);
        assert_eq!(link.status().last_failure, Some(Failure::Local(LocalFailure::Signing)), "{bad}");
        let (again, _, deadline) = drain(&mut link);
        assert!(again.is_none() && deadline.is_some_and(|(_, reason)| reason == TimerReason::Retry));
    }
}

#[test]
fn settings_without_room_for_a_token_take_none() {
    let (mut link, attempt, now) = wanting(&CONFIG);
    link.handle_input(Input::Token(&token(NOW + 3_600)), attempt, now);
    assert_eq!(link.status().last_failure, Some(Failure::Local(LocalFailure::Signing)));
}

#[test]
fn a_late_token_changes_nothing() {
    let (mut link, attempt, now) = wanting(Keeping(None));
    link.handle_input(Input::Signed(&[7; 32]), attempt, now);
    let state = link.status();
    link.handle_input(Input::Token(&token(NOW + 3_600)), attempt, now);
    assert_eq!(link.status(), state);
}
