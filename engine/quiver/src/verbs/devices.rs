//! `quiver devices`.

use std::collections::BTreeMap;

use quiver_model::{DeviceId, SenderId};
use quiver_runtime::registry::{EntryState, RegistryEntry};
use sha2::{Digest, Sha256};

use super::{
    enroll_from::{self, Common},
    print_table, running,
};
use crate::{
    access::random_token,
    cli::{DevicesAction, TargetArgs},
    exit::{DATA, Failure, UNAVAILABLE, USAGE},
    say::say,
};

/// Does what is asked.
pub fn run(action: DevicesAction) -> Result<(), Failure> {
    match action {
        DevicesAction::List { target, json } => {
            let entries = entries(&target)?;
            if json {
                say!(
                    "{}",
                    serde_json::to_string_pretty(&entries).map_err(Failure::with(DATA))?
                );
            } else {
                list(&entries);
            }
            Ok(())
        }
        DevicesAction::Show { target, kind, id } => {
            let entry = entry(&target, &kind, &id)?.ok_or_else(|| {
                let text = format!("{kind}:{id} is not enrolled; quiver devices list shows who is");
                Failure::new(DATA, text)
            })?;
            say!(
                "{}",
                serde_json::to_string_pretty(&entry).map_err(Failure::with(DATA))?
            );
            Ok(())
        }
        DevicesAction::Enroll {
            target,
            kind,
            fingerprint,
            gateway,
            attribute,
            token,
            from,
            ids,
        } => {
            let attributes = parse_attributes(&attribute)?;
            if let Some(from) = from {
                check_identities(&kind, &gateway)?;
                let common = Common {
                    kind,
                    gateways: gateway,
                    attributes,
                };
                return enroll_from::run(&running(&target)?, &from, &common);
            }
            if let (Some(_), [first, second, ..]) = (&fingerprint, ids.as_slice()) {
                return Err(Failure::new(
                    USAGE,
                    format!(
                        "--fingerprint is of one certificate, and {first} and {second} cannot share it; enroll them one by one"
                    ),
                ));
            }
            check_identities(&kind, &ids)?;
            let engine = running(&target)?;
            for (index, id) in ids.iter().enumerate() {
                let token = token.then(random_token);
                let token_sha256: Option<String> = token.as_ref().map(|token| {
                    Sha256::digest(token.as_bytes())
                        .iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect()
                });
                let body = serde_json::json!({
                    "id": id, "kind": kind, "fingerprint": fingerprint,
                    "token_sha256": token_sha256, "gateways": gateway, "attributes": attributes,
                });
                engine
                    .post_text("/api/v1/devices", &body)
                    .map_err(|failure| not_enrolled(&failure, &ids[index..]))?;
                say!("{kind}:{id} is enrolled");
                if let Some(token) = token {
                    say!("token {token}");
                }
            }
            Ok(())
        }
        DevicesAction::Revoke { target, kind, id } => {
            let body = serde_json::json!({ "id": id, "kind": kind });
            running(&target)?.post_text("/api/v1/devices/revoke", &body)?;
            say!(
                "{kind}:{id} is revoked; to let it connect again: quiver devices enroll {id} --kind {kind}"
            );
            Ok(())
        }
    }
}

/// Refuses all of them if one is wrong: none is enrolled by then.
fn check_identities(kind: &str, ids: &[String]) -> Result<(), Failure> {
    for id in ids {
        DeviceId::new(id).map_err(|error| {
            let text = format!("{error}; nothing was enrolled");
            Failure::new(DATA, text)
        })?;
        if SenderId::from_urn(&format!("urn:quiver:{kind}:{id}")).is_none() {
            let text = format!("--kind {kind:?} is not device, gateway or operator");
            return Err(Failure::new(DATA, text));
        }
    }
    Ok(())
}

/// Why it went no further, and which of them are left.
fn not_enrolled(failure: &Failure, left: &[String]) -> Failure {
    let left = left.join(", ");
    Failure::new(failure.code(), format!("{failure}; not enrolled: {left}"))
}

/// The entry of one identity; `None` if there is none.
fn entry(target: &TargetArgs, kind: &str, id: &str) -> Result<Option<RegistryEntry>, Failure> {
    // What is no identity is not enrolled.
    if SenderId::from_urn(&format!("urn:quiver:{kind}:{id}")).is_none() {
        return Ok(None);
    }
    let text = running(target)?.get(&format!("/api/v1/devices?kind={kind}&id={id}"))?;
    let found: Vec<RegistryEntry> =
        serde_json::from_str(&text).map_err(Failure::with(UNAVAILABLE))?;
    Ok(found.into_iter().next())
}

fn entries(target: &TargetArgs) -> Result<Vec<RegistryEntry>, Failure> {
    let text = running(target)?.get("/api/v1/devices")?;
    serde_json::from_str(&text).map_err(Failure::with(UNAVAILABLE))
}

fn parse_attributes(attributes: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    attributes
        .iter()
        .map(|attribute| match attribute.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::new(
                USAGE,
                format!("--attribute {attribute:?} is not key=value"),
            )),
        })
        .collect()
}

fn list(entries: &[RegistryEntry]) {
    let mut rows = vec![
        ["kind", "id", "state", "enrolled", "attributes"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for entry in entries {
        let state = match entry.state {
            EntryState::Active => "active",
            EntryState::Revoked => "revoked",
        };
        let attributes: Vec<String> = entry
            .attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        rows.push(vec![
            entry.kind.clone(),
            entry.id.clone(),
            state.to_owned(),
            quiver_model::Timestamp(entry.enrolled_us).to_string(),
            attributes.join(" "),
        ]);
    }
    print_table(&rows);
}
