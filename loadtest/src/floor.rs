//! The least a server can do: one thread, one prebuilt frame, one `write(2)` per subscriber, a fixed answer to every request.
//!
//! Nothing is checked, parsed or queued: whatever begins with `GET` is a client, whatever begins with `POST` is an event, and what a
//! client sends is a subscription. It trusts the tool's own clients, lives for one run, and ends with an error as soon as a socket does
//! not take a whole frame at once, since a floor that drops something would be none.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use herald_protocol::{ChannelName, server};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tungstenite::handshake::derive_accept_key;

use crate::wire;

const LISTENER: Token = Token(usize::MAX);
const HELLO: &str =
    r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":60}"}"#;
const TRIGGERED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// Serves until it is killed; `bytes` is the size of the data in its one event.
pub(crate) fn run(port: u16, bytes: usize) -> anyhow::Result<()> {
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
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
    connections: Vec<TcpStream>,
    subscribers: Vec<usize>,
    buffer: Vec<u8>,
}

impl Floor {
    fn new(bytes: usize) -> anyhow::Result<Self> {
        let channel = ChannelName::parse(wire::CHANNEL, 164)?;
        let accept = derive_accept_key(wire::WEBSOCKET_KEY.as_bytes());
        let upgraded = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        Ok(Self {
            welcome: [upgraded.as_bytes(), &wire::text_frame(HELLO)].concat(),
            subscribed: wire::text_frame(&server::subscription_succeeded(&channel, "{}")),
            event: wire::event_frame(&channel, bytes),
            connections: Vec::new(),
            subscribers: Vec::new(),
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
            poll.registry().register(&mut stream, Token(self.connections.len()), Interest::READABLE)?;
            self.connections.push(stream);
        }
    }

    /// One read per event: nobody sends a second message before the first is answered.
    fn serve(&mut self, connection: usize) -> anyhow::Result<()> {
        let stream = self.connections.get_mut(connection).context("an event for nobody")?;
        let read = match stream.read(&mut self.buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match self.buffer.get(..read) {
            Some([b'G', ..]) => write(stream, &self.welcome),
            Some([b'P', ..]) => {
                write(stream, TRIGGERED)?;
                self.broadcast()
            }
            _ => {
                self.subscribers.push(connection);
                write(stream, &self.subscribed)
            }
        }
    }

    fn broadcast(&mut self) -> anyhow::Result<()> {
        for subscriber in &self.subscribers {
            let stream = self.connections.get_mut(*subscriber).context("a subscriber without a connection")?;
            write(stream, &self.event)?;
        }
        Ok(())
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<()> {
    let written = stream.write(bytes).context("a socket takes nothing: the clients do not keep up")?;
    anyhow::ensure!(written == bytes.len(), "a socket took {written} of {} bytes", bytes.len());
    Ok(())
}
