//! `vram ctl lease`: holds a model until a signal ends this process, or the server ends the lease.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use serde::Serialize;
use serde_json::Value;
use vram_serve::client::{ClientError, LeasedModel};

use super::ctl::{failed, with_token};
use super::tell;
use crate::args::CtlLease;
use crate::failure::{Failure, Kind};
use crate::output::Output;

/// How a lease ended, as JSON shows it.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    model: &'a str,
    holder: &'a str,
    how: How,
    /// The last line that the server sent after the one that began the lease.
    last: Option<Value>,
}

/// What ended a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum How {
    /// A signal to this process.
    ByHolder,
    /// The server, at the end of a drain.
    Cut,
    /// The connection: the server may have ended.
    Broken,
}

/// What the holder learns while it waits.
enum News {
    /// The lease exists.
    Leased,
    Line(String),
    /// The answer of the server is over.
    Over,
    Broken(ClientError),
    Signal,
}

/// Holds a model.
///
/// # Errors
///
/// A lease that ended otherwise than by a signal to this process.
pub(super) fn hold(args: &CtlLease, output: &mut Output) -> Result<(), Failure> {
    let holder = args.holder.clone().unwrap_or_else(|| format!("pid {}", std::process::id()));
    let client = with_token(&args.to)?;
    let (news, heard) = mpsc::channel();
    let signal = news.clone();
    ctrlc::set_handler(move || drop(signal.send(News::Signal))).map_err(Failure::no_signals)?;
    let (model, named) = (args.model.clone(), holder.clone());
    // The thread, and with it the connection, ends with this process.
    let holds = move || match client.lease(&model, &named) {
        Ok(leased) => {
            let _ = news.send(News::Leased);
            read(leased, &news);
        }
        Err(error) => drop(news.send(News::Broken(error))),
    };
    thread::Builder::new().spawn(holds).map_err(|error| Failure::no_thread(&error))?;
    match heard.recv() {
        Ok(News::Leased) => {}
        Ok(News::Broken(error)) => return Err(failed(error)),
        _ => return Err(Failure::interrupted()),
    }
    tell(&format!("{} is leased by {holder:?}, until this process ends", args.model));
    let (how, last, error) = wait(&heard);
    let ended = Ended { model: &args.model, holder: &holder, how, last };
    let failure = match how {
        How::ByHolder => {
            output.json(&ended)?;
            return output.line(format!("{}: given back", args.model));
        }
        How::Cut => {
            Failure::new(Kind::Device, format!("the server ended the lease of {}", args.model))
                .code("lease-cut")
                .hint("use the model no longer; lease it again when a server runs")
        }
        How::Broken => {
            let why = error.map_or_else(String::new, |error| format!(": {error}"));
            let what =
                format!("the connection broke, and with it the lease of {} ended{why}", args.model);
            Failure::new(Kind::Device, what)
                .code("lease-broken")
                .hint("use the model no longer; look whether the server runs, and lease it again")
        }
    };
    output.json_failed(&ended, &failure)?;
    Err(failure)
}

/// Sends each line of the server, and then how its answer ended.
fn read(mut leased: LeasedModel, news: &Sender<News>) {
    loop {
        let (one, goes_on) = match leased.line() {
            Ok(Some(line)) => (News::Line(line), true),
            Ok(None) => (News::Over, false),
            Err(error) => (News::Broken(error), false),
        };
        if news.send(one).is_err() || !goes_on {
            return;
        }
    }
}

/// What became of shards that are held.
fn unusable(line: Option<&Value>) -> String {
    let of = |name: &str| line.and_then(|line| line.get(name));
    let count = of("count").and_then(Value::as_u64).unwrap_or(0);
    let what = of("event").and_then(Value::as_str).unwrap_or("altered");
    let (shards, were) = if count == 1 { ("shard", "was") } else { ("shards", "were") };
    format!(
        "{count} {shards} of this lease {were} {what}: use the model no longer, and let go of it"
    )
}

/// Waits until the lease has ended. Returns how, the last line of the server, and why it broke.
fn wait(heard: &Receiver<News>) -> (How, Option<Value>, Option<ClientError>) {
    let mut last: Option<Value> = None;
    let is = |last: &Option<Value>, event: &str| {
        last.as_ref().is_some_and(|line| line.get("event").is_some_and(|found| found == event))
    };
    loop {
        match heard.recv() {
            Ok(News::Leased) => {}
            Ok(News::Line(line)) => {
                last = Some(serde_json::from_str(&line).unwrap_or(Value::String(line)));
                let said = |what: &str| is(&last, what);
                if said("draining") {
                    tell("the server is being stopped, and waits for this lease");
                } else if said("altered") || said("lost") {
                    tell(&unusable(last.as_ref()));
                } else if said("missed") {
                    tell(
                        "news of the model were missed: `vram ctl verify` says whether it is sound",
                    );
                }
            }
            Ok(News::Signal) => return (How::ByHolder, last, None),
            // A server that ends by force may close before its answer has ended.
            Ok(News::Over | News::Broken(_)) if is(&last, "cut") => return (How::Cut, last, None),
            Ok(News::Over) | Err(_) => return (How::Broken, last, None),
            Ok(News::Broken(error)) => return (How::Broken, last, Some(error)),
        }
    }
}
