//! Azure IoT Edge: a module's environment, and its requests to the other parts of Edge.
//!
//! A module has no key. It reads its identity from environment variables ([`Environment`]), gets signatures and trusted
//! roots from its device's workload API ([`workload`], with the retries of [`retry`]), and connects to the Edge hub, its
//! gateway, as to an IoT hub. Through the gateway it may call direct methods of other modules and devices
//! ([`methods`]).
//!
//! Everything here converts between values and bytes, in the caller's buffers, without I/O or state. Sources:
//! azure-docs `iot-edge/module-edgeagent-edgehub.md` and `iot-edge/module-development.md`; `Azure/iotedge`,
//! `edgelet/api/workloadVersion_2020_07_07.yaml`.

mod environment;
pub mod methods;
pub mod retry;
pub mod workload;

pub use environment::{API_VERSION, Environment, EnvironmentError, Module, UriError, Variable, WorkloadUri};

use crate::json::member;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_in_a_whole_object_only() {
        let raw = |document: &'static str, name| member(document.as_bytes(), name).map(|value| value.raw());
        assert_eq!(raw(r#"{"a":{"b":1},"b":[2],"b":3} "#, "b"), Some("3"));
        for document in ["", "null", "[1]", r#"{"b":1"#, r#"{"b":1}x"#, r#"{"a":{"b":1}}"#] {
            assert_eq!(raw(document, "b"), None, "{document}");
        }
    }
}
