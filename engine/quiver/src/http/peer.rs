//! Whether the client of a request is still there, also while nothing is sent to it.
//!
//! An HTTP server hears of a closed connection when it writes. A query that produces nothing for
//! minutes would run on for nobody, and keep others from their turn; so the connection is looked at
//! while the query works.

use std::{
    any::Any,
    future::pending,
    io::ErrorKind,
    net::TcpStream,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use actix_web::{HttpRequest, dev::Extensions};

/// Time between two looks at a connection.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The other end of a request's connection.
#[derive(Clone)]
pub struct Peer(Option<Arc<TcpStream>>);

impl Peer {
    /// Keeps a second handle of each new connection where [`Self::of`] finds it.
    pub fn remember(connection: &dyn Any, extensions: &mut Extensions) {
        let handle = connection
            .downcast_ref::<actix_web::rt::net::TcpStream>()
            .and_then(|stream| stream.as_fd().try_clone_to_owned().ok());
        if let Some(handle) = handle {
            extensions.insert(Self::watched(handle));
        }
    }

    fn watched(handle: OwnedFd) -> Self {
        Self(Some(Arc::new(TcpStream::from(handle))))
    }

    /// Who made this request. One whose connection could not be kept is taken to stay.
    pub fn of(request: &HttpRequest) -> Self {
        request.conn_data::<Self>().cloned().unwrap_or(Self(None))
    }

    /// Waits until the client has closed its side, or the connection is broken. A client that only
    /// says that it will send no more is taken for gone, too: the two look the same from here.
    pub async fn gone(&self) {
        let Some(connection) = &self.0 else {
            return pending().await;
        };
        while is_open(connection) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Looks at what has come, without taking it. The handle shares the connection's non-blocking mode.
fn is_open(connection: &TcpStream) -> bool {
    match connection.peek(&mut [0]) {
        Ok(bytes) => bytes > 0,
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use super::*;

    #[test]
    fn a_client_is_there_until_it_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        assert!(is_open(&server), "silent");
        client.write_all(b"x").unwrap();
        assert!(is_open(&server), "it sends");
        let peer = Peer::watched(server.as_fd().try_clone_to_owned().unwrap());
        let mut byte = [0];
        while std::io::Read::read(&mut &server, &mut byte).is_err() {}
        drop(client);
        actix_rt::System::new().block_on(async {
            let gone = tokio::time::timeout(Duration::from_secs(5), peer.gone());
            assert!(gone.await.is_ok());
        });
    }
}
