//! Files of runs through a service. Those that a run reads are sent to the service before it; those that it makes are fetched as
//! their outcomes come, and are then where a run of the client's own process would have put them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use atp_api::{
    ConsoleSpec, Data, ErrorKind, EvidenceReport, FileReport, Hint, MissedEvidence, OperationSpec, Outcome,
    OutcomeError, PlanReport, PullSpec, PushSpec, RunEvent, ScenarioSpec, ScreenshotReport, ScreenshotSpec,
    Status,
};
use atp_executor::{FilePlaces, Operation, PreparedPush, Scenario};
use atp_protocol::files::unpack_folder;
use tokio::fs;
use tokio::task::spawn_blocking;

use crate::client::Client;
use crate::error::ClientError;
use crate::files::FileSize;

/// The largest file of evidence, in bytes.
const MOST_EVIDENCE: u64 = 64 << 20;

/// The largest file of a console, in bytes.
const MOST_CONSOLE: u64 = 4 << 30;

/// The files of one run through a service.
pub struct RunFiles {
    client: Client,
    operation: OperationSpec,
    made: Made,
    /// The files that were sent, by their ids: where they are here.
    sent: BTreeMap<String, PathBuf>,
    /// Ids of what the run has made and of which all is here.
    fetched: BTreeSet<String>,
    /// Ids of what it has made and of which something could not be fetched: the service keeps it.
    left: BTreeSet<String>,
    /// The paths that were sent, or cannot be, so that none is tried twice.
    tried: BTreeSet<String>,
    /// Outcomes that are failures only here: how they ended in the service, and why they failed.
    failed: Vec<(Status, ErrorKind)>,
}

/// Where files that the run makes belong.
enum Made {
    Nothing,
    /// To this file or folder; in a folder each VM's file may have a place of its own.
    Pulled {
        destination: PathBuf,
        separate: bool,
    },
    /// Below this folder, by their hosts.
    ByHost(PathBuf),
    /// Where the steps say.
    BySteps(Arc<Scenario>),
}

impl RunFiles {
    /// Sends the files that an operation reads, as far as their names are known before there is a plan.
    ///
    /// # Errors
    /// A file cannot be read or sent, or its name is only known when the run has begun.
    ///
    /// Cancel safe: the service removes the files when their time has come.
    pub async fn send(client: &Client, operation: &Operation) -> Result<Self, OutcomeError> {
        // The service puts folders of its own in the place of this.
        let there = || PathBuf::from(".");
        let mut files = RunFiles {
            client: client.clone(),
            operation: operation.spec(),
            made: Made::Nothing,
            sent: BTreeMap::new(),
            fetched: BTreeSet::new(),
            left: BTreeSet::new(),
            tried: BTreeSet::new(),
            failed: Vec::new(),
        };
        match operation {
            Operation::Push(PreparedPush { spec, source }) => {
                let id = match source.archive() {
                    Some(archive) => {
                        let sent = client.send_file_as(archive, source.name()).await;
                        let id = sent.map_err(|error| of_client(&error))?.id;
                        files.sent.insert(id.clone(), spec.source.clone());
                        id
                    }
                    None => files.send_file(&spec.source).await?,
                };
                // A service takes any folder as its archive, and a file is no folder.
                let recursive = source.is_folder();
                files.operation =
                    OperationSpec::Push(PushSpec { source: id.into(), recursive, ..spec.clone() });
            }
            Operation::Pull(pull) => {
                files.made = Made::Pulled { destination: pull.destination.clone(), separate: pull.separate };
                files.operation = OperationSpec::Pull(PullSpec { destination: there(), ..pull.clone() });
            }
            Operation::Screenshot(spec) => {
                files.made = Made::ByHost(spec.folder.clone());
                files.operation =
                    OperationSpec::Screenshot(ScreenshotSpec { folder: there(), ..spec.clone() });
            }
            Operation::Console(spec) => {
                if let Some(folder) = &spec.folder {
                    files.made = Made::ByHost(folder.clone());
                }
                let folder = spec.folder.as_ref().map(|_| there());
                files.operation = OperationSpec::Console(ConsoleSpec { folder, ..spec.clone() });
            }
            Operation::Scenario(scenario) if scenario.has_files() => {
                files.made = Made::BySteps(scenario.clone());
                // Each target has its own value of a variable, but no value can be told of one that a step captures.
                let names = scenario.pushed(Some(("host", "vm", "uuid")));
                if let Some(unknown) = names.into_iter().find_map(Result::err) {
                    let message = format!(
                        "a step pushes the file {unknown}, whose name is only known when the steps before have run; such a \
                         scenario cannot be run through a service"
                    );
                    let error = OutcomeError::new(ErrorKind::InvalidRequest, message);
                    return Err(error.with_hint(Hint::WITHOUT_SERVICE));
                }
                let known: Vec<_> = scenario.pushed(None).into_iter().flatten().collect();
                for path in known {
                    files.send_for_step(&path).await?;
                }
            }
            _ => {}
        }
        Ok(files)
    }

