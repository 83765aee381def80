//! Every limit of the conversation, in one place. What a client needs to know is announced in
//! `Welcome` as [`Limits`]; what the decoder needs is [`DecodeLimits`]. The relations between the
//! numbers that the code relies on are asserted at the end, at compile time.

use quiver_model::{FIELDS_PER_STREAM_MAX, RESERVED_COLUMNS, SenderKind};

/// Version of the protocol that this crate speaks; it is in the ALPN and in `Hello`.
pub const PROTOCOL_VERSION: u32 = 1;
/// ALPN of the protocol.
pub const ALPN: &[u8] = b"quiver/1";

/// Largest UDP payload that a server takes and that a client looks for (path MTU discovery), in
/// bytes. Where packets may be larger than Ethernet's 1,500 bytes (loopback, jumbo frames), fewer of
/// them carry the same, and each costs the same. Ten of them, as many as quinn hands to the kernel
/// at a time, must fit into the 65,507 bytes that a UDP datagram may have.
pub const UDP_PAYLOAD_MAX: u16 = 6_500;
/// Bytes that a client may send before the first acknowledgement: the 32 packets of Ethernet that
/// browsers begin with. A batch is then sent at once, not in round trips.
pub const INITIAL_WINDOW_BYTES: u64 = 32 * 1_452;

/// Longest control message, without its length prefix, in bytes.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Longest `OpenStream`, without its length prefix, in bytes.
pub const OPEN_STREAM_BYTES_MAX: usize = 1024;
/// Longest bearer token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest name-and-version of a client's or server's software, in bytes.
pub const SOFTWARE_BYTES_MAX: usize = 128;
/// Longest text of any `message` field that the server sends, in bytes; longer ones are cut.
pub const MESSAGE_TEXT_BYTES_MAX: usize = 512;
/// Longest text of a reject repeated in `Welcome`, in bytes; longer ones are cut.
pub const RESUME_TEXT_BYTES_MAX: usize = 96;
/// Most (producer, stream) pairs in `Hello.last_acks`.
pub const LAST_ACKS_MAX: usize = 256;
/// Most rejects repeated in one `Welcome`, over all its pairs.
pub const RESUME_REJECTS_MAX: usize = 256;
/// Most counts of refused rows in one `Welcome`, over all its pairs; others come with an `Ack`.
pub const RESUME_REFUSED_ROWS_MAX: usize = 256;
/// Highest `first_sequence` that `OpenStream` may name; leaves room for counting on.
pub const SEQUENCE_MAX: u64 = 1 << 62;

/// Longest metadata (flatbuffer) of an Arrow IPC message, in bytes.
pub const IPC_METADATA_BYTES_MAX: usize = 512 * 1024;
/// Longest body of a record batch message as sent, in bytes.
pub const BATCH_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes that a batch may hold once decompressed, dictionaries expanded to one text a row.
pub const BATCH_DECODED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most rows of a batch.
pub const BATCH_ROWS_MAX: usize = 65_536;
/// Most columns of a batch: the fields a stream may have, and the engine's own.
pub const BATCH_COLUMNS_MAX: usize = FIELDS_PER_STREAM_MAX + RESERVED_COLUMNS.len();
/// Longest name of a wire column, in bytes. (What Quiver stores is shorter still; a longer name
/// than this is refused before it is copied.)
pub const COLUMN_NAME_BYTES_MAX: usize = 256;
/// Longest time zone of a timestamp column, in bytes.
pub const TIME_ZONE_BYTES_MAX: usize = 64;
/// Most bytes of one dictionary, as sent and once decompressed.
pub const DICTIONARY_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes that the dictionaries of one QUIC stream hold together.
pub const DICTIONARIES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most values of one dictionary.
pub const DICTIONARY_VALUES_MAX: usize = 65_536;
/// Most dictionary messages in a row without a record batch.
pub const DICTIONARY_MESSAGES_MAX: usize = 2 * BATCH_COLUMNS_MAX;
/// Most texts that a column of the compact encoding remembers; the oldest makes room.
pub const COMPACT_TEXTS_MAX: usize = 1_024;
/// Longest text that the compact encoding remembers, in bytes.
pub const COMPACT_TEXT_BYTES_MAX: usize = 256;
/// Most bytes that the columns of a QUIC stream of the compact encoding remember together, with
/// [`COMPACT_TEXT_COST`] for each text besides its own.
pub const COMPACT_TEXTS_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that remembering a text counts for besides its own.
pub const COMPACT_TEXT_COST: usize = 32;
/// A message whose buffers decompress to more than [`RATIO_FREE_BYTES`] may not decompress to more
/// than this many times its body. Constant columns of a real batch compress several hundredfold,
/// so it is generous; what bounds memory is [`BATCH_DECODED_BYTES_MAX`], and this bounds the work
/// that a small message can cause.
pub const DECOMPRESSION_RATIO_MAX: usize = 1_000;
/// Decompressed size up to which the ratio does not matter, in bytes.
pub const RATIO_FREE_BYTES: usize = 1024 * 1024;
/// Most bytes that decoding one message allocates, the message itself included: body, decompressed
/// buffers, and one more copy of either where a buffer has to be moved to be aligned.
pub const DECODE_MEMORY_MAX: usize =
    2 * (IPC_METADATA_BYTES_MAX + BATCH_BODY_BYTES_MAX + BATCH_DECODED_BYTES_MAX);

