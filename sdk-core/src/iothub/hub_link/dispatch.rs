//! Dispatches a hub's messages to the services.

use super::HubLink;
use crate::io::Attempt;
use crate::iothub::HubProfile;
use crate::iothub::methods::Taken;
use crate::iothub::operator_commands::{OperatorCommands, REPROVISION};
use crate::iothub::service_topics::Inbound;
use crate::iothub::twin::Patched;
use crate::iothub::{CallSlot, Event, Received};
use crate::outbox::Outbox;

impl<O, P, B, C> HubLink<O, P, B, C>
where
    O: Outbox,
    P: HubProfile,
    B: AsRef<[u8]> + AsMut<[u8]>,
    C: AsRef<[CallSlot]> + AsMut<[CallSlot]>,
{
    pub(super) fn take<'b>(
        &mut self,
        inbound: Inbound<'b>,
        payload: &'b [u8],
        attempt: Attempt,
    ) -> Option<Received<&'b str, &'b [u8]>> {
        match inbound {
            Inbound::Desired { version } => {
                let patch = core::str::from_utf8(payload).ok();
                // An unreadable version counts as missed.
                let version = self.twin.take_desired(version.filter(|_| patch.is_some()))?;
                let patch = patch?;
                self.follow_orders(patch, version);
                Some(Received::Desired { version, patch })
            }
            Inbound::Method { name, request } => match self.methods.take(request, attempt, self.now) {
                Taken::Open(call) => match self.operator {
                    Some(operator)
                        if name == REPROVISION && operator.orders.contains(OperatorCommands::REPROVISION) =>
                    {
                        (operator.command)(self, call, payload);
                        None
                    }
                    _ => Some(Received::Call { call, name, payload }),
                },
                Taken::Busy | Taken::Lost => {
                    self.tell(Event::CallRefused);
                    None
                }
            },
            Inbound::TwinAnswer { status, request: Some(request), version } => {
                if self.twin.is_get(request) {
                    return self.take_twin(status, payload);
                }
                if self.twin.is_patch(request) {
                    self.take_patched(status, version);
                }
                None
            }
            Inbound::TwinAnswer { .. } | Inbound::CloudToDevice { .. } | Inbound::Input { .. } => None,
        }
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn take_twin<'b>(&mut self, status: u16, payload: &'b [u8]) -> Option<Received<&'b str, &'b [u8]>> {
        // An unreadable response counts as a failure of the service.
        const UNREADABLE: u16 = 500;
        let refusal = if status < 300 {
            match self.twin.take_document(payload) {
                Ok(twin) => {
                    let twin = twin?;
                    self.follow_orders(twin.desired, twin.desired_version);
                    return Some(Received::Twin(twin));
                }
                Err(()) => UNREADABLE,
            }
        } else {
            status
        };
        let again = self.twin.get_refused(refusal);
        self.tell(if again {
            Event::TwinThrottled { status: refusal }
        } else {
            Event::TwinRefused { status: refusal }
        });
        None
    }

    fn take_patched(&mut self, status: u16, version: Option<u64>) {
        match self.twin.take_patched(status) {
            Patched::Again => {
                self.reports.thaw();
                self.tell(Event::TwinThrottled { status });
                return;
            }
            Patched::Done => {
                if let Some(report) = self.reports.pop() {
                    self.tell(Event::Reported { report, version });
                }
            }
            Patched::Refused => {
                if let Some(report) = self.reports.pop() {
                    self.tell(Event::ReportRefused { report, status });
                }
            }
        }
        if !self.reports.is_empty() {
            self.twin.report(self.now);
        }
    }
}
