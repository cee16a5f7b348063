//! Serving HTTP on a socket within bounds: connections, time for headers, TLS, and a drain at the
//! end.

use crate::metrics::Door;
use crate::patient::Patient;
use crate::tls::Tls;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// Bounds of an HTTP server.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct ServerLimits {
    /// The most connections at once; more wait in the kernel.
    pub connections: usize,
    /// How long a client may take to send the head of a request, in seconds. A connection that is
    /// kept open between requests is closed after this time, too.
    pub header_seconds: u64,
    /// How long a client may take none of an answer before its connection is closed, in seconds.
    pub write_seconds: u64,
    /// How long requests may take to finish when the server stops, in seconds.
    pub drain_seconds: u64,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { connections: 4096, header_seconds: 30, write_seconds: 60, drain_seconds: 20 }
    }
}

/// Serves a router until `stop`, then lets open requests finish within the drain time.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: ServerLimits,
    door: Door,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let tasks = TaskTracker::new();
    let abort = CancellationToken::new();
    while let Some((stream, peer, place)) = accept(&listener, &places, &stop).await {
        let (router, tls, door) = (router.clone(), tls.clone(), door.clone());
        let (stop, abort) = (stop.clone(), abort.clone());
        let header = Duration::from_secs(limits.header_seconds.max(1));
        let write = Duration::from_secs(limits.write_seconds.max(1));
        tasks.spawn(async move {
            let _place = place;
            let _open = door.connection();
            let work = async {
                match tls {
                    None => {
                        let stream = Patient::new(stream, write, door.clone());
                        connection(stream, peer, router, header, stop).await;
                    }
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => {
                            let stream = Patient::new(stream, write, door.clone());
                            connection(stream, peer, router, header, stop).await;
                        }
                        Err(error) => {
                            door.refuse("tls");
                            tracing::debug!(%peer, %error, "connection refused");
                        }
                    },
                }
            };
            tokio::select! {
                () = work => {}
                () = abort.cancelled() => {}
            }
        });
    }
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(limits.drain_seconds), tasks.wait()).await.is_err()
    {
        abort.cancel();
        tasks.wait().await;
    }
}

/// The next connection, once there is a place for it; `None` at the end.
pub(crate) async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let next = async {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are small; waiting to coalesce them would only add latency.
                    let _ = stream.set_nodelay(true);
                    return Some((stream, peer, place));
                }
                Err(error) => {
                    // Out of file descriptors, or a client that went away: neither is for ever.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        connection = next => connection,
    }
}

async fn connection<S>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    header: Duration,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
