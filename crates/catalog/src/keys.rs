//! API keys.
//!
//! A key's text is `plsd_<id>_<secret>`: the id is 12 characters of `0-9a-z` and public, the secret
//! is 43 characters of `0-9A-Za-z`, drawn evenly, which is 256 random bits. The catalog keeps the
//! secret's SHA-256; a slow hash would protect nothing, because nobody guesses 256 bits. The
//! secret is compared in constant time.
//!
//! Keys that were found good are remembered under the SHA-256 of id and secret for
//! [`CACHE_LIFE`], so a request costs one hash. A revocation in this process holds at once, one by another
//! process (the command line) after that time. A key that is not remembered is looked up, so one that
//! another process made counts at once. Keys that were found bad are remembered for as long, and those
//! that are not remembered at all may cause [`UNKNOWN_LOOKUPS`] look-ups a second: whoever invents keys
//! can't keep the catalog busy, and those who send a key that was good before never wait for them.

use crate::error::{AuthError, CatalogError};
use crate::identity::fill_random;
use crate::open::Catalog;
use palisade_event::TenantId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// How long a key that was looked up is not looked up again: a key revoked by another process is refused
/// after this time.
pub const CACHE_LIFE: Duration = Duration::from_secs(1);
/// How many look-ups a second keys may cause that are not remembered.
pub const UNKNOWN_LOOKUPS: u32 = 500;

const PREFIX: &str = "plsd_";
const ID_LENGTH: usize = 12;
const SECRET_LENGTH: usize = 43;
const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const MAX_CACHED: usize = 10_000;

/// What a key may do. The scopes are independent: `admin` does not imply the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct ScopeSet {
    /// Send records.
    pub ingest: bool,
    /// Ask queries.
    pub query: bool,
    /// Manage tenants, keys, rules and dead letters.
    pub admin: bool,
}

impl ScopeSet {
    fn bits(self) -> i64 {
        i64::from(self.ingest) | i64::from(self.query) << 1 | i64::from(self.admin) << 2
    }

    fn from_bits(bits: i64) -> Self {
        Self { ingest: bits & 1 != 0, query: bits & 2 != 0, admin: bits & 4 != 0 }
    }
}

impl fmt::Display for ScopeSet {
    /// The names, separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(self.ingest, "ingest"), (self.query, "query"), (self.admin, "admin")];
        let names: Vec<&str> =
            names.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        f.write_str(&names.join(","))
    }
}

/// A key that was just made. Its text is shown once and kept nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The public id.
    pub id: String,
    /// The whole key, `plsd_<id>_<secret>`.
    pub text: String,
}

impl NewKey {
    /// The secret alone, as Basic authentication and Elasticsearch's `ApiKey` send it.
    #[must_use]
    pub fn secret(&self) -> &str {
        parse(&self.text).map_or("", |(_, secret)| secret)
    }
}

impl fmt::Debug for NewKey {
    /// Without the secret: keys must not reach logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key's id.
    pub key_id: Arc<str>,
    /// The tenant that the key belongs to.
    pub tenant: TenantId,
    /// What the key may do.
    pub scopes: ScopeSet,
}

/// A key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The public id.
    pub id: String,
    /// The tenant.
    pub tenant: TenantId,
    /// The name that its maker gave it.
    pub name: String,
    /// What it may do.
    pub scopes: ScopeSet,
    /// When it was made, microseconds since the epoch.
    pub created_at: i64,
    /// From when on it is refused.
    pub expires_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// Keys that were looked up.
#[derive(Debug, Default)]
pub(crate) struct KeyCache {
    good: RwLock<BTreeMap<[u8; 32], Good>>,
    /// Keys that were found bad, and when.
    bad: RwLock<BTreeMap<[u8; 32], (AuthError, Instant)>>,
    /// The look-ups of unknown keys in the second that began then.
    lookups: Mutex<Option<(Instant, u32)>>,
    /// Counts revocations: what was read before one is not remembered after it.
    revocations: AtomicU64,
    /// Once a key was made there is one for ever.
    any_key: AtomicBool,
    /// When it was last seen that there is none.
    no_key_at: RwLock<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct Good {
    principal: Principal,
    expires_at: Option<i64>,
    found_at: Instant,
}

impl KeyCache {
    /// Remembers a key that was read when there had been `revocations` revocations; if there was
    /// one since, what was read may be stale.
    fn remember(&self, name: [u8; 32], key: Good, revocations: u64) {
        let mut good = self.good.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a revocation raises the number first and clears the map then.
        if self.revocations.load(Ordering::Acquire) != revocations {
            return;
        }
        if good.len() >= MAX_CACHED {
            good.clear();
        }
        good.insert(name, key);
    }

