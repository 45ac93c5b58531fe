//! Files of runs through a service: what they read is sent to it before, what they make is fetched as their outcomes come.

use std::path::{Component, Path, PathBuf};

use atp_api::{
    Data, ErrorKind, FileReport, OperationSpec, Outcome, OutcomeError, PullSpec, PushSpec, ScreenshotReport,
    Status,
};
use atp_client::{Client, FileSize};

use crate::error;

/// The largest file of a console, in bytes.
const MOST_CONSOLE: u64 = 4 << 30;

/// The files of one run.
pub(crate) struct Files {
    client: Client,
    places: Places,
}

/// Where files of the run are on this machine.
enum Places {
    None,
    /// The file that was sent, and its id in the service.
    Sent(PathBuf, String),
    /// The folder with a place for each VM's file.
    Pulled(PathBuf),
    /// The folder with a folder for each host: of pictures, or of what consoles wrote.
    ByHost(PathBuf),
}

impl Files {
    /// Sends the file that an operation reads, and names it as the service does.
    ///
    /// # Errors
    /// It cannot be read or sent; the operation's files cannot go through a service.
    pub(crate) async fn send(client: &Client, operation: &mut OperationSpec) -> Result<Self, OutcomeError> {
        // The service puts folders of its own in the place of this.
        let there = || PathBuf::from(".");
        let places = match operation {
            OperationSpec::Push(PushSpec { recursive: true, .. })
            | OperationSpec::Pull(PullSpec { recursive: true, .. }) => {
                return Err(error::invalid("folders are not copied through a service")
                    .with_hint("use a Fleet that connects to the hosts itself"));
            }
            OperationSpec::Push(push) => {
                let id = client.send_file(&push.source).await.map_err(|error| error::of_client(&error))?.id;
                let source = std::mem::replace(&mut push.source, PathBuf::from(&id));
                Places::Sent(source, id)
            }
            OperationSpec::Pull(pull) if pull.separate => {
                Places::Pulled(std::mem::replace(&mut pull.destination, there()))
            }
            OperationSpec::Screenshot(spec) => Places::ByHost(std::mem::replace(&mut spec.folder, there())),
            OperationSpec::Pull(_) => {
                return Err(error::invalid("through a service, files are pulled into a folder for each VM")
                    .with_hint("use the verb pull, or \"separate\": true"));
            }
            OperationSpec::Console(spec) => match &mut spec.folder {
                Some(folder) => Places::ByHost(std::mem::replace(folder, there())),
                None => Places::None,
            },
            _ => Places::None,
        };
        Ok(Files { client: client.clone(), places })
    }

    /// Fetches the file of an outcome, and names it as it is here. The outcome fails if that does.
    pub(crate) async fn fetch(&self, outcome: &mut Outcome) {
        let fetched = match &mut outcome.data {
            Some(Data::File(FileReport { local_path, bytes, sha256, .. })) => match &self.places {
                Places::Sent(source, _) => {
                    local_path.clone_from(source);
                    Ok(())
                }
                _ => self.fetch_one(local_path, FileSize::Is(*bytes), Some(sha256)).await,
            },
            Some(Data::Screenshot(ScreenshotReport { file, bytes, .. })) => {
                self.fetch_one(file, FileSize::Is(*bytes as u64), None).await
            }
            Some(Data::Console(report)) => match &mut report.file {
                // The marks between what was captured are not counted in the report.
                Some(file) => self.fetch_one(file, FileSize::AtMost(MOST_CONSOLE), None).await,
                None => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(error) = fetched {
            outcome.data = None;
            if outcome.status.is_success() {
                outcome.status = Status::Failed;
                outcome.error = Some(error);
            }
        }
    }

    /// Has the service remove what was sent. It does so later by itself if that fails.
    pub(crate) async fn remove(&self) {
        if let Places::Sent(_, id) = &self.places {
            let _kept = self.client.remove_file(id).await;
        }
    }

    async fn fetch_one(
        &self,
        name: &mut PathBuf,
        size: FileSize,
        sha256: Option<&String>,
    ) -> Result<(), OutcomeError> {
        let to = self.place_of(name)?;
        let sha256 = sha256.map(String::as_str);
        self.client.place_file(name, &to, size, sha256).await?;
        *name = to;
        Ok(())
    }

    /// Where a file belongs that the service names. No name leads out of the folder.
    fn place_of(&self, name: &Path) -> Result<PathBuf, OutcomeError> {
        let parts = name.components().map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        });
        let parts = parts.collect::<Option<Vec<_>>>().unwrap_or_default();
        match (&self.places, &parts[..]) {
            (Places::Pulled(folder), [_, host, vm, file]) => Ok(folder.join(host).join(vm).join(file)),
            (Places::ByHost(folder), [_, host, file]) => Ok(folder.join(host).join(file)),
            _ => {
                let problem =
                    format!("the service names the file {}, which is none of this run", name.display());
                Err(OutcomeError::new(ErrorKind::LocalFileError, problem))
            }
        }
    }
}
