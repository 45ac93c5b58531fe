//! Tests of a client and a scripted program in the guest, in virtual time.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, Lines};
use tokio::sync::Mutex;

use super::*;

/// The other ends of the channels that the client opened, in order.
type Opened = mpsc::UnboundedReceiver<Peer>;

struct Peer {
    lines: Lines<BufReader<ReadHalf>>,
    write: WriteHalf<DuplexStream>,
}

type ReadHalf = tokio::io::ReadHalf<DuplexStream>;

impl Peer {
    async fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
    }

    async fn send(&mut self, text: &str) {
        self.write.write_all(text.as_bytes()).await.unwrap();
    }

    /// Answers requests until the channel is closed.
    async fn echo(mut self) {
        while let Ok(Some(line)) = self.lines.next_line().await {
            let request: Value = serde_json::from_str(&line).unwrap();
            self.send(&format!("{}\n", json!({"id": request["id"], "echo": request["say"]}))).await;
        }
    }
}

fn client(options: ChannelClientOptions) -> (ChannelClient, Opened) {
    let (opened, peers) = mpsc::unbounded_channel();
    let open = move || {
        let (near, far) = tokio::io::duplex(256);
        let (read, write) = tokio::io::split(far);
        let peer = Peer { lines: BufReader::new(read).lines(), write };
        let sent = opened.send(peer).map_err(|_| io::Error::other("no more"));
        async move { sent.map(|()| near) }
    };
    (ChannelClient::new(open, options), peers)
}

