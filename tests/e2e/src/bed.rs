//! The testbed all tests share, to one test at a time.

use std::env;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock};

use atp_testbed::{Error, Testbed};

use crate::atp::Atp;
use crate::run::Run;

/// The testbed while one test has it: hosts `h1`, `h2`, `h3`, each with the guests `vm1` and `vm2`.
pub struct Bed {
    testbed: &'static Testbed,
    _alone: MutexGuard<'static, ()>,
}

/// Waits until no other test has the testbed, and until all of it is in order again. After a test that failed that
/// means guests as new: it may have left anything in them.
///
/// The first caller starts it. As it is in a `static`, it is removed when the process ends, also when tests fail.
/// With `ATP_TESTBED` set, as `testbed run --hosts 3 -- cargo test` does it, that bed is used and left alone.
pub fn bed() -> Bed {
    static TESTBED: OnceLock<Result<Testbed, String>> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());

    // A test that failed has hurt the bed at most, and that is mended below.
    let (alone, is_hurt) = match ALONE.lock() {
        Ok(alone) => (alone, false),
        Err(poisoned) => {
            ALONE.clear_poison();
            (poisoned.into_inner(), true)
        }
    };
    match TESTBED.get_or_init(|| start().map_err(|error| error.to_string())) {
        Err(error) => panic!("the testbed does not start: {error}"),
        Ok(testbed) => {
            let mended = if is_hurt { testbed.renew() } else { testbed.restore() };
            if let Err(error) = mended {
                panic!("the testbed cannot be put in order: {error}");
            }
            Bed { testbed, _alone: alone }
        }
    }
}

fn start() -> Result<Testbed, Error> {
    match env::var("ATP_TESTBED").ok().and_then(|number| number.parse().ok()) {
        Some(number) => Testbed::attach(number),
        None => Testbed::builder().hosts(3).guests(2).start(),
    }
}

impl Bed {
    /// `atp` with these arguments and the hosts of the bed as its inventory.
    pub fn atp(&self, args: &[&str]) -> Atp {
        let atp = Atp::new(args);
        self.hosts().iter().fold(atp, |atp, host| {
            // The way an operator would without a file; it leaves the arguments as they are.
            atp.env(&format!("ATP_HOSTS__{}__URI", host.id().to_uppercase()), &host.uri())
        })
    }

    /// Runs `atp -o json` with these arguments on the bed, to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Run {
        self.atp(args).output("json").run()
    }
}

impl Deref for Bed {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        self.testbed
    }
}
