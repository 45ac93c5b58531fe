//! What stands around a call: one execution of one call that is answered at once, with all of it off, with the defaults,
//! and with all of it on.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};

use atp_transport::{
    CallInfo, ExecuteOptions, HostInfo, Interceptor, TransportConfig, TransportError, TransportManager,
    Verdict,
};
use criterion::Criterion;
use tokio::runtime::Runtime;

use crate::pools::AtOnce;

/// Looks at each call and lets it go.
struct Watches;

impl Interceptor for Watches {
    fn name(&self) -> Cow<'_, str> {
        "watches".into()
    }

    fn before(&self, call: &CallInfo<'_>) -> Verdict {
        black_box(call);
        Verdict::Proceed
    }

    fn after(&self, call: &CallInfo<'_>, took: Duration) {
        black_box((call, took));
    }
}

/// Measures each.
pub(crate) fn around_a_call(criterion: &mut Criterion, runtime: &Runtime) {
    let mut off = TransportConfig::default();
    off.breaker.enabled = false;
    let mut limited = TransportConfig::default();
    // A limit that is looked at and never reached.
    limited.rate_limit.calls_per_second = 1e6;
    limited.rate_limit.burst = u32::MAX;
    for (name, config, interceptors) in [
        ("all off", off, 0),
        ("breaker", TransportConfig::default(), 0),
        ("breaker, rate limit", limited.clone(), 0),
        ("breaker, rate limit, 3 interceptors", limited, 3),
    ] {
        let manager = runtime.block_on(open(config, interceptors));
        criterion.bench_function(&format!("one call/{name}"), |bencher| {
            bencher.iter_custom(|times| {
                runtime.block_on(async {
                    let start = Instant::now();
                    for _ in 0..times {
                        let options = ExecuteOptions::default();
                        let work = manager.execute_on_host_with("host", options, |lease| async move {
                            lease.call("nothing", None, |_link, _in_flight| async { Ok(()) }).await
                        });
                        black_box(work.await).expect("it is answered");
                    }
                    start.elapsed()
                })
            });
        });
    }
}

async fn open(config: TransportConfig, interceptors: usize) -> TransportManager<AtOnce> {
    let manager = TransportManager::with_connector(config, AtOnce);
    for _ in 0..interceptors {
        manager.add_interceptor(Watches);
    }
    manager.add_host(HostInfo::new("host", "host")).await.expect("the host is new");
    let ready = manager.execute_on_host("host", |_| async { Ok::<_, TransportError>(()) });
    ready.await.expect("the link opens");
    manager
}