/// Most nested tables of a message's metadata.
pub(crate) const FLATBUFFER_DEPTH_MAX: usize = 32;
/// Most tables of a message's metadata: a field is up to five, with room for custom metadata.
pub(crate) const FLATBUFFER_TABLES_MAX: usize = 16_384;

/// Live telemetry QUIC streams of a device.
pub const DEVICE_QUIC_STREAMS: u32 = 16;
/// Live telemetry QUIC streams of a gateway or operator.
pub const GATEWAY_QUIC_STREAMS: u32 = 128;
/// Connections of one device at once, each of another instance.
pub const DEVICE_CONNECTIONS_MAX: usize = 16;
/// Connections of one gateway or operator at once.
pub const GATEWAY_CONNECTIONS_MAX: usize = 1_024;

/// The limits that a server announces in `Welcome`. A client that would exceed one reports an
/// error to its caller instead of sending.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Limits {
    /// Telemetry QUIC streams that may be live at once.
    #[prost(uint32, tag = "1")]
    pub quic_streams: u32,
    /// Longest control message, in bytes.
    #[prost(uint32, tag = "2")]
    pub control_message_bytes: u32,
    /// Longest metadata of an Arrow IPC message, in bytes.
    #[prost(uint32, tag = "3")]
    pub ipc_metadata_bytes: u32,
    /// Longest body of a record batch as sent, in bytes.
    #[prost(uint32, tag = "4")]
    pub batch_body_bytes: u32,
    /// Most bytes of a batch once decompressed and dictionaries expanded.
    #[prost(uint32, tag = "5")]
    pub batch_decoded_bytes: u32,
    /// Most rows of a batch.
    #[prost(uint32, tag = "6")]
    pub batch_rows: u32,
    /// Most columns of a batch.
    #[prost(uint32, tag = "7")]
    pub batch_columns: u32,
    /// Most bytes of one dictionary.
    #[prost(uint32, tag = "8")]
    pub dictionary_bytes: u32,
    /// Most values of one dictionary.
    #[prost(uint32, tag = "9")]
    pub dictionary_values: u32,
    /// Most pairs in `Hello.last_acks`.
    #[prost(uint32, tag = "10")]
    pub last_acks: u32,
}

impl Limits {
    /// What this crate enforces for a sender of this kind.
    pub const fn for_sender(kind: SenderKind) -> Self {
        Self {
            quic_streams: match kind {
                SenderKind::Device => DEVICE_QUIC_STREAMS,
                SenderKind::Gateway | SenderKind::Operator | SenderKind::Node => {
                    GATEWAY_QUIC_STREAMS
                }
            },
            control_message_bytes: CONTROL_MESSAGE_BYTES_MAX as u32,
            ipc_metadata_bytes: IPC_METADATA_BYTES_MAX as u32,
            batch_body_bytes: BATCH_BODY_BYTES_MAX as u32,
            batch_decoded_bytes: BATCH_DECODED_BYTES_MAX as u32,
            batch_rows: BATCH_ROWS_MAX as u32,
            batch_columns: BATCH_COLUMNS_MAX as u32,
            dictionary_bytes: DICTIONARY_BYTES_MAX as u32,
            dictionary_values: DICTIONARY_VALUES_MAX as u32,
            last_acks: LAST_ACKS_MAX as u32,
        }
    }
}

