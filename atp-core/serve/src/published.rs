//! The names by which clients fetch files, in the place of paths of the service's machine.

use std::path::{Path, PathBuf};

use atp_api::{Data, Outcome, Stream};

/// Whether an outcome may name files.
pub(crate) fn has_files(outcome: &Outcome) -> bool {
    matches!(outcome.data, Some(Data::File(_) | Data::Screenshot(_) | Data::Console(_) | Data::Scenario(_)))
}

/// The most bytes of what programs printed that are kept of an outcome: the store holds each whole, and so do its readers.
const MOST_OUTPUT: usize = 8 << 20;

/// Whether an outcome has more of what programs printed than is kept.
pub(crate) fn is_too_long(outcome: &Outcome) -> bool {
    let of = |data: &Option<Data>| match data {
        Some(Data::Exec(report)) => report.stdout.bytes.len() + report.stderr.bytes.len(),
        _ => 0,
    };
    let of_steps = match &outcome.data {
        Some(Data::Scenario(report)) => {
            report.steps.iter().chain(&report.teardown).map(|step| of(&step.data)).sum()
        }
        _ => 0,
    };
    of(&outcome.data) + of_steps > MOST_OUTPUT
}

/// Cuts off what programs printed beyond that, with the mark for it.
pub(crate) fn shorten(outcome: &mut Outcome) {
    let mut left = MOST_OUTPUT;
    let mut cut = |stream: &mut Stream| {
        if stream.bytes.len() > left {
            stream.bytes.truncate(left);
            stream.bytes.shrink_to_fit();
            stream.truncated = true;
        }
        left -= stream.bytes.len();
    };
    let mut cut_both = |data: &mut Option<Data>| {
        if let Some(Data::Exec(report)) = data {
            cut(&mut report.stdout);
            cut(&mut report.stderr);
        }
    };
    cut_both(&mut outcome.data);
    if let Some(Data::Scenario(report)) = &mut outcome.data {
        report.steps.iter_mut().chain(&mut report.teardown).for_each(|step| cut_both(&mut step.data));
    }
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

#[cfg(test)]
mod tests {
    use atp_api::ExecReport;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_programs_printed_is_cut_off_with_a_mark() {
        let outcome = json!({
            "host": "h1", "vm": "vm1", "uuid": null, "op": "exec", "status": "ok", "effect": "done", "attempts": 1,
            "duration_ms": 1, "data": null, "error": null,
        });
        let mut outcome: Outcome = serde_json::from_value(outcome).unwrap();
        let stream = |length| Stream { bytes: vec![b'x'; length], ..Stream::default() };
        let mut kept = |stdout, stderr| {
            let report = ExecReport {
                exit_code: Some(0),
                signal: None,
                stdout: stream(stdout),
                stderr: stream(stderr),
            };
            outcome.data = Some(Data::Exec(report));
            let is_long = is_too_long(&outcome);
            shorten(&mut outcome);
            assert!(!is_too_long(&outcome));
            let Some(Data::Exec(report)) = &outcome.data else { panic!("{outcome:?}") };
            let of = |stream: &Stream| (stream.bytes.len(), stream.truncated);
            (is_long, of(&report.stdout), of(&report.stderr))
        };
        assert_eq!(kept(MOST_OUTPUT, 0), (false, (MOST_OUTPUT, false), (0, false)));
        assert_eq!(kept(MOST_OUTPUT - 1, 2), (true, (MOST_OUTPUT - 1, false), (1, true)));
        assert_eq!(kept(MOST_OUTPUT + 1, 1), (true, (MOST_OUTPUT, true), (0, true)));
    }
}
