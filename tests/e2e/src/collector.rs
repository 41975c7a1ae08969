//! Independent subscribers that note what a broker gives them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::until;

/// A subscriber with a session of its own, which connects again whenever it has to.
#[derive(Debug)]
pub struct Collector {
    got: Arc<Mutex<Vec<u64>>>,
    subscriptions: watch::Receiver<u32>,
    task: JoinHandle<()>,
    child: Option<Child>,
}

impl Collector {
    /// Subscribes with rumqttc's client.
    #[must_use]
    pub fn rumqttc(address: SocketAddr, topic: &str) -> Self {
        let got = Arc::<Mutex<Vec<u64>>>::default();
        let (subscribed, subscriptions) = watch::channel(0);
        let task = tokio::spawn(collect(address, topic.to_owned(), Arc::clone(&got), subscribed));
        Self { got, subscriptions, task, child: None }
    }

    /// Subscribes with `mosquitto_sub`, which waits a second before it connects again.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn mosquitto_sub(address: SocketAddr, topic: &str) -> Self {
        let program = Path::new("/usr/bin/mosquitto_sub");
        assert!(program.exists(), "{} is missing: run `cargo xtask test`, which installs it", program.display());
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        // It writes line by line only to a terminal, or when it is made to.
        let child = Command::new("stdbuf")
            .args([
                "-oL",
                "/usr/bin/mosquitto_sub",
                "-h",
                &ip,
                "-p",
                &port,
                "-i",
                "collector",
                "-c",
                "-q",
                "1",
                "-t",
                topic,
                "-d",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.expect("`stdbuf` of coreutils is everywhere");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let got = Arc::<Mutex<Vec<u64>>>::default();
        let (subscribed, subscriptions) = watch::channel(0);
        let noted = Arc::clone(&got);
        let task = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(number) = line.trim().parse() {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(number);
                } else if line.starts_with("Subscribed") {
                    subscribed.send_modify(|count| *count += 1);
                }
            }
        });
        Self { got, subscriptions, task, child: Some(child) }
    }

    /// Returns how often it has subscribed.
    #[must_use]
    pub fn subscriptions(&self) -> u32 {
        *self.subscriptions.borrow()
    }

    /// Waits until it has subscribed that often.
    pub async fn subscribed(&self, times: u32) {
        until("the collector has subscribed", || self.subscriptions() >= times).await;
    }

    /// Returns all numbers in the order they came, repetitions included.
    #[must_use]
    pub fn all(&self) -> Vec<u64> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the numbers in the order they came first.
    #[must_use]
    pub fn first(&self) -> Vec<u64> {
        let mut seen = HashSet::new();
        self.all().into_iter().filter(|number| seen.insert(*number)).collect()
    }

    /// Waits until it has at least as many numbers as `acknowledged` returns, and neither grows any more.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn caught_up(&self, acknowledged: impl Fn() -> u64) {
        let mut last = None;
        until("the collector has caught up", || {
            let now = (self.first().len(), acknowledged(), Instant::now());
            let known = last.get_or_insert(now);
            if (known.0, known.1) != (now.0, now.1) {
                *known = now;
            }
            now.0 as u64 >= now.1 && now.2 - known.2 > Duration::from_millis(100)
        })
        .await;
    }

    /// Waits until `count` different numbers have come, or nothing new comes for three seconds; returns them in the
    /// order they came first.
    pub async fn settled(&self, count: usize) -> Vec<u64> {
        let (mut known, mut quiet) = (0, 0);
        while known < count && quiet < 300 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = self.first().len();
            quiet = if now > known { 0 } else { quiet + 1 };
            known = now;
        }
        self.first()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.start_kill();
        }
    }
}

async fn collect(address: SocketAddr, topic: String, got: Arc<Mutex<Vec<u64>>>, subscribed: watch::Sender<u32>) {
    loop {
        let mut options = MqttOptions::new("collector", address.ip().to_string(), address.port());
        options.set_clean_session(false);
        let (client, mut events) = AsyncClient::new(options, 10);
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    if client.subscribe(&topic, QoS::AtLeastOnce).await.is_err() {
                        break;
                    }
                }
                Ok(Event::Incoming(Incoming::SubAck(_))) => subscribed.send_modify(|count| *count += 1),
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    let number = std::str::from_utf8(&publish.payload).ok().and_then(|text| text.parse::<u64>().ok());
                    got.lock().unwrap_or_else(PoisonError::into_inner).extend(number);
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
