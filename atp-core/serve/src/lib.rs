//! ATP as a service: warm connections to a fleet, an HTTP API, and a page in a browser.
//!
//! A [`Service`] has the hosts of a [`TransportManager`](atp_transport::TransportManager), tokens and limits; a [`Listener`]
//! serves it. `atp serve` does both, follows the fleet's file, and ends in order. `docs/serve.md` is for its users.
//!
//! ```
//! use atp_serve::{Listener, ServeConfig, Service};
//! use atp_transport::{TransportConfig, TransportManager};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ServeConfig { listen: "127.0.0.1:0".to_owned(), ..ServeConfig::default() };
//! let listener = Listener::bind(&config).await?;
//! let service = Service::open(config, TransportManager::new(TransportConfig::default())).await?;
//! println!("http://{}", listener.address());
//! listener.serve(service).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What a request passes
//!
//! ```text
//! server   a connection: limits of number, TLS, time for the head, time for a client that reads nothing
//! auth     is the service called by its own name; is it a page of another origin; whose token; rates; read-only
//! router   the route, from the table of all routes
//! body     the body and the parameters, within their limits, strictly
//! plans …  the handler: the verb is checked before hosts are asked, each target after that
//! ```
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | token | a random text that opens the API; the file of tokens has its hash, role, VMs and verbs ([`TokenFile`]) |
//! | session | what a browser has in place of a token: a cookie, and a word against forged requests |
//! | caller | the token of a request, and where it comes from |
//! | listing | the VMs of a host, as it was asked for them; used again for `cache_ttl` |
//! | reservation | a VM that an owner uses until a time: no other gets it by a reservation |
//! | stale | older than was asked for, because the host does not answer; only if the request allows it |
//! | store | the database of runs: what it was told outlasts the service |
//! | interrupted | a run that was under way when the service ended; it can be resumed |
//! | controller | one of several services that share a store, and the work on the hosts |
//! | lease, epoch | a controller's hold of a host for a time; which of its holds that is |
//! | gap | events are missing there: the stream began later, the client was too slow, or a host was away |
//! | refusal | why a request is not carried out: a problem with ATP's kind and hint |

mod attach;
mod audit;
mod auth;
mod body;
mod cache;
mod cluster;
mod events;
mod files;
mod hosts;
mod limits;
mod metrics;
mod notify;
mod observe;
mod openapi;
mod output;
mod page;
mod planned;
mod plans;
mod problem;
mod published;
mod reservations;
mod route;
mod router;
mod runs;
mod samplers;
mod screenshots;
mod server;
mod session;
mod settings;
mod sse;
mod state;
mod store;
mod time;
mod usage;
mod verbs;
mod vm_metrics;
mod vms;

pub use auth::{NewToken, Secret, Token, TokenFile, TokensError};
pub use notify::Supervisor;
pub use openapi::API_VERSION;
pub use router::openapi;
pub use server::{ListenError, Listener, Tls};
pub use settings::{NoFolder, ServeConfig};
pub use state::{OpenError, Service};
pub use store::StoreError;
pub use time::Clock;
pub use verbs::verb_names;
