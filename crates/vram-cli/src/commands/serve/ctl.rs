//! The commands that change what a server holds: `vram ctl …`, `vram stop`.

use core::time::Duration;
use std::path::{Path, PathBuf, absolute};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vram_serve::client::{Client, ClientError, Server, model_path};
use vram_serve::config::default_token_file;
use vram_serve::{Problem, ServeReport};

use super::words::in_commands;
use crate::args::{CheckLevel, CtlArgs, CtlCommand, CtlLoad, Mode, StopArgs, ToServer};
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::table;

/// A model, as a server shows it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) configured: bool,
    pub(super) state: String,
    pub(super) gpus: Vec<u32>,
    pub(super) shards: u64,
    pub(super) bytes: u64,
    pub(super) host_bytes: u64,
    pub(super) leases: u64,
    pub(super) pinned: bool,
    pub(super) priority: u32,
    pub(super) quarantined: u64,
    pub(super) lost: u64,
    pub(super) unverified_ms: Option<u64>,
    pub(super) failure: Option<Problem>,
    pub(super) loading: Option<Loading>,
    pub(super) manifest: Option<String>,
    pub(super) made_room_for: Option<String>,
}

/// A model as a call left it, and the models that were parked to make room for it.
#[derive(Debug, Deserialize, Serialize)]
struct Changed {
    #[serde(flatten)]
    model: Model,
    made_room: Vec<String>,
}

/// How far a load is, as a server says it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Loading {
    done_bytes: u64,
    total_bytes: u64,
    source: Option<String>,
}

impl Loading {
    /// For a listing: the share that is done, and the source.
    pub(super) fn words(&self) -> String {
        let percent = self.done_bytes.saturating_mul(100).checked_div(self.total_bytes);
        let from = self.source.as_ref().map(|source| format!(" from {source}"));
        let percent = percent.map(|percent| format!(" {percent}%"));
        format!("loading{}{}", percent.unwrap_or_default(), from.unwrap_or_default())
    }
}

/// A client of the server that the command line names.
pub(super) fn client(to: &ToServer) -> Result<Client, Failure> {
    /// A large model may take as long to load.
    const PATIENCE: Duration = Duration::from_hours(1);

    let server = to.server.clone().unwrap_or_else(Server::local).trusting(to.ca.clone());
    let client = Client::new(server).map_err(|error| {
        Failure::new(Kind::Device, format!("cannot start a client: {error}"))
            .hint("raise the limits of this user (ulimit)")
    })?;
    Ok(client.patience(to.patience.unwrap_or(PATIENCE)))
}

/// The same, with the token.
pub(super) fn with_token(to: &ToServer) -> Result<Client, Failure> {
    // An empty variable is one that says nothing.
    let named = to.token_file.clone().filter(|file| !file.as_os_str().is_empty());
    let file = named.unwrap_or_else(default_token_file);
    client(to)?.token_file(file).map_err(|error| {
        Failure::input(format!("token: {error}"))
            .code("token")
            .hint("give the server's own --token-file; only its user can read it")
    })
}

/// `vram ctl …`.
pub(crate) fn run(args: &CtlArgs, output: &mut Output) -> Result<(), Failure> {
    let post = |call: &str, model: &str, body: Value| -> Result<Changed, Failure> {
        with_token(args.command.to())?.post(&model_path(model, call), &body).map_err(failed)
    };
    let changed = match &args.command {
        CtlCommand::Load(load) => post("load", &load.model, load_body(load)?)?,
        CtlCommand::Park(to) => post("park", &to.model, wait(to.wait))?,
        CtlCommand::Wake(to) => {
            post("wake", &to.model, to.gpu.map_or(json!({}), |gpu| json!({"gpu": gpu})))?
        }
        CtlCommand::Migrate(to) => {
            let gpu = to.gpu.ok_or_else(|| {
                Failure::usage("--gpu is missing").hint("say where it goes: --gpu N")
            })?;
            post("migrate", &to.model, json!({"gpu": gpu, "wait_ms": to.wait.map(millis)}))?
        }
        CtlCommand::Pin(pin) => post("pin", &pin.model, json!({}))?,
        CtlCommand::Unpin(pin) => post("unpin", &pin.model, json!({}))?,
        CtlCommand::Verify(verify) => {
            let level = match verify.level {
                CheckLevel::Segments => "segments",
                CheckLevel::Full => "full",
            };
            return show_verified(&verify.to, &verify.model, level, output);
        }
        CtlCommand::Repair(repair) => return show_repaired(&repair.to, &repair.model, output),
        CtlCommand::Reset(reset) => return super::reset::run(reset, output),
        CtlCommand::Lease(lease) => return super::lease::hold(lease, output),
        CtlCommand::Drain(drain) => {
            let mut body = match drain.deadline {
                Some(deadline) => json!({"deadline_ms": millis(deadline)}),
                None => json!({}),
            };
            if let Some(members) = body.as_object_mut().filter(|_| drain.force) {
                members.insert("force".to_owned(), true.into());
            }
            return show_drained(&drain.to, &body, output);
        }
    };
    output.json(&changed)?;
    let Changed { model, made_room } = changed;
    let gpus: Vec<_> = model.gpus.iter().map(|gpu| format!("gpu {gpu}, ")).collect();
    let bytes = table::size(vram_residency::ByteLen::new(model.bytes.max(model.host_bytes)));
    let pinned = if model.pinned { ", pinned" } else { "" };
    output.line(format!("{}: {}, {}{bytes}{pinned}", model.name, model.state, gpus.concat()))?;
    for parked in made_room {
        output.line(format!("{parked}: parked, to make room for {}", model.name))?;
    }
    Ok(())
}

