//! The database, the faults, and the laws.

use std::time::Duration;

use atp_cluster::{Claim, HostLease, TargetState, owner};

use crate::controller::{Controller, Reply, Request};

pub(crate) const LENGTH: Duration = Duration::from_secs(6);
/// Longer than a lease, so that a call that hangs is handed over.
const TIMEOUT: Duration = Duration::from_secs(9);
const SLACK: Duration = Duration::from_secs(1);
pub(crate) const STEP: Duration = Duration::from_millis(100);

/// Targets of a host under way in one epoch.
const LIMIT: usize = 3;
const HOSTS: usize = 4;
const TARGETS: usize = 24;

/// Faults end then.
const CALM: Duration = Duration::from_secs(40);
/// Every target has its outcome by then.
const END: Duration = Duration::from_secs(110);

/// How soon after the end of a lease another controller has it: the pause between two renewals, and the ways.
const TAKE_OVER: Duration = Duration::from_secs(2);

/// What has happened in all worlds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) worlds: u64,
    pub(crate) taken_over: u64,
    pub(crate) late: u64,
    pub(crate) unknown: u64,
    pub(crate) put_back: u64,
    pub(crate) sent_late: u64,
    pub(crate) given_back: u64,
    pub(crate) aborted: u64,
    pub(crate) handed_over: u64,
}

#[derive(Debug, Default)]
struct Target {
    host: usize,
    state: TargetState,
    starts: usize,
    sends: usize,
    outcomes: usize,
}

#[derive(Debug, Default)]
struct Host {
    lease: HostLease,
    /// By the lease's own row; for the law of take-over.
    expires: Duration,
    /// The controller to which it belongs, and since when.
    owner: String,
    owned_since: Duration,
    /// Calls of each epoch that were sent and have not ended.
    in_flight: Vec<(i64, usize)>,
}

fn number_of(host: &str) -> usize {
    host.trim_start_matches("host-").parse().unwrap_or_else(|_| panic!("{host}"))
}

#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    rng: fastrand::Rng,
    now: Duration,
    hosts: Vec<Host>,
    targets: Vec<Target>,
    /// The controllers that the database knows, and until when they count as alive.
    alive: Vec<(String, Duration)>,
    controllers: Vec<Controller>,
    /// Requests on their way: when they arrive, of which controller, and whether it waits for the reply.
    requests: Vec<(Duration, usize, Request, bool)>,
    down_until: Duration,
    seen: Seen,
}

