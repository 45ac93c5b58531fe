//! Taking a picture of a VM's screen.

use std::io;
use std::path::PathBuf;

use atp_protocol::files::write_in_place;
use atp_protocol::screenshot;
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind, Hint, HostId};

use super::Job;
use super::answer::{Answer, explain, finish, not_running};
use crate::error::OutcomeError;
use crate::operation::Operation;
use crate::outcome::{Data, Status};
use crate::screenshot::{ScreenshotReport, ScreenshotSpec, file_for};
use crate::verbs::completion::Completion;

pub(super) async fn take(
    job: &Job<'_>,
    operation: &Operation,
    domain: &DomainInfo,
    spec: &ScreenshotSpec,
) -> Completion {
    let deadline = job.attempt.deadline();
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = not_running(&connection, operation, domain).await? {
            return Ok(Answer::NotRunning(state, Effect::None));
        }
        let taken = screenshot::take(&connection, domain.uuid, spec.screen, spec.limits, deadline).await;
        explain(job, &connection, operation, domain, taken).await
    });
    let mut picture = None;
    let looked = finish(job, domain, asked.await, |taken| {
        picture = Some(taken);
        Completion::ok(Effect::None, None)
    });
    let Some(picture) = picture else { return looked };
    let report = ScreenshotReport {
        file: file_for(&spec.folder, &job.target.host, &domain.name),
        width: picture.size.width,
        height: picture.size.height,
        bytes: picture.png.len(),
    };
    match write(report.file.clone(), picture.png).await {
        Ok(()) => Completion::ok(Effect::None, Data::Screenshot(report)),
        Err(error) => {
            Completion::failed(Status::Failed, Effect::None, unwritten(&job.target.host, &report, &error))
        }
    }
}

/// Writes the file, which is on disk then. Nobody sees half a picture.
async fn write(file: PathBuf, png: Vec<u8>) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || write_in_place(&file, &png));
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn unwritten(host: &HostId, report: &ScreenshotReport, error: &io::Error) -> OutcomeError {
    let message = format!("host {host}: the picture cannot be written to {}: {error}", report.file.display());
    OutcomeError::new(ErrorKind::LocalFileError, message).with_hint(Hint::CHECK_FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn what_stands_beside_a_picture_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (picture, other) = (folder.path().join("h1/vm.png"), folder.path().join("other"));
        fs::create_dir(folder.path().join("h1")).unwrap();
        fs::write(&other, "precious").unwrap();
        symlink(&other, picture.with_extension("png.part")).unwrap();
        write(picture.clone(), b"png".into()).await.unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        assert_eq!(fs::read(&picture).unwrap(), b"png");
        assert!(!picture.is_symlink());
        // The picture, and what was there.
        assert_eq!(fs::read_dir(folder.path().join("h1")).unwrap().count(), 2);
    }
}
