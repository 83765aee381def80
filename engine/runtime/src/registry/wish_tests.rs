use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(8);

fn device(id: &str) -> SenderId {
    SenderId::device(DeviceId::new(id).unwrap())
}

fn enrolment(id: &str) -> Enrolment {
    Enrolment {
        sender: device(id),
        fingerprint: None,
        token_sha256: None,
        gateways: BTreeSet::new(),
        attributes: BTreeMap::new(),
    }
}

fn amendment(id: &str, attributes: &[(&str, Option<&str>)]) -> Amendment {
    Amendment {
        sender: device(id),
        fingerprint: None,
        gateways: BTreeSet::new(),
        attributes: attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect(),
        enrolls_unknown: false,
    }
}

/// Decides and applies.
fn grant(registry: &Registry, wishes: impl IntoIterator<Item = Wish>) -> Outcome {
    let Decision { entries, outcome } = registry.decide(wishes.into_iter().collect(), NOW);
    for entry in entries {
        registry.apply(&RegistryChange::Put { entry });
    }
    outcome
}

#[test]
fn enrolling_again_adds_and_a_revoked_token_is_gone() {
    let registry = Registry::default();
    let mut first = enrolment("truck_1");
    first.gateways.insert("gw_1".to_owned());
    first.token_sha256 = Some("secret".to_owned());
    first.fingerprint = fingerprint_digits(&"AB:".repeat(32)).ok();
    assert_eq!(grant(&registry, [Wish::Enroll(first)]).enrolled, 1);
    registry.apply(&RegistryChange::Revoke {
        id: "truck_1".to_owned(),
        kind: "device".to_owned(),
    });
    let mut again = enrolment("truck_1");
    again.gateways.insert("gw_2".to_owned());
    assert_eq!(grant(&registry, [Wish::Enroll(again)]).changed, 1);
    let entry = registry.get(&device("truck_1")).unwrap();
    assert_eq!((entry.enrolled_us, entry.state), (8, EntryState::Active));
    assert_eq!(entry.fingerprint, Some("ab".repeat(32)));
    assert_eq!(entry.token_sha256, None);
    assert_eq!(entry.gateways.len(), 2);
    assert!(fingerprint_digits("abc").is_err());
}

#[test]
fn what_is_not_named_stays_as_it_is_and_what_stays_the_same_is_not_written() {
    let registry = Registry::default();
    let mut entry = RegistryEntry::new(&device("truck_1"), Timestamp(3));
    entry.fingerprint = Some("ab".repeat(32));
    entry.token_sha256 = Some("cd".repeat(32));
    entry.gateways.insert("gw_1".to_owned());
    for (key, value) in [("fleet", "north"), ("model", "tgx")] {
        entry.attributes.insert(key.to_owned(), value.to_owned());
    }
    entry.state = EntryState::Revoked;
    registry.apply(&RegistryChange::Put {
        entry: entry.clone(),
    });
    let set = [("fleet", Some("west")), ("model", None), ("site", None)];
    let set = Wish::Amend(amendment("truck_1", &set));
    assert_eq!(grant(&registry, [set.clone()]).changed, 1);
    entry.attributes = BTreeMap::from([("fleet".to_owned(), "west".to_owned())]);
    assert_eq!(registry.get(&device("truck_1")).as_ref(), Some(&entry));

    let again = registry.decide(vec![set.clone(), set], NOW);
    let expected = Decision {
        entries: Vec::new(),
        outcome: Outcome {
            unchanged: 1,
            ..Outcome::default()
        },
    };
    assert_eq!(again, expected, "an identity is counted once");
    // There and back again.
    let to = |fleet| Wish::Amend(amendment("truck_1", &[("fleet", Some(fleet))]));
    assert_eq!(registry.decide(vec![to("east"), to("west")], NOW), expected);

    let fleet = |value: &str| [("fleet".to_owned(), value.to_owned())];
    assert_eq!(registry.all_with(&fleet("west")), [entry]);
    assert!(registry.all_with(&fleet("north")).is_empty());
}

#[test]
fn a_wish_that_is_not_granted_stops_no_other() {
    let registry = Registry::default();
    grant(&registry, [Wish::Enroll(enrolment("a"))]);
    let long = "ü".repeat(ATTRIBUTE_VALUE_BYTES_MAX / 2);
    let too_long = format!("{long}.");
    let amend =
        |id: &str, key: &str, value: &str| Wish::Amend(amendment(id, &[(key, Some(value))]));
    let mut new = amendment("new", &[("fleet", Some("")), ("model", None)]);
    new.enrolls_unknown = true;
    let mut wrong_enrolment = enrolment("b");
    wrong_enrolment
        .attributes
        .insert("two words".to_owned(), String::new());
    let mut key = "k".repeat(63);
    let outcome = grant(
        &registry,
        [
            amend("unknown", "fleet", "west"),
            amend("a", "1st", "x"),
            amend("a", &key, &long),
            amend("a", "fleet", &too_long),
            Wish::Amend(new),
            Wish::Enroll(wrong_enrolment),
            amend("unknown", "fleet", "west"),
            amend("a", "", "x"),
        ],
    );
    let refused: Vec<usize> = outcome.refused.iter().map(|(index, _)| *index).collect();
    assert_eq!(refused, [0, 1, 3, 5, 6, 7]);
    assert_eq!(
        (outcome.enrolled, outcome.changed, outcome.unchanged),
        (1, 1, 0)
    );
    let unknown = outcome.refused[0].1.to_string();
    assert!(
        unknown.contains("device:unknown is not enrolled"),
        "{unknown}"
    );
    let value = outcome.refused[2].1.to_string();
    assert!(value.contains("fleet has 257 bytes"), "{value}");
    assert!(!registry.knows_device("unknown") && !registry.knows_device("b"));
    let entry = registry.get(&device("a")).unwrap();
    assert_eq!(entry.attributes, BTreeMap::from([(key.clone(), long)]));
    let new = registry.get(&device("new")).unwrap();
    assert_eq!(new.attributes["fleet"], "", "an empty value is a value");
    key.push('k');
    assert!(check_attribute_key(&key).is_err());
}

