//! The names by which clients fetch files, in the place of paths of the service's machine.

use std::path::{Path, PathBuf};

use atp_api::{Data, Outcome};

/// Whether an outcome may name files.
pub(crate) fn has_files(outcome: &Outcome) -> bool {
    matches!(outcome.data, Some(Data::File(_) | Data::Screenshot(_) | Data::Console(_) | Data::Scenario(_)))
}

/// Names the files of an outcome that are below the folder of files by their paths in it: the first part is an id.
pub(crate) fn publish(files: &Path, outcome: &mut Outcome) {
    let name = |path: &mut PathBuf| {
        if let Ok(inside) = path.strip_prefix(files) {
            *path = inside.to_owned();
        }
    };
    let published = |data: &mut Option<Data>| match data {
        Some(Data::File(report)) => name(&mut report.local_path),
        Some(Data::Screenshot(report)) => name(&mut report.file),
        Some(Data::Console(report)) => report.file.iter_mut().for_each(name),
        _ => {}
    };
    published(&mut outcome.data);
    if let Some(Data::Scenario(report)) = &mut outcome.data {
        report.steps.iter_mut().chain(&mut report.teardown).for_each(|step| published(&mut step.data));
        if let Some(evidence) = &mut report.evidence {
            let folder = evidence.folder.display().to_string();
            name(&mut evidence.folder);
            // The error says where the evidence is.
            for cause in outcome.error.iter_mut().flat_map(|error| &mut error.causes) {
                *cause = cause.replace(&folder, &evidence.folder.display().to_string());
            }
        }
    }
}
