//! Executes the operator commands that the application allows.

use core::fmt;

use super::HubLink;
use crate::io::ServiceKind;
use crate::iothub::HubProfile;
use crate::iothub::operator_commands::{COMPONENT, OperatorCommand, OperatorCommands};
use crate::iothub::pnp::{self, Acknowledgement};
use crate::iothub::{CallId, CallSlot, Event};
use crate::outbox::Outbox;

/// The allowed commands, and their functions by address, so that firmware that allows none does not link them.
pub(super) struct Operator<L> {
    pub(super) orders: OperatorCommands,
    properties: fn(&mut L, &str, u64),
    pub(super) command: fn(&mut L, CallId, &[u8]),
}

impl<L> Clone for Operator<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Operator<L> {}

impl<L> fmt::Debug for Operator<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.orders.fmt(f)
    }
}

impl<O, P, B, C> HubLink<O, P, B, C>
where
    O: Outbox,
    P: HubProfile,
    B: AsRef<[u8]> + AsMut<[u8]>,
    C: AsRef<[CallSlot]> + AsMut<[CallSlot]>,
{
    /// Sets the allowed operator commands; see [`operator_commands`](crate::iothub::operator_commands). Default none.
    pub fn allow_operator_commands(&mut self, orders: OperatorCommands) {
        let allowed = orders != OperatorCommands::NONE;
        self.operator = allowed.then_some(Operator {
            orders,
            properties: Self::operator_properties,
            command: Self::operator_command,
        });
    }

    pub(super) fn follow_orders(&mut self, desired: &str, version: u64) {
        if let Some(operator) = self.operator {
            (operator.properties)(self, desired, version);
        }
    }

    /// Executes the command to register again.
    fn operator_command(&mut self, call: CallId, payload: &[u8]) {
        let provisioned = self.link.profile().visit().is_some();
        let _ = self.methods.respond(call, if provisioned { pnp::PENDING } else { pnp::REJECTED }, b"");
        if provisioned {
            self.carry_out(OperatorCommand::reprovision(payload));
        }
    }

    /// Executes the allowed commands among the desired properties, and acknowledges them.
    fn operator_properties(&mut self, desired: &str, version: u64) {
        let orders = self.operator.map_or(OperatorCommands::NONE, |operator| operator.orders);
        for property in pnp::properties(desired) {
            let (Some(component), Some(name)) = (property.component, property.name.plain()) else { continue };
            let Some((_, order)) = OperatorCommand::property(name, property.value)
                .filter(|(kind, _)| component == COMPONENT && orders.contains(*kind))
            else {
                continue;
            };
            let status = if order.is_some() { pnp::APPLIED } else { pnp::REJECTED };
            if let Some(order) = order {
                self.carry_out(order);
            }
            let value = property.value.raw();
            let component = Some(COMPONENT);
            let mut buffer = [0; 160];
            let acknowledgement = Acknowledgement { component, name, value, status, version, description: "" };
            if let Some(patch) = acknowledgement.write(&mut buffer)
                && self.reports.push(patch).is_ok()
            {
                self.twin.report(self.now);
            }
        }
    }

    fn carry_out(&mut self, order: OperatorCommand) {
        match order {
            OperatorCommand::Reprovision(spread) => self.link.move_within(spread, ServiceKind::Provisioning, self.now),
            OperatorCommand::Spread(spread) => self.link.set_spread(spread, self.now),
            OperatorCommand::LogLevel(_) => {}
        }
        self.tell(Event::OperatorCommand(order));
    }
}
