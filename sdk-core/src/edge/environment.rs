//! The variables of a module's environment.

use core::fmt;

use crate::azure::connection_string::{ConnectionString, ConnectionStringError, Credential};
use crate::azure::names::{self, NameError};

/// Default version of the workload API: the oldest, which every runtime supports (`Azure/iotedge`,
/// `edgelet/edgelet-http/src/lib.rs`).
pub const API_VERSION: &str = "2018-06-28";

/// A variable that the Edge agent, or a developer, sets in a module's environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Variable {
    /// Host name of the IoT hub, used in user name and token.
    HubHostName,
    /// Id of the Edge device.
    DeviceId,
    /// Id of the module.
    ModuleId,
    /// The incarnation of the module's identity.
    GenerationId,
    /// The address of the workload API.
    WorkloadUri,
    /// Version of the workload API.
    ApiVersion,
    /// The module's authentication scheme; only `sasToken` is supported.
    AuthScheme,
    /// Host name of the Edge hub, to connect to.
    GatewayHostName,
    /// A connection string that replaces all of those, for debugging outside a container.
    ConnectionString,
    /// The fallback variable, for a module that is debugged at the IoT hub itself.
    HubConnectionString,
    /// The file with the gateway's root certificates for it.
    CaFile,
}

impl Variable {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::HubHostName,
        Self::DeviceId,
        Self::ModuleId,
        Self::GenerationId,
        Self::WorkloadUri,
        Self::ApiVersion,
        Self::AuthScheme,
        Self::GatewayHostName,
        Self::ConnectionString,
        Self::HubConnectionString,
        Self::CaFile,
    ];

    /// Returns the name of the variable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HubHostName => "IOTEDGE_IOTHUBHOSTNAME",
            Self::DeviceId => "IOTEDGE_DEVICEID",
            Self::ModuleId => "IOTEDGE_MODULEID",
            Self::GenerationId => "IOTEDGE_MODULEGENERATIONID",
            Self::WorkloadUri => "IOTEDGE_WORKLOADURI",
            Self::ApiVersion => "IOTEDGE_APIVERSION",
            Self::AuthScheme => "IOTEDGE_AUTHSCHEME",
            Self::GatewayHostName => "IOTEDGE_GATEWAYHOSTNAME",
            Self::ConnectionString => "EdgeHubConnectionString",
            Self::HubConnectionString => "IotHubConnectionString",
            Self::CaFile => "EdgeModuleCACertificateFile",
        }
    }
}

/// The content of a module's environment.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Environment<'a> {
    /// The module runs under the Edge agent.
    Module(Module<'a>),
    /// The module is debugged outside a container, with a key in a connection string.
    Debug {
        /// The connection string of the module, which was checked.
        connection_string: &'a str,
        /// Path of the PEM file with the gateway's roots; without it those of the system count.
        ca_file: Option<&'a str>,
    },
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(module) => module.fmt(f),
            Self::Debug { ca_file, .. } => {
                f.debug_struct("Debug").field("connection_string", &"hidden").field("ca_file", ca_file).finish()
            }
        }
    }
}

impl<'a> Environment<'a> {
    /// Reads the environment through `value`, which returns a variable's value, or `None` if it is not set. An empty
    /// value counts as not set.
    ///
    /// The variables of the Edge agent take precedence. A connection string is used only without a workload API.
    ///
    /// # Errors
    /// [`EnvironmentError`] naming the first variable that is missing or not usable, never a secret.
    pub fn read(value: impl Fn(Variable) -> Option<&'a str>) -> Result<Self, EnvironmentError> {
        let value = |variable| value(variable).filter(|text| !text.is_empty());
        if value(Variable::WorkloadUri).is_none() {
            for variable in [Variable::ConnectionString, Variable::HubConnectionString] {
                let Some(text) = value(variable) else { continue };
                let parsed = ConnectionString::parse(text);
                let parsed = parsed.map_err(|error| EnvironmentError::ConnectionString(variable, error))?;
                // Outside a container a module has a key instead of the workload API.
                if parsed.module_id.is_none() || parsed.credential == Credential::X509 {
                    return Err(EnvironmentError::NoModule(variable));
                }
                return Ok(Self::Debug { connection_string: text, ca_file: value(Variable::CaFile) });
            }
        }
        Module::read(value).map(Self::Module)
    }
}

