//! A Redis with Sentinels of a test's own: a master, two replicas of it, and three Sentinels in a hurry that make a replica the master
//! when the master is silent.

use std::collections::HashMap;
use std::time::Instant;

use crate::nodes::LOOK;
use crate::server::Server;
use crate::support::DEADLINE;

/// What the Sentinels call it.
const NAME: &str = "main";

/// See the module. Dropped, all of it is killed.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    password: Option<&'static str>,
}

impl Sentinels {
    /// Lets everybody in.
    pub(crate) async fn start() -> Self {
        Self::with(None).await
    }

    /// The servers and the Sentinels want this password, each from whoever comes.
    pub(crate) async fn with_password(password: &'static str) -> Self {
        Self::with(Some(password)).await
    }

    async fn with(password: Option<&'static str>) -> Self {
        let login = password.map_or(vec![], |password| vec!["-a", password]);
        let start = |arguments, config: &dyn Fn(u16) -> String| {
            Server::start(tempfile::tempdir().unwrap(), arguments, &login, |port| {
                let access = password.map_or(String::new(), |password| format!("requirepass {password}\n"));
                format!("port {port}\n{access}{}", config(port))
            })
        };
        let access = password.map_or(String::new(), |password| format!("masterauth {password}\n"));
        let common = format!("save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n{access}");
        let mut servers = vec![start(&[], &|_| common.clone())];
        let master = servers[0].port;
        for _ in 0..2 {
            servers.push(start(&[], &|_| format!("{common}replicaof 127.0.0.1 {master}\n")));
        }
        let sentinels = (0..3).map(|_| {
            start(&["--sentinel"], &|_| {
                let access = password.map_or(String::new(), |password| {
                    format!("sentinel auth-pass {NAME} {password}\nsentinel sentinel-pass {password}\n")
                });
                format!(
                    "sentinel monitor {NAME} 127.0.0.1 {master} 2\nsentinel down-after-milliseconds {NAME} 1500\n\
                     sentinel failover-timeout {NAME} 1000\nsentinel parallel-syncs {NAME} 1\n{access}"
                )
            })
        });
        let sentinels = Self { sentinels: sentinels.collect(), servers, password };
        for sentinel in &sentinels.sentinels {
            // They look more often than they do by default, and a busy machine does not make them distrust their clocks for half a minute.
            let often = ["ping-period", "200", "info-period", "500", "publish-period", "250"];
            let patient = ["tilt-trigger", "20000", "tilt-period", "1000"];
            assert_eq!(sentinel.cli(&[&["SENTINEL", "DEBUG"], &often[..], &patient].concat()), "OK");
        }
        sentinels.until(|these| these.sentinels.iter().all(Self::knows_all), "the Sentinels know each other").await;
        sentinels
    }

    /// Where Herald finds it.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        let access = self.password.map_or(String::new(), |password| format!(":{password}@"));
        format!("redis-sentinel://{access}{}?master={NAME}", hosts.join(","))
    }

    /// Where the Sentinels say that the master is: all that run, or there is none for now.
    pub(crate) fn master_port(&self) -> Option<u16> {
        let running = self.sentinels.iter().filter(|sentinel| sentinel.is_running());
        let ports: Vec<Option<u16>> = running.map(Self::master_port_of).collect();
        ports.iter().all(|port| *port == ports[0]).then_some(ports[0])?
    }

    /// What `redis-cli` prints that is with the master.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        self.servers[self.master()].cli(args)
    }

    /// The master dies without a word; returns when another has its place.
    pub(crate) async fn kill_master(&mut self) {
        let master = self.master();
        self.servers[master].kill();
        self.until_another_is(self.servers[master].port).await;
    }

    /// The master sleeps; returns when another has its place, with the position of the one that sleeps.
    pub(crate) async fn pause_master(&self) -> usize {
        let master = self.master();
        self.servers[master].pause();
        self.until_another_is(self.servers[master].port).await;
        master
    }

    /// It goes on where it was; until the Sentinels have told it otherwise it takes itself for the master.
    pub(crate) fn resume(&self, position: usize) {
        self.servers[position].resume();
    }

    /// One of the Sentinels dies without a word.
    pub(crate) fn kill_sentinel(&mut self, position: usize) {
        self.sentinels[position].kill();
    }

    /// One of the Sentinels answers nothing.
    pub(crate) fn pause_sentinel(&self, position: usize) {
        self.sentinels[position].pause();
    }

    /// A replica is made the master by command; returns when it is, and the old one its replica: for a while both took themselves for one.
    pub(crate) async fn failover(&self) {
        let master = self.servers[self.master()].port;
        // Refused while the one before is not over, and while no replica is fit for it.
        self.until(|these| these.sentinels[0].cli(&["SENTINEL", "FAILOVER", NAME]) == "OK", "a failover begins").await;
        self.until_another_is(master).await;
        let has_given_up = |these: &Self| {
            these.servers.iter().any(|server| server.port == master && server.cli(&["ROLE"]).starts_with("slave"))
        };
        self.until(has_given_up, "the old master is a replica").await;
    }

    /// The position of the master.
    fn master(&self) -> usize {
        let port = self.master_port().expect("the Sentinels agree on the master");
        self.servers.iter().position(|server| server.port == port).expect("it is one of ours")
    }

    async fn until_another_is(&self, old: u16) {
        let is_moved = |these: &Self| {
            these.master_port().is_some_and(|port| port != old) && these.cli(&["ROLE"]).starts_with("master")
        };
        self.until(is_moved, "another is the master").await;
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool, what: &str) {
        let start = Instant::now();
        while !is_so(self) {
            let told = || self.sentinels.iter().map(|sentinel| sentinel.cli(&["SENTINEL", "MASTER", NAME]));
            assert!(start.elapsed() < 3 * DEADLINE, "{what}: {:#?}", told().collect::<Vec<_>>());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn master_port_of(sentinel: &Server) -> Option<u16> {
        let address = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        address.lines().nth(1)?.parse().ok()
    }

    /// Whether a Sentinel knows both others and both replicas, and that these are as far as the master.
    fn knows_all(sentinel: &Server) -> bool {
        let text = sentinel.cli(&["SENTINEL", "MASTER", NAME]);
        let lines: Vec<&str> = text.lines().collect();
        let told: HashMap<&str, &str> = lines.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", NAME]);
        let are_linked = replicas.matches("master-link-status\nok").count() == 2;
        let others = sentinel.cli(&["SENTINEL", "SENTINELS", NAME]);
        let are_heard = others.matches("flags\nsentinel\n").count() == 2;
        told.get("flags") == Some(&"master") && told.get("num-other-sentinels") == Some(&"2") && are_linked && are_heard
    }
}

#[tokio::test]
async fn the_master_moves_by_command_by_its_death_and_by_its_sleep() {
    for mut sentinels in [Sentinels::start().await, Sentinels::with_password("s3cret").await] {
        let first = sentinels.master_port();
        assert_eq!(sentinels.cli(&["SET", "key", "value"]), "OK", "{sentinels:?}");
        assert_eq!(sentinels.cli(&["WAIT", "2", "10000"]), "2");
        sentinels.failover().await;
        let second = sentinels.master_port();
        assert_ne!(first, second);
        assert_eq!(sentinels.cli(&["GET", "key"]), "value");
        let sleeper = sentinels.pause_master().await;
        assert_ne!(sentinels.master_port(), second);
        sentinels.resume(sleeper);
        let third = sentinels.master_port();
        sentinels.kill_master().await;
        assert_ne!(sentinels.master_port(), third);
        assert_eq!(sentinels.cli(&["GET", "key"]), "value");
    }
}
