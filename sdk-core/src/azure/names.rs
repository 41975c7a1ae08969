//! Valid names for host fields, topics, user names and requests.
//!
//! Names are not encoded in MQTT topics and user names, so a name with a separator would change the meaning of the
//! text. Every name is checked once, where it enters: from a connection string, from a caller, or from an answer of the
//! provisioning service.

mod syntax;

use core::fmt;

pub use self::syntax::{
    check_device_id, check_gateway_name, check_hub_name, check_id_scope, check_model_id, check_module_id,
    check_operation_id, check_product, check_registration_id,
};

/// Longest accepted host name, in bytes. DNS allows 253 (RFC 1035, section 2.3.4); this library accepts 128, twice the
/// longest hub name with its domain.
pub const HOST_MAX: usize = 128;
/// Longest label of a host name, in bytes (RFC 1035, section 2.3.4).
pub const LABEL_MAX: usize = 63;
/// Longest device id, in bytes (IoT Hub identity registry).
pub const DEVICE_ID_MAX: usize = 128;
/// Longest module id, in bytes (IoT Hub identity registry).
pub const MODULE_ID_MAX: usize = 128;
/// Longest registration id, in bytes (Device Provisioning Service).
pub const REGISTRATION_ID_MAX: usize = 128;
/// Longest accepted id scope, in bytes. The service issues 11; the limit is this library's.
pub const ID_SCOPE_MAX: usize = 32;
/// Longest model id, in bytes (DTDL version 2, length of an interface's DTMI).
pub const MODEL_ID_MAX: usize = 128;
/// Longest accepted operation id of DPS, in bytes. DPS issues 55; the limit is this library's.
pub const OPERATION_ID_MAX: usize = 128;

/// Longest accepted product information, in bytes. It is part of the user name; the limit is this library's.
pub const PRODUCT_MAX: usize = 128;

/// The purpose of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Name {
    /// Host name of a hub.
    Hub,
    /// Host name or IPv4 address of a gateway.
    Gateway,
    /// Device id.
    Device,
    /// Module id.
    Module,
    /// Registration id.
    Registration,
    /// Id scope of a provisioning service.
    IdScope,
    /// Digital twin model identifier (DTMI).
    Model,
    /// Operation id of a registration.
    Operation,
    /// Product information.
    Product,
}

impl Name {
    /// Returns the length limit, in bytes.
    #[must_use]
    pub const fn max(self) -> usize {
        match self {
            Self::Hub | Self::Gateway => HOST_MAX,
            Self::Device => DEVICE_ID_MAX,
            Self::Module => MODULE_ID_MAX,
            Self::Registration => REGISTRATION_ID_MAX,
            Self::IdScope => ID_SCOPE_MAX,
            Self::Model => MODEL_ID_MAX,
            Self::Operation => OPERATION_ID_MAX,
            Self::Product => PRODUCT_MAX,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hub => "hub host name",
            Self::Gateway => "gateway host name",
            Self::Device => "device id",
            Self::Module => "module id",
            Self::Registration => "registration id",
            Self::IdScope => "id scope",
            Self::Model => "model id",
            Self::Operation => "operation id",
            Self::Product => "product information",
        })
    }
}

/// An error in a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// It has no characters.
    Empty,
    /// It is longer than [`Name::max`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A byte is not of the allowed set.
    Character {
        /// Its offset.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// A label of a host name is empty, too long, or has a hyphen at an end.
    Label {
        /// Offset of the label.
        at: usize,
    },
    /// A label of a host name is an encoded international one (`xn--`), which no hub has.
    Punycode {
        /// Offset of the label.
        at: usize,
    },
    /// It is an IP address, for which no certificate of a hub is valid.
    Address,
    /// It does not end in one of the allowed suffixes.
    Suffix,
    /// It does not have the form `dtmi:segment:segment;version`.
    Form,
}

