//! What does not survive a fork.

use std::mem;
use std::process;

use pyo3::prelude::*;

use crate::error;

/// Something that only the process that made it may use, or drop.
pub(crate) struct Forked<T> {
    process: u32,
    /// None while it is dropped.
    value: Option<T>,
}

impl<T> Forked<T> {
    pub(crate) fn new(value: T) -> Self {
        Forked { process: process::id(), value: Some(value) }
    }

    /// # Errors
    /// In a process that was forked.
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        let value = self.value.as_ref().filter(|_| process::id() == self.process);
        value.ok_or_else(|| error::forked(py))
    }
}

impl<T> Drop for Forked<T> {
    fn drop(&mut self) {
        if process::id() != self.process {
            // A lock in it may be held by a thread that is not there.
            mem::forget(self.value.take());
        }
    }
}
