//! `GET /api/openapi.json`.

use actix_web::HttpResponse;

/// The description of the interface.
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(include_str!("openapi.json"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_description_is_json_and_names_every_path() {
        let api: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        for path in [
            "/live",
            "/ready",
            "/metrics",
            "/api/v1/sql",
            "/api/v1/pipeline",
            "/api/v1/tail",
            "/api/v1/status",
            "/api/v1/audit",
            "/api/v1/devices",
            "/api/v1/devices/bulk",
            "/api/v1/devices/set",
            "/api/v1/devices/revoke",
            "/api/v1/streams",
            "/api/v1/archive/files",
            "/api/v1/archive/check",
            "/api/v1/archive/suggest",
            "/api/v1/archive/compact",
            "/api/v1/archive/vacuum",
        ] {
            assert!(api["paths"].get(path).is_some(), "{path}");
        }
    }
}