/// A module's identity, workload API and gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Module<'a> {
    /// Host name of the IoT hub, for user name and token.
    pub hub_host_name: &'a str,
    /// Id of the Edge device.
    pub device_id: &'a str,
    /// Id of the module.
    pub module_id: &'a str,
    /// The incarnation of the module's identity.
    pub generation_id: &'a str,
    /// The address of the workload API.
    pub workload_uri: WorkloadUri<'a>,
    /// Version of the workload API.
    pub api_version: &'a str,
    /// Host name to connect to; `None` for the IoT hub itself.
    pub gateway_host_name: Option<&'a str>,
}

impl<'a> Module<'a> {
    fn read(value: impl Fn(Variable) -> Option<&'a str>) -> Result<Self, EnvironmentError> {
        let wanted = |variable| value(variable).ok_or(EnvironmentError::Missing(variable));
        let named = |variable, check: fn(&str) -> Result<(), NameError>| {
            let text = wanted(variable)?;
            check(text).map(|()| text).map_err(|error| EnvironmentError::Name(variable, error))
        };
        let workload_uri = wanted(Variable::WorkloadUri)?;
        let workload_uri = WorkloadUri::parse(workload_uri).map_err(EnvironmentError::WorkloadUri)?;
        let hub_host_name = named(Variable::HubHostName, names::check_hub_name)?;
        let device_id = named(Variable::DeviceId, names::check_device_id)?;
        let module_id = named(Variable::ModuleId, names::check_module_id)?;
        let generation_id = wanted(Variable::GenerationId)?;
        let api_version = value(Variable::ApiVersion).unwrap_or(API_VERSION);
        if value(Variable::AuthScheme).is_some_and(|scheme| !scheme.eq_ignore_ascii_case("sasToken")) {
            return Err(EnvironmentError::AuthScheme);
        }
        let gateway_host_name = match value(Variable::GatewayHostName) {
            Some(_) => Some(named(Variable::GatewayHostName, names::check_gateway_name)?),
            None => None,
        };
        Ok(Self { hub_host_name, device_id, module_id, generation_id, workload_uri, api_version, gateway_host_name })
    }
}

/// The address of a workload API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkloadUri<'a> {
    /// On a Unix socket, whose path this is.
    Unix(&'a str),
    /// On a TCP port of the device.
    Http {
        /// Host and port, such as `172.17.0.1:15581`.
        authority: &'a str,
        /// The prefix of every request's path, without a trailing slash; usually empty.
        prefix: &'a str,
    },
}

impl<'a> WorkloadUri<'a> {
    /// Parses `unix:///path` or `http://host:port`. A trailing slash is removed.
    ///
    /// # Errors
    /// [`UriError`] naming the flaw.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UriError::Character);
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        if let Some(path) = text.strip_prefix("unix://") {
            let usable = path.starts_with('/') && path.len() > 1;
            return if usable { Ok(Self::Unix(path)) } else { Err(UriError::Path) };
        }
        let rest = text.strip_prefix("http://").ok_or(UriError::Scheme)?;
        let (authority, prefix) = match crate::scan::split_once(rest, b'/') {
            None => (rest, ""),
            Some((authority, _)) => (authority, rest.get(authority.len()..).unwrap_or_default()),
        };
        let usable = !authority.is_empty() && !authority.bytes().any(|byte| matches!(byte, b'@' | b'?' | b'#'));
        if usable { Ok(Self::Http { authority, prefix }) } else { Err(UriError::Authority) }
    }
}

