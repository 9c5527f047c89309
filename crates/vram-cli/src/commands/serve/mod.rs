//! `vram serve`: a server from its configuration to its report.

pub(crate) mod ctl;
mod lease;
pub(crate) mod ps;
mod reset;
mod words;

use std::{io, process};

use vram_residency::{KeySourceError, VramError};
use vram_serve::config::default_config;
use vram_serve::{Check, Config, ConfigError, ServeError, Server};

use super::devices::Devices;
use crate::args::ServeArgs;
use crate::failure::{Failure, Kind};
use crate::output::{Output, note};

/// Serves until a signal or a drain ends it, or checks the configuration.
pub(crate) fn run(args: &ServeArgs, output: &mut Output) -> Result<(), Failure> {
    let file = args.config.clone().unwrap_or_else(default_config);
    let config = Config::read(&file).map_err(|error| wrong_config(&error))?;
    let specs: Vec<_> = config.devices.iter().map(|device| device.device).collect();
    let devices = Devices::configured(&specs);
    if args.check {
        return check(&config, devices, output);
    }
    let devices = devices?;
    output.set_cards(devices.infos());
    let key = config.key.to_string();
    // As a client of any folder has to name it.
    let token_file = config.token_file();
    let token_file = std::path::absolute(&token_file).unwrap_or(token_file);
    let server = Server::start(config, devices.into_open()).map_err(refused)?;
    let stopper = server.stopper();
    let mut signals = 0_u32;
    ctrlc::set_handler(move || {
        signals = signals.saturating_add(1);
        match signals {
            1 => stopper.drain(),
            2 => stopper.now(),
            _ => process::exit(i32::from(Kind::Interrupted.code())),
        }
    })
    .map_err(Failure::no_signals)?;
    for address in server.addresses() {
        output.line(format!("listens on {address}"))?;
    }
    let made = if server.token_is_new() { "made just now" } else { "there already" };
    output.line(format!("token      {} ({made})", token_file.display()))?;
    output.line(format!("key        {key}"))?;
    let report = server.run();
    if report.complete {
        output.json(&report)?;
        return output.line(format!("ended: {report}"));
    }
    let failure = Failure::new(Kind::Device, format!("not all was given back: {report}"))
        .code("not-returned")
        .hint("the driver frees what is left when this process ends; look at the card first");
    output.json_failed(&report, &failure)?;
    Err(failure)
}

fn check(
    config: &Config,
    devices: Result<Devices, Failure>,
    output: &mut Output,
) -> Result<(), Failure> {
    let devices = devices.map(Devices::into_open).map_err(|failure| failure.what().to_owned());
    let check = Check::of(config, devices);
    output.set_schema("serve-check");
    for line in check.to_string().lines() {
        output.line(line)?;
    }
    if check.usable {
        return output.json(&check);
    }
    let model = check.models.iter().find_map(|model| {
        let problem = model.problem.as_ref()?;
        Some(format!("model {}: {}", model.name, problem.message))
    });
    let what = check.problems.first().cloned().or(model).unwrap_or_default();
    let failure = Failure::input(what).code("config").hint("mend the configuration or the file");
    output.json_failed(&check, &failure)?;
    Err(failure)
}

fn wrong_config(error: &ConfigError) -> Failure {
    let failure = Failure::input(error.to_string()).code("config");
    match error {
        ConfigError::Io { .. } => {
            failure.hint("name it with --config, or copy the example in crates/vram-serve")
        }
        _ => failure.hint("mend it; `vram serve --check` reads it again"),
    }
}

/// Why a server cannot start. A service is started again unless the code is that of an input, so only what
/// nobody but its operator can mend is one.
fn refused(error: ServeError) -> Failure {
    match error {
        ServeError::Manager(error @ VramError::Config { .. }) => {
            Failure::from(error).hint("mend it; `vram serve --check` reads it again")
        }
        ServeError::Manager(error) => error.into(),
        ServeError::Key(error) => {
            let passes = may_pass_of(&error);
            Failure::from(error).kind_if(passes, Kind::Device)
        }
        ServeError::Token(error) => {
            let passes = may_pass_of(&error);
            Failure::input(format!("token: {error}"))
                .code("token")
                .hint("give another token_file, or remove that one: it is made at the start")
                .kind_if(passes, Kind::Device)
        }
        ServeError::Bind { listen, error } => {
            Failure::input(format!("cannot listen on {listen}: {error}"))
                .code("listen")
                .hint("stop what listens there, or give another address in `listen`")
                .kind_if(may_pass(&error), Kind::Device)
        }
        ServeError::Cache { folder, error } => {
            Failure::input(format!("[cache] folder {folder}: {error}"))
                .code("io")
                .hint("give a folder that this user can write to")
                .kind_if(may_pass(&error), Kind::Device)
        }
        error @ ServeError::Tls { .. } => Failure::input(error.to_string())
            .code("tls")
            .hint("give a certificate and its key in PEM"),
        ServeError::Devices { what } => Failure::new(Kind::Device, what).code("no-gpu"),
        ServeError::Threads(error) => Failure::no_thread(&error),
        other => Failure::new(Kind::Device, other.to_string())
            .hint("raise the limits of this user (ulimit)"),
    }
}

/// Whether a later start may succeed with the same configuration: an address that is in use, too few
/// descriptors, a full disk.
fn may_pass(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::Unsupported
    )
}

fn may_pass_of(error: &KeySourceError) -> bool {
    matches!(error, KeySourceError::Io { error, .. } if may_pass(error))
}

/// Tells something that is no result, while JSON may be asked for.
pub(super) fn tell(text: &str) {
    note(text);
}
