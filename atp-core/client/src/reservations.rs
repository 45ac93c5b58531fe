//! Reservations of VMs, kept by the service.

use atp_api::serve::{ReleaseRequest, Reservation, ReserveAnswer, ReserveRequest};
use hyper::Method;

use crate::client::{ANSWER_TIMEOUT, Client, json};
use crate::error::ClientError;

impl Client {
    /// The VMs that are reserved and that this client may see.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe.
    pub async fn reservations(&self) -> Result<Vec<Reservation>, ClientError> {
        self.ask(Method::GET, self.at("/api/v1/reservations"), None, &[], ANSWER_TIMEOUT).await
    }

    /// Reserves free VMs, or none if too few are free. A request that is not answered is sent again, under the same key: the service
    /// carries it out once.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// When the future is dropped, VMs may have been reserved.
    pub async fn reserve(&self, request: &ReserveRequest) -> Result<ReserveAnswer, ClientError> {
        self.ask_once(self.at("/api/v1/reservations"), request, ANSWER_TIMEOUT).await
    }

    /// Ends reservations of an owner: those of VMs that a selector matches, all without one. Returns them.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// When the future is dropped, reservations may have ended.
    pub async fn release(&self, request: &ReleaseRequest) -> Result<Vec<Reservation>, ClientError> {
        let url = self.at("/api/v1/reservations/release");
        self.ask(Method::POST, url, Some(json(request)), &[], ANSWER_TIMEOUT).await
    }
}
