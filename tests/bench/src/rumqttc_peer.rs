//! rumqttc's event loop as a peer.

use crate::meter::{self, Meter};
use crate::order::{self, Answer, Mode, Order, TOPIC};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, Transport};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// Follows the order over `transport`.
///
/// # Errors
/// When the connection fails where it should not.
pub(crate) fn run(order: &Order, transport: &Transport) -> Result<Answer, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match order.mode {
            Mode::Throughput => throughput(order, transport).await,
            Mode::Idle => idle(order, transport).await,
            Mode::Outage => outage(order, transport).await,
        }
    })
}

async fn throughput(order: &Order, transport: &Transport) -> Result<Answer, String> {
    let (client, mut events) = client(order, transport, "bench-01");
    let payload = bytes::Bytes::from(order.payload());
    let publisher = tokio::task::spawn_local(async move {
        while client.publish_bytes(TOPIC, QoS::AtLeastOnce, false, payload.clone()).await.is_ok() {}
    });
    // Looking at the clock takes its time as well.
    let every = u64::from(order.window / 4).max(1);
    let (mut acked, mut meter) = (0, Meter::new(order));
    loop {
        if is_ack(&events.poll().await.map_err(|error| error.to_string())?) {
            acked += 1;
            if acked % every == 0
                && let Some(answer) = meter.tick(acked)
            {
                publisher.abort();
                return Ok(answer);
            }
        }
    }
}

async fn idle(order: &Order, transport: &Transport) -> Result<Answer, String> {
    /// Clients that connect at a time, so that none runs into its limit.
    const WAVE: usize = 20;
    let (told, mut connected) = mpsc::unbounded_channel();
    // A client whose handle is dropped would end.
    let mut handles = Vec::with_capacity(order.clients + 1);
    let mut before = 0.0;
    for number in 0..=order.clients {
        let (client, mut events) = client(order, transport, &format!("idle-{number}"));
        handles.push(client);
        let told = told.clone();
        tokio::task::spawn_local(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => _ = told.send(Ok(())),
                    Ok(_) => {}
                    Err(error) => {
                        let _ = told.send(Err(error.to_string()));
                        return;
                    }
                }
            }
        });
        if number == 0 || number > WAVE {
            connected.recv().await.ok_or("no client is left")??;
        }
        if number == 0 {
            // What the first client brought in belongs to the process.
            before = meter::resident_bytes()?;
        }
    }
    for _ in 0..order.clients.min(WAVE) {
        connected.recv().await.ok_or("no client is left")??;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let grown = meter::resident_bytes()? - before;
    Ok(Answer { bytes_per_client: grown / order.clients as f64, ..Answer::default() })
}

async fn outage(order: &Order, transport: &Transport) -> Result<Answer, String> {
    let (client, mut events) = client(order, transport, "bench-01");
    let payload = bytes::Bytes::from(order.payload());
    tokio::task::spawn_local(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            // A full channel refuses; an application without a store of its own then has to drop the message.
            let _ = client.try_publish(TOPIC, QoS::AtLeastOnce, false, payload.to_vec());
        }
    });
    let (stop, mut stopped) = oneshot::channel();
    order::when_input_ends(move || _ = stop.send(()));
    let mut answer = Answer::default();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return Ok(answer),
            event = events.poll() => match event {
                Ok(event) => answer.acked += u64::from(is_ack(&event)),
                Err(_) => {
                    // Each error stands for the attempt that follows it.
                    answer.attempts += 1;
                    if order.pause > 0 {
                        tokio::time::sleep(Duration::from_millis(order.pause)).await;
                    }
                }
            },
        }
    }
}

fn client(order: &Order, transport: &Transport, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", order.port);
    options.set_keep_alive(Duration::from_secs(1200));
    options.set_transport(transport.clone());
    options.set_inflight(order.window);
    options.set_max_packet_size(256 * 1024, 256 * 1024);
    AsyncClient::new(options, usize::from(order.window).max(10))
}

fn is_ack(event: &Event) -> bool {
    matches!(event, Event::Incoming(Packet::PubAck(_)))
}
