//! A Redis Cluster of a test's own: three masters, each with a replica, which share the 16384 slots and move them as the test wants.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::nodes::LOOK;
use crate::redis::make_certificate;
use crate::server::Server;
use crate::support::DEADLINE;

const SHARDS: usize = 3;
const SLOTS: usize = 16_384;
/// Keys that are moved at once.
const BATCH: &str = "100";
/// After how long a failover that was asked for is asked for again: a replica gives up where the others are slow to answer.
const AGAIN: Duration = Duration::from_secs(6);

/// See the module. A server is named by its position; at first the masters stand before their replicas. Dropped, all are killed.
#[derive(Debug)]
pub(crate) struct Shards {
    servers: Vec<Server>,
    access: Access,
    certificate: TempDir,
}

/// Who is let in, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Open,
    Password(&'static str),
    Tls,
}

/// What a server says of one of them.
#[derive(Debug)]
struct Seen {
    id: String,
    position: usize,
    /// The id of its master; `None` if it is one.
    master: Option<String>,
    is_linked: bool,
    slots: Vec<RangeInclusive<u16>>,
}

/// A slot on its way; see [`Shards::begin_move`].
#[derive(Debug)]
pub(crate) struct Move {
    slot: u16,
    from: usize,
    to: usize,
}

impl Shards {
    /// Lets everybody in.
    pub(crate) async fn start() -> Self {
        Self::with(Access::Open).await
    }

    /// Wants this password from whoever comes.
    pub(crate) async fn with_password(password: &'static str) -> Self {
        Self::with(Access::Password(password)).await
    }

    /// Speaks TLS only, also among its servers, with a certificate that only who has read [`Self::certificate`] believes.
    pub(crate) async fn with_tls() -> Self {
        Self::with(Access::Tls).await
    }

    /// Each master has a third of the slots.
    async fn with(access: Access) -> Self {
        let certificate = tempfile::tempdir().unwrap();
        make_certificate(&certificate);
        let [cert, key] = ["cert.pem", "key.pem"].map(|file| certificate.path().join(file).display().to_string());
        let login: Vec<&str> = match access {
            Access::Open => vec![],
            Access::Password(password) => vec!["-a", password],
            Access::Tls => vec!["--tls", "--cacert", &cert],
        };
        let listen = |port: u16| match access {
            Access::Open => format!("port {port}"),
            Access::Password(password) => format!("port {port}\nrequirepass {password}\nmasterauth {password}"),
            Access::Tls => format!(
                "port 0\ntls-port {port}\ntls-cluster yes\ntls-replication yes\ntls-auth-clients no\n\
                 tls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {cert}"
            ),
        };
        let start = |_| {
            Server::start(tempfile::tempdir().unwrap(), &[], &login, |port| {
                format!(
                    "{}\nsave \"\"\nappendonly no\nrepl-diskless-sync-delay 0\ncluster-enabled yes\n\
                     cluster-node-timeout 2000\ncluster-require-full-coverage no\ncluster-allow-replica-migration no\n\
                     cluster-replica-validity-factor 0\n",
                    listen(port)
                )
            })
        };
        let servers = (0..2 * SHARDS).map(start).collect();
        let shards = Self { servers, access, certificate };
        for (position, server) in shards.servers.iter().enumerate() {
            // Each another, so that they need not agree on it first.
            shards.done(position, &["CLUSTER", "SET-CONFIG-EPOCH", &(position + 1).to_string()]);
            shards.done(0, &["CLUSTER", "MEET", "127.0.0.1", &server.port.to_string()]);
        }
        for shard in 0..SHARDS {
            let (first, end) = (SLOTS * shard / SHARDS, SLOTS * (shard + 1) / SHARDS);
            shards.done(shard, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
        }
        let all_met = |view: &[Seen]| view.len() == 2 * SHARDS && view.iter().all(|seen| seen.is_linked);
        shards.until_all("all have met", |_, view| all_met(view)).await;
        for shard in 0..SHARDS {
            let id = shards.servers[shard].cli(&["CLUSTER", "MYID"]);
            shards.done(SHARDS + shard, &["CLUSTER", "REPLICATE", &id]);
        }
        let has_replica = |view: &[Seen], shard: usize| {
            view.iter().any(|seen| seen.position == SHARDS + shard && seen.master.is_some())
        };
        shards
            .until_all("all is as it shall be", |server, view| {
                all_met(view)
                    && (0..SHARDS).all(|shard| has_replica(view, shard))
                    && server.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && (server.cli(&["ROLE"]).starts_with("master") || server.cli(&["ROLE"]).contains("\nconnected\n"))
            })
            .await;
        shards
    }

    /// Where Herald finds it, once it has asked one of these two.
    pub(crate) fn url(&self) -> String {
        let (scheme, access) = match self.access {
            Access::Open => ("redis-cluster", String::new()),
            Access::Password(password) => ("redis-cluster", format!(":{password}@")),
            Access::Tls => ("rediss-cluster", String::new()),
        };
        format!("{scheme}://{access}127.0.0.1:{},127.0.0.1:{}", self.servers[0].port, self.servers[4].port)
    }

    /// The file with the certificate that its clients must believe.
    pub(crate) fn certificate(&self) -> String {
        self.certificate.path().join("cert.pem").display().to_string()
    }

    /// The slot of a key.
    pub(crate) fn slot_of(&self, key: &str) -> u16 {
        let asked = self.running();
        self.servers[asked].cli(&["CLUSTER", "KEYSLOT", key]).parse().unwrap()
    }

    /// All keys of all masters that can be asked, whatever their slot.
    pub(crate) fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys = Vec::new();
        for position in self.masters() {
            keys.extend(self.servers[position].cli(&["KEYS", pattern]).lines().map(str::to_owned));
        }
        keys.sort();
        keys.dedup();
        keys
    }