#[test]
fn attributes_are_bounded_and_too_many_of_before_become_fewer_one_by_one() {
    let registry = Registry::default();
    let keys: Vec<String> = (0..=ATTRIBUTES_MAX).map(|n| format!("k{n}")).collect();
    let all: Vec<_> = keys.iter().map(|key| (key.as_str(), Some("v"))).collect();
    grant(&registry, [Wish::Enroll(enrolment("a"))]);
    let outcome = grant(&registry, [Wish::Amend(amendment("a", &all))]);
    assert!(matches!(
        outcome.refused[..],
        [(0, WishRefusal::TooManyAttributes { count: 65, .. })]
    ));
    let outcome = grant(
        &registry,
        [
            Wish::Amend(amendment("a", &all[1..])),
            // One more, and another one instead.
            Wish::Amend(amendment("a", &all[..1])),
            Wish::Amend(amendment("a", &[all[0], (&keys[1], None)])),
        ],
    );
    assert!(matches!(
        outcome.refused[..],
        [(1, WishRefusal::TooManyAttributes { .. })]
    ));
    let mut entry = registry.get(&device("a")).unwrap();
    assert_eq!(entry.attributes.len(), ATTRIBUTES_MAX);

    for key in ["not a key", "k1", "more"] {
        entry.attributes.insert(key.to_owned(), String::new());
    }
    registry.apply(&RegistryChange::Put { entry });
    let outcome = grant(
        &registry,
        [
            Wish::Amend(amendment("a", &[("not a key", None)])),
            Wish::Amend(amendment("a", &[("yet_another", Some(""))])),
            Wish::Amend(amendment("a", &[("more", Some("x"))])),
            Wish::Enroll(enrolment("a")),
        ],
    );
    assert!(matches!(
        outcome.refused[..],
        [(1, WishRefusal::TooManyAttributes { count: 67, .. })]
    ));
    assert_eq!(registry.get(&device("a")).unwrap().attributes["more"], "x");
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let id = (0..6_u8).prop_map(|number| format!("d{number}"));
    let key = prop_oneof![
        8 => "[a-c]".prop_map(String::from),
        1 => Just("no key".to_owned()),
    ];
    let fingerprint = prop::option::weighted(0.2, Just("ab".repeat(32)));
    let gateways = prop::collection::btree_set("gw_[12]", 0..2);
    let value = prop::option::of("[xy]");
    let attributes = prop::collection::btree_map(key, value, 0..3);
    let wish = (id, fingerprint, gateways, attributes, any::<(bool, bool)>());
    let wish = wish.prop_map(
        |(id, fingerprint, gateways, attributes, (enrolls, is_new))| {
            let sender = device(&id);
            if enrolls {
                let attributes = attributes.into_iter();
                return Wish::Enroll(Enrolment {
                    sender,
                    fingerprint,
                    token_sha256: is_new.then(|| "cd".repeat(32)),
                    gateways,
                    attributes: attributes
                        .filter_map(|(key, value)| Some((key, value?)))
                        .collect(),
                });
            }
            Wish::Amend(Amendment {
                sender,
                fingerprint,
                gateways,
                attributes,
                enrolls_unknown: is_new,
            })
        },
    );
    prop::collection::vec(wish, 0..20)
}

proptest! {
    #[test]
    fn wishes_that_are_decided_together_come_to_what_they_come_to_one_by_one(
        rounds in prop::collection::vec((wishes(), 0..6_u8), 1..6)
    ) {
        let (together, one_by_one) = (Registry::default(), Registry::default());
        for (wishes, revoked) in rounds {
            let mut refused = Vec::new();
            for (index, wish) in wishes.iter().enumerate() {
                let sender = wish.sender().clone();
                match wish.clone().entry(one_by_one.get(&sender), NOW) {
                    Ok(entry) => one_by_one.apply(&RegistryChange::Put { entry }),
                    Err(refusal) => refused.push((index, refusal)),
                }
            }
            let before = together.len();
            let Decision { entries, outcome } = together.decide(wishes.clone(), NOW);
            prop_assert_eq!(entries.len(), outcome.enrolled + outcome.changed);
            for entry in entries {
                prop_assert_ne!(together.get(&entry.sender().unwrap()), Some(entry.clone()));
                together.apply(&RegistryChange::Put { entry });
            }
            prop_assert_eq!(together.len(), before + outcome.enrolled);
            prop_assert_eq!(outcome.refused, refused);
            prop_assert_eq!(together.all(), one_by_one.all());
            // And once more, for those that do not undo each other.
            let last: BTreeMap<SenderId, Wish> = wishes
                .into_iter()
                .map(|wish| (wish.sender().clone(), wish))
                .collect();
            let again = together.decide(last.into_values().collect(), NOW);
            prop_assert_eq!(again.entries, Vec::new());
            let revoke = RegistryChange::Revoke {
                id: format!("d{revoked}"),
                kind: "device".to_owned(),
            };
            together.apply(&revoke);
            one_by_one.apply(&revoke);
        }
    }
}
