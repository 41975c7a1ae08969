//! Proxies, WebSockets and keys that change: what stands before MQTT, and never costs a message.

#![expect(clippy::unwrap_used, reason = "a scenario fails where it is")]

use core::time::Duration;

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::{Event, Failure, LocalFailure, ServiceKind};
use steadfast_sim::{Feed, Proxy, ProxyMood, Reach, Signing, UpgradeMood, World};

const LOGIN: &str = "Basic cHVtcC03OndldA==";
const PORTAL: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Welcome to the hotel</html>";

fn world(seed: u64) -> World {
    let feed = if seed.is_multiple_of(2) { Feed::Whole } else { Feed::Bytes };
    World::builder().seed(seed).feed(feed).build()
}

fn behind_proxy(seed: u64) -> World {
    let mut world = world(seed);
    world.network().proxy = Some(Proxy::default());
    world
}

fn over_web_sockets(seed: u64) -> World {
    let mut world = world(seed);
    world.network().web_sockets = Some(UpgradeMood::Opens);
    world
}

fn set_proxy(world: &mut World, mood: ProxyMood) {
    world.network().proxy.as_mut().unwrap().mood = mood;
    world.reset_all();
}

fn set_upgrade(world: &mut World, mood: UpgradeMood) {
    world.network().web_sockets = Some(mood);
    world.reset_all();
}

/// The causes the link named for its attempts, without repetitions.
fn causes(world: &World) -> Vec<Failure> {
    let mut causes: Vec<_> = world
        .events()
        .iter()
        .filter_map(|(_, event)| if let Event::Retrying { failure, .. } = event { Some(*failure) } else { None })
        .collect();
    causes.dedup();
    causes
}

fn settled(mut world: World) -> World {
    world.start();
    world.run_until_up();
    world.run_for(mins(10));
    world
}

#[test]
fn provisioning_and_hub_are_both_reached_through_the_proxy() {
    seeds(20, |seed| {
        let mut world = behind_proxy(seed);
        world.start();
        world.publish_many(5);
        world.run_until_delivered();
        let hub = world.hub(0).name().to_owned();
        let asked = world.network().proxy.as_ref().unwrap().asked.clone();
        assert_eq!(asked, [steadfast_core::dps::topics::GLOBAL_HOST, hub.as_str()], "seed {seed}");
    });
}

#[test]
fn a_proxy_that_wants_another_password_is_told_as_such_and_asked_at_the_pace_of_an_outage() {
    let mut world = settled(behind_proxy(3));
    world.publish_many(5);
    let proxy = world.network().proxy.as_mut().unwrap();
    (proxy.wants, proxy.sent) = (Some(LOGIN.into()), Some("Basic d3Jvbmc=".into()));
    world.reset_all();
    let before = world.attempts().len();
    world.run_for(hours(24));
    let attempts = world.attempts().len() - before;
    assert!((700..1_200).contains(&attempts), "{attempts} attempts a day: one in two minutes at most");
    assert_eq!(world.status().last_failure, Some(Failure::Local(LocalFailure::ProxyAuthentication)));
    assert_eq!(world.registrations().len(), 1, "a proxy says nothing of the hub");
    world.network().proxy.as_mut().unwrap().sent = Some(LOGIN.into());
    assert!(world.run_until_delivered() <= mins(3));
}

#[test]
fn whatever_a_proxy_does_it_is_not_held_against_the_hub() {
    let table = [
        (ProxyMood::Away, LocalFailure::ProxyUnreachable),
        (ProxyMood::Silent, LocalFailure::ProxySilent),
        (ProxyMood::BreaksOff, LocalFailure::ProxySilent),
        (ProxyMood::Answers("HTTP/1.1 403 Forbidden\r\n\r\n".into()), LocalFailure::ProxyRefused(403)),
        (ProxyMood::Answers("HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n".into()), LocalFailure::ProxyRefused(302)),
        (ProxyMood::Answers("SSH-2.0-OpenSSH_9.2\r\n".into()), LocalFailure::ProxyRefused(0)),
    ];
    for (mood, cause) in table {
        let mut world = settled(behind_proxy(4));
        world.publish_many(5);
        set_proxy(&mut world, mood.clone());
        world.run_for(hours(24 * 3));
        let mut causes = causes(&world);
        causes.retain(|cause| *cause != Failure::Lost);
        assert_eq!(causes, [Failure::Local(cause)], "{mood:?}");
        assert_eq!(world.registrations().len(), 1, "{mood:?}");
        set_proxy(&mut world, ProxyMood::Opens);
        assert!(world.run_until_delivered() <= mins(3), "{mood:?}");
    }
}

