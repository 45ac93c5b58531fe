//! QEMU's monitor of a simulated VM (QMP).

use serde_json::{Value, json};

use crate::event::EventKind;
use crate::vm::{MEMORY_KIB, Vm, state};

/// The reported version of QEMU.
const VERSION: (u32, u32, u32) = (7, 2, 0);

const COMMANDS: [&str; 18] = [
    "cont",
    "human-monitor-command",
    "inject-nmi",
    "input-send-event",
    "query-block",
    "query-chardev",
    "query-commands",
    "query-cpus-fast",
    "query-kvm",
    "query-memory-size-summary",
    "query-name",
    "query-status",
    "query-uuid",
    "query-version",
    "quit",
    "send-key",
    "stop",
    "system_powerdown",
];

/// The result of a command.
pub(crate) struct Done {
    /// The reply, an error reply included: libvirt hands on either.
    pub(crate) reply: Value,
    pub(crate) events: Vec<EventKind>,
    /// Whether it was executed.
    pub(crate) executed: bool,
}

/// Carries out a command on a VM that runs. `id` goes into the reply.
pub(crate) fn command(vm: &mut Vm, name: &str, id: &Value, now: tokio::time::Instant) -> Done {
    // All of them are allowed in every state of a VM that runs, or change nothing.
    let events = match name {
        "stop" => vm.suspend(),
        "cont" => vm.resume(),
        "system_reset" => vm.restart(now),
        "system_powerdown" => vm.stop(true).map(|mut events| {
            events.insert(0, EventKind::monitor("POWERDOWN", ""));
            events
        }),
        "quit" => vm.stop(false),
        _ => Ok(Vec::new()),
    };
    let value = match name {
        "stop" | "cont" | "system_reset" | "system_powerdown" | "quit" | "inject-nmi"
        | "input-send-event" | "send-key" => {
            json!({})
        }
        "query-status" => {
            let running = vm.state.number == state::RUNNING;
            json!({"running": running, "singlestep": false, "status": if running { "running" } else { "paused" }})
        }
        "query-version" => {
            let (major, minor, micro) = VERSION;
            json!({"qemu": {"major": major, "minor": minor, "micro": micro}, "package": "simulated"})
        }
        "query-name" => json!({"name": vm.name}),
        "query-uuid" => json!({"UUID": vm.uuid.to_string()}),
        "query-kvm" => json!({"enabled": true, "present": true}),
        "query-block" | "query-chardev" | "query-cpus-fast" => json!([]),
        "query-memory-size-summary" => json!({"base-memory": MEMORY_KIB * 1_024, "plugged-memory": 0}),
        "query-commands" => {
            let names = COMMANDS.iter().chain(&["system_reset"]).map(|name| json!({"name": name}));
            Value::Array(names.collect())
        }
        "human-monitor-command" => json!(""),
        _ => {
            let desc = format!("The command {name} has not been found");
            let reply = json!({"id": id, "error": {"class": "CommandNotFound", "desc": desc}});
            return Done { reply, events: Vec::new(), executed: false };
        }
    };
    let reply = json!({"return": value, "id": id});
    Done { reply, events: events.unwrap_or_default(), executed: true }
}