    /// Remembers that a key is bad.
    fn refuse(&self, name: [u8; 32], error: AuthError) -> AuthError {
        let mut bad = self.bad.write().unwrap_or_else(PoisonError::into_inner);
        if bad.len() >= MAX_CACHED {
            bad.clear();
        }
        bad.insert(name, (error.clone(), Instant::now()));
        error
    }

    /// Whether a key that is not remembered may be looked up now.
    fn may_look_up(&self, now: Instant) -> bool {
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        match lookups.as_mut() {
            Some((begun, count)) if now.duration_since(*begun) < Duration::from_secs(1) => {
                *count = count.saturating_add(1);
                *count <= UNKNOWN_LOOKUPS
            }
            _ => {
                *lookups = Some((now, 1));
                true
            }
        }
    }

    /// Forgets all keys, those that are being read now too.
    fn forget(&self) {
        self.revocations.fetch_add(1, Ordering::AcqRel);
        self.good.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Catalog {
    /// Makes a key. Times are in microseconds since the epoch.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] for an unknown tenant, [`CatalogError::Invalid`] for the tenant
    /// `public`, an empty scope or a bad name or time, and storage errors.
    pub async fn create_key(
        &self,
        tenant: &TenantId,
        name: &str,
        scopes: ScopeSet,
        expires_at: Option<i64>,
        now: i64,
    ) -> Result<NewKey, CatalogError> {
        if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
            return Err(CatalogError::invalid("key name", "use 1 to 200 printable bytes"));
        }
        if scopes == ScopeSet::default() {
            return Err(CatalogError::invalid("scopes", "give ingest, query or admin"));
        }
        if expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(CatalogError::invalid("expiry", "it is not in the future"));
        }
        if tenant.as_str() == TenantId::PUBLIC {
            return Err(CatalogError::invalid("tenant", "'public' belongs to all and has no keys"));
        }
        let id = random_text(ID_LENGTH, 36)?;
        let secret = random_text(SECRET_LENGTH, 62)?;
        let mut transaction = self.begin().await?;
        let found: Option<String> = sqlx::query_scalar("SELECT name FROM tenants WHERE name = ?")
            .bind(tenant.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        if found.is_none() {
            return Err(CatalogError::Unknown { what: "tenant", name: tenant.to_string() });
        }
        sqlx::query(
            "INSERT INTO api_keys (id, tenant, name, scopes, secret_sha256, created_at, expires_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&id)
        .bind(tenant.as_str())
        .bind(name)
        .bind(scopes.bits())
        .bind(Sha256::digest(secret.as_bytes()).to_vec())
        .bind(now)
        .bind(expires_at)
        .execute(&mut *transaction)
        .await?;
        // Before the commit: from its first instant on nobody may pass for lack of keys.
        self.inner.keys.any_key.store(true, Ordering::Release);
        self.finish(transaction).await?;
        let text = format!("{PREFIX}{id}_{secret}");
        Ok(NewKey { id, text })
    }

    /// Whose key this is. `now` is in microseconds since the epoch.
    ///
    /// # Errors
    /// [`AuthError`]; all but [`AuthError::Catalog`] mean that the key does not count.
    pub async fn authenticate(&self, text: &str, now: i64) -> Result<Principal, AuthError> {
        let (id, secret) = parse(text).ok_or(AuthError::Malformed)?;
        self.check(id, secret, now).await
    }

    /// As [`Catalog::authenticate`] for id and secret as Basic authentication or Elasticsearch's
    /// `ApiKey` (base64 of `id:secret`) bring them. A whole key is taken as secret too if its id is
    /// the same.
    ///
    /// # Errors
    /// Those of [`Catalog::authenticate`].
    pub async fn authenticate_pair(
        &self,
        id: &str,
        secret: &str,
        now: i64,
    ) -> Result<Principal, AuthError> {
        match parse(secret) {
            Some((inner, secret)) if inner == id => self.check(id, secret, now).await,
            Some(_) => Err(AuthError::Malformed),
            None if is_part(id) && is_part(secret) => self.check(id, secret, now).await,
            None => Err(AuthError::Malformed),
        }
    }

    /// All keys, of one tenant or of all, by tenant and time of making.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn list_keys(&self, tenant: Option<&TenantId>) -> Result<Vec<KeyInfo>, CatalogError> {
        let mut connection = self.reader().await?;
        let rows: Vec<KeyRow> = sqlx::query_as(
            "SELECT id, tenant, name, scopes, created_at, expires_at, revoked_at FROM api_keys
                 WHERE ?1 IS NULL OR tenant = ?1 ORDER BY tenant, created_at, id",
        )
        .bind(tenant.map(TenantId::as_str))
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter()
            .map(|(id, tenant, name, scopes, created_at, expires_at, revoked_at)| {
                Ok(KeyInfo {
                    tenant: stored_tenant(&tenant)?,
                    id,
                    name,
                    scopes: ScopeSet::from_bits(scopes),
                    created_at,
                    expires_at,
                    revoked_at,
                })
            })
            .collect()
    }

    /// Revokes a key of a tenant (of any tenant with `None`); from then on it is refused. Revoking
    /// it again changes nothing.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] when there is no such key, of this tenant, and storage errors.
    pub async fn revoke_key(
        &self,
        tenant: Option<&TenantId>,
        id: &str,
        now: i64,
    ) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?1)
             WHERE id = ?2 AND (?3 IS NULL OR tenant = ?3)",
        )
        .bind(now)
        .bind(id)
        .bind(tenant.map(TenantId::as_str))
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Err(CatalogError::Unknown { what: "key", name: id.chars().take(80).collect() });
        }
        // Forgotten even when this future is dropped at the await below.
        let forgetting = Forgetting(self);
        self.finish(transaction).await?;
        drop(forgetting);
        Ok(())
    }

    /// Whether a key was ever made, revoked ones included: revoking the last key must not open the
    /// server. "None" is remembered for a second.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn any_key_exists(&self) -> Result<bool, CatalogError> {
        let cache = &self.inner.keys;
        if cache.any_key.load(Ordering::Acquire) {
            return Ok(true);
        }
        let checked = *cache.no_key_at.read().unwrap_or_else(PoisonError::into_inner);
        if checked.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return Ok(false);
        }
        let mut connection = self.reader().await?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)")
            .fetch_one(&mut *connection)
            .await?;
        if exists {
            cache.any_key.store(true, Ordering::Release);
        } else {
            *cache.no_key_at.write().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(exists)
    }

    async fn check(&self, id: &str, secret: &str, now: i64) -> Result<Principal, AuthError> {
        let cache = &self.inner.keys;
        let name: [u8; 32] =
            Sha256::new().chain_update(id).chain_update(":").chain_update(secret).finalize().into();
        let known = cache.good.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        let was_good = known.is_some();
        if let Some(good) = known
            && good.found_at.elapsed() < CACHE_LIFE
        {
            return expire(good.principal, good.expires_at, now);
        }
        if !was_good {
            let bad = cache.bad.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            if let Some((error, at)) = bad
                && at.elapsed() < CACHE_LIFE
            {
                return Err(error);
            }
            if !cache.may_look_up(Instant::now()) {
                return Err(AuthError::Busy);
            }
        }
        let revocations = cache.revocations.load(Ordering::Acquire);
        let mut connection = self.reader().await?;
        let row: Option<SecretRow> = sqlx::query_as(
            "SELECT tenant, scopes, secret_sha256, expires_at, revoked_at FROM api_keys
             WHERE id = ?",
        )
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?;
        drop(connection);
        let Some((tenant, scopes, expected, expires_at, revoked_at)) = row else {
            return Err(cache.refuse(name, AuthError::Unknown));
        };
        if !bool::from(Sha256::digest(secret.as_bytes())[..].ct_eq(&expected)) {
            return Err(cache.refuse(name, AuthError::Unknown));
        }
        if revoked_at.is_some() {
            cache.good.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
            return Err(cache.refuse(name, AuthError::Revoked(id.to_owned())));
        }
        let principal = Principal {
            key_id: Arc::from(id),
            tenant: stored_tenant(&tenant)?,
            scopes: ScopeSet::from_bits(scopes),
        };
        let good = Good { principal: principal.clone(), expires_at, found_at: Instant::now() };
        cache.remember(name, good, revocations);
        expire(principal, expires_at, now)
    }
}

