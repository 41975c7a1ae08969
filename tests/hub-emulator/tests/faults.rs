//! Every fault, as observed by a client.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::time::{Duration, Instant};

use hub_emulator::{CloseReason, Emulator, Fault, Injection, Outcome, Rate};
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, SubAck, SubscribeReasonCode};
use support::{
    Answer, Client, DEVICE, HUB, SOON, config, config_with, connect_packet, eventually, hub, not_authorized, refused,
    start, telemetry,
};

async fn greeted(emulator: &Emulator) -> (Client, Answer) {
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    let answer = client.connect_with(connect_packet()).await;
    (client, answer)
}

#[tokio::test]
async fn connect_is_refused_with_any_code_as_often_as_asked() {
    let emulator = start(config()).await;
    emulator.hub(HUB).inject(Injection::times(Fault::RefuseConnect { code: 3 }, 2));
    for _ in 0..2 {
        let (mut client, answer) = greeted(&emulator).await;
        assert_eq!(answer, refused(ConnectReturnCode::ServiceUnavailable));
        client.closed().await;
    }
    emulator.inject(Fault::RefuseConnect { code: 129 });
    let (_, answer) = greeted(&emulator).await;
    assert_eq!(answer, Answer::Bytes(Vec::new()), "the client's codec knows no code 129");
    Client::device(&emulator).await;
    let codes: Vec<_> = emulator.ledger().connections_of(DEVICE).iter().map(|record| record.outcome).collect();
    assert!(matches!(codes[0], Outcome::Refused { code: 3, .. }), "{codes:?}");
    assert!(matches!(codes[2], Outcome::Refused { code: 129, .. }), "{codes:?}");
    assert_eq!(codes[3], Outcome::Accepted { session_present: false });
}

#[tokio::test]
async fn connect_is_answered_late_never_or_with_a_close() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    device.inject(Fault::DelayConnack { delay: Duration::from_millis(200) });
    let before = Instant::now();
    Client::device(&emulator).await;
    assert!(before.elapsed() >= Duration::from_millis(200));
    device.inject(Fault::SilentConnect);
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    client.send(Packet::Connect(connect_packet())).await;
    client.silent().await;
    device.inject(Fault::CloseOnConnect);
    assert_eq!(greeted(&emulator).await.1, Answer::Closed);
    device.inject(Fault::CloseAfterConnack);
    let mut client = Client::device(&emulator).await;
    client.closed().await;
    assert_eq!(emulator.ledger().connections().last().unwrap().outcome, Outcome::Accepted { session_present: true });
}

#[tokio::test]
async fn connect_is_answered_with_garbage_or_a_page() {
    let emulator = start(config()).await;
    emulator.inject(Fault::GarbageInsteadOfConnack);
    assert!(matches!(greeted(&emulator).await.1, Answer::Bytes(_)));
    emulator.inject(Fault::HtmlInsteadOfConnack);
    match greeted(&emulator).await.1 {
        // The codec may parse the first letters of the page as a packet.
        Answer::Bytes(_) | Answer::Packet(_) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn session_present_can_lie() {
    let emulator = start(config()).await;
    emulator.inject(Fault::SessionPresent { present: true });
    assert!(Client::connected(&emulator, connect_packet()).await.1);
    emulator.inject(Fault::SessionPresent { present: false });
    assert!(!Client::connected(&emulator, connect_packet()).await.1);
    assert!(Client::connected(&emulator, connect_packet()).await.1);
}

#[tokio::test]
async fn a_connection_breaks_before_the_store_after_it_or_after_the_puback() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let cases = [
        (Fault::DropBeforeStore, false, false),
        (Fault::DropAfterStoreBeforePuback, true, false),
        (Fault::DropAfterPuback, true, true),
    ];
    for (number, (fault, stored, acknowledged)) in cases.into_iter().enumerate() {
        let mut client = Client::device(&emulator).await;
        device.inject(Injection::once(fault).after(1));
        client.delivered(&format!("before-{number}")).await;
        let id = client.message(&format!("m-{number}")).await;
        if acknowledged {
            client.acknowledged(id).await;
        }
        client.closed().await;
        let receipt = emulator.ledger().receipts(DEVICE).last().unwrap().clone();
        assert_eq!((receipt.stored, receipt.acknowledged_at.is_some()), (stored, acknowledged));
    }
    let report = emulator.ledger().check(DEVICE, ["before-0", "m-0", "before-1", "m-1", "before-2", "m-2"]);
    assert_eq!(report.lost, ["m-0"]);
}

#[tokio::test]
async fn pubacks_are_withheld_until_the_fault_is_cleared() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let mut client = Client::device(&emulator).await;
    device.inject(Injection::until_cleared(Fault::WithholdPubacks));
    let ids = [client.message("a").await, client.message("b").await];
    assert!(emulator.ledger().wait_for(DEVICE, 2, SOON).await);
    client.silent().await;
    client.send(Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PingResp);
    device.clear_faults();
    for id in ids {
        client.acknowledged(id).await;
    }
    client.delivered("c").await;
}

