//! A device on an ESP32-C3 without ESP-IDF: Wi-Fi by esp-radio, TCP by embassy-net, TLS 1.3 by embedded-tls, the rest by
//! `steadfast-esp32`.
//!
//! What differs from board to board comes from the environment when it is built; see README.md.
#![no_std]
#![no_main]

mod tls;

use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use device_tls::{ChaCha20Rng, Pool, SeedableRng as _};
use embassy_executor::Spawner;
use embassy_net::tcp::client::{TcpClient, TcpClientState};
use embassy_net::{Runner, Stack, StackResources};
use embassy_time::{Instant as Uptime, Timer};
use embedded_nal_async::TcpConnect as _;
use esp_hal::clock::CpuClock;
use esp_hal::rng::Rng;
use esp_hal::timer::timg::TimerGroup;
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{AuthenticationMethodConfig, Config as WifiConfig, Interface, Password, Ssid, WifiController};
use rustls_pki_types::CertificateDer;
use static_cell::{ConstStaticCell, StaticCell};
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::text::Text;
use steadfast_core::{
    Checked, Config, Credential, Failure, Instant, LocalFailure, Message, Provisioned, RamOutbox, Seed, Service, SignRequest,
};
use steadfast_esp32::nonblocking::{Device, Dialler, Timer as DeviceTimer};
use steadfast_esp32::{Board, Buffers, OwnedDial, Poll};

const SSID: &str = env!("WIFI_SSID");
const PASSWORD: &str = env!("WIFI_PASSWORD");
const ID_SCOPE: &str = env!("ID_SCOPE");
const REGISTRATION_ID: &str = env!("REGISTRATION_ID");
const DEVICE_KEY: &str = env!("DEVICE_KEY");
/// A local hub or gateway that speaks TLS 1.3: `address:port`.
const GATEWAY: &str = env!("GATEWAY");
/// The certificate of the authority that the gateway's certificates lead to, as DER.
static AUTHORITY: &[u8] = include_bytes!(env!("AUTHORITY"));
/// The wall clock at build time, in seconds since 1970; a product asks SNTP.
const BUILT_AT: &str = env!("BUILT_AT");

static CONFIG: Checked = {
    let service = Service::Provisioned {
        host: steadfast_core::dps::topics::GLOBAL_HOST,
        id_scope: ID_SCOPE,
        registration_id: REGISTRATION_ID,
    };
    let mut config = Config::new(service, Credential::SharedKey);
    config.session.max_inbound = 2048;
    config.session.max_outbound = 2048;
    config.checked()
};

/// Set while the station has its access point.
static JOINED: AtomicBool = AtomicBool::new(false);

esp_bootloader_esp_idf::esp_app_desc!();

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    esp_hal::system::software_reset()
}

#[esp_rtos::main]
async fn main(spawner: Spawner) -> ! {
    let peripherals = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::max()));
    // The radio's driver wants a heap; steadfast does not.
    esp_alloc::heap_allocator!(size: 96 * 1024);
    let timers = TimerGroup::new(peripherals.TIMG0);
    esp_rtos::start(timers.timer0, peripherals.FROM_CPU_INTR0);

    let random = Rng::new();
    let mut entropy = [0; 16];
    let controller = WifiController::new(peripherals.WIFI, Default::default());
    // With the radio on the generator draws from its noise.
    random.read(&mut entropy);
    if let Ok(controller) = controller
        && let Ok(task) = keep_joined(controller)
    {
        spawner.spawn(task);
    }

    static RESOURCES: StaticCell<StackResources<3>> = StaticCell::new();
    let (stack, runner) = embassy_net::new(
        Interface::station(),
        embassy_net::Config::dhcpv4(Default::default()),
        RESOURCES.init(StackResources::new()),
        u64::from(random.random()) << 32 | u64::from(random.random()),
    );
    if let Ok(task) = run_network(runner) {
        spawner.spawn(task);
    }
    stack.wait_config_up().await;
    run_device(stack, Seed::new(entropy)).await
}

#[embassy_executor::task]
async fn run_network(mut runner: Runner<'static, Interface>) -> ! {
    runner.run().await
}

/// Joins the access point, again after each loss.
#[embassy_executor::task]
async fn keep_joined(mut controller: WifiController<'static>) {
    let (Ok(ssid), Ok(password)) = (Ssid::try_from(SSID), Password::try_from(PASSWORD)) else { return };
    let station = StationConfig::default()
        .with_ssid(ssid)
        .with_authentication(AuthenticationMethodConfig::Wpa2Personal(password));
    if controller.set_config(&WifiConfig::Station(station)).is_err() {
        return;
    }
    loop {
        if controller.connect_async().await.is_ok() {
            JOINED.store(true, Ordering::Relaxed);
            let _ = controller.wait_for_disconnect_async().await;
            JOINED.store(false, Ordering::Relaxed);
        }
        Timer::after_secs(5).await;
    }
}

