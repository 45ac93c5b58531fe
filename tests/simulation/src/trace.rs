//! What happened in a simulation, line by line.

use std::cell::RefCell;
use std::fmt;

use tokio::time::Instant;

/// What happened in a simulation, line by line, each with its virtual time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Trace(RefCell<Vec<String>>);

impl Trace {
    /// Adds a line about something that happened now.
    pub(crate) fn add(&self, began: Instant, line: impl fmt::Display) {
        let at = began.elapsed().as_millis();
        self.0.borrow_mut().push(format!("{:>7}.{:03}  {line}", at / 1000, at % 1000));
    }

    /// Adds a line about the whole.
    pub(crate) fn head(&self, line: String) {
        self.0.borrow_mut().push(line);
    }

    /// The number of lines.
    pub fn lines(&self) -> usize {
        self.0.borrow().len()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
