//! TLS for servers, from PEM files, with certificates that can be changed while running.
//!
//! [`Tls::reload`] reads the files again; connections that are open keep what they began with, new
//! ones get the new certificate. A bad file changes nothing.

use arc_swap::ArcSwap;
use palisade_event::ErrorClass;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The longest that a client may take for its part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Where certificate and key stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM file of the certificate, its chain behind it.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
    /// PEM file of the authorities whose client certificates are accepted; with it, clients must
    /// show one.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: clients may also come without a certificate.
    #[serde(default)]
    pub client_certificate_optional: bool,
}

impl TlsFiles {
    /// A certificate and its key; clients need none.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_ca: None,
            client_certificate_optional: false,
        }
    }
}

/// Why TLS cannot be set up, or a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is missing or holds no PEM of the right kind.
    #[error("'{path}': {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not fit each other, or are of an unknown kind.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The authorities cannot be used.
    #[error("'client_ca' cannot be used: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
    /// A client's handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    /// A client took too long.
    #[error("TLS handshake took over 10 s")]
    Slow,
}

impl TlsError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Handshake(_) | Self::Slow => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }
}

/// A server's TLS. Cheap to clone; clones reload together.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    http: bool,
    current: Arc<ArcSwap<ServerConfig>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. `http` offers `http/1.1` to clients that ask for protocols.
    ///
    /// # Errors
    /// Every [`TlsError`] that concerns files.
    pub fn load(files: &TlsFiles, http: bool) -> Result<Self, TlsError> {
        let config = build(files, http)?;
        Ok(Self {
            files: Arc::new(files.clone()),
            http,
            current: Arc::new(ArcSwap::from_pointee(config)),
        })
    }

    /// Reads the files again, for new connections.
    ///
    /// # Errors
    /// As [`Tls::load`]; then the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(build(&self.files, self.http)?));
        Ok(())
    }

    /// Does the handshake with a client.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] and [`TlsError::Slow`].
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(stream) => Ok(stream?),
            Err(_) => Err(TlsError::Slow),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let problem = |problem: String| TlsError::File { path: path.to_owned(), problem };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(|error| problem(error.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| problem(error.to_string()))?;
    if found.is_empty() {
        return Err(problem("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

fn build(files: &TlsFiles, http: bool) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::File {
        path: files.key.clone(),
        problem: format!("no private key can be read: {error}"),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if files.client_certificate_optional {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    if http {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    Ok(config)
}
