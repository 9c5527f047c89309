//! Devices in host memory that fail, or block, on command.

use std::sync::{Arc, Mutex, mpsc};

use vram_alloc::ByteLen;
use vram_gpu::fault::{Action, FaultPlan, Hook, Op};
use vram_gpu::{FaultDevice, HostDevice};

/// One device for each length, each with this plan of faults.
#[must_use]
pub fn devices(totals: &[usize], plan: &FaultPlan) -> Vec<Arc<FaultDevice>> {
    let totals: Vec<_> = totals.iter().map(|total| ByteLen::from_usize(*total)).collect();
    let hosts = HostDevice::several(&totals).expect("host devices of test sizes can be made");
    hosts.into_iter().map(|host| FaultDevice::new(host, plan.clone())).collect()
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
