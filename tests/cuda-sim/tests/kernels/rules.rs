//! What the simulated card checks while a kernel runs, and what faults do to one.

use cuda_sim::{CallKind, DeviceSpec, Fault, MisuseKind, Sim};
use cust::error::CudaError;
use cust::module::Module;

use crate::card::{Argument, Card, address, at, buffer, read};

/// An image with one kernel `test(.u64 place, .u32 word)`: `%at` and `%word` are its arguments,
/// `%tid` the thread.
fn image(body: &str) -> String {
    format!(
        ".version 7.4 .target sm_80 .address_size 64
        .visible .entry test(.param .u64 place, .param .u32 value) .maxntid 256, 1, 1
        {{
            .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .b64 %d<16>;
            .reg .b32 %word, %tid; .reg .b64 %at;
            .shared .align 16 .b8 first[1024];
            .shared .align 16 .b8 second[1024];
            .local .align 8 .b8 own[16];
            ld.param.u64 %at, [place];
            ld.param.u32 %word, [value];
            mov.u32 %tid, %tid.x;
            {body}
        }}"
    )
}

/// Runs a body with 1000 bytes at `%at` that it may use. Returns the code and the log.
fn outcome(body: &str) -> (u32, Vec<(MisuseKind, String)>) {
    let card = Card::new(&image(body));
    Sim::set_step_limit(card.device, 10_000);
    let place = buffer(&[0; 1000]);
    let code = card.launch("test", 2, &[at(&place), Argument::Word(7)]);
    let log = Sim::take_misuse(card.device).into_iter().map(|entry| (entry.kind, entry.detail));
    let log = log.collect();
    if code == 0 {
        drop(place);
        card.finish();
    } else {
        assert_eq!(Sim::poisoned_by(card.device), Some(code), "{body}");
        core::mem::forget(place);
        card.abandon();
    }
    (code, log)
}

#[track_caller]
fn refused(body: &str, code: u32, kind: MisuseKind, detail: &str) {
    let (answer, log) = outcome(body);
    assert_eq!(answer, code, "{log:?}");
    let [(logged, text)] = log.as_slice() else { panic!("one entry, not {log:?}") };
    assert_eq!(*logged, kind, "{text}");
    assert!(text.contains(detail) && text.contains("in kernel test"), "{text}");
}

#[test]
fn global_memory_is_checked_to_the_byte() {
    assert_eq!(outcome("st.global.u64 [%at+992], %at; ret;"), (0, vec![]));
    for (body, kind) in [
        ("st.global.u8 [%at+1000], %r0;", MisuseKind::UnknownAddress),
        ("ld.global.u8 %r0, [%at+-1];", MisuseKind::UnknownAddress),
        ("ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%at+992];", MisuseKind::OutOfBounds),
        ("mov.u64 %d0, 4096; ld.global.u64 %d1, [%d0];", MisuseKind::UnknownAddress),
    ] {
        refused(body, 700, kind, "bytes at");
    }
    refused("st.global.u32 [%at+2], %word;", 716, MisuseKind::Misaligned, "4 bytes");
    refused(
        "ld.global.v2.u64 {%d0, %d1}, [%at+8];",
        716,
        MisuseKind::Misaligned,
        "block (0, 0, 0), thread 0, at ld.global.v2.u64",
    );
    // Only the thread that strays is named.
    let strays = "mul.wide.u32 %d0, %tid, 4; add.s64 %d0, %at, %d0; st.global.u32 [%d0], %tid;";
    refused(strays, 700, MisuseKind::UnknownAddress, "thread 250");
}

#[test]
fn freed_memory_and_memory_of_another_device_are_out_of_reach() {
    let card = Card::new(&image("ld.global.u32 %r0, [%at]; ret;"));
    let freed = buffer(&[0; 64]);
    let place = at(&freed);
    assert_eq!(card.launch("test", 1, &[place, Argument::Word(0)]), 0);
    drop(freed);
    assert_eq!(card.launch("test", 1, &[place, Argument::Word(0)]), 700);
    let kinds: Vec<_> = Sim::take_misuse(card.device).into_iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [MisuseKind::UseAfterFree]);
    card.abandon();

    let other = Card::new(&image("ret;"));
    let far = buffer(&[0; 64]);
    let card = Card::new(&image("ld.global.u32 %r0, [%at]; ret;"));
    assert_eq!(card.launch("test", 1, &[at(&far), Argument::Word(0)]), 700);
    card.abandon();
    core::mem::forget(far);
    other.abandon();
}

