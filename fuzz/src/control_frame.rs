//! The control stream, both ways, and `OpenStream`, from a hostile peer.

use bytes::Bytes;
use quiver_model::{DeviceId, SenderId, SenderKind, SessionId};
use quiver_protocol::{
    ClientConversation, ClientEvent, ClientHello, Limits, ServerConversation, ServerEvent,
    ServerRules, TelemetryDecoder, TelemetryEvent,
};

/// Gives `data` to both sides of a control stream, and to a telemetry QUIC stream as its beginning.
/// What must hold: nothing panics; after `Closed` nothing comes; the pieces in which bytes arrive
/// do not matter.
pub fn control_frame(data: &[u8]) {
    for tokens_allowed in [false, true] {
        let server = server_events(data, data.len().max(1), tokens_allowed);
        assert_eq!(server, server_events(data, 1, tokens_allowed));
        let closed = server
            .iter()
            .position(|event| matches!(event, ServerEvent::Closed(_)));
        assert!(
            closed.is_none_or(|index| index + 1 == server.len()),
            "{server:?}"
        );
    }
    let client = client_events(data, data.len().max(1));
    assert_eq!(client, client_events(data, 1));
    let closed = client
        .iter()
        .position(|event| matches!(event, ClientEvent::Closed(_)));
    assert!(
        closed.is_none_or(|index| index + 1 == client.len()),
        "{client:?}"
    );

    let mut telemetry = TelemetryDecoder::default();
    telemetry.handle_bytes(Bytes::copy_from_slice(data));
    telemetry.handle_end();
    let events: Vec<_> = std::iter::from_fn(|| telemetry.poll_event()).collect();
    assert!(
        matches!(
            events.last(),
            Some(TelemetryEvent::Ended { .. } | TelemetryEvent::Refused(_))
        ),
        "{events:?}"
    );
}

fn server_events(data: &[u8], piece: usize, tokens_allowed: bool) -> Vec<ServerEvent> {
    let certificate = DeviceId::new("truck_1")
        .ok()
        .filter(|_| !tokens_allowed)
        .map(SenderId::device);
    let mut server = ServerConversation::new(certificate, ServerRules { tokens_allowed });
    let mut events = Vec::new();
    for piece in data.chunks(piece) {
        server.handle_bytes(Bytes::copy_from_slice(piece));
        while let Some(event) = server.poll_event() {
            if matches!(event, ServerEvent::Hello(_)) {
                server.welcome(
                    Limits::for_sender(SenderKind::Device),
                    SessionId(1),
                    "fuzz",
                    Vec::new(),
                );
            }
            events.push(event);
        }
        while server.poll_transmit().is_some() {}
    }
    server.handle_end();
    events.extend(std::iter::from_fn(|| server.poll_event()));
    events
}

fn client_events(data: &[u8], piece: usize) -> Vec<ClientEvent> {
    let mut client = ClientConversation::new(ClientHello::default());
    let mut events = Vec::new();
    for piece in data.chunks(piece) {
        client.handle_bytes(Bytes::copy_from_slice(piece));
        events.extend(std::iter::from_fn(|| client.poll_event()));
    }
    client.handle_end();
    events.extend(std::iter::from_fn(|| client.poll_event()));
    events
}
