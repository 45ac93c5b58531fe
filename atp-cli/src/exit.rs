//! The exit codes, and which one takes precedence.

/// Every target is `ok` or `unchanged`.
pub(crate) const SUCCESS: u8 = 0;
/// At least one target is not.
pub(crate) const TARGETS_FAILED: u8 = 1;
/// A usage or configuration error, or a refused prompt; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// The selectors, all of them globs, matched nothing.
pub(crate) const MATCHED_NOTHING: u8 = 4;
/// The run was stopped early by its own policy: too many failures, or no time left.
pub(crate) const STOPPED_EARLY: u8 = 5;
/// A bug in atp.
pub(crate) const BUG: u8 = 70;

/// A signal that asks the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP, as the end of a terminal sends it.
    Hangup,
    /// SIGQUIT.
    Quit,
}

impl Signal {
    /// The exit code of a process this signal ended: 128 and the signal's number.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
            Signal::Hangup => 129,
            Signal::Quit => 131,
        }
    }
}

/// What is known about a run when it has ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ending {
    /// Something happened that only a bug can explain.
    pub(crate) bug: bool,
    /// The signal that interrupted the run.
    pub(crate) signal: Option<Signal>,
    /// The run's own policy ended it early.
    pub(crate) stopped_early: bool,
    /// At least one target is neither `ok` nor `unchanged`, or its report could not be written.
    pub(crate) failures: bool,
    /// The selectors matched nothing, and every host was listed.
    pub(crate) matched_nothing: bool,
}

impl Ending {
    /// The exit code. Precedence: a bug, a signal, an early stop, failures, an empty match.
    pub(crate) fn code(self) -> u8 {
        match self {
            Ending { bug: true, .. } => BUG,
            Ending { signal: Some(signal), .. } => signal.exit_code(),
            Ending { stopped_early: true, .. } => STOPPED_EARLY,
            Ending { failures: true, .. } => TARGETS_FAILED,
            Ending { matched_nothing: true, .. } => MATCHED_NOTHING,
            _ => SUCCESS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_serious_reason_takes_precedence() {
        let int = Some(Signal::Interrupt);
        let term = Some(Signal::Terminate);
        // bug, signal, stopped early, failures, matched nothing, expected code
        let table = [
            (false, None, false, false, false, 0),
            (false, None, false, false, true, 4),
            (false, None, false, true, false, 1),
            (false, None, false, true, true, 1),
            (false, None, true, true, false, 5),
            (false, None, true, false, false, 5),
            (false, int, false, false, false, 130),
            (false, term, false, false, false, 143),
            (false, int, true, true, true, 130),
            (false, term, true, true, false, 143),
            (true, None, false, false, false, 70),
            (true, None, true, true, true, 70),
            (true, int, false, true, false, 70),
            (true, term, true, false, true, 70),
        ];
        for (bug, signal, stopped_early, failures, matched_nothing, code) in table {
            let ending = Ending { bug, signal, stopped_early, failures, matched_nothing };
            assert_eq!(ending.code(), code, "{ending:?}");
        }
    }
}
