//! A Redis of a test's own: the real server on a free port, empty, in a folder that goes with it.

use tempfile::TempDir;

use crate::server::Server;

/// See the module. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Redis {
    server: Server,
    access: Access,
    certificate: String,
}

/// Who is let in, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Open,
    User { name: &'static str, password: &'static str },
    Tls,
}

impl Redis {
    /// Lets everybody in.
    pub(crate) fn start() -> Self {
        Self::with(Access::Open)
    }

    /// Lets this user in and nobody else.
    pub(crate) fn with_user(name: &'static str, password: &'static str) -> Self {
        Self::with(Access::User { name, password })
    }

    /// Speaks TLS only, with a certificate that only who has read [`Self::certificate`] believes.
    pub(crate) fn with_tls() -> Self {
        Self::with(Access::Tls)
    }

    fn with(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("cert.pem").display().to_string();
        if access == Access::Tls {
            make_certificate(&folder);
        }
        let login: &[&str] = match access {
            Access::Open => &[],
            Access::User { name, password } => &["--user", name, "--pass", password],
            Access::Tls => &["--tls", "--cacert", &certificate],
        };
        let server = Server::start(folder, &[], login, |port| {
            let access = match access {
                Access::Open => format!("port {port}"),
                Access::User { name, password } => {
                    format!("port {port}\nuser default off\nuser {name} on >{password} ~* &* +@all")
                }
                Access::Tls => format!(
                    "port 0\ntls-port {port}\ntls-cert-file cert.pem\ntls-key-file key.pem\ntls-ca-cert-file cert.pem\n\
                     tls-auth-clients no"
                ),
            };
            format!("{access}\nsave \"\"\nappendonly no\n")
        });
        Self { server, access, certificate }
    }

    /// Where Herald finds it.
    pub(crate) fn url(&self) -> String {
        let address = self.address();
        match self.access {
            Access::Open => format!("redis://{address}"),
            Access::User { name, password } => {
                let password: String = form_urlencoded::byte_serialize(password.as_bytes()).collect();
                format!("redis://{name}:{password}@{address}")
            }
            Access::Tls => format!("rediss://{address}"),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    /// The file with the certificate that its clients must believe.
    pub(crate) fn certificate(&self) -> String {
        self.certificate.clone()
    }

    /// Kills it; all that it knew is lost.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it, once it was killed, on the same port; it knows nothing.
    pub(crate) fn start_again(&mut self) {
        self.server.start_again();
    }

    /// It dies and comes back at once, empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// From now on it answers nothing, and nobody is told.
    pub(crate) fn pause(&self) {
        self.server.pause();
    }

    /// It goes on where it was.
    pub(crate) fn resume(&self) {
        self.server.resume();
    }

    /// What `redis-cli` prints, without the end of the last line.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        self.server.cli(args)
    }
}

/// A certificate of this machine's and its key: `cert.pem` and `key.pem` in the folder.
pub(crate) fn make_certificate(folder: &TempDir) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn each_kind_of_redis_starts_dies_and_comes_back_empty() {
    for mut redis in [Redis::start(), Redis::with_user("herald", "s3cret/pass+word:@"), Redis::with_tls()] {
        assert_eq!(redis.cli(&["SET", "key", "value"]), "OK", "{redis:?}");
        redis.restart();
        assert_eq!(redis.cli(&["DBSIZE"]), "0", "{redis:?}");
    }
}
