//! Connections through an HTTP proxy.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use steadfast_core::text::Slice;
use steadfast_core::transport::Tunnel;
use steadfast_core::{Failure, LocalFailure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::connect::{self, Overrides};
use crate::names::Names;

/// An HTTP proxy that opens tunnels with CONNECT (RFC 9110, section 9.3.6).
///
/// The proxy resolves and sees the services' names, and nothing else: TLS runs through the tunnel, and the service's
/// certificate is verified as without a proxy. The connection to the proxy itself is not encrypted, so its user name
/// and password can be read there.
///
/// ```
/// use steadfast::Proxy;
///
/// let proxy = Proxy::http("proxy.example", 3128).basic_auth("pump-7", "wet").except("plant.example");
/// assert_eq!(format!("{proxy:?}"), r#"Proxy("proxy.example:3128", with a password)"#);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Proxy {
    host: Box<str>,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Arc<Zeroizing<String>>>,
    /// Domains that are connected to directly.
    exceptions: Vec<Box<str>>,
}

impl Proxy {
    /// Names the proxy's host and port. Without a password unless [`basic_auth`](Self::basic_auth) gives one.
    pub fn http(host: &str, port: u16) -> Self {
        Self { host: host.into(), port, authorization: None, exceptions: Vec::new() }
    }

    /// Gives the proxy a user name and a password (RFC 7617). The user name has no colon in it.
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        let mut pair = Zeroizing::new(String::with_capacity(user.len() + password.len() + 1));
        pair.push_str(user);
        pair.push(':');
        pair.push_str(password);
        // Reserved in one piece: a string that grows leaves copies behind.
        let mut value = Zeroizing::new(String::with_capacity("Basic ".len() + pair.len().div_ceil(3) * 4));
        value.push_str("Basic ");
        STANDARD.encode_string(pair.as_bytes(), &mut value);
        Self { authorization: Some(Arc::new(value)), ..self }
    }

    /// Connects directly to this host and everything below it in DNS. `*` stands for every host.
    pub fn except(mut self, domain: &str) -> Self {
        self.exceptions.push(domain.trim_start_matches('.').to_ascii_lowercase().into());
        self
    }

    /// Reads the proxy from the environment: `https_proxy` or `HTTPS_PROXY`, such as `http://user:password@proxy:3128`,
    /// and exceptions, divided by commas, from `no_proxy` or `NO_PROXY`. The lower-case names come first. `None` when no
    /// proxy is named.
    ///
    /// The environment is read only by this function. Networks in CIDR notation among the exceptions match no name.
    ///
    /// # Errors
    /// [`ProxyError`] if the variable does not contain a usable address.
    pub fn from_env() -> Result<Option<Self>, ProxyError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = variable("https_proxy").or_else(|| variable("HTTPS_PROXY")).map(Zeroizing::new);
        let exceptions = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
        named.map(|url| Self::from_url(&url, &exceptions)).transpose()
    }

    fn from_url(url: &str, exceptions: &str) -> Result<Self, ProxyError> {
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(ProxyError::Scheme),
            None => url,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
        };
        // Clients that read this variable differ in their default port, so none is assumed.
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0).ok_or(ProxyError::Port)?;
        let mut proxy = Self::http(host, port);
        proxy.check()?;
        if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let user = decoded(user).ok_or(ProxyError::Login)?;
            let password = decoded(password).ok_or(ProxyError::Login)?;
            proxy = proxy.basic_auth(&user, &password);
        }
        for domain in exceptions.split(',').map(str::trim).filter(|domain| !domain.is_empty()) {
            let bare = domain.rsplit_once(':').filter(|(bare, _)| !bare.contains(':')).map_or(domain, |(bare, _)| bare);
            proxy = proxy.except(bare);
        }
        Ok(proxy)
    }

    /// Checks the proxy's name.
    pub(crate) fn check(&self) -> Result<(), ProxyError> {
        rustls::pki_types::ServerName::try_from(&*self.host).map(drop).map_err(|_| ProxyError::Host)
    }

    /// Whether `host` is reached through the proxy.
    pub(crate) fn serves(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        !self.exceptions.iter().any(|domain| {
            &**domain == "*"
                || host.strip_suffix(&**domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
        })
    }

    /// Opens a tunnel to `host`, within `patience`.
    ///
    /// This deadline comes before the link's own, which would blame the service for a silent proxy.
    pub(crate) async fn tunnel(
        &self,
        names: &'static Names,
        host: &str,
        port: u16,
        overrides: Option<&Overrides>,
        patience: Duration,
    ) -> Result<TcpStream, Failure> {
        let deadline = Instant::now() + patience - patience / 16;
        let reached = timeout(patience / 2, connect::connect(names, &self.host, self.port, overrides, false)).await;
        let mut stream = match reached {
            Ok(Ok(stream)) => stream,
            Ok(Err(failure @ Failure::Local(_))) => return Err(failure),
            Ok(Err(failure)) => {
                tracing::warn!(proxy = %self.address(), %failure, "the proxy was not reached");
                return Err(Failure::Local(LocalFailure::ProxyUnreachable));
            }
            Err(_) => {
                tracing::warn!(proxy = %self.address(), "the proxy was not reached in time");
                return Err(Failure::Local(LocalFailure::ProxyUnreachable));
            }
        };
        let answer = timeout_at(deadline, self.ask(&mut stream, host, port)).await;
        match answer {
            Ok(Ok(Ok(()))) => Ok(stream),
            Ok(Ok(Err(failure))) => {
                tracing::warn!(proxy = %self.address(), host, %failure, "the proxy opened no tunnel");
                Err(failure)
            }
            Ok(Err(error)) => {
                tracing::warn!(proxy = %self.address(), %error, "the proxy broke off");
                Err(Failure::Local(LocalFailure::ProxySilent))
            }
            Err(_) => {
                tracing::warn!(proxy = %self.address(), "the proxy did not answer in time");
                Err(Failure::Local(LocalFailure::ProxySilent))
            }
        }
    }

    /// Requests the tunnel and reads the answer.
    async fn ask(&self, stream: &mut TcpStream, host: &str, port: u16) -> std::io::Result<Result<(), Failure>> {
        let login = self.authorization.as_ref().map(|value| value.as_str());
        let text = Tunnel::request(host, port, login);
        let mut request = Zeroizing::new(vec![0; text.len()]);
        // It was made as long as the text.
        let _ = text.write(&mut Slice::new(&mut request));
        stream.write_all(&request).await?;
        let mut tunnel = Tunnel::new();
        let mut answer = [0; 1024];
        loop {
            let came = stream.read(&mut answer).await?;
            if came == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match tunnel.take(&answer[..came]) {
                Ok(false) => {}
                Ok(true) => return Ok(Ok(())),
                Err(failure) => return Ok(Err(failure)),
            }
        }
    }

    fn address(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = if self.authorization.is_some() { "with a password" } else { "without a password" };
        write!(f, "Proxy({:?}, {login})", self.address())
    }
}

