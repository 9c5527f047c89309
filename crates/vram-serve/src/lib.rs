#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod check;
pub mod client;
pub mod config;
mod engine;
mod feed;
mod http;
mod lane;
mod net;
mod problem;
mod report;
mod server;

pub use check::{Check, ModelCheck};
pub use config::{Config, ConfigError, Listen};
pub use engine::stored::{StoreSources, altered, import_images, plan_of, request_for};
pub use problem::Problem;
pub use report::{ServeError, ServeReport};
pub use server::{Server, Stopper};
