//! `exec`: one process in the guest. If the connection is lost while it runs, its end is awaited over another one; if the VM
//! is migrated, on its new host: the agent and the process are the same.

use atp_api::{Data, ExecReport, OutcomeError, Policy, Status, Stream};
use atp_protocol::exec::{self, Process};
use atp_protocol::{ExecOutput, ExecPolicy, ExecSpec, LibvirtCarrier, ProtocolError, TextEncoding};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind, Hint, HostId, HostInfo};

use super::answer::{Answer, explain, finish, not_running};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;
use super::reconnect_retry::ReconnectRetry;
use super::relocation::{Relocation, is_excluded, relocation};
use super::scenario::ScenarioError;
use super::scenario::fields::{Field, Shape, field};
use super::scenario::node::{Node, Value};
use super::scenario::read::{Keys, Names, Result, named, texts};
use super::scenario::template::{Template, Values, fill, fill_all};

/// The label of a host that names the encoding of what programs in its guests write.
const ENCODING_LABEL: &str = "console-encoding";

pub(super) static FACTS: VerbFacts = VerbFacts { needs: Needs::Running, ..VerbFacts::change("exec") };

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &ExecSpec) -> Completion {
    let mut place = job.clone();
    let completion = run(&mut place, domain, spec).await;
    place.ended(completion)
}

/// As [`perform`]. `job` is where the VM is: if it moves while the process runs, that changes.
async fn run(job: &mut Job, domain: &DomainInfo, spec: &ExecSpec) -> Completion {
    let deadline = job.deadline();
    let policy = ExecPolicy::default();
    let mut retry = ReconnectRetry::new(&job.policy, deadline);
    let mut process: Option<Process> = None;
    let mut usual = None;
    loop {
        let (slot, usual_slot, retry_state) = (&mut process, &mut usual, &mut retry);
        let now_at = &*job;
        let answer =
            now_at.manager.execute_on_host_with(now_at.host(), now_at.options(), |connection| async move {
                let carrier = LibvirtCarrier::new(&connection, domain.uuid);
                let reconnects = connection.reconnects();
                let process = match slot {
                    Some(process) => process,
                    None => {
                        if let Some(state) = not_running(&connection, domain, FACTS.needs).await? {
                            return Ok(Answer::NotRunning(state, Effect::None));
                        }
                        *usual_slot = usual_encoding(spec, &connection.host_info(), &now_at.policy)?;
                        now_at.attempt.mark_sent().await;
                        match exec::start(&carrier, spec, deadline).await {
                            Ok(process) => slot.insert(process),
                            Err(error) => {
                                return explain(now_at, &connection, domain, FACTS.needs, Err(error)).await;
                            }
                        }
                    }
                };
                let output = process.wait(&carrier, &policy, deadline).await;
                retry_state.note_losses(&connection, reconnects);
                explain(now_at, &connection, domain, FACTS.needs, output).await
            });
        let mut answer = answer.await;
        let Some(process) = &mut process else {
            let answer = match answer {
                Err(error) => Err(job.who_is_silent(domain, error).await),
                answer => answer,
            };
            return finish(job, answer, |output| completion(report(output, spec, usual)));
        };
        // A process that was started is asked for its end over any connection there is.
        if let Err(error) = &answer
            && retry.after(error).await
        {
            continue;
        }
        if !matches!(answer, Ok(Answer::Given(_))) {
            match relocation(job, domain).await {
                Relocation::To(host) if is_excluded(job, domain, &host).await => {
                    return not_followed(job, domain, &host);
                }
                Relocation::To(host) => {
                    *job = job.at(host);
                    // The channel of the agent is opened anew there.
                    retry.note_loss();
                    continue;
                }
                // It was paused for a migration that failed.
                Relocation::Here(Some(now))
                    if matches!(answer, Ok(Answer::NotRunning(..))) && FACTS.needs.allow(now.state) =>
                {
                    continue;
                }
                Relocation::Here(_) | Relocation::Lost(_) => {}
            }
            if process.has_files() && !answer.as_ref().is_err_and(|error| retry.may_pass(error)) {
                discard(job, domain, process, &policy).await;
            }
        }
        if let Err(error) = answer {
            answer =
                Err(if matches!(error, ProtocolError::Transport(_)) { process.lost(error) } else { error });
        }
        let answer = match answer {
            Err(error) => Err(job.who_is_silent(domain, retry.given_up(error)).await),
            answer => answer,
        };
        return finish(job, answer, |output| completion(report(output, spec, usual)));
    }
}

