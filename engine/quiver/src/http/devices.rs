//! The registry: who may connect, and what is said of them.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{HttpResponse, http::StatusCode, web};
use quiver_model::{DeviceId, SenderId, SenderKind};
use quiver_runtime::{
    Engine, RegistryFailure,
    registry::{Amendment, Enrolment, Outcome, Wish, fingerprint_digits},
};
use serde::{Deserialize, Serialize};

use super::{HttpState, sql::problem};

/// Most identities of one request: others that change the registry wait for it.
const IDENTITIES_AT_ONCE_MAX: usize = 10_000;

/// Which identities; all if nothing is asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Choice {
    /// Its id.
    id: Option<String>,
    /// `device`, `gateway` or `operator`; a device if only an id is named.
    kind: Option<String>,
    /// Attributes that it must have.
    attributes: Vec<(String, String)>,
}

impl Choice {
    /// Of a query's parameters, of which `where` may be repeated.
    fn of(parameters: Vec<(String, String)>) -> Result<Self, String> {
        let mut choice = Self::default();
        for (name, value) in parameters {
            let once = match name.as_str() {
                "id" => &mut choice.id,
                "kind" => &mut choice.kind,
                "where" => {
                    let attribute = value
                        .split_once('=')
                        .ok_or_else(|| format!("where {value:?} is not key=value"))?;
                    let (key, value) = attribute;
                    choice.attributes.push((key.to_owned(), value.to_owned()));
                    continue;
                }
                _ => return Err(format!("{name:?} is not one of id, kind, where")),
            };
            if once.replace(value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(choice)
    }
}

/// `GET /api/v1/devices`.
pub async fn list(
    state: web::Data<HttpState>,
    parameters: web::Query<Vec<(String, String)>>,
) -> HttpResponse {
    let wrong = |error: String| problem(StatusCode::BAD_REQUEST, &error);
    let choice = match Choice::of(parameters.into_inner()) {
        Ok(choice) => choice,
        Err(error) => return wrong(error),
    };
    let registry = &state.engine.control().registry;
    let Some(id) = &choice.id else {
        return HttpResponse::Ok().json(registry.all_with(&choice.attributes));
    };
    let kind = choice.kind.unwrap_or_else(device_kind);
    match sender(&kind, id) {
        Ok(sender) => {
            let entry = registry.get(&sender).filter(|entry| {
                let mut wanted = choice.attributes.iter();
                wanted.all(|(key, value)| entry.attributes.get(key) == Some(value))
            });
            HttpResponse::Ok().json(Vec::from_iter(entry))
        }
        Err(error) => wrong(error),
    }
}

/// Body of `POST /api/v1/devices`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The id.
    pub id: String,
    /// `device`, `gateway` or `operator`.
    #[serde(default = "device_kind")]
    pub kind: String,
    /// SHA-256 of the one certificate it may use.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// SHA-256 of its bearer token.
    #[serde(default)]
    pub token_sha256: Option<String>,
    /// Gateways that may speak for it.
    #[serde(default)]
    pub gateways: BTreeSet<String>,
    /// What people say of it.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

fn device_kind() -> String {
    SenderKind::Device.as_str().to_owned()
}

fn sender(kind: &str, id: &str) -> Result<SenderId, String> {
    DeviceId::new(id).map_err(|error| error.to_string())?;
    SenderId::from_urn(&format!("urn:quiver:{kind}:{id}"))
        .ok_or_else(|| format!("kind {kind:?} is not one of device, gateway, operator"))
}

/// A fingerprint as the registry has it.
fn digits(fingerprint: Option<&str>) -> Result<Option<String>, String> {
    let digits = fingerprint.map(fingerprint_digits).transpose();
    digits.map_err(|error| error.to_string())
}

impl EnrollRequest {
    fn wish(self) -> Result<Wish, String> {
        Ok(Wish::Enroll(Enrolment {
            sender: sender(&self.kind, &self.id)?,
            fingerprint: digits(self.fingerprint.as_deref())?,
            token_sha256: self.token_sha256,
            gateways: self.gateways,
            attributes: self.attributes,
        }))
    }
}

/// `POST /api/v1/devices`.
pub async fn enroll(
    state: web::Data<HttpState>,
    request: web::Json<EnrollRequest>,
) -> HttpResponse {
    let wish = match request.into_inner().wish() {
        Ok(wish) => wish,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    match state.engine.change_identities(vec![wish]).await {
        Ok(outcome) => match outcome.refused.first() {
            Some((_, refusal)) => problem(StatusCode::BAD_REQUEST, &refusal.to_string()),
            None => done(),
        },
        Err(failure) => problem(StatusCode::SERVICE_UNAVAILABLE, &failure.source.to_string()),
    }
}

fn done() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "done": true }))
}

