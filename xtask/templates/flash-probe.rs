//! Keeps one part of the core in the image, by a function that a static refers to, so that its size can be read.
//!
//! The functions take everything as arguments: nothing is known when they are compiled, and nothing is left out.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// MQTT 3.1.1 both ways.
#[cfg(feature = "codec")]
mod codec {
    use steadfast_core::mqtt::{self, Packet};

    #[used]
    static KEPT: (fn(&Packet<'_>, &mut [u8]) -> usize, fn(&[u8], usize) -> usize) = (encode, decode);

    fn encode(packet: &Packet<'_>, buffer: &mut [u8]) -> usize {
        packet.encode_to_slice(buffer).unwrap_or(0)
    }

    fn decode(bytes: &[u8], limit: usize) -> usize {
        mqtt::decode(bytes, limit).map_or(0, |decoded| size_of_val(&decoded))
    }
}

/// Reading a key and signing with it.
#[cfg(feature = "signing")]
mod signing {
    use steadfast_core::azure::sas::SymmetricKey;
    use steadfast_core::text::Text;

    #[used]
    static KEPT: fn(&str, &Text<'_>) -> [u8; 32] = sign;

    fn sign(key: &str, text: &Text<'_>) -> [u8; 32] {
        SymmetricKey::from_base64(key).map_or([0; 32], |key| key.sign(text))
    }
}

/// The whole link, driven as a device drives it, with a key in memory.
#[cfg(feature = "link")]
mod link {
    use core::time::Duration;
    use steadfast_core::azure::sas::SymmetricKey;
    use steadfast_core::{Action, Attempt, Config, Input, Instant, Link, Message, Output, RamOutbox, Seed};

    type Device = Link<RamOutbox<16, 4096>, &'static Config<&'static str>>;

    #[used]
    static KEPT: (fn(&'static Config<&'static str>, Seed, Instant) -> bool, Drive) = (begin, drive);

    type Drive = fn(&mut Device, &SymmetricKey, &[u8], Attempt, &mut [u8], Instant) -> usize;

    fn begin(config: &'static Config<&'static str>, seed: Seed, now: Instant) -> bool {
        Device::new(config, RamOutbox::new(), seed, now).is_ok_and(|mut link| {
            link.start(now);
            link.next_deadline().is_some()
        })
    }

    fn drive(
        link: &mut Device,
        key: &SymmetricKey,
        bytes: &[u8],
        attempt: Attempt,
        buffer: &mut [u8],
        now: Instant,
    ) -> usize {
        let _ = link.publish(Message::telemetry("", bytes), now);
        link.handle_timeout(now);
        let mut count = link.handle_input(Input::Bytes(bytes), attempt, now).bytes;
        loop {
            match link.poll_output() {
                Output::Action(Action::Send { packet, .. }) => count += packet.encode_to_slice(buffer).unwrap_or(0),
                Output::Action(Action::Sign { attempt, text, .. }) => {
                    let signature = key.sign(&text);
                    link.handle_input(Input::Signed(&signature), attempt, now);
                }
                Output::Action(_) | Output::Event(_) => count += 1,
                Output::Wait(_) => break,
                _ => {}
            }
        }
        link.stop(Duration::from_millis(count as u64), now);
        count
    }
}