/// id, tenant, name, scopes, created, expires, revoked
type KeyRow = (String, String, String, i64, i64, Option<i64>, Option<i64>);

/// tenant, scopes, SHA-256 of the secret, expires, revoked
type SecretRow = (String, i64, Vec<u8>, Option<i64>, Option<i64>);

/// Forgets all good keys when dropped.
struct Forgetting<'a>(&'a Catalog);

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.0.inner.keys.forget();
    }
}

fn expire(principal: Principal, expires_at: Option<i64>, now: i64) -> Result<Principal, AuthError> {
    match expires_at {
        Some(expires_at) if now >= expires_at => {
            Err(AuthError::Expired(principal.key_id.to_string()))
        }
        _ => Ok(principal),
    }
}

fn stored_tenant(name: &str) -> Result<TenantId, CatalogError> {
    TenantId::new(name).map_err(|error| CatalogError::Damaged(error.to_string()))
}

/// Id and secret of a key's text.
fn parse(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    (is_part(id) && is_part(secret)).then_some((id, secret))
}

fn is_part(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric())
}

/// Characters drawn evenly from the first `letters` of the alphabet.
fn random_text(length: usize, letters: u8) -> Result<String, CatalogError> {
    // Bytes above the last whole multiple would favour some letters; they are thrown away.
    let fair = u8::MAX - u8::MAX % letters;
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0; 64];
        fill_random(&mut bytes)?;
        let letters = bytes
            .iter()
            .filter(|byte| **byte < fair)
            .filter_map(|byte| ALPHABET.get(usize::from(byte % letters)));
        text.extend(letters.take(length - text.len()).map(|letter| char::from(*letter)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_texts_use_all_letters_about_evenly() {
        let mut counts = BTreeMap::new();
        for letter in random_text(62_000, 62).unwrap().chars() {
            *counts.entry(letter).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 62);
        // 1,000 expected of each; a wrong modulo would give some letters 25 % more.
        assert!(counts.values().all(|n| (800..1200).contains(n)), "{counts:?}");
        assert!(random_text(5000, 36).unwrap().bytes().all(|c| !c.is_ascii_uppercase()));
    }

    fn good() -> Good {
        Good {
            principal: Principal {
                key_id: Arc::from("k"),
                tenant: TenantId::default_tenant(),
                scopes: ScopeSet::default(),
            },
            expires_at: None,
            found_at: Instant::now(),
        }
    }

    #[test]
    fn what_was_read_before_a_revocation_is_not_remembered_after_it() {
        let cache = KeyCache::default();
        let before = cache.revocations.load(Ordering::Acquire);
        cache.forget();
        cache.remember([1; 32], good(), before);
        assert!(cache.good.read().unwrap().is_empty());
        cache.remember([1; 32], good(), before + 1);
        assert_eq!(cache.good.read().unwrap().len(), 1);
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = KeyCache::default();
        for n in 0..MAX_CACHED as u64 + 10 {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_le_bytes());
            cache.remember(name, good(), 0);
        }
        assert_eq!(cache.good.read().unwrap().len(), 10);
    }

    #[test]
    fn unknown_keys_are_looked_up_so_often_a_second_and_bad_ones_remembered() {
        let cache = KeyCache::default();
        let begun = Instant::now();
        let allowed = |at| (0..2 * UNKNOWN_LOOKUPS).filter(|_| cache.may_look_up(at)).count();
        assert_eq!(allowed(begun), UNKNOWN_LOOKUPS as usize);
        assert_eq!(allowed(begun + Duration::from_millis(999)), 0);
        assert_eq!(allowed(begun + Duration::from_secs(1)), UNKNOWN_LOOKUPS as usize);
        for n in 0..MAX_CACHED as u64 + 10 {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_le_bytes());
            assert_eq!(cache.refuse(name, AuthError::Unknown), AuthError::Unknown);
        }
        assert_eq!(cache.bad.read().unwrap().len(), 10);
    }

    #[test]
    fn texts_that_are_no_keys_are_seen_before_any_work() {
        for bad in ["", "plsd_", "plsd_a", "plsd_a_", "plsd__b", "plsd_a_b_c", "plsd_ä_b", "sk_a_b"]
        {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse(&format!("plsd_a_{}", "x".repeat(65))).is_none());
        assert_eq!(parse("plsd_a1_B2"), Some(("a1", "B2")));
    }
}