/// Removes what a process that is given up left in the guest, if it can be reached.
async fn discard(job: &Job, domain: &DomainInfo, process: &mut Process, policy: &ExecPolicy) {
    let deadline = job.deadline();
    let discarded = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        process.discard(&LibvirtCarrier::new(&connection, domain.uuid), policy, deadline).await;
        Ok::<_, ProtocolError>(())
    });
    // It is an extra: the process has failed already.
    let _ = discarded.await;
}

/// The completion of a process whose VM has moved to a host that the selection excludes.
fn not_followed(job: &Job, domain: &DomainInfo, host: &HostId) -> Completion {
    let message = format!(
        "host {}: VM {:?} moved to {host} while the process ran, and the selection excludes it there",
        job.target.host, domain.name
    );
    let error = OutcomeError::new(ErrorKind::VmMoved, message).with_hint(Hint::CHECK_PROCESS);
    let failed = Completion::failed(Status::Failed, Effect::Unknown, error);
    Completion { found_on: Some(host.clone()), ..failed }
}

/// The encoding of what programs on this host write that is no UTF-8, unless the program has one of its own. An unknown name in the
/// label is an error before anything is sent.
pub(super) fn usual_encoding(
    spec: &ExecSpec,
    host: &HostInfo,
    policy: &Policy,
) -> std::result::Result<Option<TextEncoding>, ProtocolError> {
    match host.labels.get(ENCODING_LABEL) {
        _ if spec.encoding.is_some() => Ok(None),
        Some(name) => match name.parse() {
            Ok(encoding) => Ok(Some(encoding)),
            Err(error) => Err(ProtocolError::InvalidCommand {
                reason: format!("the label {ENCODING_LABEL} of host {}: {error}", host.id),
            }),
        },
        None => Ok(policy.encoding),
    }
}

/// What a process printed, as text in its own encoding if there is one. The usual one of its host is for bytes that are no UTF-8: other
/// guests of the host may be of another system.
pub(super) fn report(output: ExecOutput, spec: &ExecSpec, usual: Option<TextEncoding>) -> ExecReport {
    let stream = |bytes: Vec<u8>, truncated| {
        // UTF-16 of plain letters has zeros, and is UTF-8 as well.
        let is_utf8 = std::str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\0'));
        Stream { encoding: spec.encoding.or(usual.filter(|_| !is_utf8)), bytes, truncated }
    };
    ExecReport {
        exit_code: output.exit_code,
        signal: output.signal,
        stdout: stream(output.stdout, output.stdout_truncated),
        stderr: stream(output.stderr, output.stderr_truncated),
    }
}

/// What ends by SIGKILL was mostly ended by its kernel. A shell reports 137 for it.
const KILLED: &str = "something killed it (SIGKILL): a guest that is out of memory ends its largest process so; look for \"Out of memory\" in the guest's kernel log (dmesg)";

