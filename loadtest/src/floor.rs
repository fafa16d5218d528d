//! The least a server can do: one thread, one prebuilt frame, one `write(2)` per subscriber, a fixed answer to every request.
//!
//! Nothing is checked, parsed or queued: whatever begins with `GET` is a client, whatever begins with `POST` is an event, and what a
//! client sends is a subscription. Of an event's data only the stamp is taken over. It trusts the tool's own clients and lives for one run. A
//! socket that takes nothing more is waited for, since a floor that drops something would be none.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use herald_protocol::json::quoted;
use herald_protocol::{ChannelName, server};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tungstenite::handshake::derive_accept_key;

use crate::wire::{self, Stamp};

/// The one channel.
pub(crate) const CHANNEL: &str = "load";
const LISTENER: Token = Token(usize::MAX);
const HELLO: &str =
    r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":60}"}"#;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves until it is killed; `bytes` is the size of the data in its one event.
pub(crate) fn run(port: u16, bytes: usize) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    let mut listener = TcpListener::from_std(socket.into());
    println!("listening on http://{}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor::new(bytes)?;
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener, &poll)?,
                Token(connection) => floor.serve(connection)?,
            }
        }
    }
}

struct Floor {
    welcome: Vec<u8>,
    subscribed: Vec<u8>,
    event: Vec<u8>,
    /// Where the event's stamp goes.
    stamp_at: usize,
    connections: Slab<Connection>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    is_subscribed: bool,
}

impl Floor {
    fn new(bytes: usize) -> anyhow::Result<Self> {
        let channel = ChannelName::parse(CHANNEL, 164)?;
        let accept = derive_accept_key(wire::WEBSOCKET_KEY.as_bytes());
        let upgraded = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        let data = quoted(&Stamp { number: 0, at_ns: 0 }.data(bytes));
        let event = wire::server_frame(&server::event(wire::EVENT, &channel, &data));
        Ok(Self {
            welcome: [upgraded.as_bytes(), &wire::server_frame(HELLO)].concat(),
            subscribed: wire::server_frame(&server::subscription_succeeded(&channel, "{}")),
            stamp_at: Stamp::find(&event, 0).context("an event is too small for its stamp")?.start,
            event,
            connections: Slab::new(),
            buffer: vec![0; 16 * 1024],
        })
    }

    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> anyhow::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE)?;
            entry.insert(Connection { stream, is_subscribed: false });
        }
    }

    /// One read per event: nobody sends a second message before the first is answered.
    fn serve(&mut self, number: usize) -> anyhow::Result<()> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        let read = match connection.stream.read(&mut self.buffer) {
            Ok(0) => {
                self.connections.remove(number);
                return Ok(());
            }
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => {
                self.connections.remove(number);
                return Ok(());
            }
        };
        let message = self.buffer.get(..read).unwrap_or_default();
        match message {
            [b'G', ..] => write(&mut connection.stream, &self.welcome),
            [b'P', ..] => {
                write(&mut connection.stream, ANSWER)?;
                if let Some(stamp) = Stamp::find(message, 0).and_then(|at| message.get(at))
                    && let Some(into) = self.event.get_mut(self.stamp_at..self.stamp_at + Stamp::BYTES)
                {
                    into.copy_from_slice(stamp);
                }
                self.broadcast()
            }
            _ => {
                connection.is_subscribed = true;
                write(&mut connection.stream, &self.subscribed)
            }
        }
    }

    fn broadcast(&mut self) -> anyhow::Result<()> {
        for (_, connection) in &mut self.connections {
            if connection.is_subscribed {
                write(&mut connection.stream, &self.event)?;
            }
        }
        Ok(())
    }
}

fn write(stream: &mut TcpStream, mut bytes: &[u8]) -> anyhow::Result<()> {
    let mut since: Option<Instant> = None;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let since = *since.get_or_insert_with(Instant::now);
                anyhow::ensure!(since.elapsed() < PATIENCE, "a client takes nothing");
                thread::yield_now();
            }
            Err(_) => return Ok(()), // whoever has left is taken out when that is read
        }
    }
    Ok(())
}
