//! Every option of Herald, each declared once: its name, meaning, kind, bounds and default.
//!
//! From here come the check at the start, the names in the environment, `herald check`, config/herald.toml and
//! docs/configuration.md; a test compares the latter two.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use herald_protocol::Secret;
use herald_protocol::webhook::WebhookKind;
use ipnet::IpNet;
use sentry::types::Dsn;
use url::Url;

use super::cloudinary_url::CloudinaryUrl;
use super::database_url::{DatabaseUrl, Pooler};
use super::kind::{
    Address, AddressOrOff, ApiKey, AppAddress, AppId, AppKey, AuthDefault, BetweenDatabase, ChannelPattern, Claim,
    ClientId, CloudName, CloudinaryAddress, Count, DatabaseAddress, DefaultPreference, Encryption, File, FileEnding,
    Flag, FollowedTopic, Format, Headers, HealthService, Identifier, InstanceId, Issuer, KIB, KeyPrefix, KeysAddress,
    Kind, Level, Listen, LogFormat, MIB, MINUTE, MasterKeyText, NamePart, Network, OidcIssuer, Optional, Origin,
    Otherwise, Party, Pem, Prefix, PresetOrOff, PublicAddress, Publishable, QuotaOrOff, RedisAddress, ReportName,
    Reset, ResetForm, Role, SECOND, SecretText, SentryDsn, Several, Share, SignatureAlgorithm, Signing, Size, Time,
    TokenAddress, TokenKeys, TokenTier, Transformations, TypePattern, Unreachable, WebAddress, Webhook, WebhookSecret,
    WebsiteId, WhenUnreachable,
};
use super::redis_url::RedisUrl;
use super::section::{Described, Place, Reader, Section};
use crate::health;
use crate::identity::publishable_key::PublishableKey;
use crate::identity::rules::{MasterKey, Pattern};
use crate::identity::{Algorithm, Key};
use crate::integrations::cloudinary::signature::Digest;
use crate::integrations::crisp::Tier;
use crate::integrations::standard_webhooks::Secrets;
use crate::limits::Quota;
use crate::notifications::topics::TopicPattern;
use crate::seal::{self, KeyRing};
use crate::store::preferences::Preference;

