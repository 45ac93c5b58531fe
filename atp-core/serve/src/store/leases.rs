//! The rows of controllers and of the leases of hosts.

use std::collections::BTreeSet;

use atp_cluster::owner;
use sqlx::Error;

use super::StoreError;
use super::link::Link;
use super::sql::{Db, values};

/// How long a controller that is gone is remembered, milliseconds.
const REMEMBERED: i64 = 600_000;

/// What a controller has after it has asked.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Its hosts, with the epochs of their leases.
    pub(crate) leases: Vec<(String, i64)>,
    /// The hosts that belong to it.
    pub(crate) share: BTreeSet<String>,
    /// The controllers that live.
    pub(crate) controllers: usize,
}

impl Link {
    /// Tells that a controller lives and which hosts it knows, renews its leases, and takes those of its hosts that are
    /// free. `length` is in milliseconds.
    pub(crate) async fn renew(
        &mut self,
        controller: &str,
        hosts: &[String],
        length: i64,
    ) -> Result<Granted, StoreError> {
        let mut db = self.begin().await?;
        let made = renew(&mut db, controller, hosts, length).await;
        self.end(db, made).await
    }

    /// Gives leases back.
    pub(crate) async fn give_back(
        &mut self,
        controller: &str,
        leases: &[(String, i64)],
    ) -> Result<(), StoreError> {
        let mut db = self.begin().await?;
        let made = async {
            for (host, epoch) in leases {
                let statement = "UPDATE host_lease SET controller = NULL
                    WHERE daemon = $1 AND controller = $2 AND epoch = $3";
                db.execute(statement, values![host, controller, *epoch]).await?;
            }
            db.execute("SELECT pg_notify('atp', 'lease')", values![]).await
        };
        let made = made.await;
        self.end(db, made).await.map(drop)
    }

    /// Tells that a controller ends.
    pub(crate) async fn leave(&mut self, controller: &str) -> Result<(), StoreError> {
        let mut db = self.begin().await?;
        let made = db.execute("DELETE FROM controllers WHERE id = $1", values![controller]).await;
        self.end(db, made).await.map(drop)
    }
}

async fn renew(db: &mut Db, controller: &str, hosts: &[String], length: i64) -> Result<Granted, Error> {
    let known = serde_json::to_string(hosts).map_err(|error| Error::Encode(Box::new(error)))?;
    let statement = "INSERT INTO controllers (id, hosts, expires) VALUES ($1, $2, atp_now() + $3)
        ON CONFLICT (id) DO UPDATE SET hosts = excluded.hosts, expires = excluded.expires";
    db.execute(statement, values![controller, &known, length]).await?;
    let statement = "DELETE FROM controllers WHERE id IN (
        SELECT id FROM controllers WHERE expires < atp_now() - $1 FOR UPDATE SKIP LOCKED)";
    db.execute(statement, values![REMEMBERED]).await?;
    // Nothing comes of a planning whose controller is gone; its client may send the request again.
    // One that is being begun is locked, and is not waited for: leases would end meanwhile.
    // After the database was away each controller has a lease's time to tell that it lives.
    let statement = "DELETE FROM runs WHERE id IN (
        SELECT id FROM runs WHERE state = 'planning' AND planner IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM controllers AS c WHERE c.id = planner AND c.expires > atp_now() - $1
        ) FOR UPDATE SKIP LOCKED)";
    db.execute(statement, values![length]).await?;
    let statement = "SELECT id, hosts FROM controllers WHERE expires > atp_now() ORDER BY id";
    let mut controllers = Vec::new();
    for row in db.rows(statement, values![]).await? {
        let hosts: BTreeSet<String> = serde_json::from_str(&row.text("hosts")?).unwrap_or_default();
        controllers.push((row.text("id")?, hosts));
    }
    let is_share = |host: &String| {
        let of_it = controllers.iter().filter(|(_, hosts)| hosts.contains(host)).map(|(id, _)| id.as_str());
        owner(host, of_it) == Some(controller)
    };
    let share: BTreeSet<_> = hosts.iter().filter(|host| is_share(host)).cloned().collect();
    let statement = "UPDATE host_lease SET expires = atp_now() + $2
        WHERE controller = $1 AND expires > atp_now() RETURNING daemon, epoch";
    let mut leases = Vec::new();
    for row in db.rows(statement, values![controller, length]).await? {
        leases.push((row.text("daemon")?, row.int("epoch")?));
    }
    let held: BTreeSet<_> = leases.iter().map(|(host, _)| host.clone()).collect();
    let wanted: Vec<_> = share.difference(&held).collect();
    if !wanted.is_empty() {
        let wanted = serde_json::to_string(&wanted).map_err(|error| Error::Encode(Box::new(error)))?;
        let statement = "INSERT INTO host_lease (daemon, epoch, expires)
            SELECT wanted.value, 0, 0 FROM json_array_elements_text(CAST($1 AS JSON)) AS wanted
            ON CONFLICT (daemon) DO NOTHING";
        db.execute(statement, values![&wanted]).await?;
        let statement = "UPDATE host_lease SET controller = $1, epoch = epoch + 1, expires = atp_now() + $3
            WHERE daemon IN (
                SELECT daemon FROM host_lease
                WHERE daemon IN (SELECT value FROM json_array_elements_text(CAST($2 AS JSON)) AS wanted)
                    AND (controller IS NULL OR expires <= atp_now())
                FOR UPDATE SKIP LOCKED)
            RETURNING daemon, epoch";
        for row in db.rows(statement, values![controller, &wanted, length]).await? {
            leases.push((row.text("daemon")?, row.int("epoch")?));
        }
    }
    Ok(Granted { leases, share, controllers: controllers.len() })
}
