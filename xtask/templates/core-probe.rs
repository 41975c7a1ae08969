//! A device without board and network: all that a link takes in comes from where the compiler cannot see, and all that
//! it gives goes there. What this image is larger than the one without features is what the core takes.
#![no_std]
#![no_main]

use core::hint::black_box;

unsafe extern "C" {
    fn memcpy();
    fn memmove();
    fn memset();
}

/// Where the linker starts; nothing runs it.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    // Every firmware has these, and the ESP32 family has them in ROM: the image without features has them as well.
    black_box([memcpy as *const (), memmove as *const (), memset as *const ()]);
    loop {
        #[cfg(feature = "device")]
        device::run();
        #[cfg(feature = "codec")]
        codec::run();
        #[cfg(feature = "signing")]
        signing::run();
        #[cfg(feature = "files")]
        upload::run();
        #[cfg(feature = "way")]
        transport::run();
        #[cfg(feature = "ram")]
        black_box(&ram::LINK);
        black_box(());
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    steadfast_panic()
}

/// In the image only when something can panic.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn steadfast_panic() -> ! {
    loop {
        black_box(());
    }
}

/// Bytes that the compiler does not know.
#[cfg(any(feature = "device", feature = "codec", feature = "files", feature = "way"))]
static INPUT: [u8; 256] = [0; 256];

#[cfg(feature = "device")]
mod device {
    use core::hint::black_box;
    #[cfg(feature = "key")]
    use steadfast_core::azure::sas::SymmetricKey;
    #[cfg(feature = "services")]
    use steadfast_core::iothub::{Received, pnp};
    use steadfast_core::{
        Action, Checked, Config, Credential, Failure, Input, Instant, Link, Message, Output, RamOutbox, Seed, Service, Settings,
    };

    /// The configuration is known when the firmware is built, and checked then.
    static CONFIG: Checked = {
        #[cfg(feature = "dps")]
        let service = Service::Provisioned {
            host: "global.azure-devices-provisioning.net",
            id_scope: "0ne00ABCDEF",
            registration_id: "pump-7",
        };
        #[cfg(not(feature = "dps"))]
        let service = Service::Hub { host: "contoso.azure-devices.net", device_id: "pump-7" };
        #[cfg(not(feature = "key"))]
        let credential = Credential::Certificate;
        #[cfg(feature = "key")]
        let credential = Credential::SharedKey;
        let mut config = Config::new(service, credential);
        config.session.max_inbound = 2048;
        config.session.max_outbound = 2048;
        #[cfg(feature = "services")]
        {
            config.subscriptions = steadfast_core::Subscriptions::ALL;
        }
        config.checked()
    };

    struct Fixed;

    impl Settings for Fixed {
        type Text = &'static str;

        const CHECKED: bool = <Checked as Settings>::CHECKED;

