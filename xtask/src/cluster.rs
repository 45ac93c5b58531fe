//! `cargo xtask cluster`: several controllers over one PostgreSQL, on a simulated fleet. They run in the background until `down`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Result, cargo, setup};

const USAGE: &str = "usage: cargo xtask cluster up [--controllers N] [--hosts M] | down";

const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// PostgreSQL refuses to run as root; then it runs as this user, `nobody`.
const UNPRIVILEGED: u32 = 65534;

/// VMs of each host.
const VMS: u32 = 2;

/// How long a program may take until it is ready, or has ended. It is never reached.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    match words[..] {
        ["up", ref options @ ..] => up(options)?,
        ["down"] => down()?,
        _ => return Err(USAGE.to_owned()),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(options: &[&str]) -> Result<()> {
    let (mut controllers, mut hosts) = (2, 4);
    for pair in options.chunks(2) {
        let [option, number] = pair else { return Err(USAGE.to_owned()) };
        let number = number.parse().ok().filter(|&number: &u32| number > 0);
        let number = number.ok_or_else(|| format!("{option}: expected a number from 1"))?;
        match *option {
            "--controllers" => controllers = number,
            "--hosts" => hosts = number,
            _ => return Err(USAGE.to_owned()),
        }
    }
    setup::run_with(&["postgresql-15"])?;
    cargo::build(&["atp-cli", "atp-fleet"])?;
    let bed = Bed::new();
    if bed.folder.exists() {
        return Err(format!(
            "there is a cluster in {}\n\nhint: remove it with `cargo xtask cluster down`",
            bed.folder.display()
        ));
    }
    let started = bed.start(controllers, hosts);
    if started.is_err() {
        bed.remove()?;
    }
    started
}

fn down() -> Result<()> {
    let bed = Bed::new();
    if !bed.folder.exists() {
        println!("there is no cluster");
        return Ok(());
    }
    bed.remove()
}

/// The files of the cluster: settings, logs, and `processes`, which has the programs that were started.
struct Bed {
    folder: PathBuf,
}

