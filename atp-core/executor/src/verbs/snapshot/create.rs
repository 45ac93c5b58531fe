//! `snapshot create`.

use atp_api::{Data, OutcomeError, SnapshotSpec};
use atp_protocol::ProtocolError;
use atp_transport::domain::{DomainInfo, external_snapshot_obstacles, internal_snapshot_obstacles};
use atp_transport::{Effect, ErrorKind, Hint, LibvirtConnection};

use super::{NO_EXTERNAL, find, impossible, refused};
use crate::verbs::completion::Completion;
use crate::verbs::facts::{Needs, VerbFacts};
use crate::verbs::job::Job;

pub(in crate::verbs) fn facts(spec: &SnapshotSpec) -> &'static VerbFacts {
    const CREATE: VerbFacts = VerbFacts::change("snapshot-create");
    // Its agent freezes the file systems.
    const QUIESCED: VerbFacts = VerbFacts { needs: Needs::Running, ..CREATE };
    if spec.quiesce { &QUIESCED } else { &CREATE }
}

pub(in crate::verbs) async fn perform(job: &Job, domain: &DomainInfo, spec: &SnapshotSpec) -> Completion {
    let created = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        create_on(&connection, job, domain, spec).await
    });
    created.await.unwrap_or_else(|error| job.failure(&error))
}

async fn create_on(
    connection: &LibvirtConnection,
    job: &Job,
    domain: &DomainInfo,
    spec: &SnapshotSpec,
) -> Result<Completion, ProtocolError> {
    let now = connection.domain_info(domain.uuid).await?;
    let needs = facts(spec).needs;
    if !needs.allow(now.state) {
        return Ok(job.refused(needs, &now, Effect::None));
    }
    if find(connection, domain, &spec.name).await?.is_some() {
        let message =
            format!("host {}: VM {:?} has a snapshot {:?} already", job.target.host, domain.name, spec.name);
        return Ok(refused(OutcomeError::new(ErrorKind::SnapshotExists, message)));
    }
    // Of a VM that is shut off there is no memory, and nothing else writes to its images: the snapshot is kept in them.
    let disk_only = spec.disk_only && now.state.is_active();
    if disk_only && !connection.reverts_external_snapshots().await? {
        let completion = impossible(job, domain, "snapshotted without its memory", &[NO_EXTERNAL.to_owned()]);
        return Ok(Completion {
            error: completion.error.map(|error| error.with_hint(Hint::SNAPSHOT_OFF_VM)),
            ..completion
        });
    }
    let xml = connection.domain_xml(domain.uuid, false).await?;
    let obstacles = if disk_only {
        external_snapshot_obstacles(&xml)
    } else {
        internal_snapshot_obstacles(&xml, now.state.is_active())
    };
    if !obstacles.is_empty() {
        return Ok(impossible(job, domain, "snapshotted", &obstacles));
    }
    job.attempt.mark_sent().await;
    let description = spec.description.as_deref();
    connection.create_domain_snapshot(domain.uuid, &spec.name, description, disk_only, spec.quiesce).await?;
    // It was made, whether or not it can be looked at.
    let made = find(connection, domain, &spec.name).await.ok().flatten();
    Ok(Completion::ok(Effect::Done, made.map(Data::Snapshot)))
}
