//! The official Node device SDK, unmodified, as a module of an Edge device, over TLS and over WebSockets.

use e2e::EdgePlace;
use e2e::sdk::{Language, Sdk, inside};

const DEVICE: &str = "line-9";

#[tokio::test]
async fn the_official_node_sdk_works_as_a_module_of_an_edge_device() {
    inside(Language::Node, "the_official_node_sdk_works_as_a_module_of_an_edge_device", judge()).await;
}

async fn judge() {
    let modules = [("judged", false), ("socket", true)];
    let place = EdgePlace::start(DEVICE, &modules.map(|(module, _)| module)).await;
    for (module, websockets) in modules {
        let api = place.workload_api(module);
        let setup = place.setup(module, websockets, &api);
        let mut sdk = Sdk::start(Language::Node, "edge.js", &setup).await;
        sdk.step("connected").await;
        sdk.step("sent").await;
        let messages = place.emulator.ledger().messages(&format!("{DEVICE}/{module}"));
        let [alarm] = &messages[..] else { panic!("one message: {messages:?}") };
        assert_eq!((alarm.output(), &alarm.payload[..]), (Some("alarms"), &b"warm"[..]));
        let answer = sdk.step("called").await["answer"].clone();
        assert_eq!(answer, setup["call"]["answer"]);
        sdk.step("done").await;
        sdk.ended().await;
        EdgePlace::check(module, &api);
    }
    place.stop().await;
}
