//! The control stream.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use quiver_model::{
    BatchRefusal, DeviceId, Producer, RefusedRows, RejectCode, SenderId, SenderKind, Sequence,
    SessionId, StreamName,
};
use quiver_protocol::{
    ClientConversation, ClientEvent, ClientHello, ConnectionClose, ConnectionCloseCode,
    ControlDecoder, ControlError, Credential, Limits, PairState, ServerConversation, ServerEvent,
    ServerRules, StreamCloseCode, encode_message,
    limits::{
        CONTROL_MESSAGE_BYTES_MAX, LAST_ACKS_MAX, RESUME_REFUSED_ROWS_MAX, RESUME_REJECTS_MAX,
        TOKEN_BYTES_MAX,
    },
    message,
};

use crate::support::readings;

fn truck() -> SenderId {
    SenderId::device(DeviceId::new("truck_1").unwrap())
}

fn server() -> ServerConversation {
    ServerConversation::new(Some(truck()), ServerRules::default())
}

fn hello() -> message::Hello {
    message::Hello {
        protocol: 1,
        instance: 5,
        client: "test/1".to_owned(),
        ..Default::default()
    }
}

fn encoded(hello: message::Hello) -> Bytes {
    encode_message(&message::ClientMessage {
        message: Some(message::client_message::Message::Hello(hello)),
    })
}

/// What the server says to a Hello.
fn answer(certificate: Option<SenderId>, rules: ServerRules, hello: message::Hello) -> ServerEvent {
    let mut server = ServerConversation::new(certificate, rules);
    server.handle_bytes(encoded(hello));
    let event = server.poll_event().expect("an answer");
    assert_eq!(server.poll_event(), None);
    event
}

fn closed(event: ServerEvent) -> ConnectionCloseCode {
    match event {
        ServerEvent::Closed(ConnectionClose { code, reason }) => {
            assert!(reason.len() > 20, "a reason says what to mend: {reason}");
            code
        }
        other => panic!("{other:?}"),
    }
}

/// Moves all bytes both ways and collects the client's events.
fn exchange(client: &mut ClientConversation, server: &mut ServerConversation) -> Vec<ClientEvent> {
    while let Some(bytes) = client.poll_transmit() {
        server.handle_bytes(bytes);
    }
    while let Some(bytes) = server.poll_transmit() {
        client.handle_bytes(bytes);
    }
    std::iter::from_fn(|| client.poll_event()).collect()
}

