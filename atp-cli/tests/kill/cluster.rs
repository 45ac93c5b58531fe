//! Several services over one database, with faults that a seed chooses: each target has one outcome, and ran once or not at
//! all. And one fault each by itself: how soon hosts are taken over, that nothing is started without the database, and that a
//! controller that is stuck, or waits for a call that hangs, keeps no host.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use atp_fleet::{Fleet, FleetOptions, Programs};
use atp_postgres::Postgres;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::atp::Home;
use crate::proxy::Proxy;
use crate::service::{Client, Service, ran, random};

/// The number of faults, one to a run; more with `ATP_CLUSTER_KILLS`.
const FAULTS: u64 = 5;

/// 300 targets.
const HOSTS: u32 = 12;
const VMS: u32 = 25;
const PARALLEL: u32 = 24;
const PER_HOST: usize = 4;

/// The program of a run takes so long that no machine is through with the run before the fault; its arguments name the run.
const PROGRAM: &str = "sleep";

/// A short lease, so that it ends within a fault.
const LEASE: Duration = Duration::from_secs(3);
const TIMEOUT_MS: u64 = 4000;

/// A controller that could not renew aborts its work after this part of a lease.
const ABORT_MS: u64 = 2250;

/// How long a run may take in all. It is never reached.
const PATIENCE: Duration = Duration::from_secs(180);

/// A controller, its way to the database and its files.
struct Controller {
    home: Home,
    settings: String,
    proxy: Proxy,
    service: Service,
}

/// One bed at a time: they would be short of processors.
static TURN: Mutex<()> = Mutex::new(());

struct Bed {
    _turn: MutexGuard<'static, ()>,
    lease: Duration,
    runtime: Runtime,
    fleet: Fleet,
    postgres: Postgres,
    tokens: String,
    token: String,
    _home: Home,
    controllers: Vec<Controller>,
    /// What all controllers have said, those that are gone too.
    logs: Vec<Arc<Mutex<Vec<String>>>>,
    /// When each VM ran a program last.
    ran_at: Arc<Mutex<BTreeMap<String, i64>>>,
}

/// A fault, and when it was there, by the database's clock.
struct Fault {
    name: &'static str,
    from: i64,
    to: i64,
    loss: Loss,
}

/// What a fault may cost.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    /// What a controller had under way.
    Killed,
    /// What a controller had under way, if that was over before it could tell.
    CutOff,
    Nothing,
}

