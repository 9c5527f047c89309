//! `/`: the page that people look at.

use axum::response::Html;

/// The page. This is the one place that names it.
const PAGE: &str = "<!doctype html><html lang=\"en\"><title>vram</title>\n\
    <p>vram serves. See <a href=\"/v1/models\">models</a>, <a href=\"/v1/leases\">leases</a>, \
    <a href=\"/metrics\">metrics</a>, <a href=\"/snapshot\">snapshot</a>, \
    <a href=\"/openapi.json\">the API</a>.</p></html>\n";

pub(super) async fn live() -> Html<&'static str> {
    Html(PAGE)
}