#[test]
fn a_captive_portal_is_taken_neither_for_a_tunnel_nor_for_a_hub() {
    let mut world = settled(behind_proxy(6));
    world.publish_many(5);
    set_proxy(&mut world, ProxyMood::Answers(PORTAL.into()));
    world.run_for(hours(8));
    assert_eq!(world.status().last_failure, Some(Failure::Local(LocalFailure::ProxyRefused(0))));
    set_proxy(&mut world, ProxyMood::Opens);
    world.run_until_delivered();
    let mut world = settled(over_web_sockets(6));
    world.publish_many(5);
    set_upgrade(&mut world, UpgradeMood::Answers(302, None));
    world.run_for(hours(8));
    assert_eq!(world.status().last_failure, Some(Failure::UpgradeRefused { status: 302, retry_after_secs: None }));
    assert_eq!(world.registrations().len(), 1);
    set_upgrade(&mut world, UpgradeMood::Opens);
    world.run_until_delivered();
}

#[test]
fn a_hub_that_the_proxy_cannot_reach_is_looked_up_as_one_out_of_reach() {
    seeds(10, |seed| {
        let mut world = settled(behind_proxy(seed));
        world.publish_many(5);
        world.move_device(0, 1);
        let hub = world.hub(0).name().to_owned();
        world.network().set(&hub, Reach::Unresolved);
        let took = world.run_until_delivered();
        assert!((mins(20)..=mins(45)).contains(&took), "seed {seed}: {took:?}");
        assert_eq!(world.registrations().len(), 2);
        assert!(causes(&world).contains(&Failure::Network));
    });
}

#[test]
fn a_service_that_asks_for_patience_with_the_upgrade_gets_it() {
    seeds(20, |seed| {
        let mut world = settled(over_web_sockets(seed));
        world.publish_many(5);
        let refused = Failure::UpgradeRefused { status: 503, retry_after_secs: Some(600) };
        set_upgrade(&mut world, UpgradeMood::Answers(503, Some("600")));
        world.run_for(mins(1));
        assert_eq!(world.status().last_failure, Some(refused), "seed {seed}");
        let asked = world.attempts().last().unwrap().at_ms;
        set_upgrade(&mut world, UpgradeMood::Opens);
        world.run_until_delivered();
        let waited = world.attempts().last().unwrap().at_ms - asked;
        assert!((600_000..=900_500).contains(&waited), "seed {seed}: {waited} ms");
        assert_eq!(world.registrations().len(), 1);
    });
}

#[test]
fn an_overloaded_upgrade_is_overload_and_not_a_reason_to_register() {
    for status in [429, 500, 503] {
        let mut world = settled(over_web_sockets(7));
        world.publish_many(5);
        set_upgrade(&mut world, UpgradeMood::Answers(status, None));
        world.run_for(hours(6));
        assert_eq!(world.registrations().len(), 1, "{status}");
        let delays = world.delays_ms();
        let last = delays.last().unwrap();
        assert!(*last > 600_000, "{status}: the wait grows with the age of the overload, {last} ms");
        set_upgrade(&mut world, UpgradeMood::Opens);
        world.run_until_delivered();
    }
}

#[test]
fn an_upgrade_refused_for_its_credential_leads_to_provisioning() {
    seeds(10, |seed| {
        let mut world = settled(over_web_sockets(seed));
        set_upgrade(&mut world, UpgradeMood::Answers(401, None));
        world.run_until("a second registration is tried", hours(2), |world| {
            world.attempts().iter().filter(|attempt| attempt.role == ServiceKind::Provisioning).count() > 1
        });
        set_upgrade(&mut world, UpgradeMood::Opens);
        world.publish("kept");
        world.run_until_delivered();
    });
}

