//! Connection strings of devices and modules, as shown in the Azure portal.

use core::fmt;

use super::names::{self, NameError};
use super::sas::{self, KeyError, SymmetricKey};
use crate::scan;

/// A member of a connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// `HostName`
    HostName,
    /// `DeviceId`
    DeviceId,
    /// `ModuleId`
    ModuleId,
    /// `SharedAccessKey`
    SharedAccessKey,
    /// `SharedAccessSignature`
    SharedAccessSignature,
    /// `GatewayHostName`
    GatewayHostName,
    /// `x509`
    X509,
}

impl Field {
    const ALL: [Self; 7] = [
        Self::HostName,
        Self::DeviceId,
        Self::ModuleId,
        Self::SharedAccessKey,
        Self::SharedAccessSignature,
        Self::GatewayHostName,
        Self::X509,
    ];

    /// Returns the name in a connection string.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostName => "HostName",
            Self::DeviceId => "DeviceId",
            Self::ModuleId => "ModuleId",
            Self::SharedAccessKey => "SharedAccessKey",
            Self::SharedAccessSignature => "SharedAccessSignature",
            Self::GatewayHostName => "GatewayHostName",
            Self::X509 => "x509",
        }
    }
}

/// A connection string cannot be used. Positions are byte offsets in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionStringError {
    /// The text is empty.
    Empty,
    /// The part at this offset is not `key=value`; a value may contain a `;`, or there is one at the end.
    NotAPair {
        /// Where the part begins.
        at: usize,
    },
    /// The key that begins here is unknown.
    UnknownKey {
        /// Where the key begins.
        at: usize,
    },
    /// The field occurs twice.
    Duplicate(Field),
    /// The field has no value.
    NoValue(Field),
    /// The field is missing.
    Missing(Field),
    /// It is the connection string of a service or a hub owner, not of a device.
    Service,
    /// There is no credential.
    NoCredential,
    /// There is more than one credential.
    TwoCredentials,
    /// A name is not usable.
    Name(NameError),
    /// The shared access key is not usable.
    Key(KeyError),
    /// The shared access signature is not a token with `sr`, `sig` and `se`.
    Signature,
    /// The value of `x509` is not `true`.
    X509,
}

impl fmt::Display for ConnectionStringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the connection string is empty; copy the device's one from the portal"),
            Self::NotAPair { at } => {
                write!(f, "the connection string is not key=value at offset {at}; parts are separated by single semicolons")
            }
            Self::UnknownKey { at } => {
                write!(
                    f,
                    "the connection string has an unknown key at offset {at}; known are HostName, DeviceId, ModuleId, \
                     SharedAccessKey, SharedAccessSignature, GatewayHostName and x509"
                )
            }
            Self::Duplicate(field) => write!(f, "the connection string has {} twice; keep one", field.name()),
            Self::NoValue(field) => write!(f, "the connection string has no value for {}", field.name()),
            Self::Missing(field) => write!(f, "the connection string has no {}; copy it whole", field.name()),
            Self::Service => f.write_str(
                "the connection string is one of a service (it has SharedAccessKeyName); copy the one of the device",
            ),
            Self::NoCredential => f.write_str(
                "the connection string has no credential; it needs SharedAccessKey, SharedAccessSignature or x509=true",
            ),
            Self::TwoCredentials => f.write_str(
                "the connection string has two credentials; keep one of SharedAccessKey, SharedAccessSignature, x509=true",
            ),
            Self::Name(error) => write!(f, "the connection string is not usable: {error}"),
            Self::Key(error) => write!(f, "the connection string's SharedAccessKey is not usable: {error}"),
            Self::Signature => f.write_str("the connection string's SharedAccessSignature is not a token with sr, sig and se"),
            Self::X509 => f.write_str("the connection string's x509 can only be true; leave it out otherwise"),
        }
    }
}

impl core::error::Error for ConnectionStringError {}