    /// Who has a slot.
    pub(crate) fn owner_of(&self, slot: u16) -> usize {
        owner(&self.view(), slot).expect("somebody has the slot").position
    }

    /// Another master than this.
    pub(crate) fn other_than(&self, position: usize) -> usize {
        self.masters().into_iter().find(|other| *other != position).expect("there are others")
    }

    /// What `redis-cli` prints that is with whoever has a slot.
    pub(crate) fn cli(&self, slot: u16, args: &[&str]) -> String {
        let owner = self.owner_of(slot);
        self.servers[owner].cli(args)
    }

    /// Moves a slot to another master, with all that is in it.
    pub(crate) async fn move_slot(&self, slot: u16, to: usize) {
        let moved = self.begin_move(slot, to);
        self.finish_move(moved).await;
    }

    /// Moves half of what is in a slot; until the rest is moved, clients are sent from the one to the other for each key that is not there.
    pub(crate) fn begin_move(&self, slot: u16, to: usize) -> Move {
        let moved = Move { slot, from: self.owner_of(slot), to };
        let [from_id, to_id] = [moved.from, to].map(|position| self.servers[position].cli(&["CLUSTER", "MYID"]));
        self.done(to, &["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &from_id]);
        self.done(moved.from, &["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &to_id]);
        let count: usize =
            self.servers[moved.from].cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).parse().unwrap();
        self.migrate(&moved, &(count / 2).to_string());
        moved
    }

    /// Moves the rest of it; returns when all know.
    pub(crate) async fn finish_move(&self, moved: Move) {
        while self.migrate(&moved, BATCH) {}
        let id = self.servers[moved.to].cli(&["CLUSTER", "MYID"]);
        let mut told = vec![moved.to, moved.from];
        told.extend(self.masters().into_iter().filter(|other| ![moved.to, moved.from].contains(other)));
        for position in told {
            self.done(position, &["CLUSTER", "SETSLOT", &moved.slot.to_string(), "NODE", &id]);
        }
        self.until_owner(moved.slot, |owner| owner == moved.to).await;
    }

    /// Moves so many keys; false if there were none.
    fn migrate(&self, moved: &Move, count: &str) -> bool {
        let from = &self.servers[moved.from];
        let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &moved.slot.to_string(), count]);
        if keys.is_empty() {
            return false;
        }
        let to = self.servers[moved.to].port.to_string();
        let mut command = vec!["MIGRATE", "127.0.0.1", &to, "", "0", "5000"];
        if let Access::Password(password) = &self.access {
            command.extend(["AUTH", password]);
        }
        command.push("KEYS");
        command.extend(keys.lines());
        let answer = from.cli(&command);
        assert!(matches!(&*answer, "OK" | "NOKEY"), "{answer}: {command:?}");
        true
    }

    /// Whoever has the slot hands it to its replica by command; returns when all know.
    pub(crate) async fn failover(&self, slot: u16) {
        let owner = self.owner_of(slot);
        let replica = self.shard_of(slot)[1];
        let start = Instant::now();
        let mut asked: Option<Instant> = None;
        while self.owner_of(slot) == owner {
            if asked.is_none_or(|asked| asked.elapsed() > AGAIN) {
                self.done(replica, &["CLUSTER", "FAILOVER"]);
                asked = Some(Instant::now());
            }
            assert!(start.elapsed() < 3 * DEADLINE, "{replica} takes over: {:#?}", self.view());
            tokio::time::sleep(LOOK).await;
        }
        self.until_owner(slot, |owner| owner == replica).await;
    }

    /// Whoever has the slot dies without a word; returns when its replica has taken over, with the position of the dead.
    pub(crate) async fn kill_master_of(&mut self, slot: u16) -> usize {
        let dead = self.owner_of(slot);
        self.kill(dead);
        self.until_owner(slot, |owner| owner != dead).await;
        dead
    }

    /// Whoever has the slot sleeps; returns when its replica has taken over, with the position of the one that sleeps.
    pub(crate) async fn pause_master_of(&self, slot: u16) -> usize {
        let sleeper = self.owner_of(slot);
        self.pause(sleeper);
        self.until_owner(slot, |owner| owner != sleeper).await;
        sleeper
    }

    /// Whoever has the slot, and then its replica.
    pub(crate) fn shard_of(&self, slot: u16) -> Vec<usize> {
        let view = self.view();
        let owner = owner(&view, slot).expect("somebody has the slot");
        let replicas = view.iter().filter(|seen| seen.master.as_ref() == Some(&owner.id));
        std::iter::once(owner.position).chain(replicas.map(|seen| seen.position)).collect()
    }

    /// It dies without a word.
    pub(crate) fn kill(&mut self, position: usize) {
        self.servers[position].kill();
    }

    /// It comes back with nothing, and follows whoever has its slots now.
    pub(crate) fn start_again(&mut self, position: usize) {
        self.servers[position].start_again();
    }

    /// It answers nothing.
    pub(crate) fn pause(&self, position: usize) {
        self.servers[position].pause();
    }

    /// It goes on where it was.
    pub(crate) fn resume(&self, position: usize) {
        self.servers[position].resume();
    }

    /// Waits until all that run agree on who has a slot, and that this is the one.
    async fn until_owner(&self, slot: u16, is_right: impl Fn(usize) -> bool) {
        self.until_all(&format!("another has slot {slot}"), |server, view| {
            owner(view, slot).is_some_and(|owner| is_right(owner.position))
                && server.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        })
        .await;
    }

    /// Waits until this is so for each that runs.
    async fn until_all(&self, what: &str, is_so: impl Fn(&Server, &[Seen]) -> bool) {
        let start = Instant::now();
        for position in 0..self.servers.len() {
            while self.servers[position].is_running() && !is_so(&self.servers[position], &self.view_of(position)) {
                assert!(start.elapsed() < 3 * DEADLINE, "{what}: {position} sees {:#?}", self.view_of(position));
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    fn masters(&self) -> Vec<usize> {
        let view = self.view();
        let masters = view.iter().filter(|seen| !seen.slots.is_empty()).map(|seen| seen.position);
        masters.filter(|position| self.servers[*position].is_running()).collect()
    }

    fn running(&self) -> usize {
        self.servers.iter().position(Server::is_running).expect("one is running")
    }

    fn view(&self) -> Vec<Seen> {
        let asked = self.running();
        self.view_of(asked)
    }

    /// What one says of all.
    fn view_of(&self, position: usize) -> Vec<Seen> {
        let lines = self.servers[position].cli(&["CLUSTER", "NODES"]);
        lines.lines().filter_map(|line| self.seen(line)).collect()
    }

    /// A line is: id, address, flags, id of the master, ping, pong, epoch, link, slots.
    fn seen(&self, line: &str) -> Option<Seen> {
        let parts: Vec<&str> = line.split(' ').collect();
        let port: u16 = parts[1].split(['@', ':']).nth(1)?.parse().ok()?;
        let slot = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        Some(Seen {
            id: parts[0].to_owned(),
            position: self.servers.iter().position(|server| server.port == port)?,
            master: Some(parts[3].to_owned()).filter(|id| id != "-"),
            is_linked: parts[7] == "connected" && !parts[2].contains("handshake"),
            // One that is on its way stands in brackets.
            slots: parts[8..].iter().filter_map(|text| slot(text)).collect(),
        })
    }

    fn done(&self, position: usize, command: &[&str]) {
        let answer = self.servers[position].cli(command);
        assert_eq!(answer, "OK", "{command:?} at {position}");
    }
}

fn owner(view: &[Seen], slot: u16) -> Option<&Seen> {
    view.iter().find(|seen| seen.slots.iter().any(|slots| slots.contains(&slot)))
}

#[tokio::test]
async fn a_slot_moves_with_what_is_in_it_and_a_replica_takes_over() {
    let mut shards = Shards::start().await;
    let keys: Vec<String> = (0..60).map(|number| format!("{{tag}}:{number}")).collect();
    let slot = shards.slot_of("{tag}");
    for key in &keys {
        assert_eq!(shards.cli(slot, &["SET", key, key]), "OK");
    }
    let from = shards.owner_of(slot);
    let to = shards.other_than(from);
    let moved = shards.begin_move(slot, to);
    assert_eq!(shards.owner_of(slot), from);
    let asked = keys.iter().filter(|key| shards.servers[from].cli(&["GET", key]).starts_with("ASK ")).count();
    assert_eq!(asked, keys.len() / 2, "half of it is there");
    shards.finish_move(moved).await;
    assert_eq!(shards.owner_of(slot), to);
    assert_eq!(shards.cli(slot, &["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]), keys.len().to_string());

    let replica = shards.shard_of(slot)[1];
    shards.failover(slot).await;
    assert_eq!(shards.owner_of(slot), replica);
    let dead = shards.kill_master_of(slot).await;
    assert_eq!((dead, shards.owner_of(slot)), (replica, to));
    assert_eq!(shards.cli(slot, &["GET", &keys[0]]), keys[0]);
    shards.start_again(dead);
    let start = Instant::now();
    while shards.shard_of(slot) != [to, dead] {
        assert!(start.elapsed() < DEADLINE, "it comes back as a replica: {:#?}", shards.view());
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(shards.keys("*").len(), keys.len());
}