/// A name is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameError {
    /// The purpose of the name.
    pub name: Name,
    /// The error.
    pub flaw: Flaw,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match self.flaw {
            Flaw::Empty => write!(f, "the {name} is empty"),
            Flaw::TooLong { len } => write!(f, "the {name} is {len} bytes; at most {} are allowed", name.max()),
            Flaw::Character { at, byte } => {
                write!(f, "the {name} has the byte {byte:#04x} at offset {at}, which is not allowed there")
            }
            Flaw::Label { at } => write!(
                f,
                "the {name} has a bad label at offset {at}; labels are 1 to {LABEL_MAX} letters, digits and inner hyphens"
            ),
            Flaw::Punycode { at } => write!(f, "the {name} has an encoded international label at offset {at}"),
            Flaw::Address => write!(f, "the {name} is an IP address; use a DNS name, which the certificate contains"),
            Flaw::Suffix => write!(f, "the {name} does not end in one of the allowed suffixes"),
            Flaw::Form => write!(f, "the {name} does not have the form dtmi:segment:segment;version"),
        }
    }
}

impl core::error::Error for NameError {}

/// Checks that a hub's host name is one of `suffixes` or lies under one of them; an empty list allows all.
///
/// Letter case is ignored. A suffix matches whole labels only: `azure-devices.net` matches `contoso.azure-devices.net`
/// but not `evil-azure-devices.net`. A leading dot of a suffix is ignored, and an empty suffix matches nothing.
///
/// # Errors
/// [`Flaw::Suffix`] if none matches.
pub fn check_hub_suffix(host: &str, suffixes: &[&str]) -> Result<(), NameError> {
    if suffixes.is_empty() || suffixes.iter().any(|suffix| is_under(host, suffix)) {
        Ok(())
    } else {
        Err(NameError { name: Name::Hub, flaw: Flaw::Suffix })
    }
}

/// Top-level domains of the Azure clouds: public, China, US Government, and Germany as it was.
const CLOUDS: [&[u8]; 4] = [b"net", b"cn", b"us", b"de"];

/// Whether a host lies under `domain` in one of the Azure clouds.
fn is_in_azure(host: &str, domain: &str) -> bool {
    let dot = host.bytes().rposition(|byte| byte == b'.').unwrap_or(0);
    let Some((under, top)) = host.split_at_checked(dot) else { return false };
    let top = top.as_bytes().get(1..).unwrap_or_default();
    CLOUDS.iter().any(|cloud| top.eq_ignore_ascii_case(cloud)) && is_under(under, domain) && under.len() > domain.len()
}

/// Checks the hub that the Device Provisioning Service at `dps_host` named.
///
/// It must be under `suffix`. Without one it must be under `azure-devices.net`, or its equivalent in another Azure
/// cloud (`.cn`, `.us`, `.de`), if the service is Azure's; else it must have at least two labels and not be
/// `localhost`. It is never the service itself.
///
/// # Errors
/// [`Flaw::Suffix`] when it does not.
pub fn check_assigned_hub(hub: &str, dps_host: &str, suffix: Option<&str>) -> Result<(), NameError> {
    let proper = match suffix {
        Some(suffix) => is_under(hub, suffix),
        None if is_in_azure(dps_host, "azure-devices-provisioning") => is_in_azure(hub, "azure-devices"),
        None => hub.as_bytes().contains(&b'.') && !is_under(hub, "localhost"),
    };
    if proper && !hub.eq_ignore_ascii_case(dps_host) {
        Ok(())
    } else {
        Err(NameError { name: Name::Hub, flaw: Flaw::Suffix })
    }
}

