//! `/v1/models`: what is where, and the calls that change it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Has};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;

use super::State;
use super::request::{Asked, answer, bytes_as, call, json};
use crate::engine::Engine;
use crate::engine::calls::{LoadRequest, MoveRequest, VerifyRequest, WaitRequest};
use crate::engine::view::ModelView;
use crate::lane::Lane;
use crate::problem::Problem;

type Shared = Has<Arc<State>>;
type Name = Result<Path<String>, PathRejection>;
type Asks = Result<Query<Asked>, QueryRejection>;

#[derive(Serialize)]
struct List {
    models: Vec<ModelView>,
}

pub(super) async fn list(Has(state): Shared) -> Result<Response, Problem> {
    let engine = Arc::clone(&state.engine);
    let render = move || to_json(&List { models: engine.models() });
    Ok(bytes_as("application/json", state.models.get(render).await?))
}

pub(super) async fn one(Has(state): Shared, name: Name) -> Result<Response, Problem> {
    let name = in_path(name)?;
    let engine = Arc::clone(&state.engine);
    let found = tokio::task::spawn_blocking(move || engine.model(&name)).await;
    Ok(answer(&found.map_err(|_panicked| Problem::internal("the list could not be read"))??))
}

pub(super) async fn load(
    Has(state): Shared,
    name: Name,
    asks: Asks,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (name, asked) = (in_path(name)?, in_query(asks)?);
    let request: LoadRequest = json(&state, &headers, body).await?;
    let loading = name.clone();
    let loaded = call(&state, asked, heavy, move |engine| {
        engine.load(&loading, &request)?;
        engine.model(&loading)
    });
    let loaded = loaded.await.inspect_err(|problem| {
        // Nobody waits for it any more: what it took is given back.
        if problem.code == "deadline" {
            state.engine.cancel(&name);
        }
    });
    Ok(answer(&loaded?))
}

pub(super) async fn verify(
    Has(state): Shared,
    name: Name,
    asks: Asks,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (name, asked) = (in_path(name)?, in_query(asks)?);
    let request: VerifyRequest = json(&state, &headers, body).await?;
    let verified = call(&state, asked, heavy, move |engine| engine.verify(&name, request));
    Ok(answer(&verified.await?))
}

pub(super) async fn repair(
    Has(state): Shared,
    name: Name,
    asks: Asks,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (name, asked) = (in_path(name)?, in_query(asks)?);
    let _nothing: Empty = json(&state, &headers, body).await?;
    Ok(answer(&call(&state, asked, heavy, move |engine| engine.repair(&name)).await?))
}

/// A body without fields.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

/// Generates the handler of a call that changes where a model is, and answers with its new view.
macro_rules! moves {
    ($name:ident, $request:ty, $lane:ident) => {
        pub(super) async fn $name(
            Has(state): Shared,
            name: Name,
            asks: Asks,
            headers: HeaderMap,
            body: Body,
        ) -> Result<Response, Problem> {
            let (name, asked) = (in_path(name)?, in_query(asks)?);
            let request: $request = json(&state, &headers, body).await?;
            let moved = call(&state, asked, $lane, move |engine| {
                engine.$name(&name, request)?;
                engine.model(&name)
            });
            Ok(answer(&moved.await?))
        }
    };
}

moves!(park, WaitRequest, heavy);
moves!(wake, MoveRequest, heavy);
moves!(migrate, MoveRequest, heavy);

pub(super) async fn free(
    Has(state): Shared,
    name: Name,
    asks: Asks,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (name, asked) = (in_path(name)?, in_query(asks)?);
    let request: WaitRequest = json(&state, &headers, body).await?;
    Ok(answer(&call(&state, asked, light, move |engine| engine.free(&name, request)).await?))
}

pub(super) async fn pin(
    state: Shared,
    name: Name,
    asks: Asks,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    set_pinned(true, state, name, asks, headers, body).await
}

pub(super) async fn unpin(
    state: Shared,
    name: Name,
    asks: Asks,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    set_pinned(false, state, name, asks, headers, body).await
}

async fn set_pinned(
    pinned: bool,
    Has(state): Shared,
    name: Name,
    asks: Asks,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (name, asked) = (in_path(name)?, in_query(asks)?);
    let _nothing: Empty = json(&state, &headers, body).await?;
    let set = call(&state, asked, light, move |engine| {
        engine.set_pinned(&name, pinned)?;
        engine.model(&name)
    });
    Ok(answer(&set.await?))
}

pub(super) const fn heavy(engine: &Engine) -> &Lane {
    &engine.heavy
}

const fn light(engine: &Engine) -> &Lane {
    &engine.light
}

/// The name in a path.
fn in_path(name: Name) -> Result<String, Problem> {
    match name {
        Ok(Path(name)) => Ok(name),
        Err(error) => Err(Problem::bad_request(format!("path: {error}"))),
    }
}

/// The query of a call.
pub(super) fn in_query(asks: Asks) -> Result<Asked, Problem> {
    match asks {
        Ok(Query(asked)) => Ok(asked),
        Err(error) => Err(Problem::bad_request(format!("query: {}", error.body_text()))),
    }
}

/// A rendering for all that ask at the same time.
pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| Problem::internal(error.to_string()))
}
