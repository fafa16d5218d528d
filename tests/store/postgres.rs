//! A real Postgres: the server that all tests share, where `tests/run` has started one, else one of the test's own; and a schema of the
//! test's own there. With one of its own a test may stop it and start it again.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tempfile::TempDir;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);

/// See the module. Dropped, the server is killed if it is the test's own, and the schema is dropped by nobody: the server ends with the tests.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: Option<Server>,
    pub(crate) url: String,
    /// Nobody else uses it.
    pub(crate) schema: String,
}

#[derive(Debug)]
struct Server {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl Postgres {
    /// A schema, and a server for it.
    pub(crate) async fn start() -> Self {
        match std::env::var("HERALD_TEST_POSTGRES_URL") {
            Ok(url) => Self { server: None, url, schema: schema() },
            Err(_) => Self::own().await,
        }
    }

    /// On a server of the test's own.
    pub(crate) async fn own() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let made = as_postgres(folder.path(), "initdb")
            .args(["--username=herald", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(folder.path().join("data"))
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb has failed");
        let url = format!("postgres://herald@127.0.0.1:{port}/postgres");
        let server = Server { process: run(folder.path(), port), folder, port };
        let postgres = Self { server: Some(server), url, schema: schema() };
        postgres.until_ready().await;
        postgres
    }

    /// Ends the test's own server at once, as a crash would.
    pub(crate) fn stop(&mut self) {
        let server = self.server.as_mut().unwrap();
        server.process.kill().unwrap();
        server.process.wait().unwrap();
        // Its own children notice that, each in its time.
        _ = std::fs::remove_file(server.folder.path().join("data/postmaster.pid"));
    }

    /// Starts it again, with what it had.
    pub(crate) async fn resume(&mut self) {
        let server = self.server.as_mut().unwrap();
        let deadline = tokio::time::Instant::now() + START;
        loop {
            server.process = run(server.folder.path(), server.port);
            tokio::time::sleep(Duration::from_millis(200)).await;
            if server.process.try_wait().unwrap().is_none() {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "the server does not come back");
        }
        self.until_ready().await;
    }

    /// A connection besides Herald's, in the test's schema.
    pub(crate) async fn connect(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let sql = format!("SET search_path TO {}", self.schema);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection
    }

    async fn until_ready(&self) {
        let deadline = tokio::time::Instant::now() + START;
        while let Err(error) = PgConnection::connect(&self.url).await {
            assert!(tokio::time::Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn schema() -> String {
    format!("t_{:016x}", rand::random::<u64>())
}

fn run(folder: &Path, port: u16) -> Child {
    let mut command = as_postgres(folder, "postgres");
    command.arg("-D").arg(folder.join("data"));
    for option in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "logging_collector=off"] {
        command.args(["-c", option]);
    }
    command.args(["-c", &format!("port={port}")]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A program of Postgres, which refuses to run as root.
pub(crate) fn as_postgres(folder: &Path, program: &str) -> Command {
    let program = find(program);
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Command::new(program);
    }
    let owned = Command::new("chown").args(["-R", "postgres"]).arg(folder).status();
    assert!(owned.unwrap().success(), "there is no user postgres");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir(folder);
    command
}

fn find(program: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = debian.map(|version| version.path().join("bin").join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(program))
}
