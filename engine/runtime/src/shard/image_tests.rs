use quiver_model::DeviceId;

use super::*;

fn device(index: u64) -> SenderId {
    SenderId::device(DeviceId::new(&format!("truck_{index}")).unwrap())
}

fn roster() -> Roster {
    let mut roster = Roster::default();
    for index in 0..200 {
        let sender = device(index);
        let stream = StreamName::new(["readings", "events"][index as usize % 2]).unwrap();
        let key = (stream, Producer(index));
        let mut state = roster.wake(&sender, 0);
        state.settle(
            &key,
            ProducerKind::Dense,
            Sequence(index + 1),
            (index % 5 == 0).then(|| RecentReject {
                sequence: Sequence(index),
                code: RejectCode::NotEnrolled,
                message: "not enrolled".to_owned(),
            }),
            Timestamp(1),
            0,
        );
        if index % 3 == 0 {
            state.count_refused(&key, [(RejectCode::NotEnrolled, 3)].into_iter());
        }
        drop(state);
        roster.count(&sender, |ledger| {
            ledger.stored = index;
            ledger.batches_lost = index % 7;
        });
    }
    roster.add_stored("rows_only", 5);
    roster
}

type All = BTreeMap<SenderId, (Option<Ledger>, Option<(SessionId, Vec<(PairKey, String)>)>)>;

fn all(image: &ShardImage) -> All {
    let mut all = All::new();
    image.for_each(|sender, ledger, kept| {
        let kept = kept.map(|kept| {
            let pairs = kept.pairs.into_iter();
            let pairs = pairs.map(|(key, pair)| (key, format!("{pair:?}")));
            (kept.last_session, pairs.collect())
        });
        assert!(all.insert(sender, (ledger, kept)).is_none());
    });
    all
}

#[test]
fn an_image_says_the_same_of_who_is_packed_and_of_who_is_not() {
    let mut roster = roster();
    let image = ShardImage::of(&roster, FrozenLastValues::default());
    let before = all(&image);
    assert_eq!(before.len(), 201);
    assert_eq!(image.ledgers(), roster.ledgers());
    roster.pack_all();
    assert_eq!(
        all(&ShardImage::of(&roster, FrozenLastValues::default())),
        before
    );
    let mut restored = Roster::default();
    image.for_each(|sender, ledger, kept| restored.restore(&sender, ledger.as_ref(), kept));
    assert_eq!(
        all(&ShardImage::of(&restored, FrozenLastValues::default())),
        before
    );
}

#[test]
fn a_portion_that_is_cut_is_refused_or_ends_between_two_identities() {
    let image = ShardImage::of(&roster(), FrozenLastValues::default());
    let portion = &image.portions()[0];
    let mut refused = 0;
    for cut in 0..portion.len() {
        refused += usize::from(read(&portion[..cut], &mut |_, _, _| {}).is_err());
    }
    assert_eq!(portion.len() - refused, 201);
    assert!(read(&[9, 1, 2], &mut |_, _, _| {}).is_err());
}

#[test]
fn large_images_are_many_portions_that_each_name_their_streams() {
    let mut roster = Roster::default();
    let stream = StreamName::new("readings").unwrap();
    for index in 0..60_000 {
        let key = (stream.clone(), Producer(index));
        let (kind, next) = (ProducerKind::Dense, Sequence(3));
        let known = roster.known(&device(index));
        assert!(roster.settle_resting(known, &key, kind, next, Timestamp(4)));
    }
    let image = ShardImage::of(&roster, FrozenLastValues::default());
    assert!(image.portions().len() > 1);
    for portion in image.portions() {
        read(portion, &mut |_, ledger, kept| {
            assert!(ledger.is_none());
            let kept = kept.unwrap();
            assert_eq!(kept.pairs.len(), 1);
            assert_eq!(kept.pairs[0].0.0, stream);
        })
        .unwrap();
    }
}