/// Body of `POST /api/v1/devices/bulk`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    /// Identities, each as for `POST /api/v1/devices`; at most [`IDENTITIES_AT_ONCE_MAX`].
    pub identities: Vec<EnrollRequest>,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct BulkAnswer {
    /// Identities that are enrolled now, each counted once.
    pub enrolled: usize,
    /// Those that are not.
    pub refused: Vec<Refused>,
}

/// An identity with which was not done what was asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// Its place in the request, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub error: String,
}

/// Wishes of a request.
#[derive(Default)]
struct Wishes {
    wishes: Vec<Wish>,
    /// The place of each in the request.
    places: Vec<usize>,
    refused: Vec<Refused>,
}

impl Wishes {
    /// Those that are well formed.
    ///
    /// # Errors
    /// If there are more than there may be at once.
    fn of(all: impl ExactSizeIterator<Item = Result<Wish, String>>) -> Result<Self, String> {
        if all.len() > IDENTITIES_AT_ONCE_MAX {
            return Err(format!(
                "{} identities at once are more than {IDENTITIES_AT_ONCE_MAX}; send them in several requests",
                all.len()
            ));
        }
        let mut wishes = Self::default();
        for (index, wish) in all.enumerate() {
            match wish {
                Ok(wish) => {
                    wishes.wishes.push(wish);
                    wishes.places.push(index);
                }
                Err(error) => wishes.refused.push(Refused { index, error }),
            }
        }
        Ok(wishes)
    }

    /// Grants those that may be granted; what became of them, and all that were refused.
    async fn grant(self, engine: &Engine) -> Result<(Outcome, Vec<Refused>), RegistryFailure> {
        let outcome = engine.change_identities(self.wishes).await?;
        let mut refused = self.refused;
        refused.extend(outcome.refused.iter().filter_map(|(number, refusal)| {
            Some(Refused {
                index: *self.places.get(*number)?,
                error: refusal.to_string(),
            })
        }));
        refused.sort_unstable_by_key(|refused| refused.index);
        Ok((outcome, refused))
    }
}

/// `POST /api/v1/devices/bulk`: what is wrong is named, and the rest is enrolled.
pub async fn enroll_bulk(
    state: web::Data<HttpState>,
    request: web::Json<BulkRequest>,
) -> HttpResponse {
    let identities = request.into_inner().identities;
    let wishes = match Wishes::of(identities.into_iter().map(EnrollRequest::wish)) {
        Ok(wishes) => wishes,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    match wishes.grant(&state.engine).await {
        Ok((outcome, refused)) => HttpResponse::Ok().json(BulkAnswer {
            enrolled: outcome.enrolled + outcome.changed + outcome.unchanged,
            refused,
        }),
        Err(failure) => problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
    }
}

/// Body of `POST /api/v1/devices/set`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    /// Identities with what is to be changed; at most [`IDENTITIES_AT_ONCE_MAX`].
    pub identities: Vec<AmendRequest>,
    /// Whether those that nobody knows are enrolled; they are refused otherwise.
    #[serde(default)]
    pub enroll_unknown: bool,
}

/// What is to be changed of an identity; the rest stays.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmendRequest {
    /// The id.
    pub id: String,
    /// `device`, `gateway` or `operator`.
    #[serde(default = "device_kind")]
    pub kind: String,
    /// SHA-256 of the one certificate it may use from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Gateways that may speak for it, beside those that may already.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gateways: BTreeSet<String>,
    /// Attributes to be set, or removed (null).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Option<String>>,
}

