//! What a server holds: `vram ps`, and `vram top`, which reads it again and again.

use std::io::{IsTerminal as _, stdout};
use std::thread;

use serde::{Deserialize, Serialize};
use vram_residency::ByteLen;

use super::ctl::{Model, client, failed};
use crate::args::{PsArgs, ToServer, TopArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Table};

/// The models of a server.
#[derive(Debug, Deserialize)]
struct Models {
    models: Vec<Model>,
}

/// A lease by connection.
#[derive(Debug, Deserialize, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the answer")]
struct Lease {
    lease: u64,
    model: String,
    holder: String,
    age_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Leases {
    leases: Vec<Lease>,
}

/// What the two listings say together.
#[derive(Debug, Serialize)]
struct Listing {
    ready: bool,
    draining: bool,
    models: Vec<Model>,
    leases: Vec<Lease>,
}

#[derive(Debug, Deserialize)]
struct Ready {
    ready: bool,
    draining: bool,
}

/// `vram ps`.
pub(crate) fn ps(args: &PsArgs, output: &mut Output) -> Result<(), Failure> {
    let listing = read(&args.to)?;
    output.json(&listing)?;
    output.write(&listing.render())
}

/// `vram top`.
pub(crate) fn top(args: &TopArgs, output: &mut Output) -> Result<(), Failure> {
    /// Moves to the top left corner, and clears what is below.
    const CLEAR: &str = "\x1b[H\x1b[J";

    let clear = if stdout().is_terminal() { CLEAR } else { "" };
    let mut left = args.count;
    loop {
        let listing = read(&args.to)?;
        output.write(&format!("{clear}{}", listing.render()))?;
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return output.json(&listing);
        }
        thread::sleep(args.every);
    }
}

fn read(to: &ToServer) -> Result<Listing, Failure> {
    // Over TLS, reads need the token too.
    let client = match &to.server {
        Some(server) if server.to_string().starts_with("https:") => super::ctl::with_token(to)?,
        _ => client(to)?,
    };
    // A listing is ready at once, or the server does not answer.
    let client = client.patience(to.patience.unwrap_or(core::time::Duration::from_secs(10)));
    let Ready { ready, draining } = client.get("/readyz").map_err(failed)?;
    let Models { models } = client.get("/v1/models").map_err(failed)?;
    let Leases { leases } = client.get("/v1/leases").map_err(failed)?;
    Ok(Listing { ready, draining, models, leases })
}

impl Listing {
    fn render(&self) -> String {
        let mut models = Table::new(
            3,
            &["model", "state", "gpu", "size", "shards", "leases", "priority", "pinned", "checked"],
        );
        for model in &self.models {
            let gpus: Vec<String> = model.gpus.iter().map(ToString::to_string).collect();
            let state = match (model.quarantined, model.lost, &model.failure) {
                (0, 0, Some(problem)) if model.state == "absent" => {
                    format!("failed: {}", problem.code)
                }
                (0, 0, _) => match (&model.loading, &model.made_room_for) {
                    (Some(loading), _) => loading.words(),
                    (None, Some(other)) => format!("{} for {other}", model.state),
                    (None, None) => model.state.clone(),
                },
                (0, lost, _) => format!("{lost} lost"),
                (altered, _, _) => format!("{altered} altered"),
            };
            let age = model.unverified_ms.map(|ms| format!("{} s ago", ms / 1000));
            models.row([
                model.name.clone(),
                state,
                gpus.join(","),
                table::size(ByteLen::new(model.bytes.max(model.host_bytes))),
                model.shards.to_string(),
                model.leases.to_string(),
                model.priority.to_string(),
                if model.pinned { "yes" } else { "no" }.to_owned(),
                age.unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        let mut text = match (self.ready, self.draining) {
            (_, true) => "being stopped\n",
            (true, _) => "ready\n",
            (false, _) => "not ready\n",
        }
        .to_owned();
        text.push_str(&models.render());
        if !self.leases.is_empty() {
            let mut leases = Table::new(2, &["held model", "holder", "lease", "for"]);
            for lease in &self.leases {
                leases.row([
                    lease.model.clone(),
                    lease.holder.clone(),
                    lease.lease.to_string(),
                    format!("{} s", lease.age_ms / 1000),
                ]);
            }
            text.push_str(&leases.render());
        }
        text
    }
}
