//! A device's stored state, in a store of `embedded-svc` (NVS on ESP-IDF).

use embedded_svc::storage::RawStorage;
use steadfast_core::{Assignment, BackoffSnapshot};

/// Longest record: two lengths and two names.
const RECORD_BYTES: usize = 2 + 128 + 128;

/// First byte of a record: its form.
const FORM: u8 = 1;

/// Key of the assignment, short enough for NVS, whose keys have at most 15 bytes.
const ASSIGNMENT: &str = "sf-assignment";

/// Key of the memory.
const MEMORY: &str = "sf-memory";

/// Stores assignment and back-off state, so that a reboot costs no registration and does not reset the back-off.
///
/// Two records: the assignment, up to 258 bytes, and the back-off snapshot with the operator's jitter window, 24 bytes.
/// A record that is damaged or of an unknown format counts as absent: the device then registers again, or starts
/// without back-off state. No secrets are stored.
///
/// # Wear
/// The link decides when something is worth a write, and what is kept already is not written again. The assignment is
/// written when it differs from the one kept: once, and once for each move. The memory is written when an outage shows
/// first evidence of overload and each time that has grown older by a quarter (20 times in the first hour of an outage
/// and 45 times in a week at most, however often the device tries), when a connection that ends the trouble has proved
/// stable, when the hint changes, and with each registration, whose spacing grows to 8 hours. NVS takes a write of 24
/// bytes in three of the 126 entries of a page.
#[derive(Debug)]
pub struct Kept<S> {
    store: S,
}

impl<S: RawStorage> Kept<S> {
    /// Uses `store`.
    pub const fn new(store: S) -> Self {
        Self { store }
    }

    /// Returns the stored assignment.
    ///
    /// # Errors
    /// The store's.
    pub fn assignment(&self) -> Result<Option<Assignment>, S::Error> {
        let mut record = [0; RECORD_BYTES];
        // A store may treat a buffer that is too small as an error, or worse.
        if self.store.len(ASSIGNMENT)?.is_none_or(|len| len > RECORD_BYTES) {
            return Ok(None);
        }
        Ok(self.store.get_raw(ASSIGNMENT, &mut record)?.and_then(read))
    }

    /// Stores an assignment; an unchanged one is not written again, which saves flash wear.
    ///
    /// # Errors
    /// The store's.
    pub fn keep_assignment(&mut self, assignment: &Assignment) -> Result<(), S::Error> {
        if self.assignment()?.as_ref() == Some(assignment) {
            return Ok(());
        }
        let mut record = [0; RECORD_BYTES];
        let len = write(assignment, &mut record);
        self.store.set_raw(ASSIGNMENT, record.get(..len).unwrap_or_default())?;
        Ok(())
    }

    /// Returns the stored back-off snapshot.
    ///
    /// # Errors
    /// The store's.
    pub fn backoff_snapshot(&self) -> Result<Option<BackoffSnapshot>, S::Error> {
        let mut record = [0; BackoffSnapshot::LEN];
        if self.store.len(MEMORY)? != Some(BackoffSnapshot::LEN) {
            return Ok(None);
        }
        let kept = self.store.get_raw(MEMORY, &mut record)?;
        Ok(kept.and_then(|record| record.try_into().ok()).and_then(BackoffSnapshot::from_bytes))
    }

    /// Stores the back-off snapshot; an unchanged one is not written again.
    ///
    /// # Errors
    /// The store's.
    pub fn keep_backoff(&mut self, memory: BackoffSnapshot) -> Result<(), S::Error> {
        if self.backoff_snapshot()? == Some(memory) {
            return Ok(());
        }
        self.store.set_raw(MEMORY, &memory.to_bytes())?;
        Ok(())
    }

    /// Deletes both records, such as before a device changes hands.
    ///
    /// # Errors
    /// The store's.
    pub fn forget(&mut self) -> Result<(), S::Error> {
        self.store.remove(ASSIGNMENT)?;
        self.store.remove(MEMORY)?;
        Ok(())
    }
}

/// Form, length of the hub's name, its name, the device's id.
fn write(assignment: &Assignment, record: &mut [u8; RECORD_BYTES]) -> usize {
    let (hub, device_id) = (assignment.hub().as_bytes(), assignment.device_id().as_bytes());
    let head = [FORM, u8::try_from(hub.len()).unwrap_or(u8::MAX)];
    let mut len = 0;
    for byte in head.iter().chain(hub).chain(device_id) {
        if let Some(place) = record.get_mut(len) {
            *place = *byte;
            len += 1;
        }
    }
    len
}

