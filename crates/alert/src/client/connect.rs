//! Connections to the outside. A name is resolved, each of its addresses is judged by the egress policy,
//! and the connection is made to one that passed: nothing resolves the name a second time.

use crate::egress::{Egress, Refused};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve.
    #[error("'{host}' does not resolve: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// The policy refuses all of its addresses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing answers there.
    #[error("no connection to {address}: {error}")]
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The name is none that a certificate could have.
    #[error("'{0}' is no name for TLS")]
    Name(String),
    /// The TLS handshake failed.
    #[error("TLS with '{host}' failed: {error}")]
    Tls {
        /// The name.
        host: String,
        /// Why.
        error: io::Error,
    },
}

/// The addresses of a name that may be sent to.
///
/// # Errors
/// When it does not resolve, or none of them may.
pub async fn resolve(
    egress: &Egress,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| ConnectError::Resolve { host: host.to_owned(), error })?
            .take(MAX_ADDRESSES)
            .collect(),
    };
    let mut allowed = Vec::new();
    let mut refused = None;
    for address in found {
        match egress.check(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(error) => refused = Some(error),
        }
    }
    match (allowed.is_empty(), refused) {
        (false, _) => Ok(allowed),
        (true, Some(error)) => Err(error.into()),
        (true, None) => {
            let error = io::Error::new(io::ErrorKind::NotFound, "it has no address");
            Err(ConnectError::Resolve { host: host.to_owned(), error })
        }
    }
}

/// A TCP connection to a host.
///
/// # Errors
/// Those of [`resolve`], and when none of the addresses answers.
pub async fn tcp(egress: &Egress, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let mut last = None;
    for address in resolve(egress, host, port).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // A request is one write; waiting to fill a packet only delays it.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(ConnectError::Connect { address, error }),
        }
    }
    Err(last.unwrap_or_else(|| ConnectError::Name(host.to_owned())))
}

/// TLS over a connection, with the host's name checked in its certificate.
///
/// # Errors
/// When the handshake fails.
pub async fn tls(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Name(host.to_owned()))?;
    TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .map_err(|error| ConnectError::Tls { host: host.to_owned(), error })
}

/// TLS that trusts Mozilla's authorities and those of a file.
///
/// # Errors
/// A sentence, when the file cannot be read or holds no certificate.
pub fn tls_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        let failed = |problem: String| format!("ca_file '{}': {problem}", path.display());
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(failed("it holds no certificate in PEM".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
