//! Who may ask, and how.

use std::rc::Rc;

use actix_web::{
    Error, HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{Extensions, ServiceRequest, ServiceResponse},
    http::{Method, header},
    middleware::Next,
    web::Data,
};

use super::{Gate, HttpState};

type Answer<B> = Result<ServiceResponse<EitherBody<B>>, Error>;

fn refuse<B>(request: ServiceRequest, response: HttpResponse) -> ServiceResponse<EitherBody<B>> {
    request.into_response(response).map_into_right_body()
}

fn problem(text: &str) -> serde_json::Value {
    serde_json::json!({ "error": text })
}

/// The name or address in a Host header; `None` if it is anything but one with or without a port,
/// since what others make of such a header is not known.
fn host_name(host: &str) -> Option<&str> {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        (address, port)
    } else {
        let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_letter) {
            return None;
        }
        (name, port)
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    is_port.then_some(name)
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Lets only requests pass that were made to a loopback name or a configured one.
pub async fn known_host<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Answer<B> {
    let mut hosts = request.headers().get_all(header::HOST);
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or(""),
        _ => "",
    };
    let Some(name) = host_name(host).map(str::to_owned) else {
        let text =
            format!("the Host header {host:?} is not one name or address, with or without a port");
        return Ok(refuse(
            request,
            HttpResponse::BadRequest().json(problem(&text)),
        ));
    };
    let known = request
        .app_data::<Data<Gate>>()
        .is_some_and(|gate| gate.knows_host(&name));
    if is_loopback(&name) || known {
        return next
            .call(request)
            .await
            .map(ServiceResponse::map_into_left_body);
    }
    let text =
        format!("host {name:?} is not known to this server; start it with --http-host {name}");
    Ok(refuse(
        request,
        HttpResponse::MisdirectedRequest().json(problem(&text)),
    ))
}

/// Lets requests pass once the engine is there, and gives them its state.
pub async fn started<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Answer<B> {
    let state = request
        .app_data::<Data<Gate>>()
        .and_then(|gate| gate.state());
    let Some(state) = state else {
        let text = "the engine is starting: it brings back what its log holds; ask again in a moment, /ready says when";
        let mut response = HttpResponse::ServiceUnavailable();
        response.insert_header((header::RETRY_AFTER, "1"));
        return Ok(refuse(request, response.json(problem(text))));
    };
    let mut extensions = Extensions::new();
    extensions.insert(state);
    request.add_data_container(Rc::new(extensions));
    next.call(request)
        .await
        .map(ServiceResponse::map_into_left_body)
}

/// Lets only requests pass that have the token, and, if they have a body, say that it is JSON.
pub async fn token_and_json<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Answer<B> {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let allowed = match (given, request.app_data::<Data<HttpState>>()) {
        (Some(given), Some(state)) => same(given.trim(), &state.token),
        _ => false,
    };
    if !allowed {
        let text =
            "send the token: Authorization: Bearer <content of http-token in the data directory>";
        return Ok(refuse(
            request,
            HttpResponse::Unauthorized().json(problem(text)),
        ));
    }
    let is_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        });
    if request.method() != Method::GET && !is_json {
        let text = "send a JSON body, with Content-Type: application/json";
        return Ok(refuse(
            request,
            HttpResponse::UnsupportedMediaType().json(problem(text)),
        ));
    }
    next.call(request)
        .await
        .map(ServiceResponse::map_into_left_body)
}

/// Compares in a time that does not depend on where the two differ.
fn same(given: &str, expected: &str) -> bool {
    given.len() == expected.len()
        && given
            .bytes()
            .zip(expected.bytes())
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_known_by_their_name_without_the_port() {
        for host in [
            "localhost:8080",
            "127.0.0.1",
            "[::1]:8080",
            "[::1]",
            "LOCALHOST",
        ] {
            assert!(host_name(host).is_some_and(is_loopback), "{host}");
        }
        assert_eq!(host_name("evil.example:8080"), Some("evil.example"));
    }

    #[test]
    fn what_is_no_host_is_none() {
        for host in [
            "",
            ":8080",
            "localhost:5480@evil",
            "localhost:5480@evil:80",
            "localhost:",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "localhost/evil",
            "localhost evil",
            "user@localhost",
            "[::1",
            "[::1]evil",
            "[localhost]",
            "::1",
        ] {
            assert_eq!(host_name(host), None, "{host}");
        }
    }

    #[test]
    fn tokens_are_the_same_only_if_they_are() {
        assert!(same("abc", "abc"));
        assert!(!same("abd", "abc") && !same("ab", "abc") && !same("", "abc"));
    }
}