#[test]
fn a_service_that_is_no_web_socket_or_says_nothing_costs_attempts_and_no_message() {
    for mood in
        [UpgradeMood::Babble, UpgradeMood::Silent, UpgradeMood::Answers(101, None), UpgradeMood::Answers(404, None)]
    {
        let mut world = settled(over_web_sockets(8));
        world.publish_many(5);
        set_upgrade(&mut world, mood.clone());
        let before = world.attempts().len();
        world.run_for(mins(19));
        let attempts = world.attempts().len() - before;
        assert!((3..=60).contains(&attempts), "{mood:?}: {attempts} attempts");
        set_upgrade(&mut world, UpgradeMood::Opens);
        world.run_until_delivered();
    }
}

#[test]
fn proxies_upgrades_cuts_and_moves_together_lose_nothing() {
    seeds(60, |seed| {
        let mut world = behind_proxy(seed);
        world.network().web_sockets = Some(UpgradeMood::Opens);
        world.start();
        let mut at = 0;
        for round in 0..40 {
            // What does not fit is refused, which is an answer; what is accepted has to arrive.
            let _ = world.try_publish(format!("{round}").as_bytes(), None);
            match world.rng().between(0, 9) {
                0 => set_proxy(&mut world, ProxyMood::Away),
                1 => set_proxy(&mut world, ProxyMood::Silent),
                2 => set_proxy(&mut world, ProxyMood::Answers(PORTAL.into())),
                3 => set_upgrade(&mut world, UpgradeMood::Answers(503, Some("30"))),
                4 => set_upgrade(&mut world, UpgradeMood::Babble),
                5 => {
                    world.move_device(at, 1 - at);
                    at = 1 - at;
                }
                6 => world.cut_to_service(50),
                _ => {
                    set_proxy(&mut world, ProxyMood::Opens);
                    set_upgrade(&mut world, UpgradeMood::Opens);
                }
            }
            let pause = world.rng().between(0, 120_000);
            world.run_for(Duration::from_millis(pause));
        }
        set_proxy(&mut world, ProxyMood::Opens);
        set_upgrade(&mut world, UpgradeMood::Opens);
        world.run_until_delivered();
    });
}

#[test]
fn the_second_key_is_used_after_one_refusal_of_the_first_and_kept_to() {
    seeds(20, |seed| {
        let mut world = world(seed);
        world.give_second_key();
        let mut world = settled(world);
        world.publish_many(5);
        world.take_first_key_away(0);
        let took = world.run_until_delivered();
        assert!(took <= secs(30), "seed {seed}: {took:?}");
        assert_eq!(world.registrations().len(), 1, "a key that was replaced is no reason to register");
        // Renewals and reconnections keep to it.
        let refused = world.hub(0).connects() - world.hub(0).accepted();
        world.run_for(hours(24));
        world.reset_all();
        world.run_until_up();
        assert_eq!(world.hub(0).connects() - world.hub(0).accepted(), refused, "seed {seed}");
    });
}

#[test]
fn each_service_has_its_own_choice_of_key() {
    let mut world = world(2);
    world.give_second_key();
    world.take_first_key_away_at_dps();
    world.start();
    world.publish_many(5);
    world.run_until_delivered();
    assert_eq!(world.hub(0).connects(), world.hub(0).accepted(), "the hub knows the first key and is offered that");
}

#[test]
fn a_holder_of_tokens_that_hangs_or_fails_is_asked_again_and_costs_no_registration() {
    seeds(20, |seed| {
        let mut world = settled(world(seed));
        world.publish_many(5);
        world.set_signing(if seed.is_multiple_of(2) { Signing::Never } else { Signing::Fails(LocalFailure::Signing) });
        world.reset_all();
        world.run_for(hours(12));
        assert_eq!(world.registrations().len(), 1, "seed {seed}");
        let cause = if seed.is_multiple_of(2) { LocalFailure::SigningTimeout } else { LocalFailure::Signing };
        assert_eq!(world.status().last_failure, Some(Failure::Local(cause)));
        world.set_signing(Signing::Prompt);
        assert!(world.run_until_delivered() <= mins(4), "seed {seed}");
    });
}
