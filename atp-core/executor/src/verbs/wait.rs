//! `wait`: until something is true of a VM.

use std::sync::atomic::{AtomicBool, Ordering};

use atp_api::{Condition, Data, ExecSpec, OutcomeError, Status, WaitReport};
use atp_protocol::{LibvirtCarrier, ProtocolError, RefusalKind, exec, guest};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, ErrorKind, Hint};
use tokio::time::{self, Instant};

use super::completion::{Completion, effect_of};
use super::exec::{self as exec_verb, ExecTemplate};
use super::facts::{VerbFacts, is_reached, what_helps};
use super::job::Job;
use super::relocation::{Relocation, has_left, is_excluded, relocation, runs_on_listed};
use super::scenario::fields::{Field, STATES, Shape, field};
use super::scenario::node::{Node, Value};
use super::scenario::read::{Keys, Names, Result, choice, integer, state};
use super::scenario::template::Values;
use super::scenario::{Matcher, ScenarioError};
use crate::run::PartialResult;

/// What one look saw, and what it did to the VM: a program that is run in the guest may do anything there.
struct Look {
    seen: Seen,
    effect: Effect,
}

enum Seen {
    True,
    /// Not yet; this is the state instead, and what helps.
    NotYet(String, Hint),
    /// It is shut off here, and may be elsewhere. This is the state here.
    Gone(String),
    /// It was found on another host, where the next look is.
    Elsewhere,
}

/// Not yet, for a reason that more time may remove.
fn not_yet(seen: String) -> Seen {
    Seen::NotYet(seen, Hint::GIVE_TIME)
}

pub(super) static LOOK: VerbFacts = VerbFacts { ends_on_stop: true, ..VerbFacts::look("wait") };

/// A program that is run in the guest may do anything there.
pub(super) static RUN: VerbFacts = VerbFacts { only_looks: false, ..LOOK };

pub(super) fn facts(condition: &Condition) -> &'static VerbFacts {
    match condition {
        Condition::Agent | Condition::State(_) | Condition::Port { .. } => &LOOK,
        Condition::Exec(_) => &RUN,
    }
}

/// Looks, with growing pauses, until the condition is met or the deadline has passed. Each look acquires a connection
/// of its own, so that none is held through a long wait. An error that may pass counts as a look that found the
/// condition not met.
pub(super) async fn perform(job: &Job, domain: &DomainInfo, condition: &Condition) -> Completion {
    let mut place = job.clone();
    let completion = until_true(&mut place, domain, condition).await;
    place.ended(completion)
}

/// As [`perform`]. `job` is where the VM is: if it moves, that changes.
async fn until_true(job: &mut Job, domain: &DomainInfo, condition: &Condition) -> Completion {
    let (deadline, policy) = (job.deadline(), job.policy.clone());
    let mut pause = policy.poll_initial;
    let (mut last, mut hint) = (String::from("it was not checked"), Hint::GIVE_TIME);
    let mut looks = 0;
    let mut effect = Effect::None;
    loop {
        looks += 1;
        let is_sent = AtomicBool::new(false);
        let looked = look(job, domain, condition, &is_sent).await;
        effect = combined(effect, done_by(&looked, is_sent.load(Ordering::Acquire)));
        let awaits_off = *condition == Condition::State(DomainState::ShutOff);
        let seen = match looked.map(|look| look.seen) {
            Ok(Seen::Gone(what)) => match moved(job, domain, condition, &what).await {
                Some(seen) => Ok(seen),
                None if awaits_off => Ok(Seen::True),
                None => Ok(not_yet(what)),
            },
            // A VM without a definition is gone when it is shut off, and when it was migrated.
            Err(error) if error.transport_kind() == Some(ErrorKind::VmNotFound) => {
                match moved(job, domain, condition, "it is not there any more").await {
                    Some(seen) => Ok(seen),
                    None if awaits_off => Ok(Seen::True),
                    None => Err(error),
                }
            }
            seen => seen,
        };
        match seen {
            // Looks that were moved on are not held up; each has found the VM on another host.
            Ok(Seen::Elsewhere) if Instant::now() < deadline => continue,
            Ok(Seen::Elsewhere) => last = format!("it has moved to {}", job.target.host),
            Ok(Seen::Gone(seen)) => last = seen,
            Ok(Seen::True) => return Completion::ok(effect, Data::Waited(WaitReport { looks })),
            Ok(Seen::NotYet(seen, what_helps)) => (last, hint) = (seen, what_helps),
            // The deadline cut this look off: what the look before saw says more.
            Err(_) if Instant::now() >= deadline && looks > 1 => {}
            // The last program ran into the deadline.
            Err(error @ ProtocolError::StillRunning { .. }) => {
                let last = OutcomeError::in_full(&error);
                return too_late(job, domain, condition, effect, &last, error.hint());
            }
            Err(error) if may_pass(&error) => (last, hint) = (OutcomeError::in_full(&error), error.hint()),
            Err(error) => return Completion { effect, ..job.failure(&error) },
        }
        let words = Some(format!("waited for {condition}: {last}"));
        job.attempt.if_cut_off(PartialResult { words, data: None });
        let now = Instant::now();
        if now >= deadline {
            return too_late(job, domain, condition, effect, &last, hint);
        }
        time::sleep_until(deadline.min(now + pause)).await;
        pause = (pause * 2).min(policy.poll_max);
    }
}

