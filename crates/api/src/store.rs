//! The catalog's keys behind the doors' [`Authenticate`].
//!
//! While no key was ever made and the listener is on loopback, the tenant `default` is open. The
//! first key closes it, at the latest two seconds later in other processes.

use palisade_catalog::{AuthError as Refused, Catalog, Principal as KeyPrincipal};
use palisade_event::TenantId;
use palisade_ingest::auth::{AuthError, Authenticate, Authenticated, Principal, Scopes};
use palisade_pipeline::clock::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The key store of the server.
#[derive(Debug)]
pub struct KeyStore {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    open: AtomicBool,
}

impl KeyStore {
    /// A store over the catalog. `loopback` says that the listener can be reached from this machine
    /// only; elsewhere a key is always needed.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn new(
        catalog: Catalog,
        clock: Arc<dyn Clock>,
        loopback: bool,
    ) -> Result<Self, palisade_catalog::CatalogError> {
        let open = loopback && !catalog.any_key_exists().await?;
        Ok(Self { catalog, clock, open: AtomicBool::new(open) })
    }

    /// Looks again whether a key was made meanwhile, by this process or another.
    ///
    /// # Errors
    /// When the catalog can't be read; the store then stays as it is.
    pub async fn refresh(&self) -> Result<(), palisade_catalog::CatalogError> {
        if self.open.load(Ordering::Acquire) && self.catalog.any_key_exists().await? {
            self.open.store(false, Ordering::Release);
            tracing::info!("an API key exists now: the tenant 'default' is no longer open");
        }
        Ok(())
    }
}

fn principal(found: Result<KeyPrincipal, Refused>) -> Result<Principal, AuthError> {
    match found {
        Ok(key) => Ok(Principal {
            tenant: key.tenant,
            scopes: Scopes {
                ingest: key.scopes.ingest,
                query: key.scopes.query,
                admin: key.scopes.admin,
            },
            key_id: Some(key.key_id),
        }),
        Err(error) if error.class() == palisade_event::ErrorClass::Permanent => {
            Err(AuthError::Invalid)
        }
        Err(error) => Err(AuthError::Unavailable(error.to_string())),
    }
}

impl Authenticate for KeyStore {
    fn bearer<'a>(&'a self, token: &'a str) -> Authenticated<'a> {
        Box::pin(async move { principal(self.catalog.authenticate(token, self.clock.now()).await) })
    }

    fn api_key<'a>(&'a self, id: &'a str, secret: &'a str) -> Authenticated<'a> {
        Box::pin(async move {
            principal(self.catalog.authenticate_pair(id, secret, self.clock.now()).await)
        })
    }

    fn basic<'a>(&'a self, user: &'a str, password: &'a str) -> Authenticated<'a> {
        self.api_key(user, password)
    }

    fn open_tenant(&self) -> Option<TenantId> {
        self.open.load(Ordering::Acquire).then(TenantId::default_tenant)
    }
}
