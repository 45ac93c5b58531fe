//! A client of ATP's service: runs over its warm connections, as typed calls and streams.
//!
//! A [`Client`] has the service's address and a token. A run is planned, started and read event by event; a stream that breaks
//! is continued where it broke, so each outcome arrives once.
//!
//! ```no_run
//! use atp_api::{ExecSpec, OperationSpec, Policy, RunEvent, RunRequest, Targets};
//! use atp_client::{Client, ClientOptions};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(ClientOptions::new("http://127.0.0.1:9440", "the token"))?;
//! let operation = OperationSpec::Exec(ExecSpec::new("uname").arg("-r"));
//! let request = RunRequest::new(Targets::of(["web-*"]), operation, Policy::default());
//! let run = client.start(&request).await?;
//! let mut events = client.run_events(run.id);
//! while let Some(event) = events.next().await? {
//!     if let RunEvent::Finished(outcome) = event {
//!         println!("{:?}: {}", outcome.vm, outcome.status);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | service | `atp serve`: it has the hosts, and keeps the runs |
//! | token | what the service knows a client by; it says which verbs and VMs the client may use |
//! | run | one operation over the selected targets, kept by the service under an id |
//! | stream | events in the order in which they happened, each under a number from which it is continued |

mod attached;
mod body;
mod client;
mod error;
mod events;
mod files;
mod reservations;
#[cfg(feature = "executor")]
mod rounds;
#[cfg(feature = "executor")]
mod run_files;
mod sse;
mod told;
mod usage;
#[cfg(feature = "executor")]
mod watch;

pub use attached::{VmDevice, VmStream};
pub use client::{Client, ClientOptions};
pub use error::ClientError;
pub use events::{EventsWanted, Liveness, RunEvents, ServiceEvents};
pub use files::FileSize;
#[cfg(feature = "executor")]
pub use rounds::Rounds;
#[cfg(feature = "executor")]
pub use run_files::RunFiles;
pub use sse::{Message, SseError};
pub use told::{Lost, Told};
#[cfg(feature = "executor")]
pub use watch::VmEvents;
