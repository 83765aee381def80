//! `quiver pki`.

use std::{path::Path, time::Duration};

use quiver_model::{OsEntropy, SenderId, SystemClock, Timestamp};
use quiver_pki::{
    KeyKind, Request, Validity, directory_name, fingerprint, identity_of, load_certificates,
    server_names, validity_of,
};

use crate::{
    access,
    cli::PkiAction,
    exit::{DATA, Failure, IO, USAGE},
    say::say,
};

/// Does what is asked.
pub fn run(action: PkiAction) -> Result<(), Failure> {
    match action {
        PkiAction::Init { data_dir } => {
            access::development_ca(&data_dir)?;
            access::server_credential(&data_dir)?;
            access::operator_credential(&data_dir)?;
            say!("{}", access::ca_dir(&data_dir).join("ca.pem").display());
            Ok(())
        }
        PkiAction::Issue {
            kind,
            id,
            out,
            valid_for,
            not_before,
            ed25519,
            data_dir,
        } => {
            let validity = validity(not_before.as_deref(), valid_for)?;
            let (request, name) = request(&kind, &id, validity)?;
            let request = if ed25519 {
                request.with_key(KeyKind::Ed25519)
            } else {
                request
            };
            let out = out.unwrap_or_else(|| name.into());
            let ca = access::development_ca(&data_dir)?;
            let credential = ca
                .issue(&request, &OsEntropy)
                .map_err(Failure::with(DATA))?;
            credential.save(&out).map_err(Failure::with(IO))?;
            for file in ["cert.pem", "key.pem", "ca.pem"] {
                say!("{}", out.join(file).display());
            }
            say!("fingerprint {}", fingerprint(credential.certificate()));
            Ok(())
        }
        PkiAction::Show { file } => show(&file),
    }
}

fn request(kind: &str, id: &str, validity: Validity) -> Result<(Request, String), Failure> {
    if kind == "server" {
        let names = server_names(id.split(',')).map_err(Failure::with(USAGE))?;
        return Ok((
            Request::server(names, validity),
            format!("server-{}", id.replace([',', ':'], "-")),
        ));
    }
    let sender = SenderId::from_urn(&format!("urn:quiver:{kind}:{id}")).ok_or_else(|| {
        Failure::new(
            USAGE,
            format!(
                "{kind} {id:?}: the kind is device, gateway, operator or server, and an id is 1 to 128 characters of [A-Za-z0-9._:@/-]"
            ),
        )
    })?;
    let name = directory_name(&sender);
    Ok((Request::client(sender, validity), name))
}

fn validity(not_before: Option<&str>, valid_for: Duration) -> Result<Validity, Failure> {
    let Some(text) = not_before else {
        return Ok(Validity::starting_now(&SystemClock::new(), valid_for));
    };
    let begin = parse_rfc3339(text).ok_or_else(|| {
        Failure::new(
            USAGE,
            format!("--not-before {text:?} is not a time such as 2026-01-31T00:00:00Z"),
        )
    })?;
    Validity::between(begin, begin.plus(valid_for)).map_err(Failure::with(USAGE))
}

fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let text = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    let time = chrono::DateTime::parse_from_rfc3339(&text).ok()?;
    Some(Timestamp(time.timestamp_micros()))
}

fn show(file: &Path) -> Result<(), Failure> {
    for certificate in load_certificates(file).map_err(Failure::of_pem(DATA))? {
        match identity_of(&certificate) {
            Ok(sender) => say!("identity    {}", sender.to_urn()),
            Err(error) => say!("identity    none: {error}"),
        }
        let validity = validity_of(&certificate).map_err(Failure::with(DATA))?;
        say!(
            "valid       {} to {}",
            validity.not_before(),
            validity.not_after()
        );
        say!("fingerprint {}", fingerprint(&certificate));
    }
    Ok(())
}
