//! The testbed that all tests share, one test at a time.

use std::env;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock};

use atp_testbed::{Error, Testbed};

use crate::atp::Atp;
use crate::engine::engine;
use crate::run::Run;

/// Exclusive access to the testbed: hosts `h1`, `h2`, `h3`, each with the guests `vm1` and `vm2`.
pub struct Bed {
    testbed: &'static Testbed,
    _alone: MutexGuard<'static, ()>,
}

/// Waits until no other test has the testbed, and restores it. After a failed test the guests are reset, since the
/// test may have left anything in them.
///
/// The first caller starts the testbed. It is in a `static`, so it is removed when the process ends, also when tests
/// fail. If `ATP_TESTBED` is set, as by `testbed run --hosts 3 -- cargo test`, that bed is used and not removed.
pub fn bed() -> Bed {
    static TESTBED: OnceLock<Result<Testbed, String>> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());

    // A failed test can only have changed the bed, which is restored below.
    let (alone, may_be_changed) = match ALONE.lock() {
        Ok(alone) => (alone, false),
        Err(poisoned) => {
            ALONE.clear_poison();
            (poisoned.into_inner(), true)
        }
    };
    match TESTBED.get_or_init(|| start().map_err(|error| error.to_string())) {
        Err(error) => panic!("the testbed does not start: {error}"),
        Ok(testbed) => {
            let restored = if may_be_changed { testbed.renew() } else { testbed.restore() };
            if let Err(error) = restored {
                panic!("the testbed cannot be restored: {error}");
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
        let atp = Atp::new(args).env("ATP_TRANSPORT__ENGINE", engine().as_str());
        self.hosts().iter().fold(atp, |atp, host| {
            // Hosts are passed as an operator without a file does, through the environment; the arguments stay as
            // they are.
            atp.env(&format!("ATP_HOSTS__{}__URI", host.id().to_uppercase()), &host.uri())
        })
    }

    /// Runs `atp -o json` with these arguments on the bed, and waits for its end.
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
