//! Compares the table of errors in `docs/protocols.md` with the code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atp_transport::{ErrorKind, HostId, LibvirtError, TransportError};

use crate::error::ProtocolError;
use crate::files::{Digest, FileError};
use crate::peer::Peer;
use crate::refusal::{Refusal, RefusalKind};
use crate::socket::LinkEnd;

const PAGE: &str = include_str!("../../../docs/protocols.md");

/// The kinds of transport errors that concern a VM. The others concern the connection to its host.
const OF_A_VM: [ErrorKind; 16] = [
    ErrorKind::VmNotFound,
    ErrorKind::VmNotRunning,
    ErrorKind::OperationInvalid,
    ErrorKind::AgentNotConfigured,
    ErrorKind::AgentNotConnected,
    ErrorKind::AgentUnresponsive,
    ErrorKind::AgentGone,
    ErrorKind::AgentBroken,
    ErrorKind::AgentBusy,
    ErrorKind::MonitorBusy,
    ErrorKind::ChannelInUse,
    ErrorKind::NoScreen,
    ErrorKind::SnapshotNotFound,
    ErrorKind::AccessDenied,
    ErrorKind::NotSupported,
    ErrorKind::LibvirtError,
];

/// The kinds of this crate's errors, read from its source, so that the test misses none.
fn kinds_in(source: &str, function: &str) -> BTreeSet<String> {
    let (_, rest) = source.split_once(function).unwrap();
    let (body, _) = rest.split_once("\n    }\n").unwrap();
    let named: BTreeSet<&str> = body
        .split("ErrorKind::")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next())
        .collect();
    let kinds = ErrorKind::ALL.iter().filter(|kind| named.contains(format!("{kind:?}").as_str()));
    kinds.map(ToString::to_string).collect()
}

fn libvirt(kind: ErrorKind) -> TransportError {
    let source = LibvirtError { code: 1, domain: 10, level: 2, message: "m".into() };
    let host: HostId = "h1".parse().unwrap();
    TransportError::Libvirt { host, operation: "o", kind, source }
}

/// At least one error of every kind.
fn samples() -> Vec<ProtocolError> {
    let refused = |peer, kind| {
        let refusal = Refusal { kind, ..Refusal::new(peer, "c", None, "d", None) };
        ProtocolError::Refused(Box::new(refusal))
    };
    let mut samples: Vec<ProtocolError> = OF_A_VM.map(|kind| libvirt(kind).into()).into();
    let host = || "h1".parse::<HostId>().unwrap();
    let (after, operation, sent) = (Duration::ZERO, "o", true);
    samples.extend(
        [
            TransportError::CallTimeout { host: host(), operation, after, sent },
            TransportError::ConnectionLost { host: host(), operation, sent, source: None },
        ]
        .map(ProtocolError::from),
    );
    let (program, pid, peer) = (|| "p".to_owned(), 1, Peer::Agent);
    samples.extend([
        ProtocolError::InvalidCommand { reason: "r".into() },
        ProtocolError::CommandTooLarge { size: 2, limit: 1 },
        ProtocolError::NoChannel { peer },
        ProtocolError::LinkLost { peer, sent: true, end: LinkEnd::PeerClosed },
        ProtocolError::GuestBooting {
            cpu_time: Duration::ZERO,
            source: Box::new(libvirt(ErrorKind::AgentNotConnected)),
        },
        refused(Peer::Monitor, RefusalKind::Qmp),
        refused(Peer::Monitor, RefusalKind::NoInputDevice),
        refused(peer, RefusalKind::CommandDisabled),
        refused(peer, RefusalKind::CommandUnknown),
        refused(peer, RefusalKind::GuestFrozen),
        refused(peer, RefusalKind::Guest),
        ProtocolError::ExecFailed { program: program(), reason: "r".into(), libvirt: None },
        ProtocolError::NoShell {
            os: None,
            shell: "sh",
            is_windows: false,
            reason: "r".into(),
            libvirt: None,
        },
        ProtocolError::NotThawed { source: Box::new(libvirt(ErrorKind::AgentNotConnected).into()) },
        ProtocolError::OutputTooLarge { peer, channel_lost: false, libvirt: None },
        ProtocolError::InvalidReply { peer, command: "c".into(), detail: "d".into() },
        ProtocolError::StillRunning { program: program(), pid, source: None },
        ProtocolError::ProcessLost { program: program(), pid },
        ProtocolError::ThawedEarly { after: Duration::ZERO },
        ProtocolError::ImageTooLarge { limit: 1 },
        ProtocolError::InvalidImage { detail: "d".into() },
    ]);
    samples.extend(file_samples().map(ProtocolError::from));
    samples
}

