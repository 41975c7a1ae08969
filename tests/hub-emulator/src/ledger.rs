//! The ledger: every receipt of every message, and every connection attempt. It shows that nothing was lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::LedgerMode;
use crate::connections::ConnectionRecord;
use crate::operations::{Operation, OperationRecord};
use crate::ranges::RangeSet;
use crate::report::{Counts, DeliveryReport, SequenceReport};
use crate::world::Shared;

/// One receipt of one telemetry message. A retransmitted message has another receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Place in the order of all receipts of all devices, from 1.
    pub order: u64,
    /// Time since the emulator started.
    pub at: Duration,
    /// Host name of the hub.
    pub hub: String,
    /// Device id, or `device/module`.
    pub device: String,
    /// Number of the connection in the connection log.
    pub connection: u64,
    /// MQTT packet id; 0 at QoS 0 and for a will.
    pub packet_id: u16,
    /// The DUP flag.
    pub dup: bool,
    /// 0 or 1.
    pub qos: u8,
    /// Topic as received.
    pub topic: String,
    /// The decoded `$.mid` property.
    pub message_id: Option<String>,
    /// The decoded property bag in its order, with the properties the hub adds (`mqtt-retain`, `iothub-MessageType`).
    pub properties: Vec<(String, String)>,
    /// The body.
    pub payload: Bytes,
    /// False when a fault dropped the message before it was stored; such a receipt is not a delivery.
    pub stored: bool,
    /// When the PUBACK was passed to the socket.
    pub acknowledged_at: Option<Duration>,
}

impl Receipt {
    /// Returns the Plug and Play component of the message, `$.sub`.
    #[must_use]
    pub fn component(&self) -> Option<&str> {
        self.property("$.sub")
    }

    /// Returns the module output of the message, `$.on`.
    #[must_use]
    pub fn output(&self) -> Option<&str> {
        self.property("$.on")
    }

    /// Returns the content type, `$.ct`.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.property("$.ct")
    }

    /// Returns the content encoding, `$.ce`.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&str> {
        self.property("$.ce")
    }

    /// Returns the value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The ledger of received messages. Clones read the same ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(crate) shared: Arc<Shared>,
}

impl Ledger {
    /// Returns the stored receipts of a device in their order, as far as [`LedgerMode`] keeps them.
    #[must_use]
    pub fn messages(&self, device: &str) -> Vec<Receipt> {
        self.read(|entries| entries.receipts(device).filter(|receipt| receipt.stored).cloned().collect())
    }

    /// Returns all receipts of a device in their order, including those that were not stored.
    #[must_use]
    pub fn receipts(&self, device: &str) -> Vec<Receipt> {
        self.read(|entries| entries.receipts(device).cloned().collect())
    }

    /// Returns the stored receipts of all devices in the order of arrival.
    #[must_use]
    pub fn all_messages(&self) -> Vec<Receipt> {
        let mut all: Vec<Receipt> = self.read(|entries| {
            let of_all = entries.devices.values().flat_map(|device| &device.receipts);
            of_all.filter(|receipt| receipt.stored).cloned().collect()
        });
        all.sort_by_key(|receipt| receipt.order);
        all
    }

    /// Returns the ids of all devices that sent something, sorted.
    #[must_use]
    pub fn devices(&self) -> Vec<String> {
        let mut devices: Vec<String> = self.read(|entries| entries.devices.keys().cloned().collect());
        devices.sort();
        devices
    }

    /// Returns the counts of one device.
    #[must_use]
    pub fn counts(&self, device: &str) -> Counts {
        self.read(|entries| entries.devices.get(device).map(|device| device.counts).unwrap_or_default())
    }

