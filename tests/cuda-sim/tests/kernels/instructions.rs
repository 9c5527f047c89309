//! Each instruction of the interpreter beside its definition, on values at the edges; and lanes that
//! part and meet.

use crate::card::{Argument, Card, Layout, THREADS, at, buffer, read};

const EDGES: [u64; 16] = [
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    63,
    0x80,
    0xFFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x1234_5678_9ABC_DEF0,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0001,
    u64::MAX,
];

/// Inputs of a thread.
type Inputs = [u64; 3];

fn inputs() -> Vec<Inputs> {
    let mut all = Vec::new();
    for (number, a) in EDGES.into_iter().enumerate() {
        for b in EDGES {
            all.push([a, b, EDGES[(number * 7 + all.len()) % EDGES.len()]]);
        }
    }
    all
}

/// What an instruction computes of every input. It stands for `op` in a body that has `%a0`, `%a1`,
/// `%a2` (64 bits), `%w0`… (the lower 32), `%h0`… (the lower 16), and puts its result in `%d`.
fn computed(op: &str) -> Vec<u64> {
    let image = format!(
        ".version 7.4 .target sm_80 .address_size 64
        .visible .entry test(.param .u64 from, .param .u64 to)
        {{
            .reg .b64 %a<3>, %d, %from, %to, %by; .reg .b32 %w<3>, %e, %f, %tid; .reg .b16 %h<3>, %g, %i;
            .reg .pred %p, %q;
            ld.param.u64 %from, [from]; ld.param.u64 %to, [to];
            mov.u32 %tid, %tid.x;
            mul.wide.u32 %by, %tid, 24; add.s64 %from, %from, %by;
            mul.wide.u32 %by, %tid, 8; add.s64 %to, %to, %by;
            ld.global.u64 %a0, [%from]; ld.global.u64 %a1, [%from+8]; ld.global.u64 %a2, [%from+16];
            cvt.u32.u64 %w0, %a0; cvt.u32.u64 %w1, %a1; cvt.u32.u64 %w2, %a2;
            cvt.u16.u64 %h0, %a0; cvt.u16.u64 %h1, %a1; cvt.u16.u64 %h2, %a2;
            {op}
            st.global.u64 [%to], %d;
            ret;
        }}"
    );
    let card = Card::new(&image);
    let mut bytes = Layout::default();
    for inputs in inputs() {
        bytes.doubles(&inputs);
    }
    let (from, to) = (buffer(&bytes.0), buffer(&[0; 8 * 256]));
    assert_eq!(THREADS, 256);
    assert_eq!(card.launch("test", 1, &[at(&from), at(&to)]), 0, "{op}");
    let results = read(&to).as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    drop((from, to));
    card.finish();
    results
}

