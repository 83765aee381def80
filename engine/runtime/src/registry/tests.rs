use std::collections::BTreeMap;

use super::*;

fn sender(kind: SenderKind, id: &str) -> SenderId {
    SenderId {
        kind,
        id: DeviceId::new(id).unwrap(),
    }
}

/// A pseudo-random number below `bound`, the next of `state`.
fn next(state: &mut u64, bound: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % bound
}

fn random_entry(random: &mut u64, sender: &SenderId) -> RegistryEntry {
    let mut entry = RegistryEntry::new(sender, Timestamp(next(random, 1 << 40) as i64 - (1 << 20)));
    let digest = |random: &mut u64| match next(random, 6) {
        0 => Some(format!("{:064x}", next(random, 1 << 30))),
        1 => Some(format!("{:064X}", next(random, 1 << 30) | 0xabcdef)),
        2 => Some("no digest".to_owned()),
        _ => None,
    };
    entry.fingerprint = digest(random);
    entry.token_sha256 = digest(random);
    if next(random, 2) == 0 {
        (entry.fingerprint, entry.token_sha256) = (None, None);
    }
    for _ in 0..next(random, 3) {
        entry.gateways.insert(format!("gw_{}", next(random, 4)));
    }
    if next(random, 4) == 0 {
        entry
            .attributes
            .insert("site".to_owned(), "Oslo, north".to_owned());
    }
    if next(random, 5) == 0 {
        entry.state = EntryState::Revoked;
    }
    entry
}

#[test]
fn it_is_what_a_map_of_whole_entries_would_be() {
    let registry = Registry::default();
    let mut model = BTreeMap::<SenderId, RegistryEntry>::new();
    let mut random = 7;
    let kinds = [
        SenderKind::Device,
        SenderKind::Gateway,
        SenderKind::Operator,
    ];
    for step in 0..4_000 {
        let sender = sender(
            kinds[next(&mut random, 3) as usize],
            &format!("unit_{}", next(&mut random, 300)),
        );
        if next(&mut random, 4) == 0 {
            registry.apply(&RegistryChange::Revoke {
                id: sender.id.to_string(),
                kind: sender.kind.as_str().to_owned(),
            });
            if let Some(entry) = model.get_mut(&sender) {
                entry.state = EntryState::Revoked;
            }
        } else {
            let entry = random_entry(&mut random, &sender);
            registry.apply(&RegistryChange::Put {
                entry: entry.clone(),
            });
            model.insert(sender.clone(), entry);
        }
        assert_eq!(registry.get(&sender).as_ref(), model.get(&sender));
        let device = format!("unit_{}", next(&mut random, 400));
        let known = model.get(&super::tests::sender(SenderKind::Device, &device));
        assert_eq!(registry.knows_device(&device), known.is_some());
        let active = known.filter(|entry| entry.state == EntryState::Active);
        for speaker in [
            super::tests::sender(SenderKind::Gateway, "gw_1"),
            super::tests::sender(SenderKind::Operator, "gw_1"),
            super::tests::sender(SenderKind::Device, &device),
            super::tests::sender(SenderKind::Device, "somebody"),
        ] {
            let may = active.is_some_and(|entry| match speaker.kind {
                SenderKind::Device => speaker.id.as_str() == device,
                SenderKind::Gateway => entry.gateways.contains("gw_1"),
                SenderKind::Operator | SenderKind::Node => true,
            });
            assert_eq!(registry.may_speak_for(&speaker, &device), may, "{step}");
        }
    }
    assert_eq!(registry.all(), model.into_values().collect::<Vec<_>>());
    assert_eq!(registry.len(), registry.all().len());
    assert!(!registry.may_speak_for(&sender(SenderKind::Operator, "o"), &"d".repeat(200)));
}

#[test]
fn credentials_are_compared_as_they_were_given() {
    let registry = Registry::default();
    let known = sender(SenderKind::Device, "truck_1");
    let digits = "0123456789abcdef".repeat(4);
    let mut entry = RegistryEntry::new(&known, Timestamp(1));
    entry.fingerprint = Some(digits.clone());
    entry.token_sha256 = Some("short".to_owned());
    registry.apply(&RegistryChange::Put { entry });
    assert_eq!(registry.admit_certificate(&known, &digits), Ok(()));
    assert!(
        registry
            .admit_certificate(&known, &digits.to_uppercase())
            .is_err()
    );
    assert_eq!(registry.admit_token(&known, "short"), Ok(()));
    assert!(registry.admit_token(&known, &digits).is_err());
    assert!(matches!(
        registry.admit_certificate(&sender(SenderKind::Gateway, "truck_1"), &digits),
        Err(AdmissionError::Unknown { .. })
    ));
}

#[test]
fn what_was_frozen_stays_as_it_was() {
    let registry = Registry::default();
    let entry = |number: usize| {
        let mut entry = RegistryEntry::new(
            &sender(SenderKind::Device, &format!("unit_{number:04}")),
            Timestamp(number as i64),
        );
        if number.is_multiple_of(3) {
            entry.attributes.insert("n".to_owned(), number.to_string());
        }
        entry
    };
    for number in 0..2_000 {
        registry.apply(&RegistryChange::Put {
            entry: entry(number),
        });
    }
    let frozen = registry.freeze();
    for number in 0..2_500 {
        let mut entry = entry(number);
        entry.attributes.insert("later".to_owned(), String::new());
        entry.state = EntryState::Revoked;
        registry.apply(&RegistryChange::Put { entry });
    }
    let found: Vec<_> = frozen.iter().map(Known::to_entry).collect();
    assert_eq!(found, (0..2_000).map(entry).collect::<Vec<_>>());
}

#[test]
fn a_checkpoint_of_it_is_read_in_portions_and_a_cut_one_is_refused() {
    let registry = Registry::default();
    let mut random = 3;
    for number in 0..60_000 {
        let sender = sender(SenderKind::Device, &format!("device-{number:06}"));
        let entry = match next(&mut random, 10) {
            0 => random_entry(&mut random, &sender),
            _ => RegistryEntry::new(&sender, Timestamp(number)),
        };
        registry.apply(&RegistryChange::Put { entry });
    }
    let portions: Vec<_> = registry.freeze().portions().map(Result::unwrap).collect();
    assert!(portions.len() > 1);
    let restored = Registry::default();
    for portion in &portions {
        restored.restore(portion).unwrap();
    }
    assert_eq!(restored.all(), registry.all());
    let last = &portions[portions.len() - 1];
    for cut in [0, 1, 5, 30] {
        let cut = &last[..last.len() - 1 - cut];
        assert!(
            Registry::default().restore(cut).is_err(),
            "or it ends between two"
        );
    }
    assert!(Registry::default().restore(&[]).is_err());
}
