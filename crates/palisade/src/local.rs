//! A server of this process for one command, when none runs on the data directory.

use crate::client::Client;
use crate::config::Config;
use crate::reload::Source;
use crate::server::{Failure, Server, check_data};
use palisade_event::TenantId;
use palisade_ingest::auth::{AuthError, Authenticate, Authenticated, Principal, Scopes};
use std::fmt::Write as _;
use std::io::Read;
use std::time::Duration;

/// The one key of such a server, known to this process only: whoever may write to the data directory may do
/// everything there.
#[derive(Clone)]
pub(crate) struct CommandKey {
    tenant: TenantId,
    token: String,
}

impl CommandKey {
    fn new(tenant: TenantId) -> Result<Self, Failure> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let mut token = String::new();
        for byte in bytes {
            write!(token, "{byte:02x}")?;
        }
        Ok(Self { tenant, token })
    }
}

impl Authenticate for CommandKey {
    fn bearer<'a>(&'a self, token: &'a str) -> Authenticated<'a> {
        Box::pin(async move {
            // What is compared is gone with the process, seconds later.
            if token != self.token {
                return Err(AuthError::Invalid);
            }
            let scopes = Scopes { ingest: false, query: true, admin: true };
            Ok(Principal { tenant: self.tenant.clone(), scopes, key_id: None })
        })
    }

    fn api_key<'a>(&'a self, _: &'a str, _: &'a str) -> Authenticated<'a> {
        Box::pin(async { Err(AuthError::Invalid) })
    }

    fn basic<'a>(&'a self, user: &'a str, password: &'a str) -> Authenticated<'a> {
        self.api_key(user, password)
    }

    fn open_tenant(&self) -> Option<TenantId> {
        None
    }
}

/// Does some work with the server that is named, else the one that runs, else one of this process on the data
/// directory, for a tenant (`default` where none is said).
pub(crate) fn with_server<T>(
    url: Option<&str>,
    tenant: Option<&str>,
    config: &Config,
    work: impl FnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let tenant = tenant.map(TenantId::new).transpose()?;
    let client = Client::new(url, config);
    if url.is_some() || client.is_up() {
        return work(&client.for_tenant(tenant.map(|tenant| tenant.to_string())));
    }
    check_data(&config.data)?;
    let mut alone = config.clone();
    alone.http.listen = ([127, 0, 0, 1], 0).into();
    alone.http.tls = None;
    alone.listeners.clear();
    std::mem::take(&mut alone.alerts);
    let key = CommandKey::new(tenant.unwrap_or_else(TenantId::default_tenant))?;
    let server = Server::start(&alone, Source::for_command(key.clone()))?;
    // Who asks for history asks for all of it.
    let visible = server.engine().wait_visible(Duration::from_secs(600));
    let done = if visible {
        work(&Client::new(Some(&server.url()), &alone).with_key(key.token))
    } else {
        Err("the log could not be read to its end; see `palisade log verify`".into())
    };
    server.stop(Duration::from_secs(60));
    done
}
