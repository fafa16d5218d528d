//! Cloudinary, where an app's users upload files to (section 2). A browser uploads by itself with what Herald signs for it ([`upload`]);
//! Cloudinary tells of it ([`notification`]), by which Herald knows whose file it is ([`owner`]); what is to be deleted is a task ([`destroy`]).
//!
//! Start at [`Cloudinary`], an account. Always: no secret leaves it, and nothing it is asked for is on the way of an event.
//! Not here: what is kept of files (`store::files`), who may ask (`http::user::files`).

pub mod destroy;
pub mod notification;
pub mod owner;
pub mod signature;
pub mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use herald_protocol::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{CloudinaryOptions, Config};
use crate::outgoing::Outgoing;
use crate::outgoing::problem::CallProblem;
use crate::outgoing::service::{Answer, CallError, Limits, Retry, Service};
use crate::store::files::FileKey;
use notification::Hosts;
use signature::{Digest, Trusted, sign};
use upload::{Fixed, ResourceType};

/// How long a call that changes something may take, and one that only asks.
const DESTROY_WITHIN: Duration = Duration::from_secs(5);
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// How much is read of an answer.
const MAX_BYTES: usize = 64 * 1024;

/// An account, and how Herald uses it.
#[derive(Debug)]
pub struct Cloudinary {
    account: Account,
    api_url: String,
    digest: Digest,
    delivery_host: Option<String>,
    /// What is signed for every upload.
    pub fixed: Fixed,
    /// The largest file that stays.
    pub max_file_bytes: u64,
    /// Whose notifications count.
    pub trusted: Trusted,
    /// Whether files of users are noted of whom nothing is known yet: not where Clerk tells of them.
    pub strangers: bool,
    destroying: Arc<Service>,
    asking: Arc<Service>,
}

/// Who Herald is at Cloudinary.
#[derive(Clone, Debug)]
pub struct Account {
    /// The account's name, which stands in every address.
    pub cloud_name: String,
    /// Public.
    pub api_key: String,
    /// What it signs with.
    pub api_secret: Secret,
}

impl Account {
    /// The account that is configured, if one is: what is said for itself counts before `url`.
    #[must_use]
    pub fn of(options: &CloudinaryOptions) -> Option<Self> {
        let url = options.url.as_ref();
        Some(Self {
            cloud_name: options.cloud_name.clone().or_else(|| Some(url?.cloud_name.clone()))?,
            api_key: options.api_key.clone().or_else(|| Some(url?.api_key.clone()))?,
            api_secret: options.api_secret.clone().or_else(|| Some(url?.api_secret.clone()))?,
        })
    }
}

impl Cloudinary {
    /// The account that is configured, if one is; a line in the log says whether.
    #[must_use]
    pub fn new(config: &Config, outgoing: &Outgoing) -> Option<Self> {
        let options = &config.integrations.cloudinary;
        let Some(account) = Account::of(options) else {
            if options.cloud_name.is_some() || options.api_key.is_some() {
                tracing::info!(
                    "Cloudinary is off: only public names (NEXT_PUBLIC_…) are set; it needs CLOUDINARY_CLOUD_NAME, CLOUDINARY_API_KEY and \
                     CLOUDINARY_API_SECRET"
                );
            } else {
                tracing::info!("Cloudinary is off");
            }
            return None;
        };
        let url = options.url.as_ref();
        let said = options.signature_algorithm.or_else(|| url?.digest);
        let notification_url = config.server.public_url.as_ref();
        let notification_url =
            notification_url.map(|url| format!("{url}{}/webhooks/cloudinary", config.server.path_prefix));
        if notification_url.is_none() {
            tracing::warn!(
                "server.public_url is not set: uploads do not say where Cloudinary is to tell of them; set HERALD_PUBLIC_URL, or the \
                 address in Cloudinary's console"
            );
        }
        tracing::info!(cloud_name = account.cloud_name, notification_url, "Cloudinary is on");
        let secrets = match &options.webhook_secrets[..] {
            [] => vec![account.api_secret.clone()],
            several => several.to_vec(),
        };
        Some(Self {
            api_url: options.api_url.clone(),
            digest: said.unwrap_or(Digest::Sha1),
            delivery_host: url.and_then(|url| url.delivery_host.clone()),
            fixed: Fixed {
                upload_preset: options.upload_preset.clone(),
                allowed_formats: options.allowed_formats.clone(),
                eager: options.eager.clone(),
                notification_url,
            },
            max_file_bytes: options.max_file_bytes as u64,
            trusted: Trusted { secrets, digest: said, max_age_seconds: options.notification_max_age.as_secs() },
            strangers: !config.auth.is_clerk(),
            destroying: outgoing.service("cloudinary.destroy"),
            asking: outgoing.service("cloudinary.ping"),
            account,
        })
    }

