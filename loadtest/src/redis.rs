//! A Redis for one measurement, and a wire to it that counts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An empty Redis on a free port, which keeps nothing; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Redis {
    /// Starts `redis-server`, which has to be installed.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &address.port().to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let redis = Self { child: command.spawn().context("redis-server cannot be started")?, address };
        let start = Instant::now();
        while redis.info("server").is_err() {
            anyhow::ensure!(start.elapsed() < PATIENCE, "redis-server does not answer on {address}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    /// CPU time that it has used so far, by its own account, which is finer than the kernel's.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let info = self.info("cpu")?;
        let (user, system) = (field(&info, "used_cpu_user")?, field(&info, "used_cpu_sys")?);
        Ok(Duration::from_secs_f64(user + system))
    }

    fn info(&self, section: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(format!("INFO {section}\r\n").as_bytes())?;
        let mut answer = BufReader::new(stream);
        let mut length = String::new();
        answer.read_line(&mut length)?;
        let length: usize = length.trim().strip_prefix('$').context("INFO is not answered")?.parse()?;
        let mut info = vec![0; length];
        answer.read_exact(&mut info)?;
        Ok(String::from_utf8(info)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn field(info: &str, name: &str) -> anyhow::Result<f64> {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("INFO does not tell {name}"))?.trim().parse()?)
}

/// A way to Redis that counts what comes back over it; dropped, it takes nobody on any more.
#[derive(Debug)]
pub(crate) struct CountingProxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    returned: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl CountingProxy {
    /// A way to this address.
    pub(crate) fn to(redis: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let proxy = Self { address, returned: Arc::default(), is_over: Arc::default() };
        let (returned, is_over) = (Arc::clone(&proxy.returned), Arc::clone(&proxy.is_over));
        thread::spawn(move || {
            for node in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                // A node that finds nobody here says so.
                _ = forward(node, redis, &returned);
            }
        });
        Ok(proxy)
    }

    /// Bytes that Redis has sent so far.
    pub(crate) fn returned_bytes(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        _ = TcpStream::connect(self.address);
    }
}

/// Starts a thread for each direction; they end with the connection.
fn forward(node: TcpStream, redis: SocketAddr, returned: &Arc<AtomicU64>) -> anyhow::Result<()> {
    let redis = TcpStream::connect(redis)?;
    let ways = [(node.try_clone()?, redis.try_clone()?, Arc::default()), (redis, node, Arc::clone(returned))];
    for (from, into, counted) in ways {
        from.set_nodelay(true)?;
        thread::spawn(move || pump(from, into, &counted));
    }
    Ok(())
}

fn pump(mut from: TcpStream, mut into: TcpStream, counted: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(read as u64, Ordering::Relaxed);
        if into.write_all(buffer.get(..read).unwrap_or_default()).is_err() {
            break;
        }
    }
    // The other end may be gone already.
    _ = into.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# CPU\r\nused_cpu_sys_children:9\r\nused_cpu_sys:0.25\r\n";
        assert!((field(info, "used_cpu_sys").unwrap() - 0.25).abs() < f64::EPSILON);
        assert!(field(info, "used_cpu_user").is_err());
    }
}
