//! Enrollments of DPS.

use serde_json::Value;

use crate::config::hub_host;
use crate::sas::Key;

/// How devices of an enrollment authenticate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Attestation {
    /// A token signed with this key (individual enrollment) or with a key derived from it (group).
    Symmetric {
        /// The first key.
        primary: Key,
        /// The second key, for rotation.
        secondary: Option<Key>,
    },
    /// A client certificate with this SHA-256 thumbprint (individual enrollments only).
    Thumbprint(String),
    /// A client certificate signed by this CA (PEM), with the registration id as common name.
    CertificateAuthority(String),
    /// A TPM with this endorsement key in TPM encoding (individual enrollments only, over HTTPS only).
    Tpm {
        /// The public endorsement key.
        endorsement_key: Vec<u8>,
    },
}

/// An enrollment of DPS.
#[derive(Clone, Debug)]
#[must_use]
pub struct Enrollment {
    /// Registration id of an individual enrollment, name of a group.
    pub(crate) name: String,
    pub(crate) group: bool,
    pub(crate) attestation: Attestation,
    pub(crate) device_id: Option<String>,
    pub(crate) hub: Option<String>,
    pub(crate) enabled: bool,
    pub(crate) payload: Option<Value>,
    pub(crate) connection_profile: Option<String>,
    pub(crate) initial_desired: Option<Value>,
}

impl Enrollment {
    /// One device with a key of its own.
    pub fn individual(registration_id: &str, key: Key) -> Self {
        Self::new(registration_id, false, Attestation::Symmetric { primary: key, secondary: None })
    }

    /// One device with another attestation.
    pub fn individual_with(registration_id: &str, attestation: Attestation) -> Self {
        Self::new(registration_id, false, attestation)
    }

    /// Any number of devices, each with a key derived from the group's.
    pub fn group(name: &str, key: Key) -> Self {
        Self::new(name, true, Attestation::Symmetric { primary: key, secondary: None })
    }

    /// Any number of devices with another attestation.
    pub fn group_with(name: &str, attestation: Attestation) -> Self {
        Self::new(name, true, attestation)
    }

    fn new(name: &str, group: bool, attestation: Attestation) -> Self {
        Self {
            name: name.to_owned(),
            group,
            attestation,
            device_id: None,
            hub: None,
            enabled: true,
            payload: None,
            connection_profile: None,
            initial_desired: None,
        }
    }

    /// Sets the device id, when it differs from the registration id (individual enrollments only).
    pub fn device_id(mut self, id: &str) -> Self {
        self.device_id = Some(id.to_owned());
        self
    }

    /// Assigns to this hub; the first hub by default.
    pub fn hub(mut self, name: &str) -> Self {
        self.hub = Some(hub_host(name));
        self
    }

    /// Disables the enrollment from the start.
    pub fn disabled(mut self) -> Self {
        self.enabled = false;
        self
    }

    /// Returns this custom payload with an assignment.
    pub fn payload(mut self, payload: Value) -> Self {
        self.payload = Some(payload);
        self
    }

    /// Returns this connection profile with an assignment.
    pub fn connection_profile(mut self, profile: &str) -> Self {
        self.connection_profile = Some(profile.to_owned());
        self
    }

    /// Sets the initial desired properties of a new device.
    pub fn initial_desired(mut self, desired: Value) -> Self {
        self.initial_desired = Some(desired);
        self
    }
}