/// The address of a proxy is not usable. Neither user name nor password is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// Only plain HTTP proxies are supported.
    Scheme,
    /// The host is neither a name nor an address.
    Host,
    /// There is no port.
    Port,
    /// User name or password are not percent-encoded UTF-8.
    Login,
    /// Without TLS the proxy, which may not be on this machine, could read everything.
    WithoutTls,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the proxy's address must begin with http:// or with the host",
            Self::Host => "the proxy's host is neither a host name nor an address",
            Self::Port => "the proxy's address needs a port, such as proxy.example:3128",
            Self::Login => "the proxy's user name or password is not percent-encoded UTF-8",
            Self::WithoutTls => "a proxy would see everything without TLS; use TLS",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Joins host and port; an IPv6 address gets its brackets (RFC 3986, section 3.2.2).
pub(crate) fn authority(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{host}:{port}"),
    }
}

/// Decodes percent-encoding.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(high * 16 + low);
        } else {
            bytes.push(byte);
        }
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_from_the_environment_is_taken_apart() {
        let proxy = Proxy::from_url("http://us%40er:p%3Aw@proxy.example:3128/", "").unwrap();
        assert_eq!((&*proxy.host, proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.authorization.as_ref().unwrap().as_str(), "Basic dXNAZXI6cDp3");
        let proxy = Proxy::from_url("[::1]:8080", "").unwrap();
        assert_eq!((proxy.address(), proxy.authorization.is_none()), ("[::1]:8080".to_owned(), true));
    }

    #[test]
    fn an_address_that_is_none_has_its_own_error_without_a_secret() {
        let table = [
            ("https://proxy.example:3128", ProxyError::Scheme),
            ("socks5://proxy.example:3128", ProxyError::Scheme),
            ("http://user:secret@proxy.example", ProxyError::Port),
            ("proxy.example:0", ProxyError::Port),
            ("http://user:secret@:3128", ProxyError::Host),
            ("http://us er:3128", ProxyError::Host),
            ("http://user:%ffsecret@proxy.example:3128", ProxyError::Login),
            ("http://user:%f@proxy.example:3128", ProxyError::Login),
        ];
        for (url, error) in table {
            assert_eq!(Proxy::from_url(url, "").unwrap_err(), error, "{url}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn exceptions_hold_for_a_domain_and_what_is_below_it() {
        let proxy = Proxy::from_url("proxy.example:3128", "plant.example, .Local,10.0.0.1,hub.example:8883").unwrap();
        for host in ["plant.example", "hub.PLANT.example", "gateway.local", "10.0.0.1", "hub.example", "a.local."] {
            assert!(!proxy.serves(host), "{host}");
        }
        for host in ["otherplant.example", "example", "10.0.0.11", "contoso.azure-devices.net"] {
            assert!(proxy.serves(host), "{host}");
        }
        assert!(!proxy.except("*").serves("contoso.azure-devices.net"));
    }
}
