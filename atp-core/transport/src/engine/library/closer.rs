//! Closes connections that are not used any more, on threads of its own.
//!
//! Closing is a call to the daemon, and blocks for as long as the daemon hangs. A close that hangs holds its own thread
//! and nothing else: neither another close nor a call, whose threads are others. At the bound of its threads closes
//! queue, and go on as soon as one returns.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::threads::{CallThreads, ThreadsExhausted};
use crate::sync::panics::panic_message;

/// Most closes at once. When a network fails, all its connections are closed at the same time, and each close takes until
/// keepalive gives the daemon up; so there are many, and what they hold is a small stack each.
const MAX_THREADS: usize = 256;
/// How long a thread is kept for the next close.
const THREAD_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A close that takes longer hangs. Keepalive, where it is on, ends one before: after half a minute as configured by
/// default.
const HUNG_AFTER: Duration = Duration::from_secs(60);
/// When to try again where the system gives no thread.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A connection that is to be closed.
pub(super) struct Unused<T> {
    /// Where it leads, without a password.
    pub(super) uri: Arc<str>,
    /// Its drop closes it.
    pub(super) link: T,
}

/// Starts the thread that hands closes to other threads. It ends with the last sender, when all closes were started.
pub(super) fn start<T: Send + 'static>() -> mpsc::Sender<Unused<T>> {
    let (sender, receiver) = mpsc::channel();
    let closer = Closer::new(MAX_THREADS, HUNG_AFTER);
    let thread = thread::Builder::new().name("atp-closer".to_owned());
    if let Err(error) = thread.spawn(move || closer.run(receiver)) {
        tracing::error!(%error, "cannot start the thread that closes connections; they will stay open");
    }
    sender
}

struct Closer {
    threads: CallThreads,
    hung_after: Duration,
    closing: Arc<Closing>,
    /// Whether it was reported that closes hang: once, until none does.
    reported_hung: bool,
    /// Whether it was reported that closes wait for a thread: once, until one has not had to.
    reported_queue: bool,
}

/// The closes under way, in the order in which they were started.
#[derive(Default)]
struct Closing {
    under_way: Mutex<BTreeMap<u64, Close>>,
}

struct Close {
    since: Instant,
    uri: Arc<str>,
}

impl Closer {
    fn new(max_threads: usize, hung_after: Duration) -> Self {
        Closer {
            threads: CallThreads::new(max_threads, THREAD_IDLE_TIMEOUT),
            hung_after,
            closing: Arc::default(),
            reported_hung: false,
            reported_queue: false,
        }
    }

    fn run<T: Send + 'static>(mut self, receiver: mpsc::Receiver<Unused<T>>) {
        for number in 0.. {
            let unused = loop {
                let received = match self.next_report() {
                    Some(wait) => receiver.recv_timeout(wait),
                    None => receiver.recv().map_err(RecvTimeoutError::from),
                };
                self.report_hung();
                match received {
                    Ok(unused) => break unused,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            };
            self.close(number, unused);
        }
    }

    /// Starts a close, as soon as there is a thread for it.
    fn close<T: Send + 'static>(&mut self, number: u64, Unused { uri, link }: Unused<T>) {
        // Shared with the job, since a job that is refused is dropped: here, that would be the close itself.
        let link = Arc::new(Mutex::new(Some(link)));
        let mut waited = false;
        while let Err(ThreadsExhausted { threads }) = self.try_close(number, &uri, &link) {
            waited = true;
            if !self.reported_queue {
                self.reported_queue = true;
                let hung = self.hung();
                tracing::warn!(
                    threads,
                    hung,
                    "no thread to close a connection on; closes wait for others to return"
                );
            }
            // A close that returns unparks this thread.
            thread::park_timeout(RETRY_AFTER);
            self.report_hung();
        }
        self.reported_queue &= waited;
    }

    fn try_close<T: Send + 'static>(
        &self,
        number: u64,
        uri: &Arc<str>,
        link: &Arc<Mutex<Option<T>>>,
    ) -> Result<(), ThreadsExhausted> {
        self.closing.under_way.lock().insert(number, Close { since: Instant::now(), uri: uri.clone() });
        let (uri, link, closing, closer) =
            (uri.clone(), link.clone(), self.closing.clone(), thread::current());
        let started = self.threads.run(
            move || {
                let link = link.lock().take();
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(link))) {
                    let reason = panic_message(panic.as_ref());
                    tracing::warn!(%uri, reason, "closing a connection failed");
                }
                closing.under_way.lock().remove(&number);
            },
            move |()| closer.unpark(),
        );
        if started.is_err() {
            self.closing.under_way.lock().remove(&number);
        }
        started
    }

    /// How many closes hang.
    fn hung(&self) -> usize {
        self.closing
            .under_way
            .lock()
            .values()
            .take_while(|close| close.since.elapsed() >= self.hung_after)
            .count()
    }

    /// After what time the oldest close that is under way hangs, if that is to be reported.
    fn next_report(&self) -> Option<Duration> {
        let under_way = self.closing.under_way.lock();
        let oldest = under_way.values().next().filter(|_| !self.reported_hung)?;
        Some(self.hung_after.saturating_sub(oldest.since.elapsed()))
    }

    fn report_hung(&mut self) {
        let hung = self.hung();
        if hung > 0 && !self.reported_hung {
            let uri = self.closing.under_way.lock().values().next().map(|oldest| oldest.uri.clone());
            tracing::warn!(
                hung,
                uri = uri.as_deref(),
                after = ?self.hung_after,
                "closing a connection hangs; it holds a thread and its descriptor until the daemon answers"
            );
        }
        self.reported_hung = hung > 0;
    }
}

