//! What is wrong with a third party, in one word of a fixed list (section 7): whoever reads it learns nothing of addresses, keys or requests.

use axum::http::StatusCode;

use super::service::{Answer, CallError, Unreached};

/// Why a call was in vain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallProblem {
    /// There is no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The answer has this status.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// The answer is not what was asked for.
    #[error("its answer makes no sense")]
    Answer,
}

impl CallProblem {
    /// The answer, if its status says that all went well.
    ///
    /// # Errors
    /// Else what is wrong.
    pub fn unless_success(answered: Result<Answer, CallError>) -> Result<Answer, Self> {
        let answer = answered?;
        if answer.status.is_success() { Ok(answer) } else { Err(Self::Status(answer.status)) }
    }

    /// One word of the list.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Call(CallError::TimedOut(_)) => "timeout",
            Self::Call(CallError::Unreachable(Unreached::Name(_))) => "dns",
            Self::Call(CallError::Unreachable(Unreached::Tls(_))) => "tls",
            Self::Call(CallError::Unreachable(Unreached::Other(_))) => "connect",
            Self::Call(CallError::Rejected(_)) => "breaker_open",
            Self::Call(CallError::TooLarge(_)) | Self::Answer => "bad_response",
            Self::Status(status) => match status.as_u16() {
                401 => "unauthorized",
                420 | 429 => "rate_limited",
                400..=499 => "http_4xx",
                500.. => "http_5xx",
                _ => "bad_response",
            },
        }
    }
}