#[test]
fn a_client_is_welcomed_and_told_what_is_durable() {
    let pair = (Producer(9), readings());
    let mut client = ClientConversation::new(ClientHello {
        instance: 5,
        client: "sdk/1".to_owned(),
        last_acks: vec![
            (pair.clone(), Sequence(3)),
            ((Producer(10), readings()), Sequence(0)),
        ],
        ..Default::default()
    });
    let mut server = server();
    assert_eq!(exchange(&mut client, &mut server), []);
    let Some(ServerEvent::Hello(hello)) = server.poll_event() else {
        panic!("no hello")
    };
    assert_eq!(hello.credential, Credential::Certificate(truck()));
    assert_eq!((hello.instance, hello.last_acks.len()), (5, 2));
    assert_eq!(hello.last_acks[0], (pair, Sequence(3)));

    let refusal = BatchRefusal::new(RejectCode::TypeConflict, "field x is int64");
    server.welcome(
        Limits::for_sender(SenderKind::Device),
        SessionId(2),
        "quiver/0.1",
        vec![PairState {
            next_sequence: Sequence(7),
            known: true,
            rejects: vec![(Sequence(4), refusal)],
            rejects_total: 1,
            refused_rows: [(RejectCode::NotEnrolled, 12)].into_iter().collect(),
        }],
    );
    let events = exchange(&mut client, &mut server);
    let [
        ClientEvent::Welcome {
            limits,
            resume,
            session,
            server: software,
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(
        (limits.quic_streams, *session, software.as_str()),
        (16, SessionId(2), "quiver/0.1")
    );
    assert_eq!(
        (
            resume[0].next_sequence,
            resume[0].known,
            resume[0].rejects_total
        ),
        (Sequence(7), true, 1)
    );
    assert_eq!(
        (resume[0].rejects[0].sequence, resume[0].rejects[0].code),
        (Sequence(4), 3)
    );
    assert_eq!(
        (resume[1].next_sequence, resume[1].known),
        (Sequence(0), false),
        "a pair without an answer is unknown"
    );
    assert!(client.is_open() && server.is_open());
}

#[test]
fn acks_are_coalesced_and_follow_the_rejects_that_they_pass() {
    let (mut client, mut server) = opened();
    for sequence in [0, 1, 2, 5, 4] {
        server.ack(
            Producer(9),
            &readings(),
            Sequence(sequence),
            &RefusedRows::default(),
        );
    }
    server.reject(
        Producer(9),
        &readings(),
        Sequence(3),
        &BatchRefusal::new(RejectCode::MalformedBatch, "x"),
    );
    server.stream_closed(
        14,
        None,
        Sequence(0),
        StreamCloseCode::BadOpen,
        0,
        "OpenStream is no protobuf",
    );
    let events = exchange(&mut client, &mut server);
    assert!(
        matches!(
            events.as_slice(),
            [
                ClientEvent::Reject {
                    sequence: Sequence(3),
                    code: 1,
                    ..
                },
                ClientEvent::StreamClosed {
                    quic_stream: 14,
                    pair: None,
                    code: Ok(StreamCloseCode::BadOpen),
                    ..
                },
                ClientEvent::Ack {
                    sequence: Sequence(5),
                    ..
                }
            ]
        ),
        "{events:?}"
    );
}

fn all_row_codes() -> impl Iterator<Item = RejectCode> {
    let codes = RejectCode::ALL.iter().copied();
    codes.filter(|code| code.number() >= 100)
}

#[test]
fn an_ack_carries_how_many_rows_were_refused_in_all_and_never_forgets_a_count() {
    let (mut client, mut server) = opened();
    let rows = |counts: &[(RejectCode, u64)]| counts.iter().copied().collect::<RefusedRows>();
    let first = rows(&[(RejectCode::NotEnrolled, 3)]);
    let second = rows(&[(RejectCode::NullTimestamp, 1), (RejectCode::NotEnrolled, 5)]);
    server.ack(Producer(9), &readings(), Sequence(1), &second);
    server.ack(Producer(9), &readings(), Sequence(2), &first);
    let events = exchange(&mut client, &mut server);
    let [ClientEvent::Ack { refused_rows, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    let counts: Vec<_> = refused_rows.iter().map(|c| (c.code, c.rows)).collect();
    assert_eq!(counts, [(100, 1), (103, 5)]);
}

#[test]
fn a_bye_comes_after_the_acks_and_nothing_comes_after_it() {
    let (mut client, mut server) = opened();
    server.ack(
        Producer(9),
        &readings(),
        Sequence(1),
        &RefusedRows::default(),
    );
    server.bye(
        &ConnectionClose::new(ConnectionCloseCode::ShuttingDown, "the server restarts"),
        1500,
    );
    server.ack(
        Producer(9),
        &readings(),
        Sequence(2),
        &RefusedRows::default(),
    );
    server.stream_closed(2, None, Sequence(0), StreamCloseCode::Retry, 0, "");
    let events = exchange(&mut client, &mut server);
    assert!(
        matches!(
            events.as_slice(),
            [
                ClientEvent::Ack {
                    sequence: Sequence(1),
                    ..
                },
                ClientEvent::Bye {
                    code: Ok(ConnectionCloseCode::ShuttingDown),
                    reconnect_after: 1500,
                    ..
                }
            ]
        ),
        "{events:?}"
    );
}

fn opened() -> (ClientConversation, ServerConversation) {
    let mut client = ClientConversation::new(ClientHello::default());
    let mut server = server();
    exchange(&mut client, &mut server);
    assert!(matches!(server.poll_event(), Some(ServerEvent::Hello(_))));
    server.welcome(
        Limits::for_sender(SenderKind::Device),
        SessionId(1),
        "",
        Vec::new(),
    );
    assert!(matches!(
        exchange(&mut client, &mut server).as_slice(),
        [ClientEvent::Welcome { .. }]
    ));
    (client, server)
}

#[test]
fn nothing_is_acknowledged_to_a_client_that_was_not_welcomed() {
    let mut server = server();
    server.ack(
        Producer(9),
        &readings(),
        Sequence(1),
        &RefusedRows::default(),
    );
    server.reject(
        Producer(9),
        &readings(),
        Sequence(1),
        &BatchRefusal::new(RejectCode::MalformedBatch, "x"),
    );
    server.welcome(
        Limits::for_sender(SenderKind::Device),
        SessionId(1),
        "",
        Vec::new(),
    );
    assert_eq!(server.poll_transmit(), None);
}

#[test]
fn the_identity_comes_from_the_certificate_or_else_from_a_token() {
    use ConnectionCloseCode::Unauthenticated;
    let tokens = || ServerRules {
        tokens_allowed: true,
    };
    let with_token = || message::Hello {
        token: "secret".to_owned(),
        device_id: "truck_2".to_owned(),
        ..hello()
    };

    assert!(matches!(
        answer(Some(truck()), tokens(), hello()),
        ServerEvent::Hello(_)
    ));
    let same_id = message::Hello {
        device_id: "truck_1".to_owned(),
        ..hello()
    };
    assert!(matches!(
        answer(Some(truck()), tokens(), same_id),
        ServerEvent::Hello(_)
    ));
    let other_id = message::Hello {
        device_id: "truck_2".to_owned(),
        ..hello()
    };
    assert_eq!(
        closed(answer(Some(truck()), tokens(), other_id)),
        Unauthenticated
    );
    assert_eq!(
        closed(answer(Some(truck()), tokens(), with_token())),
        Unauthenticated
    );

    assert_eq!(closed(answer(None, tokens(), hello())), Unauthenticated);
    assert_eq!(
        closed(answer(None, ServerRules::default(), with_token())),
        Unauthenticated
    );
    let ServerEvent::Hello(received) = answer(None, tokens(), with_token()) else {
        panic!("refused")
    };
    let expected = Credential::Token {
        device_id: DeviceId::new("truck_2").unwrap(),
        token: "secret".to_owned(),
    };
    assert_eq!(received.credential, expected);
    let bad_id = message::Hello {
        device_id: "../truck".to_owned(),
        ..with_token()
    };
    assert_eq!(closed(answer(None, tokens(), bad_id)), Unauthenticated);
}

#[test]
fn a_hello_beyond_a_limit_or_of_another_version_is_refused() {
    let refused = |hello| closed(answer(Some(truck()), ServerRules::default(), hello));
    for protocol in [0, 2, u32::MAX] {
        assert_eq!(
            refused(message::Hello {
                protocol,
                ..hello()
            }),
            ConnectionCloseCode::UnsupportedVersion
        );
    }
    let last_ack = |producer, stream: &str| message::LastAck {
        producer,
        stream: stream.to_owned(),
        next_sequence: 0,
    };
    let many = (0..=LAST_ACKS_MAX as u64)
        .map(|producer| last_ack(producer, "readings"))
        .collect();
    assert_eq!(
        refused(message::Hello {
            last_acks: many,
            ..hello()
        }),
        ConnectionCloseCode::LimitExceeded
    );
    let token = "t".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(
        refused(message::Hello { token, ..hello() }),
        ConnectionCloseCode::LimitExceeded
    );
    assert_eq!(
        refused(message::Hello {
            client: "c".repeat(129),
            ..hello()
        }),
        ConnectionCloseCode::LimitExceeded
    );
    for last_acks in [
        vec![last_ack(1, "Bad Name")],
        vec![last_ack(1, "a"), last_ack(1, "a")],
    ] {
        assert_eq!(
            refused(message::Hello {
                last_acks,
                ..hello()
            }),
            ConnectionCloseCode::ProtocolViolation
        );
    }
}

#[test]
fn hello_comes_first_and_once() {
    let mut twice = server();
    twice.handle_bytes(encoded(hello()));
    twice.handle_bytes(encoded(hello()));
    assert!(matches!(twice.poll_event(), Some(ServerEvent::Hello(_))));
    assert_eq!(
        closed(twice.poll_event().unwrap()),
        ConnectionCloseCode::ProtocolViolation
    );

    // Member 2 of ClientMessage is CommandResult, which this version does not build.
    let mut other_first = server();
    other_first.handle_bytes(Bytes::from_static(&[2, 0x12, 0x00]));
    assert_eq!(
        closed(other_first.poll_event().unwrap()),
        ConnectionCloseCode::ProtocolViolation
    );

    let mut ended = server();
    ended.handle_end();
    assert_eq!(
        closed(ended.poll_event().unwrap()),
        ConnectionCloseCode::ProtocolViolation
    );
}

#[test]
fn messages_of_a_later_version_are_ignored_and_counted_by_both_sides() {
    let (mut client, mut server) = opened();
    for member in [2_u8, 3, 15] {
        server.handle_bytes(Bytes::from(vec![4, member << 3 | 2, 2, 0x08, 0x01]));
    }
    assert_eq!((server.poll_event(), server.ignored_messages()), (None, 3));
    for member in [6_u8, 7, 8] {
        client.handle_bytes(Bytes::from(vec![4, member << 3 | 2, 2, 0x08, 0x01]));
    }
    assert_eq!((client.poll_event(), client.ignored_messages()), (None, 3));
    server.ack(
        Producer(1),
        &readings(),
        Sequence(0),
        &RefusedRows::default(),
    );
    assert!(matches!(
        exchange(&mut client, &mut server).as_slice(),
        [ClientEvent::Ack { .. }]
    ));
}

#[test]
fn the_end_of_the_control_stream_is_a_farewell_unless_it_cuts_a_message() {
    let (_, mut server) = opened();
    server.handle_end();
    assert_eq!(server.poll_event(), Some(ServerEvent::Finished));
    server.ack(
        Producer(1),
        &readings(),
        Sequence(0),
        &RefusedRows::default(),
    );
    assert!(
        server.poll_transmit().is_some(),
        "what was sent before is still acknowledged"
    );

    let (_, mut cut) = opened();
    cut.handle_bytes(Bytes::from_static(&[5, 1]));
    cut.handle_end();
    assert_eq!(
        closed(cut.poll_event().unwrap()),
        ConnectionCloseCode::ProtocolViolation
    );
}

#[test]
fn a_client_takes_nothing_before_welcome_but_a_bye() {
    let mut client = ClientConversation::new(ClientHello::default());
    let ack = message::ServerMessage {
        message: Some(message::server_message::Message::Ack(
            message::Ack::default(),
        )),
    };
    client.handle_bytes(encode_message(&ack));
    assert!(matches!(client.poll_event(), Some(ClientEvent::Closed(_))));

    let mut client = ClientConversation::new(ClientHello::default());
    let bye = message::Bye {
        code: 999,
        message: "no".to_owned(),
        reconnect_after: 7,
    };
    let bye = message::ServerMessage {
        message: Some(message::server_message::Message::Bye(bye)),
    };
    client.handle_bytes(encode_message(&bye));
    assert!(matches!(
        client.poll_event(),
        Some(ClientEvent::Bye {
            code: Err(999),
            reconnect_after: 7,
            ..
        })
    ));
}

#[test]
fn the_largest_welcome_fits_into_a_control_message() {
    let name = |index: usize| StreamName::new(&format!("s{index:062}")).unwrap();
    let last_acks = (0..LAST_ACKS_MAX)
        .map(|index| ((Producer(u64::MAX), name(index)), Sequence(u64::MAX)))
        .collect();
    let mut client = ClientConversation::new(ClientHello {
        client: "c".repeat(500),
        last_acks,
        ..Default::default()
    });
    let mut server = server();
    let long = BatchRefusal::new(RejectCode::InexactFloat, "ä".repeat(5000));
    exchange(&mut client, &mut server);
    let pair = PairState {
        next_sequence: Sequence(u64::MAX),
        known: true,
        rejects: vec![(Sequence(u64::MAX), long); 300],
        rejects_total: u64::MAX,
        refused_rows: all_row_codes().map(|code| (code, u64::MAX)).collect(),
    };
    assert!(matches!(server.poll_event(), Some(ServerEvent::Hello(_))));
    server.welcome(
        Limits::for_sender(SenderKind::Gateway),
        SessionId(u64::MAX),
        &"s".repeat(500),
        vec![pair; LAST_ACKS_MAX],
    );
    let events = exchange(&mut client, &mut server);
    let [ClientEvent::Welcome { resume, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        resume.iter().map(|pair| pair.rejects.len()).sum::<usize>(),
        RESUME_REJECTS_MAX
    );
    assert!(resume.iter().all(|pair| pair.rejects_total == u64::MAX));
    let counted = all_row_codes().count();
    let (all, none) = resume.split_at(RESUME_REFUSED_ROWS_MAX / counted);
    assert!(all.iter().all(|pair| pair.refused_rows.len() == counted));
    assert!(none.iter().all(|pair| pair.refused_rows.is_empty()));
}

#[test]
fn an_oversized_message_is_refused_by_its_length_alone() {
    let mut decoder = ControlDecoder::<message::ClientMessage>::default();
    decoder.handle_bytes(Bytes::from_static(&[0x81, 0x80, 0x04])); // 65,537
    let expected = ControlError::TooLong {
        length: 65_537,
        limit: CONTROL_MESSAGE_BYTES_MAX,
    };
    assert_eq!(decoder.poll_message(), Err(expected.clone()));
    decoder.handle_bytes(Bytes::from_static(&[0]));
    assert_eq!(decoder.poll_message(), Err(expected), "an error is final");
    for endless in [&[0xff_u8; 5][..], &[0x80; 10]] {
        let mut decoder = ControlDecoder::<message::ClientMessage>::default();
        decoder.handle_bytes(Bytes::copy_from_slice(endless));
        assert_eq!(decoder.poll_message(), Err(ControlError::LengthPrefix));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn messages_arrive_whole_however_the_bytes_are_cut(
        names in proptest::collection::vec("[a-z]{0,200}", 0..8),
        cuts in proptest::collection::vec(1_usize..40, 1..20),
    ) {
        let sent: Vec<_> = names.into_iter().map(|stream| message::OpenStream { stream, ..Default::default() }).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|open| open.encode_length_delimited_to_vec()).collect();
        let mut decoder = ControlDecoder::<message::OpenStream>::default();
        let mut received = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            rest = tail;
            decoder.handle_bytes(Bytes::copy_from_slice(piece));
            while let Some(message) = decoder.poll_message().unwrap() { received.push(message) }
        }
        prop_assert!(decoder.is_at_boundary());
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn no_bytes_make_a_conversation_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut server = server();
        server.handle_bytes(Bytes::from(bytes.clone()));
        server.handle_end();
        while server.poll_event().is_some() {}
        let (mut client, _) = opened();
        client.handle_bytes(Bytes::from(bytes));
        client.handle_end();
        while client.poll_event().is_some() {}
    }
}
