//! `/v1/gpus`: the devices, what their cards say, and their reset.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Has};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;

use super::State;
use super::models::{heavy, in_query};
use super::request::{Asked, answer, call, json};
use crate::engine::reset::{GpuView, ResetRequest};
use crate::problem::Problem;

#[derive(Serialize)]
struct List {
    gpus: Vec<GpuView>,
}

pub(super) async fn list(Has(state): Has<Arc<State>>) -> Result<Response, Problem> {
    let engine = Arc::clone(&state.engine);
    let found = tokio::task::spawn_blocking(move || engine.gpus()).await;
    let gpus = found.map_err(|_panicked| Problem::internal("the list could not be read"))?;
    Ok(answer(&List { gpus }))
}

pub(super) async fn reset(
    Has(state): Has<Arc<State>>,
    gpu: Result<Path<u32>, PathRejection>,
    asks: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path(gpu) = gpu.map_err(|error| Problem::bad_request(format!("path: {error}")))?;
    let asked = in_query(asks)?;
    let request: ResetRequest = json(&state, &headers, body).await?;
    Ok(answer(&call(&state, asked, heavy, move |engine| engine.reset(gpu, request)).await?))
}