/// The credential in a connection string. Printing it hides the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential<'a> {
    /// A symmetric key in base64, already checked: [`SymmetricKey::from_base64`] accepts it.
    SharedAccessKey(&'a str),
    /// A ready-made token, valid until [`sas::token_expiry`].
    SharedAccessSignature(&'a str),
    /// A client certificate, given elsewhere.
    X509,
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedAccessKey(_) => "SharedAccessKey(hidden)",
            Self::SharedAccessSignature(_) => "SharedAccessSignature(hidden)",
            Self::X509 => "X509",
        })
    }
}

/// A parsed connection string of a device or module. Printing it hides the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionString<'a> {
    /// Host name of the hub.
    pub host_name: &'a str,
    /// Device id.
    pub device_id: &'a str,
    /// Module id, for a module.
    pub module_id: Option<&'a str>,
    /// Host name or address to connect to instead of the hub's.
    pub gateway_host_name: Option<&'a str>,
    /// The one credential.
    pub credential: Credential<'a>,
}

impl<'a> ConnectionString<'a> {
    /// Parses a connection string: `key=value` parts in any order with one `;` between them.
    ///
    /// It accepts the output of tools and shells: keys in any letter case, white space and a line end around the whole,
    /// quotes around the whole, white space around a key or a value, a `;` at the end, `CredentialType`,
    /// `CredentialScope=Device` and an empty `SharedAccessKeyName`. Everything else is strict: unknown or repeated
    /// keys, empty values, more or less than one credential, and names or keys that are not usable are errors.
    ///
    /// # Errors
    /// [`ConnectionStringError`] naming the first flaw, never the secret.
    pub fn parse(text: &'a str) -> Result<Self, ConnectionStringError> {
        let whole = text;
        let text = unquoted(whole.trim_ascii());
        if text.is_empty() {
            return Err(ConnectionStringError::Empty);
        }
        let text = text.strip_suffix(';').unwrap_or(text);
        let mut values = [None; Field::ALL.len()];
        let mut at = offset(whole, text);
        for part in scan::split(text, b';') {
            let (key, value) = scan::split_once(part, b'=').ok_or(ConnectionStringError::NotAPair { at })?;
            let (key, value) = (key.trim_ascii(), value.trim_ascii());
            let is = |name: &str| key.eq_ignore_ascii_case(name);
            if is("SharedAccessKeyName") && !value.is_empty()
                || is("CredentialScope") && !value.eq_ignore_ascii_case("Device")
            {
                return Err(ConnectionStringError::Service);
            }
            if is("SharedAccessKeyName") || is("CredentialScope") || is("CredentialType") {
                at = at.saturating_add(part.len()).saturating_add(1);
                continue;
            }
            let known = Field::ALL.into_iter().zip(&mut values);
            let mut known = known.filter(|(field, _)| field.name().eq_ignore_ascii_case(key));
            let (field, slot) = known.next().ok_or(ConnectionStringError::UnknownKey { at })?;
            if value.is_empty() {
                return Err(ConnectionStringError::NoValue(field));
            }
            if slot.replace(value).is_some() {
                return Err(ConnectionStringError::Duplicate(field));
            }
            at = at.saturating_add(part.len()).saturating_add(1);
        }
        let [host_name, device_id, module_id, key, signature, gateway_host_name, x509] = values;
        let host_name = host_name.ok_or(ConnectionStringError::Missing(Field::HostName))?;
        let device_id = device_id.ok_or(ConnectionStringError::Missing(Field::DeviceId))?;
        names::check_hub_name(host_name).map_err(ConnectionStringError::Name)?;
        names::check_device_id(device_id).map_err(ConnectionStringError::Name)?;
        module_id.map_or(Ok(()), names::check_module_id).map_err(ConnectionStringError::Name)?;
        gateway_host_name.map_or(Ok(()), names::check_gateway_name).map_err(ConnectionStringError::Name)?;
        let credential = match (key, signature, x509) {
            (None, None, None) => return Err(ConnectionStringError::NoCredential),
            (Some(key), None, None) => {
                SymmetricKey::from_base64(key).map_err(ConnectionStringError::Key)?;
                Credential::SharedAccessKey(key)
            }
            (None, Some(token), None) => {
                sas::token_expiry(token).ok_or(ConnectionStringError::Signature)?;
                Credential::SharedAccessSignature(token)
            }
            (None, None, Some(x509)) if x509.eq_ignore_ascii_case("true") => Credential::X509,
            (None, None, Some(_)) => return Err(ConnectionStringError::X509),
            _ => return Err(ConnectionStringError::TwoCredentials),
        };
        Ok(Self { host_name, device_id, module_id, gateway_host_name, credential })
    }
}

