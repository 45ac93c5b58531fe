//! How a connection is opened: what a daemon says before it is used, and libvirt's files for clients.

use std::fmt::Write as _;

use atp_rpc::frame::{Frame, FrameCodec};
use atp_rpc::numbers::{Status, procedure};
use atp_rpc::uri::Uri;
use atp_rpc::xdr::{self, FromXdr, Reader, ToXdr, Writer};
use atp_rpc::{ConnectOptions, Connection, Credentials};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{DuplexStream, duplex};
use tokio_util::codec::Framed;

use crate::wire::{is, pong, reply};
use crate::{runtime, text};

/// What the pipe to the scripted daemon holds, bytes.
const PIPE: usize = 256 * 1024;
/// SASL's mechanisms, and one that is not known.
const MECHANISMS: [&str; 5] = ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "NONE"];
const PLAIN: usize = 3;
/// The number of SASL among the methods of authentication, of which each input has one.
const SASL: u8 = 1;
const METHODS: u8 = 4;
const PASSWORD: &str = "not-to-be-shown";

/// What a daemon answers while a connection is opened.
#[derive(Clone, Copy)]
struct Script<'a> {
    method: u8,
    mechanism: usize,
    /// Whether the daemon is satisfied with a message of SASL.
    complete: bool,
    /// Whether a challenge of SCRAM has the form that it should have.
    formed: bool,
    /// Whether messages are the given bytes altogether, not only their content.
    raw: bool,
    bytes: &'a [u8],
}

/// The replies before a connection is open: three bytes select the method, the mechanism and how much of a message is
/// made of the rest. A daemon that does not know the password is not taken for the right one, and no error shows it.
pub(crate) fn rpc_open(bytes: &[u8]) {
    let Some(([method, mechanism, form], bytes)) = bytes.split_first_chunk() else { return };
    let script = Script {
        method: method % METHODS,
        mechanism: usize::from(*mechanism) % MECHANISMS.len(),
        complete: form & 1 != 0,
        formed: form & 2 != 0,
        raw: form & 4 != 0,
        bytes,
    };
    let opened = runtime().block_on(async {
        let (ours, theirs) = duplex(PIPE);
        let credentials = Credentials { user: "u".to_owned(), password: PASSWORD.to_owned() };
        let options = ConnectOptions { credentials: Some(credentials), ..ConnectOptions::default() };
        let uri = Uri::local();
        let open = Connection::over(ours, true, &uri, &options);
        tokio::select! {
            opened = open => opened,
            () = serve(theirs, script) => panic!("the daemon has no end of its own"),
        }
    });
    match opened {
        Ok(_) if script.method == SASL => {
            assert!(script.raw || script.mechanism == PLAIN && script.complete, "opened by {bytes:?}");
        }
        Ok(_) => {}
        Err(error) => {
            let mut shown = format!("{error:?}");
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                assert!(write!(shown, "{error}").is_ok());
                cause = error.source();
            }
            assert!(!shown.contains(PASSWORD), "{shown}");
        }
    }
}

async fn serve(io: DuplexStream, script: Script<'_>) {
    let mut wire = Framed::new(io, FrameCodec::default());
    while let Some(Ok(call)) = wire.next().await {
        let answer = pong(&call.header).unwrap_or_else(|| answer(&call, script));
        if wire.send(answer).await.is_err() {
            break;
        }
    }
    // The client ended the connection, and is about to say why.
    std::future::pending().await
}

fn answer(call: &Frame, script: Script<'_>) -> Frame {
    let header = &call.header;
    let is_sasl = is(header, procedure::AUTH_SASL_START) || is(header, procedure::AUTH_SASL_STEP);
    let payload = if is(header, procedure::AUTH_LIST) {
        encoded(&(1, i32::from(script.method)))
    } else if is(header, procedure::AUTH_SASL_INIT) {
        encoded(&MECHANISMS[script.mechanism].to_owned())
    } else if script.raw {
        Bytes::copy_from_slice(script.bytes)
    } else if is_sasl {
        let challenge = script.formed.then(|| challenge(call)).flatten();
        let data = challenge.as_deref().unwrap_or(script.bytes);
        encoded(&Message { complete: script.complete, data })
    } else {
        Bytes::from_static(&[0; 4])
    };
    reply(header, Status::Ok, payload)
}

fn encoded(value: &impl ToXdr) -> Bytes {
    match xdr::encode(value) {
        Ok(bytes) => bytes.freeze(),
        Err(error) => panic!("{error}"),
    }
}

/// A challenge of SCRAM that goes on from the client's nonce.
fn challenge(call: &Frame) -> Option<Vec<u8>> {
    if !is(&call.header, procedure::AUTH_SASL_START) {
        return None;
    }
    let mut from = Reader::new(&call.payload);
    let _mechanism_and_null = <(String, bool)>::read(&mut from).ok()?;
    let first = String::from_utf8(from.chars("SASL data", 1_000).ok()?).ok()?;
    let (_, nonce) = first.split_once("r=")?;
    Some(format!("r={nonce}x,s=c2FsdA==,i=2").into_bytes())
}

/// A message of SASL from the daemon.
struct Message<'a> {
    complete: bool,
    data: &'a [u8],
}

impl ToXdr for Message<'_> {
    fn write(&self, to: &mut Writer) -> xdr::Result<()> {
        (self.complete, false).write(to)?;
        to.chars("SASL data", self.data, self.data.len())
    }
}

/// The text of an `auth.conf`. What is found stands in it, and the password is not shown.
pub(crate) fn auth_conf(bytes: &[u8]) {
    let input = text(bytes);
    for host in ["h1", "default", ""] {
        let Some(found) = Credentials::in_auth_conf(&input, host) else { continue };
        let Credentials { user, password } = &found;
        assert!(input.contains(user.as_str()) && input.contains(password.as_str()), "{input:?}");
        assert!(!user.contains('\n') && !password.contains('\n'), "{input:?}");
        let other = Credentials { user: user.clone(), password: "another".to_owned() };
        assert_eq!(format!("{found:?}"), format!("{other:?}"));
    }
}

/// The text of a `libvirt.conf`. Comments have no effect on what is found in it.
pub(crate) fn libvirt_conf(bytes: &[u8]) {
    let input = text(bytes);
    let bare: Vec<_> = input.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for alias in [None, Some("h1"), Some("")] {
        let found = Uri::in_libvirt_conf(&input, alias);
        assert!(found.is_none_or(|uri| input.contains(uri) && !uri.contains(['"', '\'', '\n'])), "{input:?}");
        assert_eq!(found, Uri::in_libvirt_conf(&bare.join("\n"), alias));
    }
}
