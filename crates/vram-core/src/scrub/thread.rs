//! The threads of a scrubber, one for each GPU.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::error::VramError;
use crate::parts::Core;
use crate::scrub::control::{By, Control, Post, Waited};
use crate::scrub::{
    Over, Pace, Part, ScrubCursor, ScrubOptions, Scrubber, Scrubbing, Totals, cursor, step,
};
use crate::sync::lock;

/// How long a thread waits after a device or a clock has panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Starts a scrubber for a manager.
pub fn start(
    core: &Arc<Core>,
    scrubbing: &Scrubbing,
    options: ScrubOptions,
) -> Result<Scrubber, VramError> {
    options.check()?;
    let gpus = core.gpus.iter().map(|gpu| Over::Gpu(gpu.index));
    let loads: Vec<_> = gpus.map(|over| cursor::scrub_load(core, over).resident).collect();
    let mut controls = lock(&scrubbing.controls);
    // Checked under the lock: a thread that closes the manager first marks it as closed, and then
    // stops the scrubber that it finds here.
    core.check_open()?;
    let running = |control: Arc<Control>| !control.is_stopped();
    if controls.iter().filter_map(Weak::upgrade).any(running) {
        return Err(VramError::config("a scrubber is running already: stop it first"));
    }
    // One that a device holds is kept, so that the manager knows of it when it is dropped.
    controls.retain(|control| control.upgrade().is_some_and(|control| control.is_working()));
    let all = loads.iter().copied().fold(0, u64::saturating_add);
    let posts = core.gpus.iter().zip(&loads).map(|(gpu, own)| {
        let part = Part::among(*own, all, loads.len());
        let pace = Pace::new(options, Over::Gpu(gpu.index), part);
        (Post::new(gpu.index, *own, &pace), pace)
    });
    let (posts, paces): (Vec<_>, Vec<_>) = posts.unzip();
    let control = Arc::new(Control::new(options, posts));
    let mut threads = Vec::new();
    for (index, (gpu, pace)) in core.gpus.iter().zip(paces).enumerate() {
        let gpu = gpu.index;
        let (weak, shared) = (Arc::downgrade(core), Arc::clone(&control));
        let totals = Arc::clone(&scrubbing.totals);
        let work = move || {
            let _working = shared.working(gpu);
            if let Some(post) = shared.posts.get(index) {
                run(&weak, &shared, post, &totals, pace);
            }
        };
        let thread = std::thread::Builder::new().name(format!("vram-scrub-{gpu}")).spawn(work);
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // Those that were started end by themselves.
                control.stop();
                controls.push(Arc::downgrade(&control));
                return Err(VramError::Io {
                    action: "start a thread of the scrubber",
                    path: None,
                    source: Arc::new(error),
                });
            }
        }
    }
    controls.push(Arc::downgrade(&control));
    drop(controls);
    tracing::info!(?options, "scrubber started");
    Ok(Scrubber { core: Arc::downgrade(core), control, threads })
}

/// The loop of a thread: a step, then a pause, until the scrubber is stopped or the manager is
/// dropped.
fn run(core: &Weak<Core>, control: &Control, post: &Post, totals: &Totals, mut pace: Pace) {
    let mut cursor = ScrubCursor::on_gpu(post.gpu);
    cursor.evidence = control.options.evidence;
    let mut pause = Duration::ZERO;
    while let Some(waited) = control.wait(pause) {
        if waited == Waited::Paused {
            pace.resumed();
        }
        let Some(inside) = control.enter(By::Step(post.gpu)) else { break };
        let Some(manager) = core.upgrade() else { break };
        let began = Instant::now();
        // Devices and clocks are foreign code, which can panic.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pace.look(&manager);
            let began = Instant::now();
            let step = step::scrub_step(&manager, totals, &mut cursor, pace.step_len());
            (step, began.elapsed())
        }));
        let mut tally = lock(&post.tally);
        pause = match outcome {
            Ok((step, busy)) => {
                pace.part = control.part(post, cursor.round().resident);
                let pause = pace.pause(&step, busy);
                tally.add(&step, cursor.round(), &pace);
                pause
            }
            Err(payload) => {
                // Dropping the payload could panic again.
                core::mem::forget(payload);
                tracing::error!(gpu = post.gpu, "a step of the scrubber panicked");
                tally.failed("a device or a clock panicked");
                AFTER_PANIC.max(began.elapsed())
            }
        };
        drop(tally);
        // Drop the manager before `inside`: a manager that is dropped waits for this thread for a
        // while, so that the dropping thread frees the shards. If a device held this thread for
        // longer, the manager ends here.
        drop(manager);
        drop(inside);
    }
}
