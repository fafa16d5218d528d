//! A client's connection, from its upgrade to its end.
//!
//! Start at [`run`]: one task per client owns socket, session and timers; when it returns, nothing of the client is left. Bytes are
//! [`socket`]'s business, the protocol is [`session`]'s, what others send waits in [`crate::hub::queue`].

pub mod session;
pub mod socket;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use herald_protocol::{CloseReason, SocketId, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tungstenite::Message;

use crate::config::ConnectionOptions;
use crate::hub::queue::Queue;
use crate::hub::{Client, Frame, Later};
use crate::metrics;
use crate::transport::Transport;
use session::Session;
use socket::Socket;

/// How long a goodbye may take to be written.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// What is still read after our close frame, so that the client gets to see it: time and bytes.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Of thousands who are cut off at once so many leave at a time, and everybody else has a turn in between.
static LEAVING: Semaphore = Semaphore::const_new(16);

/// A client whose upgrade is done.
#[derive(Debug)]
pub struct Connection {
    client: Arc<Client>,
    socket: Socket,
    session: Session,
    clock: Clock,
}

impl Connection {
    /// Puts the parts together; [`run`] does the rest. Before its first frame the client gets `answer`, what its handshake still lacks.
    #[must_use]
    pub fn new(
        client: Arc<Client>,
        socket: Socket,
        session: Session,
        options: &ConnectionOptions,
        answer: &[u8],
    ) -> Self {
        let clock = Clock::new(options, client.app.options().require_authorized_within);
        let hello = Frame::text(&server::connection_established(client.socket_id, options.activity_timeout));
        client.queue.begin_with(if answer.is_empty() {
            hello.into_bytes()
        } else {
            [answer, &hello.into_bytes()].concat().into()
        });
        Self { client, socket, session, clock }
    }

    /// The client's.
    #[must_use]
    pub fn socket_id(&self) -> SocketId {
        self.client.socket_id
    }
}

/// Serves one client to its end. Boxed: each future that holds a connection would have room for it twice.
pub async fn run(mut connection: Box<Connection>) -> CloseReason {
    let reason = connection.serve().await;
    let turn = LEAVING.acquire().await;
    connection.session.leave(); // out of every channel first, then time for a goodbye
    let Connection { client, .. } = *connection;
    let is_broken = reason == CloseReason::Broken;
    if is_broken {
        drop(client.queue.end()); // within its turn: to close a socket is most of the work
    }
    tokio::task::yield_now().await;
    drop(turn);
    if !is_broken {
        Box::pin(say_goodbye(&client.queue, &reason)).await; // boxed: its buffers are needed at the end only
    }
    reason
}

/// Refuses a client right after its upgrade: it is told why, and closed.
pub async fn refuse(queue: &Queue, reason: &CloseReason) {
    queue.last_words(goodbye(reason).map(Frame::into_bytes));
    if let Some(transport) = write_out(queue).await {
        linger(transport).await;
    }
}

impl Connection {
    async fn serve(&mut self) -> CloseReason {
        let mut later: Option<Later> = None;
        let mut timer = Timer::new(self.clock.next(&self.session, None));
        let reason = std::future::poll_fn(|cx| self.poll_serve(cx, &mut later, &mut timer)).await;
        if let Some(begun) = later {
            // What others have begun to get all of them get, even if the sender has gone meanwhile.
            _ = tokio::time::timeout(CLOSE_DEADLINE, begun).await;
        }
        reason
    }

    /// Writes what waits, acts on what comes, minds the time; in this order, so that answers go out before more is read.
    fn poll_serve(&mut self, cx: &mut Context<'_>, later: &mut Option<Later>, timer: &mut Timer) -> Poll<CloseReason> {
        let mut acted = false;
        loop {
            if let Poll::Ready(reason) = self.client.queue.poll_write(cx) {
                return Poll::Ready(reason);
            }
            if let Some(work) = later {
                match work.as_mut().poll(cx) {
                    Poll::Ready(()) => *later = None,
                    Poll::Pending => break,
                }
            }
            match self.socket.poll_read(cx, &self.client.queue) {
                Poll::Ready(Ok(message)) => match self.act(message) {
                    Ok(work) => (*later, acted) = (work, true),
                    Err(reason) => return Poll::Ready(reason),
                },
                Poll::Ready(Err(reason)) => return Poll::Ready(reason),
                Poll::Pending => break,
            }
        }
        if self.socket.take_heard() {
            self.clock.saw_activity();
        }
        // Deadlines that move on are looked at when the timer fires; one that comes nearer must set it now. A delivery brings none.
        let blocked_since = self.client.queue.blocked_since();
        if acted || blocked_since.is_some() {
            let next = self.clock.next(&self.session, blocked_since);
            if next < timer.fires_at {
                timer.set(next);
            }
        }
        while timer.poll_fired(cx) {
            if let Err(reason) = self.clock.tick(&self.client, &self.session) {
                return Poll::Ready(reason);
            }
            timer.set(self.clock.next(&self.session, self.client.queue.blocked_since()));
        }
        Poll::Pending
    }

