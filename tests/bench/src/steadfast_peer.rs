//! Our own client as a peer: `steadfast`, as an application uses it.

use crate::meter::{self, Meter};
use crate::order::{self, Answer, Mode, Order, TOPIC};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use steadfast::{Device, Driver, Message, RetryPolicy, Tls};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

/// What the publishing application does with its receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receipts {
    /// It trusts the outbox and drops them.
    Dropped,
    /// It awaits each, with as many messages under way as the window has.
    Awaited,
}

/// How long a device may take to come up here.
const UP: Duration = Duration::from_secs(20);

/// Follows the order.
///
/// # Errors
/// When the device cannot be built or does not come up.
pub(crate) fn run(order: &Order, receipts: Receipts) -> Result<Answer, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        match order.mode {
            Mode::Throughput => throughput(order, receipts).await,
            Mode::Idle => idle(order).await,
            Mode::Outage => outage(order).await,
        }
    })
}

async fn throughput(order: &Order, receipts: Receipts) -> Result<Answer, String> {
    let (device, driver) = device(order, &tls(order), "bench-01", at_once())?;
    tokio::spawn(driver);
    up(&device).await?;
    let payload = order.payload();
    let message = || Message::to_topic(TOPIC, &payload);
    // Looking at the clock and at the books takes its time as well.
    let every = u64::from(order.window / 4).max(1);
    let (mut sent, mut meter) = (0_u64, Meter::new(order));
    let mut under_way = VecDeque::with_capacity(usize::from(order.window));
    loop {
        let receipt = device.send(message()).await.map_err(|error| error.to_string())?;
        match receipts {
            Receipts::Dropped => drop(receipt),
            Receipts::Awaited => {
                under_way.push_back(receipt);
                if under_way.len() >= usize::from(order.window)
                    && let Some(oldest) = under_way.pop_front()
                {
                    oldest.await.map_err(|error| error.to_string())?;
                }
            }
        }
        sent += 1;
        if sent % every == 0
            && let Some(answer) = meter.tick(device.ledger().delivered)
        {
            return Ok(answer);
        }
    }
}

async fn idle(order: &Order) -> Result<Answer, String> {
    /// Devices that connect at a time.
    const WAVE: usize = 20;
    let tls = tls(order);
    let mut before = 0.0;
    let mut devices = Vec::with_capacity(order.clients + 1);
    for number in 0..=order.clients {
        let (device, driver) = device(order, &tls, &format!("idle-{number}"), at_once())?;
        tokio::spawn(driver);
        if number == 0 {
            up(&device).await?;
            // What the first device brought in belongs to the process.
            before = meter::resident_bytes()?;
        } else if number >= WAVE {
            up(&devices[number - WAVE]).await?;
        }
        devices.push(device);
    }
    for device in &devices {
        up(device).await?;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let grown = meter::resident_bytes()? - before;
    // The outbox takes memory for the messages it holds, and it holds none.
    Ok(Answer { bytes_per_client: grown / order.clients as f64, ..Answer::default() })
}

async fn outage(order: &Order) -> Result<Answer, String> {
    // The default, as it is for a device whose connection has lasted: nobody wants to wait for that here.
    let mut policy = RetryPolicy::DEFAULT;
    policy.reset_after = Duration::from_millis(200);
    let (device, driver) = device(order, &tls(order), "bench-01", policy)?;
    tokio::spawn(driver);
    up(&device).await?;
    let before = device.status().attempt.get();
    let payload = order.payload();
    let (stop, mut stopped) = oneshot::channel();
    order::when_input_ends(move || _ = stop.send(()));
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => {
                let attempts = u64::from(device.status().attempt.get().wrapping_sub(before));
                return Ok(Answer { acked: device.ledger().delivered, attempts, ..Answer::default() });
            }
            // The outbox has room for the whole outage.
            _ = pace.tick() => drop(device.try_send(Message::to_topic(TOPIC, &payload)).map_err(|error| error.to_string())?),
        }
    }
}

/// The default policy but for its first spread, which would only delay the measurement.
fn at_once() -> RetryPolicy {
    let mut policy = RetryPolicy::DEFAULT;
    policy.first_jitter = Duration::from_millis(1);
    policy
}

fn tls(order: &Order) -> Option<Tls> {
    order.ca.as_ref().map(|ca| Tls::without_system_roots().and_file(ca))
}

fn device(order: &Order, tls: &Option<Tls>, id: &str, policy: RetryPolicy) -> Result<(Device, Driver), String> {
    let mut builder = Device::builder().broker("127.0.0.1", id).anonymous().port(order.port).window(order.window);
    builder = builder.keep_alive(Duration::from_secs(1177)).retry(policy);
    builder = match tls {
        Some(tls) => builder.tls(tls.clone()),
        None => builder.plaintext_unprotected(),
    };
    builder.build().map_err(|error| error.to_string())
}

async fn up(device: &Device) -> Result<(), String> {
    let deadline = Instant::now() + UP;
    while device.status().state != steadfast::State::Up {
        if Instant::now() >= deadline {
            return Err(format!("the device did not come up: {:?}", device.status()));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
