//! Virtio-serial channels: bytes to a program in the guest and back, requests and responses, and faults.

use std::io;
use std::time::Duration;

use atp_e2e::{Bed, Resources, becomes, bed, within};
use atp_protocol::channel::{ChannelClient, ChannelClientOptions, ChannelRequestError, FrameCodec};
use atp_testbed::Guest;
use atp_transport::{
    ChannelError, ChannelOptions, DomainChannel, ErrorKind, TransportConfig, TransportManager,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::support::{manager, nothing_is_held};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(300);
/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);
const CHANNEL: &str = "org.atp.test.channel";

fn config() -> TransportConfig {
    let mut config = atp_e2e::config();
    config.pool.min_connections_per_host = 0;
    config.calls.thread_idle_timeout = Duration::from_millis(500);
    config
}

fn deadline() -> Instant {
    Instant::now() + SOON
}

fn uuid(guest: &Guest) -> Uuid {
    guest.uuid().parse().unwrap()
}

/// Starts the guest's end of the channel: `bytes` echoes, `json` answers requests, `flood` sends without end.
fn start_peer(bed: &Bed, vm: &str, kind: &str) {
    bed.run(&["exec", &format!("h1/{vm}"), "--", "channel-peer", kind]).exits_with(0);
}

async fn open(manager: &TransportManager, guest: &Guest) -> DomainChannel {
    open_with(manager, guest, &ChannelOptions::default()).await
}

/// Opens a channel that may have been open a moment ago, in another test too: the daemon may not have noticed yet that it was
/// closed.
async fn open_with(manager: &TransportManager, guest: &Guest, options: &ChannelOptions) -> DomainChannel {
    let until = deadline();
    loop {
        match manager.open_channel("h1", uuid(guest), CHANNEL, options, until).await {
            Ok(channel) => return channel,
            Err(error) => {
                assert!(error.kind() == ErrorKind::ChannelInUse && Instant::now() < until, "{error:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The connector to a VM's channel, for a client that opens the channel on demand.
fn through_libvirt(
    manager: TransportManager,
    vm: Uuid,
) -> impl Fn() -> BoxFuture<'static, io::Result<DomainChannel>> {
    move || {
        let manager = manager.clone();
        async move {
            let options = ChannelOptions::default();
            manager.open_channel("h1", vm, CHANNEL, &options, deadline()).await.map_err(io::Error::other)
        }
        .boxed()
    }
}

/// Sends bytes and reads the same number back.
async fn echo(channel: &mut DomainChannel, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(channel);
    let mut back = vec![0; bytes.len()];
    let both = async {
        tokio::join!(
            async {
                write.write_all(bytes).await.unwrap();
                write.flush().await.unwrap();
            },
            async { read.read_exact(&mut back).await.unwrap() }
        )
    };
    timeout(SOON, both).await.unwrap();
    back
}

fn request(method: &str) -> Map<String, Value> {
    Map::from_iter([("method".to_owned(), method.into())])
}

#[test]
fn bytes_come_back_as_they_were_sent() {
    let bed = bed();
    nothing_is_held(SOON);
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    start_peer(&bed, "vm1", "bytes");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let mut channel = open(&manager, &guest).await;
        assert_eq!(Resources::now().sockets, 1, "the channel's own connection");
        assert_eq!(echo(&mut channel, b"hello").await, b"hello");
        // A write is on its way without a flush, too.
        channel.write_all(b"bare").await.unwrap();
        let mut back = [0; 4];
        timeout(SOON, channel.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"bare");
        // All byte values, in more than one packet.
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n * 31 % 256) as u8).collect();
        assert_eq!(echo(&mut channel, &bytes).await, bytes);

        // The daemon permits one client at a time.
        let options = ChannelOptions::default();
        let second = manager.open_channel("h1", uuid(&guest), CHANNEL, &options, deadline());
        let error = second.await.err().unwrap();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::ChannelInUse, true), "{error:?}");
        assert!(error.hint().contains("force"), "{}", error.hint());
        // A client can take the channel over by force. The previous client's stream then ends.
        let options = ChannelOptions { force: true, ..options };
        let mut taken =
            manager.open_channel("h1", uuid(&guest), CHANNEL, &options, deadline()).await.unwrap();
        assert_eq!(echo(&mut taken, b"mine").await, b"mine");
        let mut rest = Vec::new();
        let _ = timeout(SOON, channel.read_to_end(&mut rest)).await.unwrap();
        taken.shutdown().await.unwrap();
        drop(taken);
        drop(channel);
        nothing_is_held(SOON);
        let mut again = open(&manager, &guest).await;
        assert_eq!(echo(&mut again, b"again").await, b"again");
    });
    nothing_is_held(SOON);
}

#[test]
fn requests_are_answered_over_libvirt_and_over_the_socket() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    start_peer(&bed, "vm1", "json");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let vm = uuid(&guest);
        ask(ChannelClient::new(through_libvirt(manager, vm), ChannelClientOptions::default())).await;

        let path = guest.channel();
        let direct = move || UnixStream::connect(path.clone());
        ask(ChannelClient::new(direct, ChannelClientOptions::default())).await;
    });
}

