//! Answers that are read whole, within a bound: errors and listings. What a client of `object_store` reads
//! of them has no other end than that of the answer, and a source may send one that has none.

use core::pin::Pin;

use futures_util::StreamExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use super::redirects;

/// Bytes of an error that are read: a text for people. What follows is left out.
const ERROR_MAX: usize = 64 << 10;
/// Longest answer that is no object: a page of a listing, or all of one from a server of files.
const LISTING_MAX: usize = 64 << 20;

/// A connector with bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounded {
    /// Whether reads are followed to other hosts: they have no credentials.
    pub(super) follows: bool,
    /// Whether caches on the way are passed.
    pub(super) past_caches: bool,
}

impl HttpConnector for Bounded {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = redirects::client(options, self.past_caches)?;
        Ok(HttpClient::new(Service { client, follows: self.follows }))
    }
}

#[derive(Debug)]
struct Service {
    client: HttpClient,
    follows: bool,
}

impl HttpService for Service {
    // As `async_trait` writes it.
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let query = request.uri().query().unwrap_or_default();
        let lists = ["list-type=", "comp=list", "prefix="].iter().any(|part| query.contains(part));
        let object = request.method().as_str() == "GET" && !lists;
        Box::pin(async move {
            let answer = redirects::execute(&self.client, request, self.follows).await?;
            match answer.status().is_success() {
                true if object => Ok(answer),
                true => read(answer, LISTING_MAX, Beyond::Refused).await,
                false => read(answer, ERROR_MAX, Beyond::LeftOut).await,
            }
        })
    }
}

/// What becomes of bytes beyond the bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    LeftOut,
    Refused,
}

/// Reads an answer of at most `len_max` bytes.
async fn read(
    answer: HttpResponse,
    len_max: usize,
    beyond: Beyond,
) -> Result<HttpResponse, HttpError> {
    let (head, body) = answer.into_parts();
    let (mut stream, mut bytes) = (body.bytes_stream(), Vec::new());
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        let room = len_max.saturating_sub(bytes.len());
        bytes.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        if piece.len() > room {
            if beyond == Beyond::Refused {
                let why = format!("its answer is longer than {len_max} bytes");
                return Err(HttpError::new(HttpErrorKind::Decode, std::io::Error::other(why)));
            }
            break;
        }
    }
    Ok(HttpResponse::from_parts(head, bytes.into()))
}