/// Looks for a VM that is gone from its host, where it is as `what` says. None if nothing says that it is elsewhere.
async fn moved(job: &mut Job, domain: &DomainInfo, condition: &Condition, what: &str) -> Option<Seen> {
    let is_work = matches!(condition, Condition::Exec(_));
    match relocation(job, domain).await {
        Relocation::To(host) if is_work && is_excluded(job, domain, &host).await => {
            Some(not_yet(format!("{what}, and it runs on {host}, which the selection excludes")))
        }
        Relocation::To(host) => {
            *job = job.at(host);
            Some(Seen::Elsewhere)
        }
        Relocation::Lost(why) => Some(not_yet(format!("it {why}"))),
        Relocation::Here(now) => {
            let host = runs_on_listed(job, &now.filter(|now| now.state == DomainState::ShutOff)?).await?;
            Some(not_yet(format!("{what}, and it runs on {host}")))
        }
    }
}

/// What a look did to the VM. The attempt's mark is set by any look, so each look keeps its own: `is_sent`.
fn done_by(looked: &Result<Look, ProtocolError>, is_sent: bool) -> Effect {
    match looked {
        Ok(look) => look.effect,
        Err(error) => effect_of(error, is_sent),
    }
}

/// The effect of two looks together. Once a program has run, something may have happened.
fn combined(one: Effect, other: Effect) -> Effect {
    match (one, other) {
        (Effect::Done, _) | (_, Effect::Done) => Effect::Done,
        (Effect::Unknown, _) | (_, Effect::Unknown) => Effect::Unknown,
        (Effect::None, Effect::None) => Effect::None,
    }
}

