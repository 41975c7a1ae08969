//! Plug and Play on the wire: components in properties, commands and acknowledgements.
//!
//! Format: `iot/concepts-convention.md`. A component's object has the marker `"__t":"c"`; a command of a component is
//! the method `component*command`; an acknowledgement of a writable property has `ac`, `av` and `ad`.

use core::fmt;

use super::reports::members;
use crate::json::{Str, Value, put_string};
use crate::text::{Shown, Sink, SinkFull, Slice};

/// Status of a writable property that was applied.
pub const APPLIED: u16 = 200;
/// Status of a writable property that is being applied.
pub const PENDING: u16 = 202;
/// Status of a writable property that has the device's own initial value; its version is 0.
pub const INITIAL: u16 = 203;
/// Status of a writable property whose value is not acceptable.
pub const REJECTED: u16 = 400;

/// One property of a document of desired or reported properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Property<'a> {
    /// The component it belongs to; none for the default component.
    pub component: Option<Str<'a>>,
    /// Its name.
    pub name: Str<'a>,
    /// Its value.
    pub value: Value<'a>,
}

/// Lists the properties of a document, those of components too; `$version` and `__t` are left out.
///
/// `document` is from [`crate::iothub::Received::Desired`] or [`crate::iothub::Received::Twin`]. A text that is not an
/// object has no properties.
pub fn properties(document: &str) -> impl Iterator<Item = Property<'_>> {
    members(document.as_bytes()).filter(|(name, _)| *name != "$version").flat_map(|(name, value)| {
        let component = Some(name).filter(|_| value.is_object() && is_component(value));
        let inner = if component.is_some() { value.raw() } else { "" };
        let inner = members(inner.as_bytes()).filter(|(name, _)| *name != "__t");
        let own = component.is_none().then_some((name, value));
        own.into_iter().chain(inner).map(move |(name, value)| Property { component, name, value })
    })
}

fn is_component(value: Value<'_>) -> bool {
    let is_marker =
        |(name, value): (Str<'_>, Value<'_>)| name == "__t" && value.as_str().is_some_and(|kind| kind == "c");
    members(value.raw().as_bytes()).any(is_marker)
}

/// Splits a method's name into the component and the command.
#[must_use]
pub fn command(method: &str) -> (Option<&str>, &str) {
    match crate::scan::split_once(method, b'*') {
        Some((component, command)) => (Some(component), command),
        None => (None, method),
    }
}

/// The acknowledgement of a writable property, a patch for [`crate::HubLink::report`]; its `Display` is that patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the members are those of the convention")]
pub struct Acknowledgement<'a> {
    /// The component, if it is not the default one: a plain name.
    pub component: Option<&'a str>,
    /// The property: a plain name.
    pub name: &'a str,
    /// The value the device has now, as JSON.
    pub value: &'a str,
    /// The status of the desired value: [`APPLIED`], [`PENDING`], [`INITIAL`], [`REJECTED`] or another HTTP-like
    /// status.
    pub status: u16,
    /// The version of the desired properties that is acknowledged.
    pub version: u64,
    /// A description for the operator; empty for none.
    pub description: &'a str,
}

impl Acknowledgement<'_> {
    /// Writes the patch into `buffer` and returns it, or `None` if it does not fit.
    pub fn write<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let mut out = Slice::new(buffer);
        self.put(&mut out).ok()?;
        let len = out.len();
        buffer.get(..len)
    }

    fn put(&self, out: &mut dyn Sink) -> Result<(), SinkFull> {
        if let Some(component) = self.component {
            out.put(b"{")?;
            put_string(component, out)?;
            out.put(b":{\"__t\":\"c\",")?;
        } else {
            out.put(b"{")?;
        }
        put_string(self.name, out)?;
        out.put(b":{\"value\":")?;
        out.put(self.value.as_bytes())?;
        for (key, number) in [(",\"ac\":", u64::from(self.status)), (",\"av\":", self.version)] {
            out.put(key.as_bytes())?;
            crate::text::Text::of([crate::text::Part::Number(number)]).write(out)?;
        }
        if !self.description.is_empty() {
            out.put(b",\"ad\":")?;
            put_string(self.description, out)?;
        }
        out.put(if self.component.is_some() { b"}}}" } else { b"}}" })
    }
}

impl fmt::Display for Acknowledgement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.put(&mut Shown(f)).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn acknowledgements_have_the_form_of_the_convention() {
        let mut buffer = [0; 128];
        let ack = Acknowledgement {
            component: None,
            name: "target",
            value: "21.5",
            status: APPLIED,
            version: 3,
            description: "",
        };
        assert_eq!(ack.write(&mut buffer), Some(&br#"{"target":{"value":21.5,"ac":200,"av":3}}"#[..]));
        let ack = Acknowledgement { component: Some("thermo"), description: "a \"b\"", ..ack };
        let expected = br#"{"thermo":{"__t":"c","target":{"value":21.5,"ac":200,"av":3,"ad":"a \"b\""}}}"#;
        assert_eq!(ack.write(&mut buffer), Some(&expected[..]));
        assert_eq!(ack.write(&mut [0; 20]), None);
        // Names are kept unchanged, whatever they contain.
        let odd = Acknowledgement { component: None, name: "a\tb", ..ack };
        assert!(odd.to_string().starts_with(r#"{"a\u0009b":{"#));
        assert_eq!(ack.to_string().as_bytes(), expected);
    }

    #[test]
    fn properties_are_listed_with_their_components() {
        let document = r#"{"p":1,"thermo":{"__t":"c","target":21,"mode":"eco"},"plain":{"x":1},"$version":3}"#;
        let listed: Vec<_> = properties(document)
            .map(|property| (property.component.map(Str::raw), property.name.raw(), property.value.raw()))
            .collect();
        let expected = [
            (None, "p", "1"),
            (Some("thermo"), "target", "21"),
            (Some("thermo"), "mode", "\"eco\""),
            (None, "plain", r#"{"x":1}"#),
        ];
        assert_eq!(listed, expected);
        assert_eq!(properties("nonsense").count(), 0);
    }

    #[test]
    fn commands_of_components_are_told_by_their_names() {
        assert_eq!(command("reboot"), (None, "reboot"));
        assert_eq!(command("thermo*reboot"), (Some("thermo"), "reboot"));
    }
}
