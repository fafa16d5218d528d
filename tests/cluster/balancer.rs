//! One address for several nodes: each new connection goes to the next node that is ready, as nginx and HAProxy do it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How often each node is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(50);

/// See the module. Dropped, its connections are cut.
#[derive(Debug)]
pub(crate) struct Balancer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    nodes: Arc<Mutex<Vec<Node>>>,
    /// Ends what it holds.
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    address: SocketAddr,
    is_ready: bool,
}

impl Balancer {
    /// In front of these nodes, each of which gets its turn while it says that it is ready.
    pub(crate) async fn before(nodes: impl IntoIterator<Item = SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let nodes = nodes.into_iter().map(|address| Node { address, is_ready: false }).collect();
        let nodes = Arc::new(Mutex::new(nodes));
        look_at_all(&nodes).await; // or who comes at once would find nobody
        let mut tasks = JoinSet::new();
        tasks.spawn(look_after(Arc::clone(&nodes)));
        tasks.spawn(serve(listener, Arc::clone(&nodes)));
        Self { address, nodes, _tasks: tasks }
    }

    /// Another node stands in the place of one that has ended.
    pub(crate) fn replace(&self, position: usize, address: SocketAddr) {
        self.nodes.lock()[position] = Node { address, is_ready: false };
    }
}

async fn look_after(nodes: Arc<Mutex<Vec<Node>>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        look_at_all(&nodes).await;
    }
}

async fn look_at_all(nodes: &Mutex<Vec<Node>>) {
    let asked = nodes.lock().clone();
    for (position, Node { address, .. }) in asked.into_iter().enumerate() {
        let is_ready = is_ready(address).await.unwrap_or(false);
        let node = &mut nodes.lock()[position];
        if node.address == address {
            node.is_ready = is_ready;
        }
    }
}

async fn is_ready(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

async fn serve(listener: TcpListener, nodes: Arc<Mutex<Vec<Node>>>) {
    let mut connections = JoinSet::new();
    for turn in 0.. {
        let (client, _) = listener.accept().await.unwrap();
        let mut ready: Vec<Node> = nodes.lock().iter().copied().filter(|node| node.is_ready).collect();
        let first = turn % ready.len().max(1);
        ready.rotate_left(first);
        connections.spawn(forward(client, ready));
        while connections.try_join_next().is_some() {}
    }
}

/// Connects a client to the first node that accepts, and carries bytes until both ends are done; where nobody accepts, it is hung up.
async fn forward(mut client: TcpStream, nodes: Vec<Node>) {
    for Node { address, .. } in nodes {
        if let Ok(mut node) = TcpStream::connect(address).await {
            _ = (client.set_nodelay(true), node.set_nodelay(true));
            _ = copy_bidirectional(&mut client, &mut node).await;
            return;
        }
    }
}
