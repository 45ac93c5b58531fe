//! A simulated guest: its agent's commands, its processes and its files.

mod files;
mod programs;
mod scripts;

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::counts::VmCounts;
use files::Files;
pub use programs::{Execution, Exit, Programs};

/// The reported version of the agent.
const VERSION: &str = "9.0.0";

/// The maximum number of processes whose end was not reported.
const PROCESSES: usize = 4_096;

/// The commands of the agent.
const COMMANDS: [&str; 24] = [
    "guest-exec",
    "guest-exec-status",
    "guest-file-close",
    "guest-file-flush",
    "guest-file-open",
    "guest-file-read",
    "guest-file-seek",
    "guest-file-write",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-status",
    "guest-fsfreeze-thaw",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-osinfo",
    "guest-get-time",
    "guest-get-timezone",
    "guest-get-users",
    "guest-get-vcpus",
    "guest-info",
    "guest-network-get-interfaces",
    "guest-ping",
    "guest-shutdown",
    "guest-sync",
    "guest-sync-delimited",
];

/// Commands that a guest with frozen file systems takes.
const WHILE_FROZEN: [&str; 6] = [
    "guest-fsfreeze-status",
    "guest-fsfreeze-thaw",
    "guest-info",
    "guest-ping",
    "guest-sync",
    "guest-sync-delimited",
];

/// What runs in a VM.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guest {
    files: Files,
    processes: HashMap<i64, (Exit, Instant)>,
    last_pid: i64,
    frozen: bool,
}

/// The environment of the guest, for one command.
pub(crate) struct Surroundings<'a> {
    pub(crate) host: &'a str,
    pub(crate) vm: &'a str,
    /// When the guest was started.
    pub(crate) started: Instant,
    pub(crate) now: Instant,
    pub(crate) programs: Option<&'a Programs>,
}

/// The result of a command.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    /// An answer.
    Return(Value),
    /// The guest ends, and does not answer: it is shut down, or restarted.
    Ends {
        /// Whether it starts again.
        restarts: bool,
    },
}

/// The description of the agent's error.
type Refused = String;

impl Guest {
    /// Ends what runs. Files stay.
    pub(crate) fn stop(&mut self) {
        self.processes.clear();
        self.files.close_all();
        self.frozen = false;
    }

    /// Carries out a command of the agent, and counts it if it did.
    pub(crate) fn command(
        &mut self,
        name: &str,
        arguments: &Map<String, Value>,
        surroundings: &Surroundings<'_>,
        counts: &mut VmCounts,
    ) -> Result<Reply, Refused> {
        if !COMMANDS.contains(&name) {
            return Err(format!("The command {name} has not been found"));
        }
        if self.frozen && !WHILE_FROZEN.contains(&name) {
            return Err(format!("Command {name} has been disabled: the agent is in frozen state"));
        }
        let reply = self.carry_out(name, &Arguments(arguments), surroundings, counts)?;
        counts.agent.add(name);
        Ok(reply)
    }