/// Why an address of a workload API is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UriError {
    /// It begins neither with `unix://` nor with `http://`.
    Scheme,
    /// After `unix://` no absolute path follows.
    Path,
    /// After `http://` no host follows.
    Authority,
    /// It has a space, a control character or one beyond ASCII.
    Character,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "it begins neither with unix:// nor with http://",
            Self::Path => "an absolute path must follow unix://",
            Self::Authority => "a host, and a port if it is not 80, must follow http://",
            Self::Character => "it has a character that no address has",
        })
    }
}

impl core::error::Error for UriError {}

/// Why an environment is not that of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// A variable is not set, or empty.
    Missing(Variable),
    /// A variable contains an invalid name.
    Name(Variable, NameError),
    /// The address of the workload API is not usable.
    WorkloadUri(UriError),
    /// The scheme of authentication is another one than `sasToken`.
    AuthScheme,
    /// The connection string for debugging is not usable.
    ConnectionString(Variable, ConnectionStringError),
    /// The connection string for debugging names no module, or has no key.
    NoModule(Variable),
}

impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(variable) => {
                write!(f, "{} is not set", variable.name())?;
                if *variable == Variable::WorkloadUri {
                    write!(f, ", nor is {}", Variable::ConnectionString.name())?;
                }
                f.write_str("; run as a module of IoT Edge, or set it")
            }
            Self::Name(variable, error) => write!(f, "{} is not usable: {error}", variable.name()),
            Self::WorkloadUri(error) => write!(f, "{} is not usable: {error}", Variable::WorkloadUri.name()),
            Self::AuthScheme => write!(f, "{} is not usable: only sasToken is supported", Variable::AuthScheme.name()),
            Self::ConnectionString(variable, error) => write!(f, "{} is not usable: {error}", variable.name()),
            Self::NoModule(variable) => {
                write!(f, "{} is not usable: it must name a module and have a key", variable.name())
            }
        }
    }
}