impl AmendRequest {
    fn wish(self, enrolls_unknown: bool) -> Result<Wish, String> {
        Ok(Wish::Amend(Amendment {
            sender: sender(&self.kind, &self.id)?,
            fingerprint: digits(self.fingerprint.as_deref())?,
            gateways: self.gateways,
            attributes: self.attributes,
            enrolls_unknown,
        }))
    }
}

/// Its answer. Each identity is counted once.
#[derive(Debug, Serialize, Deserialize)]
pub struct SetAnswer {
    /// Identities that nobody knew before.
    pub enrolled: usize,
    /// Identities of which something else is said now.
    pub changed: usize,
    /// Identities of which it was said before.
    pub unchanged: usize,
    /// Those of which nothing was changed.
    pub refused: Vec<Refused>,
}

/// `POST /api/v1/devices/set`: what is wrong is named, and the rest is changed.
pub async fn set(state: web::Data<HttpState>, request: web::Json<SetRequest>) -> HttpResponse {
    let SetRequest {
        identities,
        enroll_unknown,
    } = request.into_inner();
    let wishes = identities
        .into_iter()
        .map(|identity| identity.wish(enroll_unknown));
    let wishes = match Wishes::of(wishes) {
        Ok(wishes) => wishes,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    match wishes.grant(&state.engine).await {
        Ok((outcome, refused)) => HttpResponse::Ok().json(SetAnswer {
            enrolled: outcome.enrolled,
            changed: outcome.changed,
            unchanged: outcome.unchanged,
            refused,
        }),
        Err(failure) => problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
    }
}

/// Body of `POST /api/v1/devices/revoke`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The id.
    pub id: String,
    /// `device`, `gateway` or `operator`.
    #[serde(default = "device_kind")]
    pub kind: String,
}

/// `POST /api/v1/devices/revoke`.
pub async fn revoke(
    state: web::Data<HttpState>,
    request: web::Json<RevokeRequest>,
) -> HttpResponse {
    let sender = match sender(&request.kind, &request.id) {
        Ok(sender) => sender,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    match state.engine.revoke(&sender).await {
        Ok(true) => done(),
        Ok(false) => {
            let text = format!("{sender} is not enrolled; quiver devices list shows who is");
            problem(StatusCode::NOT_FOUND, &text)
        }
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(parameters: &[(&str, &str)]) -> Result<Choice, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Choice::of(parameters.iter().map(owned).collect())
    }

    #[test]
    fn what_is_asked_of_the_list_is_understood_or_named() {
        assert_eq!(choice(&[]), Ok(Choice::default()));
        let asked = [("where", "site=a=b"), ("id", "x"), ("where", "fleet=")];
        let understood = choice(&asked).unwrap();
        assert_eq!(understood.id.as_deref(), Some("x"));
        let expected = [("site", "a=b"), ("fleet", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(understood.attributes, expected);
        for (wrong, part) in [
            (&[("were", "fleet=west")][..], "\"were\""),
            (&[("where", "fleet")], "key=value"),
            (&[("id", "a"), ("id", "b")], "id is given twice"),
        ] {
            let error = choice(wrong).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn null_removes_an_attribute() {
        let text = r#"{"id": "truck_1", "attributes": {"fleet": "west", "model": null}}"#;
        let Wish::Amend(wish) = serde_json::from_str::<AmendRequest>(text)
            .unwrap()
            .wish(false)
            .unwrap()
        else {
            panic!("an amendment is one");
        };
        let expected = [("fleet", Some("west")), ("model", None)];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(wish.attributes, BTreeMap::from(expected));
        assert!(wish.fingerprint.is_none() && wish.gateways.is_empty());
    }

    #[test]
    fn what_is_malformed_keeps_its_place() {
        let identity = |id: &str| AmendRequest {
            id: id.to_owned(),
            kind: device_kind(),
            fingerprint: None,
            gateways: BTreeSet::new(),
            attributes: BTreeMap::new(),
        };
        let all = ["a", "no id", "b"].map(|id| identity(id).wish(true));
        let wishes = Wishes::of(all.into_iter()).unwrap();
        assert_eq!((wishes.places, wishes.refused[0].index), (vec![0, 2], 1));
        let many = vec![Err(String::new()); IDENTITIES_AT_ONCE_MAX + 1];
        assert!(Wishes::of(many.into_iter()).is_err());
    }
}