    fn carry_out(
        &mut self,
        name: &str,
        arguments: &Arguments<'_>,
        surroundings: &Surroundings<'_>,
        counts: &mut VmCounts,
    ) -> Result<Reply, Refused> {
        let value = match name {
            "guest-sync" | "guest-sync-delimited" => json!(arguments.number("id")?),
            "guest-ping" | "guest-file-flush" => {
                if name == "guest-file-flush" {
                    self.files.is_open(arguments.number("handle")?)?;
                }
                json!({})
            }
            "guest-info" => {
                let command = |name| json!({"name": name, "enabled": true, "success-response": true});
                let commands: Vec<Value> = COMMANDS.iter().map(command).collect();
                json!({"version": VERSION, "supported_commands": commands})
            }
            "guest-exec" => self.exec(arguments, surroundings, counts)?,
            "guest-exec-status" => self.exec_status(arguments.number("pid")?, surroundings.now)?,
            "guest-file-open" => self.open(
                arguments.text("path")?,
                arguments.optional_text("mode")?.unwrap_or("r"),
                surroundings,
            )?,
            "guest-file-read" => {
                let count = arguments.optional_number("count")?.unwrap_or(4_096);
                let Ok(count) = usize::try_from(count) else {
                    return Err(format!("value '{count}' is invalid for argument count"));
                };
                let (bytes, eof) = self.files.read(arguments.number("handle")?, count)?;
                json!({"count": bytes.len(), "buf-b64": BASE64.encode(bytes), "eof": eof})
            }
            "guest-file-write" => {
                let bytes = arguments.bytes("buf-b64")?.ok_or_else(|| missing("buf-b64"))?;
                self.files.write(arguments.number("handle")?, &bytes)?;
                json!({"count": bytes.len(), "eof": false})
            }
            "guest-file-seek" => {
                let handle = arguments.number("handle")?;
                let whence = arguments.whence()?;
                let (position, eof) = self.files.seek(handle, arguments.number("offset")?, whence)?;
                json!({"position": position, "eof": eof})
            }
            "guest-file-close" => {
                self.files.close(arguments.number("handle")?)?;
                json!({})
            }
            "guest-fsfreeze-freeze" => {
                self.frozen = true;
                json!(1)
            }
            "guest-fsfreeze-thaw" => json!(i32::from(std::mem::take(&mut self.frozen))),
            "guest-fsfreeze-status" => json!(if self.frozen { "frozen" } else { "thawed" }),
            "guest-shutdown" => {
                let restarts = arguments.optional_text("mode")? == Some("reboot");
                return Ok(Reply::Ends { restarts });
            }
            _ => facts(name, surroundings),
        };
        Ok(Reply::Return(value))
    }

    fn exec(
        &mut self,
        arguments: &Arguments<'_>,
        surroundings: &Surroundings<'_>,
        counts: &mut VmCounts,
    ) -> Result<Value, Refused> {
        let path = arguments.text("path")?;
        let args = arguments.texts("arg")?;
        let stdin = arguments.bytes("input-data")?.unwrap_or_default();
        if self.processes.len() >= PROCESSES {
            return Err(not_started(path, "Resource temporarily unavailable"));
        }
        let Surroundings { host, vm, programs, now, .. } = *surroundings;
        let execution = Execution { host, vm, path, args: &args, stdin: &stdin };
        let exit = programs.and_then(|programs| programs.run(&execution));
        let exit = exit.or_else(|| scripts::run(path, &args, &mut self.files));
        let exit = exit.or_else(|| programs::built_in(&execution, &self.files));
        let Some(mut exit) = exit else { return Err(not_started(path, "No such file or directory")) };
        if !arguments.captures() {
            exit = Exit { stdout: Vec::new(), stderr: Vec::new(), ..exit };
        }
        counts
            .programs
            .add(&std::iter::once(path).chain(args.iter().map(String::as_str)).collect::<Vec<_>>().join(" "));
        self.last_pid += 1;
        let ends = now + exit.after;
        self.processes.insert(self.last_pid, (exit, ends));
        Ok(json!({"pid": self.last_pid}))
    }

    /// How a process has ended. After the agent has reported the end, it forgets the process.
    fn exec_status(&mut self, pid: i64, now: Instant) -> Result<Value, Refused> {
        let invalid = || "Invalid parameter 'pid'".to_owned();
        let (_, ends) = self.processes.get(&pid).ok_or_else(invalid)?;
        if *ends > now {
            return Ok(json!({"exited": false}));
        }
        let (exit, _) = self.processes.remove(&pid).ok_or_else(invalid)?;
        let mut status =
            Map::from_iter([("exited".to_owned(), json!(true)), ("exitcode".to_owned(), json!(exit.code))]);
        for (name, bytes) in [("out-data", exit.stdout), ("err-data", exit.stderr)] {
            if !bytes.is_empty() {
                status.insert(name.to_owned(), json!(BASE64.encode(bytes)));
            }
        }
        Ok(Value::Object(status))
    }

