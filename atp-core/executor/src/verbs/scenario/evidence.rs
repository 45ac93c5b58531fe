//! Evidence: what is collected of a VM in a folder when its scenario has failed.
//!
//! Everything is asked for at the same time and by a deadline of its own, so that a VM that hangs costs little, and yields what does
//! not need it: its console. What could not be had is reported with the reason.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_api::{EvidenceReport, ExecSpec, MissedEvidence, OutcomeError, ScreenshotLimits};
use atp_protocol::files::Allowance;
use atp_protocol::{LibvirtCarrier, ProtocolError, exec, files, screenshot};
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;
use futures_util::future::join;
use tokio::fs;
use tokio::time::{Instant, timeout_at};

use super::console::ConsoleWatch;
use super::error::ScenarioError;
use super::fields::EVIDENCE;
use super::node::Node;
use super::places::FilePlaces;
use super::read::{Keys, Names, Result, choice, integer, scalar, texts, truth};
use super::report::worst;
use super::template::{Template, Values, fill, fill_path};
use crate::safe_name::safe_name;
use crate::verbs::completion::effect_of;
use crate::verbs::exec as exec_verb;
use crate::verbs::job::Job;

/// The time for all of it.
pub(super) const TIME: Duration = Duration::from_secs(20);
/// Ends a line for the guest's shell (`$1`) after some seconds (`$2`), so that what it has printed until then is known and nothing
/// goes on. A guest without `timeout`, or with one that has other options, is waited for as for any program.
const BOUNDED: &str = r#"timeout -s KILL 1 true >/dev/null 2>&1 || exec /bin/sh -c "$1"
exec timeout -s KILL "$2" /bin/sh -c "$1""#;
/// What is kept back of the time of a command for the answer.
const ANSWER: Duration = Duration::from_secs(1);
/// The most lines of a console.
const MOST_LINES: i32 = 10_000;

/// What is collected, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Whether it is collected also if no step has failed.
    pub always: bool,
    /// How many lines of the console, if any.
    pub console: Option<usize>,
    /// Whether a picture of the screen is taken.
    pub screenshot: bool,
    /// Lines for the guest's shell, whose output is kept.
    pub commands: Vec<Template>,
    /// The folder; the files of a VM are in `HOST/VM` in it.
    pub folder: Template,
}

pub(super) fn read(node: &Node, names: &Names) -> Result<Evidence> {
    let keys = Keys::of(node, EVIDENCE, "evidence")?;
    let console = match keys.get("console") {
        Some(node) => match integer(node)? {
            lines @ 1..=MOST_LINES => Some(lines.unsigned_abs() as usize),
            _ => {
                let message = format!("expected a number of lines from 1 to {MOST_LINES}");
                return Err(ScenarioError::at(node.place, message));
            }
        },
        None => None,
    };
    let commands = keys.get("commands").map(texts).transpose()?.unwrap_or_default();
    let evidence = Evidence {
        always: keys.get("on").map(|node| choice(node, &["failure", "always"])).transpose()?
            == Some("always"),
        console,
        screenshot: keys.get("screenshot").map(truth).transpose()?.unwrap_or(false),
        commands: commands.into_iter().map(|node| names.template(node)).collect::<Result<_>>()?,
        folder: match keys.get("folder") {
            Some(node) if scalar(node)?.is_empty() => {
                return Err(ScenarioError::at(node.place, "the folder has no name"));
            }
            Some(node) => names.template(node)?,
            None => names.text_template("evidence", node.place)?,
        },
    };
    if evidence.console.is_none() && !evidence.screenshot && evidence.commands.is_empty() {
        return Err(ScenarioError::at(node.place, "no evidence is asked for")
            .with_hint("console: LINES, screenshot: true, or commands: [LINE, …]"));
    }
    Ok(evidence)
}

/// The files of one VM, and what is missing.
struct Collected {
    folder: PathBuf,
    /// When all of it has to be written: a disk may hang as well.
    deadline: Instant,
    allowance: Allowance,
    report: EvidenceReport,
}

impl Collected {
    async fn keep(&mut self, name: String, bytes: &[u8]) {
        let path = self.folder.join(&name);
        let written = async {
            self.allowance.take(bytes.len() as u64)?;
            write(&path, bytes).await
        };
        match timeout_at(self.deadline, written).await {
            Ok(Ok(())) => self.report.files.push(name),
            Ok(Err(error)) => self.miss(name, format!("it cannot be written: {error}")),
            Err(_) => self.miss(name, "it was not written in time".to_owned()),
        }
    }

    async fn keep_console(&mut self, tail: Result<Vec<String>, OutcomeError>) {
        match tail {
            Ok(lines) if lines.is_empty() => {
                self.miss("console", "it has written nothing since it was opened".to_owned());
            }
            Ok(lines) => {
                let text: String = lines.into_iter().map(|line| line + "\n").collect();
                self.keep("console.log".to_owned(), text.as_bytes()).await;
            }
            Err(error) => self.miss("console", error.message),
        }
    }

    fn miss(&mut self, what: impl Into<String>, reason: String) {
        self.report.missed.push(MissedEvidence { what: what.into(), reason });
    }
}

async fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).await?;
    }
    let (path, bytes) = (path.to_owned(), bytes.to_owned());
    let written = tokio::task::spawn_blocking(move || files::write_in_place(&path, &bytes));
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Collects the evidence of a VM, in no more than [`TIME`]. Also returns the effect of the commands on the VM.
pub(super) async fn collect(
    evidence: &Evidence,
    job: &Job,
    domain: &DomainInfo,
    console: Option<&ConsoleWatch>,
    (values, own, places): (&Values, &Values, Option<&FilePlaces>),
) -> (EvidenceReport, Effect) {
    let now = Instant::now();
    let written_by = job.deadline().min(now + TIME);
    let deadline = written_by - written_by.saturating_duration_since(now) / 10;
    let job = Job { attempt: job.attempt.part(deadline), ..job.clone() };
    let named = fill_path(&evidence.folder, values, own);
    let folder = named.and_then(|named| places.map_or(Ok(named.clone()), |places| places.folder_for(&named)));
    let folder = match folder {
        Ok(folder) => folder.join(safe_name(job.planned_on.as_str())).join(safe_name(&domain.name)),
        Err(reason) => {
            let missed = vec![MissedEvidence { what: "folder".to_owned(), reason }];
            return (EvidenceReport { missed, ..EvidenceReport::default() }, Effect::None);
        }
    };
    let report = EvidenceReport { folder: folder.clone(), ..EvidenceReport::default() };
    let allowance = job.allowance.clone();
    let mut collected = Collected { folder, deadline: written_by, allowance, report };
    // It is there at once, and is kept whatever becomes of the rest.
    let tail = || Some(console?.tail(evidence.console?));
    let is_silent = matches!(tail(), Some(Ok(lines)) if lines.is_empty());
    if let (Some(tail), false) = (tail(), is_silent) {
        collected.keep_console(tail).await;
    }
    let mut effect = Effect::None;
    let picture = async {
        match evidence.screenshot {
            true => Some(picture(&job, domain, deadline).await),
            false => None,
        }
    };
    let outputs = async {
        let mut outputs = Vec::new();
        for (command, left) in evidence.commands.iter().zip((1..=evidence.commands.len()).rev()) {
            let line = fill(command, values);
            let output = match &line {
                Ok(line) => {
                    // One that hangs leaves their time to the others.
                    let now = Instant::now();
                    let share =
                        deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
                    let (output, sent) = output(&job, domain, line, now + share).await;
                    effect = worst(effect, sent);
                    output
                }
                Err(reason) => Err(reason.clone()),
            };
            outputs.push((line.unwrap_or_else(|_| command.to_string()), output));
        }
        outputs
    };
    let (picture, outputs) = join(picture, outputs).await;
    match picture {
        Some(Ok(png)) => collected.keep("screen.png".to_owned(), &png).await,
        Some(Err(reason)) => collected.miss("screenshot", reason),
        None => {}
    }
    for (number, (line, output)) in (1..).zip(outputs) {
        match output {
            Ok(text) => collected.keep(format!("command-{number}.txt"), text.as_bytes()).await,
            Err(reason) => collected.miss(line, reason),
        }
    }
    // It may have been opened for this.
    if let (Some(tail), true) = (tail(), is_silent) {
        collected.keep_console(tail).await;
    }
    (collected.report, effect)
}

async fn picture(job: &Job, domain: &DomainInfo, deadline: Instant) -> std::result::Result<Vec<u8>, String> {
    let uuid = domain.uuid;
    let taken = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        screenshot::take(&connection, uuid, 0, ScreenshotLimits::default(), deadline).await
    });
    taken.await.map(|picture| picture.png).map_err(|error: ProtocolError| OutcomeError::in_full(&error))
}

/// What a line for the guest's shell prints, as a text with the line and how it ended; and the effect of it. One that does not end
/// in time is ended then.
async fn output(
    job: &Job,
    domain: &DomainInfo,
    line: &str,
    deadline: Instant,
) -> (std::result::Result<String, String>, Effect) {
    let began = Instant::now();
    let limit = deadline.saturating_duration_since(began + ANSWER).as_secs().max(1);
    let bounded = &ExecSpec::new("/bin/sh").args(["-c", BOUNDED, "sh", line, &limit.to_string()]);
    job.attempt.mark_sent().await;
    let job = &Job { attempt: job.attempt.part(deadline), ..job.clone() };
    let ran = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        let usual = exec_verb::usual_encoding(bounded, &connection.host_info(), &job.policy)?;
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        let output = match exec::run(&carrier, bounded, deadline).await {
            // Nothing was run. Windows has another shell.
            Err(ProtocolError::NoShell { .. }) => {
                exec::run(&carrier, &ExecSpec::shell(line), deadline).await?
            }
            output => output?,
        };
        Ok::<_, ProtocolError>(exec_verb::report(output, bounded, usual))
    });
    let report = match ran.await {
        Ok(report) => report,
        Err(error) => return (Err(OutcomeError::in_full(&error)), effect_of(&error, true)),
    };
    let is_killed = report.signal == Some(9) || report.exit_code == Some(128 + 9);
    let ended = match (report.exit_code, report.signal) {
        _ if is_killed && began.elapsed().as_secs() >= limit => format!("ended after {limit} s"),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    };
    let (stdout, stderr) = (report.stdout.lossy_text(), report.stderr.lossy_text());
    (Ok(format!("$ {line}\n{stdout}{stderr}[{ended}]\n")), Effect::Done)
}
