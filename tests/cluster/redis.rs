//! A Redis of a test's own: the real server on a free port, empty, in a folder that goes with it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::DEADLINE;

/// How often a server that starts is asked whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// See the module. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    port: u16,
    access: Access,
    folder: TempDir,
}

/// Who is let in, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Open,
    User { name: &'static str, password: &'static str },
    Tls,
}

impl Redis {
    /// Lets everybody in.
    pub(crate) fn start() -> Self {
        Self::with(Access::Open)
    }

    /// Lets this user in and nobody else.
    pub(crate) fn with_user(name: &'static str, password: &'static str) -> Self {
        Self::with(Access::User { name, password })
    }

    /// Speaks TLS only, with a certificate that only who has read [`Self::certificate`] believes.
    pub(crate) fn with_tls() -> Self {
        Self::with(Access::Tls)
    }

    fn with(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if access == Access::Tls {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
            std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        }
        // Redis cannot say which port it took, and another process may be faster to take the one that was free.
        let free_port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = free_port();
        let mut redis = Self { child: spawn(folder.path(), port, access), port, access, folder };
        for _ in 0..10 {
            if redis.is_up() {
                return redis;
            }
            redis.port = free_port();
            redis.child = spawn(redis.folder.path(), redis.port, access);
        }
        panic!("redis-server does not start");
    }

    /// Where Herald finds it.
    pub(crate) fn url(&self) -> String {
        let address = self.address();
        match self.access {
            Access::Open => format!("redis://{address}"),
            Access::User { name, password } => {
                let password: String = form_urlencoded::byte_serialize(password.as_bytes()).collect();
                format!("redis://{name}:{password}@{address}")
            }
            Access::Tls => format!("rediss://{address}"),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The file with the certificate that its clients must believe.
    pub(crate) fn certificate(&self) -> String {
        self.folder.path().join("cert.pem").display().to_string()
    }

    /// Kills it; all that it knew is lost.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it, once it was killed, on the same port; it knows nothing.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.folder.path(), self.port, self.access);
        assert!(self.is_up(), "redis-server starts on the port that it had");
    }

    /// It dies and comes back at once, empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// From now on it answers nothing, and nobody is told.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// It goes on where it was.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// What `redis-cli` prints, without the end of the last line.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--no-auth-warning"]);
        match self.access {
            Access::Open => {}
            Access::User { name, password } => _ = command.args(["--user", name, "--pass", password]),
            Access::Tls => _ = command.args(["--tls", "--cacert", &self.certificate()]),
        }
        let output = command.args(args).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Waits for it to answer; false if it has ended instead.
    fn is_up(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.cli(&["PING"]) == "PONG" {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        panic!("redis-server does not answer");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "the process is there");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The test may have killed it.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Starts the process; nothing is kept on disk.
fn spawn(folder: &std::path::Path, port: u16, access: Access) -> Child {
    let mut config = format!("bind 127.0.0.1\nsave \"\"\nappendonly no\ndir {}\n", folder.display());
    config += &match access {
        Access::Open => format!("port {port}\n"),
        Access::User { name, password } => {
            format!("port {port}\nuser default off\nuser {name} on >{password} ~* &* +@all\n")
        }
        Access::Tls => format!(
            "port 0\ntls-port {port}\ntls-cert-file cert.pem\ntls-key-file key.pem\ntls-ca-cert-file cert.pem\ntls-auth-clients no\n"
        ),
    };
    let file = folder.join("redis.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&file).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed")
}

#[test]
fn each_kind_of_redis_starts_dies_and_comes_back_empty() {
    for mut redis in [Redis::start(), Redis::with_user("herald", "s3cret/pass+word:@"), Redis::with_tls()] {
        assert_eq!(redis.cli(&["SET", "key", "value"]), "OK", "{redis:?}");
        redis.restart();
        assert_eq!(redis.cli(&["DBSIZE"]), "0", "{redis:?}");
    }
}