#[tokio::test]
async fn pubacks_arrive_late_twice_or_for_unknown_packets() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    emulator.inject(Fault::DelayPubacks { delay: Duration::from_millis(200) });
    let before = Instant::now();
    client.delivered("late").await;
    assert!(before.elapsed() >= Duration::from_millis(200));
    emulator.inject(Fault::RepeatPubacks);
    let id = client.message("twice").await;
    client.acknowledged(id).await;
    client.acknowledged(id).await;
    emulator.inject(Fault::StrayPubacks);
    let id = client.message("stray").await;
    assert!(matches!(client.packet().await, Packet::PubAck(PubAck { pkid }) if pkid != id));
    client.acknowledged(id).await;
}

#[tokio::test]
async fn a_late_puback_lets_later_messages_overtake() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    emulator.inject(Fault::DelayPubacks { delay: Duration::from_millis(100) });
    let late = client.message("late").await;
    let early = client.message("early").await;
    client.acknowledged(early).await;
    client.acknowledged(late).await;
}

#[tokio::test]
async fn a_half_open_connection_sends_and_stores_nothing() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    emulator.hub(HUB).device(DEVICE).inject(Fault::HalfOpen);
    client.message("unheard").await;
    client.send(Packet::PingReq).await;
    client.silent().await;
    assert!(emulator.ledger().receipts(DEVICE).is_empty());
    Client::device(&emulator).await.delivered("heard").await;
}

#[tokio::test]
async fn a_server_that_stops_reading_reads_on_when_the_fault_is_cleared() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    let device = emulator.hub(HUB).device(DEVICE);
    device.inject(Injection::until_cleared(Fault::StopReading));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let id = client.message("stuck").await;
    client.silent().await;
    device.clear_faults();
    client.acknowledged(id).await;
}

#[tokio::test]
async fn a_connection_closes_after_a_number_of_bytes_in_either_direction() {
    let emulator = start(config()).await;
    emulator.inject(Fault::CloseAfterSent { bytes: 3 });
    assert_eq!(greeted(&emulator).await.1, Answer::Bytes(vec![0x20, 2, 0]));
    let connect_length = Packet::Connect(connect_packet()).size() as u64;
    emulator.inject(Fault::CloseAfterReceived { bytes: connect_length + 10 });
    let mut client = Client::device(&emulator).await;
    client.message("cut").await;
    client.closed().await;
    assert!(emulator.ledger().receipts(DEVICE).is_empty());
    let mut client = Client::device(&emulator).await;
    client.delivered("a").await;
    let length = telemetry("b").len() as u64 + 2 + 2 + 2 + 1;
    emulator.hub(HUB).device(DEVICE).inject(Fault::CloseAfterReceived { bytes: length });
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.delivered("b").await;
    client.closed().await;
    let mut client = Client::device(&emulator).await;
    emulator.hub(HUB).device(DEVICE).inject(Fault::CloseAfterSent { bytes: 2 });
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.message("c").await;
    assert_eq!(client.answer().await, Answer::Bytes(vec![0x40, 2]));
}

