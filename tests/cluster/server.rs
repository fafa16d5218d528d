//! One process of Redis: the real server on a free port, empty, in a folder that goes with it.
//!
//! `HERALD_TEST_REDIS_SERVER` names another program that is to be taken for it, such as `valkey-server`.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::DEADLINE;

/// How often a server that starts is asked whether it has.
const LOOK: Duration = Duration::from_millis(5);
/// So far behind its port, each server of a Redis Cluster has another for its like.
const BUS: u16 = 10_000;

/// See the module. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    child: Child,
    folder: TempDir,
    arguments: &'static [&'static str],
    /// How `redis-cli` is let in.
    login: Vec<String>,
    is_running: AtomicBool,
}

impl Server {
    /// One with this in its file for the port that it gets, and with further arguments.
    pub(crate) fn start(
        folder: TempDir,
        arguments: &'static [&'static str],
        login: &[&str],
        config: impl Fn(u16) -> String,
    ) -> Self {
        // Redis cannot say which port it took, and another process may be faster to take the one that was free.
        let spawn_on = |folder: &Path, port: u16| {
            let config = format!("bind 127.0.0.1\ndir {}\n{}", folder.display(), config(port));
            std::fs::write(folder.join("redis.conf"), config).unwrap();
            spawn(folder, arguments)
        };
        let port = free_port();
        let child = spawn_on(folder.path(), port);
        let login = login.iter().map(|part| (*part).to_owned()).collect();
        let mut server = Self { port, child, folder, arguments, login, is_running: AtomicBool::new(true) };
        for _ in 0..10 {
            if server.is_up() {
                return server;
            }
            server.port = free_port();
            server.child = spawn_on(server.folder.path(), server.port);
        }
        panic!("{} does not start", program());
    }

    /// Kills it; what it has not on disk is lost.
    pub(crate) fn kill(&mut self) {
        self.is_running = AtomicBool::new(false);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it, once it was killed, on the same port and with its file as it left it.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.folder.path(), self.arguments);
        self.is_running = AtomicBool::new(true);
        assert!(self.is_up(), "{} starts on the port that it had", program());
    }

    /// From now on it answers nothing, and nobody is told.
    pub(crate) fn pause(&self) {
        self.is_running.store(false, Ordering::Relaxed);
        self.signal("STOP");
    }

    /// It goes on where it was.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
        self.is_running.store(true, Ordering::Relaxed);
    }

    /// Whether the test has neither killed nor paused it.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    /// What `redis-cli` prints, without the end of the last line.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--no-auth-warning"]).args(&self.login);
        let output = command.args(args).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Waits for it to answer; false if it has ended instead.
    fn is_up(&mut self) -> bool {
        let start = Instant::now();
        let itself = format!("process_id:{}\r", self.child.id());
        while start.elapsed() < DEADLINE {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            // Whoever was faster to take the port may answer, too.
            if self.cli(&["INFO", "server"]).contains(&itself) {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        panic!("{} does not answer", program());
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "the process is there");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The test may have killed it.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn program() -> String {
    std::env::var("HERALD_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn spawn(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.arg("redis.conf").args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{} cannot be started: {error}", program()))
}

/// A port that is free, and the one for the bus with it: below those that the kernel gives to outgoing connections, so that none of these
/// takes it while the server is away.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(11_000..22_000);
        if [port, port + BUS].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}