    fn act(&mut self, message: Message) -> Result<Option<Later>, CloseReason> {
        metrics::MESSAGES_RECEIVED.increment(1);
        match message {
            Message::Text(text) => self.session.receive(&text),
            Message::Binary(_) => Err(CloseReason::BinaryFrame),
            Message::Close(_) => Err(CloseReason::ClosedByClient),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
        }
    }
}

/// The connection's one timer. Most wake-ups are deliveries, long before it fires: they look at the time, which is cheap, and not at the
/// runtime's timer, which lies far from everything else that a delivery touches.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    fires_at: Instant,
    is_registered: bool,
}

impl Timer {
    fn new(fires_at: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(fires_at)), fires_at, is_registered: false }
    }

    fn set(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        (self.fires_at, self.is_registered) = (at, false);
    }

    fn poll_fired(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_registered && Instant::now() < self.fires_at {
            return false;
        }
        self.is_registered = true;
        self.sleep.as_mut().poll(cx).is_ready()
    }
}

/// When a silent client is pinged, and when it is given up (section 2, aliveness). One timer serves all deadlines: it fires at the
/// earliest that may be due and looks again.
#[derive(Debug)]
struct Clock {
    ping_after: Duration,
    pong_timeout: Duration,
    write_deadline: Duration,
    last_activity: Instant,
    pinged: Option<Instant>,
    authorized_until: Option<Instant>,
}