/// Removes one pair of quotes, as from a shell or a settings file.
fn unquoted(text: &str) -> &str {
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    quoted('"').or_else(|| quoted('\'')).unwrap_or(text).trim_ascii()
}

/// The offset of `part` within `whole`.
fn offset(whole: &str, part: &str) -> usize {
    part.as_ptr().addr().saturating_sub(whole.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::names::{Flaw, Name};
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::{format, vec};

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn a_device_and_a_module_are_read() {
        let text = format!("HostName=contoso.azure-devices.net;DeviceId=dev=1;SharedAccessKey={KEY}");
        let device = ConnectionString::parse(&text).unwrap();
        assert_eq!((device.host_name, device.device_id), ("contoso.azure-devices.net", "dev=1"));
        assert_eq!((device.module_id, device.gateway_host_name), (None, None));
        assert_eq!(device.credential, Credential::SharedAccessKey(KEY));

        let text = "deviceid=d;HOSTNAME=h.net;ModuleId=$edgeAgent;X509=True;GatewayHostName=192.168.0.1";
        let module = ConnectionString::parse(text).unwrap();
        assert_eq!((module.module_id, module.gateway_host_name), (Some("$edgeAgent"), Some("192.168.0.1")));
        assert_eq!(module.credential, Credential::X509);

        let token = "SharedAccessSignature sr=h.net%2Fdevices%2Fd&sig=abc%3D&se=1893456000";
        let text = format!("HostName=h.net;DeviceId=d;SharedAccessSignature={token}");
        assert_eq!(ConnectionString::parse(&text).unwrap().credential, Credential::SharedAccessSignature(token));
    }

    #[test]
    fn what_tools_and_shells_write_is_taken() {
        let plain = format!("HostName=h.net;DeviceId=d;SharedAccessKey={KEY}");
        let expected = ConnectionString::parse(&plain).unwrap();
        for around in [
            ["", "\n"],
            ["", "\r\n"],
            ["", " "],
            ["\t ", ""],
            ["\"", "\""],
            ["'", "'\n"],
            ["\" ", " \""],
            ["", ";"],
            ["", ";\r\n"],
            ["CredentialScope=Device;", ""],
            ["", ";CredentialType=SharedAccessSignature"],
            ["credentialscope=device;CREDENTIALTYPE=X;", ""],
            ["", ";SharedAccessKeyName="],
            ["SharedAccessKeyName= ;", ""],
        ] {
            let text = around.join(&plain);
            assert_eq!(ConnectionString::parse(&text), Ok(expected), "{text:?}");
        }
        let spaced = format!("HostName = h.net; DeviceId=d ;SharedAccessKey = {KEY}");
        assert_eq!(ConnectionString::parse(&spaced), Ok(expected));
        let turned = format!("SharedAccessKey={KEY};DeviceId=d;HostName=h.net");
        assert_eq!(ConnectionString::parse(&turned), Ok(expected));
    }

    #[test]
    fn every_flaw_has_its_own_error() {
        use ConnectionStringError as E;
        let name = |name, flaw| E::Name(NameError { name, flaw });
        let table = vec![
            ("", E::Empty),
            ("HostName", E::NotAPair { at: 0 }),
            ("HostName=h.net;;DeviceId=d;x509=true", E::NotAPair { at: 15 }),
            ("HostName=h.net;DeviceId=d;x509=true;;", E::NotAPair { at: 36 }),
            (" \r\n", E::Empty),
            ("''", E::Empty),
            (";", E::NotAPair { at: 0 }),
            ("  HostName=h.net;DeviceId", E::NotAPair { at: 17 }),
            ("\"HostName=h.net;x509=true", E::UnknownKey { at: 0 }),
            ("HostName=h.net;DeviceId=a;b;x509=true", E::NotAPair { at: 26 }),
            ("HostName=h.net;Device Id=d;x509=true", E::UnknownKey { at: 15 }),
            ("=h.net;DeviceId=d;x509=true", E::UnknownKey { at: 0 }),
            ("HostName=h.net;DeviceId=d;Port=1", E::UnknownKey { at: 26 }),
            ("HostName=h.net;hostname=h.net", E::Duplicate(Field::HostName)),
            ("HostName=;DeviceId=d", E::NoValue(Field::HostName)),
            ("HostName=h.net;DeviceId=d;SharedAccessKey=", E::NoValue(Field::SharedAccessKey)),
            ("DeviceId=d;x509=true", E::Missing(Field::HostName)),
            ("HostName=h.net;x509=true", E::Missing(Field::DeviceId)),
            ("HostName=h.net;SharedAccessKeyName=iothubowner;SharedAccessKey=abc", E::Service),
            ("HostName=h.net;DeviceId=d;CredentialScope=IotHub;SharedAccessKey=abc", E::Service),
            ("HostName=h.net;DeviceId=d", E::NoCredential),
            ("HostName=h.net;DeviceId=d;x509=false", E::X509),
            ("HostName=h.net;DeviceId=d;x509=true;SharedAccessKey=a", E::TwoCredentials),
            ("HostName=h.net;DeviceId=d;SharedAccessSignature=a;SharedAccessKey=a", E::TwoCredentials),
            ("HostName=h.net;DeviceId=d;SharedAccessSignature=sr=a", E::Signature),
            ("HostName=h.net;DeviceId=d;SharedAccessKey=not a key", E::Key(KeyError::Character { at: 3 })),
            ("HostName=h.net;DeviceId=d;SharedAccessKey=YWJjx", E::Key(KeyError::Padding)),
            ("HostName=h.net;DeviceId=d;SharedAccessKey=YWJj", E::Key(KeyError::Length { bytes: 3 })),
            ("HostName=h.net:1;DeviceId=d;x509=true", name(Name::Hub, Flaw::Character { at: 5, byte: b':' })),
            ("HostName=u@h.net;DeviceId=d;x509=true", name(Name::Hub, Flaw::Character { at: 1, byte: b'@' })),
            ("HostName=h\u{e9}.net;DeviceId=d;x509=true", name(Name::Hub, Flaw::Character { at: 1, byte: 0xc3 })),
            ("HostName=h.net;DeviceId=d/e;x509=true", name(Name::Device, Flaw::Character { at: 1, byte: b'/' })),
            (
                "HostName=h.net;DeviceId=d;ModuleId=#;x509=true",
                name(Name::Module, Flaw::Character { at: 0, byte: b'#' }),
            ),
            (
                "HostName=h.net;DeviceId=d;GatewayHostName=g:1;x509=true",
                name(Name::Gateway, Flaw::Character { at: 1, byte: b':' }),
            ),
        ];
        for (text, error) in table {
            assert_eq!(ConnectionString::parse(text), Err(error), "{text}");
            assert!(error.to_string().starts_with("the connection string"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = format!("HostName=h.net;DeviceId=d;SharedAccessKey={KEY}");
        let shown = format!("{:?}", ConnectionString::parse(&text).unwrap());
        assert!(shown.contains("SharedAccessKey(hidden)") && !shown.contains("AAEC"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "((HostName|DeviceId|x509|SharedAccessKey|.{0,3})=?.{0,9};?){0,6}") {
            if let Ok(parsed) = ConnectionString::parse(&text) {
                prop_assert!(names::check_hub_name(parsed.host_name).is_ok());
                prop_assert!(names::check_device_id(parsed.device_id).is_ok());
            }
        }
    }
}
