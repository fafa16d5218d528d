//! The real binary on a free port, with room for the suite's largest messages; gone when dropped.

use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"

# Nothing may happen because a timer fired.
[connection]
activity_timeout = "10m"
write_deadline = "10m"

[log]
level = "warn"

[[apps]]
id = "app-id"
key = "app-key"
secret = "app-secret"

[apps.limits]
event_data = 20971520
"#;

pub(crate) struct Herald {
    pub(crate) address: SocketAddr,
    process: Child,
    /// Kept open: what the server says later needs a reader.
    _output: Lines<BufReader<ChildStdout>>,
    _directory: TempDir,
}

impl Herald {
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let config = directory.path().join("herald.toml");
        std::fs::write(&config, CONFIG).expect("a file in it");
        let mut process = Command::new(env!("CARGO_BIN_EXE_herald"))
            .env_clear()
            .env("HERALD_CONFIG", &config)
            .env("HERALD_METRICS_LISTEN", "off")
            .env("HERALD_DATA_DIR", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut output = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        let mut said = output.by_ref().map_while(Result::ok);
        let address = said.find_map(|line| line.strip_prefix("listening on http://")?.parse().ok());
        let address = address.expect("it says where it listens");
        Self { address, process, _output: output, _directory: directory }
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
