use std::task::Poll;

use futures::{FutureExt, poll};
use quiver_model::{DeviceId, ManualClock};

use super::*;
use crate::commit::CommitCommand;

#[actix_rt::test]
async fn who_is_enrolled_by_connecting_does_not_overwrite_what_was_being_said_of_it() {
    let (queue, commands) = AppendQueue::new();
    let clock = Arc::new(ManualClock::new(Timestamp(1)));
    let (clock, _) = RecordClock::new(clock, Timestamp(0));
    let limits = GrowthLimits {
        streams_max: 1,
        new_streams_per_day: 1,
        new_fields_per_day: 1,
    };
    let writer = ControlWriter::new(Arc::default(), queue, Arc::new(clock), limits);
    let sender = |id: &str| SenderId::device(DeviceId::new(id).unwrap());
    let (named, other) = (sender("named"), sender("other"));

    // Somebody has seen that nobody knows it, and is about to say more of it.
    let turn = writer.registry_turn().await;
    let mut connects = Box::pin(writer.enroll_unknown(&named));
    assert!(poll!(&mut connects).is_pending());
    let mut entry = RegistryEntry::new(&named, Timestamp(1));
    entry
        .attributes
        .insert("fleet".to_owned(), "west".to_owned());
    let registry = &writer.state().registry;
    registry.apply(&RegistryChange::Put { entry });
    drop(turn);
    assert_eq!(poll!(&mut connects), Poll::Ready(Ok(())));
    assert!(commands.is_empty(), "nothing is written");

    // Those who connect do not wait for each other, and others wait until they are enrolled.
    let third = sender("third");
    let mut connect = [&other, &third].map(|sender| Box::pin(writer.enroll_unknown(sender)));
    for connects in &mut connect {
        assert!(poll!(connects).is_pending());
    }
    assert_eq!(commands.len(), 2);
    assert!(writer.registry_turn().now_or_never().is_none());
    for (number, command) in commands.try_iter().enumerate() {
        let CommitCommand::Append(request) = command else {
            panic!("a record is appended");
        };
        writer
            .state()
            .apply(Position(number as u64), &request.record);
        let crate::commit::OnCommit::Control(reply) = request.on_commit else {
            panic!("somebody waits");
        };
        reply.send(Ok(Position(number as u64))).unwrap();
    }
    for connects in connect {
        assert_eq!(connects.await, Ok(()));
    }
    assert_eq!(writer.state().registry.len(), 3);
}

#[test]
fn a_stream_with_rows_of_a_node_takes_no_others_whatever_the_graph() {
    let (queue, _commands) = AppendQueue::new();
    let clock = Arc::new(ManualClock::new(Timestamp(1)));
    let (clock, _) = RecordClock::new(clock, Timestamp(0));
    let limits = GrowthLimits {
        streams_max: 1,
        new_streams_per_day: 1,
        new_fields_per_day: 1,
    };
    let writer = ControlWriter::new(Arc::default(), queue, Arc::new(clock), limits);
    let stream = |name: &str| StreamName::new(name).unwrap();
    let told = |name: &str| match writer.rules().check(&stream(name), ["n"]) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    let rules = StreamRules {
        nodes: BTreeSet::from([stream("minutes")]),
        ..StreamRules::default()
    };
    assert_eq!(writer.set_rules(rules.clone()), StreamRules::default());
    assert!(told("minutes").contains("is written by a node of the graph"));
    assert_eq!(writer.set_rules(StreamRules::default()), rules);
    assert_eq!(told("minutes"), "", "no node has written it");
    writer.note_written(&stream("minutes"));
    assert!(told("minutes").contains("has rows of a node that is not in the graph now"));
    assert!(writer.rules().is_derived(&stream("minutes")));
    assert_eq!(told("readings"), "");
    writer.set_rules(StreamRules::default());
    assert!(!told("minutes").is_empty());
}
