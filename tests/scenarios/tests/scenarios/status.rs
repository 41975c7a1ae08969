//! What the link says about itself.

use scenarios::{hours, mins, secs};
use steadfast_core::{Advice, State, TlsFailure};
use steadfast_sim::service::{DpsFault, Greeting, PublishFault};
use steadfast_sim::{Reach, World};

fn stable() -> World {
    let mut world = World::builder().seed(1).assigned().build();
    world.start();
    world.run_until_up();
    world.run_for(mins(5));
    world
}

#[test]
fn each_trouble_is_told_in_words_with_what_to_do() {
    let expired = Reach::Tls(TlsFailure::Expired);
    let issuer = Reach::Tls(TlsFailure::UnknownIssuer);
    let table = [
        (Reach::Refused, "the host refused the connection", Advice::CheckNetwork),
        (Reach::BlackHole, "did not answer the connection attempt in time", Advice::CheckNetwork),
        (Reach::Unresolved, "the host name was not resolved", Advice::CheckNetwork),
        (Reach::NoRoute, "the network reported an error, such as no route", Advice::CheckNetwork),
        (expired, "the certificate has expired, or the device's clock is ahead", Advice::CheckValidity),
        (issuer, "no trusted root issued the certificate", Advice::CheckCertificates),
        (Reach::Tls(TlsFailure::NotYetValid), "is not valid yet", Advice::CheckValidity),
        (Reach::Tls(TlsFailure::WrongName), "the certificate is for another name", Advice::CheckHostName),
        (Reach::Tls(TlsFailure::Revoked), "the certificate is revoked", Advice::ReplaceCertificate),
        (Reach::Tls(TlsFailure::BadCertificate), "not fit for a server", Advice::ReplaceCertificate),
        (Reach::Tls(TlsFailure::BadSignature), "a weak key, or a root of that name", Advice::ReplaceCertificate),
        (Reach::Tls(TlsFailure::Incompatible), "no protocol version, suite or group", Advice::CheckTls),
        (Reach::Tls(TlsFailure::Handshake), "the handshake broke off", Advice::CheckService),
        (Reach::Tls(TlsFailure::Alert(80)), "the service sent alert 80", Advice::CheckService),
        (Reach::Tls(TlsFailure::Garbled), "the data is not TLS", Advice::CheckService),
        (Reach::TlsStalls, "TLS was not completed in time", Advice::CheckNetwork),
        (Reach::ClosedAfterTls, "the connection ended without a reason", Advice::Wait),
    ];
    for (reach, words, advice) in table {
        let mut world = stable();
        world.network().set_all(Some(reach));
        world.reset_all();
        world.run_until("backing off", mins(2), |world| {
            world.state() == State::BackingOff && world.status().failures > 1
        });
        let said = world.status().to_string();
        assert!(said.starts_with("backing off for ") && said.contains(words), "{said}");
        assert!(said.contains("at the hub in ") && said.contains("0 messages (0 bytes) queued"), "{said}");
        assert_eq!(world.status().advice(), advice, "{said}");
    }
}

#[test]
fn each_refusal_is_told_in_words_with_what_to_do() {
    let table = [
        (Greeting::Code(2), "code 2 (identifier rejected)", Advice::CheckCredential),
        (Greeting::Code(3), "code 3 (server unavailable)", Advice::Wait),
        (Greeting::Code(5), "code 5 (not authorized)", Advice::CheckCredential),
        (Greeting::Silence, "the service was silent after CONNECT", Advice::Wait),
        (Greeting::Bytes(b"HTTP/1.1 200 OK\r\n".to_vec()), "bytes that are not MQTT", Advice::CheckService),
    ];
    for (greeting, words, advice) in table {
        let mut world = stable();
        world.hub_mut(0).faults.greeting = greeting;
        world.reset_all();
        world.run_until("refused", mins(10), |world| world.status().failures == 2);
        let said = world.status().to_string();
        assert!(said.contains("first because the connection ended without a reason"), "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(world.status().advice(), advice, "{said}");
    }
}

#[test]
fn provisioning_troubles_are_told_in_words_with_what_to_do() {
    let table = [
        (DpsFault::Disabled, "the enrollment is disabled", Advice::CheckEnrollment),
        (DpsFault::Failed(400_208), "failed with error code 400208", Advice::CheckEnrollment),
        (
            DpsFault::Refuse { status: 404, code: 404_201 },
            "refused with 404, error code 404201",
            Advice::CheckEnrollment,
        ),
        (DpsFault::Silence, "provisioning: ", Advice::Wait),
    ];
    for (fault, words, advice) in table {
        let mut world = World::builder().build();
        world.dps_mut().fault = fault;
        world.start();
        world.run_until("failed", mins(2), |world| world.status().failures == 1);
        let said = world.status().to_string();
        assert!(said.contains(words) && said.contains("at the provisioning service"), "{said}");
        assert_eq!(world.status().advice(), advice, "{said}");
    }
}

#[test]
fn a_link_that_is_well_says_so() {
    let mut world = stable();
    world.hub_mut(0).faults.publish = PublishFault::AckLate(5_000);
    world.publish_many(2);
    let status = world.status();
    assert_eq!((status.failures, status.advice(), status.in_flight), (0, Advice::Nothing, 2));
    assert!(status.to_string().starts_with("up for "), "{status}");
    assert!(status.to_string().ends_with("2 messages (2 bytes) queued, 2 in flight"), "{status}");
}

#[test]
fn a_status_speaks_of_durations_and_never_of_the_clock_of_the_frontend() {
    let mut world = World::builder().assigned().start_at_ms(84_210_000).build();
    world.start();
    world.run_until_up();
    world.run_for(secs(185));
    world.command(0, |link, now| link.handle_timeout(now));
    let up = world.status();
    assert!(up.to_string().starts_with("up for 3 min 5 s; "), "{up}");
    let later = up.at(up.now.after(hours(3)));
    assert!(later.to_string().starts_with("up for 3 h 3 min; "), "{later}");
    world.hub_down(0);
    world.run_until("waiting", mins(1), |world| world.state() == State::BackingOff);
    let waiting = world.status();
    let (lasted, next) = (waiting.lasted(), waiting.next_attempt_in().unwrap());
    assert!(lasted < secs(1) && next <= secs(3), "{waiting}");
    let text = waiting.to_string();
    assert!(text.starts_with("backing off for ") && text.contains(" at the hub in "), "{text}");
    for status in [up, waiting] {
        assert!(!status.to_string().contains("84"), "no second of the boot clock: {status}");
    }
}

#[test]
fn a_failure_tells_when_and_where_the_next_attempt_goes() {
    let mut world = stable();
    world.hub_down(0);
    world.run_for(secs(30));
    world.run_until("waiting", mins(1), |world| world.state() == State::BackingOff);
    let (at, _) = world.status().next_attempt.unwrap();
    let before = world.attempts().len();
    world.run_until("tried", mins(1), |world| world.attempts().len() > before);
    assert_eq!(world.now(), at);
}

#[test]
fn a_wrong_clock_is_told_in_words_whichever_way_it_is_wrong() {
    for (offset, words) in [(-7_200, "the clock is 7200 s behind the service's"), (7_200, "ahead of the service's")] {
        let mut world = World::builder().build();
        world.dps_mut().next_faults.push_back(DpsFault::Refuse { status: 401, code: 401_002 });
        world.set_clock(offset);
        world.start();
        world.run_until("refused", mins(1), |world| world.status().failures == 1);
        let said = world.status().to_string();
        assert!(said.contains(words), "{said}");
        assert_eq!(world.status().advice(), Advice::SetClock);
    }
}