fn read(record: &[u8]) -> Option<Assignment> {
    let [FORM, hub_len, names @ ..] = record else { return None };
    let (hub, device_id) = names.split_at_checked(usize::from(*hub_len))?;
    Assignment::new(core::str::from_utf8(hub).ok()?, core::str::from_utf8(device_id).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::string::String;
    use std::vec::Vec;

    use embedded_svc::storage::StorageBase;

    use super::*;

    #[derive(Default)]
    struct Fake {
        entries: BTreeMap<String, Vec<u8>>,
        writes: usize,
    }

    impl StorageBase for Fake {
        type Error = core::convert::Infallible;

        fn contains(&self, name: &str) -> Result<bool, Self::Error> {
            Ok(self.entries.contains_key(name))
        }

        fn remove(&mut self, name: &str) -> Result<bool, Self::Error> {
            Ok(self.entries.remove(name).is_some())
        }
    }

    impl RawStorage for Fake {
        fn len(&self, name: &str) -> Result<Option<usize>, Self::Error> {
            Ok(self.entries.get(name).map(Vec::len))
        }

        fn get_raw<'a>(&self, name: &str, buf: &'a mut [u8]) -> Result<Option<&'a [u8]>, Self::Error> {
            Ok(self.entries.get(name).map(|value| {
                buf[..value.len()].copy_from_slice(value);
                &buf[..value.len()]
            }))
        }

        fn set_raw(&mut self, name: &str, buf: &[u8]) -> Result<bool, Self::Error> {
            assert!(name.len() <= 15, "NVS takes no longer key");
            self.writes += 1;
            Ok(self.entries.insert(name.into(), buf.to_vec()).is_some())
        }
    }

    #[test]
    fn an_assignment_survives_a_reboot_and_is_written_once() {
        let mut store = Fake::default();
        let (longest_hub, longest_id) = (std::format!("{}.azure-devices.net", "h".repeat(50)), "d".repeat(128));
        for (hub, device) in [("contoso.azure-devices.net", "pump-7"), (longest_hub.as_str(), longest_id.as_str())] {
            let assignment = Assignment::new(hub, device).unwrap();
            let before = store.writes;
            Kept::new(&mut store).keep_assignment(&assignment).unwrap();
            Kept::new(&mut store).keep_assignment(&assignment).unwrap();
            assert_eq!(store.writes, before + 1);
            assert_eq!(Kept::new(&mut store).assignment().unwrap(), Some(assignment));
        }
        Kept::new(&mut store).forget().unwrap();
        assert_eq!(Kept::new(&mut store).assignment().unwrap(), None);
    }

    /// Bytes of a memory with a hint of 1,100 s and two registrations that moved nothing.
    const TROUBLED: [u8; BackoffSnapshot::LEN] =
        [2, 0, 0, 2, 60, 0, 0, 0, 0, 0, 0, 0, 0x4c, 4, 0, 0, 0, 0, 0, 0, 0, 74, 146, 18];

    #[test]
    fn a_memory_survives_a_reboot_and_is_written_once() {
        let mut store = Fake::default();
        assert_eq!(Kept::new(&mut store).backoff_snapshot().unwrap(), None);
        let memory = BackoffSnapshot::from_bytes(TROUBLED).unwrap();
        Kept::new(&mut store).keep_backoff(memory).unwrap();
        Kept::new(&mut store).keep_backoff(memory).unwrap();
        assert_eq!(store.writes, 1);
        assert_eq!(Kept::new(&mut store).backoff_snapshot().unwrap(), Some(memory));
        Kept::new(&mut store).forget().unwrap();
        assert_eq!(Kept::new(&mut store).backoff_snapshot().unwrap(), None);
    }

    #[test]
    fn a_damaged_memory_counts_as_absent() {
        let unknown = [&[9], &TROUBLED[1..]].concat();
        let damaged = [&TROUBLED[..4], &[61], &TROUBLED[5..]].concat();
        for record in [&[][..], &TROUBLED[1..], &unknown, &damaged, &[0; BackoffSnapshot::LEN + 1]] {
            let mut store = Fake::default();
            store.set_raw(MEMORY, record).unwrap();
            assert_eq!(Kept::new(&mut store).backoff_snapshot().unwrap(), None, "{record:?}");
        }
    }

    #[test]
    fn a_damaged_record_counts_as_absent() {
        let mut good = [0; RECORD_BYTES];
        let len = write(&Assignment::new("contoso.azure-devices.net", "pump-7").unwrap(), &mut good);
        let mut records: Vec<Vec<u8>> = (0..len - 6).map(|len| good[..len].to_vec()).collect();
        records.push([&[FORM + 1], &good[1..len]].concat());
        records.push([0xff; RECORD_BYTES + 1].to_vec());
        for record in records {
            let mut store = Fake::default();
            store.set_raw(ASSIGNMENT, &record).unwrap();
            assert_eq!(Kept::new(&mut store).assignment().unwrap(), None, "{record:?}");
        }
    }
}
