//! The other end of a link, controlled by a test: over a pipe in unit tests, over a real socket in the others.

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const SENTINEL: u8 = 0xFF;

/// QEMU or an agent, played by the test.
pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    /// Bytes that are read and not used yet.
    buffer: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Peer {
    pub(crate) fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Peer { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Negotiates as QEMU does with a new client.
    pub(crate) async fn negotiate(&mut self) {
        self.greet().await;
        let capabilities = self.command().await;
        assert_eq!(capabilities["execute"], "qmp_capabilities");
        self.answer(&capabilities, json!({})).await;
    }

    /// Sends QEMU's greeting.
    pub(crate) async fn greet(&mut self) {
        let version = json!({"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""});
        self.line(&json!({"QMP": {"version": version, "capabilities": ["oob"]}}).to_string()).await;
    }

    /// The next command, without bytes 0xFF before it. Null if the link is closed.
    pub(crate) async fn command(&mut self) -> Value {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).filter(|byte| *byte != SENTINEL).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            // A link that was dropped with unread bytes is reset.
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return Value::Null;
            }
        }
    }

    /// Answers a command by its id.
    pub(crate) async fn answer(&mut self, command: &Value, value: Value) {
        self.line(&json!({"return": value, "id": command["id"]}).to_string()).await;
    }

    /// Answers a command as an agent does: without an id.
    pub(crate) async fn reply(&mut self, value: Value) {
        self.line(&json!({"return": value}).to_string()).await;
    }

    /// Waits for a synchronisation and answers it.
    pub(crate) async fn synchronise(&mut self) {
        let command = self.command().await;
        assert_eq!(command["execute"], "guest-sync-delimited");
        self.raw(&[SENTINEL]).await;
        self.reply(command["arguments"]["id"].clone()).await;
    }

    /// Sends an event.
    pub(crate) async fn event(&mut self, number: usize) {
        let timestamp = json!({"seconds": 1, "microseconds": 2});
        self.line(&json!({"timestamp": timestamp, "event": "TICK", "data": {"n": number}}).to_string()).await;
    }

    /// Sends a line.
    pub(crate) async fn line(&mut self, text: &str) {
        self.raw(text.as_bytes()).await;
        self.raw(b"\n").await;
    }

    /// Sends bytes. A link that has ended accepts none.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ended = self.stream.write_all(bytes).await;
    }
}