async fn ask(client: ChannelClient) {
    let mut messages = client.messages();
    let answer = client.request(request("hostname"), deadline()).await.unwrap();
    assert_eq!(answer["result"], "vm1");
    // Many requests at the same time.
    let answers = (0..20).map(|n| {
        let body = Map::from_iter([("method".to_owned(), json!("echo")), ("value".to_owned(), json!(n))]);
        client.request(body, deadline())
    });
    for (n, answer) in futures_util::future::join_all(answers).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap()["result"], n);
    }
    let error =
        client.request(request("silence"), Instant::now() + Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error, ChannelRequestError::Timeout);
    client.request(request("notify"), deadline()).await.unwrap();
    let message = timeout(SOON, messages.recv()).await.unwrap().unwrap();
    assert_eq!(message["event"], "noticed");
}

#[test]
fn a_client_reopens_the_channel_after_a_loss_of_the_vm_or_the_daemon() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let guest = host.guest("vm2").unwrap();
    start_peer(&bed, "vm2", "json");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let vm = uuid(&guest);
        let client = ChannelClient::new(through_libvirt(manager, vm), ChannelClientOptions::default());
        client.request(request("hostname"), deadline()).await.unwrap();

        // The daemon is killed while a response is pending: the request before that one has been answered.
        let (answer, ()) = tokio::join!(client.request(request("silence"), deadline()), async {
            client.request(request("hostname"), deadline()).await.unwrap();
            host.kill_daemon().unwrap();
        });
        assert!(matches!(answer, Err(ChannelRequestError::Lost { .. })), "{answer:?}");
        host.start_daemon().unwrap();
        answered(&client).await;

        guest.destroy().unwrap();
        guest.start().unwrap();
        guest.wait_agent(SOON).unwrap();
        start_peer(&bed, "vm2", "json");
        answered(&client).await;
    });
}

/// Repeats a request until it is answered: right after a loss the channel may not be open yet.
async fn answered(client: &ChannelClient) {
    let start = Instant::now();
    loop {
        match client.request(request("hostname"), Instant::now() + Duration::from_secs(5)).await {
            Ok(answer) => return assert_eq!(answer["result"], "vm2"),
            Err(error) => assert!(start.elapsed() < SOON, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_guest_that_floods_uses_no_more_memory_than_the_buffer() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    start_peer(&bed, "vm1", "flood");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let options = ChannelOptions { receive_buffer: 100_000, ..ChannelOptions::default() };
        let mut channel = open_with(&manager, &guest, &options).await;
        // The test does not read until the channel is given up.
        becomes("open sockets", SOON, 0, || Resources::now().sockets);
        let error = timeout(SOON, read_to_error(&mut channel)).await.unwrap();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ChannelError>());
        assert_eq!(inner, Some(&ChannelError::Overflow { limit: 100_000 }), "{error}");
    });
}

async fn read_to_error(channel: &mut (impl AsyncRead + Unpin)) -> io::Error {
    let mut buffer = [0; 4096];
    let mut total = 0;
    loop {
        match channel.read(&mut buffer).await {
            Ok(0) => panic!("end of file without an error"),
            Ok(read) => total += read,
            Err(error) => {
                assert!(total <= 100_000, "{total}");
                return error;
            }
        }
    }
}

#[test]
fn a_hung_vm_does_not_delay_other_channels() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let (hung, other) = (host.guest("vm1").unwrap(), host.guest("vm2").unwrap());
    start_peer(&bed, "vm1", "bytes");
    start_peer(&bed, "vm2", "bytes");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let (mut stuck, mut channel) = (open(&manager, &hung).await, open(&manager, &other).await);
        hung.pause_qemu().unwrap();
        // More data than all buffers on the way hold.
        let flood = async {
            let bytes = vec![b'x'; 1 << 20];
            loop {
                if let Err(error) = stuck.write_all(&bytes).await {
                    return error;
                }
            }
        };
        let mut flood = std::pin::pin!(flood);
        assert!(timeout(Duration::from_secs(2), &mut flood).await.is_err(), "all data was accepted");
        for _ in 0..10 {
            assert_eq!(echo(&mut channel, b"still there").await, b"still there");
        }
        let listed = manager
            .execute_on_host("h1", |connection| async move { connection.list_domains().await })
            .await
            .unwrap();
        assert_eq!(listed.len(), 2);
        hung.resume_qemu().unwrap();
    });
}

#[test]
fn frames_may_have_a_length_prefix() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    start_peer(&bed, "vm1", "bytes");
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let vm = uuid(&guest);
        // A program that echoes answers each request with itself.
        let codec = FrameCodec::length_prefixed(1 << 20);
        let client = ChannelClient::new(
            through_libvirt(manager, vm),
            ChannelClientOptions { codec, ..ChannelClientOptions::default() },
        );
        let long = "line\n".repeat(20_000);
        let body = Map::from_iter([("text".to_owned(), Value::from(long.clone()))]);
        assert_eq!(client.request(body, deadline()).await.unwrap()["text"], long);
    });
}