pub(crate) fn host_name(host: usize) -> String {
    format!("host-{host}")
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let controllers = (0..3).map(|n| Controller::new(n, &mut rng, Duration::ZERO)).collect();
        let targets = (0..TARGETS).map(|n| Target { host: n % HOSTS, ..Target::default() });
        World {
            seed,
            now: Duration::ZERO,
            hosts: (0..HOSTS).map(|_| Host::default()).collect(),
            targets: targets.collect(),
            alive: Vec::new(),
            controllers,
            requests: Vec::new(),
            down_until: Duration::ZERO,
            seen: Seen::default(),
            rng,
        }
    }

    pub(crate) fn run(mut self, seen: &mut Seen) {
        while self.now < END && !self.is_done() {
            self.now += STEP;
            if self.now < CALM {
                self.fault();
            }
            self.deliver();
            for n in 0..self.controllers.len() {
                self.turn(n);
            }
            self.check_take_over();
        }
        for (n, target) in self.targets.iter().enumerate() {
            let Target { state, starts, sends, outcomes, .. } = target;
            assert_eq!(*outcomes, 1, "seed {}: target {n} is {state:?} at the end", self.seed);
            assert!(*sends <= 1 && *sends <= *starts, "seed {}: target {n} sent {sends}", self.seed);
        }
        let more = self.seen;
        seen.worlds += 1;
        seen.taken_over += more.taken_over;
        seen.late += more.late;
        seen.unknown += more.unknown;
        seen.put_back += more.put_back;
        seen.sent_late += more.sent_late;
        seen.given_back += more.given_back;
        seen.aborted += more.aborted;
        seen.handed_over += self.controllers.iter().map(|controller| controller.handed_over).sum::<u64>();
    }

    fn is_done(&self) -> bool {
        self.now > CALM && self.targets.iter().all(|target| target.outcomes > 0)
    }

    fn fault(&mut self) {
        if self.rng.u32(..60) > 0 {
            return;
        }
        let n = self.rng.usize(..self.controllers.len());
        let long = Duration::from_millis(self.rng.u64(200..14_000));
        let until = self.now + long;
        match self.rng.u32(..6) {
            0 => {
                self.controllers[n].is_dead = true;
                let next = Controller::new(self.controllers.len(), &mut self.rng, self.now);
                self.controllers.push(next);
            }
            1 | 2 => self.controllers[n].stopped_until = until,
            3 => self.controllers[n].cut_until = until,
            4 => self.down_until = until.min(CALM),
            _ => {
                let stay = self.controllers.iter().filter(|c| c.is_up() && !c.is_leaving).count();
                self.controllers[n].is_leaving |= stay > 1;
            }
        }
    }

    /// Lets requests arrive at the database, and sends the replies.
    fn deliver(&mut self) {
        let now = self.now;
        let (arrived, on_way) =
            std::mem::take(&mut self.requests).into_iter().partition(|(at, ..)| *at <= now);
        self.requests = on_way;
        let arrived: Vec<(Duration, usize, Request, bool)> = arrived;
        for (_, n, request, is_awaited) in arrived {
            if !is_awaited {
                self.answer(n, request);
                continue;
            }
            let lost = match &request {
                Request::Renew { .. } => Reply::LostRenewal,
                Request::Start { .. } | Request::PutBack { .. } | Request::List | Request::Release { .. } => {
                    Reply::LostStart
                }
                // An outcome is told again.
                Request::Finish { .. } => Reply::LostOther,
            };
            // The connection breaks, and the request that is on its way is carried out later.
            if self.rng.u32(..100) == 0 {
                let later = now + Duration::from_millis(self.rng.u64(100..5000));
                self.requests.push((later, n, request, false));
                self.controllers[n].inbox.push((now, lost));
                continue;
            }
            if now < self.down_until || now < self.controllers[n].cut_until {
                self.controllers[n].inbox.push((now + STEP * 5, lost));
                continue;
            }
            let reply = self.answer(n, request);
            // A reply may be lost where its request was not.
            let is_lost = self.rng.u32(..40) == 0 || now < self.controllers[n].cut_until;
            let at = now + self.delay();
            self.controllers[n].inbox.push((at, if is_lost { lost } else { reply }));
        }
    }

    fn delay(&mut self) -> Duration {
        STEP * self.rng.u32(0..4)
    }

    /// A controller's turn, if it is not stopped.
    fn turn(&mut self, n: usize) {
        let now = self.now;
        let controller = &mut self.controllers[n];
        if !controller.is_up() || now < controller.stopped_until {
            return;
        }
        // What it was about to send when it was stopped, it sends before it looks at a clock.
        let was_stopped = controller.was_stopped(now);
        let sends = std::mem::take(&mut controller.sends);
        for (target, claim) in sends {
            self.send(n, target, claim, was_stopped);
        }
        for (target, epoch) in self.controllers[n].ended(now) {
            self.ended(target, epoch);
        }
        let host_of = |target: usize| self.targets[target].host;
        let controller = &mut self.controllers[n];
        controller.read(now, host_of);
        let aborted = controller.look(now, host_of);
        let requests = controller.act(now, host_of);
        self.seen.aborted += aborted.len() as u64;
        for (target, epoch) in aborted {
            self.ended(target, epoch);
        }
        for request in requests {
            let at = now + self.delay();
            self.requests.push((at, n, request, true));
        }
    }

    fn send(&mut self, n: usize, target: usize, claim: Claim, was_stopped: bool) {
        let epoch = claim.epoch;
        let seed = self.seed;
        let host = &mut self.hosts[self.targets[target].host];
        let name = self.controllers[n].name.as_str();
        if was_stopped {
            self.seen.sent_late += u64::from(!host.lease.is_of(name, epoch, self.now));
        } else {
            assert!(
                host.lease.is_of(name, epoch, self.now),
                "seed {seed}: {name} sends in epoch {epoch} of {:?} at {:?}",
                host.lease,
                self.now
            );
        }
        match host.in_flight.iter_mut().find(|(of, _)| *of == epoch) {
            Some((_, count)) => *count += 1,
            None => host.in_flight.push((epoch, 1)),
        }
        let count = host.in_flight.iter().find(|(of, _)| *of == epoch).map_or(0, |(_, count)| *count);
        assert!(count <= LIMIT, "seed {seed}: {count} calls in epoch {epoch}");
        self.targets[target].sends += 1;
        assert_eq!(self.targets[target].sends, 1, "seed {seed}: target {target} was sent twice");
        let hangs = self.rng.u32(..8) == 0;
        let takes = if hangs { TIMEOUT } else { Duration::from_millis(self.rng.u64(100..4000)) };
        self.controllers[n].sent(target, claim, self.now + takes);
    }

    fn ended(&mut self, target: usize, epoch: i64) {
        let host = &mut self.hosts[self.targets[target].host];
        if let Some((_, count)) = host.in_flight.iter_mut().find(|(of, _)| *of == epoch) {
            *count -= 1;
        }
    }

    fn answer(&mut self, n: usize, request: Request) -> Reply {
        let now = self.now;
        let name = self.controllers[n].name.clone();
        match request {
            Request::Renew { since } => self.renew(n, &name, since),
            Request::Start { number, hosts } => {
                let mut started = Vec::new();
                for (host, epoch) in hosts {
                    let host = number_of(&host);
                    let claim = Claim { controller: name.clone(), epoch, number };
                    let lease = &self.hosts[host].lease;
                    let of_epoch = |target: &&Target| {
                        target.host == host
                            && matches!(&target.state, TargetState::Started { claim, .. } if claim.epoch == epoch)
                    };
                    let mut free = LIMIT.saturating_sub(self.targets.iter().filter(of_epoch).count());
                    for (number, target) in self.targets.iter_mut().enumerate() {
                        let is_next = free > 0 && target.host == host;
                        if is_next && target.state.start(lease, &claim, now, now + TIMEOUT) {
                            target.starts += 1;
                            free -= 1;
                            started.push((number, claim.clone()));
                        }
                    }
                }
                Reply::Started { started }
            }
            Request::Finish { target, claim } => {
                let row = &mut self.targets[target];
                if row.state.finish(&claim) {
                    row.outcomes += 1;
                    let is_late = self.hosts[row.host].lease.epoch() != claim.epoch;
                    self.seen.late += u64::from(is_late);
                }
                Reply::Finished { target, claim }
            }
            Request::List => {
                let started =
                    self.targets.iter().enumerate().filter_map(|(number, target)| match &target.state {
                        TargetState::Started { claim, .. } if claim.controller == name => {
                            Some((number, claim.clone()))
                        }
                        _ => None,
                    });
                Reply::Listed { started: started.collect() }
            }
            Request::PutBack { started } => {
                for (target, claim) in &started {
                    let was = self.targets[*target].state.put_back(claim);
                    assert!(
                        !was || self.targets[*target].sends == 0,
                        "seed {}: {target} was sent",
                        self.seed
                    );
                    self.seen.put_back += u64::from(was);
                }
                Reply::PutBack
            }
            Request::Release { host, epoch } => {
                let host = number_of(&host);
                self.hosts[host].lease.release(&name, epoch);
                self.seen.given_back += 1;
                Reply::Released
            }
        }
    }

    fn renew(&mut self, n: usize, name: &str, since: Duration) -> Reply {
        let now = self.now;
        let is_leaving = self.controllers[n].is_leaving;
        self.alive.retain(|(other, until)| other != name && *until > now);
        if !is_leaving {
            self.alive.push((name.to_owned(), now + LENGTH));
        }
        let alive: Vec<_> = self.alive.iter().map(|(name, _)| name.clone()).collect();
        let mut all = Vec::new();
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let is_share = owner(&host_name(number), alive.iter().map(String::as_str)) == Some(name);
            if let Some(epoch) = host.lease.renew(name, now, LENGTH) {
                host.expires = now + LENGTH;
                all.push((number, epoch, is_share));
                continue;
            }
            let old = host.lease.epoch();
            if is_share && let Some(epoch) = host.lease.take(name, now, LENGTH) {
                host.expires = now + LENGTH;
                all.push((number, epoch, true));
                if old > 0 {
                    self.seen.taken_over += 1;
                }
                // Of the old owner nothing is under way, unless it is stopped or dead, or has handed it over: it has aborted that
                // itself.
                for other in self
                    .controllers
                    .iter()
                    .filter(|other| other.is_up() && now > other.stopped_until + STEP * 2)
                {
                    assert!(
                        !other.is_working(old, |target| self.targets[target].host == number),
                        "seed {}: {} works on host {number} in epoch {old} at {now:?}",
                        self.seed,
                        other.name
                    );
                }
            }
        }
        for target in &mut self.targets {
            let lease = &self.hosts[target.host].lease;
            let is_mine = all.iter().any(|(host, ..)| *host == target.host);
            if is_mine && target.state.give_up(lease, now, SLACK) {
                target.outcomes += 1;
                self.seen.unknown += 1;
            }
        }
        Reply::Granted { since, all }
    }

    /// A host whose lease has ended is taken, where the controller to which it belongs could have done that.
    fn check_take_over(&mut self) {
        let now = self.now;
        for n in 0..self.controllers.len() {
            let is_fit = self.controllers[n].is_up()
                && !self.controllers[n].is_leaving
                && now >= self.controllers[n].stopped_until
                && now >= self.controllers[n].cut_until
                && now >= self.down_until;
            self.controllers[n].fit_since = match is_fit {
                true => self.controllers[n].fit_since.or(Some(now)),
                false => None,
            };
        }
        let alive: Vec<_> =
            self.alive.iter().filter(|(_, until)| *until > now).map(|(name, _)| name).collect();
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let name = owner(&host_name(number), alive.iter().map(|name| name.as_str()));
            let Some(owner) = self.controllers.iter().find(|c| Some(c.name.as_str()) == name) else {
                continue;
            };
            if host.owner != owner.name {
                (host.owner, host.owned_since) = (owner.name.clone(), now);
            }
            let Some(fit_since) = owner.fit_since else { continue };
            // Its replies may be lost now and then, and are waited for.
            let least = host.expires.max(host.owned_since).max(fit_since + TAKE_OVER);
            assert!(
                now <= least + TAKE_OVER || host.expires > now,
                "seed {}: host {number} is not taken at {now:?}, and {} could",
                self.seed,
                owner.name
            );
        }
    }
}
