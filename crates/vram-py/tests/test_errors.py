"""Every kind of error is its own exception, with a code and what would help."""

import itertools
import os
import stat
import threading

import pytest
from conftest import write_file

import vram


def test_no_room_says_what_would_help(example):
    manager = vram.Manager.host("100KiB", headroom="10KiB")
    with pytest.raises(vram.InsufficientVram) as caught:
        manager.load(example)
    error = caught.value
    assert isinstance(error, MemoryError) and isinstance(error, vram.Error)
    assert error.code == "insufficient-vram" and error.kind == "caller" and not error.retryable
    assert error.retry_after is None and not error.integrity
    assert error.most == 90 << 10 and "there are never more than 90.0 KiB" in str(error)
    assert error.needed >= 300_000 and error.room <= 90 << 10 and error.headroom == 10 << 10
    assert error.largest_hole >= 0 and error.foreign == 0 and error.gpu == 0
    assert error.holders == [] and error.plan is None and error.busy["count"] == 0
    assert manager.memory()[0] == 0, "nothing stays of a load that was refused"


def test_holders_are_named(tmp_path):
    manager = vram.Manager.host("1MiB")
    path = write_file(tmp_path / "half.safetensors", [("w", "U8", [600 << 10], bytes(600 << 10))])
    with manager.load(path, owner="team-a"):
        with pytest.raises(vram.InsufficientVram) as caught:
            manager.load(path, name="other")
        assert caught.value.holders[0]["owner"] == "team-a"
        assert caught.value.retryable and caught.value.retry_after > 0 and caught.value.most == 1 << 20


def test_eviction_makes_room(tmp_path):
    manager = vram.Manager.host("1MiB", evict=True)
    path = write_file(tmp_path / "half.safetensors", [("w", "U8", [600 << 10], bytes(600 << 10))])
    first = manager.load(path, name="first", on_eviction="free")
    with manager.load(path, name="second"), pytest.raises(vram.StateError):
        first["w"]


def test_files_that_are_no_model(manager, tmp_path):
    missing = tmp_path / "missing.safetensors"
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (missing, broken, empty):
        with pytest.raises(vram.SourceError) as caught:
            manager.load(path)
        assert isinstance(caught.value, OSError) and not caught.value.retryable
        assert str(path) in str(caught.value)
        assert isinstance(caught.value, FileNotFoundError) == (path is missing)


def test_a_file_that_is_written_meanwhile(manager, tmp_path):
    path = write_file(tmp_path / "large.safetensors", [("w", "U8", [48 << 20], bytes(48 << 20))])

    # Not from a progress callback: a fast machine is done before the first one.
    done = threading.Event()

    def touch():
        for count in itertools.count():
            if done.is_set():
                return
            os.utime(path, ns=(1, count))

    toucher = threading.Thread(target=touch)
    toucher.start()
    try:
        with pytest.raises(vram.SourceChanged) as caught:
            manager.load(path)
    finally:
        done.set()
        toucher.join()
    error = caught.value
    assert isinstance(error, vram.SourceError) and isinstance(error, vram.IntegrityError)
    assert error.integrity and error.shard is None and str(path) in str(error)


def test_errors_name_the_tensor(manager, example):
    model = manager.load(example, name="small")
    view = model["embed"]
    for call in (model.park, model.free):
        with pytest.raises(vram.InUse, match='"embed" of "small"') as caught:
            call()
        assert caught.value.tensor == "embed" and caught.value.leases == 1
    with pytest.raises(vram.ConfigError, match='"blob" of "small"'):
        model.read("blob", 1 << 40)
    del view


def test_waking_what_is_resident(example):
    manager = vram.Manager.host(["1MiB", "1MiB"])
    with manager.load(example, gpu=1) as model:
        model.wake()
        model.wake(1)
        for gpu in (0, 77):
            with pytest.raises(vram.StateError, match="gpu 1: migrate"):
                model.wake(gpu)