#[test]
fn shared_memory_is_checked_to_the_variable_and_is_not_zero_at_first() {
    refused("st.shared.u32 [first+1024], %r0;", 700, MisuseKind::OutOfBounds, "shared memory");
    let beyond = "mov.u64 %d0, second; ld.shared.u32 %r0, [%d0+-4];";
    refused(beyond, 700, MisuseKind::OutOfBounds, "of no variable");
    refused("ld.shared.u32 %r0, [first+2];", 716, MisuseKind::Misaligned, "4 bytes");
    refused("st.local.u64 [own+16], %at;", 700, MisuseKind::OutOfBounds, "local memory");
    for variable in ["ld.shared.u32 %r0, [first+64]", "ld.local.u32 %r0, [own+4]"] {
        let card = Card::new(&image(&format!("{variable}; st.global.u32 [%at], %r0; ret;")));
        let place = buffer(&[0; 4]);
        assert_eq!(card.launch("test", 1, &[at(&place), Argument::Word(0)]), 0);
        assert!(read(&place).iter().all(|byte| *byte != 0), "{variable}");
        drop(place);
        card.finish();
    }
}

#[test]
fn races_in_shared_memory_are_found_and_barriers_end_them() {
    let neighbour = "
        mul.wide.u32 %d0, %tid, 4; mov.u64 %d1, first; add.s64 %d0, %d1, %d0;
        st.shared.u32 [%d0], %tid; BARRIER
        xor.b32 %r0, %tid, 1; mul.wide.u32 %d2, %r0, 4; add.s64 %d2, %d1, %d2;
        ld.shared.u32 %r1, [%d2]; ret;";
    refused(&neighbour.replace("BARRIER", ""), 719, MisuseKind::Race, "used by thread 1 ");
    assert_eq!(outcome(&neighbour.replace("BARRIER", "bar.sync 0;")), (0, vec![]));
    // Many may read one byte; one that writes it then is a race.
    assert_eq!(outcome("ld.shared.u32 %r0, [first]; ret;"), (0, vec![]));
    let written = "ld.shared.u32 %r0, [first]; setp.eq.u32 %p0, %tid, 9;
        @%p0 st.shared.u32 [first], %tid; ret;";
    refused(written, 719, MisuseKind::Race, "several threads");
    // Bytes are apart even where they share a word.
    let bytes = "mov.u64 %d1, first; cvt.u64.u32 %d0, %tid; add.s64 %d0, %d1, %d0;
        st.shared.u8 [%d0], %tid; ret;";
    assert_eq!(outcome(bytes), (0, vec![]));
}

#[test]
fn threads_that_should_meet_and_do_not_are_found() {
    let some = "setp.lt.u32 %p0, %tid, LIMIT; @%p0 bra $over; bar.sync 0; $over: ret;";
    refused(&some.replace("LIMIT", "8"), 719, MisuseKind::Barrier, "not all lanes of the warp");
    refused(&some.replace("LIMIT", "64"), 719, MisuseKind::Barrier, "of the block");
    assert_eq!(outcome(&some.replace("LIMIT", "0")), (0, vec![]));
    let matrix = "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32
        {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%r8, %r9}, {%r0, %r1, %r2, %r3};";
    assert_eq!(outcome(&format!("{matrix} ret;")), (0, vec![]));
    let some = format!("setp.ne.u32 %p0, %tid, 40; @%p0 bra $do; ret; $do: {matrix} ret;");
    refused(&some, 719, MisuseKind::Barrier, "at mma.sync");
    let bound = "bra.uni $a; $a: bra.uni $a;";
    refused(bound, 702, MisuseKind::Endless, "does not end");
}

#[test]
fn a_launch_with_more_threads_than_the_kernel_allows_is_refused_and_nothing_is_lost() {
    let card = Card::new(&image("ret;").replace(".maxntid 256", ".maxntid 128"));
    let place = buffer(&[0; 8]);
    assert_eq!(card.launch("test", 1, &[at(&place), Argument::Word(0)]), 701);
    assert_eq!(Sim::poisoned_by(card.device), None);
    drop(place);
    card.finish();
}

#[test]
fn an_image_is_refused_by_the_first_thing_that_is_unknown_and_it_is_named() {
    let card = Card::new(&image("ret;"));
    for (body, named) in [
        ("add.f32 %r0, %r1, %r2;", "unknown instruction: add.f32 %r0, %r1, %r2"),
        ("add.s32 %r0, %r1;", "add.s32 %r0, %r1"),
        ("add.s32 %r0, %r1, %d0;", "add.s32 %r0, %r1, %d0"),
        ("add.s64 %r0, %d1, %d0;", "add.s64 %r0"),
        ("mov.u32 %r99, 0;", "mov.u32 %r99, 0"),
        ("bra $nowhere;", "no label $nowhere"),
        ("ld.global.u64 %d1, [first];", "ld.global.u64 %d1, [first]"),
        ("st.param.u32 [value], %r0;", "st.param"),
        ("bar.sync 1;", "bar.sync 1"),
        (".reg .f32 %f;", "unknown directive: .reg .f32 %f"),
        ("shl.s32 %r0, %r1, 1;", "shl.s32"),
        ("min.s16 %h0, %h1, %h2;", "min.s16"),
    ] {
        let text = image(&format!("{body} ret;"));
        assert_eq!(Module::from_ptx(&text, &[]).unwrap_err(), CudaError::InvalidPtx, "{body}");
        let log = Sim::take_misuse(card.device);
        let [entry] = log.as_slice() else { panic!("one entry, not {log:?}") };
        assert_eq!(entry.kind, MisuseKind::UnknownPtx);
        assert!(entry.detail.contains(named) && entry.detail.contains("kernel test"), "{entry}");
    }
    card.finish();
}