/// Declares a section: options (name, type, kind, default), sections within it, lists of sections, and sections by names of one's own.
macro_rules! options {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])* $field:ident: $value:ty = $default:expr, as $kind:ty;)*
            $([sections] $($(#[doc = $section_doc:literal])* $section:ident: $section_type:ty;)+)?
            $([lists] $($(#[doc = $list_doc:literal])* $list:ident: $list_type:ty;)+)?
            $([named] $($(#[doc = $named_doc:literal])* $named:ident: $named_type:ty;)+)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $value,)*
            $($($(#[doc = $section_doc])* pub $section: $section_type,)+)?
            $($($(#[doc = $list_doc])* pub $list: Vec<$list_type>,)+)?
            $($($(#[doc = $named_doc])* pub $named: BTreeMap<String, $named_type>,)+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($section: Default::default(),)+)?
                    $($($list: Vec::new(),)+)?
                    $($($named: BTreeMap::new(),)+)?
                }
            }
        }

        impl Section for $name {
            const ABOUT: &'static [&'static str] = &[$($about),*];

            fn read(mut place: Place, reader: &mut Reader<'_>) -> Self {
                let section = Self {
                    $($field: reader.option::<$kind>(&mut place, stringify!($field), || $default),)*
                    $($($section: reader.section(&mut place, stringify!($section)),)+)?
                    $($($list: reader.list(&mut place, stringify!($list)),)+)?
                    $($($named: reader.named(&mut place, stringify!($named)),)+)?
                };
                reader.finish(
                    &place,
                    &[$(stringify!($field),)* $($(stringify!($section),)+)? $($(stringify!($list),)+)? $($(stringify!($named),)+)?],
                );
                section
            }

            fn describe(path: &str, into: &mut Vec<Described>) {
                into.push(Described::section(path, Self::ABOUT));
                $(into.push(Described::option::<$kind>(path, stringify!($field), &[$($doc),*], &$default));)*
                $($(<$section_type>::describe(&super::section::join(path, stringify!($section)), into);)+)?
                $($(<$list_type>::describe(&super::section::join(path, stringify!($list)), into);)+)?
                $($(<$named_type>::describe(&format!("{}.name", super::section::join(path, stringify!($named))), into);)+)?
            }

            fn effective(&self, path: &str, header: &str, into: &mut String) {
                if !path.is_empty() {
                    into.push_str(&format!("\n{header}\n"));
                }
                $(if let Some(value) = <$kind>::write(&self.$field) {
                    into.push_str(&format!("{} = {value}\n", stringify!($field)));
                })*
                $($({
                    let path = super::section::join(path, stringify!($section));
                    self.$section.effective(&path, &format!("[{path}]"), into);
                })+)?
                $($(for section in &self.$list {
                    let path = super::section::join(path, stringify!($list));
                    section.effective(&path, &format!("[[{path}]]"), into);
                })+)?
                $($(for (name, section) in &self.$named {
                    let path = super::section::join(&super::section::join(path, stringify!($named)), name);
                    section.effective(&path, &format!("[{path}]"), into);
                })+)?
            }
        }
    };
}

options! {
    /// Everything that is configured.
    pub struct Config {
        [sections]
        /// Where and how Herald listens.
        server: ServerOptions;
        /// Certificates of the main listener.
        tls: TlsOptions;
        /// How it ends.
        shutdown: ShutdownOptions;
        /// What holds for every client's connection.
        connection: ConnectionOptions;
        /// How several nodes are one.
        cluster: ClusterOptions;
        /// How much each caller may ask.
        limits: LimitOptions;
        /// Who users are, and which channels they may subscribe to.
        auth: AuthOptions;
        /// Where users and notifications are kept.
        database: DatabaseOptions;
        /// The inbox of every user.
        notifications: NotificationOptions;
        /// What the app's own backend sends: mail, push and the like.
        dispatch: DispatchOptions;
        /// Tokens of other services that are kept for users.
        tokens: TokenOptions;
        /// Other services that Herald works with.
        integrations: IntegrationOptions;
        /// The listener for those who watch over it.
        metrics: MetricsOptions;
        /// What health checks are told.
        health: HealthOptions;
        /// What is written down.
        log: LogOptions;
        /// Where what goes wrong is reported.
        sentry: SentryOptions;
        [lists]
        /// The applications.
        apps: AppOptions;
    }
}

impl Config {
    /// The id of the app whose users other services' webhooks are about, and rows that others insert as `default` (section 8.6).
    #[must_use]
    pub fn integrations_app(&self) -> &str {
        let first = || self.apps.first().map(|app| app.id.as_str());
        self.integrations.app.as_deref().or_else(first).unwrap_or_default()
    }
}

options! {
    /// Where and how Herald listens, for clients and backends alike.
    pub struct ServerOptions {
        /// Where clients and backends connect.
        listen: Listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 6001))), as Address;
        /// What stands in front of `/app` and `/apps` in every address, for servers that share a host name with others.
        path_prefix: String = String::new(), as Prefix;
        /// Where others find it, such as `https://realtime.example.com`, without `path_prefix`: what services that tell it something are told.
        public_url: Option<String> = None, as Optional<PublicAddress>;
        /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
        trusted_proxies: Vec<IpNet> = Vec::new(), as Several<Network>;
        /// Threads that serve. If nothing is said, one for each core but one, which is left to the kernel: most of what sending costs is
        /// its work.
        threads: Option<usize> = None, as Optional<Count<1, 1_024>>;
        /// Connections of all apps together; further ones are closed with 4100 and come back by themselves.
        max_connections: Option<usize> = None, as Optional<Count<1, 10_000_000>>;
        /// How long a client may take for the TLS handshake and the head of its request.
        handshake_timeout: Duration = Duration::from_secs(10), as Time<{ SECOND / 10 }, { 5 * MINUTE }>;
        /// How long a backend may take for the body of its request.
        request_timeout: Duration = Duration::from_secs(10), as Time<{ SECOND / 10 }, { 5 * MINUTE }>;
        /// The folder for what Herald keeps over a restart: webhooks that were not delivered when it ended, and `herald.db` if there is no
        /// other database.
        data_dir: PathBuf = PathBuf::from("data"), as File;
        /// What a backend may present to `/v1` as `Authorization: Bearer`, in place of a signature with an app's key and secret; while it is
        /// changed, the old and the new one.
        api_keys: Vec<Secret> = Vec::new(), as Several<ApiKey>;
    }
}

options! {
    /// Certificates: with both set, the main listener speaks TLS only. They are read again on SIGHUP.
    pub struct TlsOptions {
        /// The certificate chain, as PEM, the server's own first.
        cert: Option<PathBuf> = None, as Optional<File>;
        /// The private key, as PEM.
        key: Option<PathBuf> = None, as Optional<File>;
    }
}

options! {
    /// How Herald ends after SIGTERM. A second signal ends it at once.
    pub struct ShutdownOptions {
        /// How long it goes on accepting while `/health/ready` says 503 already, so that balancers notice first.
        delay: Duration = Duration::from_secs(2), as Time<0, { 5 * MINUTE }>;
        /// Over how long the clients are sent away (4200), evenly, so that they do not all arrive elsewhere at once.
        drain: Duration = Duration::from_secs(10), as Time<0, { 10 * MINUTE }>;
    }
}

options! {
    /// What holds for every client's connection.
    pub struct ConnectionOptions {
        /// After how long without a message a client pings by itself; announced to it, in whole seconds.
        activity_timeout: Duration = Duration::from_secs(60), as Time<SECOND, { 60 * MINUTE }>;
        /// How much later than that Herald pings it.
        activity_grace: Duration = Duration::from_secs(10), as Time<0, { 10 * MINUTE }>;
        /// How long the answer to that ping may take before the client counts as gone.
        pong_timeout: Duration = Duration::from_secs(15), as Time<{ SECOND / 10 }, { 10 * MINUTE }>;
        /// How long a client's socket may take nothing before the client is closed as a slow reader (4100).
        write_deadline: Duration = Duration::from_secs(10), as Time<{ SECOND / 10 }, { 10 * MINUTE }>;
        [sections]
        /// What may wait for one client.
        queue: QueueOptions;
    }
}

impl ConnectionOptions {
    /// After how long without an answer a peer counts as gone.
    #[must_use]
    pub fn gone_after(&self) -> Duration {
        self.activity_timeout + self.activity_grace + self.pong_timeout
    }
}

options! {
    /// What may wait for one client that reads slowly; over the bound it is closed with 4100.
    pub struct QueueOptions {
        /// Bytes that may wait.
        max_bytes: usize = MIB, as Size<{ 16 * KIB }, { 1024 * MIB }>;
        /// Messages that may wait.
        max_frames: usize = 10_000, as Count<16, 10_000_000>;
    }
}

options! {
    /// How several nodes are one. Without a Redis, this node is alone.
    pub struct ClusterOptions {
        /// How often a node says that it is alive.
        heartbeat: Duration = Duration::from_secs(5), as Time<{ SECOND / 20 }, MINUTE>;
        /// After how long without that it counts as dead: its members leave, its counts are subtracted. At least three times `heartbeat`.
        node_timeout: Duration = Duration::from_secs(15), as Time<{ SECOND / 5 }, { 10 * MINUTE }>;
        /// What a trigger does while Redis is away: `reject` answers 503 and delivers nothing, `deliver-locally` reaches the clients of the
        /// node that got it.
        when_unreachable: WhenUnreachable = WhenUnreachable::Reject, as Unreachable;
        [sections]
        /// What joins the nodes.
        redis: RedisOptions;
    }
}

options! {
    /// The Redis (7.0 or later, or Valkey) that joins the nodes. The same for all of them.
    pub struct RedisOptions {
        /// Where it is: one server, or several Sentinels that know where the master called NAME is, or some nodes of a Redis Cluster.
        url: Option<RedisUrl> = None, as Optional<RedisAddress>;
        /// Herald's password there, where `url` has none.
        password: Option<Secret> = None, as Optional<SecretText>;
        /// What stands in front of all keys, for Redises that are shared with others.
        prefix: String = "herald".to_owned(), as KeyPrefix;
    }
}

options! {
    /// How much each caller may ask, over all nodes: as much at once as in a whole window, then evenly. Whoever asks more gets 429 with
    /// `Retry-After`. What apps may trigger and read of Pusher's API is limited by `apps.limits`.
    pub struct LimitOptions {
        /// Authorizations and sign-ins (`/pusher/auth`, `/pusher/user-auth`) of a user.
        auth: Option<Quota> = quota(1_200, 60), as QuotaOrOff;
        /// Requests with a wrong token, key or signature from an address (of IPv6, from a network /64). The right ones are served all the same.
        failed_auth: Option<Quota> = quota(300, 60), as QuotaOrOff;
        /// What a user reads: inbox, preferences, topics, files, connected services.
        inbox_reads: Option<Quota> = quota(600, 60), as QuotaOrOff;
        /// What a user changes of inbox, preferences and topics.
        inbox_writes: Option<Quota> = quota(300, 60), as QuotaOrOff;
        /// Signatures for uploads that a user asks for.
        file_signatures: Option<Quota> = quota(30, 3_600), as QuotaOrOff;
        /// What else a user asks.
        default: Option<Quota> = quota(100, 3_600), as QuotaOrOff;
        /// What an app's backend asks under `/v1`, and of its notifications.
        servers: Option<Quota> = quota(600, 1), as QuotaOrOff;
        /// Third parties' webhooks from an address, counted before their signature is checked.
        webhooks: Option<Quota> = quota(500, 1), as QuotaOrOff;
        /// Reports of how fast pages were (`/v1/vitals`) from an address: an office is one.
        vitals: Option<Quota> = quota(600, 60), as QuotaOrOff;
        /// Attempts to connect from an address. Without a limit by default: an office or a mobile network is one address, and all come back at
        /// once after a deployment.
        connections: Option<Quota> = None, as QuotaOrOff;
        /// How long Redis may take to count. If it takes longer each node counts by itself, and lets its share of the limit through.
        redis_timeout: Duration = Duration::from_millis(50), as Time<1, { 5 * SECOND }>;
        /// Whether answers have the headers of the IETF's draft, `RateLimit` and `RateLimit-Policy`, beside `X-RateLimit-Limit`, `-Remaining`
        /// and `-Reset`.
        draft_headers: bool = true, as Flag;
        /// How `X-RateLimit-Reset` is written: `unix` in seconds since 1970, `iso` as text.
        reset: ResetForm = ResetForm::Unix, as Reset;
    }
}

const fn quota(limit: usize, seconds: u64) -> Option<Quota> {
    Some(Quota { limit, window: Duration::from_secs(seconds) })
}

options! {
    /// Who users are: with Clerk's key, Herald is the auth endpoint of the app's clients (`/pusher/auth`, `/pusher/user-auth`), and the app
    /// writes none. Without one, those addresses do not exist.
    pub struct AuthOptions {
        /// The public key that Clerk signs session tokens with ("JWKS Public Key" in its dashboard): then no network is needed. While it is
        /// changed, the old and the new one, one behind the other.
        jwt_key: Option<Vec<Key>> = None, as Optional<Pem>;
        /// Clerk's publishable key: it says who signs, and without `jwt_key` where the keys are published.
        publishable_key: Option<PublishableKey> = None, as Optional<Publishable>;
        /// Clerk's secret key. With it Herald asks Clerk for the name and picture of users of whom no webhook has told, for the keys if neither of
        /// the two above is set, and for tokens of other services that it holds; and writes metadata of accounts there. Nothing else needs it.
        secret_key: Option<Secret> = None, as Optional<SecretText>;
        /// How often Clerk is asked whether the sessions of connections still live, as a safety net for webhooks that were lost; never if nothing
        /// is said. Needs `secret_key`.
        session_recheck: Option<Duration> = None, as Optional<Time<{ 10 * MINUTE }, { 24 * 60 * MINUTE }>>;
        /// Which of a user's public metadata other members of presence channels see, beside the name and the picture.
        user_info_metadata: Vec<String> = Vec::new(), as Several<Claim>;
        /// Where Clerk's Backend API is.
        api_url: String = "https://api.clerk.com".to_owned(), as Issuer;
        /// Who signs the tokens, where that is not what `publishable_key` says.
        issuer: Option<String> = None, as Optional<Issuer>;
        /// Origins of the pages that tokens are made for, compared exactly. Empty means that this is not checked.
        authorized_parties: Vec<String> = Vec::new(), as Several<Party>;
        /// How far the clocks of Clerk and Herald may be apart.
        clock_skew: Duration = Duration::from_secs(5), as Time<0, MINUTE>;
        /// Whether tokens of Clerk's JWT templates count. They stay valid when their session has ended.
        allow_template_tokens: bool = false, as Flag;
        /// Whether Clerk's session cookie counts where there is no bearer token. Browsers send it where Herald has the app's own origin.
        cookies: bool = true, as Flag;
        /// Origins of the pages that may ask; empty means `authorized_parties`, and on an address of this machine every localhost.
        allowed_origins: Vec<String> = Vec::new(), as Several<Origin>;
        /// Whether users may subscribe to channels about which no rule says anything. `allow` lets every signed-in user into all of them.
        default: AuthDefault = AuthDefault::Deny, as Otherwise;
        /// The app's own address that is asked about channels of which no rule speaks: a POST with who it is and which channel, signed as
        /// webhooks are; 200 means yes, 403 no.
        authorizer: Option<Url> = None, as Optional<AppAddress>;
        /// How long it may take.
        authorizer_timeout: Duration = Duration::from_secs(2), as Time<{ SECOND / 10 }, { 10 * SECOND }>;
        /// What Clerk signs its webhooks with, as `whsec_` and base64; while it is changed two, with a comma between. Then
        /// `/webhooks/clerk` takes them.
        webhook_secret: Option<Secrets> = None, as Optional<WebhookSecret>;
        /// The only instance of Clerk whose webhooks count.
        clerk_instance_id: Option<String> = None, as Optional<InstanceId>;
        /// The key of `private-encrypted-` channels, which the app's backends have too.
        encryption_master_key: Option<MasterKey> = None, as Optional<MasterKeyText>;
        [sections]
        /// Another identity provider than Clerk.
        oidc: OidcOptions;
        [lists]
        /// Who may subscribe to what, beside a user's own channels and those of the active organization.
        rules: RuleOptions;
    }
}

impl AuthOptions {
    /// Whether users are Clerk's.
    #[must_use]
    pub const fn is_clerk(&self) -> bool {
        self.jwt_key.is_some() || self.publishable_key.is_some() || self.secret_key.is_some()
    }
}

options! {
    /// An OpenID Connect issuer in place of Clerk (Auth0, Keycloak, Zitadel, Supabase, …): its access or id tokens say who users are.
    pub struct OidcOptions {
        /// Who signs the tokens, exactly as `iss` has it; with it, `audiences` is needed.
        issuer: Option<String> = None, as Optional<OidcIssuer>;
        /// For whom tokens must be made: one of these must be in `aud`.
        audiences: Vec<String> = Vec::new(), as Several<Claim>;
        /// Where the keys are published; without it where the issuer's discovery document says.
        jwks_url: Option<String> = None, as Optional<KeysAddress>;
        /// How tokens may be signed.
        algorithms: Vec<Algorithm> = vec![Algorithm::Rs256, Algorithm::Es256], as Several<Signing>;
        /// The claim with the user's id.
        user_claim: String = "sub".to_owned(), as Claim;
        /// The claim with the session's id; a token without one ends its connections an hour after itself.
        session_claim: String = "sid".to_owned(), as Claim;
        /// The claim with the id of the active organization.
        org_claim: String = "org_id".to_owned(), as Claim;
        /// The claim with the user's role there.
        role_claim: String = "org_role".to_owned(), as Claim;
    }
}

options! {
    /// Lets users into channels; the first rule that matches lets them in. `user-{user_id}` and `org-{org_id}`, with or without `-*`, are
    /// there already, and no other rule speaks about names that begin so.
    pub struct RuleOptions {
        /// Which channels.
        channels: Vec<Pattern> = Vec::new(), as Several<ChannelPattern>;
        /// Only for users with one of these roles in their active organization; empty means all.
        org_roles: Vec<String> = Vec::new(), as Several<Role>;
    }
}

options! {
    /// Where users and notifications are kept: a Postgres, or a file of SQLite. Nodes of one cluster need the same Postgres.
    pub struct DatabaseOptions {
        /// Where it is. If nothing is said, SQLite in `herald.db` in `server.data_dir`.
        url: Option<DatabaseUrl> = None, as Optional<DatabaseAddress>;
        /// The schema that holds Herald's tables in Postgres; it is made if it is not there.
        schema: String = "herald".to_owned(), as Identifier;
        /// Connections to Postgres at most.
        max_connections: usize = 10, as Count<2, 1_000>;
        /// What stands between: `transaction` is a pooler that gives each transaction any connection, such as Supabase's on port 6543, which
        /// `auto` knows by that port.
        pooler: Pooler = Pooler::Auto, as BetweenDatabase;
        /// Whether tables are brought up to date at the start; else `herald migrate` does it.
        migrate: bool = true, as Flag;
    }
}

options! {
    /// The inbox of every user: who wants what is created, and what users may follow.
    pub struct NotificationOptions {
        /// Types that reach everybody, whatever their preferences are; `critical` ones always do.
        mandatory: Vec<String> = Vec::new(), as Several<TypePattern>;
        /// What holds for users who have said nothing about a type and channel; where nothing is said here either, they want it.
        defaults: Vec<Preference> = Vec::new(), as Several<DefaultPreference>;
        /// Topics that users may follow by themselves; none if nothing is said.
        topics: Vec<TopicPattern> = Vec::new(), as Several<FollowedTopic>;
        /// Whether recipients of whom neither the identity provider nor a backend has told get nothing; else they become known.
        require_known_users: bool = false, as Flag;
    }
}

options! {
    /// The app's own backend, told of each notification that a user wants by other ways than the inbox: mail, push, text messages, chat. Off
    /// without `url`.
    pub struct DispatchOptions {
        /// Where it is told; redirects are not followed.
        url: Option<Url> = None, as Optional<AppAddress>;
        /// What these requests are signed with, as `whsec_` and base64; while it is changed two, the new one first.
        secret: Option<Secrets> = None, as Optional<WebhookSecret>;
    }
}

options! {
    /// Tokens of other services that are kept for users: encrypted, or not at all.
    pub struct TokenOptions {
        /// Keys, each ID:KEY, the key 32 bytes in base64; the first encrypts, all decrypt. `herald rotate-keys` brings what is stored under
        /// the first.
        keys: Option<KeyRing> = None, as Optional<TokenKeys>;
        /// Whether the start fails where a key is missing that stored tokens need; else those tokens cannot be used.
        strict: bool = false, as Flag;
        /// How new ones are encrypted: `xc20p` is XChaCha20-Poly1305, `a256gcm` AES-256-GCM for those who need a FIPS algorithm.
        algorithm: seal::Algorithm = seal::Algorithm::XChaCha20Poly1305, as Encryption;
    }
}

impl TokenOptions {
    /// The keys, which encrypt as is configured.
    #[must_use]
    pub fn key_ring(&self) -> Option<KeyRing> {
        Some(self.keys.clone()?.encrypting(self.algorithm))
    }
}

options! {
    /// Services that Herald works with, beside Clerk; each is off until it is configured.
    pub struct IntegrationOptions {
        /// The id of the app whose users their webhooks are about. If nothing is said, the first app.
        app: Option<String> = None, as Optional<AppId>;
        [sections]
        /// Where users' files are.
        cloudinary: CloudinaryOptions;
        /// Where users talk with those who help them.
        crisp: CrispOptions;
        [named]
        /// Where tokens of other services are refreshed, by the services' names.
        oauth: OauthOptions;
    }
}

options! {
    /// Where the tokens of one service are refreshed, as OAuth 2.0 has it. The section is named as the service is in `/v1/users/ID/integrations/SERVICE`;
    /// in the environment the name stands in capital letters, in the place of `NAME`. All three belong together.
    pub struct OauthOptions {
        /// The service's token endpoint.
        token_url: Option<Url> = None, as Optional<TokenAddress>;
        /// The client that the tokens were made for.
        client_id: Option<String> = None, as Optional<ClientId>;
        /// Its secret.
        client_secret: Option<Secret> = None, as Optional<SecretText>;
        /// A second secret, while one replaces the other: it is presented where the service does not take the first.
        other_client_secret: Option<Secret> = None, as Optional<SecretText>;
    }
}

options! {
    /// Cloudinary, where users upload files to with what Herald signs for them. On with the name of the cloud, the API key and the API secret, or
    /// with `url`, which holds all three.
    pub struct CloudinaryOptions {
        /// The name of the cloud.
        cloud_name: Option<String> = None, as Optional<CloudName>;
        /// The API key; it is public.
        api_key: Option<String> = None, as Optional<AppKey>;
        /// The API secret, which uploads are signed with.
        api_secret: Option<Secret> = None, as Optional<SecretText>;
        /// All three at once, as Cloudinary's console shows them; what is said for itself counts before that.
        url: Option<CloudinaryUrl> = None, as Optional<CloudinaryAddress>;
        /// The upload preset of all uploads. It has to be there, and should allow signed uploads only.
        upload_preset: Option<String> = Some("user_uploads".to_owned()), as PresetOrOff;
        /// Endings of files that Cloudinary takes where Herald fixes what is signed; an empty list means all.
        allowed_formats: Vec<String> = ["jpg", "png", "gif", "pdf"].map(str::to_owned).to_vec(), as Several<FileEnding>;
        /// The largest file that stays. No signature can limit it, so a larger one is deleted once Cloudinary has told of it.
        max_file_bytes: usize = 10_000_000, as Size<1, { 1024 * 1024 * MIB }>;
        /// What is made of each file at once: Cloudinary's transformations with `|` between, such as `c_thumb,w_200,h_200,g_face`. None if
        /// nothing is said.
        eager: Option<String> = None, as Optional<Transformations>;
        /// What its notifications are signed with, where that is not `api_secret`; while it is changed, the old and the new one.
        webhook_secrets: Vec<Secret> = Vec::new(), as Several<SecretText>;
        /// How old a notification may be.
        notification_max_age: Duration = Duration::from_secs(7_200), as Time<MINUTE, { 24 * 60 * MINUTE }>;
        /// How the account signs. If nothing is said: as `url` says, else what Herald sends by SHA-1, and notifications by either.
        signature_algorithm: Option<Digest> = None, as Optional<SignatureAlgorithm>;
        /// Where its API is: accounts in Europe and Asia have addresses of their own.
        api_url: String = "https://api.cloudinary.com".to_owned(), as PublicAddress;
    }
}

options! {
    /// Crisp, the chat in which users are helped. On with the website's id and at least one of: `token_id` with `token_key`, `signing_secrets`,
    /// `webhook_keys`, `identity_secret`.
    pub struct CrispOptions {
        /// The website's id.
        website_id: Option<String> = None, as Optional<WebsiteId>;
        /// The identifier of a token for Crisp's REST API.
        token_id: Option<String> = None, as Optional<AppKey>;
        /// The key of that token.
        token_key: Option<Secret> = None, as Optional<SecretText>;
        /// Whose token it is.
        tier: Tier = Tier::Plugin, as TokenTier;
        /// What a plugin's hooks are signed with; while it is changed, the old and the new one.
        signing_secrets: Vec<Secret> = Vec::new(), as Several<SecretText>;
        /// What a website's hooks, which nobody signs, have as `key` in their address; while it is changed, the old and the new one.
        webhook_keys: Vec<Secret> = Vec::new(), as Several<SecretText>;
        /// What users' addresses are signed with for the chat, as its settings for user verification show it.
        identity_secret: Option<Secret> = None, as Optional<SecretText>;
        /// Where the REST API is.
        api_url: String = "https://api.crisp.chat".to_owned(), as PublicAddress;
    }
}

options! {
    /// The listener for Prometheus and health checks; nothing on it needs a signature, so keep it to yourself.
    pub struct MetricsOptions {
        /// Where `/metrics`, `/health/live` and `/health/ready` are served.
        listen: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 9601))), as AddressOrOff;
    }
}

options! {
    /// What `/health/integrations` tells of what Herald works with.
    pub struct HealthOptions {
        /// What whoever asks presents as `Authorization: Bearer` to be told more than whether each is well. If nothing is said, everybody is.
        token: Option<Secret> = None, as Optional<ApiKey>;
        /// Of these it is told when they are down, and yet all counts as well.
        optional: Vec<health::Service> = Vec::new(), as Several<HealthService>;
    }
}

options! {
    /// What is written to stderr about what happens.
    pub struct LogOptions {
        /// From which level on.
        level: tracing::Level = tracing::Level::INFO, as Level;
        /// Text for people, JSON for programs; `auto` is text on a terminal and JSON otherwise.
        format: LogFormat = LogFormat::Auto, as Format;
    }
}

options! {
    /// Where what goes wrong is reported: Sentry, or whatever speaks its protocol. Off without `dsn`.
    pub struct SentryOptions {
        /// Where the project is (its "DSN"). It is shown to nobody.
        dsn: Option<Dsn> = None, as Optional<SentryDsn>;
        /// Whether `NEXT_PUBLIC_SENTRY_DSN` counts where there is no other: that is the project of the app's pages.
        use_public_dsn: bool = false, as Flag;
        /// Which of your installations this is.
        environment: String = "production".to_owned(), as ReportName;
        /// What runs; if nothing is said, `herald@` and its version.
        release: Option<String> = None, as Optional<ReportName>;
        /// Which part of the HTTP requests is traced. Health checks, metrics and unknown addresses never are, nor is what happens on sockets.
        traces_sample_rate: f64 = 0.05, as Share;
        /// Whether addresses, and mail addresses where they are known, are sent along. Ids of users are in any case.
        send_pii: bool = false, as Flag;
    }
}

options! {
    /// An application (tenant); repeat the section for further ones. One from the environment joins them, or replaces the one of the
    /// same id.
    pub struct AppOptions {
        /// Stands in the paths of the HTTP API.
        id: String = String::new(), as AppId;
        /// Public: what clients connect with.
        key: String = String::new(), as AppKey;
        /// What requests, authorizations and webhooks are signed with.
        secret: Secret = Secret::new(""), as SecretText;
        /// A second secret of the same key, while one replaces the other: what is signed with it counts too. Herald itself signs with
        /// `secret`.
        other_secret: Option<Secret> = None, as Optional<SecretText>;
        /// Whether anybody may connect or trigger.
        enabled: bool = true, as Flag;
        /// Whether clients may send events to each other on private and presence channels.
        client_events: bool = true, as Flag;
        /// Whether subscribers are told how many they are (`pusher_internal:subscription_count`).
        subscription_count: bool = false, as Flag;
        /// Origins of the pages that may connect; empty means all. Clients that are no browsers send none.
        allowed_origins: Vec<String> = Vec::new(), as Several<Origin>;
        /// Whether clients without an origin are refused.
        require_origin: bool = false, as Flag;
        /// Whether connections without TLS are refused.
        require_tls: bool = false, as Flag;
        /// Until when after connecting a client must have signed in or subscribed to an authorized channel; else it is closed (4009).
        require_authorized_within: Option<Duration> = None, as Optional<Time<{ SECOND / 10 }, { 60 * MINUTE }>>;
        /// Connections of this app; further ones are closed with 4100 and come back by themselves.
        max_connections: Option<usize> = None, as Optional<Count<1, 10_000_000>>;
        /// How long a cache channel keeps its last event.
        cache_ttl: Duration = Duration::from_secs(30 * 60), as Time<SECOND, { 7 * 24 * 60 * MINUTE }>;
        [sections]
        /// Sizes, counts and rates.
        limits: Limits;
        [lists]
        /// Further key pairs.
        keys: KeyPair;
        /// Where webhooks go.
        webhooks: WebhookOptions;
    }
}

options! {
    /// Sizes, counts and rates that the app above allows.
    pub struct Limits {
        /// Characters of a channel's name.
        channel_name: usize = 164, as Count<1, 200>;
        /// Characters of an event's name.
        event_name: usize = 200, as Count<1, 1_000>;
        /// Bytes of an event's data, decoded.
        event_data: usize = 10_240, as Size<1, { 32 * MIB }>;
        /// Channels of one trigger.
        channels_per_trigger: usize = 100, as Count<1, 10_000>;
        /// Events of one batch.
        batch_events: usize = 10, as Count<1, 1_000>;
        /// Client events a second from one connection; as many may come at once.
        client_events_per_second: usize = 10, as Count<1, 100_000>;
        /// Bytes of a presence member's `user_info`, as JSON.
        presence_user_info: usize = 2_048, as Size<2, { MIB }>;
        /// Members of one presence channel.
        presence_members: usize = 1_000, as Count<1, 100_000>;
        /// Subscriptions of one connection.
        subscriptions: usize = 1_000, as Count<1, 100_000>;
        /// Users that one user watches.
        watchlist: usize = 100, as Count<0, 10_000>;
        /// Events a second over HTTP; as many may come at once.
        events_per_second: Option<usize> = None, as Optional<Count<1, 10_000_000>>;
        /// Reading requests a second over HTTP; as many may come at once.
        reads_per_second: Option<usize> = None, as Optional<Count<1, 10_000_000>>;
    }
}

options! {
    /// A further key pair of the app above, valid beside the first: for changing keys without a gap.
    pub struct KeyPair {
        /// Public.
        key: String = String::new(), as AppKey;
        /// What it signs with.
        secret: Secret = Secret::new(""), as SecretText;
    }
}

options! {
    /// A receiver of the webhooks of the app above.
    pub struct WebhookOptions {
        /// Where they are posted; redirects are not followed.
        url: Option<Url> = None, as WebAddress;
        /// Which kinds.
        events: Vec<WebhookKind> = WebhookKind::ALL.into_iter().filter(|kind| kind.on_by_default()).collect(), as Several<Webhook>;
        /// Only of channels whose names begin so.
        channel_prefix: String = String::new(), as NamePart;
        /// Only of channels whose names end so.
        channel_suffix: String = String::new(), as NamePart;
        /// Whether a request may carry up to 50 events, collected over 50 ms, instead of one.
        batch: bool = true, as Flag;
        /// Further headers of each request.
        headers: BTreeMap<String, String> = BTreeMap::new(), as Headers;
    }
}
