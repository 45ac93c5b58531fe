//! Reservations in the store.
//!
//! # Why two callers never get one VM
//!
//! A look for free VMs and their reservation are one change, and all changes go through the one writer, which makes them one after the
//! other within a transaction. In PostgreSQL, where there may be writers of other services, the table is locked for that
//! transaction as well. The VM is the key of the table in both, a copy with
//! its host, so that the database itself refuses a second row for it.

use atp_api::serve::{Reservation, ReservedVms};
use atp_transport::HostId;
use sqlx::Error;
use uuid::Uuid;

use super::sql::{Db, DbRow, values};
use super::{Store, StoreError, Unmade};

/// Free VMs that are to be reserved.
#[derive(Debug, Clone)]
pub(crate) struct NewReservations {
    /// The VMs to choose from, in this order. Their ends are those of the reservations.
    pub(crate) candidates: Vec<Reservation>,
    pub(crate) count: usize,
    /// The token.
    pub(crate) by: String,
    /// The client's key for the request, or one that no other has.
    pub(crate) key: String,
    /// The hash of the request.
    pub(crate) body: String,
    /// The time, milliseconds since 1970: what ended before is free.
    pub(crate) now: i64,
}

/// Makes reservations, or none if too few VMs are free. A request that was carried out before is not carried out again.
pub(super) async fn reserve(db: &mut Db, new: &NewReservations) -> Result<i64, Unmade> {
    let NewReservations { candidates, count, by, key, body, now } = new;
    if let Db::Postgres(_) = db {
        db.raw("LOCK TABLE reservations IN EXCLUSIVE MODE").await?;
    }
    db.execute("DELETE FROM reservations WHERE until <= $1", values![*now]).await?;
    let statement = "SELECT body FROM reservations WHERE by = $1 AND request = $2";
    let known = db.rows(statement, values![by, key]).await?;
    if let Some(first) = known.first() {
        return match first.text("body")? == *body {
            true => Ok(i64::try_from(known.len()).unwrap_or(i64::MAX)),
            false => Err(Unmade::Refused(StoreError::OtherReservation)),
        };
    }
    let taken = "SELECT uuid, host, vm, owner, until, copy_on FROM reservations";
    let taken = db.rows(taken, values![]).await?;
    let mut taken: ReservedVms = taken.iter().map(reservation).collect::<Result<_, _>>()?;
    // A VM that two hosts list is one VM.
    let free: Vec<_> = candidates.iter().filter(|one| taken.insert((*one).clone())).collect();
    if free.len() < *count {
        return Err(Unmade::Refused(StoreError::TooFewFree { free: free.len() }));
    }
    for Reservation { host, vm, uuid, is_copy, owner, until_ms } in free.into_iter().take(*count) {
        let statement = "INSERT INTO reservations (uuid, host, vm, owner, until, by, request, body, copy_on)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let copy_on = if *is_copy { host.as_str() } else { "" };
        let until = i64::try_from(*until_ms).unwrap_or(i64::MAX);
        let uuid = uuid.to_string();
        db.execute(statement, values![&uuid, host.as_str(), vm, owner, until, by, key, body, copy_on])
            .await?;
    }
    Ok(i64::try_from(*count).unwrap_or(i64::MAX))
}

/// Ends reservations of an owner; those that a token of this name made, if one is given.
pub(super) async fn release(
    db: &mut Db,
    vms: &[(Uuid, HostId)],
    owner: &str,
    by: Option<&str>,
) -> Result<i64, Error> {
    let mut released = 0;
    for (uuid, host) in vms {
        let statement = "DELETE FROM reservations WHERE uuid = $1 AND host = $2 AND owner = $3
            AND (CAST($4 AS TEXT) IS NULL OR by = CAST($4 AS TEXT))";
        released += db.execute(statement, values![&uuid.to_string(), host.as_str(), owner, by]).await?;
    }
    Ok(released)
}

impl Store {
    /// The reservations that have not ended at this time, by host and name.
    pub(crate) async fn reservations(&self, now: i64) -> Result<Vec<Reservation>, StoreError> {
        let statement = "SELECT uuid, host, vm, owner, until, copy_on FROM reservations WHERE until > $1 ORDER BY host, vm";
        self.reserved(self.readers.rows(statement, values![now]).await)
    }

    /// Those of an owner; that a token of this name made, if one is given.
    pub(crate) async fn reservations_of(
        &self,
        owner: &str,
        by: Option<&str>,
        now: i64,
    ) -> Result<Vec<Reservation>, StoreError> {
        let statement = "SELECT uuid, host, vm, owner, until, copy_on FROM reservations
            WHERE until > $1 AND owner = $2 AND (CAST($3 AS TEXT) IS NULL OR by = CAST($3 AS TEXT)) ORDER BY host, vm";
        self.reserved(self.readers.rows(statement, values![now, owner, by]).await)
    }

    /// Those that a request of a token made.
    pub(crate) async fn reservations_by(&self, by: &str, key: &str) -> Result<Vec<Reservation>, StoreError> {
        let statement = "SELECT uuid, host, vm, owner, until, copy_on FROM reservations
            WHERE by = $1 AND request = $2 ORDER BY host, vm";
        self.reserved(self.readers.rows(statement, values![by, key]).await)
    }

    fn reserved(&self, rows: Result<Vec<DbRow>, Error>) -> Result<Vec<Reservation>, StoreError> {
        let rows = rows.map_err(|error| self.failed(error))?;
        rows.iter().map(reservation).collect::<Result<_, _>>().map_err(|error| self.failed(error))
    }
}

fn reservation(row: &DbRow) -> Result<Reservation, Error> {
    let host = row.text("host")?.parse().map_err(|error| Error::Decode(Box::new(error)))?;
    let uuid = row.text("uuid")?.parse().map_err(|error| Error::Decode(Box::new(error)))?;
    Ok(Reservation {
        host,
        vm: row.text("vm")?,
        uuid,
        is_copy: !row.text("copy_on")?.is_empty(),
        owner: row.text("owner")?,
        until_ms: u64::try_from(row.int("until")?).unwrap_or_default(),
    })
}
