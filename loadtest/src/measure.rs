//! What the kernel says about a process, and what several readings say together.

use std::time::Duration;

use anyhow::Context as _;

/// The unit of the kernel's CPU times, which it fixes for user space whatever its own clock does.
const TICKS_PER_SECOND: u32 = 100;

/// User and system time of all threads of a process, those that have ended included. Read to a tick: measure seconds of it.
pub(crate) fn cpu(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("the server has ended")?;
    parse_cpu(&stat).with_context(|| format!("/proc/{process}/stat is not understood: {stat}"))
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?; // the name may hold anything, brackets and spaces too
    let mut times = after_name.split_whitespace().skip(11).map(str::parse::<u32>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_secs(1) * ticks / TICKS_PER_SECOND)
}

/// Resident bytes of a process.
pub(crate) fn resident(process: u32) -> anyhow::Result<u64> {
    parse_resident(&status(process)?)
        .with_context(|| format!("/proc/{process}/status does not tell the resident memory"))
}

fn parse_resident(status: &str) -> Option<u64> {
    let kibibytes: u64 = field(status, "VmRSS:")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Threads of a process.
pub(crate) fn threads(process: u32) -> anyhow::Result<usize> {
    let threads = field(&status(process)?, "Threads:").and_then(|threads| threads.parse().ok());
    threads.with_context(|| format!("/proc/{process}/status does not tell the threads"))
}

fn status(process: u32) -> anyhow::Result<String> {
    std::fs::read_to_string(format!("/proc/{process}/status")).context("the server has ended")
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Open descriptors of a process.
pub(crate) fn descriptors(process: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process}/fd")).context("the server has ended, or is somebody else's")?.count())
}

/// The process that listens on this port, if this user may know it.
pub(crate) fn listener(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let inode = tables.iter().find_map(|table| parse_listener(table, port))?;
    let socket = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.into_iter().find(|process: &u32| {
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file.as_os_str() == &*socket))
    })
}

/// The inode of the socket that listens on this port.
fn parse_listener(table: &str, port: u16) -> Option<u64> {
    const LISTENS: &str = "0A";
    let suffix = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTENS, _, _, _, _, _, inode, ..] = columns.as_slice() else { return None };
        local.ends_with(&suffix).then(|| inode.parse().ok())?
    })
}

/// Several readings of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Readings {
    /// The one in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Readings {
    /// Of at least one reading.
    pub(crate) fn of(mut readings: Vec<f64>) -> Option<Self> {
        readings.sort_unstable_by(f64::total_cmp);
        let middle = readings.len() / 2;
        let median = match readings.len() % 2 {
            0 => f64::midpoint(*readings.get(middle.checked_sub(1)?)?, *readings.get(middle)?),
            _ => *readings.get(middle)?,
        };
        Some(Self { median, least: *readings.first()?, most: *readings.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_user_and_system_time_whatever_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 250 150 0 0 20 0 3 0 100 1 1";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(4)));
        assert_eq!(parse_cpu("7 (short) S 1"), None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(parse_resident("VmPeak:\t  900 kB\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!(parse_resident("VmPeak:\t  900 kB\n"), None);
    }

    #[test]
    fn whoever_listens_is_found_by_the_port() {
        let listening = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert_eq!(listener(listening.local_addr().unwrap().port()), Some(std::process::id()));
        let line = "0: 0100007F:1771 00000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 77 1";
        assert_eq!(parse_listener(line, 6001), None, "a connection is no listener");
        assert_eq!(parse_listener(&line.replace(" 01 ", " 0A "), 6001), Some(77));
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(cpu(std::process::id()).is_ok());
        assert!(descriptors(std::process::id()).unwrap() > 0);
        assert!(threads(std::process::id()).unwrap() > 0);
        assert!(resident(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(Readings::of(vec![3.0, 1.0, 2.0]), Some(Readings { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Readings::of(vec![1.0, 2.0]), Some(Readings { median: 1.5, least: 1.0, most: 2.0 }));
        assert_eq!(Readings::of(Vec::new()), None);
    }
}