/// What a load asks of a server.
#[derive(Debug, Serialize)]
struct LoadBody {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protection: Option<&'static str>,
}

fn load_body(load: &CtlLoad) -> Result<Value, Failure> {
    let whole = |path: &PathBuf| {
        absolute(path).map_err(|error| Failure::file("find", Path::new(path), &error))
    };
    let mut files = load.paths.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    // One path may be a folder.
    let path = if files.len() == 1 { files.pop() } else { None };
    let protection = load.protection.map(|protection| match protection {
        Mode::Encrypted => "encrypted",
        Mode::Authenticated => "authenticated",
    });
    let (gpu, priority, pin) = (load.gpu, load.priority, load.pin.then_some(true));
    let body = LoadBody { files, path, gpu, pin, priority, protection };
    serde_json::to_value(body).map_err(|error| Failure::input(error.to_string()))
}

/// What a check found, as a server says it.
#[derive(Debug, Deserialize, Serialize)]
struct Verified {
    model: String,
    sound: bool,
    shards: u64,
    checked_bytes: u64,
    altered: Vec<Altered>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Altered {
    tensor: String,
    shard: String,
    segments: u64,
}

fn show_verified(
    to: &ToServer,
    model: &str,
    level: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = model_path(model, "verify");
    let found: Verified = with_token(to)?.post(&path, &json!({"level": level})).map_err(failed)?;
    let bytes = table::size(vram_residency::ByteLen::new(found.checked_bytes));
    if found.sound {
        output.json(&found)?;
        return output.line(format!("{model}: sound, {} shards, {bytes} checked", found.shards));
    }
    for one in &found.altered {
        output.line(format!("{}: {} altered segments", one.tensor, one.segments))?;
    }
    let failure =
        Failure::integrity(format!("{model}: {} shards are altered", found.altered.len()))
            .code("shard-altered")
            .hint("`vram ctl repair` writes them again from the files or the store");
    output.json_failed(&found, &failure)?;
    Err(failure)
}

/// What a repair did, as a server says it.
#[derive(Debug, Deserialize, Serialize)]
struct Repaired {
    model: String,
    shards: u64,
    segments: u64,
}

fn show_repaired(to: &ToServer, model: &str, output: &mut Output) -> Result<(), Failure> {
    let path = model_path(model, "repair");
    let done: Repaired = with_token(to)?.post(&path, &json!({})).map_err(failed)?;
    output.json(&done)?;
    output.line(format!(
        "{model}: {} segments of {} shards written again",
        done.segments, done.shards
    ))
}

fn show_drained(to: &ToServer, body: &Value, output: &mut Output) -> Result<(), Failure> {
    let report: ServeReport = with_token(to)?.post("/v1/drain", body).map_err(failed)?;
    if report.complete {
        output.json(&report)?;
        return output.line(format!("ended: {report}"));
    }
    let failure = Failure::new(Kind::Device, format!("not all was given back: {report}"))
        .code("not-returned");
    output.json_failed(&report, &failure)?;
    Err(failure)
}

/// What `vram stop` gave back, as a server says it.
#[derive(Debug, Deserialize, Serialize)]
struct Freed {
    model: String,
    shards: u64,
    bytes: u64,
    wiped: bool,
}

/// `vram stop`: wipes and frees a model.
pub(crate) fn stop(args: &StopArgs, output: &mut Output) -> Result<(), Failure> {
    let path = model_path(&args.model, "free");
    let body = wait(args.wait);
    let freed: Freed = with_token(&args.to)?.post(&path, &body).map_err(failed)?;
    output.json(&freed)?;
    let bytes = table::size(vram_residency::ByteLen::new(freed.bytes));
    let wiped = if freed.wiped { "wiped and freed" } else { "freed, not wiped" };
    output.line(format!("{}: {} shards {wiped}, {bytes}", freed.model, freed.shards))
}

fn wait(time: Option<Duration>) -> Value {
    json!({"wait_ms": time.map(millis)})
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A failure of a call, in the program's classes.
pub(super) fn failed(error: ClientError) -> Failure {
    let problem = match error {
        ClientError::Refused(problem) => *problem,
        ClientError::NoTrust { .. } => {
            return Failure::input(error.to_string())
                .code("tls")
                .hint("give the certificate of the server, or of who signed it, with --ca FILE");
        }
        ClientError::Unreachable { .. } => {
            return Failure::new(Kind::Device, error.to_string())
                .code("no-server")
                .hint("start one with `vram serve`, or name it with --server");
        }
        other => {
            return Failure::new(Kind::Device, other.to_string())
                .code("server")
                .hint("look at the server's log, and whether its process runs and is not stopped");
        }
    };
    let kind = match (problem.status, &*problem.code) {
        (507, _) => Kind::NoRoom,
        (
            _,
            "quarantined" | "shard-altered" | "parked-altered" | "write-not-kept" | "source-lied"
            | "manifest",
        ) => Kind::Integrity,
        (_, "device-lost" | "device" | "not-returned") | (500, _) => Kind::Device,
        _ => Kind::Input,
    };
    let hint = in_commands(&problem.next);
    Failure::new(kind, problem.message).code(problem.code).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_altered_is_a_matter_of_integrity_through_a_server_too() {
        for (code, kind) in [
            ("source-lied", Kind::Integrity),
            ("manifest", Kind::Integrity),
            ("no-source", Kind::Input),
        ] {
            let problem = json!({"code": code, "message": "m", "retryable": false, "next": "n"});
            let refused = ClientError::Refused(Box::new(serde_json::from_value(problem).unwrap()));
            assert_eq!(failed(refused).kind(), kind, "{code}");
        }
    }
}