#[test]
fn an_image_for_a_newer_card_is_refused() {
    cuda_sim::install();
    let spec = DeviceSpec { compute_capability: (7, 5), ..DeviceSpec::default() };
    let card = Card::with(spec, &image("ret;").replace("sm_80", "sm_75"));
    let refused = Module::from_ptx(image("ret;"), &[]).unwrap_err();
    assert_eq!(refused, CudaError::NoBinaryForGpu);
    card.finish();
}

/// Every thread writes its own word.
const WRITES: &str = "mul.wide.u32 %d0, %tid, 4; add.s64 %d0, %at, %d0; mov.b32 %r0, -1;
    st.global.u32 [%d0], %r0; ret;";

#[test]
fn faults_flip_a_bit_of_what_a_launch_writes_or_cut_it_short() {
    let card = Card::new(&image(WRITES));
    let faults = Sim::faults(card.device);
    let bytes = |fault: Option<Fault>| {
        let place = buffer(&[0; 1024]);
        if let Some(fault) = fault {
            faults.next(CallKind::Launch, fault);
        }
        assert_eq!(card.launch("test", 1, &[at(&place), Argument::Word(0)]), 0);
        read(&place)
    };
    assert_eq!(bytes(None), [0xFF; 1024]);
    let mut flipped = vec![0xFF; 1024];
    flipped[1000] = 0xFF ^ 4;
    assert_eq!(bytes(Some(Fault::FlipBit(8 * 1000 + 2 + 1024 * 8))), flipped);
    assert_eq!(bytes(Some(Fault::StopAfter(10))), [vec![0xFF; 10], vec![0; 1014]].concat());
    assert_eq!(bytes(Some(Fault::Drop)), [0; 1024]);
    assert_eq!(bytes(None), [0xFF; 1024]);
    faults.next(CallKind::Launch, Fault::Fail(1));
    let place = buffer(&[0; 8]);
    assert_eq!(card.launch("test", 1, &[at(&place), Argument::Word(0)]), 1);
    drop(place);
    card.finish();
}

#[test]
fn a_spoiled_kernel_computes_garbage_on_its_device_until_it_is_mended() {
    let cards = [Card::new(&image(WRITES)), Card::new(&image(WRITES))];
    let written = |card: &Card| {
        cust::context::CurrentContext::set_current(card.context()).unwrap();
        let place = buffer(&[0; 1024]);
        assert_eq!(card.launch("test", 1, &[at(&place), Argument::Word(0)]), 0);
        read(&place)
    };
    Sim::spoil_kernel(cards[0].device, "test");
    assert!(written(&cards[0]).iter().all(|byte| *byte != 0xFF));
    assert_eq!(written(&cards[1]), [0xFF; 1024]);
    Sim::mend_kernel(cards[0].device, "test");
    assert_eq!(written(&cards[0]), [0xFF; 1024]);
    cards.into_iter().for_each(Card::finish);
}

#[test]
fn modules_are_gone_after_a_reset() {
    let card = Card::new(&image("ret;"));
    let place = buffer(&[0; 8]);
    assert_eq!(card.launch("test", 1, &[at(&place), Argument::Word(0)]), 0);
    assert_eq!(Sim::leak_report(card.device).modules, 1);
    core::mem::forget(place);
    let device = card.device;
    card.abandon_with(|| assert_eq!(Sim::leak_report(device).modules, 0));
}

#[test]
fn a_function_says_what_its_ptx_says() {
    let card = Card::new(&image("ret;"));
    let of = |attribute| card.attribute("test", attribute);
    // Threads, shared bytes, constants, local bytes, PTX version, binary version.
    assert_eq!([0, 1, 2, 3, 5, 6].map(of), [256, 2048, 0, 16, 74, 80]);
    card.finish();
}

#[test]
fn parameters_arrive_as_they_were_sent() {
    let body = "st.global.u64 [%at], %at; st.global.u32 [%at+8], %word; ret;";
    let card = Card::new(&image(body));
    let place = buffer(&[0; 12]);
    assert_eq!(card.launch("test", 1, &[at(&place), Argument::Word(0xABCD)]), 0);
    let expected = [&address(&place).to_le_bytes()[..], &0xABCD_u32.to_le_bytes()].concat();
    assert_eq!(read(&place), expected);
    drop(place);
    card.finish();
}
