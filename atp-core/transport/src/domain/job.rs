//! How far a long job is.

/// How far a long job of libvirt's on a domain is, such as saving its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobProgress {
    /// How much is done, bytes. It may shrink, as a guest that runs changes what was done already.
    pub done: u64,
    /// How much there is in all, bytes: more than none.
    pub total: u64,
}

#[cfg(any(feature = "library", feature = "native"))]
impl JobProgress {
    /// From what there is in all and what is left of it, bytes; none of a job that knows of nothing to do yet.
    pub(crate) fn of(total: u64, remaining: u64) -> Option<Self> {
        (total > 0).then(|| JobProgress { done: total.saturating_sub(remaining), total })
    }
}

#[cfg(all(test, any(feature = "library", feature = "native")))]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_done_what_is_not_left_and_none_before_it_knows_how_much_there_is() {
        assert_eq!(JobProgress::of(10, 4), Some(JobProgress { done: 6, total: 10 }));
        assert_eq!(JobProgress::of(10, 11), Some(JobProgress { done: 0, total: 10 }));
        assert_eq!(JobProgress::of(0, 0), None);
    }
}
