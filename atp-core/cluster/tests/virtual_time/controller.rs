//! A controller: it renews, starts, sends, tells outcomes, and aborts, each by what it knows.

use std::time::Duration;

use atp_cluster::{Claim, Leases};

use crate::world::{LENGTH, STEP, host_name};

/// What a controller asks the database for. `since` is its own time of asking.
#[derive(Debug)]
pub(crate) enum Request {
    Renew {
        since: Duration,
    },
    Start {
        number: i64,
        hosts: Vec<(String, i64)>,
    },
    Finish {
        target: usize,
        claim: Claim,
    },
    /// What is started by this controller in the database.
    List,
    PutBack {
        started: Vec<(usize, Claim)>,
    },
    Release {
        host: String,
        epoch: i64,
    },
}

#[derive(Debug)]
pub(crate) enum Reply {
    /// Host, epoch, and whether it is the controller's share.
    Granted {
        since: Duration,
        all: Vec<(usize, i64, bool)>,
    },
    Started {
        started: Vec<(usize, Claim)>,
    },
    Finished {
        target: usize,
        claim: Claim,
    },
    Listed {
        started: Vec<(usize, Claim)>,
    },
    PutBack,
    Released,
    LostRenewal,
    LostStart,
    LostOther,
}

#[derive(Debug)]
struct Call {
    target: usize,
    claim: Claim,
    ends: Duration,
    /// Its lease was given back, and it goes on.
    is_handed_over: bool,
}

#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) name: String,
    pub(crate) is_dead: bool,
    pub(crate) is_leaving: bool,
    pub(crate) stopped_until: Duration,
    pub(crate) cut_until: Duration,
    pub(crate) fit_since: Option<Duration>,
    last_turn: Duration,
    pub(crate) inbox: Vec<(Duration, Reply)>,
    /// What passed the last look at the clock and is about to be sent.
    pub(crate) sends: Vec<(usize, Claim)>,
    leases: Leases,
    offset: Duration,
    /// Its clock's rate, in thousandths.
    rate: u32,
    renew_at: Duration,
    is_renewing: bool,
    /// Whether it starts targets, or lets some wait again: one at a time.
    is_starting: bool,
    list_at: Duration,
    claims: i64,
    /// Calls that were handed over.
    pub(crate) handed_over: u64,
    calls: Vec<Call>,
    /// Started in the database, and nothing sent: they are to wait again.
    unsent: Vec<(usize, Claim)>,
    /// Outcomes that the database does not have yet, and until when an answer is awaited.
    outcomes: Vec<(usize, Claim, Duration)>,
}

/// The pause between two renewals.
const RENEW: Duration = Duration::from_secs(1);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

