//! What a soak finds in memory that fails, and that it stops when it is told to.

use core::time::Duration;
use std::sync::Arc;

use vram_residency::device::fault::{Action, FaultDevice, FaultPlan, Op, When};
use vram_residency::{ByteLen, CancelToken, GpuIndex, HostDevice, VramManager};

use super::*;

fn rig(count: u32) -> (VramManager, Vec<Arc<FaultDevice>>) {
    let device = |index| {
        let host = HostDevice::new(GpuIndex::new(index), ByteLen::new(2 << 20)).unwrap();
        FaultDevice::new(Arc::new(host), FaultPlan::default())
    };
    let devices: Vec<_> = (0..count).map(device).collect();
    let builder = VramManager::builder();
    let builder = devices.iter().fold(builder, |builder, device| builder.device(device.clone()));
    (builder.build().unwrap(), devices)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn sound_devices_are_filled_tested_in_every_step_and_emptied() {
    let (manager, devices) = rig(2);
    let flips: Vec<_> = devices.iter().cloned().map(Some).collect();
    let soaked = soak(&manager, &flips, &CancelToken::new(), SECOND * 3, 7);
    let report = soaked.report;
    assert_eq!((report.verdict, report.altered_count), ("sound", 0), "{:?}", report.alterations);
    assert!(report.capacity_restored && soaked.failure.is_none());
    assert!(report.rounds > 0 && report.flips_made > 0, "{}", soaked.table);
    assert_eq!(report.flips_found, report.flips_made);
    let made: Vec<_> = Step::ALL.iter().map(|step| step.name()).collect();
    for name in made {
        assert!(soaked.table.contains(name), "{name}: {}", soaked.table);
    }
    for tested in &report.devices {
        assert!(tested.filled >= tested.total / 10 * 9, "{tested:?}");
    }
    assert_eq!(manager.shards().len(), 0);
    // The figures add up: all that was filled was freed, and what was parked was woken.
    let of = |name: &str| {
        let tally = report.steps.iter().find(|tally| tally.step == name).unwrap();
        (tally.count, tally.bytes)
    };
    assert_eq!(of("fill"), of("free"));
    assert_eq!(of("park"), of("wake"));
}

/// Bytes that arrive altered, and a bit that flips where the bytes lie: each is an alteration, with its
/// place.
#[test]
fn memory_that_fails_is_found_and_the_verdict_says_where() {
    let (manager, devices) = rig(2);
    devices[1].add(Op::QueueWrite, When::From(4), Action::FlipAnyBit).unwrap();
    let soaked = soak(&manager, &[], &CancelToken::new(), SECOND * 2, 7);
    let report = soaked.report;
    assert_eq!(report.verdict, "altered", "{}", soaked.table);
    assert!(report.altered_count > 0 && report.capacity_restored);
    let of = |name: &str| report.steps.iter().find(|tally| tally.step == name).unwrap().bytes;
    assert_eq!(of("fill"), of("free"), "{}", soaked.table);
    assert!(report.alterations.iter().all(|one| one.gpu == 1), "{:?}", report.alterations);
    let (args, infos) = (arguments(), manager.gpus());
    let mut output = Output::default();
    let again = Soaked { report, table: String::new(), failure: None };
    let failure = print(again, (&args, &infos, 7), &mut output).unwrap_err();
    assert_eq!(failure.kind(), Kind::Integrity);
    assert!(failure.to_string().contains("out of service"), "{failure}");
}

#[test]
fn a_device_that_is_lost_ends_the_soak_with_a_verdict() {
    let (manager, devices) = rig(1);
    devices[0].add(Op::Read, When::Nth(20), Action::Driver(700)).unwrap();
    let soaked = soak(&manager, &[], &CancelToken::new(), SECOND * 20, 7);
    assert_eq!(soaked.report.verdict, "failed", "{}", soaked.table);
    assert_eq!(soaked.failure.unwrap().kind(), Kind::Device);
}

#[test]
fn a_soak_that_is_stopped_ends_at_once_and_leaves_nothing() {
    let (manager, _devices) = rig(1);
    let token = CancelToken::new();
    let stop = token.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stop.cancel();
    });
    let began = Instant::now();
    let soaked = soak(&manager, &[], &token, Duration::from_hours(1), 7);
    stopper.join().unwrap();
    assert_eq!(soaked.report.verdict, "interrupted");
    assert!(soaked.report.capacity_restored && began.elapsed() < Duration::from_secs(30));
}

/// The same seed gives the same contents; another one, others.
#[test]
fn contents_follow_from_their_number() {
    assert_eq!(content(3, 1001).unwrap(), content(3, 1001).unwrap());
    assert_ne!(content(3, 1001).unwrap(), content(4, 1001).unwrap());
    assert!(content(0, 0).unwrap().is_empty());
}

#[test]
fn a_host_says_what_memory_it_has() {
    let text = "MemTotal:       24689764 kB\nMemAvailable:   20000000 kB\n";
    assert_eq!(available(text), Some(ByteLen::new(20_000_000 << 10)));
    for other in
        ["", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: 99999999999999999999 kB"]
    {
        assert_eq!(available(other), None, "{other}");
    }
    assert!(fits_into_the_host(ByteLen::new(u64::MAX)).is_err());
    assert!(fits_into_the_host(ByteLen::ZERO).is_ok());
}

fn arguments() -> SoakArgs {
    SoakArgs { devices: Vec::new(), time: SECOND, size: None, seed: None, flip: false, json: false }
}
