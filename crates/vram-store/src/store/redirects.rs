//! The client for HTTP, and where a redirect may lead.
//!
//! A server of files is asked without credentials: its reads are followed to other hosts, and never from https
//! to http. Buckets are asked with credentials, and what is written is the caller's: neither goes anywhere else.

use core::time::Duration;

use object_store::client::{
    ClientConfigKey, HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse,
};
use object_store::{ClientOptions, Error, Result};
use reqwest::header::{CACHE_CONTROL, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Method, Url};

/// Most redirects of one request.
const REDIRECTS_MAX: u32 = 5;

/// A client as `object_store` makes one, but for redirects, of which it follows none.
pub(super) fn client(options: &ClientOptions, past_caches: bool) -> Result<HttpClient> {
    let mut headers = HeaderMap::new();
    if past_caches {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    let value = |key| options.get_config_value(&key);
    let plain = value(ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("vram-store/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(Policy::none())
        .https_only(!plain)
        .http1_only();
    // In the form of `with_connect_timeout`: seconds.
    let connect = value(ClientConfigKey::ConnectTimeout);
    if let Some(seconds) = connect.and_then(|text| text.strip_suffix('s')?.parse().ok()) {
        builder = builder.connect_timeout(Duration::from_secs(seconds));
    }
    let failed = |error| Error::Generic { store: "HTTP", source: Box::new(error) };
    Ok(HttpClient::new(builder.build().map_err(failed)?))
}

/// Sends a request, and follows where the answer leads, if it may.
///
/// # Arguments
///
/// * `follows`: the requests have no credentials.
pub(super) async fn execute(
    client: &HttpClient,
    request: HttpRequest,
    follows: bool,
) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = request.into_parts();
    let mut answer = client.execute(HttpRequest::from_parts(parts.clone(), body)).await?;
    for _ in 0..REDIRECTS_MAX {
        let Some(to) = leads_to(&parts.uri.to_string(), &answer)? else { return Ok(answer) };
        if !follows || ![Method::GET, Method::HEAD].contains(&parts.method) {
            let why = "and neither credentials nor what is written is sent elsewhere: give that address, or \
                       the region and the endpoint of the bucket";
            return Err(refused(&to, why));
        }
        // Another host gets nothing but what it needs to answer.
        let range = parts.headers.get(RANGE).cloned();
        parts.headers.clear();
        parts.headers.extend(range.map(|range| (RANGE, range)));
        let unreadable = |error| HttpError::new(HttpErrorKind::Decode, error);
        parts.uri = to.as_str().parse().map_err(unreadable)?;
        let next = HttpRequest::from_parts(parts.clone(), HttpRequestBody::empty());
        answer = client.execute(next).await?;
    }
    match leads_to(&parts.uri.to_string(), &answer)? {
        Some(to) => Err(refused(&to, &format!("after {REDIRECTS_MAX} other redirects"))),
        None => Ok(answer),
    }
}

/// Where an answer leads; `None` if it is no redirect.
fn leads_to(from: &str, answer: &HttpResponse) -> Result<Option<Url>, HttpError> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(to) = answer.headers().get(LOCATION) else { return Ok(None) };
    let from = Url::parse(from).ok();
    let to = from.as_ref().zip(to.to_str().ok()).and_then(|(from, to)| from.join(to).ok());
    let (Some(from), Some(to)) = (from, to) else {
        let why = "it redirects to something that is no address";
        return Err(HttpError::new(HttpErrorKind::Decode, std::io::Error::other(why)));
    };
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(to)),
        _ => Err(refused(&to, "and what was asked for by https is read by https alone")),
    }
}

/// Without the path of the address, which may be a signed one.
fn refused(to: &Url, why: &str) -> HttpError {
    let host = format!("{}://{}", to.scheme(), to.host_str().unwrap_or_default());
    let port = to.port().map_or_else(String::new, |port| format!(":{port}"));
    let why = format!("it redirects to {host}{port}, {why}");
    HttpError::new(HttpErrorKind::Decode, std::io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use core::pin::Pin;
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt as _;
    use object_store::client::HttpService;
    use reqwest::header::{AUTHORIZATION, HOST, HeaderName};

    use super::*;

    /// A server that redirects all but one path; what it was asked.
    #[derive(Clone, Debug)]
    struct Leading {
        to: &'static str,
        asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    }

    impl HttpService for Leading {
        fn call<'s, 'f>(
            &'s self,
            request: HttpRequest,
        ) -> Pin<Box<dyn Future<Output = core::result::Result<HttpResponse, HttpError>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            let path = request.uri().path().to_owned();
            let asked = (request.uri().to_string(), request.headers().clone());
            self.asked.lock().unwrap().push(asked);
            let mut answer = HttpResponse::new(String::new().into());
            if path != "/end" {
                *answer.status_mut() = "302".parse().unwrap();
                answer.headers_mut().insert(LOCATION, self.to.parse().unwrap());
            }
            Box::pin(async move { Ok(answer) })
        }
    }

    fn ask(
        method: Method,
        from: &str,
        to: &'static str,
        follows: bool,
    ) -> (core::result::Result<u16, String>, Vec<(String, HeaderMap)>) {
        let leading = Leading { to, asked: Arc::default() };
        let client = HttpClient::new(leading.clone());
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = from.parse().unwrap();
        for name in [AUTHORIZATION, HOST] {
            request.headers_mut().insert(name, "secret".parse().unwrap());
        }
        request.headers_mut().insert("x-amz-security-token", "secret".parse().unwrap());
        request.headers_mut().insert(RANGE, "bytes=0-9".parse().unwrap());
        let answer = execute(&client, request, follows).now_or_never().unwrap();
        let answer = answer.map(|answer| answer.status().as_u16());
        let answer = answer.map_err(|error| super::super::caused(&error));
        let asked = leading.asked.lock().unwrap().clone();
        (answer, asked)
    }

    #[test]
    fn a_read_is_followed_without_anything_but_its_range() {
        for (from, to) in [
            ("http://a/x", "http://b/end"),
            ("http://a/x", "https://b/end"),
            ("https://a/x", "https://b/end"),
            ("https://a/x/y", "/end"),
        ] {
            let (answer, asked) = ask(Method::GET, from, to, true);
            assert_eq!(answer, Ok(200), "{from} {to}");
            assert_eq!(asked.len(), 2, "{from} {to}");
            let (address, headers) = &asked[1];
            assert!(address.ends_with(to), "{address}");
            let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["range"], "{to}");
        }
    }

    #[test]
    fn nothing_goes_where_it_should_not() {
        for (method, from, to, follows, why) in [
            (Method::GET, "https://a/x", "http://a/end", true, "by https alone"),
            (Method::GET, "https://a/x", "file:///end", true, "by https alone"),
            (Method::GET, "https://a/x", "https://b/end?sig=abc", false, "https://b, and neither"),
            (Method::PUT, "http://a/x", "http://b:81/end", true, "http://b:81, and neither"),
            (Method::DELETE, "http://a/x", "http://a/end", true, "http://a, and neither"),
            (Method::GET, "http://a/x", "http://a/x", true, "after 5 other redirects"),
            (Method::GET, "http://a/x", "http://", true, "no address"),
        ] {
            let (answer, asked) = ask(method, from, to, follows);
            let said = answer.unwrap_err();
            assert!(said.contains(why) && !said.contains("abc"), "{from} {to}: {said}");
            assert_eq!(asked.len(), if why.contains("after") { 6 } else { 1 }, "{from} {to}");
        }
    }
}
