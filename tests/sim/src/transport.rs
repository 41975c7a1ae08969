//! What stands before MQTT: an HTTP proxy, and the opening of WebSockets. The frontend's side follows the core's rules.

use steadfast_core::text::Text;
use steadfast_core::transport::{Opening, Tunnel};
use steadfast_core::{Failure, LocalFailure};

use crate::network::{Network, Reach};

/// What a proxy does with devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyMood {
    /// It opens tunnels to what it reaches, and answers 502 for the rest.
    #[default]
    Opens,
    /// It answers this, whoever asks.
    Answers(String),
    /// It takes the request and says nothing.
    Silent,
    /// It closes the connection in the middle of its answer.
    BreaksOff,
    /// It refuses connections.
    Away,
}

/// An HTTP proxy on the way of every device.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Proxy {
    /// What it does.
    pub mood: ProxyMood,
    /// The value of `Proxy-Authorization` it asks for.
    pub wants: Option<String>,
    /// What devices send it.
    pub sent: Option<String>,
    /// Hosts it was asked for, in order.
    pub asked: Vec<String>,
}

impl Proxy {
    /// Answers a request for a tunnel.
    fn answer(&mut self, request: &str, reach: Reach) -> String {
        let mut lines = request.split("\r\n");
        let target = lines.next().and_then(|line| line.strip_prefix("CONNECT ")?.strip_suffix(" HTTP/1.1"));
        let Some((host, _)) = target.and_then(|target| target.rsplit_once(':')) else {
            return "HTTP/1.1 400 Bad Request\r\n\r\n".into();
        };
        self.asked.push(host.to_owned());
        let login = lines.find_map(|line| line.strip_prefix("Proxy-Authorization: "));
        if self.wants.is_some() && self.wants.as_deref() != login {
            return "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\r\n"
                .into();
        }
        match &self.mood {
            ProxyMood::Answers(answer) => answer.clone(),
            ProxyMood::Opens if reach.failure().is_none() && reach != Reach::BlackHole => {
                "HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n".into()
            }
            ProxyMood::Opens => "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n".into(),
            ProxyMood::Silent | ProxyMood::BreaksOff | ProxyMood::Away => "HTTP/1.1 20".into(),
        }
    }
}

/// What services do when devices open WebSockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpgradeMood {
    /// They upgrade.
    #[default]
    Opens,
    /// They answer with this status, and this value of `Retry-After`.
    Answers(u16, Option<&'static str>),
    /// They say something that is not HTTP.
    Babble,
    /// They do not answer.
    Silent,
}

/// What a connection attempt meets before MQTT.
pub(crate) enum Way {
    /// It goes on, so many round trips later.
    On(u64),
    /// It fails after so many round trips.
    Fails(u64, Failure),
    /// It fails at the frontend's own deadline for a proxy.
    Overdue(LocalFailure),
    /// It hears nothing.
    Silence,
}

impl Network {
    /// The way to `host` as far as TLS; `pieces` cuts what the proxy sends.
    pub(crate) fn tunnel(&mut self, host: &str, port: u16, reach: Reach, size: usize) -> Way {
        let Some(proxy) = &mut self.proxy else { return Way::On(0) };
        if proxy.mood == ProxyMood::Away {
            return Way::Fails(1, Failure::Local(LocalFailure::ProxyUnreachable));
        }
        let request: Text<'_> = Tunnel::request(host, port, proxy.sent.as_deref());
        let answer = proxy.answer(&request.to_string(), reach);
        let mut tunnel = Tunnel::new();
        for piece in answer.as_bytes().chunks(size.max(1)) {
            match tunnel.take(piece) {
                Ok(true) => return Way::On(2),
                Ok(false) => {}
                Err(failure) => return Way::Fails(2, failure),
            }
        }
        match proxy.mood {
            ProxyMood::BreaksOff => Way::Fails(2, Failure::Local(LocalFailure::ProxySilent)),
            ProxyMood::Opens | ProxyMood::Answers(_) | ProxyMood::Silent | ProxyMood::Away => {
                Way::Overdue(LocalFailure::ProxySilent)
            }
        }
    }

    /// The opening of WebSockets, after TLS.
    pub(crate) fn upgrade(&self) -> Way {
        match &self.web_sockets {
            None => Way::On(0),
            Some(UpgradeMood::Opens) => Way::On(1),
            Some(UpgradeMood::Answers(status, retry_after)) => Way::Fails(1, Opening::refused(*status, *retry_after)),
            Some(UpgradeMood::Babble) => Way::Fails(1, Opening::refused(0, None)),
            Some(UpgradeMood::Silent) => Way::Silence,
        }
    }
}