async fn run_device(stack: Stack<'static>, seed: Seed) -> ! {
    let key = SymmetricKey::from_base64(DEVICE_KEY).ok();
    // What is large is static: so it is not moved over the stack.
    static RX: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static TX: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static OUTBOX: ConstStaticCell<RamOutbox<16, 4096>> = ConstStaticCell::new(RamOutbox::new());
    static TLS: ConstStaticCell<tls::Buffers> = ConstStaticCell::new(tls::Buffers::new());
    static MEMORY: StaticCell<Pool<tls::Memory>> = StaticCell::new();
    static STATE: StaticCell<TcpClientState<1, 1536, 1536>> = StaticCell::new();
    static CLIENT: StaticCell<Client> = StaticCell::new();
    let client = CLIENT.init(TcpClient::new(stack, STATE.init(TcpClientState::new())));
    let memory = MEMORY.init(Pool::new(tls::Memory::new(TLS.take())));
    // In the frame of this task, which is static: a dial goes on while `poll` is dropped and called again.
    let room = pin!(None);
    let dialler = Dialler::new(|to: &OwnedDial| dial(stack, client, memory, to.clone()), room);
    let buffers = Buffers { rx: RX.take(), tx: TX.take() };
    let Ok(mut device) = Device::new(Chip { key }, dialler, Clock, Provisioned::new(&CONFIG), OUTBOX.take(), seed, buffers) else {
        esp_hal::system::software_reset()
    };
    device.start();
    let mut number = 0;
    let mut due = device.board().now();
    loop {
        let now = device.board().now();
        if now >= due {
            // A deadline of its own: events do not put it off.
            due = now.after(Duration::from_secs(5));
            let mut text = [0; 48];
            let body = Text::of([
                steadfast_core::text::Part::Plain("{\"n\":"),
                steadfast_core::text::Part::Number(number),
                steadfast_core::text::Part::Plain("}"),
            ]);
            let body = body.to_str(&mut text).unwrap_or_default();
            // While the outbox is full a measurement is left out.
            if device.send(Message::telemetry("", body.as_bytes())).is_ok() {
                number += 1;
            }
        }
        match device.poll(due.since(now)).await {
            Poll::Event(_) => {}
            Poll::Message(message) => {
                let ack = message.ack;
                device.acknowledge(ack);
            }
            _ => {}
        }
        if !JOINED.load(Ordering::Relaxed) {
            device.network_lost();
        }
    }
}

fn unix_secs() -> Option<u64> {
    Some(BUILT_AT.parse::<u64>().ok()? + Uptime::now().as_secs())
}

struct Chip {
    key: Option<SymmetricKey>,
}

impl Board for Chip {
    fn now(&self) -> Instant {
        Instant::from_millis(Uptime::now().as_millis())
    }

    fn unix_secs(&self) -> Option<u64> {
        unix_secs()
    }

    fn sign(&mut self, request: SignRequest<'_>) -> Result<[u8; 32], Failure> {
        self.key.as_ref().map(|key| key.sign(&request.text)).ok_or(Failure::Local(LocalFailure::Credential))
    }

    fn sleep(&mut self, _: Duration) {}
}

struct Clock;

impl DeviceTimer for Clock {
    async fn wait_until(&mut self, at: Instant) {
        Timer::at(Uptime::from_millis(at.as_millis())).await;
    }
}

/// One connection at a time; the device drops the old one before it dials.
type Client = TcpClient<'static, 1, 1536, 1536>;

/// Dials the gateway, whichever service is wanted: the name in the TLS handshake tells which.
async fn dial(
    stack: Stack<'static>,
    client: &'static Client,
    memory: &'static Pool<tls::Memory>,
    to: OwnedDial,
) -> Result<tls::Secured, Failure> {
    if !JOINED.load(Ordering::Relaxed) || !stack.is_config_up() {
        return Err(Failure::Network);
    }
    let gateway = GATEWAY.parse().map_err(|_| Failure::Unresolved)?;
    let unix_secs = unix_secs().ok_or(Failure::Local(LocalFailure::ClockUnset))?;
    let mut for_tls = [0; 32];
    Rng::new().read(&mut for_tls);
    let mut random = ChaCha20Rng::from_seed(for_tls);
    let authority = CertificateDer::from_slice(AUTHORITY);
    let tcp = client.connect(gateway).await.map_err(|_| Failure::ConnectionRefused)?;
    tls::Secured::open(tcp, memory, to.get().host, &authority, unix_secs, &mut random).await
}
