//! `quiver devices`.

use std::collections::{BTreeMap, BTreeSet};

use quiver_model::{DeviceId, SenderId};
use quiver_runtime::registry::{EntryState, RegistryEntry, check_attribute};
use sha2::{Digest, Sha256};

use super::{
    amend::Amendments,
    enroll_from::{self, Common},
    import, print_table, running,
};
use crate::{
    access::random_token,
    cli::{DevicesAction, TargetArgs},
    exit::{DATA, Failure, UNAVAILABLE, USAGE},
    http::AmendRequest,
    numbers::grouped,
    say::say,
};

/// Does what is asked.
pub fn run(action: DevicesAction) -> Result<(), Failure> {
    match action {
        DevicesAction::List { target, with, json } => {
            let entries = entries(&target, &with)?;
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
        DevicesAction::Set {
            target,
            kind,
            attribute,
            remove,
            ids,
        } => {
            let attributes = changes(parse_attributes(&attribute)?, remove)?;
            let engine = running(&target)?;
            let mut amendments = Amendments::new(&engine, false);
            for id in ids {
                let asked = AmendRequest {
                    id,
                    kind: kind.clone(),
                    fingerprint: None,
                    gateways: BTreeSet::new(),
                    attributes: attributes.clone(),
                };
                amendments.push(asked, None)?;
            }
            amendments.send()?;
            let counts = amendments.counts;
            counts.say();
            match counts.refused {
                0 => Ok(()),
                refused => {
                    let (refused, named) = (grouped(refused), grouped(counts.named));
                    let text = format!("{refused} of {named} were left out; the others are done");
                    Err(Failure::new(DATA, text))
                }
            }
        }
        DevicesAction::Import {
            target,
            existing_only,
            file,
        } => import::run(&running(&target)?, &file, existing_only),
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

/// The entries that have these attributes (key=value).
fn entries(target: &TargetArgs, with: &[String]) -> Result<Vec<RegistryEntry>, Failure> {
    for attribute in with {
        key_and_value("--where", attribute)?;
    }
    let with: Vec<_> = with.iter().map(|with| ("where", with.as_str())).collect();
    let text = running(target)?.get_with("/api/v1/devices", &with)?;
    serde_json::from_str(&text).map_err(Failure::with(UNAVAILABLE))
}

fn key_and_value<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| Failure::new(USAGE, format!("{flag} {text:?} is not key=value")))
}

fn parse_attributes(attributes: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let attribute = |text: &String| {
        let (key, value) = key_and_value("--attribute", text)?;
        check_attribute(key, value)
            .map_err(|error| Failure::new(USAGE, format!("--attribute: {error}")))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    attributes.iter().map(attribute).collect()
}

/// Attributes to be set, and those to be removed.
fn changes(
    set: BTreeMap<String, String>,
    remove: Vec<String>,
) -> Result<BTreeMap<String, Option<String>>, Failure> {
    let wrong = |text: String| Err(Failure::new(USAGE, text));
    let set = set.into_iter().map(|(key, value)| (key, Some(value)));
    let mut changes: BTreeMap<String, Option<String>> = set.collect();
    for key in remove {
        if key.contains('=') {
            return wrong(format!("--remove {key:?}: name the key alone"));
        }
        if changes.get(&key).is_some_and(Option::is_some) {
            return wrong(format!(
                "{key} cannot be both set and removed; leave --attribute or --remove out"
            ));
        }
        changes.insert(key, None);
    }
    Ok(changes)
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
            .map(|(key, value)| format!("{key}={}", on_one_line(value)))
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

/// A text without characters that would tear a table apart.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn attributes_have_keys_that_expressions_can_name_and_short_values() {
        let parsed = parse_attributes(&owned(&["a=b=c", "x=", "a=d"])).unwrap();
        assert_eq!(parsed["a"], "d");
        assert_eq!(parsed["x"], "");
        let long = format!("a={}", "x".repeat(257));
        for (wrong, part) in [
            ("fleet", "is not key=value"),
            ("=x", "is not key=value"),
            ("my fleet=x", "\"my fleet\" must match"),
            ("1st=x", "\"1st\" must match"),
            (&long, "257 bytes"),
        ] {
            let failure = parse_attributes(&owned(&[wrong])).unwrap_err();
            assert_eq!(failure.code(), USAGE);
            let text = failure.to_string();
            assert!(
                text.contains("--attribute") && text.contains(part),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_removed_is_not_set_too() {
        let set = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let both = changes(set.clone(), owned(&["b", "b"])).unwrap();
        let expected = [("a", Some("1")), ("b", None)];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(both, BTreeMap::from(expected));
        for wrong in ["a", "b=x"] {
            let failure = changes(set.clone(), owned(&[wrong])).unwrap_err();
            assert_eq!(failure.code(), USAGE);
        }
    }

    #[test]
    fn a_value_stays_on_its_line() {
        assert_eq!(on_one_line("Ås, \"7\"\n\u{1b}"), "Ås, \"7\"\\n\\u{1b}");
    }
}
