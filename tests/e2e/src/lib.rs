//! What the end-to-end tests share: a [`Scene`] with the emulator in it, an [`Actor`] that is a real device on real
//! sockets, and a [`Verdict`] by the emulator's ledger.
#![expect(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "nothing but the tests beside it uses it")]

mod actor;
mod broker;
mod collector;
mod edge_place;
mod front;
mod gate;
mod logs;
mod namespace;
mod oracle;
mod scene;
pub mod sdk;

pub use actor::{Actor, Sent};
pub use broker::{BROKER, Broker};
pub use collector::Collector;
pub use edge_place::EdgePlace;
pub use front::{ConnectProxy, WebSocketFront};
pub use gate::Gate;
pub use logs::Logs;
pub use namespace::run_again_inside;
pub use oracle::Verdict;
pub use scene::{DEVICE, DPS_HOST, GROUP, HUB_A, HUB_B, Scene, key, policy, reprovisioning, timeouts};

use std::time::Duration;

use steadfast::Builder;

/// Longer than anything on loopback takes, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What carries a device's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    /// The crate's own: bytes over TLS.
    Bytes,
    /// rumqttc's event loop.
    Rumqttc,
}

impl Pipe {
    /// Has the device's packets carried by this.
    pub fn carry(self, builder: Builder) -> Builder {
        match self {
            Self::Bytes => builder,
            Self::Rumqttc => builder.over_rumqttc(),
        }
    }

    /// Returns how many of `acknowledged` messages may come again because their acknowledgements came together with the
    /// end of the connection.
    #[must_use]
    pub const fn lost_with_the_end(self, acknowledged: usize) -> usize {
        match self {
            Self::Bytes => 0,
            Self::Rumqttc => acknowledged,
        }
    }
}

/// Waits for `what`, and fails the test when it takes longer than [`PATIENCE`].
///
/// # Panics
/// When it takes longer.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens soon")
}

/// Waits until `holds` does, looking every few milliseconds.
///
/// # Panics
/// When it takes longer than [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes a test of each function named, once for every pipe.
#[macro_export]
macro_rules! on_every_pipe {
    ($($name:ident),* $(,)?) => {
        mod byte_pipe {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::Pipe::Bytes).await;
            })*
        }

        mod rumqttc_pipe {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::Pipe::Rumqttc).await;
            })*
        }
    };
}
