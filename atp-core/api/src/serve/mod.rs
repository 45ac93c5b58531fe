//! What the service's HTTP API says beyond plans, runs and outcomes.

mod file;
mod host;
mod problem;
mod reservation;
mod run;
mod session;
mod verb;
mod vm;

pub use file::FileView;
pub use host::{BreakerView, HealthView, HostView, PoolView};
pub use problem::{FieldProblem, Problem};
pub use reservation::{ReleaseRequest, Reservation, ReserveAnswer, ReserveRequest, ReservedVms};
pub use run::{OutcomePage, RunState, RunSummary};
pub use session::{Login, Role, SessionView};
pub use verb::{VerbName, VerbView};
pub use vm::{StaleHost, VmEntry, VmFacts, VmListing};