    /// What is asked of the service.
    pub fn operation(&self) -> &OperationSpec {
        &self.operation
    }

    /// Whether the run has no files.
    pub fn is_empty(&self) -> bool {
        matches!(self.made, Made::Nothing) && self.sent.is_empty()
    }

    /// Sends the files whose names are known by a plan; remembers how many targets there are.
    ///
    /// # Errors
    /// The service does not take a file. One that cannot be read is an error of the steps that need it.
    ///
    /// Cancel safe as [`send`](Self::send) is.
    pub async fn planned(&mut self, plan: &PlanReport) -> Result<(), OutcomeError> {
        if let Made::Pulled { separate, .. } = &mut self.made {
            *separate |= plan.targets.len() + plan.settled.len() > 1;
        }
        let Made::BySteps(scenario) = &self.made else { return Ok(()) };
        let scenario = scenario.clone();
        for target in &plan.targets {
            let (Some(vm), Some(uuid)) = (&target.vm, target.uuid) else { continue };
            let paths = scenario.pushed(Some((target.host.as_str(), vm, &uuid.to_string())));
            for path in paths.into_iter().flatten() {
                if !self.tried.contains(&path) && fs::metadata(&path).await.is_ok_and(|file| file.is_file()) {
                    self.send_for_step(&path).await?;
                }
                self.tried.insert(path);
            }
        }
        Ok(())
    }

    async fn send_for_step(&mut self, path: &str) -> Result<(), OutcomeError> {
        if self.tried.insert(path.to_owned()) {
            let id = self.send_file(Path::new(path)).await?;
            if let OperationSpec::Scenario(ScenarioSpec { files, .. }) = &mut self.operation {
                files.get_or_insert_default().insert(path.to_owned(), id);
            }
        }
        Ok(())
    }

    async fn send_file(&mut self, path: &Path) -> Result<String, OutcomeError> {
        let id = self.client.send_file(path).await.map_err(|error| of_client(&error))?.id;
        self.sent.insert(id.clone(), path.to_owned());
        Ok(id)
    }

    /// Makes an event of the run name the files of this machine: those of an outcome are fetched. After the last one the service
    /// has none of them any more.
    ///
    /// Not cancel safe: files that were not fetched stay in the service until their time has come.
    pub async fn localise(&mut self, event: &mut RunEvent) {
        match event {
            RunEvent::Finished(outcome) => {
                let before = outcome.status;
                self.fetch_all(outcome).await;
                if outcome.status != before
                    && let Some(error) = &outcome.error
                {
                    self.failed.push((before, error.kind));
                }
            }
            RunEvent::Ended(statistics) => {
                // The service counts what it did. What could not be fetched is a failure here.
                for (before, kind) in self.failed.drain(..) {
                    if before == Status::Ok {
                        statistics.counts.ok = statistics.counts.ok.saturating_sub(1);
                        statistics.counts.failed += 1;
                    }
                    *statistics.kinds.entry(kind).or_default() += 1;
                }
                // The service removes them later if that fails.
                for id in self.sent.keys().chain(self.fetched.difference(&self.left)) {
                    let _kept = self.client.remove_file(id).await;
                }
            }
            _ => {}
        }
    }

