//! A guest that is this machine: a carrier that carries out agent commands here, for the tests of this crate.
//!
//! One of its commands can be made to go wrong, so that a test can let each of them do so in turn.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;

use atp_transport::{LibvirtError, TransportError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::peer::Peer;

/// What becomes of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is lost before it is sent.
    Unsent,
    /// It is carried out, and the connection is lost before the answer has come.
    Unanswered,
    /// It is carried out, and no answer ever comes.
    Hangs,
    /// The agent refuses it.
    Refused,
}

/// All that can go wrong with a command.
pub(crate) const FAULTS: [Fault; 4] = [Fault::Unsent, Fault::Unanswered, Fault::Hangs, Fault::Refused];

/// This machine as a guest.
#[derive(Default)]
pub(crate) struct LocalGuest {
    inner: Mutex<Inner>,
    /// Told when a command hangs.
    pub(crate) hangs: Notify,
}

#[derive(Default)]
struct Inner {
    handles: HashMap<i64, File>,
    processes: HashMap<i64, Output>,
    last_number: i64,
    commands: Vec<String>,
    fault: Option<(usize, Fault)>,
    /// A part of a script, and the raw wait status that a shell which has run such a script seems to have ended with.
    killed: Option<(&'static str, i32)>,
}

impl LocalGuest {
    /// Lets each shell that has run a script with this part seem to have ended with that raw wait status (9 is SIGKILL,
    /// 137 << 8 the exit code 137).
    pub(crate) fn killing_after(part: &'static str, status: i32) -> Self {
        let guest = LocalGuest::default();
        guest.inner.lock().unwrap().killed = Some((part, status));
        guest
    }

    /// Lets the command of this number, counted from 0, go wrong.
    pub(crate) fn with_fault(at: usize, fault: Fault) -> Self {
        let guest = LocalGuest::default();
        guest.inner.lock().unwrap().fault = Some((at, fault));
        guest
    }

    /// The commands sent so far, by name.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.inner.lock().unwrap().commands.clone()
    }

    /// The command that went wrong, if one has.
    pub(crate) fn went_wrong(&self) -> Option<String> {
        let inner = self.inner.lock().unwrap();
        inner.commands.get(inner.fault?.0).cloned()
    }

    /// How many files the agent has open.
    pub(crate) fn open_files(&self) -> usize {
        self.inner.lock().unwrap().handles.len()
    }
}

impl Inner {
    fn number(&mut self) -> i64 {
        self.last_number += 1;
        self.last_number
    }

    fn execute(&mut self, command: &Value) -> std::result::Result<Value, String> {
        let arguments = &command["arguments"];
        let text = |name: &str| arguments[name].as_str().unwrap_or_default();
        let failed = |error: std::io::Error| error.to_string();
        match command["execute"].as_str().unwrap_or_default() {
            "guest-exec" => {
                let args = arguments["arg"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let mut output =
                    Command::new(text("path")).args(args).stdin(Stdio::null()).output().map_err(failed)?;
                if let Some((part, status)) = self.killed
                    && arguments["arg"].to_string().contains(part)
                {
                    output.status = ExitStatus::from_raw(status);
                }
                let pid = self.number();
                self.processes.insert(pid, output);
                Ok(json!({ "pid": pid }))
            }
            "guest-exec-status" => {
                let pid = arguments["pid"].as_i64().unwrap_or_default();
                let output = self.processes.remove(&pid).ok_or("Invalid parameter 'pid'")?;
                let mut status = json!({
                    "exited": true,
                    "out-data": BASE64.encode(output.stdout),
                    "err-data": BASE64.encode(output.stderr),
                });
                match (output.status.code(), output.status.signal()) {
                    (Some(code), _) => status["exitcode"] = json!(code),
                    (None, signal) => status["signal"] = json!(signal),
                }
                Ok(status)
            }
            "guest-file-open" => {
                let mut options = File::options();
                match text("mode") {
                    "a" => options.append(true).create(true),
                    _ => options.read(true),
                };
                let file = options.open(text("path")).map_err(failed)?;
                let handle = self.number();
                self.handles.insert(handle, file);
                Ok(json!(handle))
            }
            name => {
                let handle = arguments["handle"].as_i64().unwrap_or_default();
                let file = self.handles.get_mut(&handle).ok_or("handle not found")?;
                match name {
                    "guest-file-close" => {
                        self.handles.remove(&handle);
                        Ok(json!({}))
                    }
                    "guest-file-seek" => {
                        let offset = arguments["offset"].as_u64().unwrap_or_default();
                        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                        Ok(json!({"eof": false, "position": offset}))
                    }
                    "guest-file-read" => {
                        let count = arguments["count"].as_u64().unwrap_or_default();
                        let mut bytes = Vec::new();
                        file.take(count).read_to_end(&mut bytes).map_err(failed)?;
                        let eof = (bytes.len() as u64) < count;
                        Ok(json!({"count": bytes.len(), "eof": eof, "buf-b64": BASE64.encode(bytes)}))
                    }
                    "guest-file-write" => {
                        let bytes = BASE64.decode(text("buf-b64")).map_err(|error| error.to_string())?;
                        // As if there were room for so much at a time only.
                        let count = bytes.len().min(1500);
                        file.write_all(&bytes[..count]).map_err(failed)?;
                        Ok(json!({"count": count, "eof": false}))
                    }
                    _ => Err(format!("The command {name} has not been found")),
                }
            }
        }
    }
}

impl Carrier for LocalGuest {
    async fn send(&self, _channel: Peer, command: &str, _deadline: Instant) -> Result<String> {
        let lost = |sent| {
            let source = Some(LibvirtError { code: 38, domain: 7, level: 2, message: "gone".into() });
            let (host, operation) = ("h1".parse().unwrap(), "virDomainQemuAgentCommand");
            Err(ProtocolError::Transport(TransportError::ConnectionLost { host, operation, sent, source }))
        };
        let command: Value = serde_json::from_str(command).unwrap();
        let (fault, result) = {
            let mut inner = self.inner.lock().unwrap();
            let number = inner.commands.len();
            inner.commands.push(command["execute"].as_str().unwrap_or_default().to_owned());
            let fault = inner.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
            let result = match fault {
                Some(Fault::Unsent) => return lost(false),
                Some(Fault::Refused) => Err("not today".to_owned()),
                _ => inner.execute(&command),
            };
            (fault, result)
        };
        match fault {
            Some(Fault::Unanswered) => return lost(true),
            Some(Fault::Hangs) => {
                self.hangs.notify_one();
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let reply = match result {
            Ok(value) => json!({ "return": value }),
            Err(desc) => json!({"error": {"class": "GenericError", "desc": desc}}),
        };
        Ok(reply.to_string())
    }

    fn command_max(&self, _channel: Peer) -> usize {
        4096
    }
}