/// On 64 bits.
fn doubles(op: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    let got = computed(&format!("{op};"));
    for ([a, b, c], got) in inputs().into_iter().zip(got) {
        assert_eq!(got, expected(a, b, c), "{op} of {a:#x}, {b:#x}, {c:#x}");
    }
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the lower bits")]
const fn low(value: u64) -> u32 {
    value as u32
}

/// On 32 bits; the result is in `%e`.
fn words(op: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    let got = computed(&format!("{op}; cvt.u64.u32 %d, %e;"));
    for ([a, b, c], got) in inputs().into_iter().zip(got) {
        let expected = expected(low(a), low(b), low(c));
        assert_eq!(got, u64::from(expected), "{op} of {a:#x}, {b:#x}, {c:#x}");
    }
}

/// On 16 bits; the result is in `%g`.
fn halves(op: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    let got = computed(&format!("{op}; cvt.u64.u16 %d, %g;"));
    for ([a, b, c], got) in inputs().into_iter().zip(got) {
        let expected = expected(low(a) & 0xFFFF, low(b) & 0xFFFF, low(c)) & 0xFFFF;
        assert_eq!(got, u64::from(expected), "{op} of {a:#x}, {b:#x}, {c:#x}");
    }
}

/// A predicate; the result is in `%p`.
fn relation(op: &str, expected: impl Fn(u64, u64) -> bool) {
    let got = computed(&format!("{op}; selp.b64 %d, 1, 0, %p;"));
    for ([a, b, _], got) in inputs().into_iter().zip(got) {
        assert_eq!(got, u64::from(expected(a, b)), "{op} of {a:#x}, {b:#x}");
    }
}

#[test]
fn words_are_computed_as_defined() {
    words("add.s32 %e, %w0, %w1", |a, b, _| a.wrapping_add(b));
    words("sub.s32 %e, %w0, %w1", |a, b, _| a.wrapping_sub(b));
    words("mul.lo.s32 %e, %w0, %w1", |a, b, _| a.wrapping_mul(b));
    words("mad.lo.s32 %e, %w0, %w1, %w2", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    words("neg.s32 %e, %w0", |a, _, _| a.wrapping_neg());
    words("and.b32 %e, %w0, %w1", |a, b, _| a & b);
    words("or.b32 %e, %w0, %w1", |a, b, _| a | b);
    words("xor.b32 %e, %w0, -2", |a, _, _| a ^ 0xFFFF_FFFE);
    words("not.b32 %e, %w0", |a, _, _| !a);
    words("shl.b32 %e, %w0, %w1", |a, n, _| a.checked_shl(n).unwrap_or(0));
    words("shr.u32 %e, %w0, %w1", |a, n, _| a.checked_shr(n).unwrap_or(0));
    words("shr.s32 %e, %w0, %w1", |a, n, _| (a.cast_signed() >> n.min(31)).cast_unsigned());
    words("min.u32 %e, %w0, %w1", |a, b, _| a.min(b));
    words("max.s32 %e, %w0, %w1", |a, b, _| a.cast_signed().max(b.cast_signed()).cast_unsigned());
    words("selp.b32 %e, 3, 4, %q", |_, _, _| 4);
}

#[test]
fn shifts_of_pairs_and_fields_are_computed_as_defined() {
    let pair = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
    words("shf.l.wrap.b32 %e, %w0, %w1, %w2", |a, b, n| low(pair(a, b) << (n & 31) >> 32));
    words("shf.r.wrap.b32 %e, %w0, %w1, %w2", |a, b, n| low(pair(a, b) >> (n & 31)));
    for n in [0, 1, 7, 16, 31, 32, 40] {
        words(&format!("shf.l.wrap.b32 %e, %w0, %w0, {n}"), |a, _, _| a.rotate_left(n & 31));
        words(&format!("shf.r.wrap.b32 %e, %w0, %w0, {n}"), |a, _, _| a.rotate_right(n & 31));
    }
    words("shf.l.wrap.b32 %e, %w0, %w0, %w1", |a, n, _| a.rotate_left(n & 31));
    words("bfe.u32 %e, %w0, %w1, %w2", |a, at, len| {
        let (at, len) = (at & 255, len & 255);
        let bits = (0..len.min(32)).filter(|bit| at + bit < 32);
        bits.map(|bit| (a >> (at + bit) & 1) << bit).sum()
    });
    words("prmt.b32 %e, %w0, %w1, %w2", |a, b, chosen| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
        u32::from_le_bytes(core::array::from_fn(|at| {
            let nibble = usize::try_from(chosen >> (4 * at) & 15).unwrap();
            let byte = bytes[nibble & 7];
            if nibble < 8 { byte } else { (byte.cast_signed() >> 7).cast_unsigned() }
        }))
    });
}

#[test]
fn halves_are_computed_as_defined() {
    halves("xor.b16 %g, %h0, %h1", |a, b, _| a ^ b);
    halves("and.b16 %g, %h0, 255", |a, _, _| a & 255);
    halves("not.b16 %g, %h0", |a, _, _| !a);
    halves("add.s16 %g, %h0, %h1", |a, b, _| a.wrapping_add(b));
    halves("sub.s16 %g, %h0, %h1", |a, b, _| a.wrapping_sub(b));
    halves("shl.b16 %g, %h0, %w2", |a, _, n| a.checked_shl(n).unwrap_or(0));
    halves("shr.u16 %g, %h0, 3", |a, _, _| a >> 3);
    words("mul.wide.u16 %e, %h0, %h1", |a, b, _| (a & 0xFFFF) * (b & 0xFFFF));
    words("mad.wide.u16 %e, %h0, %h1, %w2", |a, b, c| {
        ((a & 0xFFFF) * (b & 0xFFFF)).wrapping_add(c)
    });
}

#[test]
fn doubles_are_computed_as_defined() {
    doubles("add.s64 %d, %a0, %a1", |a, b, _| a.wrapping_add(b));
    doubles("sub.s64 %d, %a0, %a1", |a, b, _| a.wrapping_sub(b));
    doubles("mul.lo.s64 %d, %a0, %a1", |a, b, _| a.wrapping_mul(b));
    doubles("mad.lo.s64 %d, %a0, %a1, %a2", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    doubles("neg.s64 %d, %a0", |a, _, _| a.wrapping_neg());
    doubles("and.b64 %d, %a0, %a1", |a, b, _| a & b);
    doubles("or.b64 %d, %a0, 0x10", |a, _, _| a | 16);
    doubles("xor.b64 %d, %a0, -1", |a, _, _| !a);
    doubles("not.b64 %d, %a0", |a, _, _| !a);
    doubles("shl.b64 %d, %a0, %w1", |a, n, _| a.checked_shl(low(n)).unwrap_or(0));
    doubles("shr.u64 %d, %a0, %w1", |a, n, _| a.checked_shr(low(n)).unwrap_or(0));
    doubles("shr.s64 %d, %a0, 33", |a, _, _| (a.cast_signed() >> 33).cast_unsigned());
    doubles("min.s64 %d, %a0, %a1", |a, b, _| a.cast_signed().min(b.cast_signed()).cast_unsigned());
    doubles("max.u64 %d, %a0, %a1", |a, b, _| a.max(b));
    doubles("mul.wide.u32 %d, %w0, %w1", |a, b, _| u64::from(low(a)) * u64::from(low(b)));
    doubles("mad.wide.u32 %d, %w0, %w1, %a2", |a, b, c| {
        (u64::from(low(a)) * u64::from(low(b))).wrapping_add(c)
    });
    doubles("mul.wide.s32 %d, %w0, %w1", |a, b, _| {
        let [a, b] = [a, b].map(|value| i64::from(low(value).cast_signed()));
        (a * b).cast_unsigned()
    });
}

#[test]
fn conversions_and_moves_are_computed_as_defined() {
    doubles("cvt.u64.u32 %d, %w0", |a, _, _| a & 0xFFFF_FFFF);
    doubles("cvt.s64.s32 %d, %w0", |a, _, _| i64::from(low(a).cast_signed()).cast_unsigned());
    words("cvt.u32.u64 %e, %a0", |a, _, _| a);
    words("cvt.u32.u16 %e, %h0", |a, _, _| a & 0xFFFF);
    words("cvt.s32.s8 %e, %w0", |a, _, _| (a << 24).cast_signed().wrapping_shr(24).cast_unsigned());
    halves("cvt.u16.u32 %g, %w0", |a, _, _| a);
    doubles("mov.b64 %d, {%w0, %w1}", |a, b, _| b << 32 | a & 0xFFFF_FFFF);
    doubles("{ .reg .b32 %other; mov.b64 {%other, %e}, %a0; } cvt.u64.u32 %d, %e", |a, _, _| {
        a >> 32
    });
    words("mov.b32 {%g, %i}, %w0; cvt.u32.u16 %e, %i", |a, _, _| a >> 16);
    words("mov.b32 %e, {%h0, %h1}", |a, b, _| b << 16 | a & 0xFFFF);
    // What is read narrow is extended as its type says.
    words("ld.global.s8 %e, [%from]", |a, _, _| {
        (a << 24).cast_signed().wrapping_shr(24).cast_unsigned()
    });
    words("ld.global.u16 %e, [%from]", |a, _, _| a & 0xFFFF);
    doubles("ld.global.u32 %d, [%from+8]", |_, b, _| b & 0xFFFF_FFFF);
    // The lane, and the number of threads.
    words("mov.u32 %e, %laneid; and.b32 %f, %tid, 31; sub.s32 %e, %e, %f", |_, _, _| 0);
    words("mov.u32 %e, %ntid.x", |_, _, _| 256);
}

#[test]
fn relations_hold_as_defined() {
    let signed = |value: u64| value.cast_signed();
    relation("setp.lt.u64 %p, %a0, %a1", |a, b| a < b);
    relation("setp.lt.s64 %p, %a0, %a1", |a, b| signed(a) < signed(b));
    relation("setp.ge.u32 %p, %w0, %w1", |a, b| low(a) >= low(b));
    relation("setp.gt.s32 %p, %w0, %w1", |a, b| low(a).cast_signed() > low(b).cast_signed());
    relation("setp.le.u32 %p, %w0, 33", |a, _| low(a) <= 33);
    relation("setp.eq.s16 %p, %h0, -1", |a, _| a & 0xFFFF == 0xFFFF);
    relation("setp.ne.b64 %p, %a0, %a1", |a, b| a != b);
    relation("setp.lt.s16 %p, %h0, 0", |a, _| a & 0x8000 != 0);
    let two = "setp.eq.s32 %p, %w0, %w1; setp.lt.u32 %q, %w0, %w1;";
    relation(&format!("{two} or.pred %p, %p, %q"), |a, b| low(a) <= low(b));
    relation(&format!("{two} not.pred %p, %q; and.pred %p, %p, %q"), |_, _| false);
    relation(&format!("{two} xor.pred %p, %q, %p; not.pred %p, %p"), |a, b| low(a) > low(b));
    relation(&format!("{two} mov.pred %p, %q"), |a, b| low(a) < low(b));
    relation(&format!("{two} mov.pred %p, -1"), |_, _| true);
}

#[test]
fn lanes_that_part_at_branches_and_loops_meet_again() {
    // Collatz steps of the thread's number: every lane leaves the loop at its own time.
    let image = ".version 7.4 .target sm_80 .address_size 64
        .visible .entry test(.param .u64 to, .param .u32 most)
        {
            .reg .b64 %to, %by; .reg .b32 %n, %steps, %tid, %bit, %most; .reg .pred %p, %q;
            ld.param.u64 %to, [to]; ld.param.u32 %most, [most];
            mov.u32 %tid, %tid.x; add.s32 %n, %tid, 1; mov.u32 %steps, 0;
        $loop:
            setp.eq.u32 %p, %n, 1;
            setp.ge.u32 %q, %steps, %most;
            @%q bra $out;
            @%p bra $out;
            add.s32 %steps, %steps, 1;
            and.b32 %bit, %n, 1;
            setp.eq.u32 %p, %bit, 0;
            @!%p bra $odd;
            shr.u32 %n, %n, 1;
            bra.uni $loop;
        $odd:
            mad.lo.s32 %n, %n, 3, 1;
            bra $loop;
        $out:
            bar.sync 0;
            mul.wide.u32 %by, %tid, 4; add.s64 %to, %to, %by;
            @%p st.global.u32 [%to], %steps;
            @!%p st.global.u32 [%to], %n;
        }";
    let card = Card::new(image);
    let to = buffer(&[0; 4 * 256]);
    assert_eq!(card.launch("test", 1, &[at(&to), Argument::Word(100)]), 0);
    let words = read(&to);
    for (thread, bytes) in (1_u32..).zip(words.as_chunks().0) {
        let (mut n, mut steps) = (thread, 0);
        while n != 1 && steps < 100 {
            n = if n % 2 == 0 { n / 2 } else { n * 3 + 1 };
            steps += 1;
        }
        let expected = if n == 1 { steps } else { n };
        assert_eq!(u32::from_le_bytes(*bytes), expected, "thread {thread}");
    }
    drop(to);
    card.finish();
}

#[test]
fn threads_and_blocks_are_numbered_in_three_dimensions() {
    // Each thread writes its own number, from all coordinates, and its lane.
    let image = ".version 7.4 .target sm_80 .address_size 64
        .visible .entry test(.param .u64 to)
        {
            .reg .b64 %to, %by; .reg .b32 %a, %b, %thread, %block, %lane;
            ld.param.u64 %to, [to];
            mov.u32 %a, %tid.z; mov.u32 %b, %ntid.y; mov.u32 %thread, %tid.y;
            mad.lo.s32 %thread, %a, %b, %thread;
            mov.u32 %b, %ntid.x; mov.u32 %a, %tid.x; mad.lo.s32 %thread, %thread, %b, %a;
            mov.u32 %a, %ctaid.z; mov.u32 %b, %nctaid.y; mov.u32 %block, %ctaid.y;
            mad.lo.s32 %block, %a, %b, %block;
            mov.u32 %b, %nctaid.x; mov.u32 %a, %ctaid.x; mad.lo.s32 %block, %block, %b, %a;
            mad.lo.s32 %a, %block, 30, %thread;
            mul.wide.u32 %by, %a, 8; add.s64 %to, %to, %by;
            mov.u32 %lane, %laneid;
            st.global.v2.u32 [%to], {%a, %lane};
            ret;
        }";
    let card = Card::new(image);
    let to = buffer(&[0xEE; 8 * 30 * 24]);
    assert_eq!(card.launch_shaped("test", [2, 3, 4], [5, 3, 2], &[at(&to)]), 0);
    for (number, bytes) in (0_u32..).zip(read(&to).as_chunks().0) {
        let (thread, lane) = (u64::from_le_bytes(*bytes) & 0xFFFF_FFFF, bytes[4]);
        assert_eq!((thread, u32::from(lane)), (number.into(), number % 30));
    }
    drop(to);
    card.finish();
}
