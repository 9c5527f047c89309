//! `vram ctl reset`: takes a device into use again.

use serde::{Deserialize, Serialize};
use serde_json::json;
use vram_serve::Problem;
use vram_serve::client::ClientError;

use super::ctl::{failed, with_token};
use crate::args::CtlReset;
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// What a reset did, as a server says it.
#[derive(Debug, Deserialize, Serialize)]
struct Reset {
    gpu: u32,
    lost: u64,
    loaded: Vec<String>,
    changed: Vec<String>,
    failed: Vec<NotLoaded>,
}

#[derive(Debug, Deserialize, Serialize)]
struct NotLoaded {
    model: String,
    why: Problem,
}

/// Resets a device. A model that does not come back makes the command fail, after the reset.
pub(super) fn run(args: &CtlReset, output: &mut Output) -> Result<(), Failure> {
    let path = format!("/v1/gpus/{}/reset", args.gpu);
    let body = json!({"force": args.force});
    let done: Reset = with_token(&args.to)?.post(&path, &body).map_err(failed)?;
    let models = match done.loaded.len() {
        0 => "no model".to_owned(),
        count => table::count(u64::try_from(count).unwrap_or(u64::MAX), "model"),
    };
    let lost = table::count(done.lost, "shard");
    output.line(format!("gpu {}: reset; {lost} gone, {models} loaded again", done.gpu))?;
    for model in &done.changed {
        output.line(format!(
            "{model}: its files changed since it was loaded; this is their content now"
        ))?;
    }
    for NotLoaded { model, why } in &done.failed {
        output.line(format!("{model}: {}", why.message))?;
    }
    let Some(NotLoaded { model, why }) = done.failed.first() else { return output.json(&done) };
    let mut problem = why.clone();
    problem.message = format!("model {model:?} was not loaded again: {}", why.message);
    let failure = failed(ClientError::Refused(Box::new(problem)));
    output.json_failed(&done, &failure)?;
    Err(failure)
}
