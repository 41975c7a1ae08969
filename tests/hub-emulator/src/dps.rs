//! The Device Provisioning Service: enrollments, registrations, assignments.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Error;
use crate::config::{DeviceAuth, DpsConfig};
use crate::connections::Refusal;
use crate::enrollment::{Attestation, Enrollment};
use crate::fault::{DpsFault, Plan};
use crate::sas::{Token, same_resource};
use crate::twin::Twin;

/// One registration request as received.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Registration {
    /// Time since the emulator started.
    pub at: Duration,
    /// Registration id.
    pub registration_id: String,
    /// The custom payload of the request.
    pub payload: Option<Value>,
    /// The status of the response; none without a response.
    pub status: Option<u16>,
}

/// The registration state of a device.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub(crate) hub: String,
    pub(crate) device: String,
    pub(crate) created: u64,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) registration_id: String,
    pub(crate) polls_left: u32,
    /// The body of the final response, once the registration has ended.
    pub(crate) ended: Option<Value>,
}

/// The state of DPS.
#[derive(Debug)]
pub(crate) struct Dps {
    pub(crate) config: DpsConfig,
    pub(crate) enrollments: Vec<Enrollment>,
    pub(crate) assignments: HashMap<String, Assignment>,
    pub(crate) operations: HashMap<String, Operation>,
    pub(crate) faults: Plan<DpsFault>,
    pub(crate) log: Vec<Registration>,
    pub(crate) down: bool,
    /// Switches DPS's own listener on and off.
    pub(crate) listening: watch::Sender<bool>,
    /// Hubs of single devices that were moved away from the hub of their enrollment.
    pub(crate) overrides: HashMap<String, String>,
    /// Twins of moved devices that have not registered since.
    pub(crate) luggage: HashMap<String, Twin>,
    next_operation: u64,
    /// Times of the registrations of the last minute, of all devices.
    registers: VecDeque<Duration>,
    polls: HashMap<String, VecDeque<Duration>>,
    /// The keys given to TPMs, by registration id.
    pub(crate) tpm_keys: HashMap<String, TpmKeys>,
}

/// The keys given to one TPM.
#[derive(Debug)]
pub(crate) struct TpmKeys {
    /// The key for signing the registration.
    pub(crate) own: crate::Key,
    /// The key for its hub.
    pub(crate) hub: crate::Key,
    /// The storage root key it presented.
    pub(crate) storage_root_key: Vec<u8>,
}

impl Dps {
    pub(crate) fn new(config: DpsConfig, enrollments: Vec<Enrollment>) -> Self {
        Self {
            config,
            enrollments,
            assignments: HashMap::new(),
            operations: HashMap::new(),
            faults: Plan::default(),
            log: Vec::new(),
            down: false,
            listening: watch::channel(true).0,
            overrides: HashMap::new(),
            luggage: HashMap::new(),
            next_operation: 0,
            registers: VecDeque::new(),
            polls: HashMap::new(),
            tpm_keys: HashMap::new(),
        }
    }

    /// Finds the enrollment that `credentials` authenticate `registration_id` for, and the credentials of its identity
    /// on a hub.
    pub(crate) fn verify(
        &self,
        id_scope: &str,
        registration_id: &str,
        credentials: &Credentials<'_>,
    ) -> Result<(usize, DeviceAuth), Refusal> {
        if id_scope != self.config.id_scope {
            return Err(Refusal::WrongIdScope);
        }
        let individual =
            |enrollment: &Enrollment| !enrollment.group && enrollment.name.eq_ignore_ascii_case(registration_id);
        if let Some(at) = self.enrollments.iter().position(individual) {
            return check_credentials(&self.enrollments[at], id_scope, registration_id, credentials)
                .map(|auth| (at, auth));
        }
        let mut refusal = Refusal::Unknown;
        for (at, enrollment) in self.enrollments.iter().enumerate().filter(|(_, enrollment)| enrollment.group) {
            match check_credentials(enrollment, id_scope, registration_id, credentials) {
                Ok(auth) => return Ok((at, auth)),
                Err(why) => refusal = why,
            }
        }
        Err(refusal)
    }

    pub(crate) fn enrollment(&mut self, name: &str) -> Result<&mut Enrollment, Error> {
        let found = self.enrollments.iter_mut().find(|enrollment| enrollment.name == name);
        found.ok_or_else(|| Error::NoSuchEnrollment(name.to_owned()))
    }

    pub(crate) fn enroll(&mut self, enrollment: Enrollment) {
        match self.enrollments.iter_mut().find(|old| old.name == enrollment.name) {
            Some(old) => *old = enrollment,
            None => self.enrollments.push(enrollment),
        }
    }

    /// Replaces an enrollment by an empty group, so that the indices in other sessions stay valid.
    pub(crate) fn remove(&mut self, name: &str) {
        for enrollment in self.enrollments.iter_mut().filter(|enrollment| enrollment.name == name) {
            *enrollment = Enrollment::group("", crate::Key::from_bytes(&[])).disabled();
            enrollment.attestation = Attestation::CertificateAuthority(String::new());
        }
    }

    /// Points the enrollment of one device to another hub; a group gets an exception for the device.
    pub(crate) fn repoint_device(&mut self, device: &str, hub: &str) {
        self.overrides.insert(device.to_owned(), hub.to_owned());
    }

