//! How an event loop of asyncio learns that something has arrived.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::{mem, process};

use atp_api::Effect;
use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

use crate::error::{self, Failure};
use crate::outcomes::{Outcomes, Taken};
use crate::reservations::{Claim, Granted};

/// Answers for one event loop, and a descriptor that is readable while there are any. The runtime's threads put answers here; the
/// thread of the loop takes them.
#[pyclass(frozen)]
pub(crate) struct Bridge(Arc<Shared>);

struct Shared {
    /// The process that made it. One that was forked takes nothing from it.
    process: u32,
    descriptor: OwnedFd,
    answers: Mutex<Vec<(u64, Result<Answer, Failure>)>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if process::id() != self.process {
            // What is given back when it is dropped may need a lock that a thread has which is not there.
            mem::forget(mem::take(self.answers.get_mut()));
        }
    }
}

/// Makes an object of Python.
type Make = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// What can be waited for.
pub(crate) enum Answer {
    Outcomes(Taken),
    Texts(Vec<String>),
    Reserved(Granted),
    Made(Make),
}

impl Answer {
    /// An object that is made in the thread of the loop.
    pub(crate) fn made(make: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static) -> Self {
        Answer::Made(Box::new(make))
    }
}

/// An answer that is owed. If it is dropped without one, the answer is that the fleet was closed.
pub(crate) struct Promise {
    shared: Arc<Shared>,
    id: u64,
    /// What may have happened by then.
    effect: Effect,
    is_kept: bool,
}

impl Bridge {
    /// Owes the event loop an answer under this id. If there is none, this may have happened.
    pub(crate) fn promise(&self, id: u64, effect: Effect) -> Promise {
        Promise { shared: self.0.clone(), id, effect, is_kept: false }
    }
}

#[pymethods]
impl Bridge {
    /// A bridge without answers.
    #[new]
    fn new() -> PyResult<Self> {
        let descriptor = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|errno| PyOSError::new_err((errno.raw_os_error(), "eventfd")))?;
        Ok(Bridge(Arc::new(Shared { process: process::id(), descriptor, answers: Mutex::default() })))
    }

    /// The descriptor, for `loop.add_reader`.
    fn fileno(&self) -> i32 {
        self.0.descriptor.as_raw_fd()
    }

    /// Takes what has arrived: ids, each with what was asked for or an exception.
    fn take(&self, py: Python<'_>) -> PyResult<Vec<(u64, Py<PyAny>)>> {
        if process::id() != self.0.process {
            return Err(error::forked(py));
        }
        // Nothing to read is no failure: the answers are what counts.
        let _read = read(&self.0.descriptor, &mut [0; 8]);
        let answers = mem::take(&mut *self.0.answers.lock());
        let object = |answer| match answer {
            Ok(Answer::Outcomes(taken)) => Ok(Py::new(py, Outcomes::from(taken))?.into_any()),
            Ok(Answer::Texts(texts)) => Ok(texts.into_pyobject(py)?.unbind()),
            Ok(Answer::Reserved(granted)) => Ok(Py::new(py, Claim::from(granted))?.into_any()),
            Ok(Answer::Made(make)) => make(py),
            Err(failure) => Err(error::failed(py, &failure)),
        };
        // An answer that cannot be made into an object takes no other with it.
        let objects = answers.into_iter().map(|(id, answer)| {
            (id, object(answer).unwrap_or_else(|error: PyErr| error.into_value(py).into_any()))
        });
        Ok(objects.collect())
    }
}

impl Promise {
    /// Gives the answer.
    pub(crate) fn keep(mut self, answer: Result<Answer, Failure>) {
        self.is_kept = true;
        self.shared.put(self.id, answer);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.is_kept {
            let failure = Failure { effect: self.effect, ..Failure::from(error::closed()) };
            self.shared.put(self.id, Err(failure));
        }
    }
}

impl Shared {
    fn put(&self, id: u64, answer: Result<Answer, Failure>) {
        let mut answers = self.answers.lock();
        answers.push((id, answer));
        if answers.len() == 1 {
            // Fails only when the counter is full, and then the descriptor is readable.
            let _written = write(&self.descriptor, &1_u64.to_ne_bytes());
        }
    }
}
