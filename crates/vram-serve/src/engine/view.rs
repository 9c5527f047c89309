//! What listings show of the models, and whether the server is ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;
use vram_residency::ModelReport;

use super::Engine;
use super::slot::State;
use crate::problem::Problem;

/// One model, as listings show it. Lengths are in bytes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModelView {
    pub(crate) name: String,
    pub(crate) configured: bool,
    /// `resident`, `parked`, `absent`, or what a call does to it now: `loading`, `parking`, `waking`,
    /// `migrating`, `freeing`.
    pub(crate) state: &'static str,
    pub(crate) gpus: Vec<u32>,
    pub(crate) shards: u64,
    pub(crate) bytes: u64,
    pub(crate) host_bytes: u64,
    /// Leases of all shards.
    pub(crate) leases: u64,
    pub(crate) pinned: bool,
    pub(crate) priority: u32,
    /// Shards that were found altered.
    pub(crate) quarantined: u64,
    /// Shards on a device that is lost.
    pub(crate) lost: u64,
    /// How long no check has found the shard sound that waits longest, in milliseconds.
    pub(crate) unverified_ms: Option<u64>,
    /// Why the last load failed.
    pub(crate) failure: Option<Problem>,
    /// How far a load that is under way is.
    pub(crate) loading: Option<LoadingView>,
    /// The digest of the manifest that it was loaded from, if it came from a store.
    pub(crate) manifest: Option<String>,
    /// The model that needed its room, if it was parked for one.
    pub(crate) made_room_for: Option<String>,
}

/// A model as a call left it.
#[derive(Debug, Serialize)]
pub(crate) struct Changed {
    #[serde(flatten)]
    pub(crate) model: ModelView,
    /// Models that were parked to make room for it by this call, in the order of their names.
    pub(crate) made_room: Vec<String>,
}

/// How far a load is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LoadingView {
    pub(crate) done_bytes: u64,
    /// 0 until it is known.
    pub(crate) total_bytes: u64,
    /// The store, mirror or cache that the last bytes came from.
    pub(crate) source: Option<String>,
}

/// Whether the server does what it is configured for.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the answer")]
pub(crate) struct Ready {
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    /// The models that are not whole on working devices, and why.
    pub(crate) not_ready: Vec<NotReady>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NotReady {
    pub(crate) model: String,
    pub(crate) state: &'static str,
    pub(crate) why: Option<Problem>,
}

impl Engine {
    /// All models, in the order of their names.
    pub(crate) fn models(&self) -> Vec<ModelView> {
        self.collect_evicted();
        let reports = self.manager.models();
        let admitted = reports.iter().filter(|report| report.admission.is_some());
        // A model from a store has its name here as its owner; one from files is sealed under it.
        let name = |report: &ModelReport| {
            report.owner.clone().unwrap_or_else(|| Arc::clone(&report.model_id))
        };
        let by_name: BTreeMap<Arc<str>, &ModelReport> =
            admitted.map(|report| (name(report), report)).collect();
        let slots = self.slots();
        let shown = slots.iter().map(|(name, slot)| {
            // While a call brings a model, the manager may know it already.
            let report = by_name.get(name.as_str()).copied();
            let mut view = ModelView {
                name: name.clone(),
                configured: slot.configured.is_some(),
                state: slot.state.name(),
                gpus: Vec::new(),
                shards: 0,
                bytes: 0,
                host_bytes: 0,
                leases: 0,
                pinned: false,
                priority: slot.config.priority,
                quarantined: 0,
                lost: 0,
                unverified_ms: None,
                failure: slot.failure.clone(),
                loading: loading(&slot.state),
                manifest: slot.manifest(),
                made_room_for: slot.made_room_for(),
            };
            if let Some(report) = report.filter(|_| !matches!(slot.state, State::Absent)) {
                view.fill(report);
            }
            view
        });
        shown.collect()
    }

    /// One model.
    pub(crate) fn model(&self, name: &str) -> Result<ModelView, Problem> {
        let found = self.models().into_iter().find(|model| model.name == name);
        found.ok_or_else(|| Problem::no_such_model(name))
    }

    /// Runs a call that changes one model, and says how it is then.
    pub(crate) fn changed(
        &self,
        name: &str,
        call: impl FnOnce() -> Result<(), Problem>,
    ) -> Result<Changed, Problem> {
        let before = self.parked_for(name);
        call()?;
        let made_room = self.parked_for(name).difference(&before).cloned().collect();
        Ok(Changed { model: self.model(name)?, made_room })
    }

    /// Whether all configured models, or one model, can be leased now.
    pub(crate) fn ready(&self, only: Option<&str>) -> Result<Ready, Problem> {
        let models = match only {
            Some(name) => vec![self.model(name)?],
            None => self.models().into_iter().filter(|model| model.configured).collect(),
        };
        let not_ready: Vec<_> = models
            .into_iter()
            .filter(|model| !model.is_ready())
            .map(|model| NotReady {
                state: if model.quarantined > 0 {
                    "quarantined"
                } else if model.lost > 0 {
                    "lost"
                } else {
                    model.state
                },
                why: model.why_not(),
                model: model.name,
            })
            .collect();
        let draining = self.is_draining();
        Ok(Ready { ready: not_ready.is_empty() && !draining, draining, not_ready })
    }
}

/// How far a load is, if one is under way.
fn loading(state: &State) -> Option<LoadingView> {
    let State::Busy { doing: "loading", progress, .. } = state else { return None };
    let (done_bytes, total_bytes, source) = progress.get();
    Some(LoadingView { done_bytes, total_bytes, source: source.map(|source| source.to_string()) })
}

impl ModelView {
    /// Whether it can be leased.
    pub(crate) fn is_ready(&self) -> bool {
        self.state == "resident" && self.quarantined == 0 && self.lost == 0
    }

    /// Why it cannot be leased, as far as that is more than its state says.
    fn why_not(&self) -> Option<Problem> {
        let name = &self.name;
        let why = |code: &str, message: String, next: &str| {
            Some(Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message, next))
        };
        if self.quarantined > 0 {
            let message =
                format!("{} shards of model {name:?} were found altered", self.quarantined);
            return why(
                "quarantined",
                message,
                "POST /v1/models/NAME/repair writes them again from its files or its store",
            );
        }
        if self.lost > 0 {
            let message = format!("{} shards of model {name:?} lie on a lost device", self.lost);
            return why("device-lost", message, "POST /v1/gpus/N/reset loads them again");
        }
        if let Some(asker) = &self.made_room_for {
            let message = format!("model {name:?} was parked to make room for {asker:?}");
            return why("evicted", message, "wake it: POST /v1/models/NAME/wake");
        }
        if self.state == "parked" {
            let message = format!("model {name:?} was parked by a call");
            return why("parked", message, "wake it: POST /v1/models/NAME/wake");
        }
        self.failure.clone()
    }

    fn fill(&mut self, report: &ModelReport) {
        self.gpus.clone_from(&report.gpus);
        self.shards = report.pieces;
        self.bytes = report.bytes.get();
        self.host_bytes = report.host_bytes.get();
        self.leases = report.lease_count;
        self.pinned = report.pinned > 0;
        self.quarantined = report.quarantined;
        self.lost = report.lost;
        let oldest = report.oldest_unverified.map(|age| age.as_millis());
        self.unverified_ms = oldest.map(|age| u64::try_from(age).unwrap_or(u64::MAX));
    }
}
