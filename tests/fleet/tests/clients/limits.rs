//! What a daemon does to clients that ask for much, or say nothing.

use std::time::Duration;

use atp_fleet::{Fleet, FleetOptions, VmFault};
use atp_rpc::frame::{Frame, FrameCodec, Header};
use atp_rpc::numbers::{Kind, Procedure, Program, procedure};
use atp_rpc::xdr::{ToXdr, encode};
use atp_rpc::{ConnectOptions, Connection};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, timeout};
use tokio_util::codec::{Decoder, Encoder};

use crate::bed::{connect, exec, fleet, vm1};

/// A client that sends what it likes.
struct Raw {
    io: DuplexStream,
    inbox: BytesMut,
}

impl Raw {
    async fn open(fleet: &Fleet) -> Self {
        let mut raw = Raw { io: fleet.host(1).unwrap().connect(), inbox: BytesMut::new() };
        raw.call(procedure::CONNECT_OPEN, &(Some("qemu:///system"), 0u32)).await;
        raw.next().await.unwrap();
        raw
    }

    async fn send(&mut self, header: Header, payload: &[u8]) {
        let mut bytes = BytesMut::new();
        FrameCodec::default().encode((header, payload), &mut bytes).unwrap();
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn call(&mut self, procedure: Procedure, arguments: &impl ToXdr) {
        self.send(Header::call(procedure, 1), &encode(arguments).unwrap()).await;
    }

    async fn ping(&mut self) {
        self.send(Header { kind: Kind::Message, ..Header::call(procedure::PING, 0) }, &[]).await;
    }

    /// The next message; none at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = FrameCodec::default().decode(&mut self.inbox).unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.inbox).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn is_ponged(&mut self) -> bool {
        self.ping().await;
        let next = timeout(Duration::from_secs(2), self.next()).await;
        next.is_ok_and(|frame| frame.unwrap().header.procedure == procedure::PONG.number)
    }
}

#[tokio::test(start_paused = true)]
async fn at_its_limit_a_daemon_stops_reading_pings_included() {
    for limit in [1, 3, 5] {
        let options = FleetOptions { vms: 5, max_client_requests: limit, ..FleetOptions::default() };
        let fleet = fleet(options);
        let host = fleet.host(1).unwrap();
        let vms = connect(&fleet, 1).await.list_domains(0).await.unwrap();
        let mut raw = Raw::open(&fleet).await;
        let command = r#"{"execute":"query-status"}"#;
        for (number, vm) in (1..=limit as u32).zip(&vms) {
            assert!(raw.is_ponged().await, "with {} calls of {limit}", number - 1);
            host.vm(number).unwrap().set_fault(VmFault::Hung);
            raw.call(procedure::MONITOR_COMMAND, &(vm, command, 0u32)).await;
        }
        assert!(!raw.is_ponged().await, "with {limit} calls");
        host.vm(1).unwrap().set_fault(None);
        assert_eq!(raw.next().await.unwrap().header.kind, Kind::Reply);
        assert_eq!(raw.next().await.unwrap().header.procedure, procedure::PONG.number);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asked_for_pings_and_stays_silent_is_closed_after_30_s() {
    let fleet = fleet(FleetOptions::default());
    let mut raw = Raw::open(&fleet).await;
    raw.call(procedure::CONNECT_SUPPORTS_FEATURE, &10).await;
    raw.next().await.unwrap();
    let started = Instant::now();
    for number in 1..=5 {
        let frame = raw.next().await.unwrap();
        assert_eq!((frame.header.program, frame.header.procedure), (Program::KEEPALIVE, 1));
        assert_eq!(started.elapsed().as_secs(), 5 * number);
    }
    assert_eq!(raw.next().await, None);
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn pings_keep_a_connection_alive_in_both_directions() {
    let fleet = fleet(FleetOptions::default());
    let c = connect(&fleet, 1).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(c.is_open());
    c.hostname().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hung_calls_of_clients_that_left_keep_their_workers() {
    let options = FleetOptions { vms: 4, max_workers: 3, priority_workers: 1, ..FleetOptions::default() };
    let fleet = fleet(options);
    let host = fleet.host(1).unwrap();
    let c = connect(&fleet, 1).await;
    let vms = c.list_domains(0).await.unwrap();
    for (number, vm) in (1..=3).zip(&vms) {
        host.vm(number).unwrap().set_fault(VmFault::Hung);
        let leaver = connect(&fleet, 1).await;
        timeout(Duration::from_secs(1), leaver.monitor_command(vm, r#"{"execute":"stop"}"#))
            .await
            .unwrap_err();
    }
    // What may wait for QEMU waits for a worker; what never does has one to spare.
    let soon = Duration::from_secs(10);
    timeout(soon, c.monitor_command(&vms[3], r#"{"execute":"stop"}"#)).await.unwrap_err();
    assert_eq!(timeout(soon, c.hostname()).await.unwrap().unwrap(), "h1");
    assert_eq!(host.vm(4).unwrap().counts().monitor.total(), 0);
    // Freed by the destruction of one VM, the others' calls are executed all the same.
    c.destroy_domain(&vms[0], 0).await.unwrap();
    while host.vm(4).unwrap().counts().monitor.of("stop") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.vm(2).unwrap().set_fault(None);
    assert_eq!(host.vm(2).unwrap().counts().monitor.of("stop"), 1);
    assert_eq!(host.vm(1).unwrap().counts().monitor.of("stop"), 0);
}

#[tokio::test(start_paused = true)]
async fn reading_only_is_reading_only() {
    let fleet = fleet(FleetOptions::default());
    let io = fleet.host(1).unwrap().connect();
    let options = ConnectOptions { read_only: true, ..ConnectOptions::default() };
    let c = Connection::over(io, true, &"qemu:///system".parse().unwrap(), &options).await.unwrap();
    let vm = vm1(&c).await;
    assert!(c.suspend_domain(&vm).await.unwrap_err().is_code(29));
    assert!(exec(&c, &vm, "true").await.unwrap_err().is_code(29));
    assert_eq!(fleet.host(1).unwrap().vm(1).unwrap().counts().programs.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_end_the_connection() {
    let fleet = fleet(FleetOptions::default());
    let mut raw = Raw::open(&fleet).await;
    raw.io.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(raw.next().await, None);
    let mut unopened = Raw { io: fleet.host(1).unwrap().connect(), inbox: BytesMut::new() };
    unopened.call(procedure::CONNECT_GET_HOSTNAME, &()).await;
    assert_eq!(unopened.next().await.unwrap().header.status, atp_rpc::numbers::Status::Error);
}