    /// Returns the counts of all devices together.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.read(|entries| entries.devices.values().fold(Counts::default(), |sum, device| sum.plus(device.counts)))
    }

    /// Compares the messages a device delivered with the accepted message ids, in their order.
    #[must_use]
    pub fn check<I>(&self, device: &str, accepted: I) -> DeliveryReport
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let accepted: Vec<String> = accepted.into_iter().map(Into::into).collect();
        self.read(|entries| {
            let stored = entries.receipts(device).filter(|receipt| receipt.stored);
            let received = stored.filter_map(|receipt| receipt.message_id.as_deref());
            DeliveryReport::compare(&accepted, received)
        })
    }

    /// Compares the messages a device delivered with the values `first..end` of the application property `seq`.
    #[must_use]
    pub fn check_sequence(&self, device: &str, expected: std::ops::Range<u64>) -> SequenceReport {
        self.read(|entries| match entries.devices.get(device) {
            Some(device) => SequenceReport::of(&device.sequence, device.counts, expected),
            None => SequenceReport::of(&RangeSet::default(), Counts::default(), expected),
        })
    }

    /// Waits until a device has delivered `count` distinct messages; false on timeout.
    pub async fn wait_for(&self, device: &str, count: u64, limit: Duration) -> bool {
        self.wait_until(limit, |ledger| ledger.counts(device).distinct >= count).await
    }

    /// Waits until `holds` returns true, checked after each change; false on timeout.
    pub async fn wait_until(&self, limit: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if holds(self) {
                    return;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok() || holds(self)
    }

    /// Returns the connection log, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionRecord> {
        self.read(|entries| entries.connections.iter().cloned().collect())
    }

    /// Returns the connections on which `device` (or a registration id) sent CONNECT, oldest first.
    #[must_use]
    pub fn connections_of(&self, device: &str) -> Vec<ConnectionRecord> {
        self.read(|entries| {
            let of_device = entries.connections.iter().filter(|record| record.device.as_deref() == Some(device));
            of_device.cloned().collect()
        })
    }

    /// Returns the operation log of all devices, oldest first.
    #[must_use]
    pub fn operations(&self) -> Vec<OperationRecord> {
        self.read(|entries| entries.operations.iter().cloned().collect())
    }

    /// Returns the operations of one device, oldest first.
    #[must_use]
    pub fn operations_of(&self, device: &str) -> Vec<Operation> {
        self.read(|entries| {
            let of_device = entries.operations.iter().filter(|record| record.device == device);
            of_device.map(|record| record.operation.clone()).collect()
        })
    }

    /// Deletes all receipts, counts, operations and closed connections.
    pub fn clear(&self) {
        self.read(|entries| {
            entries.devices.clear();
            entries.operations.clear();
            entries.connections.retain(|record| record.closed_at.is_none());
        });
    }

    fn read<T>(&self, access: impl FnOnce(&mut Entries) -> T) -> T {
        access(&mut self.shared.lock().entries)
    }
}

/// The data of a received message.
pub(crate) struct Entry<'a> {
    pub(crate) hub: &'a str,
    pub(crate) device: &'a str,
    pub(crate) connection: u64,
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) topic: &'a str,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) payload: &'a [u8],
    pub(crate) stored: bool,
}

impl Entry<'_> {
    /// Returns the module output of the message, and the properties that are routed with it.
    pub(crate) fn output(&self) -> Option<(String, Vec<(String, String)>)> {
        let output = self.properties.iter().find(|(key, _)| key == "$.on").map(|(_, value)| value.clone())?;
        let others = self.properties.iter().filter(|(key, _)| key != "$.on").cloned().collect();
        Some((output, others))
    }
}

#[derive(Debug, Default)]
struct DeviceEntries {
    receipts: VecDeque<Receipt>,
    counts: Counts,
    /// How often each message id was stored; empty in counting mode.
    ids: HashMap<String, u32>,
    sequence: RangeSet,
    last_sequence: Option<u64>,
}

/// The stored entries of the ledger.
#[derive(Debug)]
pub(crate) struct Entries {
    mode: LedgerMode,
    connection_limit: usize,
    order: u64,
    devices: HashMap<String, DeviceEntries>,
    connections: VecDeque<ConnectionRecord>,
    operations: VecDeque<OperationRecord>,
    last_operation: u64,
}

impl Entries {
    pub(crate) fn new(mode: LedgerMode, connection_limit: usize) -> Self {
        let connection_limit = connection_limit.max(1);
        Self {
            mode,
            connection_limit,
            order: 0,
            devices: HashMap::new(),
            connections: VecDeque::new(),
            operations: VecDeque::new(),
            last_operation: 0,
        }
    }

