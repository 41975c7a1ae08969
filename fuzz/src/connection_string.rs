//! Connection strings: whatever a user pastes ends in checked names and one hidden credential, or one error.

use steadfast_core::azure::connection_string::{ConnectionString, ConnectionStringError, Credential};
use steadfast_core::azure::names;
use steadfast_core::azure::sas::{self, SymmetricKey};

/// Reads `data` as a connection string.
///
/// # Panics
/// When something unusable is taken, or an error points outside the text.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match ConnectionString::parse(&text) {
        Ok(parsed) => {
            names::check_hub_name(parsed.host_name).expect("the host name is checked");
            names::check_device_id(parsed.device_id).expect("the device id is checked");
            parsed.module_id.map_or(Ok(()), names::check_module_id).expect("the module id is checked");
            parsed.gateway_host_name.map_or(Ok(()), names::check_gateway_name).expect("the gateway is checked");
            let shown = format!("{:?}", parsed.credential);
            match parsed.credential {
                Credential::SharedAccessKey(key) => {
                    SymmetricKey::from_base64(key).expect("the key is checked");
                    assert_eq!(shown, "SharedAccessKey(hidden)");
                }
                Credential::SharedAccessSignature(token) => {
                    sas::token_expiry(token).expect("the token is checked");
                    assert_eq!(shown, "SharedAccessSignature(hidden)");
                }
                Credential::X509 | _ => assert_eq!(shown, "X509"),
            }
        }
        Err(error) => {
            assert!(error.to_string().starts_with("the connection string"), "{error:?}");
            if let ConnectionStringError::NotAPair { at } | ConnectionStringError::UnknownKey { at } = error {
                // Blanks, line ends and quotes around the whole are skipped.
                let before = &text[..at];
                assert!(
                    before.ends_with(';')
                        || before.trim_matches(|c: char| c.is_whitespace() || "\"'".contains(c)).is_empty(),
                    "{error}"
                );
            }
        }
    }
}
