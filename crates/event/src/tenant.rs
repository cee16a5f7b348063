//! Tenants: whose data a row is.

use std::fmt;
use std::sync::Arc;

/// The name of a tenant: 1 to 64 characters out of `a-z`, `0-9`, `-` and `_`, beginning with a
/// letter or digit. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Why a text is no tenant name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no tenant name: use 1 to 64 characters of a-z, 0-9, '-' and '_', beginning with a letter or digit"
)]
pub struct InvalidTenant(pub String);

impl TenantId {
    /// The tenant that is open on loopback while no key was made.
    pub const DEFAULT: &'static str = "default";
    /// The reserved tenant of what is public for all: readable by every tenant, written by none.
    pub const PUBLIC: &'static str = "public";

    /// Checks and takes a tenant name.
    ///
    /// # Errors
    /// [`InvalidTenant`] when the text breaks the rule of the type.
    pub fn new(name: &str) -> Result<Self, InvalidTenant> {
        let fits = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let first = name.as_bytes().first().copied().unwrap_or(b'-');
        if name.len() > 64 || !first.is_ascii_alphanumeric() || !name.bytes().all(fits) {
            return Err(InvalidTenant(name.chars().take(80).collect()));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The tenant `default`.
    #[must_use]
    pub fn default_tenant() -> Self {
        Self(Arc::from(Self::DEFAULT))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TenantId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["default", "a", "0x", "acme-corp_2"] {
            assert!(TenantId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "Acme", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(TenantId::new(bad).is_err(), "{bad}");
        }
    }
}
