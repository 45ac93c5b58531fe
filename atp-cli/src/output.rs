//! stdout, for data only. When its reader closes it, writing ends and the work continues.

use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::exit::{SUCCESS, TARGETS_FAILED};
use crate::problem::Problem;

/// The format of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OutputFormat {
    /// Tables for people; equal outputs are grouped
    Table,
    /// One sorted array of outcomes, at the end
    Json,
    /// One outcome per line, as each target finishes
    Jsonl,
    /// A header and one row per outcome, sorted, at the end
    Csv,
    /// A selector for each successful target, sorted, at the end; other atp commands accept it
    Name,
}

/// Writes data to stdout.
pub(crate) struct Output {
    writer: Box<dyn Write + Send>,
    state: State,
}

enum State {
    Open,
    /// The reader is gone; the rest is dropped silently, as a pipe into `head` expects.
    ReaderGone,
    /// Writing failed otherwise, as on a full disk: data is lost, which has to be reported.
    Failed(io::Error),
}

impl Output {
    /// The process's stdout; the colour setting decides whether styles are kept or stripped.
    pub(crate) fn stdout() -> Self {
        Output::to(Box::new(anstream::stdout()))
    }

    fn to(writer: Box<dyn Write + Send>) -> Self {
        Output { writer, state: State::Open }
    }

    /// Writes text and flushes it.
    pub(crate) fn write(&mut self, text: &str) {
        if !matches!(self.state, State::Open) {
            return;
        }
        let result = self.writer.write_all(text.as_bytes()).and_then(|()| self.writer.flush());
        if let Err(error) = result {
            self.state = match error.kind() {
                ErrorKind::BrokenPipe => State::ReaderGone,
                _ => State::Failed(error),
            };
        }
    }

    /// Whether text that is written may still be read.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Ends writing.
    ///
    /// # Errors
    /// The first error, except a reader that closed stdout.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self.state {
            State::Failed(error) => Err(error),
            State::Open | State::ReaderGone => Ok(()),
        }
    }

    /// Ends writing and reports an error. Returns the exit code of a verb that has no targets.
    pub(crate) fn end(self, console: &Console) -> u8 {
        match self.finish() {
            Ok(()) => SUCCESS,
            Err(error) => {
                console.problem(&Problem::new("the report could not be written to stdout").because(&error));
                TARGETS_FAILED
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_reader_is_no_error() {
        let mut output = Output::to(Box::new(Broken(ErrorKind::BrokenPipe)));
        output.write("a");
        output.write("b");
        assert!(output.finish().is_ok());
    }

    #[test]
    fn lost_data_is_an_error() {
        let mut output = Output::to(Box::new(Broken(ErrorKind::StorageFull)));
        output.write("a");
        assert_eq!(output.finish().unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