/// How much one Arrow IPC message may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Longest metadata, in bytes.
    pub metadata_bytes: usize,
    /// Longest body as sent, in bytes.
    pub body_bytes: usize,
    /// Most bytes once decompressed and dictionaries expanded.
    pub decoded_bytes: usize,
    /// Most rows.
    pub rows: usize,
    /// Most columns.
    pub columns: usize,
}

impl DecodeLimits {
    /// For record batches that a peer sends.
    pub const WIRE: Self = Self {
        metadata_bytes: IPC_METADATA_BYTES_MAX,
        body_bytes: BATCH_BODY_BYTES_MAX,
        decoded_bytes: BATCH_DECODED_BYTES_MAX,
        rows: BATCH_ROWS_MAX,
        columns: BATCH_COLUMNS_MAX,
    };
    /// For record batches read back from the log. They were within [`DecodeLimits::WIRE`] when they
    /// arrived, but one that was encoded anew to stand alone may have grown on the way: a buffer
    /// that is not worth compressing takes its decoded size, and each buffer its padding.
    pub const STORED: Self = Self {
        body_bytes: 2 * BATCH_DECODED_BYTES_MAX,
        decoded_bytes: 2 * BATCH_DECODED_BYTES_MAX,
        ..Self::WIRE
    };
    /// For the values of one dictionary that a peer sends.
    pub(crate) const DICTIONARY: Self = Self {
        metadata_bytes: IPC_METADATA_BYTES_MAX,
        body_bytes: DICTIONARY_BYTES_MAX,
        decoded_bytes: DICTIONARY_BYTES_MAX,
        rows: DICTIONARY_VALUES_MAX,
        columns: 1,
    };
}

/// `text`, cut to at most `max` bytes at a character boundary.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

// The largest Hello and the largest Welcome fit into a control message. A pair is a name of at
// most 63 bytes, two fixed 64-bit numbers or varints of at most 10 bytes, and tags and lengths.
const PAIR_BYTES_MAX: usize = 63 + 2 * 10 + 10 + 12;
const _: () = assert!(
    LAST_ACKS_MAX * PAIR_BYTES_MAX + TOKEN_BYTES_MAX + SOFTWARE_BYTES_MAX + 512
        <= CONTROL_MESSAGE_BYTES_MAX
);
const _: () = assert!(
    LAST_ACKS_MAX * PAIR_BYTES_MAX
        + RESUME_REJECTS_MAX * (RESUME_TEXT_BYTES_MAX + 24)
        + RESUME_REFUSED_ROWS_MAX * 15
        + SOFTWARE_BYTES_MAX
        + 512
        <= CONTROL_MESSAGE_BYTES_MAX
);
const _: () = assert!(MESSAGE_TEXT_BYTES_MAX + PAIR_BYTES_MAX + 64 <= CONTROL_MESSAGE_BYTES_MAX);
// A gateway can name all its live pairs, and as many again, in Hello.
const _: () = assert!(2 * GATEWAY_QUIC_STREAMS as usize <= LAST_ACKS_MAX);
// A full batch of the widest stream has room in its metadata: a node and three buffers a column.
const _: () = assert!(BATCH_COLUMNS_MAX * (16 + 3 * 16) + 4096 <= IPC_METADATA_BYTES_MAX);
// A schema of the widest stream has room: about 200 bytes a field around its name.
const _: () = assert!(BATCH_COLUMNS_MAX * (63 + 200) + 4096 <= IPC_METADATA_BYTES_MAX);
const _: () = assert!(DICTIONARY_BYTES_MAX <= DICTIONARIES_BYTES_MAX);
const _: () = assert!(DICTIONARIES_BYTES_MAX <= BATCH_DECODED_BYTES_MAX);
// Sizes are announced as 32-bit numbers, and rows fit the row numbers of a verdict.
const _: () = assert!(BATCH_DECODED_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(BATCH_ROWS_MAX <= BATCH_DECODED_BYTES_MAX);
