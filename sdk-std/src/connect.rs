//! From a host name to a TCP connection.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use steadfast_core::{Failure, LocalFailure};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::names::Names;

/// Addresses by host name, used instead of DNS.
pub(crate) type Overrides = HashMap<Box<str>, Vec<SocketAddr>>;

/// Delay before the next address is tried in parallel (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// How long one address has at most; the link bounds them all together.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Most addresses tried in one attempt.
const ADDRESSES: usize = 16;

/// Connects to `host`, trying all its addresses.
///
/// `loopback` refuses every other address, since credentials without TLS must not leave the machine.
pub(crate) async fn connect(
    names: &'static Names,
    host: &str,
    port: u16,
    overrides: Option<&Overrides>,
    loopback: bool,
) -> Result<TcpStream, Failure> {
    let mut addresses = resolve(names, host, port, overrides).await?;
    if loopback {
        addresses.retain(|address| address.ip().to_canonical().is_loopback());
        if addresses.is_empty() {
            tracing::error!(host, "a credential would travel unprotected beyond this machine; use TLS");
            return Err(Failure::Local(LocalFailure::Credential));
        }
    }
    let stream = race(interleave(addresses)).await?;
    // Packets are gathered before they are written; waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(host, %error, "TCP_NODELAY could not be set");
    }
    Ok(stream)
}

/// Resolves `host`, again for each connection.
async fn resolve(
    names: &'static Names,
    host: &str,
    port: u16,
    overrides: Option<&Overrides>,
) -> Result<Vec<SocketAddr>, Failure> {
    let with_port = |address: &SocketAddr| {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(port);
        }
        address
    };
    if let Some(addresses) = overrides.and_then(|overrides| overrides.get(host)) {
        return Ok(addresses.iter().map(with_port).collect());
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    Ok(names.find(host).await?.iter().map(with_port).collect())
}

/// Alternates between the address families, beginning with the one the resolver put first (RFC 8305, section 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv6() == first_is_v6 { &mut first } else { &mut second };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    while all.len() < ADDRESSES {
        match (first.next(), second.next()) {
            (None, None) => break,
            (one, other) => all.extend(one.into_iter().chain(other)),
        }
    }
    all
}

type Try = Pin<Box<dyn Future<Output = (SocketAddr, io::Result<TcpStream>)> + Send>>;

/// Starts on the next address whenever the stagger has passed or one has failed, and takes the first that answers.
async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, Failure> {
    let mut waiting = addresses.into_iter();
    let mut trying: Vec<Try> = Vec::new();
    let mut stagger = Box::pin(sleep(Duration::ZERO));
    let mut worst: Option<Failure> = None;
    poll_fn(move |cx| {
        loop {
            let mut place = 0;
            let mut failed = false;
            while let Some(attempt) = trying.get_mut(place) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => place += 1,
                    Poll::Ready((_, Ok(stream))) => return Poll::Ready(Ok(stream)),
                    Poll::Ready((address, Err(error))) => {
                        tracing::debug!(%address, %error, "no TCP connection");
                        let failure = connect_failure(&error, address);
                        worst = Some(worst.map_or(failure, |known| more_telling(known, failure)));
                        drop(trying.swap_remove(place));
                        failed = true;
                    }
                }
            }
            let due = failed || trying.is_empty() || stagger.as_mut().poll(cx).is_ready();
            if !due {
                return Poll::Pending;
            }
            let Some(address) = waiting.next() else {
                return if trying.is_empty() {
                    Poll::Ready(Err(worst.unwrap_or(Failure::Unresolved)))
                } else {
                    Poll::Pending
                };
            };
            trying.push(Box::pin(async move {
                let connection = timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await;
                (address, connection.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
            }));
            stagger.as_mut().reset(tokio::time::Instant::now() + STAGGER);
        }
    })
    .await
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other kinds are errors of the network")]
fn connect_failure(error: &io::Error, address: SocketAddr) -> Failure {
    match error.kind() {
        // On a system without IPv6 this error does not mean that no port is free.
        io::ErrorKind::AddrNotAvailable if address.is_ipv6() => Failure::Network,
        io::ErrorKind::ConnectionRefused => Failure::ConnectionRefused,
        io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        _ if lacks_resources(error) => Failure::Local(LocalFailure::Resources),
        _ => Failure::Network,
    }
}

/// Selects which of two addresses' failures to report: a local failure before a remote one.
fn more_telling(one: Failure, other: Failure) -> Failure {
    let order = [Failure::Local(LocalFailure::Resources), Failure::ConnectionRefused, Failure::ConnectTimeout];
    order.into_iter().find(|failure| [one, other].contains(failure)).unwrap_or(other)
}

/// No descriptor, port or memory for a socket.
pub(crate) fn lacks_resources(error: &io::Error) -> bool {
    let Some(number) = error.raw_os_error() else { return false };
    [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM]
        .into_iter()
        .any(|errno| errno.raw_os_error() == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;

    #[test]
    fn families_alternate_from_the_one_the_resolver_prefers() {
        let list = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let found = list(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::1]:1", "2.2.2.2:1", "3.3.3.3:1"]);
        assert_eq!(interleave(found), list(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "3.3.3.3:1"]));
        assert_eq!(interleave(Vec::new()), Vec::new());
    }

    #[test]
    fn a_lack_on_this_device_tells_more_than_an_address_that_refuses() {
        let resources = Failure::Local(LocalFailure::Resources);
        let table = [
            (Errno::CONNREFUSED, Failure::ConnectionRefused),
            (Errno::TIMEDOUT, Failure::ConnectTimeout),
            (Errno::MFILE, resources),
            (Errno::NFILE, resources),
            (Errno::ADDRNOTAVAIL, resources),
            (Errno::NETUNREACH, Failure::Network),
            (Errno::HOSTUNREACH, Failure::Network),
        ];
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for (errno, failure) in table {
            assert_eq!(connect_failure(&io::Error::from_raw_os_error(errno.raw_os_error()), address), failure);
        }
        let no_port = io::Error::from_raw_os_error(Errno::ADDRNOTAVAIL.raw_os_error());
        assert_eq!(connect_failure(&no_port, "[::1]:1".parse().unwrap()), Failure::Network);
        assert_eq!(more_telling(Failure::ConnectionRefused, resources), resources);
        assert_eq!(more_telling(Failure::ConnectionRefused, Failure::Network), Failure::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_stop_the_next_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = race(vec![unused, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert_eq!(race(vec![unused]).await.unwrap_err(), Failure::ConnectionRefused);
    }

    #[tokio::test]
    async fn only_loopback_addresses_are_taken_where_a_credential_would_show() {
        let overrides = Overrides::from([("hub".into(), vec!["192.0.2.1:8883".parse().unwrap()])]);
        let failure = connect(&Context::shared().names, "hub", 8883, Some(&overrides), true).await.unwrap_err();
        assert_eq!(failure, Failure::Local(LocalFailure::Credential));
    }
}
