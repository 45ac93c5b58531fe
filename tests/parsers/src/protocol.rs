//! Data from QEMU, from guest agents and from libvirt, and the commands that people type for them.

use atp_protocol::channel::FrameCodec;
use atp_protocol::console::{Lines, kernel_fault};
use atp_protocol::socket::{Content, LineCodec, Oversized, SocketAddress, SocketConfig, SocketLink};
use atp_protocol::{ProtocolError, RawCommand, Refusal, agent, monitor};
use atp_transport::{Effect, LibvirtError};
use bytes::BytesMut;
use qapi::qga::{guest_exec_status, guest_info};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, Instant};
use tokio_util::codec::{Decoder, Encoder};

use crate::{Fixed, cut, runtime, text};

/// The codec's maximum line length here, bytes: short, so that the limit is often reached.
const MAX: usize = 200;

/// What a guest writes to its console: the first byte determines the pieces in which it arrives.
pub(crate) fn console(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let lines = |step: usize| {
        let (mut split, mut lines) = (Lines::default(), Vec::new());
        for piece in bytes.chunks(step.max(1)) {
            split.push(piece, |line| lines.push(line.to_owned()));
        }
        lines.extend(split.finish());
        lines
    };
    let whole = lines(bytes.len());
    assert_eq!(lines(usize::from(*step)), whole, "a line depends on where the bytes were cut");
    for line in whole {
        assert!(line.chars().count() <= Lines::LONGEST + 4, "{line}");
        assert!(!line.contains(|c: char| c.is_ascii_control() && c != '\t'), "{line:?}");
        let _ = kernel_fault(&line);
    }
}

/// The lines from a socket: the first byte determines the pieces in which they arrive.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let mut codec = LineCodec::new(MAX, Oversized::Skip);
    let mut buffer = BytesMut::new();
    for piece in bytes.chunks(usize::from(*step).max(1)) {
        buffer.extend_from_slice(piece);
        while let Ok(Some(frame)) = codec.decode(&mut buffer) {
            match frame.content {
                Content::Text(line) => assert!(!line.is_empty() && line.len() <= MAX, "{line:?}"),
                Content::TooLong(skipped) => assert!(skipped.size > MAX as u64, "{skipped:?}"),
                Content::NotText(begins) => assert!(begins.len() <= MAX, "{begins:?}"),
            }
        }
        assert!(buffer.len() <= MAX, "{} bytes are buffered", buffer.len());
    }
}

/// The frames of a channel, in both forms: the first byte determines the pieces in which they arrive. The frames must
/// not depend on the pieces.
pub(crate) fn channel_frames(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    for codec in [FrameCodec::lines(MAX), FrameCodec::length_prefixed(MAX)] {
        let whole = cut(codec.clone(), bytes, bytes.len());
        assert_eq!(cut(codec.clone(), bytes, usize::from(*step)), whole);
        for frame in whole.0 {
            assert!(frame.len() <= MAX, "{} bytes", frame.len());
            let mut sent = BytesMut::new();
            // A frame that can be sent arrives unchanged.
            if codec.clone().encode(&frame, &mut sent).is_ok() {
                assert_eq!(cut(codec.clone(), &sent, usize::from(*step)), (vec![frame], true));
            }
        }
    }
}

/// Data from QEMU, from the greeting on: the link ends with the data, and all subscribers are notified.
pub(crate) fn monitor(bytes: &[u8]) {
    let greeting =
        br#"{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":0},"package":""},"capabilities":[]}}"#;
    let sent = [&greeting[..], b"\n{\"return\":{},\"id\":0}\n", bytes].concat();
    runtime().block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(sent.len() + 1024);
        let config = SocketConfig { max_reply: 1000, event_buffer: 4, ..SocketConfig::default() };
        assert!(theirs.write_all(&sent).await.is_ok(), "the pipe is too small");
        // The link's task reads data that follows at once when it is scheduled.
        let link = SocketLink::monitor(tokio::io::split(ours), config).await;
        let link = link.unwrap_or_else(|end| panic!("the greeting was rejected: {end}"));
        let Some(Ok(mut events)) = link.events() else { panic!("the link has no events") };
        assert!(theirs.shutdown().await.is_ok());
        drop(theirs);
        let end = link.ended().await;
        while let Ok(notice) = events.next().await {
            drop(notice);
        }
        assert_eq!(link.end(), Some(end));
    });
}

/// One reply, to a typed command and to a raw one.
pub(crate) fn reply(bytes: &[u8]) {
    let carrier = Fixed(text(bytes));
    let Ok(command) = RawCommand::from_words(["c"]) else { panic!("a command's name is refused") };
    runtime().block_on(async {
        let deadline = Instant::now() + Duration::from_secs(1);
        let answers = [
            agent::execute(&carrier, &guest_exec_status { pid: 1 }, deadline).await.err(),
            agent::execute(&carrier, &guest_info {}, deadline).await.err(),
            agent::execute_raw(&carrier, &command, deadline).await.err(),
            monitor::execute_raw(&carrier, &command, deadline).await.err(),
        ];
        for error in answers.into_iter().flatten() {
            let expected = match &error {
                ProtocolError::Refused(_) => Effect::None,
                _ => Effect::Unknown,
            };
            assert_eq!(error.effect(), expected, "{error}");
            assert!(!error.hint().is_empty(), "{error}");
        }
    });
}

/// The words of a command line: one per line.
pub(crate) fn raw_command(bytes: &[u8]) {
    let words = text(bytes);
    if let Ok(command) = RawCommand::from_words(words.split('\n')) {
        let wire: Result<Value, _> = serde_json::from_str(&command.to_json());
        let wire = wire.unwrap_or_else(|error| panic!("{:?} is no JSON: {error}", command.to_json()));
        assert_eq!(wire["execute"], command.name());
    }
}

/// libvirt's message for an agent's error.
pub(crate) fn agent_error(bytes: &[u8]) {
    let error = LibvirtError { code: 1, domain: 10, level: 2, message: text(bytes) };
    if let Some(refusal) = Refusal::from_libvirt(&error) {
        assert!(!refusal.command.contains('\''), "{refusal:?}");
        assert!(!refusal.desc.is_empty() && !refusal.hint().is_empty(), "{refusal:?}");
    }
}

/// The URI of a socket.
pub(crate) fn socket_address(bytes: &[u8]) {
    if let Ok(address) = text(bytes).parse::<SocketAddress>() {
        assert_eq!(address.to_string().parse::<SocketAddress>(), Ok(address));
    }
}