impl Closing {}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT_LIMIT: Duration = Duration::from_secs(30);

    /// A link whose close says that it has begun, and then returns or hangs.
    struct Link {
        number: usize,
        closed: mpsc::Sender<usize>,
        hangs: Option<mpsc::Receiver<()>>,
    }

    impl Drop for Link {
        fn drop(&mut self) {
            let _gone = self.closed.send(self.number);
            if let Some(hangs) = &self.hangs {
                // Until the test drops the sender.
                let _released = hangs.recv();
            }
        }
    }

    /// A closer with so many threads: what it is sent, and the closes under way.
    fn closer<T: Send + 'static>(threads: usize) -> (impl Fn(T), Arc<Closing>) {
        let (sender, receiver) = mpsc::channel();
        let closer = Closer::new(threads, HUNG_AFTER);
        let closing = closer.closing.clone();
        thread::spawn(move || closer.run(receiver));
        let send = move |link| sender.send(Unused { uri: "test:///default".into(), link }).unwrap();
        (send, closing)
    }

    #[test]
    fn a_close_that_hangs_holds_up_no_other() {
        let (close, closing) = closer(2);
        let (closed, closes) = mpsc::channel();
        let (release, hangs) = mpsc::channel();
        close(Link { number: 0, closed: closed.clone(), hangs: Some(hangs) });
        assert_eq!(closes.recv_timeout(WAIT_LIMIT), Ok(0));
        for number in 1..=100 {
            close(Link { number, closed: closed.clone(), hangs: None });
        }
        for number in 1..=100 {
            assert_eq!(closes.recv_timeout(WAIT_LIMIT), Ok(number));
        }
        assert!(closing.under_way.lock().contains_key(&0), "the one that hangs is not counted");
        drop(release);
    }

    #[test]
    fn at_the_bound_closes_wait_and_go_on_when_one_returns() {
        let (close, closing) = closer(2);
        let (closed, closes) = mpsc::channel();
        let (releases, gates): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel()).unzip();
        for (number, hangs) in gates.into_iter().enumerate() {
            close(Link { number, closed: closed.clone(), hangs: Some(hangs) });
        }
        for number in 2..10 {
            close(Link { number, closed: closed.clone(), hangs: None });
        }
        let mut begun = [(); 2].map(|()| closes.recv_timeout(WAIT_LIMIT).unwrap());
        begun.sort_unstable();
        assert_eq!(begun, [0, 1]);
        assert!(closes.try_recv().is_err(), "more closes at once than the bound");
        let mut releases = releases.into_iter();
        drop(releases.next());
        // The other one still hangs.
        for number in 2..10 {
            assert_eq!(closes.recv_timeout(WAIT_LIMIT), Ok(number));
        }
        drop(releases);
        while !closing.under_way.lock().is_empty() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_close_that_panics_costs_no_thread() {
        struct Panics(Option<mpsc::Sender<()>>);
        impl Drop for Panics {
            fn drop(&mut self) {
                match &self.0 {
                    Some(closed) => closed.send(()).unwrap(),
                    None => std::panic::resume_unwind(Box::new("expected")),
                }
            }
        }
        let (close, _) = closer(1);
        let (closed, closes) = mpsc::channel();
        close(Panics(None));
        close(Panics(Some(closed)));
        closes.recv_timeout(WAIT_LIMIT).unwrap();
    }

    #[test]
    fn closes_that_hang_are_counted_until_they_return() {
        let mut closer = Closer::new(2, Duration::ZERO);
        let (closed, closes) = mpsc::channel();
        let (release, hangs) = mpsc::channel();
        let link = Link { number: 0, closed, hangs: Some(hangs) };
        closer.try_close(0, &"test:///default".into(), &Arc::new(Mutex::new(Some(link)))).unwrap();
        closes.recv_timeout(WAIT_LIMIT).unwrap();
        assert_eq!(closer.hung(), 1);
        assert!(closer.next_report().is_some());
        closer.report_hung();
        assert!(closer.next_report().is_none(), "reported again and again");
        drop(release);
        while closer.hung() > 0 {
            thread::yield_now();
        }
        closer.report_hung();
        assert!(!closer.reported_hung, "the next one that hangs is not reported");
    }
}
