//! `screenshot`: a picture of a VM's screen, as a file.

use std::io;
use std::path::{Path, PathBuf};

use atp_api::{Data, OutcomeError, ScreenshotLimits, ScreenshotReport, ScreenshotSpec, Status};
use atp_protocol::files::write_in_place;
use atp_protocol::screenshot;
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind, Hint, HostId};

use super::answer::{Answer, explain, finish, not_running};
use super::completion::Completion;
use super::facts::{Needs, VerbFacts};
use super::job::Job;
use super::scenario::fields::{Field, Shape, field};
use super::scenario::template::{Template, Values, fill_path};
use crate::safe_name::safe_name;

pub(super) static FACTS: VerbFacts = VerbFacts { needs: Needs::Active, ..VerbFacts::look("screenshot") };

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &ScreenshotSpec) -> Completion {
    let answer = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = not_running(&connection, domain, FACTS.needs).await? {
            return Ok(Answer::NotRunning(state, Effect::None));
        }
        let (limits, deadline) = (spec.limits, job.deadline());
        let taken = screenshot::take(&connection, domain.uuid, spec.screen, limits, deadline).await;
        explain(job, &connection, domain, FACTS.needs, taken).await
    });
    let mut picture = None;
    let taken = finish(job, answer.await, |taken| {
        picture = Some(taken);
        Completion::ok(Effect::None, None)
    });
    let Some(picture) = picture else { return taken };
    let report = ScreenshotReport {
        file: file_for(&spec.folder, &job.planned_on, &domain.name),
        width: picture.size.width,
        height: picture.size.height,
        bytes: picture.png.len(),
    };
    let written = match job.allowance.take(picture.png.len() as u64) {
        Ok(()) => write(report.file.clone(), picture.png).await,
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => Completion::ok(Effect::None, Data::Screenshot(report)),
        Err(error) => {
            Completion::failed(Status::Failed, Effect::None, unwritten(&job.target.host, &report, &error))
        }
    }
}

/// Writes the file and syncs it to disk. A half-written picture is never visible under its name.
async fn write(file: PathBuf, png: Vec<u8>) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || write_in_place(&file, &png));
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn unwritten(host: &HostId, report: &ScreenshotReport, error: &io::Error) -> OutcomeError {
    let message =
        format!("host {host}: the screenshot cannot be written to {}: {error}", report.file.display());
    OutcomeError::new(ErrorKind::LocalFileError, message).with_hint(Hint::CHECK_FOLDER)
}

/// The file for a VM.
fn file_for(folder: &Path, host: &HostId, vm: &str) -> PathBuf {
    // A host id is made of harmless characters, and may still be `.` or `..`.
    folder.join(safe_name(host.as_str())).join(format!("{}.png", safe_name(vm)))
}

/// The key in a step of a scenario.
pub(super) const STEP: Field = field("screenshot", Shape::Text, "Save a screenshot in this folder");

/// Makes the picture of a step. The error says what is wrong.
pub(super) fn fill(folder: &Template, values: &Values, own: &Values) -> Result<ScreenshotSpec, String> {
    let folder = fill_path(folder, values, own)?;
    Ok(ScreenshotSpec { folder, screen: 0, limits: ScreenshotLimits::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn other_files_beside_a_picture_are_not_written_to() {
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

    #[test]
    fn a_file_stays_in_its_folder_with_any_vm_name() {
        let file = |host: &str, vm| file_for(Path::new("d"), &host.parse().unwrap(), vm);
        assert_eq!(file("h1", "web-1"), Path::new("d/h1/web-1.png"));
        assert_eq!(file("..h", "../../x"), Path::new("d/%2e.h/%2e.%2f..%2fx.png"));
        assert_eq!(file("h1", ""), Path::new("d/h1/%.png"));
    }
}
