//! Running the listeners of [`crate::listener`].

use crate::connection::{Clock, Connection};
use crate::listener::{Protocol, Validated};
use crate::metrics::DoorMetrics;
use crate::serve::accept;
use crate::submit::{Submit, SubmitError};
use crate::syslog::{stream::Messages, udp};
use crate::tcp::Lines;
use crate::tls::Tls;
use palisade_event::ErrorClass;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a listener cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("listener '{name}' cannot listen on {address}: {source}")]
pub struct BindError {
    /// The listener's name.
    pub name: String,
    /// Where it should listen.
    pub address: SocketAddr,
    /// What the system says.
    pub source: std::io::Error,
}

impl BindError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

/// A listener whose socket is open.
#[derive(Debug)]
pub struct Listener {
    config: Arc<Validated>,
    tls: Option<Tls>,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Listener {
    /// Opens the socket. `tls` must be given where the configuration has it.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(config: Validated, tls: Option<Tls>) -> Result<Self, BindError> {
        let failed =
            |source| BindError { name: config.name.clone(), address: config.address, source };
        if config.tls.is_some() && tls.is_none() {
            return Err(failed(std::io::Error::other("its TLS was not loaded")));
        }
        let socket = match config.protocol {
            Protocol::SyslogUdp => {
                Socket::Udp(UdpSocket::bind(config.address).await.map_err(failed)?)
            }
            Protocol::TcpLines | Protocol::SyslogTcp => {
                Socket::Tcp(TcpListener::bind(config.address).await.map_err(failed)?)
            }
        };
        Ok(Self { config: Arc::new(config), tls, socket })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
    }

    /// Takes records until `stop`; what was read then is made durable before this returns.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`] of a UDP listener: not all that was read is durable. Connections log
    /// it.
    pub async fn run(
        self,
        submit: Arc<dyn Submit>,
        clock: Clock,
        metrics: &DoorMetrics,
        stop: CancellationToken,
    ) -> Result<(), SubmitError> {
        let door = metrics.door(&format!("{}:{}", self.config.protocol.as_str(), self.config.name));
        let listener = match self.socket {
            Socket::Udp(socket) => {
                return udp::serve(socket, self.config, submit, clock, door, stop).await;
            }
            Socket::Tcp(listener) => listener,
        };
        let places = Arc::new(Semaphore::new(self.config.max_connections));
        let tasks = TaskTracker::new();
        while let Some((stream, peer, place)) = accept(&listener, &places, &stop).await {
            let config = Arc::clone(&self.config);
            if !config.admits(peer.ip()) {
                door.refuse("sender_network");
                continue;
            }
            let connection = Connection {
                listener: config,
                submit: Arc::clone(&submit),
                peer: peer.ip().to_canonical(),
                clock: Arc::clone(&clock),
                door: door.clone(),
                stop: stop.clone(),
            };
            let tls = self.tls.clone();
            tasks.spawn(async move {
                let _place = place;
                let _open = connection.door.connection();
                let result = match tls {
                    None => run(connection, stream).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => run(connection, stream).await,
                        Err(error) => {
                            connection.door.refuse("tls");
                            tracing::debug!(%peer, %error, "connection refused");
                            return;
                        }
                    },
                };
                if let Err(error) = result {
                    tracing::warn!(%peer, %error, "connection ended before all was durable");
                }
            });
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

async fn run<S>(connection: Connection, stream: S) -> Result<(), SubmitError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (max_line, offset) = (connection.listener.max_line, connection.listener.utc_offset_minutes);
    match connection.listener.protocol {
        Protocol::TcpLines => connection.run(stream, Lines::new(max_line)).await,
        Protocol::SyslogTcp | Protocol::SyslogUdp => {
            connection.run(stream, Messages::new(max_line, offset)).await
        }
    }
}