/// The effect of a process that ran is `done`. It failed if its exit code or signal says so.
fn completion(report: ExecReport) -> Completion {
    if report.is_success() {
        return Completion::ok(Effect::Done, Data::Exec(report));
    }
    let message = match (report.ending(), report.signal) {
        (Some(ending), Some(_)) => format!("the process was ended by {ending}"),
        (Some(ending), None) => format!("the process exited with {}", ending.trim_start_matches("exit ")),
        (None, _) => "the process ended, and the guest does not report how".to_owned(),
    };
    let mut error = OutcomeError::new(ErrorKind::ExitNonzero, message);
    if (report.signal, report.exit_code) == (Some(9), None) || report.exit_code == Some(128 + 9) {
        error = error.with_hint(KILLED);
    } else if !report.stderr.bytes.is_empty() {
        error = error.with_hint("read its standard error");
    }
    let mut failed = Completion::failed(Status::Failed, Effect::Done, error);
    failed.data = Some(Data::Exec(report));
    failed
}

/// The key in a step of a scenario.
pub(super) const STEP: Field = field(
    "exec",
    Shape::Either(SHAPES),
    "Run a command in the guest: a command line for its shell, or a list of words",
);

/// What may stand where a step names a process.
pub(super) const SHAPES: &[Shape] = &[Shape::Texts, Shape::Map(KEYS)];

const KEYS: &[Field] = &[
    field(
        "command",
        Shape::Texts,
        "A command line for the guest's shell, or the program and its arguments as a list",
    ),
    field("env", Shape::Named, "Variables of its environment; it then has these and a PATH, and no others"),
    field("stdin", Shape::Text, "What it reads"),
];

/// A process to run in the guest, with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecTemplate {
    /// The program and its arguments; or one text, for the guest's shell.
    pub words: Vec<Template>,
    /// Whether it is for the guest's shell.
    pub shell: bool,
    /// Variables of its environment.
    pub env: Vec<(String, Template)>,
    /// What it reads.
    pub stdin: Option<Template>,
}

impl ExecTemplate {
    /// The process with values in it. The error says what is wrong.
    pub(super) fn fill(&self, values: &Values) -> Result<ExecSpec, String> {
        let mut words = fill_all(&self.words, values)?.into_iter();
        let env = fill_all(self.env.iter().map(|(_, value)| value), values)?;
        Ok(ExecSpec {
            program: words.next().unwrap_or_default(),
            args: words.collect(),
            env: self.env.iter().map(|(name, _)| name.clone()).zip(env).collect(),
            stdin: self.stdin.as_ref().map(|text| fill(text, values)).transpose()?.map(String::into_bytes),
            shell: self.shell,
            ..ExecSpec::default()
        })
    }
}

/// Reads a process from a step.
pub(super) fn read(node: &Node, names: &Names) -> Result<ExecTemplate> {
    let Value::Map(_) = node.value else {
        return process(node, Vec::new(), None, names);
    };
    let keys = Keys::of(node, KEYS, "exec")?;
    let env = named(keys.get("env"))?.into_iter().map(|(place, name, value)| {
        if name.is_empty() || name.contains('=') {
            return Err(ScenarioError::at(
                place,
                format!("{name:?} is not the name of an environment variable"),
            ));
        }
        Ok((name.to_owned(), names.template(value)?))
    });
    let stdin = keys.get("stdin").map(|node| names.template(node)).transpose()?;
    process(keys.need("command")?, env.collect::<Result<_>>()?, stdin, names)
}

