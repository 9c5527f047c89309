//! Who may do what: reads on this machine are free, all else needs the token.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State as Has};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use vram_residency::SealKey;

use super::{Counts, State};
use crate::problem::Problem;

/// The secret that control calls carry. It is never printed, logged or answered.
pub(crate) struct Token(Box<[u8; 64]>);

impl Token {
    /// The digits of a token file, which has the form of a key file.
    pub(crate) fn of(secret: &SealKey) -> Self {
        let digits = secret.expose_hex();
        let mut held = Box::new([0; 64]);
        for (to, from) in held.iter_mut().zip(digits.bytes()) {
            *to = from;
        }
        Self(held)
    }

    /// Whether a request carries the token, compared in constant time.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, given)) = value.as_bytes().split_at_checked(7) else { return false };
        // The length of a token is no secret.
        scheme.eq_ignore_ascii_case(b"bearer ") && self.0.ct_eq(given).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Which way a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// A Unix socket of this user's.
    Unix,
    /// TCP on loopback.
    Loopback,
    /// TLS, from anywhere.
    Tls,
}

/// Lets a request through, or answers 401 or 421.
pub(super) async fn guard(Has(state): Has<Arc<State>>, request: Request, next: Next) -> Response {
    Counts::add(&state.counts.requests);
    let door = request.extensions().get::<Door>().copied().unwrap_or(Door::Tls);
    if door == Door::Loopback && !names_loopback(&request) {
        return Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong-host",
            "the request names a host that is not this machine",
            "connect to 127.0.0.1, [::1] or localhost by that name",
        )
        .into_response();
    }
    let path = request.uri().path();
    let probe = matches!(path, "/healthz" | "/readyz");
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let free = reads && (probe || door != Door::Tls);
    if !free && !state.token.is_in(request.headers()) {
        Counts::add(&state.counts.unauthorized);
        return Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "this call needs the token of this server, and the request has none or another one",
            "send the header `Authorization: Bearer TOKEN`, with the content of the token file",
        )
        .into_response();
    }
    next.run(request).await
}

/// Whether the host of a request is a name of loopback. A page of a browser that was led here under
/// another name (DNS rebinding) does not read what programs of this machine may.
fn names_loopback(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    let Some(host) = authority.or(host) else { return false };
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _port)) => inside,
        None => host.split_once(':').map_or(host, |(host, _port)| host),
    };
    let address = host.parse::<core::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_whole_text_after_the_scheme_once() {
        let key = SealKey::from_bytes(&[7; 32]);
        let token = Token::of(&key);
        let digits = key.expose_hex();
        let given = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            token.is_in(&headers)
        };
        let (good, upper) = (format!("Bearer {}", *digits), format!("BEARER {}", *digits));
        assert!(given(&[&good]) && given(&[&upper]));
        assert!(!given(&[]) && !given(&[&good, &good]));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            &digits[..],
            &good[..good.len() - 1],
            &format!("{good}0"),
            &format!("Basic  {}", *digits),
            &format!("Bearer {}", "0".repeat(64)),
        ] {
            assert!(!given(&[wrong]), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
