//! How much the store keeps of what operations yield.

use std::error::Error;

use atp_api::{Data, ErrorKind, Outcome, OutcomeError, Status, Stream};

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
    shorten_to(outcome, MOST_OUTPUT);
}

/// The same for another bound. Returns how many bytes of it are left.
pub(crate) fn shorten_to(outcome: &mut Outcome, most: usize) -> usize {
    let mut left = most;
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
    left
}

/// The most bytes of a message that stands in the place of what the store refuses.
const MOST_MESSAGE: usize = 1000;

/// Takes out of an outcome what the store refuses for good, and has it say so. An operation that had succeeded has failed then, as what
/// it yielded is not there.
pub(crate) fn take_out(outcome: &mut Outcome, why: &dyn Error) {
    let why = OutcomeError::in_full(why);
    let mut told = format!("the store refuses what the operation yielded, and does not keep it: {why}");
    told.truncate(told.floor_char_boundary(MOST_MESSAGE));
    outcome.data = None;
    match &mut outcome.error {
        Some(error) => {
            error.message.truncate(error.message.floor_char_boundary(MOST_MESSAGE));
            error.causes = vec![told];
        }
        None => {
            outcome.status = Status::Failed;
            outcome.error = Some(OutcomeError::new(ErrorKind::StorageFailed, told));
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
        assert_eq!((shorten_to(&mut outcome, MOST_OUTPUT + 3), shorten_to(&mut outcome, 1)), (3, 0));
    }

    #[test]
    fn an_outcome_says_that_what_it_had_is_not_kept_and_keeps_its_own_error() {
        let outcome = json!({
            "host": "h1", "vm": "vm1", "uuid": null, "op": "qmp", "status": "ok", "effect": "done", "attempts": 1,
            "duration_ms": 1, "data": {"much": 1}, "error": null,
        });
        let mut outcome: Outcome = serde_json::from_value(outcome).unwrap();
        take_out(&mut outcome, &std::io::Error::other("é".repeat(MOST_MESSAGE)));
        assert_eq!((outcome.status, &outcome.data), (Status::Failed, &None));
        let error = outcome.error.as_mut().unwrap();
        assert_eq!(error.kind, ErrorKind::StorageFailed);
        assert!(error.message.contains("does not keep it: é") && error.message.len() <= MOST_MESSAGE);

        *error = OutcomeError::new(ErrorKind::GuestFileError, "y".repeat(2 * MOST_MESSAGE));
        outcome.status = Status::Timeout;
        take_out(&mut outcome, &std::io::Error::other("refused"));
        let error = outcome.error.unwrap();
        assert_eq!((outcome.status, &error.kind), (Status::Timeout, &ErrorKind::GuestFileError));
        assert!(error.message.len() <= MOST_MESSAGE && error.causes[0].ends_with(": refused"), "{error:?}");
    }
}
