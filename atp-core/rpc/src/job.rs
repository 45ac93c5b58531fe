//! The jobs of domains: work of libvirt's that takes long, such as saving memory.

use std::time::Duration;

use crate::connection::Connection;
use crate::error::CallError;
use crate::message::RemoteDomain;
use crate::numbers::procedure;
use crate::xdr::{FromXdr, Reader, Result};

/// How far a job is, or how it ended (`virDomainJobType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// There is no job.
    None,
    /// It is under way, and how long it will take is known.
    Bounded,
    /// It is under way.
    Unbounded,
    /// It is done.
    Completed,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A state of later versions.
    Unknown(i32),
}

impl FromXdr for JobState {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(match i32::read(from)? {
            0 => JobState::None,
            1 => JobState::Bounded,
            2 => JobState::Unbounded,
            3 => JobState::Completed,
            4 => JobState::Failed,
            5 => JobState::Cancelled,
            other => JobState::Unknown(other),
        })
    }
}

/// How much of something a job has to do, bytes. The numbers come from the hypervisor, and need not add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobAmount {
    /// In all.
    pub total: u64,
    /// So much is done.
    pub processed: u64,
    /// So much is left.
    pub remaining: u64,
}

impl FromXdr for JobAmount {
    const MIN_SIZE: usize = 24;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (total, processed, remaining) = FromXdr::read(from)?;
        Ok(JobAmount { total, processed, remaining })
    }
}

/// The job of a domain (`virDomainJobInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobInfo {
    /// How far it is. What follows is zero if there is none.
    pub state: JobState,
    /// For how long it has been under way.
    pub elapsed: Duration,
    /// How long it will take from now, if that is [known](JobState::Bounded).
    pub remaining: Duration,
    /// Memory and disks together.
    pub data: JobAmount,
    /// Memory.
    pub memory: JobAmount,
    /// Disks.
    pub disks: JobAmount,
}

impl FromXdr for JobInfo {
    const MIN_SIZE: usize = 92;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (state, elapsed, remaining) = FromXdr::read(from)?;
        let (data, memory, disks) = FromXdr::read(from)?;
        let [elapsed, remaining] = [elapsed, remaining].map(Duration::from_millis);
        Ok(JobInfo { state, elapsed, remaining, data, memory, disks })
    }
}

impl Connection {
    /// The job of a domain that is under way (`virDomainGetJobInfo`). It asks QEMU, and waits for a command that occupies its
    /// monitor.
    ///
    /// # Errors
    /// As of [`call`](Self::call). Of a domain that does not run, code
    /// [`OPERATION_INVALID`](crate::numbers::code::OPERATION_INVALID).
    pub async fn domain_job_info(&self, domain: &RemoteDomain) -> std::result::Result<JobInfo, CallError> {
        self.call(procedure::DOMAIN_GET_JOB_INFO, domain).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdr::{decode, encode};

    #[test]
    fn each_number_of_a_job_has_its_place() {
        let times = encode(&(2, 1_500u64, 0u64)).unwrap();
        let amounts = encode(&((9u64, 4u64, 5u64), (8u64, 3u64, 6u64), (7u64, 2u64, 1u64))).unwrap();
        let amount = |total, processed, remaining| JobAmount { total, processed, remaining };
        let wire = [times, amounts].concat();
        assert_eq!(wire.len(), JobInfo::MIN_SIZE);
        let expected = JobInfo {
            state: JobState::Unbounded,
            elapsed: Duration::from_millis(1_500),
            remaining: Duration::ZERO,
            data: amount(9, 4, 5),
            memory: amount(8, 3, 6),
            disks: amount(7, 2, 1),
        };
        assert_eq!(decode(&wire), Ok(expected));
        assert_eq!(decode(&encode(&9).unwrap()), Ok(JobState::Unknown(9)));
    }
}
