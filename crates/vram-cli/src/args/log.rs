//! What standard error carries: notes and progress, logs of the library, their form.

mod plain;
mod queue;

use std::env;
use std::io::{IsTerminal as _, stderr};

use clap::{ArgAction, Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use self::plain::Plain;
use self::queue::Writer;
use crate::failure::Failure;
use crate::output;

/// The heading of these options in the help.
const HEADING: &str = "Standard error";

/// Options of every command.
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// The form of lines on standard error: for people, or one JSON object a line for collectors of
    /// logs.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text, help_heading = HEADING)]
    log_format: LogFormat,
    /// Print no notes and no progress: only errors.
    #[arg(short, long, global = true, help_heading = HEADING)]
    quiet: bool,
    /// Print what the library does: -v its steps, -vv each call with its time, -vvv all. Without it, `RUST_LOG` says
    /// what.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = HEADING)]
    verbose: u8,
}

/// The form of lines on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line, with time, level, target and fields.
    Json,
}

impl LogArgs {
    /// Sets up standard error for one failure as JSON, where the command line could not be read.
    pub(crate) fn start_json() {
        let errors = Self { log_format: LogFormat::Json, quiet: true, verbose: 0 };
        // Without a thread of its own, this does not fail.
        let _ = errors.start(false);
    }

    /// Sets up standard error as these options say. To be called once.
    ///
    /// # Arguments
    ///
    /// * `serves`: what a server does is told without being asked for, and a thread of its own writes
    ///   it: whoever does not read the log never stops the server. Lines that do not fit into the queue
    ///   are lost.
    ///
    /// # Returns
    ///
    /// What writes the last lines when it is dropped, within a second.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses that thread. The failure can be told in the form that was asked for.
    pub(crate) fn start(&self, serves: bool) -> Result<Option<Writer>, Failure> {
        let json = self.log_format == LogFormat::Json;
        output::set_notes(self.quiet, json);
        // Notes and errors are lines of the log then, whatever else is asked for.
        let own = format!("{}={}", output::LOG_TARGET, if self.quiet { "error" } else { "info" });
        let own = if json { own } else { String::new() };
        let library = match self.verbose {
            // One that cannot be read asks for nothing.
            0 => env::var(EnvFilter::DEFAULT_ENV)
                .ok()
                .filter(|asked| EnvFilter::try_new(asked).is_ok())
                .unwrap_or_else(|| {
                    let told = if serves && !self.quiet { "warn,vram_serve=info" } else { "" };
                    told.to_owned()
                }),
            1 => "vram=info".to_owned(),
            2 => "vram=debug".to_owned(),
            _ => "vram=trace".to_owned(),
        };
        let asked = [library, own];
        let asked: Vec<&str> =
            asked.iter().map(String::as_str).filter(|one| !one.is_empty()).collect();
        if asked.is_empty() {
            return Ok(None);
        }
        let filter = EnvFilter::builder().parse_lossy(asked.join(","));
        // With times of each call, from the second -v on.
        let spans = if self.verbose > 1 { FmtSpan::CLOSE } else { FmtSpan::NONE };
        let (writer, guard) = match serves.then(|| queue::start(stderr)) {
            Some(Ok((queue, guard))) => (BoxMakeWriter::new(queue), Ok(Some(guard))),
            Some(Err(error)) => (BoxMakeWriter::new(stderr), Err(Failure::no_thread(&error))),
            None => (BoxMakeWriter::new(stderr), Ok(None)),
        };
        let log = tracing_subscriber::fmt()
            .with_span_events(spans)
            .with_env_filter(filter)
            .with_ansi(stderr().is_terminal());
        // JSON has escapes of its own.
        let _ = if json {
            log.json().with_writer(writer).try_init()
        } else {
            log.with_writer(Plain(writer)).try_init()
        };
        guard
    }
}
