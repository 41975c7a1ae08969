//! The Device Provisioning Service of a device.

use steadfast_core::dps::topics;

/// A registration with the Device Provisioning Service.
#[derive(Clone, Debug)]
#[must_use]
pub struct Dps {
    pub(super) host: Box<str>,
    pub(super) id_scope: Box<str>,
    pub(super) registration_id: Box<str>,
    pub(super) payload: Option<Box<str>>,
    pub(super) hub_suffix: Option<Box<str>>,
}

impl Dps {
    /// Names the id scope, such as `0ne00AB12CD`, and the registration id, in lower case.
    pub fn new(id_scope: &str, registration_id: &str) -> Self {
        Self {
            host: topics::GLOBAL_HOST.into(),
            id_scope: id_scope.into(),
            registration_id: registration_id.into(),
            payload: None,
            hub_suffix: None,
        }
    }

    /// Names the service's host, for a private or sovereign one. Default: that of the public cloud.
    pub fn host(self, host: &str) -> Self {
        Self { host: host.into(), ..self }
    }

    /// Sets the JSON object that a custom allocation is sent with each registration, at most 97,984 bytes.
    pub fn payload(self, json: &str) -> Self {
        Self { payload: Some(json.into()), ..self }
    }

    /// Accepts assigned hubs only in this domain, such as `example.com`, or only the hub of this name, such as
    /// `localhost`. Default: Azure's domains if the Device Provisioning Service is Azure's, else any name except
    /// `localhost`, names of one label and the service itself.
    pub fn only_hubs_in(self, domain: &str) -> Self {
        Self { hub_suffix: Some(domain.into()), ..self }
    }
}
