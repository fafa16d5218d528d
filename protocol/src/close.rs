//! Why a connection ends: one reason is close code, message to the client, log line and metric label alike (section 2).

/// Why a connection ended or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The app demands TLS and the connection is plain.
    TlsRequired,
    /// No app has the key of the address.
    UnknownApp,
    /// The app is disabled.
    AppDisabled,
    /// `protocol` is none that is served.
    UnsupportedProtocol,
    /// The page's origin is not one of the app's.
    OriginNotAllowed,
    /// Neither signed in nor subscribed with authorization in time.
    NotAuthorizedInTime,
    /// The backend terminated the user's connections.
    UserTerminated,
    /// The session that the connection belongs to has ended, or the user may not be served any more.
    SessionEnded,
    /// What the user may subscribe to has changed: the client comes back and is asked anew.
    AccessChanged,
    /// The app has as many connections as it may.
    AppConnections(usize),
    /// The node has as many connections as it may.
    NodeConnections(usize),
    /// The address connects too often.
    TooManyAttempts,
    /// The client does not read what is sent to it.
    SlowReader,
    /// The client went on sending invalid messages.
    InvalidMessages,
    /// The server is going away.
    ServerGoingAway,
    /// Nothing came within the pong time-out.
    PongTimeout,
    /// A message over the limit.
    MessageTooBig,
    /// A binary frame.
    BinaryFrame,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// RFC 6455 was broken.
    ProtocolViolation,
    /// The client closed.
    ClosedByClient,
    /// The connection broke.
    Broken,
}

impl CloseReason {
    /// The close code on the wire; `None` where there is nobody to send it to.
    #[must_use]
    pub const fn code(&self) -> Option<u16> {
        Some(match self {
            Self::TlsRequired => 4000,
            Self::UnknownApp => 4001,
            Self::AppDisabled => 4003,
            Self::UnsupportedProtocol => 4007,
            Self::OriginNotAllowed | Self::NotAuthorizedInTime | Self::UserTerminated | Self::SessionEnded => 4009,
            Self::AppConnections(_)
            | Self::NodeConnections(_)
            | Self::TooManyAttempts
            | Self::SlowReader
            | Self::InvalidMessages => 4100,
            Self::ServerGoingAway | Self::AccessChanged => 4200,
            Self::PongTimeout => 4201,
            Self::MessageTooBig => 1009,
            Self::BinaryFrame => 1003,
            Self::InvalidUtf8 => 1007,
            Self::ProtocolViolation => 1002,
            Self::ClosedByClient | Self::Broken => return None,
        })
    }

    /// What is told to the client, at most 123 bytes.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::TlsRequired => "this app accepts only TLS connections (wss)".to_owned(),
            Self::UnknownApp => "no app has this key".to_owned(),
            Self::AppDisabled => "this app is disabled".to_owned(),
            Self::UnsupportedProtocol => "unsupported protocol version; 5, 6 and 7 are served".to_owned(),
            Self::OriginNotAllowed => "this origin is not allowed to connect to the app".to_owned(),
            Self::NotAuthorizedInTime => "neither signed in nor subscribed to an authorized channel in time".to_owned(),
            Self::UserTerminated => "the user's connections were terminated by the app".to_owned(),
            Self::SessionEnded => "the session has ended".to_owned(),
            Self::AccessChanged => "what you may subscribe to has changed, reconnect".to_owned(),
            Self::AppConnections(limit) => format!("over capacity: the app allows {limit} connections"),
            Self::NodeConnections(limit) => format!("over capacity: this node allows {limit} connections"),
            Self::TooManyAttempts => "over capacity: too many connection attempts from this address".to_owned(),
            Self::SlowReader => "over capacity: the client reads too slowly".to_owned(),
            Self::InvalidMessages => "too many invalid messages".to_owned(),
            Self::ServerGoingAway => "the server is going away, reconnect".to_owned(),
            Self::PongTimeout => "no answer to the server's ping in time".to_owned(),
            Self::MessageTooBig => "message too big".to_owned(),
            Self::BinaryFrame => "binary frames are not accepted".to_owned(),
            Self::InvalidUtf8 => "text is not valid UTF-8".to_owned(),
            Self::ProtocolViolation => "WebSocket protocol violation".to_owned(),
            Self::ClosedByClient => "closed by the client".to_owned(),
            Self::Broken => "the connection broke".to_owned(),
        }
    }

    /// The reason's name in logs and metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TlsRequired => "tls_required",
            Self::UnknownApp => "unknown_app",
            Self::AppDisabled => "app_disabled",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::NotAuthorizedInTime => "not_authorized_in_time",
            Self::UserTerminated => "user_terminated",
            Self::SessionEnded => "session_ended",
            Self::AccessChanged => "access_changed",
            Self::AppConnections(_) => "app_connections",
            Self::NodeConnections(_) => "node_connections",
            Self::TooManyAttempts => "too_many_attempts",
            Self::SlowReader => "slow_reader",
            Self::InvalidMessages => "invalid_messages",
            Self::ServerGoingAway => "server_going_away",
            Self::PongTimeout => "pong_timeout",
            Self::MessageTooBig => "message_too_big",
            Self::BinaryFrame => "binary_frame",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::ProtocolViolation => "protocol_violation",
            Self::ClosedByClient => "closed_by_client",
            Self::Broken => "broken",
        }
    }

    /// Whether a `pusher:error` with the code goes before the close frame: codes of the protocol, not those of RFC 6455.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.code().is_some_and(|code| code >= 4000)
    }
}
