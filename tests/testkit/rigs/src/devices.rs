//! Devices in host memory that fail, or block, on command, with kernels if the test says so.

use core::cell::Cell;
use std::sync::{Arc, Mutex, mpsc};

use vram_alloc::ByteLen;
use vram_alloc::GpuIndex;
use vram_gpu::fault::{Action, FaultPlan, Hook, Op};
use vram_gpu::{FaultDevice, HostDevice};
use vram_residency::Compute;

thread_local! {
    /// What the devices of this thread's rigs compute; `None` for devices without kernels.
    static COMPUTE: Cell<Option<Compute>> = const { Cell::new(None) };
}

/// Runs a test whose rigs, on this thread, have devices with kernels.
pub fn with_kernels(compute: Compute, test: impl FnOnce()) {
    /// Puts back what was before, also after a panic.
    struct Back(Option<Compute>);
    impl Drop for Back {
        fn drop(&mut self) {
            COMPUTE.set(self.0);
        }
    }
    let _back = Back(COMPUTE.replace(Some(compute)));
    test();
}

/// What the devices of this thread's rigs compute.
pub(crate) fn compute() -> Option<Compute> {
    COMPUTE.get()
}

/// One device for each length, each with this plan of faults.
#[must_use]
pub fn devices(totals: &[usize], plan: &FaultPlan) -> Vec<Arc<FaultDevice>> {
    let device = |(index, total): (u32, &usize)| {
        let builder = HostDevice::builder(GpuIndex::new(index), ByteLen::from_usize(*total));
        let builder = if compute().is_some() { builder.kernels() } else { builder };
        let host = builder.build().expect("host devices of test sizes can be made");
        FaultDevice::new(Arc::new(host), plan.clone())
    };
    (0..).zip(totals).map(device).collect()
}

/// Blocks the next call of a kind inside the device. The receiver gets one message when the call
/// has arrived; the call continues when the sender sends or is dropped.
#[must_use]
pub fn held_up(device: &FaultDevice, op: Op) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (arrived, has_arrived) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let hook = Hook::new(move || {
        arrived.send(()).expect("the test waits for this");
        let _told_or_left = may_go_on.lock().expect("only this hook locks it").recv();
    });
    device.next(op, Action::Run(hook)).expect("every kind of call can be held up");
    (has_arrived, go_on)
}
