//! The speed of copies, relative to the driver's own page-locked copy in the same rounds.

use core::cell::RefCell;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use vram_gpu::{CudaDevice, Device, Staging};

use crate::machine;
use crate::measure::{self, Job, at_each_size, timed};
use crate::plain::Plain;
use crate::rows::row;

#[test]
fn copies_are_exact_and_this_quick() {
    for device in machine::devices() {
        at_each_size("transfer", &device, 5, |len| at(&device, len));
    }
}

#[test]
fn copies_between_devices_are_exact_or_refused() {
    let devices = machine::devices();
    if devices.len() < 2 {
        row("peer", &[&machine::name(&devices[0]), &"none", &"there is one device alone"]);
    }
    for source in &devices {
        for target in devices.iter().filter(|target| target.ordinal() != source.ordinal()) {
            between(source, target);
        }
    }
}

fn at(device: &CudaDevice, len: ByteLen) {
    let whole = DeviceRange::whole(len);
    let bytes = measure::noise(len);
    let plain = RefCell::new(Plain::new(device.ordinal(), len));
    let memory = device.allocate(len).unwrap();
    let other = device.allocate(len).unwrap();
    let mut back = vec![0; bytes.len()];
    memory.write(whole, &bytes).unwrap();
    let staging = RefCell::new(Some(device.staging(len).unwrap()));
    let through = |copy: &dyn Fn(Staging) -> Staging| {
        let held = staging.borrow_mut().take().unwrap();
        let mut held = Some(held);
        let time = timed(|| held = Some(copy(held.take().unwrap())));
        *staging.borrow_mut() = held;
        time
    };

    let mut jobs: [(&str, usize, Job<'_>); 10] = [
        ("to the device, the driver's own copy", 0, Box::new(|| plain.borrow_mut().copy_in())),
        ("to the host, the driver's own copy", 1, Box::new(|| plain.borrow_mut().copy_out())),
        ("within, the driver's own copy", 2, Box::new(|| plain.borrow_mut().within())),
        ("fill, the driver's own", 3, Box::new(|| plain.borrow_mut().fill())),
        (
            "write from ordinary memory",
            0,
            Box::new(|| timed(|| memory.write(whole, &bytes).unwrap())),
        ),
        (
            "queued write from staging",
            0,
            Box::new(|| {
                through(&|held| {
                    let (held, done) = other.queue_write(DeviceOffset::START, held, len).wait();
                    done.unwrap();
                    held
                })
            }),
        ),
        (
            "read to ordinary memory",
            1,
            Box::new(|| timed(|| memory.read(whole, &mut back).unwrap())),
        ),
        (
            "queued read to staging",
            1,
            Box::new(|| {
                through(&|held| {
                    let (held, done) = memory.queue_read(whole, held).wait();
                    done.unwrap();
                    held
                })
            }),
        ),
        (
            "copy within the device",
            2,
            Box::new(|| timed(|| other.copy_from(whole, &*memory, whole).unwrap())),
        ),
        ("fill", 3, Box::new(|| timed(|| other.fill(whole, 0x5a).unwrap()))),
    ];
    let names: Vec<_> = jobs.iter().map(|(name, reference, _)| (*name, *reference)).collect();
    let mut work: Vec<Job<'_>> = Vec::new();
    for (_, _, job) in &mut jobs {
        work.push(Box::new(job));
    }
    let times = measure::in_turns(&mut work);
    drop(work);
    drop(jobs);
    for ((name, reference), time) in names.into_iter().zip(&times) {
        let [median, range] = time.rates(len);
        let ratio = time.of(&times[reference]);
        row(
            "transfer",
            &[&machine::name(device), &measure::mib(len), &name, &median, &range, &ratio],
        );
    }

    // The timed copies were also correct.
    assert!(back == bytes, "what was read is not what was written");
    assert!(staging.borrow().as_ref().unwrap().as_slice() == bytes);
    other.read(whole, &mut back).unwrap();
    assert!(back.iter().all(|byte| *byte == 0x5a));
    other.copy_from(whole, &*memory, whole).unwrap();
    other.read(whole, &mut back).unwrap();
    assert!(back == bytes, "the copy within the device differs");
    memory.free().unwrap();
    other.free().unwrap();
}

/// One direction between two devices: the bytes arrive, or the error says that the pair is
/// unsupported.
fn between(source: &CudaDevice, target: &CudaDevice) {
    let len = ByteLen::from_mib_saturating(16);
    let whole = DeviceRange::whole(len);
    let bytes = measure::noise(len);
    let from = source.allocate(len).unwrap();
    let to = target.allocate(len).unwrap();
    from.write(whole, &bytes).unwrap();
    let reachable = target.can_copy_from_peer(source);
    let mut copied = Ok(());
    let time = timed(|| copied = to.copy_from(whole, &*from, whole));
    let answer = match copied {
        Ok(()) => {
            let mut back = vec![0; bytes.len()];
            to.read(whole, &mut back).unwrap();
            assert!(back == bytes, "a copy between devices differs");
            format!("exact, {:.2} GB/s once", len.get() as f64 / time.as_secs_f64() / 1e9)
        }
        Err(error) => {
            assert!(!reachable, "{error}, and the pair is said to reach each other");
            error.to_string()
        }
    };
    row("peer", &[&machine::name(source), &machine::name(target), &answer]);
}
