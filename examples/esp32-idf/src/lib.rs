//! The main loop of a device under ESP-IDF, apart from what only ESP-IDF can compile.

use std::time::Duration;

use steadfast_core::{Config, Credential, Event, Message, Outbox, PublishError, Service, Settings};
use steadfast_esp32::{Board, Connect, Device, Poll};

/// The device's configuration; what differs from device to device comes from the environment when it is built.
pub const CONFIG: Config<&str> = {
    let service = Service::Provisioned {
        host: steadfast_core::azure::dps::GLOBAL_HOST,
        id_scope: match option_env!("ID_SCOPE") {
            Some(id_scope) => id_scope,
            None => "0ne00ABCDEF",
        },
        registration_id: match option_env!("REGISTRATION_ID") {
            Some(id) => id,
            None => "pump-7",
        },
    };
    let mut config = Config::new(service, Credential::SharedKey);
    config.max_inbound = 4096;
    config.max_outbound = 4096;
    config
};

/// Runs the device for ever: measures every five seconds, and less often while the outbox is full. `network` is asked
/// after each turn whether the network below is there.
pub fn main_loop<B: Board, C: Connect, O: Outbox, S: Settings>(
    device: &mut Device<'_, B, C, O, S>,
    mut network: impl FnMut() -> bool,
) -> ! {
    device.start();
    let mut number = 0_u32;
    loop {
        match device.poll(Duration::from_secs(5)) {
            Poll::Event(Event::Down(why)) => println!("down: {why}"),
            Poll::Event(Event::GaveUp(why)) => {
                println!("gave up: {why}");
                std::thread::sleep(Duration::from_secs(3600));
                device.start();
            }
            Poll::Event(event) => println!("{event:?}"),
            Poll::Message(message) => {
                let ack = message.ack;
                println!("message of {} bytes", message.payload.len());
                device.acknowledge(ack);
            }
            Poll::Idle => {
                let body = format!("{{\"n\":{number}}}");
                match device.send(Message::telemetry("", body.as_bytes())) {
                    Ok(_) => number += 1,
                    Err(PublishError::Full) => println!("{}", device.link().status()),
                    Err(error) => println!("not accepted: {error}"),
                }
            }
            _ => {}
        }
        if !network() {
            device.network_lost();
        }
    }
}