    fn open(&mut self, path: &str, mode: &str, surroundings: &Surroundings<'_>) -> Result<Value, Refused> {
        if path == "/proc/uptime" {
            let up = uptime(surroundings).as_secs_f64();
            self.files.put(path, format!("{up:.2} {up:.2}\n").into_bytes());
        }
        Ok(json!(self.files.open(path, mode)?))
    }
}

/// Facts about the guest.
fn facts(name: &str, surroundings: &Surroundings<'_>) -> Value {
    match name {
        "guest-get-host-name" => json!({"host-name": surroundings.vm}),
        "guest-get-osinfo" => json!({
            "id": "simulated", "name": "Simulated", "pretty-name": "Simulated guest 1", "version": "1",
            "version-id": "1", "machine": "x86_64", "kernel-release": "6.1.0", "kernel-version": "#1",
        }),
        "guest-get-time" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            json!(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
        }
        "guest-get-timezone" => json!({"zone": "UTC", "offset": 0}),
        "guest-get-vcpus" => json!([{"logical-id": 0, "online": true, "can-offline": false}]),
        "guest-network-get-interfaces" => json!([{
            "name": "lo", "hardware-address": "00:00:00:00:00:00",
            "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "127.0.0.1", "prefix": 8}],
        }]),
        // No file systems, no users.
        _ => json!([]),
    }
}

fn uptime(surroundings: &Surroundings<'_>) -> Duration {
    surroundings.now.saturating_duration_since(surroundings.started)
}

fn not_started(path: &str, why: &str) -> Refused {
    let inner = format!("Failed to execute child process \u{201c}{path}\u{201d} ({why})");
    format!("Guest agent command failed, error was '{inner}'")
}

fn missing(name: &str) -> Refused {
    format!("Parameter '{name}' is missing")
}

fn wrong_type(name: &str, expected: &str) -> Refused {
    format!("Invalid parameter type for '{name}', expected: {expected}")
}

/// The arguments of a command.
struct Arguments<'a>(&'a Map<String, Value>);