impl core::error::Error for EnvironmentError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn agent(variable: Variable) -> Option<&'static str> {
        match variable {
            Variable::HubHostName => Some("contoso.azure-devices.net"),
            Variable::DeviceId => Some("line-7"),
            Variable::ModuleId => Some("filter"),
            Variable::GenerationId => Some("637000000000000000"),
            Variable::WorkloadUri => Some("unix:///var/run/iotedge/workload.sock"),
            Variable::ApiVersion => Some("2019-01-30"),
            Variable::AuthScheme => Some("sasToken"),
            Variable::GatewayHostName => Some("edgehub"),
            Variable::ConnectionString | Variable::HubConnectionString | Variable::CaFile => None,
        }
    }

    #[test]
    fn the_agents_variables_make_a_module() {
        let Ok(Environment::Module(module)) = Environment::read(agent) else { panic!("a module") };
        assert_eq!(module.workload_uri, WorkloadUri::Unix("/var/run/iotedge/workload.sock"));
        assert_eq!((module.device_id, module.module_id), ("line-7", "filter"));
        assert_eq!((module.generation_id, module.api_version), ("637000000000000000", "2019-01-30"));
        assert_eq!((module.hub_host_name, module.gateway_host_name), ("contoso.azure-devices.net", Some("edgehub")));
    }

    #[test]
    fn what_is_missing_is_named_and_what_may_be_missing_has_a_default() {
        for missing in Variable::ALL {
            let read = Environment::read(|variable| if variable == missing { Some("") } else { agent(variable) });
            match (missing, read) {
                (Variable::ApiVersion, Ok(Environment::Module(module))) => assert_eq!(module.api_version, "2018-06-28"),
                (Variable::GatewayHostName, Ok(Environment::Module(module))) => {
                    assert_eq!(module.gateway_host_name, None);
                }
                (Variable::AuthScheme, Ok(_)) => {}
                (Variable::ConnectionString | Variable::HubConnectionString | Variable::CaFile, Ok(_)) => {}
                (missing, read) => {
                    let error = read.unwrap_err();
                    assert_eq!(error, EnvironmentError::Missing(missing));
                    assert!(error.to_string().starts_with(missing.name()), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_variable() {
        let table = [
            (Variable::HubHostName, "10.0.0.1", "IOTEDGE_IOTHUBHOSTNAME is not usable: the hub host name is an IP"),
            (Variable::DeviceId, "a/b", "IOTEDGE_DEVICEID is not usable: the device id has the byte 0x2f at offset 1"),
            (Variable::ModuleId, "a b", "IOTEDGE_MODULEID is not usable: the module id has the byte 0x20"),
            (Variable::GatewayHostName, "a:1", "IOTEDGE_GATEWAYHOSTNAME is not usable: the gateway host name has"),
            (Variable::WorkloadUri, "tcp://a", "IOTEDGE_WORKLOADURI is not usable: it begins neither with unix://"),
            (Variable::AuthScheme, "x509", "IOTEDGE_AUTHSCHEME is not usable: only sasToken is supported"),
        ];
        for (wrong, value, text) in table {
            let read = Environment::read(|variable| if variable == wrong { Some(value) } else { agent(variable) });
            let error = read.unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn a_connection_string_serves_where_there_is_no_agent() {
        let text = format!("HostName=h.net;DeviceId=d;ModuleId=m;SharedAccessKey={KEY};GatewayHostName=g");
        let pair = [(Variable::ConnectionString, text.as_str()), (Variable::CaFile, "/tmp/ca.pem")];
        let value = |variable| pair.iter().find(|(one, _)| *one == variable).map(|(_, text)| *text);
        let read = Environment::read(value).unwrap();
        assert_eq!(read, Environment::Debug { connection_string: &text, ca_file: Some("/tmp/ca.pem") });
        assert!(!format!("{read:?}").contains(KEY));
        let at_hub = Environment::read(|variable| (variable == Variable::HubConnectionString).then_some(text.as_str()));
        assert_eq!(at_hub, Ok(Environment::Debug { connection_string: &text, ca_file: None }));
        // Under an agent it is not looked at.
        let both = Environment::read(|variable| agent(variable).or_else(|| value(variable)));
        assert!(matches!(both, Ok(Environment::Module(_))));

        let table = [
            ("HostName=h.net;DeviceId=d;SharedAccessKey=KEY", EnvironmentError::NoModule(Variable::ConnectionString)),
            ("HostName=h.net;DeviceId=d;ModuleId=m;x509=true", EnvironmentError::NoModule(Variable::ConnectionString)),
            (
                "DeviceId",
                EnvironmentError::ConnectionString(
                    Variable::ConnectionString,
                    ConnectionStringError::NotAPair { at: 0 },
                ),
            ),
        ];
        for (text, error) in table {
            let text = text.replace("KEY", KEY);
            let read = Environment::read(|variable| (variable == Variable::ConnectionString).then_some(text.as_str()));
            assert_eq!(read, Err(error), "{text}");
            assert!(!error.to_string().contains(KEY));
        }
    }

    #[test]
    fn addresses_of_the_workload_api_are_read() {
        let http = |authority, prefix| Ok(WorkloadUri::Http { authority, prefix });
        let table = [
            ("unix:///run/iotedge/a.sock", Ok(WorkloadUri::Unix("/run/iotedge/a.sock"))),
            ("unix:///run/iotedge/a.sock/", Ok(WorkloadUri::Unix("/run/iotedge/a.sock"))),
            ("http://172.17.0.1:15581", http("172.17.0.1:15581", "")),
            ("http://localhost:15581/", http("localhost:15581", "")),
            ("http://[::1]:80/a/b", http("[::1]:80", "/a/b")),
            ("unix://run/a.sock", Err(UriError::Path)),
            ("unix:///", Err(UriError::Path)),
            ("http://", Err(UriError::Scheme)),
            ("http:///a", Err(UriError::Authority)),
            ("http://user@host", Err(UriError::Authority)),
            ("https://host", Err(UriError::Scheme)),
            ("", Err(UriError::Scheme)),
            ("unix:///run/a b", Err(UriError::Character)),
        ];
        for (text, expected) in table {
            assert_eq!(WorkloadUri::parse(text), expected, "{text}");
        }
    }
}