impl Bed {
    fn new(controllers: usize, lease: Duration) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = Runtime::new().unwrap();
        let rtt = Duration::from_millis(20);
        let ran_at = Arc::new(Mutex::new(BTreeMap::new()));
        let seen = ran_at.clone();
        let programs = Programs::new(move |execution| {
            seen.lock().unwrap().insert(format!("{}/{}", execution.host, execution.vm), now());
            None
        });
        let programs = Some(Arc::new(programs));
        let options = FleetOptions { hosts: hosts(), vms: VMS, rtt, programs, ..FleetOptions::default() };
        let fleet = runtime.block_on(Fleet::start(options)).unwrap();
        let postgres = Postgres::start().unwrap();
        postgres.database("fleet").unwrap();
        let home = Home::new();
        let tokens = home.path("tokens.toml").display().to_string();
        let settings = home.write("settings.toml", &format!("[serve]\ntokens = {tokens:?}\n"));
        let settings = settings.display().to_string();
        let added =
            home.run(["--config", &settings, "serve", "token", "add", "t", "--role", "admin"]).exits(0);
        let token = added.stdout.trim().to_owned();
        let mut bed = Bed {
            _turn: turn,
            lease,
            runtime,
            fleet,
            postgres,
            tokens,
            token,
            _home: home,
            controllers: Vec::new(),
            logs: Vec::new(),
            ran_at,
        };
        for _ in 0..controllers {
            bed.add();
        }
        bed
    }

    fn add(&mut self) {
        let home = Home::new();
        let socket = home.path("socket");
        let proxy = Proxy::start(self.runtime.handle(), &socket, self.postgres.socket());
        let lease = self.lease.as_secs();
        let address = format!("postgres://atp@localhost/fleet?host={}", socket.display());
        let (tokens, folder) = (&self.tokens, home.path("state").display().to_string());
        let section = format!(
            "\n[serve]\ntokens = {tokens:?}\nfolder = {folder:?}\ndatabase = {address:?}\ncluster = true\nlease = \"{lease}s\"\n\
             clock_slack = \"1s\"\ndrain = \"60s\"\n"
        );
        let settings = home.write("fleet.toml", &(self.fleet.settings() + &section)).display().to_string();
        let service = Service::start(&home, &settings);
        self.logs.push(service.said.clone());
        self.controllers.push(Controller { home, settings, proxy, service });
    }

    /// Asks any controller, until one answers with success.
    fn ask(&self, first: usize, method: &str, path: &str, headers: &str, body: Option<&Value>) -> Value {
        let until = Instant::now() + PATIENCE;
        let mut last = None;
        for turn in first.. {
            assert!(Instant::now() < until, "no controller answers: {last:?}");
            let controller = &self.controllers[turn % self.controllers.len()];
            let client = Client { address: controller.service.address.clone(), token: self.token.clone() };
            match client.ask(method, path, headers, body) {
                Some((200 | 201, value)) => return value,
                answer => last = answer,
            }
            thread::sleep(Duration::from_millis(50));
        }
        unreachable!()
    }

    /// Begins a run of a program on the VMs of a selector.
    fn begin(&self, first: usize, selector: &str, seconds: &str, policy: &Value) -> Value {
        let request = json!({
            "targets": {"selectors": [selector]},
            "operation": {"op": "exec", "program": PROGRAM, "args": [seconds]},
            "policy": policy,
        });
        let key = format!("Idempotency-Key: {selector}{seconds}\r\n");
        self.ask(first, "POST", "/runs", &key, Some(&request))["id"].clone()
    }

    fn summary(&self, first: usize, run: &Value) -> Value {
        self.ask(first, "GET", &format!("/runs/{run}"), "", None)
    }

    /// Waits until a run has this many outcomes, or has ended.
    fn wait(&self, first: usize, run: &Value, outcomes: u64) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let summary = self.summary(first, run);
            if summary["state"] == "ended" || count(&summary) >= outcomes {
                return summary;
            }
            assert!(Instant::now() < until, "{summary}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn outcomes(&self, first: usize, run: &Value) -> Vec<Value> {
        let (mut outcomes, mut after) = (Vec::new(), json!(0));
        while !after.is_null() {
            let path = format!("/runs/{run}/outcomes?limit=1000&after={after}");
            let mut page = self.ask(first, "GET", &path, "", None);
            outcomes.append(page["outcomes"].as_array_mut().unwrap());
            after = page["next"].take();
        }
        outcomes
    }

    /// The targets that have outcomes, with a hash of each.
    fn finished(&self, run: &Value) -> BTreeMap<String, String> {
        let text = self.query(&format!(
            "SELECT host || '/' || vm, md5(outcome) FROM targets WHERE run = {run} AND state = 'finished'"
        ));
        let pairs = text.lines().map(|line| line.split_once('|').unwrap());
        pairs.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect()
    }

    /// The last start of each target that was started and did not wait again.
    fn starts(&self, run: &Value, target_ms: i64) -> BTreeMap<String, Start> {
        let text = self.query(&format!(
            "SELECT host || '/' || vm, due - {target_ms},
                owner IN (SELECT id FROM controllers WHERE expires > atp_now())
            FROM targets WHERE run = {run} AND due IS NOT NULL"
        ));
        let start = |line: &str| {
            let words: Vec<_> = line.split('|').collect();
            let [name, at, is_alive] = words[..] else { panic!("{line}") };
            (name.to_owned(), Start { at: at.parse().unwrap(), is_owner_alive: is_alive == "t" })
        };
        text.lines().map(start).collect()
    }

    fn forget_logs(&self) {
        self.ran_at.lock().unwrap().clear();
        self.logs.iter().for_each(|log| log.lock().unwrap().clear());
    }

    /// Whether a controller has told that it aborted its work on a host, as it had not renewed for three quarters of a lease.
    fn was_aborted(&self, host: &str) -> bool {
        let host = format!("host=\"{host}\"");
        self.logs.iter().any(|log| {
            log.lock().unwrap().iter().any(|line| {
                let (is_abort, mut words) = (line.contains("its work is aborted"), line.split(' '));
                let age = line.split(' ').find_map(|word| word.strip_prefix("renewed_ms_ago="));
                is_abort
                    && words.any(|word| word == host)
                    && age.is_some_and(|age| age.parse::<u64>().unwrap() >= ABORT_MS)
            })
        })
    }

    fn query(&self, sql: &str) -> String {
        self.postgres.execute("fleet", sql).unwrap()
    }

    /// Waits for this answer of a query.
    fn wait_for(&self, sql: &str, is_it: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.query(sql);
            if is_it(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{sql}: {answer}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Does a fault, and heals it.
    fn fault(&mut self, seed: u64) -> Fault {
        let victim = usize::try_from(random(seed * 7)).unwrap() % self.controllers.len();
        let long = self.lease * 3 / 2;
        let (name, from, loss) = match seed % 5 {
            0 => {
                let controller = &mut self.controllers[victim];
                controller.service.kill();
                let from = now();
                controller.service = Service::start(&controller.home, &controller.settings);
                self.logs.push(controller.service.said.clone());
                ("killed", from, Loss::Killed)
            }
            1 => {
                let service = &self.controllers[victim].service;
                signal(service, Signal::STOP);
                let from = now();
                thread::sleep(long);
                signal(service, Signal::CONT);
                ("stopped for longer than the lease", from, Loss::CutOff)
            }
            2 => {
                let proxy = &self.controllers[victim].proxy;
                proxy.cut(true);
                let from = now();
                thread::sleep(long);
                proxy.cut(false);
                ("cut off from the database", from, Loss::CutOff)
            }
            3 => {
                self.postgres.stop().unwrap();
                let from = now();
                thread::sleep(Duration::from_millis(random(seed) % 2000));
                self.postgres.restart().unwrap();
                ("restart of the database", from, Loss::Nothing)
            }
            _ => {
                let mut leaving = self.controllers.remove(victim);
                signal(&leaving.service, Signal::TERM);
                let from = now();
                self.add();
                assert!(leaving.service.child.wait().unwrap().success(), "it ends in order");
                ("one added and one removed", from, Loss::Nothing)
            }
        };
        Fault { name, from, to: now(), loss }
    }

    /// The most targets that were under way on a host in one epoch of its lease, as the database counts them: a target is
    /// under way there from before its call until after it.
    fn most_in_an_epoch(&self, run: &Value) -> usize {
        let events = self.query(&format!(
            "SELECT e.word, t.host, t.epoch, t.key FROM events AS e JOIN targets AS t ON t.run = e.run
                AND t.host = e.data::json->>'host' AND t.vm = e.data::json->>'vm'
            WHERE e.run = {run} AND e.word IN ('started', 'finished') AND t.epoch IS NOT NULL ORDER BY e.seq DESC"
        ));
        // Backwards: of a target that waited again only the last start counts, that of its epoch.
        let (mut seen, mut under_way, mut most) = (BTreeSet::new(), BTreeMap::<_, usize>::new(), 0);
        for line in events.lines() {
            let words: Vec<_> = line.splitn(4, '|').collect();
            let [word, host, epoch, key] = words[..] else { panic!("{line}") };
            let count = under_way.entry((host, epoch)).or_default();
            match word {
                "finished" => *count += 1,
                _ if seen.insert(key) => *count -= 1,
                _ => {}
            }
            most = most.max(*count);
        }
        most
    }
}

/// A start of a target, as the database has it.
struct Start {
    at: i64,
    is_owner_alive: bool,
}

/// The seeds of faults: others with `ATP_CLUSTER_KILLS`, a number of them, or the first and the last as in `6-9`.
fn seeds() -> RangeInclusive<u64> {
    let Ok(text) = std::env::var("ATP_CLUSTER_KILLS") else { return 1..=FAULTS };
    let (first, last) = text.split_once('-').unwrap_or(("1", &text));
    first.parse().unwrap()..=last.parse().unwrap()
}

/// Hosts: more with `ATP_CLUSTER_HOSTS`.
fn hosts() -> u32 {
    std::env::var("ATP_CLUSTER_HOSTS").map_or(HOSTS, |text| text.parse().unwrap())
}

/// Milliseconds since 1970. The database is on this machine.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The outcomes that a run has.
fn count(summary: &Value) -> u64 {
    let counts = summary["statistics"]["counts"].as_object();
    counts.map_or(0, |counts| counts.values().filter_map(Value::as_u64).sum())
}

fn signal(service: &Service, signal: Signal) {
    let pid = i32::try_from(service.child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn controllers_that_share_a_database_give_each_target_one_outcome_and_start_it_at_most_once() {
    let seeds = seeds();
    let mut bed = Bed::new(3, LEASE);
    let (mut unknown, mut done) = (0, 0);
    let policy = json!({"parallel": PARALLEL, "per_host": PER_HOST, "timeout_ms": TIMEOUT_MS});
    for seed in seeds.clone() {
        let first = usize::try_from(seed).unwrap();
        let seconds = format!("0.4{seed:05}");
        bed.forget_logs();
        let id = bed.begin(first, "*", &seconds, &policy);
        let shared = format!("SELECT CAST(shared AS JSON)->>'target_ms' FROM runs WHERE id = {id}");
        let target_ms: i64 = bed.query(&shared).parse().unwrap();
        // The second half of the run is left for the fault.
        let summary = bed.wait(first, &id, random(seed) % u64::from(hosts() * VMS / 2));
        assert_eq!(summary["state"], "running", "seed {seed}: {summary}");
        let before = bed.finished(&id);
        let Fault { name: fault, from, to, loss } = bed.fault(seed);
        let summary = bed.wait(first, &id, u64::MAX);
        let ended: i64 = bed.query(&format!("SELECT ended FROM runs WHERE id = {id}")).parse().unwrap();
        assert!(ended > from, "seed {seed}: the run had ended before the fault: {fault}");
        let most = bed.most_in_an_epoch(&id);
        assert!((1..=PER_HOST).contains(&most), "seed {seed}, {fault}: {most} under way in an epoch");
        let outcomes = bed.outcomes(first, &id);
        let ran = ran(&bed.fleet, &format!("{PROGRAM} {seconds}"));
        let after = bed.finished(&id);
        for (name, outcome) in &before {
            assert_eq!(after.get(name), Some(outcome), "seed {seed}, {fault}: {name} had its outcome before");
        }
        let starts = bed.starts(&id, target_ms);
        for (name, Start { at, .. }) in &starts {
            let ran_at = bed.ran_at.lock().unwrap().get(name).copied();
            // Rounded to milliseconds.
            assert!(
                ran_at.is_none_or(|ran_at| *at <= ran_at + 1),
                "seed {seed}, {fault}: {name} ran at {ran_at:?}, before its start of {at} was recorded"
            );
        }
        let names: BTreeSet<_> = outcomes.iter().map(name).collect();
        assert_eq!((names.len(), outcomes.len()), (ran.len(), ran.len()), "seed {seed}, {fault}");
        for outcome in &outcomes {
            let count = ran[&name(outcome)];
            assert!(count <= 1, "seed {seed}, {fault}: {count} times: {outcome}");
            match outcome["effect"].as_str() {
                Some("unknown") => {
                    unknown += 1;
                    let start = &starts[&name(outcome)];
                    // Nobody could tell, its controller aborted it as it could not renew, or its own time was over.
                    let is_lost = outcome["error"]["kind"] == "outcome-unknown"
                        && match loss {
                            Loss::Killed => !start.is_owner_alive && start.at <= from,
                            Loss::CutOff => start.at <= to,
                            Loss::Nothing => false,
                        };
                    let is_late = outcome["status"] == "timeout"
                        && outcome["duration_ms"].as_u64().unwrap() * 2 >= TIMEOUT_MS;
                    assert!(
                        is_lost || is_late || bed.was_aborted(outcome["host"].as_str().unwrap()),
                        "seed {seed}, {fault} from {from} to {to}, started at {}: {outcome}",
                        start.at
                    );
                }
                Some("none") => assert_eq!(count, 0, "seed {seed}, {fault}: {outcome}"),
                _ => {
                    assert_eq!(
                        (count, outcome["status"].as_str()),
                        (1, Some("ok")),
                        "seed {seed}, {fault}: {outcome}"
                    );
                    done += 1;
                }
            }
        }
        let given_up = format!(
            "SELECT count(*) FROM targets AS t JOIN host_lease AS l ON l.daemon = t.host
            WHERE t.run = {id} AND t.outcome LIKE '%outcome-unknown%' AND t.epoch >= l.epoch"
        );
        let given_up = bed.postgres.execute("fleet", &given_up).unwrap();
        assert_eq!(given_up, "0", "seed {seed}, {fault}: given up although the owner had its lease");
        let counts = &summary["statistics"]["counts"];
        assert_eq!(count(&summary), outcomes.len() as u64, "seed {seed}, {fault}: {summary}");
        if std::env::var_os("ATP_CLUSTER_KILLS").is_some() {
            println!("seed {seed}: {fault}: {counts}, {unknown} unknown so far");
        }
    }
    // Most of the targets are not under way when a fault happens.
    let all = seeds.count() as u64 * u64::from(hosts() * VMS);
    assert!(done * 4 > all * 3, "{done} of {all} were done, of {unknown} it is not known");
}

fn name(outcome: &Value) -> String {
    format!("{}/{}", outcome["host"].as_str().unwrap(), outcome["vm"].as_str().unwrap())
}

#[test]
fn while_the_database_is_away_nothing_is_started_and_no_outcome_is_lost() {
    // What is under way ends long before leases do.
    let mut bed = Bed::new(3, LEASE * 10);
    let seconds = "0.100001";
    let policy = json!({"parallel": PARALLEL, "timeout_ms": 20_000});
    let run = bed.begin(0, "*", seconds, &policy);
    assert_eq!(bed.wait(0, &run, 60)["state"], "running");
    let started = || ran(&bed.fleet, &format!("{PROGRAM} {seconds}")).values().sum::<u64>();
    let before = started();
    bed.postgres.stop().unwrap();
    // What was claimed before has its first call meanwhile.
    thread::sleep(Duration::from_secs(5));
    let at = ran(&bed.fleet, &format!("{PROGRAM} {seconds}")).values().sum::<u64>();
    assert!((before..=before + u64::from(PARALLEL)).contains(&at), "{before}, then {at}");
    thread::sleep(Duration::from_secs(25));
    let executed = ran(&bed.fleet, &format!("{PROGRAM} {seconds}"));
    assert_eq!(executed.values().sum::<u64>(), at, "started without the database");
    bed.postgres.restart().unwrap();
    assert_eq!(bed.wait(0, &run, u64::MAX)["state"], "ended");
    let executed = ran(&bed.fleet, &format!("{PROGRAM} {seconds}"));
    for outcome in bed.outcomes(0, &run) {
        assert_eq!((executed[&name(&outcome)], &outcome["status"]), (1, &json!("ok")), "{outcome}");
    }
}

#[test]
fn targets_that_wait_are_started_by_others_soon_after_the_lease_of_one_that_is_killed() {
    let mut bed = Bed::new(2, LEASE);
    bed.wait_for("SELECT count(*) FROM controllers", |answer| answer == "2");
    let others = bed.query("SELECT string_agg(quote_literal(id), ', ') FROM controllers");
    bed.add();
    let last = format!("SELECT id FROM controllers WHERE id NOT IN ({others})");
    let lost = bed.wait_for(&last, |answer| !answer.is_empty());
    let of_it = format!("FROM host_lease WHERE controller = '{lost}'");
    bed.wait_for(&format!("SELECT count(*) {of_it}"), |answer| answer != "0");
    let policy = json!({"parallel": hosts() * VMS, "per_host": 1, "timeout_ms": TIMEOUT_MS});
    let run = bed.begin(0, "*", "0.3", &policy);
    assert_eq!(bed.wait(0, &run, 20)["state"], "running");
    let of_lost = bed.query(&format!("SELECT string_agg(quote_literal(daemon), ', ') {of_it}"));
    assert!(!of_lost.is_empty(), "the one that is killed has no host");
    let waiting = format!(
        "SELECT count(*) FROM targets AS t WHERE run = {run} AND state = 'waiting' AND host IN ({of_lost})"
    );
    assert_ne!(bed.query(&waiting), "0", "nothing waits on the hosts of the one that is killed");
    bed.controllers[2].service.kill();
    bed.controllers.pop();
    // Its last renewal was before.
    let end = now() + i64::try_from(LEASE.as_millis()).unwrap();
    // Those that wait, on hosts where nothing was started since.
    let left = format!(
        "{waiting} AND NOT EXISTS (
            SELECT 1 FROM targets AS s WHERE s.run = t.run AND s.host = t.host AND s.epoch IS NOT NULL AND s.owner <> '{lost}')"
    );
    bed.wait_for(&left, |answer| answer == "0");
    let after = now() - end;
    println!(
        "the last host of a controller that was killed has a start {after} ms after the end of its lease"
    );
    // 2 s are promised; the rest is for a machine that is busy.
    assert!(after < 40_000, "{after} ms after the end of the lease");
    let summary = bed.wait(0, &run, u64::MAX);
    assert_eq!(count(&summary), u64::from(hosts() * VMS), "{summary}");
}

#[test]
fn a_host_changes_hands_while_a_call_hangs_there_and_that_one_has_its_own_outcome() {
    let mut bed = Bed::new(1, LEASE);
    let policy = json!({"parallel": hosts(), "timeout_ms": 120_000});
    let long = bed.begin(0, "*/vm1", "40", &policy);
    let started = format!("SELECT count(*) FROM targets WHERE run = {long} AND state = 'started'");
    bed.wait_for(&started, |answer| answer == hosts().to_string());
    bed.add();
    bed.wait_for("SELECT count(DISTINCT controller) FROM host_lease", |answer| answer == "2");
    let short = bed.begin(0, "*/vm2", "0", &policy);
    assert_eq!(bed.wait(0, &short, u64::MAX)["statistics"]["counts"]["ok"], hosts());
    assert_eq!(bed.query(&started), hosts().to_string(), "other targets have waited for the calls that hang");
    let summary = bed.wait(0, &long, u64::MAX);
    assert_eq!(summary["statistics"]["counts"]["ok"], hosts(), "{summary}");
    assert!(ran(&bed.fleet, &format!("{PROGRAM} 40")).values().all(|&count| count <= 1));
}

#[test]
fn targets_fail_whose_operation_a_controller_cannot_make_ready_and_their_run_ends() {
    let mut bed = Bed::new(1, LEASE);
    let policy = json!({"parallel": 1, "timeout_ms": TIMEOUT_MS});
    let run = bed.begin(0, "*/vm1", "1", &policy);
    bed.wait(0, &run, 1);
    // The next process cannot read it.
    let controller = &mut bed.controllers[0];
    controller.service.kill();
    bed.query(&format!(
        "UPDATE runs SET shared = jsonb_set(CAST(shared AS JSONB), '{{request,operation}}',
            '{{\"op\": \"key\", \"chords\": [\"nonsense\"]}}') WHERE id = {run}"
    ));
    let controller = &mut bed.controllers[0];
    controller.service = Service::start(&controller.home, &controller.settings);
    let summary = bed.wait(0, &run, u64::MAX);
    assert_eq!((&summary["state"], count(&summary)), (&json!("ended"), u64::from(hosts())), "{summary}");
    let failed = |outcome: &&Value| outcome["error"]["kind"] == "invalid-command";
    let outcomes = bed.outcomes(0, &run);
    let failed: Vec<_> = outcomes.iter().filter(failed).collect();
    assert!(!failed.is_empty() && failed.iter().all(|outcome| outcome["effect"] == "none"), "{outcomes:?}");
    let ran = ran(&bed.fleet, &format!("{PROGRAM} 1"));
    assert!(failed.iter().all(|outcome| ran[&name(outcome)] == 0), "{outcomes:?}");
}

#[test]
fn a_controller_whose_work_is_stuck_renews_no_lease() {
    let bed = Bed::new(1, LEASE);
    let held = "SELECT count(*) FROM host_lease WHERE controller IS NOT NULL AND expires > atp_now()";
    bed.wait_for(held, |answer| answer == hosts().to_string());
    thread::scope(|scope| {
        // Renewals do not need this table, and the work on runs does.
        let lock = "BEGIN; LOCK TABLE targets; SELECT pg_sleep(200)";
        scope.spawn(|| bed.postgres.execute("fleet", lock).unwrap_err());
        bed.wait_for(held, |answer| answer == "0");
        bed.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'");
    });
    bed.wait_for(held, |answer| answer == hosts().to_string());
}
