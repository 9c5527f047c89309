//! A writer makes an audit and publishes its head; an auditor verifies the audit, and finds where
//! the file was changed.
//!
//! ```console
//! cargo run -p vram-audit --example auditor
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use std::fs;
use std::sync::Arc;

use vram_audit::{AuditWriter, verify_audit, verify_audit_against};
use vram_events::{EventKind, Events, Sinks};
use vram_id::SystemClock;
use vram_seal::TicketKey;

fn main() -> Result<(), Box<dyn Error>> {
    let key = || TicketKey::from_bytes(&[7; 32]);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("audit");

    // The writer. The facade does this with `VramManagerBuilder::event_sink`.
    let audit = AuditWriter::create(&path, key())?;
    let handle = audit.handle();
    let mut sinks = Sinks::new();
    sinks.add(audit);
    let (events, _threads) = Events::start(Arc::new(SystemClock), sinks)?;
    for left in 0..3 {
        events.emit(EventKind::Closed { left });
    }
    println!("all written: {}", events.flush(None));
    let anchor = handle.head();
    println!("head, to be kept elsewhere: {anchor}");

    // The auditor.
    let sound = fs::read(&path)?;
    let summary = verify_audit_against(&sound[..], &key(), &anchor)?;
    println!("{} events in {} lines, all genuine", summary.events, summary.head.lines);
    let altered = String::from_utf8(sound)?.replace("\"left\":1", "\"left\":0");
    print_refusal("one digit changed", &altered, &key());
    let without: String = altered.split_inclusive('\n').take(2).collect();
    let cut = verify_audit_against(without.as_bytes(), &key(), &anchor);
    println!("cut at the end: {}", cut.err().ok_or("it was believed")?);
    Ok(())
}

fn print_refusal(what: &str, audit: &str, key: &TicketKey) {
    match verify_audit(audit.as_bytes(), key) {
        Ok(_) => println!("{what}: believed"),
        Err(error) => println!("{what}: {error}"),
    }
}
