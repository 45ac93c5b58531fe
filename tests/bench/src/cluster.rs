//! The cost of several controllers over one PostgreSQL: the CPU time of a target, of the controllers and of the database, and a run
//! of which one controller is killed. The hosts are simulated, in this process.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atp_fleet::{Fleet, FleetOptions};
use atp_postgres::Postgres;
use tokio::runtime::Runtime;

use crate::median;
use crate::peers::commands::wait_for;
use crate::peers::processes::{cpu_of_the_family, cpu_of_the_running};
use crate::serve::Service;
use crate::table::Table;

/// 10,000 targets, and the time that a message takes there and back.
const HOSTS: u32 = 200;
const VMS: u32 = 50;
const RTT: Duration = Duration::from_millis(1);

const PARALLEL: &str = "256";

const ROUNDS: usize = 5;

/// The settings of those who share the database, and of a service that has it for itself.
const CONTROLLERS: [(usize, &str); 4] =
    [(1, ""), (1, "cluster = true"), (2, "cluster = true"), (4, "cluster = true")];

const DATABASE: &str = "bench";

/// How long it may take until leases are spread, or a run has ended. It is never reached.
const PATIENCE: Duration = Duration::from_secs(600);

/// Some controllers, with a database of their own.
struct Bed {
    controllers: Vec<Service>,
    postgres: Postgres,
}

/// What a run has cost.
struct Cost {
    controllers: Duration,
    database: Duration,
    wall: Duration,
}

/// Measures, and prints the tables.
pub(crate) fn report() -> Result<()> {
    let runtime = Runtime::new()?;
    let options = FleetOptions { hosts: HOSTS, vms: VMS, rtt: RTT, ..FleetOptions::default() };
    let fleet = runtime.block_on(Fleet::start(options))?;
    costs(&fleet)?;
    kill(&fleet)
}

fn costs(fleet: &Fleet) -> Result<()> {
    let mut table = Table::new([
        "controllers",
        "their CPU, µs/target",
        "database, µs/target",
        "in all, µs/target",
        "share of the database",
        "wall, s",
    ]);
    for (controllers, section) in CONTROLLERS {
        let bed = Bed::start(fleet, controllers, section)?;
        let mut executed = executions(fleet);
        let mut costs = Vec::new();
        // The first opens connections, and is not counted.
        for round in 0..=ROUNDS {
            let cost = bed.cost()?;
            let before = std::mem::replace(&mut executed, executions(fleet));
            let each_once = executed.iter().zip(before).all(|(now, before)| *now == before + 1);
            ensure!(each_once, "not every target was executed once");
            if round > 0 {
                costs.push(cost);
            }
        }
        let middle = |figure: fn(&Cost) -> Duration| {
            let each = costs.iter().map(|cost| figure(cost).as_secs_f64() * 1e6);
            median(each) / f64::from(HOSTS * VMS)
        };
        let (of_controllers, of_database) = (middle(|cost| cost.controllers), middle(|cost| cost.database));
        let all = middle(|cost| cost.controllers + cost.database);
        let shares = costs
            .iter()
            .map(|cost| cost.database.as_secs_f64() / (cost.controllers + cost.database).as_secs_f64());
        table.row([
            if section.is_empty() { "a service by itself".to_owned() } else { controllers.to_string() },
            format!("{of_controllers:.0}"),
            format!("{of_database:.0}"),
            format!("{all:.0}"),
            format!("{:.0} %", median(shares) * 100.0),
            format!("{:.1}", median(costs.iter().map(|cost| cost.wall.as_secs_f64()))),
        ]);
    }
    table.print(&format!(
        "`atp --server … exec '*' -- true` on {} VMs of {HOSTS} simulated hosts, {PARALLEL} at once, with a round trip of {RTT:?}; \
         medians of {ROUNDS} runs. The client and the simulator are not counted:",
        HOSTS * VMS
    ));
    Ok(())
}

