//! `/v1/models`: what is where, and the calls that change it.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, Path, Query, Request, State as Has};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::State;
use super::request::{Asked, answer, bytes_as, call, call_for, json};
use crate::engine::Engine;
use crate::engine::calls::{MoveRequest, VerifyRequest, WaitRequest};
use crate::engine::load::LoadRequest;
use crate::engine::view::ModelView;
use crate::lane::{Awaited, Lane};
use crate::problem::Problem;

type Shared = Has<Arc<State>>;
type Name = Result<Path<String>, PathRejection>;
type Asks = Result<Query<Asked>, QueryRejection>;

/// What a call on a model says: the name in its path, its query and its body.
pub(super) struct Control<T> {
    name: String,
    asked: Asked,
    request: T,
}

impl<T: DeserializeOwned> FromRequest<Arc<State>> for Control<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Self, Problem> {
        let mut request = request;
        let name = in_path(request.extract_parts().await)?;
        let asked = in_query(request.extract_parts().await)?;
        let (parts, body) = request.into_parts();
        Ok(Self { name, asked, request: json(state, &parts.headers, body).await? })
    }
}

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
    Control { name, asked, request }: Control<LoadRequest>,
) -> Result<Response, Problem> {
    let (loading, awaited) = (name.clone(), Arc::<Awaited>::default());
    let waits = Arc::clone(&awaited);
    let loaded = call_for(&state, asked, heavy, awaited, move |engine| {
        engine.changed(&loading, || engine.load_for(&loading, &request, &waits))
    });
    let loaded = loaded.await.inspect_err(|problem| {
        // Nobody waits for it any more: what it took is given back.
        if problem.code == "deadline" {
            let _ended_meanwhile = state.engine.cancel(&name);
        }
    });
    Ok(answer(&loaded?))
}

/// A body without fields.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

/// Generates the handler of a call that answers with what the engine returns for it.
macro_rules! answers {
    ($name:ident, $request:ty, $lane:ident, $engine:ident, $model:ident, $asked:pat => $answer:expr) => {
        pub(super) async fn $name(
            Has(state): Shared,
            Control { name: $model, asked, request: $asked }: Control<$request>,
        ) -> Result<Response, Problem> {
            Ok(answer(&call(&state, asked, $lane, move |$engine| $answer).await?))
        }
    };
}

/// Generates the handler of a call that changes where a model is, or how it is held, and answers with its new
/// view, and with the models that made room for it.
macro_rules! moves {
    ($name:ident, $request:ty, $lane:ident, $engine:ident, $model:ident, $asked:pat => $change:expr) => {
        answers!($name, $request, $lane, $engine, $model, $asked => {
            $engine.changed(&$model, || $change)
        });
    };
}

answers!(verify, VerifyRequest, heavy, engine, name, asked => engine.verify(&name, asked));
answers!(repair, Empty, heavy, engine, name, _ => engine.repair(&name));
answers!(free, WaitRequest, light, engine, name, asked => engine.free(&name, asked));
moves!(park, WaitRequest, heavy, engine, name, asked => engine.park(&name, asked));
moves!(wake, MoveRequest, heavy, engine, name, asked => engine.wake(&name, asked));
moves!(migrate, MoveRequest, heavy, engine, name, asked => engine.migrate(&name, asked));
moves!(pin, Empty, light, engine, name, _ => engine.set_pinned(&name, true));
moves!(unpin, Empty, light, engine, name, _ => engine.set_pinned(&name, false));

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
