//! A carrier to this machine: it executes agent commands locally, for the tests of this crate.
//!
//! One of its commands can fail, so that a test can make each command fail in turn.

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

/// How a command fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is lost before the command is sent.
    Unsent,
    /// The command is executed, and the connection is lost before the answer arrives.
    Unanswered,
    /// The command is executed, and no answer ever arrives.
    Hangs,
    /// The agent refuses the command.
    Refused,
}

/// All faults.
pub(crate) const FAULTS: [Fault; 4] = [Fault::Unsent, Fault::Unanswered, Fault::Hangs, Fault::Refused];

/// This machine as a guest.
#[derive(Default)]
pub(crate) struct LocalGuest {
    inner: Mutex<Inner>,
    /// Notified when a command hangs.
    pub(crate) hangs: Notify,
}

#[derive(Default)]
struct Inner {
    handles: HashMap<i64, File>,
    processes: HashMap<i64, Output>,
    last_number: i64,
    commands: Vec<String>,
    fault: Option<(usize, Fault)>,
    /// A part of a script, and the raw wait status that is reported for a shell that has run a script with this part.
    killed: Option<(&'static str, i32)>,
}

impl LocalGuest {
    /// Reports this raw wait status for each shell that has run a script with this part (9 is SIGKILL, 137 << 8 the
    /// exit code 137).
    pub(crate) fn killing_after(part: &'static str, status: i32) -> Self {
        let guest = LocalGuest::default();
        guest.inner.lock().unwrap().killed = Some((part, status));
        guest
    }

    /// Makes the command with this number, counted from 0, fail.
    pub(crate) fn with_fault(at: usize, fault: Fault) -> Self {
        let guest = LocalGuest::default();
        guest.inner.lock().unwrap().fault = Some((at, fault));
        guest
    }

    /// The commands sent so far, by name.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.inner.lock().unwrap().commands.clone()
    }

    /// The command that failed, if one has.
    pub(crate) fn went_wrong(&self) -> Option<String> {
        let inner = self.inner.lock().unwrap();
        inner.commands.get(inner.fault?.0).cloned()
    }

    /// The number of files that the agent has open.
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
                        // Simulates a limit on each write.
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

/// The end of a command whose connection is lost.
pub(crate) fn lost(sent: bool) -> Result<String> {
    let source = Some(LibvirtError { code: 38, domain: 7, level: 2, message: "gone".into() });
    let (host, operation) = ("h1".parse().unwrap(), "virDomainQemuAgentCommand");
    Err(ProtocolError::Transport(TransportError::ConnectionLost { host, operation, sent, source }))
}

impl Carrier for LocalGuest {
    async fn send(&self, _peer: Peer, command: &str, _deadline: Instant) -> Result<String> {
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

    fn command_max(&self, _peer: Peer) -> usize {
        4096
    }
}