impl Bed {
    fn new() -> Self {
        Bed { folder: cargo::root().join("target/cluster") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn start(&self, controllers: u32, hosts: u32) -> Result<()> {
        make_private(&self.folder)?;
        let database = self.start_database()?;
        let (hosts_text, vms) = (hosts.to_string(), VMS.to_string());
        let settings = self.path("fleet.toml");
        let mut fleet = Command::new(cargo::binary("fleet")?);
        fleet.args(["up", "--hosts", &hosts_text, "--vms", &vms, "--rtt", "1ms", "--write"]).arg(&settings);
        self.launch("fleet", &mut fleet, "are up on port")?;

        let fleet = fs::read_to_string(&settings).map_err(|error| failed(&settings, &error))?;
        let tokens = self.path("tokens.toml");
        let settings_of = |folder: &Path| {
            format!(
                "{fleet}\n[serve]\nlisten = \"127.0.0.1:0\"\ntokens = {tokens:?}\nfolder = {folder:?}\n{database}cluster = true\n"
            )
        };
        let token = self.path("token");
        let mut client = String::new();
        println!(
            "{controllers} controllers over one PostgreSQL, on {hosts} simulated hosts with {VMS} VMs each:\n"
        );
        for number in 1..=controllers {
            let name = format!("c{number}");
            let settings = self.path(&format!("{name}.toml"));
            write(&settings, &settings_of(&self.path(&name)))?;
            if number == 1 {
                let mut add = Command::new(cargo::binary("atp")?);
                add.arg("--config")
                    .arg(&settings)
                    .args(["serve", "token", "add", "cluster", "--role", "admin"]);
                write(&token, &succeed(&mut add)?)?;
            }
            let mut serve = Command::new(cargo::binary("atp")?);
            serve.arg("--config").arg(&settings).arg("serve");
            let (pid, log) = self.launch(&name, &mut serve, "http://")?;
            let url = log.split_once("http://").and_then(|(_, rest)| rest.split_whitespace().next());
            let url = url.ok_or_else(|| format!("{name} does not say where it listens:\n{log}"))?;
            println!("  {name}  http://{url}  process {pid}");
            if client.is_empty() {
                client = format!(
                    "server = \"http://{}\"\nserver_token_file = {token:?}\n",
                    url.trim_end_matches('/')
                );
            }
        }
        let settings = self.path("client.toml");
        write(&settings, &client)?;
        let (atp, settings) = (cargo::binary("atp")?, settings.display().to_string());
        println!(
            "\nUse it:   {} --config {settings} exec '*' -- uname -r\nLogs:     {}\nRemove:   cargo xtask cluster down",
            atp.display(),
            self.folder.display()
        );
        Ok(())
    }

    /// Starts PostgreSQL on a port of its own, with a folder that its user can reach. Returns its settings.
    fn start_database(&self) -> Result<String> {
        let made = succeed(Command::new("mktemp").args(["--directory", "--tmpdir", "atp-cluster.XXXXXX"]))?;
        let folder = PathBuf::from(made.trim());
        write(&self.path("database"), &folder.display().to_string())?;
        let (password, data) = (folder.join("password"), folder.join("data"));
        write(&password, &random()?)?;
        if is_root() {
            for path in [&folder, &password] {
                chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).map_err(|error| failed(path, &error))?;
            }
        }
        let mut made = postgres("initdb");
        made.args(["--username", "atp", "--auth-local", "trust", "--auth-host", "scram-sha-256"]);
        made.args(["--encoding", "UTF8", "--no-locale", "--no-sync", "--pgdata"]).arg(&data);
        succeed(made.arg("--pwfile").arg(&password))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = port.map_err(|error| format!("no port is free: {error}"))?.port().to_string();
        let mut server = postgres("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(&folder).args(["-p", &port, "-h", "127.0.0.1"]);
        self.launch("postgres", &mut server, "ready to accept connections")?;
        let mut created = postgres("createdb");
        created.arg("--host").arg(&folder).args(["--port", &port, "--username", "atp", "atp"]);
        succeed(&mut created)?;
        Ok(format!(
            "database = \"postgres://atp@127.0.0.1:{port}/atp\"\ndatabase_password_file = {password:?}\n"
        ))
    }

    /// Starts a program that goes on after this one, and waits until its log says that it is ready. Returns its process and its
    /// log.
    fn launch(&self, name: &str, command: &mut Command, ready: &str) -> Result<(u32, String)> {
        let path = self.path(&format!("{name}.log"));
        let log = File::create(&path).map_err(|error| failed(&path, &error))?;
        let errors = log.try_clone().map_err(|error| failed(&path, &error))?;
        // Ctrl-C in this terminal is not for it.
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = command.spawn().map_err(|error| failed(Path::new(command.get_program()), &error))?;
        let pid = child.id();
        let since = since(pid).unwrap_or_default();
        let processes = self.path("processes");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&processes)
            .map_err(|error| failed(&processes, &error))?;
        writeln!(file, "{pid} {since} {name}").map_err(|error| failed(&processes, &error))?;
        let until = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&path).unwrap_or_default();
            if log.contains(ready) && log.ends_with('\n') {
                return Ok((pid, log));
            }
            let has_ended = !matches!(child.try_wait(), Ok(None));
            if has_ended || Instant::now() > until {
                return Err(format!("{name} is not ready:\n{log}"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends what was started, the last first, and removes its files.
    fn remove(&self) -> Result<()> {
        let processes = fs::read_to_string(self.path("processes")).unwrap_or_default();
        for line in processes.lines().rev() {
            let mut words = line.split(' ');
            let (Some(Ok(pid)), Some(started)) = (words.next().map(str::parse), words.next()) else {
                continue;
            };
            end(pid, started, if line.ends_with(" postgres") { "INT" } else { "TERM" })?;
        }
        if let Ok(database) = fs::read_to_string(self.path("database")) {
            let database = Path::new(&database);
            match fs::remove_dir_all(database) {
                // It went with the machine's temporary files.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|error| failed(database, &error))?,
            }
        }
        fs::remove_dir_all(&self.folder).map_err(|error| failed(&self.folder, &error))
    }
}

/// Ends a process that started at this time, if it is the same one still.
fn end(pid: u32, started: &str, signal: &str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut signal = Some(signal);
    while since(pid).is_some_and(|since| since == started) {
        if let Some(signal) = signal.take() {
            // Fails if it has just ended.
            let _sent = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
        }
        if Instant::now() > until {
            return Err(format!("process {pid} does not end"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// When a process was started, in ticks since the machine was, if it runs.
fn since(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may have blanks.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    let state = words.next()?;
    let started = words.nth(18)?;
    (state != "Z").then(|| started.to_owned())
}

/// One of PostgreSQL's programs, with none of the settings of the environment.
fn postgres(name: &str) -> Command {
    let mut command = Command::new(Path::new(POSTGRES).join(name));
    command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin");
    if is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A password.
fn random() -> Result<String> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| failed(Path::new("/dev/urandom"), &error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn make_private(folder: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed(folder, &error))
}

/// Writes a file that only its owner reads.
fn write(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| failed(path, &error))
}

/// The output of a program that has to succeed.
fn succeed(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(Path::new(command.get_program()), &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let (program, said) = (command.get_program().display(), String::from_utf8_lossy(&output.stderr));
    Err(format!("{program} ended with {}:\n{said}", output.status))
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