    /// Points all enrollments of one hub to another one.
    pub(crate) fn repoint_hub(&mut self, from: &str, to: &str, first_hub: Option<&str>) {
        for enrollment in &mut self.enrollments {
            if enrollment.hub.as_deref().or(first_hub) == Some(from) {
                enrollment.hub = Some(to.to_owned());
            }
        }
        self.overrides.retain(|_, hub| hub != from);
    }

    pub(crate) fn begin(&mut self, registration_id: &str) -> String {
        self.next_operation += 1;
        let id = format!("4.{:016x}.{:08x}-0000-4000-8000-{:012x}", self.next_operation, 0x5eed, self.next_operation);
        let operation =
            Operation { registration_id: registration_id.to_owned(), polls_left: self.config.polls, ended: None };
        // Until then the device can request it again: the response may have been lost.
        self.operations.retain(|_, earlier| earlier.ended.is_none() || earlier.registration_id != registration_id);
        self.operations.insert(id.clone(), operation);
        id
    }

    /// Counts a registration; returns the seconds to wait when there are too many.
    pub(crate) fn too_many_registers(&mut self, now: Duration) -> Option<u64> {
        let limit = self.config.registers_per_minute?;
        let minute = Duration::from_secs(60);
        while self.registers.front().is_some_and(|&at| at + minute <= now) {
            self.registers.pop_front();
        }
        if self.registers.len() >= limit as usize {
            let oldest = self.registers.front().copied().unwrap_or(now);
            return Some((oldest + minute).saturating_sub(now).as_secs() + 1);
        }
        self.registers.push_back(now);
        None
    }

    /// Counts a poll; true when there are too many.
    pub(crate) fn too_many_polls(&mut self, registration_id: &str, now: Duration) -> bool {
        let times = self.polls.entry(registration_id.to_owned()).or_default();
        while times.front().is_some_and(|&at| at + Duration::from_secs(10) <= now) {
            times.pop_front();
        }
        if times.len() >= self.config.polls_per_ten_seconds as usize {
            return true;
        }
        times.push_back(now);
        false
    }
}

/// The credentials of a client.
pub(crate) struct Credentials<'a> {
    pub(crate) password: &'a str,
    pub(crate) certificates: &'a [CertificateDer<'static>],
    /// The emulator's clock in Unix seconds.
    pub(crate) unix: u64,
}

fn check_credentials(
    enrollment: &Enrollment,
    id_scope: &str,
    registration_id: &str,
    credentials: &Credentials<'_>,
) -> Result<DeviceAuth, Refusal> {
    match &enrollment.attestation {
        // The service offers TPM attestation over HTTPS only.
        Attestation::Tpm { .. } => Err(Refusal::NoToken),
        Attestation::Symmetric { primary, secondary } => {
            let own = |key: &crate::Key| if enrollment.group { key.derive(registration_id) } else { key.clone() };
            let (primary, secondary) = (own(primary), secondary.as_ref().map(own));
            let token = Token::parse(credentials.password).ok_or(Refusal::NoToken)?;
            if !same_resource(&token.resource(), &format!("{id_scope}/registrations/{registration_id}")) {
                return Err(Refusal::WrongResource);
            }
            if !std::iter::once(&primary).chain(&secondary).any(|key| token.is_signed_with(key)) {
                return Err(Refusal::BadSignature);
            }
            if token.expiry < credentials.unix {
                return Err(Refusal::Expired);
            }
            Ok(DeviceAuth::Keys { primary, secondary })
        }
        Attestation::Thumbprint(wanted) => {
            let leaf = credentials.certificates.first().ok_or(Refusal::BadCertificate)?;
            if !crate::pki::thumbprint(leaf).eq_ignore_ascii_case(wanted) {
                return Err(Refusal::BadCertificate);
            }
            Ok(DeviceAuth::Thumbprint { primary: wanted.clone(), secondary: None })
        }
        Attestation::CertificateAuthority(pem) => {
            let leaf = credentials.certificates.first().ok_or(Refusal::BadCertificate)?;
            let named = crate::pki::common_name(leaf).is_some_and(|name| name == registration_id);
            if !named || !crate::pki::is_signed_by(credentials.certificates, pem, credentials.unix) {
                return Err(Refusal::BadCertificate);
            }
            Ok(DeviceAuth::CertificateAuthority { pem: pem.clone(), common_name: Some(registration_id.to_owned()) })
        }
    }
}

/// Returns an error body.
pub(crate) fn error_body(code: u32, message: &str, unix: u64) -> Value {
    json!({
        "errorCode": code,
        "trackingId": format!("{unix:08x}-0000-4000-8000-{code:012}"),
        "message": message,
        "timestampUtc": timestamp(unix),
    })
}

/// Returns the error code and message of a status.
pub(crate) fn error_of(status: u16) -> (u32, &'static str) {
    let code = u32::from(status) * 1000;
    match status {
        401 => (401_002, "Invalid certificate or token."),
        404 => (404_201, "There is no such enrollment."),
        429 => (429_001, "Too many requests."),
        500..=599 => (code + 1, "The service has an internal error."),
        _ => (code, "The request was refused."),
    }
}

/// Writes a time in Unix seconds as in `2020-04-10T03:11:13.0000000Z`.
pub(crate) fn timestamp(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Days since 0000-03-01 in the proleptic Gregorian calendar, whose years begin with March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.0000000Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_calendar_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.0000000Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00.0000000Z");
        assert_eq!(timestamp(1_586_488_273), "2020-04-10T03:11:13.0000000Z");
        assert_eq!(timestamp(1_893_456_000), "2030-01-01T00:00:00.0000000Z");
    }
}
