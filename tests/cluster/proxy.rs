//! The wire between one node and Redis, which a test breaks: it stalls in one direction or both, is cut, and heals. It counts what it carries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What happens to what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It arrives.
    Open,
    /// Nothing arrives at either end, and neither is told. As in a network that loses packets, what was held arrives late, when the way is
    /// open again.
    Stalled,
    /// What the node sends does not arrive; what Redis sends does.
    StalledToRedis,
    /// What Redis sends does not arrive; what the node sends does.
    StalledToNode,
    /// Connections are closed, and new ones, too.
    Cut,
}

/// See the module. Dropped, it is cut.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    carried: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToRedis,
    ToNode,
}

impl Way {
    fn lets_through(self, direction: Direction) -> bool {
        match self {
            Self::Open => true,
            Self::Stalled | Self::Cut => false,
            Self::StalledToRedis => direction == Direction::ToNode,
            Self::StalledToNode => direction == Direction::ToRedis,
        }
    }
}

impl Proxy {
    /// A way to this address, open.
    pub(crate) async fn to(redis: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, watched) = watch::channel(Way::Open);
        let carried = Arc::default();
        let serving = tokio::spawn(serve(listener, redis.to_owned(), watched, Arc::clone(&carried)));
        Self { address, way, carried, serving }
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Redis, as a node behind this way finds it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on the way is so.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Bytes that it has carried so far, in both directions. What somebody has got has been counted.
    pub(crate) fn carried_bytes(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, redis: String, way: watch::Receiver<Way>, carried: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        let (node, _) = listener.accept().await.unwrap();
        if *way.borrow() != Way::Cut {
            connections.spawn(forward(node, redis.clone(), way.clone(), Arc::clone(&carried)));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection until an end closes it, or the way is cut.
async fn forward(mut node: TcpStream, redis: String, mut way: watch::Receiver<Way>, carried: Arc<AtomicU64>) {
    let Ok(mut redis) = TcpStream::connect(redis).await else { return };
    _ = (node.set_nodelay(true), redis.set_nodelay(true));
    let (to_redis, to_node) = (way.clone(), way.clone());
    let (mut from_node, mut into_node) = node.split();
    let (mut from_redis, mut into_redis) = redis.split();
    tokio::select! {
        () = pump(&mut from_node, &mut into_redis, Direction::ToRedis, to_redis, &carried) => {}
        () = pump(&mut from_redis, &mut into_node, Direction::ToNode, to_node, &carried) => {}
        _ = way.wait_for(|way| *way == Way::Cut) => {}
    }
}

/// Carries bytes one way until the stream ends; while the way is stalled, the end is not seen either.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut (impl AsyncWrite + Unpin),
    direction: Direction,
    mut way: watch::Receiver<Way>,
    carried: &AtomicU64,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if way.wait_for(|way| way.lets_through(direction)).await.is_err() || read == 0 {
            return;
        }
        carried.fetch_add(read as u64, Ordering::Relaxed);
        if into.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// What the tests of a broken wire stand on.
#[tokio::test]
async fn the_wire_is_as_it_was_told_to_be() {
    let redis = crate::redis::Redis::start();
    let proxy = Proxy::to(&redis.address()).await;
    let mut answer = [0; 7];
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    stream.read_exact(&mut answer).await.unwrap();
    for way in [Way::Stalled, Way::StalledToRedis, Way::StalledToNode] {
        proxy.set(way);
        stream.write_all(b"PING\r\n").await.unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), stream.read_exact(&mut answer));
        assert!(early.await.is_err(), "{way:?} lets nothing come back");
        proxy.set(Way::Open);
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"+PONG\r\n", "late, and whole");
    }
    proxy.set(Way::Cut);
    assert!(matches!(stream.read(&mut answer).await, Ok(0) | Err(_)));
    let mut refused = TcpStream::connect(proxy.address).await.unwrap();
    assert!(matches!(refused.read(&mut answer).await, Ok(0) | Err(_)));
    proxy.set(Way::Open);
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    stream.read_exact(&mut answer).await.unwrap();
}