/// Looks once. Sets `is_sent` before a program is sent to the guest.
async fn look(
    job: &Job,
    domain: &DomainInfo,
    condition: &Condition,
    is_sent: &AtomicBool,
) -> Result<Look, ProtocolError> {
    let deadline = job.deadline();
    let looked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        let now = connection.domain_info(domain.uuid).await?;
        let state = now.state;
        let looked = |seen| Ok::<_, ProtocolError>(Look { seen, effect: Effect::None });
        if has_left(&now) || (state == DomainState::ShutOff && job.has_other_places(domain)) {
            return looked(Seen::Gone(format!("it is {}", now.state_with_reason())));
        }
        let wanted = match condition {
            &Condition::State(goal) if is_reached(goal, state) => return looked(Seen::True),
            Condition::State(_) => {
                return looked(not_yet(format!("it is {}", now.state_with_reason())));
            }
            Condition::Agent | Condition::Exec(_) | Condition::Port { .. } if !state.is_running() => {
                let seen = format!("it is {}", now.state_with_reason());
                return looked(Seen::NotYet(seen, what_helps(&now, ErrorKind::VmNotRunning)));
            }
            Condition::Agent | Condition::Port { .. } => None,
            Condition::Exec(spec) => Some(spec),
        };
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        if let &Condition::Port { port } = condition {
            return looked(match listens(&exec::run(&carrier, &ports(), deadline).await?.stdout, port) {
                true => Seen::True,
                false => not_yet("no process listens on it".to_owned()),
            });
        }
        let Some(spec) = wanted else {
            guest::ping(&carrier, deadline).await?;
            return looked(Seen::True);
        };
        job.attempt.mark_sent().await;
        is_sent.store(true, Ordering::Release);
        let output = match exec::run(&carrier, spec, deadline).await {
            Ok(output) => output,
            Err(error) => return Err(job.explained(&connection, domain, error).await),
        };
        let seen = match (output.exit_code, output.signal) {
            (Some(0), None) => Seen::True,
            (_, Some(signal)) => not_yet(format!("the program was ended by signal {signal}")),
            (Some(code), None) => not_yet(format!("the program exited with code {code}")),
            (None, None) => not_yet("the program ended, and the guest does not report how".to_owned()),
        };
        Ok(Look { seen, effect: Effect::Done })
    });
    looked.await
}

/// Prints the lines of a Linux guest's tables of TCP sockets that are of listening ones.
fn ports() -> ExecSpec {
    // A Windows guest has neither, and says that it has no such shell.
    ExecSpec::new("/bin/sh").args(["-c", "grep -h ' 0A ' /proc/net/tcp /proc/net/tcp6 2>/dev/null; true"])
}

/// Whether one of these sockets has this port: the number in hexadecimal digits at the end of the second field.
fn listens(sockets: &[u8], port: u16) -> bool {
    let sockets = String::from_utf8_lossy(sockets);
    let ports = sockets.lines().filter_map(|line| line.split_whitespace().nth(1)?.rsplit_once(':'));
    let mut ports = ports.filter_map(|(_, port)| u16::from_str_radix(port, 16).ok());
    ports.any(|open| open == port)
}

/// Whether another look may see something else. A guest that boots does not have everything yet.
pub(super) fn may_pass(error: &ProtocolError) -> bool {
    let is_early = match error {
        ProtocolError::ExecFailed { .. } | ProtocolError::ProcessLost { .. } => true,
        _ => error.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::Guest),
    };
    let is_down =
        matches!(error.transport_kind(), Some(ErrorKind::OperationInvalid | ErrorKind::VmNotRunning));
    error.is_retryable() || is_early || is_down
}

fn too_late(
    job: &Job,
    domain: &DomainInfo,
    condition: &Condition,
    effect: Effect,
    last: &str,
    hint: Hint,
) -> Completion {
    let vm = format!("VM {:?}", domain.name);
    let awaited = match condition {
        Condition::Agent => format!("the agent of {vm} answered"),
        Condition::State(state) => format!("{vm} was in the state {:?}", state.as_str()),
        Condition::Exec(spec) => format!("{:?} in {vm} ended with exit code 0", spec.program),
        Condition::Port { port } => format!("a process in {vm} listened on port {port}"),
    };
    let message = format!("host {}: the deadline passed before {awaited}: {last}", job.target.host);
    let error = OutcomeError::new(ErrorKind::ConditionNotMet, message).with_hint(hint).retryable();
    Completion::failed(Status::Timeout, effect, error)
}

/// The key in a step of a scenario.
pub(super) const STEP: Field = field(
    "wait",
    Shape::Either(SHAPES),
    "Wait until the guest agent answers, the VM is in a state, a command exits with 0, a port is listened on, or the \
     console has a line",
);

const SHAPES: &[Shape] = &[Shape::Choice(&["agent"]), Shape::Map(KEYS)];