    /// Who Herald is there.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// Where its files are delivered from.
    #[must_use]
    pub fn hosts(&self) -> Hosts<'_> {
        Hosts { cloud_name: &self.account.cloud_name, own: self.delivery_host.as_deref() }
    }

    /// Signs what is sent to it.
    #[must_use]
    pub fn sign(&self, parameters: &BTreeMap<String, String>) -> String {
        sign(parameters, &self.account.api_secret, self.digest)
    }

    /// Where files of this kind are uploaded to.
    #[must_use]
    pub fn upload_url(&self, resource_type: ResourceType) -> String {
        self.url(&format!("{}/upload", resource_type.as_str()))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1_1/{}/{path}", self.api_url, self.account.cloud_name)
    }

    /// Deletes a file, and what is kept of it by the network that delivers it, at the time `now` (Unix seconds).
    ///
    /// # Errors
    /// See [`CallError`].
    async fn destroy(&self, file: &FileKey, now: u64) -> Result<Answer, CallError> {
        let mut parameters = BTreeMap::from([
            ("invalidate".to_owned(), "true".to_owned()),
            ("public_id".to_owned(), file.service_file_id.clone()),
            ("timestamp".to_owned(), now.to_string()),
            ("type".to_owned(), file.delivery_type.clone()),
        ]);
        let signature = self.sign(&parameters);
        parameters.insert("api_key".to_owned(), self.account.api_key.clone());
        parameters.insert("signature".to_owned(), signature);
        let form: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(&parameters).finish();
        let url = self.url(&format!("{}/destroy", file.resource_type));
        let request = |client: &reqwest::Client| {
            client.post(&url).header("content-type", "application/x-www-form-urlencoded").body(form.clone())
        };
        let limits = Limits { within: DESTROY_WITHIN, bytes: MAX_BYTES };
        self.destroying.send(request, limits, Retry::Never).await
    }

    /// Whether it answers, and takes the key and the secret. It counts what it is asked so: about 500 times an hour.
    ///
    /// # Errors
    /// See [`CallProblem`].
    pub async fn ping(&self) -> Result<(), CallProblem> {
        let answer = self.ask("ping").await?;
        if answer.status != StatusCode::OK {
            return Err(CallProblem::Status(answer.status));
        }
        let said: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| CallProblem::Answer)?;
        if said["status"] == "ok" { Ok(()) } else { Err(CallProblem::Answer) }
    }

    /// Whether it has the upload preset that is configured; none need be.
    ///
    /// # Errors
    /// See [`CallProblem`].
    pub async fn has_upload_preset(&self) -> Result<bool, CallProblem> {
        let Some(preset) = &self.fixed.upload_preset else { return Ok(true) };
        let answer = self.ask(&format!("upload_presets/{}", utf8_percent_encode(preset, NON_ALPHANUMERIC))).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(CallProblem::Status(status)),
        }
    }

    async fn ask(&self, path: &str) -> Result<Answer, CallError> {
        let url = self.url(path);
        let Account { api_key, api_secret, .. } = &self.account;
        let request = |client: &reqwest::Client| client.get(&url).basic_auth(api_key, Some(api_secret.expose()));
        self.asking.send(request, Limits { within: ASK_WITHIN, bytes: MAX_BYTES }, Retry::Never).await
    }
}
