//! Syslog to the outside: RFC 5426 (UDP), RFC 6587 with counted octets (TCP), RFC 5425 (TLS).
//!
//! Syslog has no acknowledgement. By TCP and TLS each message has a connection of its own; after the message we close our
//! side and wait for the other to close too, so a server that went away or reset the connection is noticed and
//! the message sent again. A server that keeps the connection open is believed after two seconds.

use super::connect::{self, ConnectError};
use crate::egress::Egress;
use crate::settings::Transport;
use rustls::ClientConfig;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;

/// The longest datagram: what any network carries.
const MAX_DATAGRAM: usize = 65_000;
/// How long a server may take to close its side.
const CLOSING: Duration = Duration::from_secs(2);

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SyslogError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Syslog without TLS is not allowed.
    #[error("the transport is not encrypted: use tls, or set alerts.egress.allow_plaintext")]
    Plaintext,
    /// Writing failed.
    #[error("the message could not be written: {0}")]
    Write(#[from] io::Error),
}

/// Sends one message.
///
/// # Errors
/// When it surely did not arrive, or may not have.
pub async fn send(
    egress: &Egress,
    tls: &Arc<ClientConfig>,
    (host, port): (&str, u16),
    transport: Transport,
    message: &[u8],
) -> Result<(), SyslogError> {
    if transport != Transport::Tls && !egress.allow_plaintext {
        return Err(SyslogError::Plaintext);
    }
    match transport {
        Transport::Udp => datagram(egress, host, port, message).await,
        Transport::Tcp => counted(connect::tcp(egress, host, port).await?, message).await,
        Transport::Tls => {
            let stream = connect::tcp(egress, host, port).await?;
            counted(connect::tls(tls, host, stream).await?, message).await
        }
    }
}

async fn datagram(
    egress: &Egress,
    host: &str,
    port: u16,
    message: &[u8],
) -> Result<(), SyslogError> {
    let addresses = connect::resolve(egress, host, port).await?;
    let Some(address) = addresses.first() else {
        return Err(ConnectError::Name(host.to_owned()).into());
    };
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).await?;
    socket.send_to(message.get(..MAX_DATAGRAM).unwrap_or(message), address).await?;
    Ok(())
}

async fn counted(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    message: &[u8],
) -> Result<(), SyslogError> {
    let mut framed = format!("{} ", message.len()).into_bytes();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    stream.flush().await?;
    stream.shutdown().await?;
    let mut rest = [0; 256];
    let closed = tokio::time::timeout(CLOSING, async {
        // A server has nothing to say; whatever it says is not kept.
        while stream.read(&mut rest).await? > 0 {}
        Ok::<(), io::Error>(())
    });
    match closed.await {
        // TLS without a goodbye ends so; every byte of ours was taken before.
        Ok(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Ok(()),
    }
}
