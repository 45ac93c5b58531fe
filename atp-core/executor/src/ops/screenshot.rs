//! Taking a picture of a VM's screen.

use std::io;
use std::path::PathBuf;

use atp_protocol::screenshot;
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, HostId};

use super::Job;
use super::guest::{Asked, explain, finish, not_running};
use crate::completion::Completion;
use crate::error::OutcomeError;
use crate::operation::Operation;
use crate::outcome::{Data, Status};
use crate::screenshot::{ScreenshotReport, ScreenshotSpec, file_for};

pub(super) async fn take(
    job: &Job<'_>,
    operation: &Operation,
    domain: &DomainInfo,
    spec: &ScreenshotSpec,
) -> Completion {
    let deadline = job.attempt.deadline();
    let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = not_running(&connection, operation, domain).await? {
            return Ok(Asked::NotRunning(state, Effect::None));
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

/// Writes the file beside its place and moves it there: nobody sees half a picture.
async fn write(file: PathBuf, png: Vec<u8>) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let unfinished = file.with_extension("png.part");
        let written = std::fs::write(&unfinished, png).and_then(|()| std::fs::rename(&unfinished, file));
        if written.is_err() {
            // Half a picture is of use to nobody, least of all on a full disk.
            let _ = std::fs::remove_file(unfinished);
        }
        written
    });
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn unwritten(host: &HostId, report: &ScreenshotReport, error: &io::Error) -> OutcomeError {
    let message = format!("host {host}: the picture cannot be written to {}: {error}", report.file.display());
    OutcomeError::new("local-file-error", message)
        .with_hint("check the folder given with -d, and the space there")
}
