//! The parts of a running server, built by `server` and shared by every request. `reload` makes others with a changed configuration, which
//! share all that is not configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::Accounts;
use crate::apps::Apps;
use crate::config::{Config, Listen};
use crate::health::Health;
use crate::http::fault::Fault;
use crate::hub::Hub;
use crate::integrations::cloudinary::Cloudinary;
use crate::integrations::crisp::Crisp;
use crate::integrations::provider::Provider;
use crate::limits::Callers;
use crate::notifications::Notifications;
use crate::outgoing::Outgoing;
use crate::webhooks::Webhooks;

/// What every request and connection may use.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What was configured.
    pub config: Config,
    /// The applications.
    pub apps: Arc<Apps>,
    /// Who is here.
    pub hub: Arc<Hub>,
    /// What goes to the apps' backends.
    pub webhooks: Arc<Webhooks>,
    /// What third parties are asked with.
    pub outgoing: Outgoing,
    /// Who says who users are, if anybody does.
    pub identity: Option<Arc<Provider>>,
    /// Where clients and backends connect.
    pub listening: Listen,
    /// How what Herald works with was when it was last asked.
    pub health: Arc<Health>,
    /// Where users' files are, if anywhere.
    pub cloudinary: Option<Arc<Cloudinary>>,
    /// Where users are helped, if anywhere.
    pub crisp: Option<Arc<Crisp>>,
    /// The inboxes, unless their database could not be opened.
    pub notifications: Option<Arc<Notifications>>,
    /// Users' accounts at other services, where there are inboxes.
    pub accounts: Option<Arc<Accounts>>,
    /// The clients' tasks.
    pub connections: TaskTracker,
    /// Places for clients on this node, if there is a limit.
    pub places: Option<Arc<Semaphore>>,
    /// Callers as this node counts them.
    pub callers: Arc<Callers>,
    /// Places for clients whose refusal is held back.
    pub held_back: Arc<Semaphore>,
    /// Cancelled once clients are being sent away.
    pub draining: CancellationToken,
    /// Whether a balancer should send clients here.
    pub ready: Arc<AtomicBool>,
}

impl Parts {
    /// The inboxes.
    ///
    /// # Errors
    /// [`Fault::StoreUnavailable`] where their database could not be opened when the server was started.
    pub fn notifications(&self) -> Result<&Notifications, Fault> {
        let missing = || Fault::StoreUnavailable("it could not be opened when the server was started".to_owned());
        self.notifications.as_deref().ok_or_else(missing)
    }

    /// Users' accounts at other services.
    ///
    /// # Errors
    /// As [`Parts::notifications`].
    pub fn accounts(&self) -> Result<&Arc<Accounts>, Fault> {
        self.notifications()?;
        self.accounts.as_ref().ok_or(Fault::NotFound)
    }

    /// Whether a balancer should send clients here: from when all listens until the end is asked for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}
