//! Keeping, reading back and issuing.

use std::fs::{self, Permissions};

use quiver_model::{ManualClock, OsEntropy, Timestamp};

use super::*;

fn validity() -> Validity {
    Validity::starting_now(
        &ManualClock::new(Timestamp(1_795_305_600_000_000)),
        CA_LIFETIME,
    )
}

fn create(directory: &Path) -> DevelopmentCa {
    DevelopmentCa::create(directory, KeyKind::EcdsaP256, validity(), &OsEntropy).unwrap()
}

#[test]
fn a_ca_read_back_signs_as_the_one_that_was_written() {
    for key in [KeyKind::EcdsaP256, KeyKind::Ed25519] {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pki");
        let written = DevelopmentCa::create(&directory, key, validity(), &OsEntropy).unwrap();
        let read = DevelopmentCa::load(&directory).unwrap();
        assert_eq!(read.certificate(), written.certificate());
        let names = crate::default_server_names();
        let issued = read
            .issue(&Request::server(names, validity()), &OsEntropy)
            .unwrap();
        let parsed = inspect::parse(issued.certificate()).unwrap();
        let issuer = inspect::parse(written.certificate()).unwrap();
        assert_eq!(parsed.issuer(), issuer.subject());
        parsed.verify_signature(Some(issuer.public_key())).unwrap();
    }
}

#[test]
fn a_ca_is_made_once_and_never_again() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("pki");
    let first = DevelopmentCa::load_or_create(&directory, validity(), &OsEntropy).unwrap();
    let again = DevelopmentCa::load_or_create(&directory, validity(), &OsEntropy).unwrap();
    assert_eq!(first.certificate(), again.certificate());
    assert!(matches!(
        DevelopmentCa::create(&directory, KeyKind::EcdsaP256, validity(), &OsEntropy),
        Err(CaOpenError::Save(SaveError::Exists { .. }))
    ));
    let unchanged = DevelopmentCa::load(&directory).unwrap();
    assert_eq!(first.certificate(), unchanged.certificate());
}

#[test]
fn of_many_who_create_it_at_once_all_get_the_same_ca() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("pki");
    let open = || {
        let ca = DevelopmentCa::load_or_create(&directory, validity(), &OsEntropy).unwrap();
        crate::fingerprint(ca.certificate())
    };
    let found: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        found.iter().all(|fingerprint| *fingerprint == found[0]),
        "{found:?}"
    );
}

#[test]
fn half_a_ca_is_an_error_and_not_a_reason_to_make_another() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("pki");
    create(&directory);
    fs::remove_file(directory.join(CERTIFICATE_FILE)).unwrap();
    assert!(matches!(
        DevelopmentCa::load_or_create(&directory, validity(), &OsEntropy),
        Err(CaOpenError::Load(CaLoadError::File(PemError::Io { .. })))
    ));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("pki");
    create(&directory);
    fs::set_permissions(directory.join(KEY_FILE), Permissions::from_mode(0o640)).unwrap();
    let error = DevelopmentCa::load(&directory).unwrap_err();
    assert!(matches!(error, CaLoadError::KeyExposed { mode: 0o640, .. }));
    assert!(error.to_string().contains("mode 640"), "{error}");
}

#[test]
fn a_certificate_and_a_key_of_different_cas_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (root.path().join("one"), root.path().join("other"));
    create(&one);
    create(&other);
    fs::copy(other.join(CERTIFICATE_FILE), one.join(CERTIFICATE_FILE)).unwrap();
    assert!(matches!(
        DevelopmentCa::load(&one),
        Err(CaLoadError::KeyMismatch { .. })
    ));
}

#[test]
fn a_device_certificate_is_no_ca() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("pki");
    let ca = create(&directory);
    let names = crate::default_server_names();
    let leaf = ca
        .issue(&Request::server(names, validity()), &OsEntropy)
        .unwrap();
    fs::write(
        directory.join(CERTIFICATE_FILE),
        certificates_pem(&leaf.chain),
    )
    .unwrap();
    assert!(matches!(
        DevelopmentCa::load(&directory),
        Err(CaLoadError::NotACa { .. })
    ));
}

#[test]
fn serial_numbers_differ_and_are_positive() {
    let serials: std::collections::HashSet<Serial> =
        (0..1000).map(|_| random_serial(&OsEntropy)).collect();
    assert_eq!(serials.len(), 1000);
    assert!(serials.iter().all(|serial| serial.as_bytes()[0] >> 6 == 1));
}

#[test]
fn a_server_certificate_without_a_name_is_refused() {
    let ca = DevelopmentCa::generate(KeyKind::Ed25519, validity(), &OsEntropy).unwrap();
    assert!(matches!(
        ca.issue(&Request::server(Vec::new(), validity()), &OsEntropy),
        Err(IssueError::NoServerName)
    ));
}

#[test]
fn no_key_is_shown_when_printed_for_debugging() {
    let ca = DevelopmentCa::generate(KeyKind::Ed25519, validity(), &OsEntropy).unwrap();
    let names = crate::default_server_names();
    let credential = ca
        .issue(&Request::server(names, validity()), &OsEntropy)
        .unwrap();
    let printed = format!("{ca:?} {credential:?}");
    assert!(
        printed.contains("fingerprint") && !printed.contains("key"),
        "{printed}"
    );
}
