//! A TCP proxy before a daemon, for what a network does that packet filters cannot: delay, a trickle, an end in
//! mid-message, a connection closed in one direction.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long the proxy tries to reach the daemon for a client.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The most that is read at once.
const CHUNK: usize = 16 * 1024;

/// A trickle lets some bytes through at least this many times a second, or one byte at a time if it is slower.
const TRICKLE_STEPS: u64 = 20;

/// A TCP proxy before one daemon. What is set holds for all its connections, those there and those to come.
/// Dropping it ends them all.
pub struct Proxy {
    relay: Arc<Relay>,
    address: SocketAddr,
    uri: String,
}

/// What the threads of a proxy share.
pub(crate) struct Relay {
    daemon: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    flow: Flow,
    /// New connections are closed at once.
    refusing: bool,
    /// How many more bytes clients get before all connections are cut.
    cut_after: Option<u64>,
    ended: bool,
    connections: HashMap<u64, Connection>,
    next_connection: u64,
}

struct Connection {
    client: TcpStream,
    daemon: TcpStream,
}

#[derive(Debug, Clone, Copy, Default)]
enum Flow {
    #[default]
    Pass,
    Hold,
    Delay(Duration),
    /// Bytes per second in each direction.
    Trickle(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToDaemon,
    ToClient,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({} to {})", self.address, self.relay.daemon)
    }
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start(daemon: SocketAddr, uri: impl FnOnce(SocketAddr) -> String) -> Result<Self> {
        let what = "listening on 127.0.0.1 for a proxy";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io(what))?;
        let address = listener.local_addr().map_err(Error::io(what))?;
        let relay = Arc::new(Relay { daemon, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&relay);
        thread::spawn(move || accepting.accept(&listener));
        Ok(Self { relay, address, uri: uri(address) })
    }

    pub(crate) fn relay(&self) -> Weak<Relay> {
        Arc::downgrade(&self.relay)
    }

    /// The libvirt URI that leads through the proxy.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Where the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds every piece of data back for this time, in both directions.
    pub fn set_delay(&self, delay: Duration) {
        self.relay.set(Flow::Delay(delay));
    }

    /// Lets only so many bytes a second through, in each direction; at least one.
    pub fn trickle(&self, bytes_per_second: u64) {
        self.relay.set(Flow::Trickle(bytes_per_second.max(1)));
    }

    /// Lets nothing through and closes nothing: silence on connections that stay open.
    pub fn hold(&self) {
        self.relay.set(Flow::Hold);
    }

    /// Closes all connections, and new ones as soon as they are made.
    pub fn cut(&self) {
        self.relay.cut();
    }

    /// Does the same as [`cut`](Self::cut) after clients got so many more bytes: in mid-message, mostly.
    pub fn cut_after(&self, bytes: u64) {
        self.relay.change(|state| state.cut_after = Some(bytes));
    }

    /// Ends the direction from the daemon to the client on the connections that are there. What the client sends
    /// still reaches the daemon.
    pub fn half_close(&self) {
        self.relay.change(|state| {
            for connection in state.connections.values() {
                // Not connected any more: then there is nothing to close.
                let _ = connection.client.shutdown(Shutdown::Write);
            }
        });
    }

    /// Passes everything again, new connections too. What was closed stays closed.
    pub fn pass(&self) {
        self.relay.pass();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.relay.change(|state| state.ended = true);
        self.relay.cut();
        // Wakes the thread that accepts. Should that fail, it ends with the process.
        let _ = TcpStream::connect(self.address);
    }
}

impl Relay {
    pub(crate) fn pass(&self) {
        self.change(|state| {
            state.flow = Flow::Pass;
            state.refusing = false;
            state.cut_after = None;
        });
    }

    fn set(&self, flow: Flow) {
        self.change(|state| state.flow = flow);
    }