    /// Adds an operation; the log has the same length as the connection log and drops its oldest entries first.
    pub(crate) fn note(&mut self, hub: &str, device: &str, operation: Operation, now: Duration) {
        if self.operations.len() >= self.connection_limit {
            self.operations.pop_front();
        }
        self.last_operation += 1;
        self.operations.push_back(OperationRecord {
            order: self.last_operation,
            at: now,
            hub: hub.to_owned(),
            device: device.to_owned(),
            operation,
        });
    }

    /// Adds a receipt and returns its position in the order.
    pub(crate) fn enter(&mut self, entry: Entry<'_>, now: Duration) -> u64 {
        self.order += 1;
        let device = match self.devices.get_mut(entry.device) {
            Some(device) => device,
            None => self.devices.entry(entry.device.to_owned()).or_default(),
        };
        let property = |name: &str| entry.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let message_id = property("$.mid").cloned();
        let sequence = property("seq").and_then(|value| value.parse::<u64>().ok());
        device.counts.receipts += 1;
        device.counts.dup_flags += u64::from(entry.dup);
        if entry.stored {
            device.counts.stored += 1;
            device.counts.bytes += entry.payload.len() as u64;
            let mut is_new = None;
            if let Some(sequence) = sequence {
                let fresh = device.sequence.insert(sequence);
                is_new = Some(fresh);
                if fresh {
                    let earlier = device.last_sequence.is_some_and(|last| sequence < last);
                    device.counts.reordered += u64::from(earlier);
                    device.last_sequence = device.last_sequence.max(Some(sequence));
                }
            }
            if let (Some(id), LedgerMode::Full | LedgerMode::Last(_)) = (&message_id, self.mode) {
                let times = device.ids.entry(id.clone()).or_insert(0);
                *times += 1;
                is_new = Some(*times == 1);
            }
            if is_new.unwrap_or(true) {
                device.counts.distinct += 1;
            } else {
                device.counts.duplicates += 1;
            }
        }
        let keep = match self.mode {
            LedgerMode::Full => usize::MAX,
            LedgerMode::Last(count) => count,
            LedgerMode::Counts => 0,
        };
        if keep > 0 {
            if device.receipts.len() >= keep {
                device.receipts.pop_front();
            }
            device.receipts.push_back(Receipt {
                order: self.order,
                at: now,
                hub: entry.hub.to_owned(),
                device: entry.device.to_owned(),
                connection: entry.connection,
                packet_id: entry.packet_id,
                dup: entry.dup,
                qos: entry.qos,
                topic: entry.topic.to_owned(),
                message_id,
                properties: entry.properties,
                payload: Bytes::copy_from_slice(entry.payload),
                stored: entry.stored,
                acknowledged_at: None,
            });
        }
        self.order
    }

    /// Records that the PUBACK of a receipt was passed to the socket.
    pub(crate) fn acknowledge(&mut self, device: &str, order: u64, now: Duration) {
        let Some(device) = self.devices.get_mut(device) else { return };
        device.counts.acknowledged += 1;
        if let Ok(at) = device.receipts.binary_search_by_key(&order, |receipt| receipt.order) {
            device.receipts[at].acknowledged_at = Some(now);
        }
    }

    pub(crate) fn open(&mut self, record: ConnectionRecord) {
        if self.connections.len() >= self.connection_limit {
            self.connections.pop_front();
        }
        self.connections.push_back(record);
    }

    /// Applies `change` to the record of a connection, if it is still kept.
    pub(crate) fn amend(&mut self, connection: u64, change: impl FnOnce(&mut ConnectionRecord)) {
        if let Ok(at) = self.connections.binary_search_by_key(&connection, |record| record.number) {
            change(&mut self.connections[at]);
        }
    }

    fn receipts(&self, device: &str) -> impl Iterator<Item = &Receipt> {
        self.devices.get(device).into_iter().flat_map(|device| &device.receipts)
    }
}