    /// Fetches the files of an outcome, and names them as they are here.
    async fn fetch_all(&mut self, outcome: &mut Outcome) {
        let mut data = outcome.data.take();
        let mut error = None;
        match &mut data {
            Some(Data::Scenario(report)) => {
                for step in report.steps.iter_mut().chain(&mut report.teardown) {
                    let Some(yielded) = &mut step.data else { continue };
                    if let Err(failure) = self.fetch(yielded).await {
                        step.status = Status::Failed;
                        step.error = Some(failure.clone());
                        error.get_or_insert(failure);
                    }
                }
                if let Some(evidence) = &mut report.evidence {
                    let causes = outcome.error.as_mut().map(|error| &mut error.causes);
                    self.fetch_evidence(evidence, causes).await;
                }
            }
            Some(yielded) => {
                error = self.fetch(yielded).await.err();
                if error.is_some() {
                    data = None;
                }
            }
            None => {}
        }
        outcome.data = data;
        if let Some(error) = error
            && outcome.status.is_success()
        {
            outcome.status = Status::Failed;
            outcome.error = Some(error);
        }
    }

    /// Fetches the evidence of a VM. A file that cannot be had is missing like one that could not be collected. `causes` name its
    /// folder.
    async fn fetch_evidence(&mut self, evidence: &mut EvidenceReport, causes: Option<&mut Vec<String>>) {
        let there = evidence.folder.clone();
        for name in std::mem::take(&mut evidence.files) {
            let file = there.join(&name);
            let fetched = match self.place_of(&file).await {
                Ok((id, to)) => {
                    let fetched =
                        self.client.place_file(&file, &to, FileSize::AtMost(MOST_EVIDENCE), None).await;
                    self.note(id, fetched).map(|()| to)
                }
                Err(error) => Err(error),
            };
            match fetched {
                Ok(to) => {
                    evidence.folder = to.parent().map(Path::to_owned).unwrap_or_default();
                    evidence.files.push(name);
                }
                Err(error) => {
                    let reason = [vec![error.message], error.causes].concat().join(": ");
                    evidence.missed.push(MissedEvidence { what: name, reason });
                }
            }
        }
        let (there, here) = (there.display().to_string(), evidence.folder.display().to_string());
        for cause in causes.into_iter().flatten() {
            *cause = cause.replace(&there, &here);
        }
    }