impl Controller {
    pub(crate) fn new(number: usize, rng: &mut fastrand::Rng, now: Duration) -> Self {
        Controller {
            name: format!("controller-{number}"),
            is_dead: false,
            is_leaving: false,
            stopped_until: Duration::ZERO,
            cut_until: Duration::ZERO,
            fit_since: None,
            last_turn: now,
            inbox: Vec::new(),
            sends: Vec::new(),
            leases: Leases::new(LENGTH),
            offset: Duration::from_secs(rng.u64(0..100_000)),
            rate: rng.u32(995..=1005),
            renew_at: Duration::ZERO,
            is_renewing: false,
            is_starting: false,
            list_at: Duration::ZERO,
            claims: 0,
            handed_over: 0,
            calls: Vec::new(),
            unsent: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.is_dead
    }

    /// Its own time.
    fn clock(&self, now: Duration) -> Duration {
        self.offset + now * self.rate / 1000
    }

    pub(crate) fn sent(&mut self, target: usize, claim: Claim, ends: Duration) {
        self.calls.push(Call { target, claim, ends, is_handed_over: false });
    }

    /// Whether a call of this epoch is under way that was not handed over, of targets for which `is_of` holds.
    pub(crate) fn is_working(&self, epoch: i64, is_of: impl Fn(usize) -> bool) -> bool {
        self.calls.iter().any(|call| call.claim.epoch == epoch && is_of(call.target) && !call.is_handed_over)
    }

    /// Calls that have ended, as target and epoch; their outcomes are to be told.
    pub(crate) fn ended(&mut self, now: Duration) -> Vec<(usize, i64)> {
        self.end(|call| call.ends <= now)
    }

    /// Looks at the clock. Returns the calls that are aborted: their leases near their ends, or are gone.
    pub(crate) fn look(&mut self, now: Duration, host_of: impl Fn(usize) -> usize) -> Vec<(usize, i64)> {
        self.leases.overdue(self.clock(now));
        let leases = self.leases.clone();
        self.end(|call| {
            !call.is_handed_over && !leases.holds(&host_name(host_of(call.target)), call.claim.epoch)
        })
    }

    fn end(&mut self, has_ended: impl Fn(&Call) -> bool) -> Vec<(usize, i64)> {
        let (ended, left) = std::mem::take(&mut self.calls).into_iter().partition(has_ended);
        self.calls = left;
        let ended: Vec<Call> = ended;
        let of = ended.iter().map(|call| (call.target, call.claim.epoch)).collect();
        self.outcomes.extend(ended.into_iter().map(|call| (call.target, call.claim, Duration::ZERO)));
        of
    }

    /// Reads what has arrived.
    pub(crate) fn read(&mut self, now: Duration, host_of: impl Fn(usize) -> usize) {
        let (arrived, on_way) = std::mem::take(&mut self.inbox).into_iter().partition(|(at, _)| *at <= now);
        self.inbox = on_way;
        let (arrived, clock): (Vec<(Duration, Reply)>, _) = (arrived, self.clock(now));
        for (_, reply) in arrived {
            match reply {
                Reply::Granted { since, all } => {
                    self.is_renewing = false;
                    let shares = all.iter().filter(|(.., share)| *share);
                    let shares: Vec<_> = shares.map(|(host, ..)| host_name(*host)).collect();
                    let all = all.into_iter().map(|(host, epoch, _)| (host_name(host), epoch));
                    self.leases.granted(since, all);
                    self.leases.close_unless(clock, |host| shares.iter().any(|share| share == host));
                }
                Reply::Started { started } => {
                    self.is_starting = false;
                    for (target, claim) in started {
                        match self.leases.may_start(&host_name(host_of(target)), clock) {
                            Some(now) if now == claim.epoch => self.sends.push((target, claim)),
                            _ => self.unsent.push((target, claim)),
                        }
                    }
                }
                // What the database calls started, and this controller never heard of: the answer was lost. Nothing is
                // started meanwhile, so that what it does not know now it never hears of.
                Reply::Listed { started } => {
                    self.is_starting = false;
                    self.unsent = started.into_iter().filter(|(of, claim)| !self.knows(*of, claim)).collect();
                }
                Reply::Finished { target, claim } => {
                    self.outcomes.retain(|(of, at, _)| (*of, at) != (target, &claim));
                }
                Reply::PutBack | Reply::Released | Reply::LostStart => self.is_starting = false,
                Reply::LostOther => {}
                Reply::LostRenewal => self.is_renewing = false,
            }
        }
    }

    fn knows(&self, target: usize, claim: &Claim) -> bool {
        let is_it = |of: usize, at: &Claim| (of, at) == (target, claim);
        self.calls.iter().any(|call| is_it(call.target, &call.claim))
            || self.outcomes.iter().any(|(of, at, _)| is_it(*of, at))
            || self.sends.iter().any(|(of, at)| is_it(*of, at))
    }

    /// What it asks for now.
    pub(crate) fn act(&mut self, now: Duration, host_of: impl Fn(usize) -> usize) -> Vec<Request> {
        let clock = self.clock(now);
        let mut requests = Vec::new();
        if now >= self.renew_at && !self.is_renewing {
            (self.renew_at, self.is_renewing) = (now + RENEW, true);
            requests.push(Request::Renew { since: clock });
        }
        let hosts = self.leases.startable(clock).map(|(host, epoch)| (host.to_owned(), epoch));
        let hosts: Vec<_> = hosts.collect();
        // A host is given back between two starts, so that no start of it is on its way.
        let free = self.leases.closing(clock).map(|(host, epoch, late)| (host.to_owned(), epoch, late)).find(
            |(host, epoch, late)| {
                let is_of_it = |target: usize| host_name(host_of(target)) == *host;
                let is_working = !*late && self.is_working(*epoch, is_of_it);
                !is_working && !self.sends.iter().any(|(target, _)| is_of_it(*target))
            },
        );
        if !self.is_starting {
            self.is_starting = true;
            // What is to wait again is told before anything else is started.
            if !self.unsent.is_empty() {
                requests.push(Request::PutBack { started: std::mem::take(&mut self.unsent) });
            } else if let Some((host, epoch, _)) = free {
                for call in &mut self.calls {
                    call.is_handed_over |=
                        call.claim.epoch == epoch && host_name(host_of(call.target)) == host;
                    self.handed_over += u64::from(call.is_handed_over);
                }
                self.leases.give_back(&host, epoch);
                requests.push(Request::Release { host, epoch });
            } else if now >= self.list_at {
                self.list_at = now + RENEW;
                requests.push(Request::List);
            } else if !hosts.is_empty() {
                self.claims += 1;
                requests.push(Request::Start { number: self.claims, hosts });
            } else {
                self.is_starting = false;
            }
        }
        for (target, claim, again_at) in &mut self.outcomes {
            if now >= *again_at {
                *again_at = now + PATIENCE;
                requests.push(Request::Finish { target: *target, claim: claim.clone() });
            }
        }
        self.last_turn = now;
        requests
    }

    /// Whether it was stopped since its last turn.
    pub(crate) fn was_stopped(&self, now: Duration) -> bool {
        now > self.last_turn + STEP
    }
}
