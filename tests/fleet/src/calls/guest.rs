//! Calls that go through to QEMU's monitor and to the guest agent.

use std::time::Duration;

use atp_rpc::RemoteDomain;
use atp_rpc::numbers::procedure;
use serde_json::{Map, Value};

use super::{Call, Entry, reply};
use crate::faults::VmFault;
use crate::guest::{Reply, Surroundings};
use crate::host::{Outcome, Stop};
use crate::{monitor, refusal};

pub(super) const CALLS: &[Entry] = &[
    Entry::new(procedure::MONITOR_COMMAND, monitor_command).writes(),
    Entry::new(procedure::AGENT_COMMAND, agent_command).writes(),
];

/// How long libvirt waits for another call on the same VM.
const LOCK: Duration = Duration::from_secs(30);

/// How long libvirt waits for an agent by default.
const AGENT: Duration = Duration::from_secs(5);

impl Call<'_> {
    /// Occupies the monitor of a VM.
    ///
    /// # Errors
    /// QEMU hangs.
    pub(super) fn monitor(&mut self, index: usize) -> Result<(), Stop> {
        let now = self.now;
        let vm = &mut self.state.vms[index];
        if vm.fault != Some(VmFault::Hung) {
            return Ok(());
        }
        if vm.occupied.monitor.is_some() && !self.occupies {
            return Err(Stop::Late(LOCK, refusal::locked("monitor=remoteDispatchDomain")));
        }
        vm.occupied.monitor.get_or_insert(now);
        Err(Stop::Hangs)
    }

    /// Occupies the agent of a VM.
    ///
    /// # Errors
    /// The agent, or QEMU with it, does not answer.
    fn agent(&mut self, index: usize, timeout: i32) -> Result<(), Stop> {
        let vm = &mut self.state.vms[index];
        match vm.fault {
            Some(VmFault::Hung) if vm.occupied.agent && !self.occupies => {
                Err(Stop::Late(LOCK, refusal::locked("agent=remoteDispatchDomainQemuAgentCommand")))
            }
            Some(VmFault::Hung) => {
                vm.occupied.agent = true;
                Err(Stop::Hangs)
            }
            Some(VmFault::AgentAbsent) => {
                Err(refusal::agent_unresponsive("QEMU guest agent is not connected").into())
            }
            Some(VmFault::AgentSilent) => {
                let error = refusal::agent_unresponsive("Guest agent not available for now");
                match timeout {
                    -2 => Err(Stop::Hangs),
                    seconds => {
                        let wait = u64::try_from(seconds).map_or(AGENT, Duration::from_secs);
                        Err(Stop::Late(wait, error))
                    }
                }
            }
            _ => Ok(()),
        }
    }
}

/// The parts of a command: its name, its arguments, its id.
fn parse(text: &str) -> Result<(String, Map<String, Value>, Value), Stop> {
    let parsed = serde_json::from_str::<Map<String, Value>>(text);
    let mut command = parsed.map_err(|error| refusal::no_command(&error.to_string()))?;
    let Some(Value::String(name)) = command.remove("execute") else {
        return Err(refusal::no_command("the command has no name").into());
    };
    let arguments = match command.remove("arguments") {
        Some(Value::Object(arguments)) => arguments,
        _ => Map::new(),
    };
    Ok((name, arguments, command.remove("id").unwrap_or_else(|| "libvirt-1".into())))
}

fn monitor_command(call: &mut Call<'_>) -> Outcome {
    /// The command is one of the human monitor.
    const HMP: u32 = 1;
    let (domain, text, flags) = call.arguments::<(RemoteDomain, String, u32)>()?;
    let index = call.index(&domain)?;
    call.state.vms[index].active()?;
    let (name, id) = if flags & HMP == 0 {
        let (name, _, id) = parse(&text)?;
        (name, id)
    } else {
        ("human-monitor-command".to_owned(), Value::Null)
    };
    call.monitor(index)?;
    let now = call.now;
    let vm = call.count_of(index);
    let done = monitor::command(vm, &name, &id, now);
    if done.executed {
        vm.counts.monitor.add(&name);
    }
    call.state.emit(index, done.events);
    if flags & HMP == 0 { reply(&done.reply.to_string()) } else { reply(&"") }
}

fn agent_command(call: &mut Call<'_>) -> Outcome {
    let (domain, text, timeout, _flags) = call.arguments::<(RemoteDomain, String, i32, u32)>()?;
    let index = call.index(&domain)?;
    call.state.vms[index].active()?;
    let (name, arguments, _) = parse(&text)?;
    call.agent(index, timeout)?;
    let (host, now) = (call.host, call.now);
    let vm = call.count_of(index);
    let (vm_name, started) = (vm.name.clone(), vm.started);
    let mut counts = std::mem::take(&mut vm.counts);
    let surroundings = Surroundings {
        host: &host.name,
        vm: &vm_name,
        started,
        now,
        programs: host.options.programs.as_deref(),
    };
    let answer = vm.guest().command(&name, &arguments, &surroundings, &mut counts);
    vm.counts = counts;
    match answer {
        Ok(Reply::Return(value)) => reply(&Some(serde_json::json!({"return": value}).to_string())),
        Ok(Reply::Ends { restarts }) => {
            let events = if restarts { vm.restart(now) } else { vm.stop(true) };
            call.state.emit(index, events.unwrap_or_default());
            reply(&None::<String>)
        }
        Err(description) => Err(refusal::agent_command(&name, &description).into()),
    }
}
