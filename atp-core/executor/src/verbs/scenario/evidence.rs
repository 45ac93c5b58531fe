//! Evidence: what is collected of a VM in a folder when its scenario has failed.
//!
//! Everything is asked for at the same time and by a deadline of its own, so that a VM that hangs costs little, and yields what does
//! not need it: its console. What could not be had is reported with the reason.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_api::{EvidenceReport, ExecSpec, MissedEvidence, OutcomeError, ScreenshotLimits};
use atp_protocol::files::Allowance;
use atp_protocol::{ExecOutput, LibvirtCarrier, ProtocolError, exec, files, screenshot};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, LibvirtConnection};
use futures_util::future::join3;
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
use crate::verbs::job::Job;

/// The time for all of it.
pub(super) const TIME: Duration = Duration::from_secs(20);
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
    let mut effect = Effect::None;
    let lines = async {
        let lines = evidence.console?;
        Some(console?.tail(lines))
    };
    let picture = async {
        match evidence.screenshot {
            true => Some(picture(&job, domain, deadline).await),
            false => None,
        }
    };
    let outputs = async {
        let mut outputs = Vec::new();
        for command in &evidence.commands {
            let line = fill(command, values);
            let output = match &line {
                Ok(line) => {
                    let (output, sent) = output(&job, domain, line, deadline).await;
                    effect = worst(effect, sent);
                    output
                }
                Err(reason) => Err(reason.clone()),
            };
            outputs.push((line.unwrap_or_else(|_| command.to_string()), output));
        }
        outputs
    };
    let (lines, picture, outputs) = join3(lines, picture, outputs).await;
    match lines {
        Some(Ok(lines)) => {
            let text: String = lines.into_iter().map(|line| line + "\n").collect();
            collected.keep("console.log".to_owned(), text.as_bytes()).await;
        }
        Some(Err(error)) => collected.miss("console", error.message),
        None => {}
    }
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
    (collected.report, effect)
}

async fn picture(job: &Job, domain: &DomainInfo, deadline: Instant) -> std::result::Result<Vec<u8>, String> {
    let uuid = domain.uuid;
    let taken = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        screenshot::take(&connection, uuid, 0, ScreenshotLimits::default(), deadline).await
    });
    taken.await.map(|picture| picture.png).map_err(|error: ProtocolError| OutcomeError::in_full(&error))
}

/// What a line for the guest's shell prints, as a text with the line and its exit code; and the effect of it.
async fn output(
    job: &Job,
    domain: &DomainInfo,
    line: &str,
    deadline: Instant,
) -> (std::result::Result<String, String>, Effect) {
    let (uuid, spec) = (domain.uuid, &ExecSpec::shell(line));
    job.attempt.mark_sent().await;
    let ran = job.manager.execute_on_host_with(
        job.host(),
        job.options(),
        |connection: LibvirtConnection| async move {
            exec::run(&LibvirtCarrier::new(&connection, uuid), spec, deadline).await
        },
    );
    let output: ExecOutput = match ran.await {
        Ok(output) => output,
        Err(error) => {
            let error: ProtocolError = error;
            return (Err(OutcomeError::in_full(&error)), effect_of(&error, true));
        }
    };
    let ended = match (output.exit_code, output.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    };
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (Ok(format!("$ {line}\n{stdout}{stderr}[{ended}]\n")), Effect::Done)
}