/// A run of which one of three controllers is killed at its half.
fn kill(fleet: &Fleet) -> Result<()> {
    let mut bed = Bed::start(fleet, 3, "cluster = true\nlease = \"5s\"\nclock_slack = \"1s\"")?;
    let before = executions(fleet);
    let start = Instant::now();
    let mut client = bed.exec()?;
    let mut client = client.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let half = HOSTS * VMS / 2;
    let finished = "SELECT count(*) FROM targets WHERE state = 'finished'";
    bed.wait_for(finished, |count| count.parse().is_ok_and(|count: u32| count >= half))?;
    let mut killed = bed.controllers.pop().context("there are three")?;
    killed.child.kill()?;
    killed.child.wait()?;
    bed.wait_for("SELECT count(*) FROM runs WHERE state = 'running'", |count| count == "0")?;
    client.wait()?;
    let wall = start.elapsed();
    let outcomes = bed.query(finished)?;
    let unknown = bed.query("SELECT count(*) FROM targets WHERE outcome LIKE '%outcome-unknown%'")?;
    let executed: Vec<u64> = executions(fleet).iter().zip(before).map(|(now, before)| now - before).collect();
    let most = executed.iter().max().copied().unwrap_or_default();
    let mut table =
        Table::new(["targets", "outcomes", "of them unknown", "executions", "most of one", "wall, s"]);
    table.row([
        (HOSTS * VMS).to_string(),
        outcomes.clone(),
        unknown,
        executed.iter().sum::<u64>().to_string(),
        most.to_string(),
        format!("{:.1}", wall.as_secs_f64()),
    ]);
    table.print(
        "The same run with three controllers, one of which is killed when half of the outcomes are there:",
    );
    ensure!(
        outcomes == (HOSTS * VMS).to_string() && most <= 1,
        "a target has no outcome, or was executed twice"
    );
    Ok(())
}

impl Bed {
    /// Starts them, and waits until they have all hosts. With `section` they are controllers.
    fn start(fleet: &Fleet, controllers: usize, section: &str) -> Result<Self> {
        let postgres = Postgres::start()?;
        let address = postgres.database(DATABASE)?;
        let section = format!("database = {address:?}\n{section}");
        let controllers = (0..controllers).map(|_| Service::start(fleet, &section)).collect::<Result<_>>()?;
        let bed = Bed { controllers, postgres };
        if section.contains("cluster") {
            let spread = "SELECT count(DISTINCT controller), count(controller) FROM host_lease";
            let expected = format!("{}|{HOSTS}", bed.controllers.len());
            bed.wait_for(spread, |answer| answer == expected)?;
        }
        Ok(bed)
    }

    fn query(&self, sql: &str) -> Result<String> {
        Ok(self.postgres.execute(DATABASE, sql)?)
    }

    fn wait_for(&self, sql: &str, is_it: impl Fn(&str) -> bool) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.query(sql)?;
            if is_it(&answer) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{sql}: {answer}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The client, of the first controller.
    fn exec(&self) -> Result<Command> {
        let first = self.controllers.first().context("there is no controller")?;
        let mut command = first.client()?;
        command.args(["--parallel", PARALLEL, "exec", "*", "--", "true"]);
        Ok(command)
    }

    /// A run, and what it has cost.
    fn cost(&self) -> Result<Cost> {
        let of_controllers = || -> Result<Duration> {
            self.controllers.iter().map(|service| cpu_of_the_running(service.child.id())).sum()
        };
        let database = self.postgres.process().context("the database is stopped")?;
        let before = (of_controllers()?, cpu_of_the_family(database)?, Instant::now());
        wait_for(&mut self.exec()?)?;
        Ok(Cost {
            wall: before.2.elapsed(),
            controllers: of_controllers()?.saturating_sub(before.0),
            database: cpu_of_the_family(database)?.saturating_sub(before.1),
        })
    }
}

/// How often each VM has executed the program.
fn executions(fleet: &Fleet) -> Vec<u64> {
    let vms = fleet.hosts().flat_map(|host| (1..=VMS).filter_map(move |number| host.vm(number)));
    vms.map(|vm| vm.counts().programs.of("true")).collect()
}
