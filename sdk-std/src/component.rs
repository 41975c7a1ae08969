//! A Plug and Play component of a device.

use std::fmt;
use std::sync::Arc;

use steadfast_core::ReportError;

use crate::direct_methods::DirectMethods;
use crate::shared::Shared;
use crate::twin::{DesiredProperties, Report};

/// A Plug and Play component of a device, with streams of its own: [`crate::Device::component`].
///
/// An update agent can so live beside an application on one device: each follows its own properties and takes its own
/// commands.
///
/// ```no_run
/// # async fn example(device: steadfast::Device) -> Result<(), steadfast::ReportError> {
/// let boiler = device.component("boiler");
/// let (mut wishes, mut commands) = (boiler.desired(), boiler.commands());
/// tokio::select! {
///     Some(wish) = wishes.next() => println!("{wish:?}"), // the properties of the boiler alone
///     Some(call) = commands.next() => println!("{}", call.name()), // such as `boiler*flush`
/// }
/// let _ = boiler.report(r#"{"pressure":2}"#)?; // `{"boiler":{"__t":"c","pressure":2}}`
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Component {
    shared: Arc<Shared>,
    name: Box<str>,
}

impl Component {
    pub(crate) fn new(shared: Arc<Shared>, name: &str) -> Self {
        Self { shared, name: name.into() }
    }

    /// Returns the component's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Follows the component's desired properties, as [`crate::Twin::desired`] does those of the device. A document or a
    /// patch is the component's object alone, with its member `__t`; `{}` where the twin has none, and `null` where it is
    /// deleted.
    pub fn desired(&self) -> DesiredProperties {
        DesiredProperties::open(&self.shared, Some(&self.name))
    }

    /// Takes the component's commands, whose method names are `component*command`, apart from the other methods.
    pub fn commands(&self) -> DirectMethods {
        DirectMethods::open(&self.shared, Some(&self.name))
    }

    /// Queues a patch of the component's reported properties, a JSON object, as [`crate::Twin::report`] does.
    ///
    /// # Errors
    /// [`ReportError`]; nothing was queued.
    pub fn report(&self, patch: &str) -> Result<Report, ReportError> {
        let members = patch.trim_ascii().strip_prefix('{').unwrap_or(patch);
        let comma = if members.trim_ascii_start().starts_with('}') { "" } else { "," };
        Report::queue(&self.shared, &format!("{{\"{}\":{{\"__t\":\"c\"{comma}{members}}}", self.name))
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component").field("name", &self.name).finish_non_exhaustive()
    }
}
