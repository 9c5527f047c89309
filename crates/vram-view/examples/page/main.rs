//! A page of a made-up node: three GPUs, one of them lost, and one model with altered shards.
//!
//! `cargo run -p vram-view --example page -- view.html` writes it; `--shards 5000` of so many shards;
//! `--sound` of a node without a fault. `--serve` serves the live form, with an event now and then, and prints
//! its address; `--port N` fixes the port.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

mod node;
mod server;

use core::error::Error;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut path, mut serve, mut port) = (None, false, 0);
    let mut node = node::Node { shards: 200, sound: false };
    let mut args = env::args().skip(1);
    while let Some(argument) = args.next() {
        match argument.as_str() {
            "--serve" => serve = true,
            "--port" => port = args.next().ok_or("--port needs a number")?.parse()?,
            "--sound" => node.sound = true,
            "--shards" => node.shards = args.next().ok_or("--shards needs a number")?.parse()?,
            _ => path = Some(argument),
        }
    }
    if serve {
        return Ok(server::serve(&node, port)?);
    }
    let page = vram_view::static_page(&node.snapshot(1_800_000_000_000).to_string())?;
    match path {
        Some(path) => fs::write(path, page)?,
        None => println!("a page of {} bytes; give a path to write it to", page.len()),
    }
    Ok(())
}
