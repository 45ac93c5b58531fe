//! TCP: the addresses of a name are tried one after another, each a little after the one before, until one answers.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;
use std::vec;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::connect_error::{ConnectFailure, Progress, Stage};
use crate::uri::Uri;

/// libvirt's port for TCP.
pub(super) const PORT: u16 = 16509;

/// How long an address is alone before the next is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// The most addresses of a name that are tried.
const MOST: usize = 16;

/// How many names are resolved at once. A resolver blocks a thread of the runtime's, which has 512 by default, for as long as its
/// servers do not answer: files need some of them too.
static LOOKUPS: Semaphore = Semaphore::const_new(256);

/// Connects to the host of a URI, or to this machine.
pub(super) async fn connect(
    uri: &Uri,
    port: u16,
    progress: &Progress<'_>,
) -> Result<TcpStream, ConnectFailure> {
    let host = uri.host.as_deref().unwrap_or("localhost");
    progress.set(Stage::Resolve);
    let found = resolve(host, uri.port.unwrap_or(port)).await.map_err(ConnectFailure::Resolve)?;
    let addresses = take_turns(found.take(MOST).collect());
    progress.set(Stage::Dial);
    let stream = race(addresses).await?;
    // Calls are small and wait for their replies: nothing is gained by holding them back.
    let _slower = stream.set_nodelay(true);
    Ok(stream)
}

/// The addresses of a name. A resolver can hang; the time limit of connecting ends the wait for it, and not the resolver, which
/// counts among the lookups until it ends.
async fn resolve(host: &str, port: u16) -> io::Result<vec::IntoIter<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)].into_iter());
    }
    let lookup = LOOKUPS.acquire().await;
    let host = host.to_owned();
    let found = spawn_blocking(move || {
        let _until_it_ends = lookup;
        (host.as_str(), port).to_socket_addrs()
    });
    found.await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
}

/// Puts the families of addresses in turns, so that a network without one of them costs one head start.
fn take_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (same, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        match (same.next(), other.next()) {
            (None, None) => return turns,
            (one, two) => turns.extend(one.into_iter().chain(two)),
        }
    }
}

/// The first connection that is made. Those still under way are dropped.
async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, ConnectFailure> {
    let mut attempts = JoinSet::new();
    let mut failure = None;
    let mut left = addresses.into_iter();
    loop {
        match left.next() {
            Some(address) => {
                attempts.spawn(async move { (address, TcpStream::connect(address).await) });
            }
            None if attempts.is_empty() => {
                let none = || ConnectFailure::Resolve(io::Error::other("the name has no address"));
                return Err(failure.unwrap_or_else(none));
            }
            None => {}
        }
        let more = left.len() > 0;
        let ended = match timeout(HEAD_START, attempts.join_next()).await {
            Ok(ended) => ended,
            Err(_) if more => continue,
            Err(_) => attempts.join_next().await,
        };
        match ended {
            Some(Ok((_, Ok(stream)))) => return Ok(stream),
            Some(Ok((address, Err(source)))) => {
                // The first address is the preferred one, so its error is reported.
                let failed = ConnectFailure::Dial { to: address.to_string(), source };
                failure.get_or_insert(failed);
            }
            Some(Err(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_families_take_turns() {
        let order = ["[::1]:1", "[::2]:1", "1.1.1.1:1"].map(address);
        assert_eq!(take_turns(order.to_vec()), ["[::1]:1", "1.1.1.1:1", "[::2]:1"].map(address));
    }

    #[tokio::test]
    async fn an_address_that_drops_packets_does_not_keep_from_a_living_one() {
        let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
        let living = listener.local_addr().unwrap();
        // With a full queue the system drops what comes to a socket that accepts nothing.
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.4:0".parse().unwrap()).unwrap();
        let full = full.listen(1).unwrap();
        let silent = full.local_addr().unwrap();
        let mut queued = Vec::new();
        for _ in 0..2 {
            queued.push(TcpStream::connect(silent).await.unwrap());
        }
        assert_eq!(race(vec![silent, living]).await.unwrap().peer_addr().unwrap(), living);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_keep_from_a_living_one() {
        let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
        let living = listener.local_addr().unwrap();
        let refused = SocketAddr::new("127.0.0.4".parse().unwrap(), living.port());
        assert_eq!(race(vec![refused, living]).await.unwrap().peer_addr().unwrap(), living);
        let error = race(vec![refused]).await.unwrap_err();
        assert!(
            matches!(&error, ConnectFailure::Dial { to, source }
                if *to == refused.to_string() && source.kind() == io::ErrorKind::ConnectionRefused),
            "{error}"
        );
        assert!(matches!(race(vec![]).await, Err(ConnectFailure::Resolve(_))));
    }
}