impl<'a> Arguments<'a> {
    fn optional_text(&self, name: &str) -> Result<Option<&'a str>, Refused> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| wrong_type(name, "string"));
        self.0.get(name).map(text).transpose()
    }

    fn text(&self, name: &str) -> Result<&'a str, Refused> {
        self.optional_text(name)?.ok_or_else(|| missing(name))
    }

    fn optional_number(&self, name: &str) -> Result<Option<i64>, Refused> {
        let number = |value: &Value| value.as_i64().ok_or_else(|| wrong_type(name, "integer"));
        self.0.get(name).map(number).transpose()
    }

    fn number(&self, name: &str) -> Result<i64, Refused> {
        self.optional_number(name)?.ok_or_else(|| missing(name))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, Refused> {
        let Some(value) = self.0.get(name) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| wrong_type(name, "array"))?;
        let text =
            |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name, "string"));
        list.iter().map(text).collect()
    }

    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Refused> {
        let decode = |text| {
            BASE64.decode(text).map_err(|_| format!("failed to decode '{name}': Base64 data is invalid"))
        };
        self.optional_text(name)?.map(decode).transpose()
    }

    /// Whether `guest-exec` is to keep what the program prints: a flag, or since QEMU 8.1 a word.
    fn captures(&self) -> bool {
        match self.0.get("capture-output") {
            Some(Value::Bool(captures)) => *captures,
            Some(Value::String(word)) => word != "none",
            _ => false,
        }
    }

    /// A number, or since QEMU 2.10 a word.
    fn whence(&self) -> Result<i64, Refused> {
        match self.0.get("whence").and_then(Value::as_str) {
            Some("set") => Ok(0),
            Some("cur") => Ok(1),
            Some("end") => Ok(2),
            Some(other) => Err(format!("Invalid parameter '{other}'")),
            None => self.number("whence"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bed {
        guest: Guest,
        counts: VmCounts,
        now: Instant,
        started: Instant,
    }

    impl Bed {
        fn new() -> Self {
            let now = Instant::now();
            Bed { guest: Guest::default(), counts: VmCounts::default(), now, started: now }
        }

        fn ask(&mut self, name: &str, arguments: Value) -> Result<Value, String> {
            let surroundings =
                Surroundings { host: "h1", vm: "vm1", started: self.started, now: self.now, programs: None };
            let arguments = arguments.as_object().unwrap();
            match self.guest.command(name, arguments, &surroundings, &mut self.counts)? {
                Reply::Return(value) => Ok(value),
                Reply::Ends { .. } => panic!("the guest ends"),
            }
        }
    }

    #[test]
    fn a_program_ends_after_its_time_and_is_told_once() {
        let mut bed = Bed::new();
        let line = json!({"path": "/bin/sh", "arg": ["-c", "sleep 2; echo hi"], "capture-output": true});
        assert_eq!(bed.ask("guest-exec", line), Ok(json!({"pid": 1})));
        assert_eq!(bed.ask("guest-exec-status", json!({"pid": 1})), Ok(json!({"exited": false})));
        bed.now += Duration::from_secs(2);
        let ended = json!({"exited": true, "exitcode": 0, "out-data": "aGkK"});
        assert_eq!(bed.ask("guest-exec-status", json!({"pid": 1})), Ok(ended));
        assert!(bed.ask("guest-exec-status", json!({"pid": 1})).unwrap_err().contains("'pid'"));
        assert_eq!(bed.counts.programs.of("/bin/sh -c sleep 2; echo hi"), 1);
        assert_eq!(bed.counts.agent.of("guest-exec-status"), 2);
    }

    #[test]
    fn a_program_that_is_not_there_was_not_executed() {
        let mut bed = Bed::new();
        let error = bed.ask("guest-exec", json!({"path": "/nope"})).unwrap_err();
        assert!(error.contains("No such file or directory"), "{error}");
        assert_eq!((bed.counts.programs.total(), bed.counts.agent.total()), (0, 0));
    }

    #[test]
    fn a_file_goes_in_and_out() {
        let mut bed = Bed::new();
        let handle = bed.ask("guest-file-open", json!({"path": "/f", "mode": "a"})).unwrap();
        bed.ask("guest-file-write", json!({"handle": handle, "buf-b64": "YWJj"})).unwrap();
        bed.ask("guest-file-close", json!({"handle": handle})).unwrap();
        let handle = bed.ask("guest-file-open", json!({"path": "/f"})).unwrap();
        bed.ask("guest-file-seek", json!({"handle": handle, "offset": 1, "whence": "set"})).unwrap();
        let read = bed.ask("guest-file-read", json!({"handle": handle, "count": 10}));
        assert_eq!(read, Ok(json!({"count": 2, "buf-b64": "YmM=", "eof": true})));
    }

    #[test]
    fn a_frozen_guest_refuses_most_commands() {
        let mut bed = Bed::new();
        bed.ask("guest-fsfreeze-freeze", json!({})).unwrap();
        assert!(bed.ask("guest-get-time", json!({})).unwrap_err().contains("frozen state"));
        bed.ask("guest-ping", json!({})).unwrap();
        bed.ask("guest-fsfreeze-thaw", json!({})).unwrap();
        bed.ask("guest-get-time", json!({})).unwrap();
    }

    #[test]
    fn arguments_are_checked() {
        let mut bed = Bed::new();
        for (command, arguments) in [
            ("guest-exec", json!({})),
            ("guest-exec", json!({"path": 1})),
            ("guest-exec", json!({"path": "true", "arg": [1]})),
            ("guest-file-read", json!({"handle": 9})),
            ("guest-file-write", json!({"handle": 9, "buf-b64": "?"})),
            ("guest-nope", json!({})),
        ] {
            assert!(bed.ask(command, arguments.clone()).is_err(), "{command} {arguments}");
        }
    }
}