#[tokio::test]
async fn subscriptions_are_refused() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    emulator.inject(Fault::RefuseSubscribe);
    let answer = client.subscribe("$iothub/twin/res/#").await;
    assert_eq!(answer, Answer::Packet(Packet::SubAck(SubAck::new(1, vec![SubscribeReasonCode::Failure]))));
    client.subscribed("$iothub/twin/res/#").await;
}

#[tokio::test]
async fn a_hub_goes_down_and_comes_up_on_its_own_port() {
    let emulator = start(config_with(hub().port(0))).await;
    let hub = emulator.hub(HUB);
    let address = hub.addr();
    assert_ne!(address, emulator.tls_addr());
    let dial = || Client::tls(address, emulator.ca_pem(), HUB, None);
    let mut client = dial().await.unwrap();
    client.accepted(connect_packet()).await;
    hub.down().unwrap();
    client.closed().await;
    let refused = || std::net::TcpStream::connect(address).is_err();
    eventually("the port is closed", refused).await;
    hub.up().unwrap();
    eventually("the port is open", || !refused()).await;
    dial().await.unwrap().accepted(connect_packet()).await;
}

#[tokio::test]
async fn a_hub_that_is_down_closes_before_tls_on_the_shared_port_and_at_connect_behind_a_gateway() {
    let emulator = start(config().hub("hub-b")).await;
    emulator.hub(HUB).down().unwrap();
    let dial = |name: &'static str| Client::tls(emulator.tls_addr(), emulator.ca_pem(), name, None);
    assert!(dial(HUB).await.is_err());
    assert!(dial("hub-b.azure-devices.net").await.is_ok());
    assert_eq!(dial("localhost").await.unwrap().connect_with(connect_packet()).await, Answer::Closed);
    assert_eq!(greeted(&emulator).await.1, Answer::Closed);
    let reasons =
        || emulator.ledger().connections().iter().filter(|one| one.closed == Some(CloseReason::HubDown)).count();
    eventually("the log knows", || reasons() == 3).await;
    emulator.hub(HUB).up().unwrap();
    dial(HUB).await.unwrap().accepted(connect_packet()).await;
}

#[tokio::test]
async fn a_failover_loses_sessions_and_ends_by_itself() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    emulator.hub(HUB).device(DEVICE).send(&[], b"x").unwrap();
    emulator.hub(HUB).fail_over(Duration::from_millis(200)).unwrap();
    client.closed().await;
    assert_eq!(greeted(&emulator).await.1, Answer::Closed);
    tokio::time::sleep(Duration::from_millis(210)).await;
    let (_, present) = Client::connected(&emulator, connect_packet()).await;
    assert!(!present);
    assert_eq!(emulator.hub(HUB).device(DEVICE).waiting().unwrap(), 0);
}

#[tokio::test]
async fn connections_are_closed_or_reset_by_control() {
    let emulator = start(config()).await;
    for reset in [false, true] {
        let mut client = Client::device(&emulator).await;
        emulator.hub(HUB).disconnect_all(reset).unwrap();
        client.closed().await;
        let mut client = Client::device(&emulator).await;
        emulator.hub(HUB).device(DEVICE).disconnect(reset).unwrap();
        client.closed().await;
    }
}

#[tokio::test]
async fn new_connections_beyond_the_rate_wait_in_order_and_beyond_the_queue_are_closed() {
    let emulator = start(config_with(hub().admission(Rate::new(10.0, 1, 2)))).await;
    let before = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
        client.send(Packet::Connect(connect_packet())).await;
        let number = clients.len();
        let is_in = || emulator.ledger().connections().get(number).is_some_and(|one| one.connect_at.is_some());
        eventually("CONNECT is in", is_in).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        clients.push(client);
    }
    assert_eq!(clients[3].answer().await, Answer::Closed);
    let accepted = Answer::Packet(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false)));
    assert_eq!(clients[0].answer().await, accepted);
    assert!(matches!(clients[2].answer().await, Answer::Packet(Packet::ConnAck(_))));
    assert!(before.elapsed() >= Duration::from_millis(180), "{:?}", before.elapsed());
    let closed = || emulator.ledger().connections()[3].closed.clone();
    eventually("the log knows", || closed() == Some(CloseReason::Throttled)).await;
}

