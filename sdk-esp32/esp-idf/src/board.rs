//! Clock, key and storage.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant as Uptime, SystemTime, UNIX_EPOCH};

use esp_idf_svc::nvs::{EspDefaultNvsPartition, EspKeyValueStorage, EspNvs, NvsDefault};
use esp_idf_svc::sys::EspError;
use steadfast_core::azure::key_choice::KeyPair;
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::{Assignment, Failure, Instant, LocalFailure, BackoffSnapshot, Seed, SignRequest};
use steadfast_esp32::Board;
use steadfast_esp32::storage::Kept;

/// Name of the namespace in the non-volatile storage.
const NAMESPACE: &str = "steadfast";

/// What the device signs with.
enum Keys {
    None,
    One(SymmetricKey),
    Two(KeyPair),
}

/// An ESP32 under ESP-IDF.
///
/// The monotonic clock is that of `std`, which counts through light sleep. The wall clock is the system's, which SNTP
/// sets; before that it shows 1970, and the link waits with tokens until it is set.
pub struct EspBoard {
    start: Uptime,
    keys: Keys,
    kept: Kept<EspKeyValueStorage<NvsDefault>>,
}

impl EspBoard {
    /// Opens the storage in the default partition. `key` is the device's, none for a device with a certificate.
    ///
    /// # Errors
    /// ESP-IDF's, when the storage cannot be opened.
    pub fn new(nvs: EspDefaultNvsPartition, key: Option<SymmetricKey>) -> Result<Self, EspError> {
        let kept = Kept::new(EspKeyValueStorage::new(EspNvs::new(nvs, NAMESPACE, true)?));
        Ok(Self { start: Uptime::now(), keys: key.map_or(Keys::None, Keys::One), kept })
    }

    /// Offers `secondary` once the device's key is refused, and changes over with each further refusal. Of use to a device
    /// with a key.
    #[must_use]
    pub fn with_secondary_key(mut self, secondary: SymmetricKey) -> Self {
        self.keys = match self.keys {
            Keys::One(primary) => Keys::Two(KeyPair::new(primary, secondary)),
            other => other,
        };
        self
    }

    /// Returns the assignment of an earlier boot; one that cannot be read counts as none.
    pub fn assignment(&self) -> Option<Assignment> {
        self.kept.assignment().ok().flatten()
    }

    /// Returns what the link remembered of its troubles in an earlier boot; what cannot be read counts as nothing.
    pub fn backoff_snapshot(&self) -> Option<BackoffSnapshot> {
        self.kept.backoff_snapshot().ok().flatten()
    }
}

impl fmt::Debug for EspBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspBoard").field("start", &self.start).finish_non_exhaustive()
    }
}

impl Board for EspBoard {
    fn now(&self) -> Instant {
        Instant::from_millis(self.start.elapsed().as_millis().try_into().unwrap_or(u64::MAX))
    }

    fn unix_secs(&self) -> Option<u64> {
        SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
    }

    fn sign(&mut self, request: SignRequest<'_>) -> Result<[u8; 32], Failure> {
        match &mut self.keys {
            Keys::None => Err(Failure::Local(LocalFailure::Credential)),
            Keys::One(key) => Ok(key.sign(&request.text)),
            Keys::Two(keys) => Ok(keys.sign(&request)),
        }
    }

    fn save(&mut self, assignment: &Assignment) {
        // Without it the next boot asks the Device Provisioning Service, which is no fault.
        let _ = self.kept.keep_assignment(assignment);
    }

    fn save_backoff(&mut self, memory: BackoffSnapshot) {
        // Without it the next boot starts as one without troubles, which is no fault either.
        let _ = self.kept.keep_backoff(memory);
    }

    fn sleep(&mut self, span: Duration) {
        thread::sleep(span);
    }
}

/// Draws a seed from the chip's generator; Wi-Fi must be on by then, or its numbers are pseudo-random.
#[must_use]
pub fn seed() -> Seed {
    let mut entropy = [0; 16];
    for chunk in entropy.chunks_mut(4) {
        #[expect(unsafe_code, reason = "a function of ESP-IDF without arguments and without conditions")]
        // SAFETY: it reads a register.
        let word = unsafe { esp_idf_svc::sys::esp_random() };
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    Seed::new(entropy)
}