const KEYS: &[Field] = &[
    field("console", Shape::Text, "A regular expression; a line of the serial console has to match"),
    field("port", Shape::Integer, "The TCP port on which a process in the guest has to listen"),
    field("state", Shape::Choice(STATES), "The state to wait for"),
    field(
        "exec",
        Shape::Either(exec_verb::SHAPES),
        "The command that has to exit with 0; it is repeated until then",
    ),
];

/// What a step waits for.
#[derive(Debug, Clone, PartialEq)]
pub enum WaitFor {
    /// The guest agent answers.
    Agent,
    /// The VM is in this state.
    State(DomainState),
    /// The process exits with code 0.
    Exec(ExecTemplate),
    /// A process in the guest listens on this TCP port.
    Port(u16),
}

impl WaitFor {
    /// The condition with values in it. The error says what is wrong.
    pub(super) fn fill(&self, values: &Values) -> Result<Condition, String> {
        Ok(match self {
            WaitFor::Agent => Condition::Agent,
            WaitFor::State(state) => Condition::State(*state),
            WaitFor::Exec(exec) => Condition::Exec(exec.fill(values)?),
            WaitFor::Port(port) => Condition::Port { port: *port },
        })
    }
}

/// Reads what a step waits for on the console, if that is what it waits for.
pub(super) fn console(node: &Node) -> Result<Option<Matcher>> {
    match &node.value {
        Value::Map(entries) if matches!(&entries[..], [(key, _)] if key.name == "console") => {
            Keys::of(node, KEYS, "wait")?.get("console").map(Matcher::read).transpose()
        }
        _ => Ok(None),
    }
}

/// Reads what a step waits for, besides a line of the console.
pub(super) fn read(node: &Node, names: &Names) -> Result<WaitFor> {
    let Value::Map(_) = node.value else {
        choice(node, &["agent"]).map_err(|error| {
            error.with_hint("agent, state: STATE, exec: COMMAND, port: N or console: REGEX")
        })?;
        return Ok(WaitFor::Agent);
    };
    let keys = Keys::of(node, KEYS, "wait")?;
    match (keys.get("state"), keys.get("exec"), keys.get("port"), keys.get("console")) {
        (Some(node), None, None, None) => Ok(WaitFor::State(state(node)?)),
        (None, Some(node), None, None) => Ok(WaitFor::Exec(exec_verb::read(node, names)?)),
        (None, None, Some(node), None) => match u16::try_from(integer(node)?) {
            Ok(port @ 1..) => Ok(WaitFor::Port(port)),
            _ => Err(ScenarioError::at(node.place, "expected a port from 1 to 65535")),
        },
        _ => Err(ScenarioError::at(
            node.place,
            "wait has one condition: a state, a command, a port, or a line of the console",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_sent_no_program_did_nothing() {
        let unanswered = || Err(ProtocolError::Timeout { peer: atp_protocol::Peer::Agent, sent: true });
        assert_eq!(done_by(&unanswered(), false), Effect::None);
        assert_eq!(done_by(&unanswered(), true), Effect::Unknown);
        let ran = Ok(Look { seen: not_yet(String::new()), effect: Effect::Done });
        assert_eq!(done_by(&ran, true), Effect::Done);
    }

    #[test]
    fn a_port_is_found_among_the_sockets_that_listen() {
        let sockets = b"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n\
              1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 13 1\n";
        for (port, is_open) in [(22, true), (8080, true), (80, false), (0, false)] {
            assert_eq!(listens(sockets, port), is_open, "{port}");
        }
        assert!(!listens(b"\xff :::: 0A\n", 22));
    }

    #[test]
    fn once_a_program_has_run_something_happened() {
        let all = [Effect::Unknown, Effect::None, Effect::Done, Effect::Unknown];
        assert_eq!(all.into_iter().fold(Effect::None, combined), Effect::Done);
        assert_eq!(all[..2].iter().copied().fold(Effect::None, combined), Effect::Unknown);
    }
}