/// A line for the shell, or words.
fn process(
    node: &Node,
    env: Vec<(String, Template)>,
    stdin: Option<Template>,
    names: &Names,
) -> Result<ExecTemplate> {
    let shell = !matches!(node.value, Value::List(_));
    let words = texts(node)?.into_iter().map(|word| names.template(word)).collect::<Result<_>>()?;
    Ok(ExecTemplate { words, shell, env, stdin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_counts_for_more_than_the_hosts_label_and_the_label_for_more_than_the_setting() {
        let host = |label: Option<&str>| {
            let host = HostInfo::from_uri("h1", "test:///default");
            label.into_iter().fold(host, |host, label| host.with_label(ENCODING_LABEL, label))
        };
        let named = |name: &str| Some(name.parse::<TextEncoding>().unwrap());
        let exec = |encoding| ExecSpec { encoding, ..ExecSpec::new("dir") };
        let policy = Policy { encoding: named("cp437"), ..Policy::default() };
        let found = |spec: ExecSpec, label| {
            let usual = usual_encoding(&spec, &host(label), &policy).unwrap();
            let output = ExecOutput { stdout: b"\xff".to_vec(), ..ExecOutput::default() };
            super::report(output, &spec, usual).stdout.encoding
        };
        assert_eq!(found(exec(named("utf-16")), Some("cp850")), named("utf-16"));
        assert_eq!(found(exec(None), Some("cp850")), named("cp850"));
        assert_eq!(found(exec(None), None), named("cp437"));
        let unknown = usual_encoding(&exec(None), &host(Some("cp0")), &policy).unwrap_err();
        assert!(unknown.to_string().contains("label console-encoding of host h1"), "{unknown}");
        assert_eq!(unknown.effect(), Effect::None);
        assert!(usual_encoding(&exec(named("cp850")), &host(Some("cp0")), &policy).is_ok());
    }

    #[test]
    fn the_encoding_of_a_host_is_for_what_is_no_utf_8_and_that_of_a_program_for_all_it_writes() {
        let cp850 = "cp850".parse::<TextEncoding>().ok();
        let utf16 = "utf-16le".parse::<TextEncoding>().ok();
        let text = |bytes: &[u8], own, usual| {
            let spec = ExecSpec { encoding: own, ..ExecSpec::new("dir") };
            let output = ExecOutput { stdout: bytes.to_vec(), ..ExecOutput::default() };
            super::report(output, &spec, usual).stdout.lossy_text().into_owned()
        };
        let (linux, windows) = ("Grüße".as_bytes(), &b"Gr\x81\xe1e"[..]);
        assert_eq!(text(linux, None, cp850), "Grüße");
        assert_eq!(text(windows, None, cp850), "Grüße");
        assert_eq!(text(windows, None, None), "Gr\u{fffd}\u{fffd}e");
        assert_eq!(text(b"h\0i\0", None, utf16), "hi");
        assert_ne!(text(linux, cp850, None), "Grüße", "it was asked for");
    }

    fn report(exit_code: Option<i32>, signal: Option<i32>) -> ExecReport {
        ExecReport { exit_code, signal, stdout: Stream::default(), stderr: Stream::default() }
    }

    #[test]
    fn a_process_that_ends_well_is_ok() {
        let completion = completion(report(Some(0), None));
        assert_eq!((completion.status, completion.effect), (Status::Ok, Effect::Done));
        assert_eq!(completion.error, None);
    }

    #[test]
    fn a_process_that_ends_badly_failed_with_its_data() {
        let violation = report(None, Some(0xC000_0005_u32.cast_signed()));
        assert!(
            completion(violation)
                .error
                .unwrap()
                .message
                .ends_with("by exception 0xC0000005 (access violation)")
        );
        for (ended, message) in [(report(Some(3), None), "code 3"), (report(None, Some(9)), "signal 9")] {
            let completion = completion(ended.clone());
            assert_eq!((completion.status, completion.effect), (Status::Failed, Effect::Done));
            assert_eq!(completion.data, Some(Data::Exec(ended)));
            let error = completion.error.unwrap();
            assert_eq!(error.kind, ErrorKind::ExitNonzero);
            assert!(error.message.contains(message), "{}", error.message);
            assert_eq!(error.hint.is_some(), message == "signal 9", "it wrote nothing to read");
        }
    }

    #[test]
    fn a_process_that_was_killed_may_have_taken_the_guests_memory() {
        for (ended, is_killed) in [
            (report(None, Some(9)), true),
            (report(Some(137), None), true),
            (report(None, Some(15)), false),
            (report(Some(9), None), false),
        ] {
            let hint = completion(ended.clone()).error.unwrap().hint.unwrap_or(Hint::plain(""));
            assert_eq!(hint.contains("out of memory"), is_killed, "{ended:?}");
        }
    }
}