        fn config(&self) -> &Config<&'static str> {
            CONFIG.config()
        }
    }

    pub(crate) fn run() {
        let seed = Seed::new(black_box([7; 16]));
        let outbox = RamOutbox::<8, 2048>::new();
        let link = Link::new(Profile::new(Fixed), outbox, seed, now());
        let Ok(link) = link else { return };
        #[cfg(feature = "services")]
        let mut link = steadfast_core::HubLink::new(link, [0; 1024], [0; 1024]);
        #[cfg(not(feature = "services"))]
        let mut link = link;
        #[cfg(feature = "key")]
        let Ok(key) = SymmetricKey::from_base64(black_box("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")) else {
            return;
        };
        link.start(now());
        let mut buffer = [0; 2048];
        #[cfg(feature = "key")]
        drive(&mut link, &key, &mut buffer);
        #[cfg(not(feature = "key"))]
        drive(&mut link, &mut buffer);
    }

    #[cfg(feature = "dps")]
    type Profile = steadfast_core::Provisioned<Fixed>;
    #[cfg(not(feature = "dps"))]
    type Profile = steadfast_core::IotHub<Fixed>;
    #[cfg(feature = "services")]
    type Driven = steadfast_core::HubLink<RamOutbox<8, 2048>, Profile>;
    #[cfg(not(feature = "services"))]
    type Driven = Link<RamOutbox<8, 2048>, Profile>;

    /// A loop of its own: firmware keeps its link in a static, or hands it from function to function, and does not hold
    /// kilobytes of it in the frame it works in.
    #[inline(never)]
    fn drive(link: &mut Driven, #[cfg(feature = "key")] key: &SymmetricKey, buffer: &mut [u8; 2048]) {
        #[cfg(feature = "services")]
        let mut attempt = link.link().attempt();
        #[cfg(not(feature = "services"))]
        let mut attempt = link.attempt();
        loop {
            #[cfg(feature = "key")]
            link.set_wall_clock(black_box(1_780_000_000), now());
            black_box(link.publish(Message::telemetry(black_box("k=v"), black_box(&super::INPUT)), now()).is_ok());
            link.handle_timeout(now());
            let taken = match black_box(0) {
                0 => link.handle_input(Input::Ready, attempt, now()),
                1 => link.handle_input(Input::Failed(black_box(Failure::Lost)), attempt, now()),
                2 => link.handle_input(Input::Wrote { pending: black_box(0) }, attempt, now()),
                _ => link.handle_input(Input::Bytes(black_box(&super::INPUT)), attempt, now()),
            };
            #[cfg(feature = "services")]
            match taken.received {
                Some(Received::Twin(twin)) => {
                    for property in pnp::properties(twin.desired) {
                        let name = property.name.plain().unwrap_or_default();
                        let acknowledgement = pnp::Acknowledgement {
                            component: None,
                            name,
                            value: property.value.raw(),
                            status: pnp::APPLIED,
                            version: twin.desired_version,
                            description: "",
                        };
                        if let Some(patch) = acknowledgement.write(buffer) {
                            black_box(link.report(patch, now()).is_ok());
                        }
                    }
                }
                Some(Received::Desired { version, patch }) => {
                    black_box((version, patch));
                }
                Some(Received::Call { call, name, payload }) => {
                    let status = if name == "reboot" { 200 } else { 404 };
                    black_box(link.respond(call, status, payload, now()).is_ok());
                }
                Some(Received::CloudToDevice { properties, payload, packet_id: Some(packet_id), duplicate, .. }) => {
                    black_box((properties, payload, duplicate));
                    link.acknowledge(packet_id, attempt, now());
                }
                _ => {}
            }
            #[cfg(not(feature = "services"))]
            black_box(taken);
            loop {
                match link.poll_output_within(black_box(2048)) {
                    Output::Action(Action::Send { packet, .. }) => {
                        black_box(packet.encode_to_slice(buffer).is_ok());
                        black_box(&*buffer);
                    }
                    #[cfg(feature = "key")]
                    Output::Action(Action::Sign { attempt, request }) => {
                        let signature = key.sign(&request.text);
                        link.handle_input(Input::Signed(&signature), attempt, now());
                    }
                    Output::Action(Action::Connect { attempt: of, endpoint }) => {
                        attempt = of;
                        black_box(endpoint);
                    }
                    Output::Action(Action::Close { flush, .. }) => {
                        black_box(flush);
                    }
                    #[cfg(feature = "dps")]
                    Output::Action(Action::SaveAssignment(assignment)) => {
                        black_box((assignment.hub(), assignment.device_id()));
                    }
                    Output::Event(event) => {
                        black_box(event);
                    }
                    Output::Wait(deadline) => {
                        black_box(deadline);
                        break;
                    }
                    _ => {}
                }
            }
        }
    }

    fn now() -> Instant {
        Instant::from_millis(black_box(1))
    }
}

#[cfg(feature = "codec")]
mod codec {
    use core::hint::black_box;
    use steadfast_core::mqtt::{Packet, PacketId, Publish, decode};

    pub(crate) fn run() {
        let mut buffer = [0; 256];
        let publish = Publish {
            topic: black_box("a/b").into(),
            payload: black_box(&super::INPUT),
            packet_id: PacketId::new(black_box(7)),
            dup: black_box(false),
            retain: false,
        };
        black_box(Packet::Publish(publish).encode_to_slice(&mut buffer).is_ok());
        black_box(decode(black_box(&super::INPUT), black_box(256)).is_ok());
    }
}

