//! What stands around a call: one execution of one call that is answered at once, with all of it off, with the defaults,
//! and with all of it on.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};

use atp_transport::{
    CallDecision, CallInfo, ExecuteOptions, HostInfo, Interceptor, TransportConfig, TransportError,
    TransportManager,
};
use criterion::Criterion;
use tokio::runtime::Runtime;

use crate::allocations::Allocations;
use crate::pools::AtOnce;

/// Calls over which allocations are counted, after as many to warm up.
const COUNTED: u64 = 1000;

/// Looks at each call and lets it go.
struct Watches;

impl Interceptor for Watches {
    fn name(&self) -> Cow<'_, str> {
        "watches".into()
    }

    fn before(&self, call: &CallInfo<'_>) -> CallDecision {
        black_box(call);
        CallDecision::Proceed
    }

    fn after(&self, call: &CallInfo<'_>, took: Duration) {
        black_box((call, took));
    }
}

/// Measures each: how long it takes, and what memory is asked for on the way.
pub(crate) fn around_a_call(criterion: &mut Criterion, runtime: &Runtime) {
    let mut off = TransportConfig::default();
    off.breaker.enabled = false;
    let mut limited = TransportConfig::default();
    // A limit that is looked at and never reached.
    limited.rate_limit.calls_per_second = 1e6;
    limited.rate_limit.burst = u32::MAX;
    let mut table = String::new();
    for (name, config, interceptors) in [
        ("all off", off, 0),
        ("breaker", TransportConfig::default(), 0),
        ("breaker, rate limit", limited.clone(), 0),
        ("breaker, rate limit, 3 interceptors", limited, 3),
    ] {
        let before = Allocations::now();
        let manager = runtime.block_on(open(config, interceptors));
        assert!(Allocations::now().since(before).count > 0, "allocations are not counted");
        criterion.bench_function(&format!("one call/{name}"), |bencher| {
            bencher.iter_custom(|times| {
                runtime.block_on(async {
                    let start = Instant::now();
                    call(&manager, times).await;
                    start.elapsed()
                })
            });
        });
        let allocations = runtime.block_on(async {
            call(&manager, COUNTED).await;
            let before = Allocations::now();
            call(&manager, COUNTED).await;
            Allocations::now().since(before)
        });
        let each = |count: u64| count as f64 / COUNTED as f64;
        let (count, bytes) = (each(allocations.count), each(allocations.bytes));
        table += &format!("| {name:<35} | {count:>11.1} | {bytes:>5.0} |\n");
    }
    println!("\nAllocations of one call, of {COUNTED}:\n");
    println!("| {:<35} | allocations | bytes |", "around it");
    println!("|:{:-<36}|------------:|------:|", "");
    print!("{table}");
}

/// Makes so many calls, one after the other.
async fn call(manager: &TransportManager<AtOnce>, times: u64) {
    for _ in 0..times {
        let work = manager.execute_on_host_with("host", ExecuteOptions::default(), |lease| async move {
            lease.call("nothing", None, |_link, _in_flight| async { Ok(()) }).await
        });
        black_box(work.await).expect("it is answered");
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
