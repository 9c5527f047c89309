//! The stated time includes reads whose result is superseded by another check.

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{ByteLen, Protection, ReadBack, ScrubCursor, SealRequest, Verify};

use super::hands::{SEGMENT, Timed, seconds};
use vram_test_rigs::held_up;

#[test]
fn a_run_that_an_older_check_made_worthless_is_counted_as_done_in_vain() {
    let rig = Timed::new(&[1 << 20]);
    let request = SealRequest::new("model", 0)
        .protection(Protection::Authenticated)
        .read_back(ReadBack::None);
    let shard = rig.manager.seal(request, &vec![7; 50_000]).unwrap();
    let (is_inside, go_on) = held_up(&rig.devices[0], Op::Read);
    let mut cursor = ScrubCursor::new();
    std::thread::scope(|scope| {
        let check = scope.spawn(|| rig.manager.verify(&shard, Verify::Segments).unwrap());
        is_inside.recv().unwrap();
        rig.clock.advance(seconds(10));
        let step = rig.manager.scrub_step(&mut cursor, ByteLen::new(3 * SEGMENT));
        assert_eq!(step.bytes.get(), 3 * SEGMENT);
        let before = rig.manager.scrub_bound(&cursor, SEGMENT);

        // That check began before the run, so it proves less than the run would have.
        go_on.send(()).unwrap();
        assert!(check.join().unwrap().sound);
        assert_eq!(rig.manager.unverified_age(&shard).unwrap(), seconds(10));
        let step = rig.manager.scrub_step(&mut cursor, ByteLen::new(SEGMENT));
        assert_eq!((step.bytes.get(), step.verified), (0, 0));
        assert_eq!(rig.manager.scrub_bound(&cursor, SEGMENT), before + seconds(3));
    });
}

#[test]
fn what_somebody_else_verified_meanwhile_is_not_looked_at_again_in_the_same_pass() {
    let rig = Timed::new(&[1 << 20]);
    let request = SealRequest::new("model", 0)
        .protection(Protection::Authenticated)
        .read_back(ReadBack::None);
    let bytes = [7; 4096];
    let [_first, second] = [0, 1].map(|_| rig.manager.seal(request.clone(), &bytes).unwrap());
    let mut cursor = ScrubCursor::new();
    let step = rig.manager.scrub_step(&mut cursor, ByteLen::new(SEGMENT));
    assert_eq!((step.bytes.get(), step.verified), (SEGMENT, 1));
    rig.clock.advance(seconds(1));
    assert!(rig.manager.verify(&second, Verify::Segments).unwrap().sound);
    let step = rig.manager.scrub_step(&mut cursor, ByteLen::MIB);
    assert_eq!((step.bytes.get(), step.pass_ended), (0, true));
}

#[test]
fn a_run_that_a_device_error_ended_is_counted_as_done_in_vain() {
    let rig = Timed::new(&[1 << 20]);
    let request = SealRequest::new("model", 0)
        .protection(Protection::Authenticated)
        .read_back(ReadBack::None);
    let _shard = rig.manager.seal(request, &vec![7; 50_000]).unwrap();
    let mut cursor = ScrubCursor::new();
    let step = rig.manager.scrub_step(&mut cursor, ByteLen::new(2 * SEGMENT));
    assert_eq!(step.bytes.get(), 2 * SEGMENT);
    let before = rig.manager.scrub_bound(&cursor, SEGMENT);
    rig.devices[0].add(Op::Read, When::Nth(1), Action::Driver(1)).unwrap();
    let step = rig.manager.scrub_step(&mut cursor, ByteLen::new(SEGMENT));
    assert_eq!((step.errors, step.bytes.get()), (1, 0));
    assert_eq!(rig.manager.scrub_bound(&cursor, SEGMENT), before + seconds(3));
}

#[test]
fn a_check_that_began_earlier_and_ends_later_makes_no_shard_older() {
    let rig = Timed::new(&[1 << 20]);
    let request = SealRequest::new("model", 0)
        .protection(Protection::Authenticated)
        .read_back(ReadBack::None);
    let shard = rig.manager.seal(request, &[7; 5000]).unwrap();
    let (is_inside, go_on) = held_up(&rig.devices[0], Op::Read);
    std::thread::scope(|scope| {
        let check = scope.spawn(|| rig.manager.verify(&shard, Verify::Segments).unwrap());
        is_inside.recv().unwrap();
        rig.clock.advance(seconds(10));
        let mut cursor = ScrubCursor::new();
        assert_eq!(rig.manager.scrub_step(&mut cursor, ByteLen::MIB).verified, 1);
        assert_eq!(rig.manager.unverified_age(&shard).unwrap(), seconds(0));
        go_on.send(()).unwrap();
        assert!(check.join().unwrap().sound);
        assert_eq!(rig.manager.unverified_age(&shard).unwrap(), seconds(0));
    });
}