#[cfg(feature = "signing")]
mod signing {
    use core::hint::black_box;
    use steadfast_core::azure::sas::SymmetricKey;
    use steadfast_core::text::Text;

    pub(crate) fn run() {
        if let Ok(key) = SymmetricKey::from_base64(black_box("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")) {
            black_box(key.sign(&Text::from(black_box("text"))));
        }
    }
}

#[cfg(feature = "files")]
mod upload {
    use core::hint::black_box;
    use steadfast_core::upload::{Body, Input, Options, Output, Upload, retry_after_secs};
    use steadfast_core::{Failure, Instant, RetryPolicy, Seed};

    pub(crate) fn run() {
        let seed = Seed::new(black_box([7; 16]));
        let memory = [0; 1024];
        let upload = Upload::new(black_box("log.txt"), Options::DEFAULT, RetryPolicy::DEFAULT, seed, memory, now());
        let Ok(mut upload) = upload else { return };
        let mut buffer = [0; 2048];
        loop {
            let input = match upload.poll_output() {
                Output::Home => Input::Home { hub: black_box("contoso.azure-devices.net"), device_id: black_box("pump-7") },
                Output::Read { offset, len } => {
                    black_box((offset, len));
                    Input::Read { len: black_box(7) }
                }
                Output::Request(request) => {
                    let attempt = request.attempt;
                    black_box((request.method.as_str(), request.headers(), request.identity.is_some()));
                    black_box(request.url(&mut buffer));
                    if let Body::Document(document) = request.body {
                        black_box(document.len());
                        black_box(document.read(black_box(0), &mut buffer));
                    }
                    if black_box(true) {
                        Input::Answer {
                            attempt,
                            status: black_box(200),
                            retry_after_secs: retry_after_secs(black_box("7")),
                            body: black_box(&super::INPUT),
                        }
                    } else {
                        Input::Failed { attempt, failure: black_box(Failure::Network) }
                    }
                }
                Output::Wait(at) => {
                    black_box(at);
                    upload.handle_timeout(now());
                    continue;
                }
                Output::Progress(progress) => {
                    black_box(progress);
                    continue;
                }
                Output::Done(result) => {
                    black_box((result.is_ok(), upload.blob()));
                    return;
                }
                _ => return,
            };
            upload.handle_input(input, now());
            if black_box(false) {
                upload.cancel(now());
            }
        }
    }

    fn now() -> Instant {
        Instant::from_millis(black_box(1))
    }
}

#[cfg(feature = "ram")]
pub(crate) mod ram {
    use steadfast_core::{Config, Link, Provisioned, RamOutbox};

    /// As many bytes as a link with room for 8 messages of 2 KiB takes.
    pub(crate) static LINK: [core::sync::atomic::AtomicU8; size_of::<
        Link<RamOutbox<8, 2048>, Provisioned<&'static Config<&'static str>>>,
    >()] = [const { core::sync::atomic::AtomicU8::new(0) }; _];
}

#[cfg(feature = "way")]
mod transport {
    use core::hint::black_box;
    use steadfast_core::transport::{CONTROL_FRAME, Opening, PORT, Tunnel, Upgrade};
    use steadfast_core::{ServiceKind, Seed};

    pub(crate) fn run() {
        let mut buffer = [0; 512];
        let host = black_box("contoso.azure-devices.net");
        black_box(Tunnel::request(host, 443, black_box(None)).to_str(&mut buffer));
        black_box(Tunnel::new().take(black_box(&super::INPUT))).ok();
        let mut upgrade = Upgrade::new(Seed::new(black_box([7; 16])));
        let opening = Opening { role: ServiceKind::Hub, broker: false, certificate: black_box(false) };
        black_box(opening.request(host, PORT, &upgrade).to_str(&mut buffer));
        for byte in black_box(&super::INPUT) {
            if black_box(upgrade.take(*byte)) != Ok(false) {
                break;
            }
        }
        let mut frames = upgrade.frames();
        let mut came = black_box(super::INPUT);
        black_box(frames.take(&mut came)).ok();
        black_box(frames.put(black_box(&super::INPUT), &mut buffer));
        let mut answer = [0; CONTROL_FRAME];
        black_box(frames.put_answer(&mut answer));
    }
}