    fn cut(&self) {
        self.change(|state| {
            state.refusing = true;
            for connection in state.connections.values() {
                let _ = connection.client.shutdown(Shutdown::Both);
                let _ = connection.daemon.shutdown(Shutdown::Both);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let state = self.state();
            if state.ended {
                return;
            }
            let refusing = state.refusing;
            drop(state);
            // A client that was gone before it was accepted, or one that is refused: dropping closes.
            if let Ok(client) = client
                && !refusing
            {
                let relay = Arc::clone(self);
                // An error ends this connection, which is all a proxy can do about it.
                thread::spawn(move || drop(relay.serve(client)));
            }
        }
    }

    /// Carries one connection to its end.
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let daemon = TcpStream::connect_timeout(&self.daemon, CONNECT_DEADLINE)?;
        client.set_nodelay(true)?;
        daemon.set_nodelay(true)?;
        let connection = Connection { client: client.try_clone()?, daemon: daemon.try_clone()? };
        let number = {
            let mut state = self.state();
            if state.refusing {
                return Ok(());
            }
            state.next_connection += 1;
            let number = state.next_connection;
            state.connections.insert(number, connection);
            number
        };
        thread::scope(|scope| {
            scope.spawn(|| self.copy(&client, &daemon, Direction::ToDaemon));
            self.copy(&daemon, &client, Direction::ToClient);
        });
        self.state().connections.remove(&number);
        Ok(())
    }

    /// Copies one direction until its source ends, then ends its destination.
    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream, direction: Direction) {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let Some(now) = self.wait(rest.len()) else { return };
                let (allowed, last) = match direction {
                    Direction::ToClient => self.take(now),
                    Direction::ToDaemon => (now, false),
                };
                if to.write_all(&rest[..allowed]).is_err() {
                    // Half closed, or gone: the source is read on, so that it does not notice.
                    break;
                }
                rest = &rest[allowed..];
                if last {
                    self.cut();
                    return;
                }
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Waits until something may be sent and says how much, of the bytes at hand. `None`: the proxy ended.
    fn wait(&self, at_hand: usize) -> Option<usize> {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            let (pause, length) = match state.flow {
                Flow::Pass => return Some(at_hand),
                Flow::Hold => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Flow::Delay(delay) => (delay, at_hand),
                Flow::Trickle(rate) => {
                    let step = usize::try_from(rate / TRICKLE_STEPS).unwrap_or(usize::MAX);
                    let length = at_hand.min(step.max(1));
                    (Duration::from_secs_f64(length as f64 / rate as f64), length)
                }
            };
            match pause.checked_sub(start.elapsed()) {
                None | Some(Duration::ZERO) => return Some(length),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Takes from what clients may still get: how much of this it is, and whether that was the last of it.
    fn take(&self, length: usize) -> (usize, bool) {
        let mut state = self.state();
        let Some(left) = state.cut_after.as_mut() else { return (length, false) };
        let allowed = length.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= allowed as u64;
        (allowed, *left == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    /// Nothing comes in this time: everything here stays on the loopback.
    const SILENT: Duration = Duration::from_millis(200);

    /// A daemon that answers everything with itself, and reports what it got from each connection when it ends.
    fn echo() -> (SocketAddr, Receiver<Vec<u8>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (report, reports) = channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let report = report.clone();
                thread::spawn(move || {
                    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        received.extend_from_slice(&buffer[..length]);
                        // The client may not listen any more.
                        let _ = stream.write_all(&buffer[..length]);
                    }
                    drop(report.send(received));
                });
            }
        });
        (address, reports)
    }

    fn proxy() -> (Proxy, Receiver<Vec<u8>>) {
        let (address, reports) = echo();
        (Proxy::start(address, |address| format!("test://{address}")).unwrap(), reports)
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    fn exchange(stream: &mut TcpStream, data: &[u8]) -> io::Result<Duration> {
        let start = Instant::now();
        stream.write_all(data)?;
        let mut answer = vec![0; data.len()];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, data);
        Ok(start.elapsed())
    }

    #[test]
    fn everything_passes_until_told_otherwise() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, &vec![7; 100_000]).unwrap();
    }

    #[test]
    fn delays_and_trickles_take_their_time() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        proxy.set_delay(Duration::from_millis(50));
        assert!(exchange(&mut stream, b"x").unwrap() >= Duration::from_millis(100), "there and back");
        proxy.trickle(1000);
        assert!(exchange(&mut stream, &[1; 200]).unwrap() >= Duration::from_millis(190));
        // A change reaches what waits already.
        proxy.set_delay(Duration::from_secs(3600));
        stream.write_all(b"y").unwrap();
        proxy.pass();
        stream.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn held_data_comes_later() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, b"a").unwrap();
        proxy.hold();
        stream.write_all(b"b").unwrap();
        stream.set_read_timeout(Some(SILENT)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(LONG)).unwrap();
        proxy.pass();
        stream.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_cut_ends_old_and_new_connections() {
        let (proxy, reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, b"a").unwrap();
        proxy.cut();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        assert_eq!(reports.recv_timeout(LONG).unwrap(), b"a", "the daemon notices as well");
        assert!(exchange(&mut client(&proxy), b"b").is_err());
        proxy.pass();
        exchange(&mut client(&proxy), b"c").unwrap();
    }

    #[test]
    fn a_cut_in_mid_message_lets_exactly_so_much_through() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, b"before").unwrap();
        proxy.cut_after(1000);
        stream.write_all(&[5; 3000]).unwrap();
        let mut received = Vec::new();
        // Ends with EOF, or with a reset for what the proxy did not read any more.
        let _ = stream.read_to_end(&mut received);
        assert_eq!(received, [5; 1000]);
    }

    #[test]
    fn half_closed_to_the_client_the_daemon_still_hears_it() {
        let (proxy, reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, b"one ").unwrap();
        proxy.half_close();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        stream.write_all(b"two").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reports.recv_timeout(LONG).unwrap(), b"one two");
    }

    #[test]
    fn a_dropped_proxy_is_gone() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, b"a").unwrap();
        proxy.hold();
        let address = proxy.address();
        drop(proxy);
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        // The port closes when the thread that accepts has seen it.
        let start = Instant::now();
        while TcpStream::connect(address).is_ok() {
            assert!(start.elapsed() < LONG);
        }
    }
}
