//! Interprets answers of the Device Provisioning Service.

use core::time::Duration;

use heapless::String;

use crate::azure::names::{self, DEVICE_ID_MAX, HOST_MAX, Name, NameError, OPERATION_ID_MAX};
use crate::dps::topics::{Answer as Document, AnswerError, Assigned};
use crate::failure::ProvisioningFailure;
use crate::io::{self, Assignment};
use crate::json::{Reader, Token};
use crate::link::{Answer, AnswerHead, Change, Verdict, Visit};

/// Name of the member with the hint `S` in whole seconds, at the top level of DPS's payload, where the link reads it by
/// itself, and of the desired properties.
pub const SPREAD_MEMBER: &str = "reconnectSpreadSeconds";

/// Finds the hint in a JSON object, such as the desired properties, for [`crate::Link::set_spread`].
///
/// `None` if it is missing or invalid.
#[must_use]
pub fn spread_hint(json: &[u8]) -> Option<Duration> {
    let mut reader = Reader::new(json);
    if reader.next().ok()? != Some(Token::ObjectStart) {
        return None;
    }
    let mut found = None;
    while let Some(Token::Key(key)) = reader.next().ok()? {
        let value = reader.value().ok()?;
        if key == SPREAD_MEMBER {
            found = value.as_u64().map(Duration::from_secs);
        }
    }
    found
}

impl Assignment {
    /// Makes an assignment from stored names.
    ///
    /// # Errors
    /// [`NameError`] when a name is not acceptable.
    pub fn new(hub: &str, device_id: &str) -> Result<Self, NameError> {
        names::check_hub_name(hub)?;
        names::check_device_id(device_id)?;
        let mut assignment = Self::EMPTY;
        assignment.set(hub, device_id);
        Ok(assignment)
    }

    pub(crate) const EMPTY: Self = Self { hub: String::new(), device_id: String::new() };

    /// Takes names that were checked and fit.
    pub(crate) fn set(&mut self, hub: &str, device_id: &str) {
        self.hub.clear();
        self.device_id.clear();
        let _ = self.hub.push_str(hub);
        let _ = self.device_id.push_str(device_id);
    }
}

const _: () = assert!(HOST_MAX <= io::HOST_MAX && DEVICE_ID_MAX <= io::DEVICE_ID_MAX, "every name fits");

/// Parses an answer: the operation id goes into `operation_id`, an assignment into `visit`.
pub(super) fn judge<'b>(
    head: &AnswerHead,
    body: &'b [u8],
    dps_host: &str,
    suffix: Option<&str>,
    operation_id: &mut String<OPERATION_ID_MAX, u8>,
    visit: &mut Visit,
) -> Answer<'b> {
    let mut clock = None;
    let verdict = match Document::parse(head.status, body) {
        Ok(Document::Assigning { operation_id: named } | Document::Unassigned { operation_id: named }) => {
            operation_id.clear();
            match operation_id.push_str(named) {
                Ok(()) => Verdict::AskAgain,
                Err(_) => Verdict::Failed(ProvisioningFailure::BadAnswer),
            }
        }
        Ok(Document::Assigned(assigned)) => {
            clock = assigned.server_time.map(|unix_secs| (unix_secs, false));
            match judge_assignment(&assigned, dps_host, suffix, visit) {
                Ok(change) => Verdict::Assigned {
                    change,
                    spread: assigned.payload.and_then(spread_hint),
                    payload: assigned.payload,
                },
                Err(failure) => Verdict::Failed(failure),
            }
        }
        Ok(document) => {
            if let Document::Refused { server_time: Some(unix_secs), .. } = document {
                clock = Some((unix_secs, true));
            }
            Verdict::Failed(failure_of(head, document))
        }
        Err(error) => Verdict::Failed(match error {
            _ if head.is_unavailable() => unavailable(head),
            AnswerError::Name(NameError { name: Name::Hub, .. }) => ProvisioningFailure::BadHubName,
            AnswerError::Name(NameError { name: Name::Device, .. }) => ProvisioningFailure::BadDeviceId,
            AnswerError::Json(_)
            | AnswerError::NotAnObject
            | AnswerError::Missing(_)
            | AnswerError::Duplicate(_)
            | AnswerError::Kind(_)
            | AnswerError::UnknownStatus
            | AnswerError::Name(_) => ProvisioningFailure::BadAnswer,
        }),
    };
    Answer { verdict, clock }
}

fn judge_assignment(
    assigned: &Assigned<'_>,
    dps_host: &str,
    suffix: Option<&str>,
    visit: &mut Visit,
) -> Result<Change, ProvisioningFailure> {
    names::check_assigned_hub(assigned.hub, dps_host, suffix).map_err(|_| ProvisioningFailure::BadHubName)?;
    let mut buffer = [0; DEVICE_ID_MAX];
    let device_id = assigned.device_id.unescape(&mut buffer).ok_or(ProvisioningFailure::BadDeviceId)?;
    names::check_hub_name(assigned.hub).map_err(|_| ProvisioningFailure::BadHubName)?;
    names::check_device_id(device_id).map_err(|_| ProvisioningFailure::BadDeviceId)?;
    Ok(visit.assign(assigned.hub, device_id))
}

fn failure_of(head: &AnswerHead, document: Document<'_>) -> ProvisioningFailure {
    match document {
        Document::Refused { .. } if head.is_unavailable() => unavailable(head),
        Document::Refused { status, code, .. } => ProvisioningFailure::Refused { status, code },
        Document::Failed { code, .. } => ProvisioningFailure::Failed { code },
        Document::Disabled => ProvisioningFailure::Disabled,
        Document::UnsupportedProfile(_) => ProvisioningFailure::UnsupportedProfile,
        Document::Assigning { .. } | Document::Assigned(_) | Document::Unassigned { .. } => {
            ProvisioningFailure::BadAnswer
        }
    }
}

const fn unavailable(head: &AnswerHead) -> ProvisioningFailure {
    ProvisioningFailure::Unavailable { status: head.status, retry_after_secs: head.retry_after_secs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_found_at_the_top_of_a_json_object() {
        assert_eq!(spread_hint(br#"{"a":{"b":1},"reconnectSpreadSeconds":1100}"#), Some(Duration::from_secs(1_100)));
        for other in ["", "[]", "{}", r#"{"reconnectSpreadSeconds":"1100"}"#, r#"{"a":{"reconnectSpreadSeconds":1}}"#] {
            assert_eq!(spread_hint(other.as_bytes()), None, "{other}");
        }
    }
}
