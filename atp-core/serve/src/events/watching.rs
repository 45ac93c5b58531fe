//! What a client is told that follows the states of VMs: the VMs of each host that is watched, when it begins to be.

use std::sync::Arc;
use std::time::SystemTime;

use atp_transport::domain::DomainInfo;
use atp_transport::{ConnectError, HostId, WatchItem};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use futures_util::stream::FuturesUnordered;

use super::{Filter, as_json, info_of};
use crate::sse::Frame;
use crate::state::Service;
use crate::vms::listed_now;

/// Lists that were asked for, and will be told when their host has answered: a host that hangs delays only its own.
#[derive(Default)]
pub(super) struct Watching {
    lists: FuturesUnordered<BoxFuture<'static, Frame>>,
}

impl Watching {
    /// The next of them. Waits without an end if there is none.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Frame {
        match self.lists.next().await {
            Some(frame) => frame,
            None => std::future::pending().await,
        }
    }

    /// Tells this as it is.
    pub(super) fn tell(&mut self, data: String) {
        self.lists.push(ready(frame("present", data)).boxed());
    }

    /// Lists the VMs of a host that the client wants to hear of, and may.
    pub(super) fn list(&mut self, service: &Service, filter: &Filter, host: &HostId, word: &'static str) {
        let info = info_of(service, host);
        if !filter.passes_host(&info) {
            return;
        }
        let (service, filter, host) = (service.clone(), filter.clone(), host.clone());
        let listed = async move {
            let item = match listed_now(&service, &host).await {
                Ok((at, domains)) => {
                    let is_told = |domain: &&DomainInfo| filter.passes_vm(&info, &domain.name);
                    let mut domains: Vec<_> = domains.iter().filter(is_told).cloned().collect();
                    domains.sort_by(|one, other| one.name.cmp(&other.name));
                    WatchItem::Present { host, at, domains: domains.into() }
                }
                Err(error) => {
                    let error = Arc::new(ConnectError::new(error.kind, error.message));
                    WatchItem::Unreachable { host, at: SystemTime::now(), error }
                }
            };
            frame(word, as_json(&item).to_string())
        };
        self.lists.push(listed.boxed());
    }
}

/// A frame without a number: a stream that is resumed brings such lists anew.
fn frame(word: &str, data: String) -> Frame {
    Frame { id: None, event: word.to_owned(), data }
}
