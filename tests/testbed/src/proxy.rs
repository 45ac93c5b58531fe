//! A TCP proxy in front of a daemon, for network faults that packet filters cannot cause: delay, low bandwidth, a
//! connection cut in mid-message, a connection closed in one direction.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// The connect timeout of the proxy to the daemon.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The maximum number of bytes of one read.
const CHUNK: usize = 16 * 1024;

/// The limited flow is written in at least this many steps a second, or byte by byte if it is slower.
const TRICKLE_STEPS: u64 = 20;

/// A TCP proxy in front of one daemon. Each setting applies to all its connections, present and future. Dropping the
/// proxy closes them.
pub struct Proxy {
    relay: Arc<Relay>,
    address: SocketAddr,
    uri: String,
}

/// The state shared by the threads of a proxy.
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
    /// The number of bytes that clients still get before all connections are cut.
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

    /// The libvirt URI of the proxy.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The address on which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of connections that are open through the proxy.
    pub fn connections(&self) -> usize {
        self.relay.state.lock().connections.len()
    }

    /// Delays all data by this time, in both directions.
    pub fn set_delay(&self, delay: Duration) {
        self.relay.set(Flow::Delay(delay));
    }

    /// Limits the bandwidth of each direction to so many bytes a second, at least one.
    pub fn trickle(&self, bytes_per_second: u64) {
        self.relay.set(Flow::Trickle(bytes_per_second.max(1)));
    }

    /// Forwards nothing and closes nothing: connections stay open and silent.
    pub fn hold(&self) {
        self.relay.set(Flow::Hold);
    }

    /// Closes all connections, and new ones as soon as they are accepted.
    pub fn cut(&self) {
        self.relay.cut();
    }

    /// Does the same as [`cut`](Self::cut) after clients have received so many more bytes: mostly in mid-message.
    pub fn cut_after(&self, bytes: u64) {
        self.relay.change(|state| state.cut_after = Some(bytes));
    }

    /// Closes the direction from the daemon to the client on the existing connections. The daemon still receives what
    /// the client sends.
    pub fn half_close(&self) {
        self.relay.change(|state| {
            for connection in state.connections.values() {
                // An error means that it is not connected any more, and then there is nothing to close.
                let _ = connection.client.shutdown(Shutdown::Write);
            }
        });
    }

    /// Forwards everything again, on new connections too. Closed connections stay closed.
    pub fn pass(&self) {
        self.relay.pass();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.relay.change(|state| state.ended = true);
        self.relay.cut();
        // Wakes the thread that accepts. If this fails, that thread ends with the process.
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
        change(&mut self.state.lock());
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let state = self.state.lock();
            if state.ended {
                return;
            }
            let refusing = state.refusing;
            drop(state);
            // A client that closed before it was accepted, or one to be refused: dropping it closes the connection.
            if let Ok(client) = client
                && !refusing
            {
                let relay = Arc::clone(self);
                // An error ends this connection. There is nothing else to do about it.
                thread::spawn(move || drop(relay.serve(client)));
            }
        }
    }

    /// Forwards one connection until it ends.
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let daemon = TcpStream::connect_timeout(&self.daemon, CONNECT_DEADLINE)?;
        client.set_nodelay(true)?;
        daemon.set_nodelay(true)?;
        let connection = Connection { client: client.try_clone()?, daemon: daemon.try_clone()? };
        let number = {
            let mut state = self.state.lock();
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
        self.state.lock().connections.remove(&number);
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
                    // Half closed, or gone: the source is still read, so that it does not notice.
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

    /// Waits until data may be sent, and returns how many of the bytes at hand. `None` if the proxy has ended.
    fn wait(&self, at_hand: usize) -> Option<usize> {
        let start = Instant::now();
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return None;
            }
            let (pause, length) = match state.flow {
                Flow::Pass => return Some(at_hand),
                Flow::Hold => {
                    self.changed.wait(&mut state);
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
                    self.changed.wait_for(&mut state, left);
                }
            }
        }
    }

    /// Takes bytes from the number left before a cut. Returns how many may be sent, and whether they are the last.
    fn take(&self, length: usize) -> (usize, bool) {
        let mut state = self.state.lock();
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
    /// No data arrives within this time: all traffic stays on the loopback.
    const SILENT: Duration = Duration::from_millis(200);

    /// A server that echoes all data, and reports the data of each connection when it ends.
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
                        // The client may have stopped reading.
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
    fn everything_passes_until_a_fault_is_set() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, &vec![7; 100_000]).unwrap();
    }

    #[test]
    fn delays_and_low_bandwidth_slow_data_down() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        proxy.set_delay(Duration::from_millis(50));
        assert!(exchange(&mut stream, b"x").unwrap() >= Duration::from_millis(100), "there and back");
        proxy.trickle(1000);
        assert!(exchange(&mut stream, &[1; 200]).unwrap() >= Duration::from_millis(190));
        // A change also applies to data that is already waiting.
        proxy.set_delay(Duration::from_secs(3600));
        stream.write_all(b"y").unwrap();
        proxy.pass();
        stream.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn held_data_arrives_later() {
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
    fn a_cut_closes_present_and_new_connections() {
        let (proxy, reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, b"a").unwrap();
        proxy.cut();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        assert_eq!(reports.recv_timeout(LONG).unwrap(), b"a", "the daemon's side is closed too");
        assert!(exchange(&mut client(&proxy), b"b").is_err());
        proxy.pass();
        exchange(&mut client(&proxy), b"c").unwrap();
    }

    #[test]
    fn a_cut_in_mid_message_forwards_exactly_the_given_bytes() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, b"before").unwrap();
        proxy.cut_after(1000);
        stream.write_all(&[5; 3000]).unwrap();
        let mut received = Vec::new();
        // Ends with EOF, or with a reset because the proxy did not read all data.
        let _ = stream.read_to_end(&mut received);
        assert_eq!(received, [5; 1000]);
    }

    #[test]
    fn the_daemon_still_receives_data_on_a_half_closed_connection() {
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
    fn a_dropped_proxy_closes_its_connections_and_port() {
        let (proxy, _reports) = proxy();
        let mut stream = client(&proxy);
        exchange(&mut stream, b"a").unwrap();
        proxy.hold();
        let address = proxy.address();
        drop(proxy);
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        // The port closes when the accepting thread has noticed.
        let start = Instant::now();
        while TcpStream::connect(address).is_ok() {
            assert!(start.elapsed() < LONG);
        }
    }
}