fn is_under(host: &str, suffix: &str) -> bool {
    let suffix = suffix.strip_prefix('.').unwrap_or(suffix);
    if suffix.is_empty() {
        return false;
    }
    let Some(border) = host.len().checked_sub(suffix.len()) else { return false };
    let Some((before, end)) = host.split_at_checked(border) else { return false };
    end.eq_ignore_ascii_case(suffix) && (before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    #[test]
    fn a_hub_name_is_a_plain_dns_name() {
        for good in ["contoso.azure-devices.net", "Contoso.device.azure-devices.net", "localhost", "hub-a.test", "1.a"]
        {
            assert_eq!(check_hub_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(64);
        let whole = "abcdefg.".repeat(17);
        let table = [
            ("", Flaw::Empty),
            (&*whole, Flaw::TooLong { len: 136 }),
            ("hub@evil", Flaw::Character { at: 3, byte: b'@' }),
            ("hub.net:8883", Flaw::Character { at: 7, byte: b':' }),
            ("hub.net/path", Flaw::Character { at: 7, byte: b'/' }),
            ("hub .net", Flaw::Character { at: 3, byte: b' ' }),
            ("hub\0.net", Flaw::Character { at: 3, byte: 0 }),
            ("hub\n", Flaw::Character { at: 3, byte: b'\n' }),
            ("h\u{fc}b.net", Flaw::Character { at: 1, byte: 0xc3 }),
            ("[::1]", Flaw::Character { at: 0, byte: b'[' }),
            ("hub_a.net", Flaw::Character { at: 3, byte: b'_' }),
            ("hub..net", Flaw::Label { at: 4 }),
            ("hub.net.", Flaw::Label { at: 8 }),
            (".net", Flaw::Label { at: 0 }),
            ("a.-b.net", Flaw::Label { at: 2 }),
            ("a.b-.net", Flaw::Label { at: 2 }),
            (&*long, Flaw::Label { at: 0 }),
            ("a.XN--hb-xka.net", Flaw::Punycode { at: 2 }),
            ("127.0.0.1", Flaw::Address),
            ("2130706433", Flaw::Address),
            ("0x7f.0x1", Flaw::Address),
        ];
        for (bad, flaw) in table {
            let error = check_hub_name(bad).unwrap_err();
            assert_eq!(error, NameError { name: Name::Hub, flaw }, "{bad:?}");
            assert!(error.to_string().starts_with("the hub host name "), "{error}");
        }
    }

    #[test]
    fn a_suffix_matches_on_label_borders_only() {
        let allowed = ["azure-devices.net", ".azure-devices.cn", ""];
        for good in
            ["contoso.azure-devices.net", "contoso.AZURE-devices.net", "azure-devices.net", "a.azure-devices.cn"]
        {
            assert_eq!(check_hub_suffix(good, &allowed), Ok(()), "{good}");
        }
        for bad in ["evil.com", "hub.azure-devices.net.evil.com", "evil-azure-devices.net", "net", ""] {
            assert_eq!(check_hub_suffix(bad, &allowed).unwrap_err().flaw, Flaw::Suffix, "{bad}");
        }
        assert_eq!(check_hub_suffix("evil.com", &[]), Ok(()));
    }

    #[test]
    fn an_assigned_hub_is_azure_s_where_the_provisioning_service_is_and_never_this_machine_unasked() {
        let global = "global.azure-devices-provisioning.net";
        let judge = |hub, dps, suffix| check_assigned_hub(hub, dps, suffix).is_ok();
        for hub in [
            "contoso.azure-devices.net",
            "contoso.device.azure-devices.net",
            "CONTOSO.Azure-Devices.CN",
            "contoso.azure-devices.us",
        ] {
            assert!(judge(hub, global, None), "{hub}");
            assert!(judge(hub, "dps.example", None), "{hub}");
        }
        for hub in ["evil.example.com", "localhost", "hub", "azure-devices.net", "evil-azure-devices.net", global] {
            for dps in [global, "Global.Azure-Devices-Provisioning.us", "my.azure-devices-provisioning.net"] {
                assert!(!judge(hub, dps, None), "{hub} {dps}");
            }
        }
        assert!(judge("hub.example.com", global, Some("example.com")));
        assert!(!judge("hub.azure-devices.net", global, Some("example.com")));
        for hub in ["localhost", "hub.localhost", "LOCALHOST", "hub", "dps.example"] {
            assert!(!judge(hub, "dps.example", None), "{hub}");
        }
        assert!(judge("hub.example", "dps.example", None));
        assert!(judge("localhost", "127.0.0.1", Some("localhost")));
        assert!(judge("hub", "dps", Some("hub")));
        assert!(!judge("dps", "DPS", Some("dps")));
    }

    #[test]
    fn a_gateway_may_be_an_ipv4_address() {
        assert_eq!(check_gateway_name("192.168.1.7"), Ok(()));
        assert_eq!(check_gateway_name("gateway"), Ok(()));
        assert_eq!(check_gateway_name("192.168.1.700").unwrap_err().flaw, Flaw::Address);
        assert_eq!(check_gateway_name("gateway:8883").unwrap_err().flaw, Flaw::Character { at: 7, byte: b':' });
    }

    #[test]
    fn a_device_id_has_no_topic_separators() {
        for good in ["MyDevice01", "a-:.%_*?!(),=@;$'Z", "x"] {
            assert_eq!(check_device_id(good), Ok(()), "{good}");
            assert_eq!(check_module_id(good), Ok(()), "{good}");
        }
        for bad in ["a/b", "a#b", "a+b", "a b", "a\0b", "a\u{7f}", "a\nb", "a&b", "a\"b", "\u{e9}", "a\\b"] {
            let flaw = check_device_id(bad).unwrap_err().flaw;
            assert!(matches!(flaw, Flaw::Character { .. }), "{bad:?} {flaw:?}");
        }
        assert_eq!(check_device_id(&"d".repeat(128)), Ok(()));
        assert_eq!(check_device_id(&"d".repeat(129)).unwrap_err().flaw, Flaw::TooLong { len: 129 });
    }

    #[test]
    fn a_registration_id_ends_in_a_letter_a_digit_or_a_hyphen() {
        for good in ["reg-01", "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", "A.b_c:d-", "r"] {
            assert_eq!(check_registration_id(good), Ok(()), "{good}");
        }
        for bad in ["", "reg.", "reg_", "reg:", "re g", "re/g", "re@g"] {
            assert!(check_registration_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_scope_is_letters_and_digits() {
        assert_eq!(check_id_scope("0ne00111111"), Ok(()));
        for bad in ["", "0ne/1", "0ne 1", "0ne-1"] {
            assert!(check_id_scope(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_model_id_is_a_dtmi() {
        for good in ["dtmi:com:example:Thermostat;1", "dtmi:YOUR_COMPANY_NAME_HERE:sample_device;1", "dtmi:a;12.0"] {
            assert_eq!(check_model_id(good), Ok(()), "{good}");
        }
        for bad in ["", "dtmi:;1", "dtmi:a", "dtmi:a;0", "dtmi:a;01", "dtmi:a_;1", "dtmi:1a;1", "dtmi:a::b;1", "a:b;1"]
        {
            assert!(check_model_id(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_model_id("dtmi:a b;1").unwrap_err().flaw, Flaw::Character { at: 6, byte: b' ' });
    }

    proptest! {
        #[test]
        fn no_name_with_a_forbidden_character_is_taken(
            before in "[a-z0-9]{0,20}",
            bad in proptest::sample::select(&['/', '#', '+', '\0', '\n', ' ', '"', '\\', '\u{7f}', '\u{e9}', '&'][..]),
            after in "[a-z0-9]{0,20}",
        ) {
            let name: String = [before, String::from(bad), after].concat();
            prop_assert!(check_hub_name(&name).is_err());
            prop_assert!(check_gateway_name(&name).is_err());
            prop_assert!(check_device_id(&name).is_err());
            prop_assert!(check_module_id(&name).is_err());
            prop_assert!(check_registration_id(&name).is_err());
            prop_assert!(check_id_scope(&name).is_err());
            prop_assert!(check_model_id(&name).is_err());
        }
    }
}
