//! A device under ESP-IDF, apart from Wi-Fi and SNTP: storage, key, TLS, and the main loop.

use std::error::Error;
use std::time::{Duration, Instant as Uptime};

use embedded_svc::wifi::{AuthMethod, ClientConfiguration, Configuration, Wifi};
use esp_idf_svc::nvs::EspDefaultNvsPartition;
use static_cell::ConstStaticCell;
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::{
    Checked, Config, Credential, Event, Instant, Message, Outbox, Profile, Provisioned, PublishError, RamOutbox, Service,
    iothub,
};
use steadfast_esp_idf::{EspBoard, EspDialler, Trust, seed};
use steadfast_esp32::wifi::{Change, Station};
use steadfast_esp32::{Board, Buffers, Connect, Device, Poll};

/// The device's configuration; what differs from device to device comes from the environment when it is built.
pub static CONFIG: Checked = {
    let service = Service::Provisioned {
        host: steadfast_core::dps::topics::GLOBAL_HOST,
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
    config.session.max_inbound = 4096;
    config.session.max_outbound = 4096;
    config.checked()
};

// What is large is static, so that it is not moved over the stack.
static RX: ConstStaticCell<[u8; 4096]> = ConstStaticCell::new([0; 4096]);
static TX: ConstStaticCell<[u8; 4096]> = ConstStaticCell::new([0; 4096]);
static OUTBOX: ConstStaticCell<RamOutbox<32, 16384>> = ConstStaticCell::new(RamOutbox::new());

/// The configuration of a station that joins the network `ssid` with WPA2.
///
/// # Errors
/// When the name has more than 32 bytes or the password more than 64.
pub fn station(ssid: &str, password: &str) -> Result<Configuration, &'static str> {
    Ok(Configuration::Client(ClientConfiguration {
        ssid: ssid.try_into().map_err(|_| "the network's name is too long")?,
        password: password.try_into().map_err(|_| "the password is too long")?,
        auth_method: AuthMethod::WPA2Personal,
        ..Default::default()
    }))
}

/// Runs a device with the key `key` over `wifi`, which is configured and has joined; its clock is set by then.
///
/// # Errors
/// What cannot be set up; nothing was sent then.
///
/// # Panics
/// When it is called a second time.
pub fn run<W: Wifi>(nvs: EspDefaultNvsPartition, key: SymmetricKey, wifi: W) -> Result<(), Box<dyn Error>> {
    let board = EspBoard::new(nvs, Some(key))?;
    let (assignment, memory) = (board.assignment(), board.backoff_snapshot());
    let buffers = Buffers { rx: RX.take(), tx: TX.take() };
    let dialler = EspDialler::new(Trust::Bundle);
    let mut device = Device::new(board, dialler, Provisioned::new(&CONFIG), OUTBOX.take(), seed(), buffers)?;
    if let Some(assignment) = assignment {
        device.restore_assignment(assignment);
    }
    if let Some(memory) = memory {
        device.restore_backoff(memory);
    }
    let start = Uptime::now();
    let mut station = Station::new(wifi, Duration::from_secs(5));
    main_loop(&mut device, move || {
        let now = Instant::from_millis(start.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
        !matches!(station.tend(now), Ok(Change::Lost))
    })
}

/// From one measurement to the next, whatever comes in between.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs the device for ever: measures every five seconds. While the outbox is full a measurement is left out. `network` is asked
/// after each turn whether the network below is there.
pub fn main_loop<B: Board, C: Connect, O: Outbox, P: Profile>(
    device: &mut Device<'_, B, C, O, P>,
    mut network: impl FnMut() -> bool,
) -> ! {
    device.start();
    let mut number = 0_u32;
    let mut due = device.board().now();
    loop {
        let now = device.board().now();
        if now >= due {
            due = now.after(INTERVAL);
            let body = format!("{{\"n\":{number}}}");
            match device.send(Message::telemetry("", body.as_bytes())) {
                Ok(_) => number += 1,
                Err(PublishError::Full) => println!("{}", device.link().status()),
                Err(error) => println!("not accepted: {error}"),
            }
        }
        match device.poll(due.since(now)) {
            Poll::Event(iothub::Event::Link(Event::Down(why))) => println!("down: {why}"),
            Poll::Event(event) => println!("{event:?}"),
            Poll::Message(message) => {
                let ack = message.ack;
                println!("message of {} bytes", message.payload.len());
                device.acknowledge(ack);
            }
            _ => {}
        }
        if !network() {
            device.network_lost();
        }
    }
}
