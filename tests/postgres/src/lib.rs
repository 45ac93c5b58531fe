//! A PostgreSQL server of a test's own, in a folder of its own, on a socket there. It never touches a server of the machine.
//!
//! The programs are those of Debian's `postgresql-15`, which `cargo xtask setup` installs.
//!
//! ```no_run
//! let server = atp_postgres::Postgres::start()?;
//! let address = server.database("leases")?; // postgres://…
//! assert_eq!(server.execute("leases", "SELECT 1 + 1")?.trim(), "2");
//! # let _ = address;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | server | a process of PostgreSQL with its folder, which are gone when the value is dropped ([`Postgres`]) |
//! | address | what a client connects to, with the path of the socket in it ([`Postgres::database`]) |

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// The server refuses to run as root; then it runs as this user, `nobody`.
const UNPRIVILEGED: u32 = 65534;

/// The user of the databases, who needs no password on the socket.
const USER: &str = "atp";

/// How long the server may take to start or to stop. It is never reached.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server, which is stopped when the value is dropped.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    server: Option<Child>,
}

impl Postgres {
    /// Makes a server and starts it. Blocks until it accepts connections.
    ///
    /// # Errors
    /// The programs are not there, or fail.
    pub fn start() -> io::Result<Postgres> {
        let folder = tempfile::Builder::new().prefix("atp-postgres-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
        if geteuid().is_root() {
            chown(folder.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        }
        let mut postgres = Postgres { folder, server: None };
        let mut made = postgres.program("initdb");
        made.arg("--pgdata").arg(postgres.data()).args([
            "--username",
            USER,
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        succeed(&mut made)?;
        postgres.restart()?;
        Ok(postgres)
    }

    /// Starts the server again, after [`stop`](Self::stop). Blocks until it accepts connections.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        let log = File::create(self.folder.path().join("log"))?;
        let mut server = self.program("postgres");
        server.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        server.args(["-c", "listen_addresses=", "-c", "max_connections=60", "-c", "fsync=off"]);
        self.server = Some(server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        let until = Instant::now() + PATIENCE;
        while let Err(error) = self.execute("postgres", "SELECT 1") {
            let has_ended = self.server.as_mut().is_none_or(|server| !matches!(server.try_wait(), Ok(None)));
            if has_ended || Instant::now() > until {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("the server does not start: {error}\n{log}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Stops the server; connections end at once. Blocks until it has ended.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        if let Some(pid) = i32::try_from(server.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT)?;
        }
        server.wait().map(drop)
    }

    /// Makes a database, and returns its address.
    ///
    /// # Errors
    /// It exists, or the server does not run.
    pub fn database(&self, name: &str) -> io::Result<String> {
        self.execute("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://{USER}@localhost/{name}?host={}", self.folder.path().display()))
    }

    /// Carries out a statement in a database.
    ///
    /// # Errors
    /// It fails.
    pub fn execute(&self, database: &str, sql: &str) -> io::Result<String> {
        let mut psql = self.program("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        psql.arg("--host").arg(self.folder.path()).args(["--username", USER, "--command", sql, database]);
        succeed(&mut psql)
    }

    /// The number of its first process, which has started the others; none if it is stopped.
    pub fn process(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// The socket on which it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// One of the programs, with none of the settings of the environment.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(name));
        command.current_dir("/").env_clear().env("HOME", self.folder.path()).env("PATH", "/usr/bin:/bin");
        if geteuid().is_root() {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The folder is removed in any case.
        let _ = self.stop();
    }
}

fn succeed(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{:?} failed: {said}", command.get_program())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_database_outlasts_a_restart() {
        let mut postgres = Postgres::start().unwrap();
        let address = postgres.database("one").unwrap();
        assert!(address.starts_with("postgres://atp@localhost/one?host=/"), "{address}");
        postgres.execute("one", "CREATE TABLE t (n INT); INSERT INTO t VALUES (7)").unwrap();
        postgres.stop().unwrap();
        assert!(postgres.execute("one", "SELECT 1").is_err());
        postgres.restart().unwrap();
        assert_eq!(postgres.execute("one", "SELECT n FROM t").unwrap(), "7");
    }
}
