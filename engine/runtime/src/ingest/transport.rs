//! QUIC's limits, all set: quinn's defaults promise hundreds of megabytes to every connection.

use std::{sync::Arc, time::Duration};

use quinn::{
    EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use quiver_protocol::limits::{GATEWAY_QUIC_STREAMS, UDP_PAYLOAD_MAX};

use super::window::WINDOW_MIN;

/// Bidirectional QUIC streams a client may have open: the control stream and some to come.
const BIDI_STREAMS: u32 = 4;
/// Bytes of one QUIC stream that may be under way unread.
const STREAM_WINDOW: u32 = 1 << 20;
/// Bytes that the engine may have unacknowledged towards a client: control messages only.
const SEND_WINDOW: u64 = 256 << 10;
/// Bytes of TLS handshake messages buffered out of order.
const CRYPTO_BUFFER: usize = 16 << 10;
/// Handshakes that may wait to be accepted.
const INCOMING_MAX: usize = 1_024;
/// Early bytes of one handshake, and of all, that are buffered.
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFER_TOTAL: u64 = 16 << 20;
/// A connection that is silent for so long is closed; the engine pings in between.
const IDLE_TIMEOUT_MS: u32 = 30_000;
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The server's QUIC settings over these TLS settings.
pub fn server_config(tls: Arc<rustls::ServerConfig>) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS))
        // Room for a superseded QUIC stream beside each one that takes its place. A device's
        // smaller limit is enforced per session.
        .max_concurrent_uni_streams(VarInt::from_u32(2 * GATEWAY_QUIC_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        // Until it is known who it is; see `window`.
        .receive_window(VarInt::from_u32(WINDOW_MIN))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .crypto_buffer_size(CRYPTO_BUFFER)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL)
        // A device on the road changes its address.
        .migration(true);
    Ok(config)
}

/// The endpoint's settings.
pub fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // Only sizes below 1,200 are refused.
    let _ = config.max_udp_payload_size(UDP_PAYLOAD_MAX);
    config
}