    /// Fetches the file of a report, if there is one.
    async fn fetch(&mut self, data: &mut Data) -> Result<(), OutcomeError> {
        match data {
            Data::File(FileReport { local_path, bytes, sha256, guest_path, .. }) => {
                let id = first(local_path);
                if let Some(path) = id.as_ref().and_then(|id| self.sent.get(id)) {
                    local_path.clone_from(path);
                    return Ok(());
                }
                let (id, to) = self.place_of(local_path).await?;
                let size = FileSize::Is(*bytes);
                let fetched = match self.is_archive(local_path) {
                    true => self.place_folder(local_path, &to, size, sha256, guest_path).await,
                    false => self.client.place_file(local_path, &to, size, Some(sha256)).await,
                };
                self.note(id, fetched)?;
                *local_path = to;
            }
            Data::Screenshot(ScreenshotReport { file, bytes, .. }) => {
                let (id, to) = self.place_of(file).await?;
                let fetched = self.client.place_file(file, &to, FileSize::Is(*bytes as u64), None).await;
                self.note(id, fetched)?;
                *file = to;
            }
            Data::Console(report) => {
                let Some(file) = &mut report.file else { return Ok(()) };
                let (id, to) = self.place_of(file).await?;
                // The marks between what was captured are not counted in the report.
                let size = FileSize::AtMost(MOST_CONSOLE);
                let fetched = self.client.place_file(file, &to, size, None).await;
                self.note(id, fetched)?;
                *file = to;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the service names the archive of a folder that was pulled: it is in a folder with the name of that one.
    fn is_archive(&self, name: &Path) -> bool {
        matches!(self.made, Made::Pulled { .. }) && name.components().count() == 5
    }

    /// Fetches the archive of a folder, and puts the folder at `to`.
    async fn place_folder(
        &self,
        name: &Path,
        to: &Path,
        size: FileSize,
        sha256: &str,
        guest_path: &str,
    ) -> Result<(), OutcomeError> {
        let here = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: &dyn std::error::Error, kind| {
            let message = format!("the service has the folder, and it could not be put at {}", to.display());
            let causes = [vec![error.to_string()], OutcomeError::causes_of(error)].concat();
            OutcomeError { causes, ..OutcomeError::new(kind, message) }
        };
        let here = here.to_owned();
        let archive = spawn_blocking(move || {
            std::fs::create_dir_all(&here)?;
            tempfile::Builder::new().prefix(".atp-").suffix(".tar").tempfile_in(here)
        });
        let archive = archive
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| failed(&error, ErrorKind::LocalFileError).with_hint(Hint::CHECK_FOLDER))?
            .into_temp_path();
        self.client.place_file(name, &archive, size, Some(sha256)).await?;
        let (whole, folder) = (guest_path.to_owned(), to.to_owned());
        let unpacked = spawn_blocking(move || unpack_folder(&archive, &whole, &folder)).await;
        match unpacked {
            Ok(unpacked) => unpacked.map_err(|error| failed(&error, error.kind())),
            Err(error) => Err(failed(&error, ErrorKind::Panicked)),
        }
    }

    fn note(&mut self, id: String, fetched: Result<(), OutcomeError>) -> Result<(), OutcomeError> {
        let kept = if fetched.is_ok() { &mut self.fetched } else { &mut self.left };
        kept.insert(id);
        fetched
    }

    /// The id of a file that the service names, and where the file belongs.
    async fn place_of(&self, name: &Path) -> Result<(String, PathBuf), OutcomeError> {
        let parts: Option<Vec<&str>> = name
            .components()
            .map(|part| match part {
                Component::Normal(part) => part.to_str(),
                _ => None,
            })
            .collect();
        let unknown = || {
            let problem = format!("the service names the file {}, which is none of this run", name.display());
            OutcomeError::new(ErrorKind::LocalFileError, problem)
        };
        let parts = parts.ok_or_else(unknown)?;
        let [id, rest @ ..] = &parts[..] else { return Err(unknown()) };
        let place = match (&self.made, rest) {
            // The last part of five is the archive of a folder.
            (Made::Pulled { destination, separate: true }, [host, vm, file] | [host, vm, file, _]) => {
                destination.join(host).join(vm).join(file)
            }
            (Made::Pulled { destination, .. }, [_, _, file] | [_, _, file, _]) => {
                let is_folder = destination.as_os_str().as_encoded_bytes().ends_with(b"/")
                    || fs::metadata(destination).await.is_ok_and(|found| found.is_dir());
                if is_folder { destination.join(file) } else { destination.clone() }
            }
            (Made::ByHost(folder), [host, file]) => folder.join(host).join(file),
            (Made::BySteps(scenario), [folder, rest @ ..]) if !rest.is_empty() => {
                // A service is not trusted with where files go: only the scenario says it.
                let folder = FilePlaces::named_folder(folder).filter(|folder| scenario.may_write_to(folder));
                folder
                    .map(|folder| rest.iter().fold(PathBuf::from(folder), |path, part| path.join(part)))
                    .ok_or_else(unknown)?
            }
            _ => return Err(unknown()),
        };
        Ok(((*id).to_owned(), place))
    }
}

fn first(name: &Path) -> Option<String> {
    name.iter().next().and_then(|id| id.to_str()).map(str::to_owned)
}

/// Why a file was not sent.
fn of_client(error: &ClientError) -> OutcomeError {
    OutcomeError { hint: error.hint(), ..OutcomeError::of(error.kind(), error) }
}
