//! A client that speaks the protocol by hand, to do what the SDK never does.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{Connection, Endpoint, RecvStream, SendStream, TokioRuntime};
use quiver_model::SenderId;
use quiver_protocol::{ClientConversation, ClientEvent, ClientHello};

use crate::{
    device::address_of,
    fabric::endpoint_config,
    life::Life,
    machine::{Machine, SERVER_NAME, server_address},
    seeded::derive,
};

/// One connection.
pub struct RawClient {
    pub connection: Connection,
    conversation: ClientConversation,
    receive: RecvStream,
    _send: SendStream,
    _endpoint: Endpoint,
}

impl RawClient {
    /// The address of the machine with this number.
    pub fn address(number: usize) -> IpAddr {
        address_of(100 + number)
    }

    /// Connects as `sender` from a machine with a number of its own, and says Hello.
    pub async fn connect(machine: &Machine, sender: &SenderId, number: usize) -> Self {
        let tls = quiver_pki::ClientTls::new(machine.issue(sender));
        let tls = quiver_pki::rustls_client_config(tls, machine.clock.clone()).unwrap();
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let address = SocketAddr::from((Self::address(number), 1));
        let life = Arc::new(Life::new(None));
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(derive(200, number as u64)),
            None,
            machine.fabric.bind(address, life),
            Arc::new(TokioRuntime),
        )
        .unwrap();
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let connecting = endpoint.connect_with(config, server_address(), SERVER_NAME);
        let connection = connecting.unwrap().await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let mut conversation = ClientConversation::new(ClientHello {
            instance: 1,
            client: "by hand".to_owned(),
            ..ClientHello::default()
        });
        while let Some(bytes) = conversation.poll_transmit() {
            send.write_all(&bytes).await.unwrap();
        }
        let mut client = Self {
            connection,
            conversation,
            receive,
            _send: send,
            _endpoint: endpoint,
        };
        let welcome = client.next_within(Duration::from_secs(10)).await;
        assert!(
            matches!(welcome, Some(ClientEvent::Welcome { .. })),
            "{welcome:?}"
        );
        client
    }

    /// What the server says next, if it says anything in this time.
    pub async fn next_within(&mut self, time: Duration) -> Option<ClientEvent> {
        let deadline = tokio::time::Instant::now() + time;
        loop {
            if let Some(event) = self.conversation.poll_event() {
                return Some(event);
            }
            let chunk = self.receive.read_chunk(64 << 10, true);
            match tokio::time::timeout_at(deadline, chunk).await {
                Ok(Ok(Some(chunk))) => self.conversation.handle_bytes(chunk.bytes),
                Ok(_) => return None,
                Err(_) => return None,
            }
        }
    }
}