fn say(what: &str) -> Map<String, Value> {
    Map::from_iter([("say".to_owned(), what.into())])
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[tokio::test(start_paused = true)]
async fn answers_are_matched_whatever_their_order() {
    let (client, mut peers) = client(ChannelClientOptions::default());
    let mut messages = client.messages();
    let program = async {
        let mut peer = peers.recv().await.unwrap();
        let (first, second) = (peer.next().await, peer.next().await);
        peer.send("not json\n[1]\n{\"note\":1}\n{\"id\":4711}\n").await;
        for request in [second, first] {
            let answer = json!({"id": request["id"], "echo": request["say"]}).to_string();
            // In pieces.
            for piece in answer.as_bytes().chunks(3) {
                peer.send(std::str::from_utf8(piece).unwrap()).await;
                tokio::task::yield_now().await;
            }
            peer.send("\n").await;
        }
        peer
    };
    let (a, b, _peer) =
        tokio::join!(client.request(say("a"), soon()), client.request(say("b"), soon()), program);
    assert_eq!((&a.unwrap()["echo"], &b.unwrap()["echo"]), (&json!("a"), &json!("b")));
    assert_eq!(messages.recv().await.unwrap()["note"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_dropped_and_the_next_request_gets_its_own() {
    let (client, mut peers) = client(ChannelClientOptions::default());
    let error = client.request(say("a"), soon()).await.unwrap_err();
    assert_eq!((&error, error.effect()), (&ChannelRequestError::Timeout, Effect::Unknown));
    let mut peer = peers.recv().await.unwrap();
    let late = peer.next().await;
    peer.send(&format!("{}\n", json!({"id": late["id"], "echo": "late"}))).await;
    tokio::spawn(peer.echo());
    assert_eq!(client.request(say("b"), soon()).await.unwrap()["echo"], "b");
    assert!(peers.try_recv().is_err(), "opened again for no reason");
}

#[tokio::test(start_paused = true)]
async fn a_lost_channel_fails_waiting_requests_and_is_opened_again() {
    let (client, mut peers) = client(ChannelClientOptions::default());
    let lose = async {
        let mut peer = peers.recv().await.unwrap();
        peer.next().await;
        drop(peer);
        peers
    };
    let (answer, mut peers) = tokio::join!(client.request(say("a"), soon()), lose);
    let error = answer.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(matches!(error, ChannelRequestError::Lost { .. }), "{error}");

    tokio::spawn(async move { peers.recv().await.unwrap().echo().await });
    let answer = client.request(say("b"), soon()).await;
    assert_eq!(answer.unwrap()["echo"], "b");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_cannot_be_opened_says_why() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let open = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err::<DuplexStream, _>(io::Error::other("no such channel")) }
    };
    let client = ChannelClient::new(open, ChannelClientOptions::default());
    for attempt in 1..=2 {
        let error = client.request(say("a"), soon()).await.unwrap_err();
        assert_eq!(error.effect(), Effect::None);
        assert!(error.to_string().contains("no such channel"), "{error}");
        assert_eq!(attempts.load(Ordering::Relaxed), attempt);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_read_loses_the_channel_and_waiting_requests_are_limited() {
    let options = ChannelClientOptions { max_pending: 4, ..ChannelClientOptions::default() };
    let (client, mut peers) = client(options);
    let client = Arc::new(client);
    let results = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    for _ in 0..20 {
        let (client, results) = (client.clone(), results.clone());
        tasks.spawn(async move {
            let result = client.request(say(&"x".repeat(200)), deadline).await;
            results.lock().await.push(result.unwrap_err());
        });
    }
    // The channel is open, and the guest does not read.
    let _peer = peers.recv().await.unwrap();
    tasks.join_all().await;
    let results = results.lock().await;
    let busy = results.iter().filter(|error| matches!(error, ChannelRequestError::Busy { .. })).count();
    let lost = results.iter().filter(|error| matches!(error, ChannelRequestError::Lost { .. })).count();
    assert!(busy >= 10 && lost >= 4 && busy + lost == 20, "{results:?}");
    assert!(results.iter().any(|error| error.to_string().contains("does not read")), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn endless_lines_and_half_messages_end_only_the_channel() {
    let options = ChannelClientOptions { codec: FrameCodec::lines(1024), ..ChannelClientOptions::default() };
    let (client, mut peers) = client(options);
    let flood = async {
        let mut peer = peers.recv().await.unwrap();
        peer.next().await;
        while peer.write.write_all(&[b'x'; 100]).await.is_ok() {}
        let mut peer = peers.recv().await.unwrap();
        peer.next().await;
        peer.send("{\"id\":").await;
        drop(peer);
        tokio::spawn(peers.recv().await.unwrap().echo());
    };
    let ask = async {
        for _ in 0..2 {
            let error = client.request(say("a"), soon()).await.unwrap_err();
            assert!(matches!(error, ChannelRequestError::Lost { .. }), "{error}");
        }
        assert_eq!(client.request(say("b"), soon()).await.unwrap()["echo"], "b");
    };
    tokio::join!(ask, flood);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_sends_without_end_is_still_asked_and_memory_is_limited() {
    let options = ChannelClientOptions { message_buffer: 16, ..ChannelClientOptions::default() };
    let (client, mut peers) = client(options);
    let mut messages = client.messages();
    let flood = async {
        let mut peer = peers.recv().await.unwrap();
        loop {
            let request = peer.next().await;
            for _ in 0..10_000 {
                peer.send("{\"event\":\"again\"}\nno message at all\n").await;
            }
            peer.send(&format!("{}\n", json!({"id": request["id"], "echo": request["say"]}))).await;
        }
    };
    let ask = async {
        for what in ["a", "b"] {
            assert_eq!(client.request(say(what), soon()).await.unwrap()["echo"], what);
        }
    };
    tokio::select! {
        () = ask => {}
        () = flood => {}
    }
    assert!(matches!(messages.try_recv(), Err(broadcast::error::TryRecvError::Lagged(19_000..))));
    assert_eq!(messages.len(), 16);
}

#[tokio::test(start_paused = true)]
async fn limits_of_any_size_allow_a_request() {
    for number in [0, usize::MAX] {
        let limits = ChannelClientOptions {
            max_pending: number,
            message_buffer: number,
            ..ChannelClientOptions::default()
        };
        let (client, mut opened) = client(limits);
        let guest = tokio::spawn(async move { opened.recv().await.unwrap().echo().await });
        assert_eq!(client.request(say("a"), soon()).await.unwrap()["echo"], "a");
        drop(client);
        guest.await.unwrap();
    }
}
