//! What is known of cards: `cargo run -p vram-nvml --example cards GPU-…`, UUIDs as `nvidia-smi -L`
//! prints them. Shows XIDs for ten seconds.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use core::time::Duration;
use std::process::ExitCode;

use vram_alloc::DeviceUuid;
use vram_nvml::{Monitor, MonitorOptions, meaning};

fn main() -> ExitCode {
    let cards: Option<Vec<DeviceUuid>> = std::env::args().skip(1).map(|one| uuid(&one)).collect();
    let Some(cards) = cards else {
        eprintln!("usage: cards GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx …");
        return ExitCode::from(2);
    };
    let options = MonitorOptions::new(cards.iter().copied()).on_xid(|event| {
        let means = meaning(event.xid);
        println!("{}: XID {}: {}; {}", event.card, event.xid, means.what, means.next);
    });
    let monitor = Monitor::start(options);
    for card in cards {
        println!("{card}");
        for line in monitor.card(card, Duration::from_secs(10)).lines() {
            println!("  {line}");
        }
        println!("  XIDs: {:?}", monitor.xid_watch(card));
    }
    std::thread::sleep(Duration::from_secs(10));
    ExitCode::SUCCESS
}

fn uuid(text: &str) -> Option<DeviceUuid> {
    let digits: String = text.strip_prefix("GPU-")?.split('-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(DeviceUuid::new(number.to_be_bytes()))
}
