//! The table of next steps: the service of the attempt after a failure.

use crate::failure::{Disposition, FailureClass};
use crate::io::ServiceKind;

/// The service of the next attempt, and its delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// The same service, after the delay of its back-off.
    Retry,
    /// The same service with a new credential, after the delay of a start without failure.
    FreshCredential,
    /// The Device Provisioning Service, after the delay of the hub's back-off.
    Register,
    /// The Device Provisioning Service, within the jitter window of registrations.
    RegisterSoon,
    /// The assigned hub, while the Device Provisioning Service does not answer.
    ProbeHub,
}

/// The conditions of the table besides the failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// The service of the attempt that failed.
    pub(super) service: ServiceKind,
    /// The device has a hub.
    pub(super) assigned: bool,
    /// Refusals of the hub in a row, and after how many it is time to register.
    pub(super) refusals: u8,
    pub(super) after_refusals: u8,
    /// There is a Device Provisioning Service, and the spacing of registrations allows one.
    pub(super) may_register: bool,
    /// The hub has been unreachable for so long that the device may have been moved.
    pub(super) out_of_reach: bool,
}

impl NextStep {
    pub(super) fn after(class: FailureClass, disposition: Disposition, now: Situation) -> Self {
        match (now.service, class, disposition) {
            (ServiceKind::Provisioning, ..) if now.assigned => Self::ProbeHub,
            (ServiceKind::Provisioning, ..) => Self::Retry,
            (_, FailureClass::Refused, Disposition::RefreshCredential) if now.refusals <= 1 => Self::FreshCredential,
            (_, FailureClass::Refused, Disposition::RefreshCredential)
                if now.refusals >= now.after_refusals && now.may_register =>
            {
                Self::RegisterSoon
            }
            (_, _, Disposition::Reprovision | Disposition::RetryRarely) if now.may_register => Self::Register,
            _ if now.out_of_reach && now.may_register => Self::Register,
            _ => Self::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, LocalFailure, ProvisioningFailure};

    const AT_HUB: Situation = Situation {
        service: ServiceKind::Hub,
        assigned: true,
        refusals: 0,
        after_refusals: 2,
        may_register: true,
        out_of_reach: false,
    };

    #[test]
    fn each_failure_leads_to_the_step_that_can_help() {
        let refused = Failure::ConnectRefused(5);
        let after = |refusals| Situation { refusals, ..AT_HUB };
        let no_dps = |refusals| Situation { may_register: false, ..after(refusals) };
        let far = Situation { out_of_reach: true, ..AT_HUB };
        let visiting = Situation { service: ServiceKind::Provisioning, ..AT_HUB };
        let new = Situation { assigned: false, ..visiting };
        let throttled = ProvisioningFailure::Unavailable { status: 429, retry_after_secs: Some(5) };
        let table = [
            (Failure::Lost, AT_HUB, NextStep::Retry),
            (Failure::ConnectTimeout, AT_HUB, NextStep::Retry),
            (Failure::ConnectTimeout, far, NextStep::Register),
            (Failure::ConnectTimeout, Situation { may_register: false, ..far }, NextStep::Retry),
            (refused, after(1), NextStep::FreshCredential),
            (refused, no_dps(1), NextStep::FreshCredential),
            (refused, after(2), NextStep::RegisterSoon),
            (refused, no_dps(2), NextStep::Retry),
            (refused, Situation { after_refusals: 3, ..after(2) }, NextStep::Retry),
            (Failure::ConnectRefused(1), after(u8::MAX), NextStep::Register),
            (Failure::ConnectRefused(1), no_dps(u8::MAX), NextStep::Retry),
            (Failure::ConnectRefused(3), AT_HUB, NextStep::Retry),
            (Failure::Local(LocalFailure::NoKey), AT_HUB, NextStep::Register),
            (Failure::Local(LocalFailure::Credential), after(1), NextStep::Retry),
            (Failure::Provisioning(throttled), visiting, NextStep::ProbeHub),
            (Failure::Provisioning(throttled), new, NextStep::Retry),
            (refused, new, NextStep::Retry),
        ];
        for (failure, situation, step) in table {
            let (class, disposition) = failure.judge();
            assert_eq!(NextStep::after(class, disposition, situation), step, "{failure}: {situation:?}");
        }
    }
}