impl Clock {
    fn new(options: &ConnectionOptions, require_authorized_within: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            ping_after: options.activity_timeout + options.activity_grace,
            pong_timeout: options.pong_timeout,
            write_deadline: options.write_deadline,
            last_activity: now,
            pinged: None,
            authorized_until: require_authorized_within.map(|within| now + within),
        }
    }

    fn saw_activity(&mut self) {
        self.last_activity = Instant::now();
        self.pinged = None;
    }

    fn next(&self, session: &Session, blocked_since: Option<std::time::Instant>) -> Instant {
        let alive = together(match self.pinged {
            Some(pinged) => pinged + self.pong_timeout,
            None => self.last_activity + self.ping_after,
        });
        let authorized = self.authorized_until.filter(|_| !session.is_authorized());
        let writable = blocked_since.map(|since| Instant::from_std(since) + self.write_deadline);
        alive.min(authorized.unwrap_or(alive)).min(writable.unwrap_or(alive))
    }

    fn tick(&mut self, client: &Client, session: &Session) -> Result<(), CloseReason> {
        let now = Instant::now();
        if client.queue.blocked_since().is_some_and(|since| since.elapsed() >= self.write_deadline) {
            return Err(CloseReason::SlowReader);
        }
        if let Some(until) = self.authorized_until {
            if session.is_authorized() {
                self.authorized_until = None;
            } else if now >= until {
                return Err(CloseReason::NotAuthorizedInTime);
            }
        }
        match self.pinged {
            Some(pinged) if now >= pinged + self.pong_timeout => return Err(CloseReason::PongTimeout),
            None if now >= self.last_activity + self.ping_after => {
                client.queue.push(&Frame::ping());
                self.pinged = Some(now);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The next moment at which deadlines are looked at that may come a little later: those of many clients fall into one wake-up of the process.
fn together(at: Instant) -> Instant {
    const GRAIN: Duration = Duration::from_millis(100);
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let over = at.saturating_duration_since(*START).as_millis() % GRAIN.as_millis();
    at + GRAIN - Duration::from_millis(over as u64)
}

/// What a client is told at the end: the event for old clients, the code for new ones.
fn goodbye(reason: &CloseReason) -> impl Iterator<Item = Frame> + use<> {
    let event = reason.is_announced().then(|| Frame::text(&server::error(reason.code(), &reason.message(), None)));
    let close = reason.code().map(|code| Frame::close(code, &reason.message()));
    event.into_iter().chain(close)
}

async fn say_goodbye(queue: &Queue, reason: &CloseReason) {
    match reason {
        // What was begun is finished; the rest would only delay the goodbye, or come behind the answer to the client's own.
        CloseReason::SlowReader | CloseReason::ClosedByClient => queue.stop(false),
        _ => queue.stop(true),
    }
    queue.last_words(goodbye(reason).map(Frame::into_bytes));
    if let Some(transport) = write_out(queue).await {
        linger(transport).await;
    }
}

/// Writes the last words; a client that does not take them is reset. Whoever waits for the end need not wait for the client's own goodbye.
async fn write_out(queue: &Queue) -> Option<Transport> {
    let written = tokio::time::timeout(CLOSE_DEADLINE, queue.flush()).await;
    let transport = queue.end()?;
    if matches!(written, Ok(Ok(()))) {
        return Some(transport);
    }
    transport.reset_on_drop();
    None
}

/// Shuts our side and reads on for a while: else the kernel resets the connection and the client sees 1006.
async fn linger(mut transport: Transport) {
    let until_its_end = async {
        transport.shutdown().await?;
        let mut thrown_away = 0;
        let mut buffer = [0; 1024];
        while thrown_away < LINGER_BYTES {
            match transport.read(&mut buffer).await? {
                0 => break,
                read => thrown_away += read,
            }
        }
        std::io::Result::Ok(())
    };
    // Whether the client waited for our end or was gone already makes no difference any more.
    _ = tokio::time::timeout(LINGER, until_its_end).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_reason() {
        let clients = |code: Option<u16>| match code {
            Some(4000) => "reconnect with TLS",
            Some(4001..=4099 | 4300..) => "give up",
            Some(4200..=4299) => "reconnect at once",
            Some(_) => "reconnect after a second",
            None => "reconnect after a second, unless they closed themselves",
        };
        let mut text = "# Why was my client closed?\n\nThe close frame has a code and the reason as text; before a code from 4000 on, a `pusher:error` \
                        with the same says it too. The log\n(from `debug` on) and the metric `herald_connections_closed_total`, or \
                        `herald_connections_refused_total` for those that were never\naccepted, have it under the name in the second column. \
                        What clients do is what pusher-js does.\n\n| code | name | reason | clients |\n|---|---|---|---|\n"
            .to_owned();
        for reason in [
            CloseReason::TlsRequired,
            CloseReason::UnknownApp,
            CloseReason::AppDisabled,
            CloseReason::UnsupportedProtocol,
            CloseReason::OriginNotAllowed,
            CloseReason::NotAuthorizedInTime,
            CloseReason::UserTerminated,
            CloseReason::SessionEnded,
            CloseReason::AccessChanged,
            CloseReason::AppConnections(100),
            CloseReason::NodeConnections(100),
            CloseReason::TooManyAttempts,
            CloseReason::SlowReader,
            CloseReason::InvalidMessages,
            CloseReason::ServerGoingAway,
            CloseReason::PongTimeout,
            CloseReason::ProtocolViolation,
            CloseReason::BinaryFrame,
            CloseReason::InvalidUtf8,
            CloseReason::MessageTooBig,
            CloseReason::ClosedByClient,
            CloseReason::Broken,
        ] {
            let code = reason.code().map_or_else(|| "none".to_owned(), |code| code.to_string());
            let (label, message, clients) = (reason.label(), reason.message(), clients(reason.code()));
            text.push_str(&format!("| {code} | `{label}` | {message} | {clients} |\n"));
        }
        text.push_str(
            "\nOver capacity is never a code that clients give up on: pusher-js stays away for ever after 4000 to 4099 and from 4300 on. \
             A refusal with\n4100 is held back for 1 to 5 s, since pusher-js comes back after exactly one.\n",
        );
        crate::config::document::is_up_to_date("docs/close-codes.md", &text);
    }
}
