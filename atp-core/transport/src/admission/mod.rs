//! What decides whether and when a call may be made: limits on calls in flight, circuit breakers, interceptors, rate limits.

pub(crate) mod breaker;
pub(crate) mod calls;
pub(crate) mod interceptor;
pub(crate) mod rate_limit;
