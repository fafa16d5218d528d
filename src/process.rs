//! The process as the kernel knows it, on the page for Prometheus under the names that every client library uses: what it takes of the
//! processor, memory and descriptors, and how much of these it may.
//!
//! Read from `/proc` when somebody asks, and written by hand: processor time is a counter of fractions, which the recorder has not. What
//! the kernel does not tell is not on the page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// When the process began, as near as makes no difference.
static BEGAN: LazyLock<f64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));

/// Ticks of the kernel's clock in a second, as it tells them to programs: on every machine the same.
const TICKS: f64 = 100.0;

/// Name, kind, help text, and how it is read.
type Known = (&'static str, &'static str, &'static str, fn() -> Option<f64>);

/// All that is told.
pub const ALL: &[Known] = &[
    ("process_cpu_seconds_total", "counter", "Seconds of processor time that the process has taken.", cpu),
    ("process_resident_memory_bytes", "gauge", "Bytes of memory that the process has.", memory),
    ("process_open_fds", "gauge", "Open file descriptors; each connection is one.", open_files),
    ("process_max_fds", "gauge", "Open file descriptors that are allowed.", allowed_files),
    ("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970.", || Some(*BEGAN)),
    (
        "herald_memory_limit_bytes",
        "gauge",
        "Bytes of memory that there may be: of the process's control group and those above it, or of the machine.",
        memory_limit,
    ),
];

/// Notes when the process began.
pub fn begin() {
    LazyLock::force(&BEGAN);
}

/// Adds what is so at this moment to a page.
pub fn add_to(page: &mut String) {
    for (name, kind, help, read) in ALL {
        if let Some(value) = read() {
            // Writing to text does not fail.
            _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    }
}

fn cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second column, the program's name in brackets, may have blanks in it: what follows the last bracket are the columns from the third on.
    let mut columns = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || columns.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

fn memory() -> Option<f64> {
    kibibytes("/proc/self/status", "VmRSS:")
}

fn open_files() -> Option<f64> {
    const OPEN: &str = "/proc/self/fd";
    // Since Linux 6.2 the folder's size is their number. A list of a million would take long.
    match fs::metadata(OPEN).ok()?.len() {
        0 => Some(fs::read_dir(OPEN).ok()?.count().saturating_sub(1) as f64), // without the one that reads the folder
        count => Some(count as f64),
    }
}

fn allowed_files() -> Option<f64> {
    rlimit::Resource::NOFILE.get_soft().ok().map(|limit| limit as f64)
}

fn memory_limit() -> Option<f64> {
    let machine = kibibytes("/proc/meminfo", "MemTotal:")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    Some(limit_of(Path::new("/sys/fs/cgroup"), group).map_or(machine, |limit| limit.min(machine)))
}

/// The smallest limit of a control group and those above it.
fn limit_of(root: &Path, group: &str) -> Option<f64> {
    let all = Path::new(group.trim_start_matches('/')).ancestors();
    let limits = all.filter_map(|group| fs::read_to_string(root.join(group).join("memory.max")).ok());
    limits.filter_map(|text| text.trim().parse::<f64>().ok()).reduce(f64::min) // without a limit it is the word "max"
}

fn kibibytes(file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("system.slice/herald.service");
        fs::create_dir_all(&group).unwrap();
        assert_eq!(limit_of(root.path(), "/system.slice/herald.service"), None);
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit_of(root.path(), "/system.slice/herald.service"), None);
        fs::write(root.path().join("system.slice/memory.max"), "1000000\n").unwrap();
        assert_eq!(limit_of(root.path(), "/system.slice/herald.service"), Some(1_000_000.0));
        fs::write(group.join("memory.max"), "500000\n").unwrap();
        assert_eq!(limit_of(root.path(), "/system.slice/herald.service"), Some(500_000.0));
        assert_eq!(limit_of(root.path(), "/"), None);
    }

    #[test]
    fn the_page_says_what_is_so() {
        let mut page = String::new();
        add_to(&mut page);
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name}:\n{page}")).parse::<f64>().unwrap()
        };
        let files = value("process_open_fds");
        let more: Vec<fs::File> = (0..10).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_files().unwrap() >= files + 5.0, "ten more than {files}");
        drop(more);
        assert!(value("process_max_fds") >= files);
        let memory = value("process_resident_memory_bytes");
        assert!(memory > 1e6 && memory < value("herald_memory_limit_bytes"), "{page}");
        assert!(value("process_start_time_seconds") > 1.7e9);
        let before = cpu().unwrap();
        while cpu().unwrap() < before + 0.02 {}
    }
}