@pytest.mark.parametrize(
    "call",
    [
        lambda: vram.Manager.host([]),
        lambda: vram.Manager.host("8 bananas"),
        lambda: vram.Manager.host(1.5),
        lambda: vram.Manager.host(-1),
        lambda: vram.Manager.host("1MiB", key=b"short"),
        lambda: vram.Manager.host("1MiB", node=""),
    ],
)
def test_arguments_that_mean_nothing(call):
    with pytest.raises(vram.ConfigError) as caught:
        call()
    assert isinstance(caught.value, ValueError) and caught.value.kind == "caller"


def test_wrong_arguments_of_a_manager(manager, example):
    for call in (
        lambda: manager.load(example, protection="none"),
        lambda: manager.load(example, gpu=7),
        lambda: manager.load(example, on_eviction="burn"),
        lambda: manager.load([]),
        lambda: manager.scrub(within=0),
        lambda: manager.scrub(within=1, share=0.5),
        lambda: manager.scrub(share=2.0),
        lambda: manager.close(-1),
        lambda: manager.memory(9),
        lambda: manager.events(float("nan")),
    ):
        with pytest.raises(vram.ConfigError):
            call()
    with manager.load(example) as model:
        for call in (
            lambda: model.verify("deep"),
            lambda: model.ticket(b"short"),
            lambda: model.read("blob", 1 << 40),
            lambda: model.migrate(3),
        ):
            with pytest.raises(vram.ConfigError):
                call()
    for path in (17, None, b"x", [b"x"], [17]):
        with pytest.raises(TypeError):
            manager.load(path)
    with pytest.raises(vram.ConfigError):
        vram.Manager.host(b"8GiB")

    class Path:
        def __fspath__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        manager.load(Path())


def test_keys(tmp_path, example):
    path = tmp_path / "node.key"
    path.write_bytes(os.urandom(32))
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    with pytest.raises(vram.KeyRefused) as caught:
        vram.Manager.host("1MiB", key=path)
    assert "chmod" in str(caught.value)
    with pytest.raises(vram.KeyRefused):
        vram.Manager.host("1MiB", key=tmp_path / "none.key")
    with vram.Manager.host("1MiB", key=os.urandom(32)) as manager, manager.load(example) as model:
        assert model.verify()


def test_tickets(example):
    key, nonce = os.urandom(32), os.urandom(32)
    manager = vram.Manager.host("1MiB", ticket_key=key, node="rack-7")
    with manager.load(example, name="small", owner="team-a") as model:
        ticket = model.ticket(nonce)
    stated = vram.verify_ticket(ticket, key=key, nonce=nonce, model_id="small", max_unverified=60)
    assert stated["node"] == "rack-7" and stated["owner"] == "team-a"
    assert stated["shard_count"] == 2 and stated["plaintext_len"] == 300_128
    forged = bytearray(ticket)
    forged[60] ^= 1
    for wrong in (
        lambda: vram.verify_ticket(bytes(forged), key=key, nonce=nonce),
        lambda: vram.verify_ticket(ticket[:-1], key=key, nonce=nonce),
        lambda: vram.verify_ticket(ticket, key=os.urandom(32), nonce=nonce),
        lambda: vram.verify_ticket(ticket, key=key, nonce=os.urandom(32)),
        lambda: vram.verify_ticket(ticket, key=key, nonce=nonce, model_id="other"),
    ):
        with pytest.raises(vram.TicketError):
            wrong()


def test_no_gpu_or_a_manager_of_them():
    try:
        manager = vram.Manager.cuda(budget="1MiB")
    except vram.NoGpu as error:
        assert len(str(error)) > 20 and error.code == "no-gpu" and error.kind == "fatal"
    else:
        assert manager.devices[0].startswith("cuda:")


def test_every_class_is_exported_and_documented():
    for name in vram.errors.__all__:
        assert getattr(vram, name) is getattr(vram.errors, name) and getattr(vram, name).__doc__
    for name in vram.__all__:
        thing = getattr(vram, name)
        if isinstance(thing, type):
            assert thing.__doc__, name
            public = [part for part in vars(thing) if not part.startswith("_")]
            assert all(getattr(thing, part).__doc__ for part in public if callable(getattr(thing, part)))