#[tokio::test]
async fn a_limit_of_new_connections_can_be_set_and_lifted_while_the_hub_runs() {
    let emulator = start(config_with(hub())).await;
    let greeted = async |emulator: &Emulator| {
        let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
        client.send(Packet::Connect(connect_packet())).await;
        client.answer().await != Answer::Closed
    };
    emulator.hub(HUB).set_admission(Some(Rate::new(0.01, 1, 0))).unwrap();
    assert!(greeted(&emulator).await);
    assert!(!greeted(&emulator).await);
    emulator.hub(HUB).set_admission(None).unwrap();
    assert!(greeted(&emulator).await);
}

#[tokio::test]
async fn a_plain_port_of_a_hub_s_own_closes_while_the_hub_is_down() {
    let emulator = start(config_with(hub().plain_port(0))).await;
    let address = emulator.hub(HUB).addr();
    let mut client = Client::plain(address).await;
    client.send(Packet::Connect(connect_packet())).await;
    assert!(matches!(client.answer().await, Answer::Packet(Packet::ConnAck(_))));
    emulator.hub(HUB).down().unwrap();
    client.closed().await;
    let refused = || std::net::TcpStream::connect(address).is_err();
    eventually("the port is closed", refused).await;
    emulator.hub(HUB).up().unwrap();
    eventually("the port is open again", || !refused()).await;
}

#[tokio::test]
async fn telemetry_beyond_the_rate_is_late_and_beyond_the_queue_closes() {
    let emulator = start(config_with(hub().telemetry(Rate::new(20.0, 2, 2)))).await;
    let mut client = Client::device(&emulator).await;
    let before = Instant::now();
    for id in ["a", "b", "c", "d"] {
        client.delivered(id).await;
    }
    assert!(before.elapsed() >= Duration::from_millis(90), "{:?}", before.elapsed());
    assert_eq!(emulator.ledger().counts(DEVICE).distinct, 4);
    let emulator = start(config_with(hub().telemetry(Rate::new(0.1, 1, 0)))).await;
    let mut client = Client::device(&emulator).await;
    client.delivered("a").await;
    client.message("b").await;
    client.closed().await;
    let closed = || emulator.ledger().connections()[0].closed.clone();
    eventually("the log knows", || closed() == Some(CloseReason::Throttled)).await;
}

#[tokio::test]
async fn fault_properties_of_a_message_are_applied_once_per_message_id() {
    let emulator = start(config()).await;
    let order = |id: &str, kind: &str, delay: u32, duration: u32| {
        format!(
            "{}&AzIoTHub_FaultOperationType={kind}&AzIoTHub_FaultOperationCloseReason=test\
             &AzIoTHub_FaultOperationDelayInSecs={delay}&AzIoTHub_FaultOperationDurationInSecs={duration}",
            telemetry(id)
        )
    };
    let mut client = Client::device(&emulator).await;
    let topic = order("kill", "KillTcp", 0, 0);
    client.publish(&topic, b"x").await;
    client.closed().await;
    let mut client = Client::device(&emulator).await;
    client.publish_as(&topic, b"x", 1, true).await;
    client.acknowledged(1).await;
    let id = client.publish(&order("throttle", "InvokeThrottling", 0, 1), b"x").await;
    let before = Instant::now();
    client.acknowledged(id).await;
    assert!(before.elapsed() >= Duration::from_millis(900));
    let id = client.publish(&order("auth", "InvokeAuthError", 0, 1), b"x").await;
    client.acknowledged(id).await;
    assert_eq!(greeted(&emulator).await.1, not_authorized());
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let mut client = Client::device(&emulator).await;
    let id = client.publish(&order("late", "ShutDownMqtt", 1, 1), b"x").await;
    client.acknowledged(id).await;
    client.closed().await;
    assert_eq!(greeted(&emulator).await.1, Answer::Closed);
}