fn file_samples() -> [FileError; 9] {
    let (path, action) = (|| "p".to_owned(), "a");
    let source = Arc::new(std::io::Error::other("e"));
    let digest = || Digest::of(b"d");
    [
        FileError::NotFound { path: path() },
        FileError::IsDirectory { path: path() },
        FileError::NotDirectory { path: path() },
        FileError::NotRegular { path: path() },
        FileError::Guest { action, path: path(), reason: "r".into() },
        FileError::Local { action, path: path().into(), source },
        FileError::Busy { path: path().into() },
        FileError::Occupied { path: path().into(), found: "f".into() },
        FileError::Checksum { path: path(), expected: digest(), found: digest() },
    ]
}

/// The rows of the page's table: kind, origin, effect, whether a retry can help, hint.
fn rows() -> BTreeMap<String, [String; 4]> {
    let (_, table) = PAGE.split_once("## Errors").unwrap();
    let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
    let cells = |line: &str| {
        let (kind, line) = line.strip_prefix("| `")?.split_once("` | ")?;
        let mut cells = line.strip_suffix(" |")?.splitn(4, " | ").map(str::to_owned);
        Some((kind.to_owned(), [cells.next()?, cells.next()?, cells.next()?, cells.next()?]))
    };
    table.lines().filter_map(cells).collect()
}

#[test]
fn every_kind_has_a_row_that_matches_the_code() {
    let rows = rows();
    let mut missing = Vec::new();
    for error in samples() {
        let expected = [
            error.origin().to_string(),
            error.effect().to_string(),
            if error.is_retryable() { "yes" } else { "no" }.to_owned(),
            error.hint().to_string(),
        ];
        // Two errors may have the same kind. The table has the hint of the transport's.
        let is_second = matches!(error, ProtocolError::LinkLost { .. });
        if !is_second && rows.get(error.kind().as_str()) != Some(&expected) {
            missing.push(format!("| `{}` | {} |", error.kind(), expected.join(" | ")));
        }
    }
    assert!(missing.is_empty(), "docs/protocols.md should have these rows:\n{}", missing.join("\n"));
    let mut kinds = kinds_in(include_str!("error/mod.rs"), "pub fn kind(&self)");
    kinds.extend(kinds_in(include_str!("error/file.rs"), "pub fn kind(&self)"));
    kinds.extend(kinds_in(include_str!("refusal.rs"), "pub fn error_kind(self)"));
    kinds.insert(ErrorKind::ConnectionLost.as_str().to_owned());
    kinds.extend(OF_A_VM.map(|kind| kind.as_str().to_owned()));
    let in_page: BTreeSet<String> = rows.into_keys().collect();
    assert_eq!(in_page, kinds, "the kinds in the page, and those in the code");
}

#[test]
fn the_command_lines_page_has_every_kind() {
    const CLI: &str = include_str!("../../../docs/cli.md");
    let (_, tables) = CLI.split_once("## Error kinds").unwrap();
    let missing: Vec<_> = rows().into_keys().filter(|kind| !tables.contains(&format!("`{kind}`"))).collect();
    assert!(missing.is_empty(), "docs/cli.md does not explain {missing:?}");
}
