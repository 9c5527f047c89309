"""Views: the same bits as safetensors, in place, read-only, of every type."""

import gc

import ml_dtypes
import numpy as np
import pytest
import safetensors
from conftest import WIDTH, noise, write_file

import vram

PLAIN = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32",
    "F64": "float64", "C64": "complex64",
}  # fmt: skip
NARROW = {
    "BF16": ("bfloat16", 4), "F8_E4M3": ("float8_e4m3fn", 10), "F8_E5M2": ("float8_e5m2", 12),
    "F8_E8M0": ("float8_e8m0fnu", 14),
}  # fmt: skip
SHAPES = [[], [1], [7], [3, 5], [2, 3, 4], [0], [4, 0, 2]]


def all_types(path):
    tensors = []
    for at, kind in enumerate([*PLAIN, *NARROW]):
        for number, shape in enumerate(SHAPES):
            count = int(np.prod(shape, dtype=np.int64)) * WIDTH[kind]
            data = noise(count, at * 100 + number + 1)
            if kind == "BOOL":
                data = bytes(byte & 1 for byte in data)
            tensors.append((f"{kind}.{number}", kind, shape, data))
    return write_file(path / "types.safetensors", tensors), tensors


def test_every_type_and_shape_is_the_same_to_the_bit(manager, tmp_path):
    path, tensors = all_types(tmp_path)
    theirs = safetensors.safe_open(path, framework="numpy")
    compared = 0
    with manager.load(path) as model:
        assert list(model) == [name for name, *_ in tensors] and len(model) == len(tensors)
        for name, kind, shape, data in tensors:
            tensor = model[name]
            assert tensor.shape == tuple(shape) and tensor.nbytes == len(data), name
            assert bytes(memoryview(tensor.bytes())) == data, name
            assert model.read(name) == data, name
            array = tensor.numpy()
            assert array.shape == tuple(shape) and array.tobytes() == data, name
            assert not array.flags.writeable and array.flags.c_contiguous, name
            assert str(array.dtype) == tensor.dtype, name
            if hasattr(np, tensor.dtype) or tensor.dtype == "bool":  # the types that safetensors gives numpy
                other = theirs.get_tensor(name)
                assert array.dtype == other.dtype and array.tobytes() == other.tobytes(), name
                compared += 1
            assert np.asarray(tensor).tobytes() == data, name
    assert compared == len(PLAIN) * len(SHAPES)


def test_the_buffer_protocol_knows_plain_types_and_refuses_others(manager, tmp_path):
    path, tensors = all_types(tmp_path)
    with manager.load(path) as model:
        for name, kind, shape, data in tensors:
            if kind in PLAIN:
                view = memoryview(model[name])
                assert view.readonly and view.shape == tuple(shape), name
                assert view.c_contiguous and view.nbytes == len(data), name
                array = np.asarray(model[name])
                assert str(array.dtype) == PLAIN[kind] == model[name].dtype, name
            else:
                with pytest.raises(BufferError, match=model[name].dtype):
                    memoryview(model[name])


def test_dlpack_in_place_and_as_a_copy(manager, tmp_path):
    path, tensors = all_types(tmp_path)
    with manager.load(path) as model:
        for name, kind, shape, data in tensors:
            tensor = model[name]
            assert tensor.__dlpack_device__() == (1, 0)
            if kind in NARROW:
                continue
            array = np.from_dlpack(tensor)
            assert array.tobytes() == data and str(array.dtype) == tensor.dtype, name
            assert not array.flags.writeable, name
            if data:
                assert array.ctypes.data == tensor.bytes().numpy().ctypes.data, name
            copied = np.from_dlpack(tensor, copy=True)
            assert copied.tobytes() == data and copied.flags.writeable, name
            if data:
                assert copied.ctypes.data != array.ctypes.data, name
        tensor = model["F32.3"]
        for wrong in ({"stream": 1}, {"dl_device": (2, 0)}):
            with pytest.raises((BufferError, ValueError)):
                tensor.__dlpack__(**wrong)
        assert 'dltensor"' in repr(tensor.__dlpack__())
        assert 'dltensor_versioned"' in repr(tensor.__dlpack__(max_version=(1, 1)))


def test_dlpack_names_bfloat16_and_float8(manager, tmp_path):
    """Read from the capsule as any receiver would."""
    import ctypes

    path, tensors = all_types(tmp_path)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    with manager.load(path) as model:
        for name, kind, shape, data in tensors:
            if kind not in NARROW:
                continue
            dtype, code = NARROW[kind]
            assert model[name].dtype == dtype
            capsule = model[name].__dlpack__()
            at = get(capsule, b"dltensor")
            words = ctypes.string_at(at, 48)
            address = int.from_bytes(words[0:8], "little")
            assert int.from_bytes(words[8:12], "little") == 1
            assert int.from_bytes(words[16:20], "little") == len(shape)
            assert words[20] == code and words[21] == 8 * WIDTH[kind] and words[22] == 1
            if data:
                assert ctypes.string_at(address, len(data)) == data
            versioned = model[name].__dlpack__(max_version=(1, 0))
            words = ctypes.string_at(get(versioned, b"dltensor_versioned"), 32)
            assert int.from_bytes(words[0:4], "little") == 1
            assert int.from_bytes(words[24:32], "little") == 1, "read-only"


def test_writing_is_refused(manager, example):
    with manager.load(example) as model:
        array = np.asarray(model["embed"])
        with pytest.raises(ValueError):
            array[0, 0] = 1
        with pytest.raises(ValueError):
            array.flags.writeable = True
        with pytest.raises(TypeError):
            memoryview(model["embed"])[0, 0] = 1.0
        import ctypes

        with pytest.raises(TypeError):
            (ctypes.c_char * 128).from_buffer(model["embed"])


def test_a_view_is_the_memory_itself(manager, example):
    with manager.load(example) as model:
        first, second = np.asarray(model["embed"]), np.from_dlpack(model["embed"])
        assert first.ctypes.data == second.ctypes.data
        assert model["blob"].bytes().numpy().ctypes.data % 256 == 0
        with pytest.raises(AttributeError):
            model["embed"].__cuda_array_interface__


def test_a_mapping_as_dictionaries_are(manager, example):
    with manager.load(example, name="small") as model:
        assert model.name == "small" and model.metadata == {"format": "np"}
        assert "embed" in model and "nothing" not in model and len(model) == 2
        assert list(model) == model.keys() == ["embed", "blob"]
        assert [name for name, _ in model.items()] == model.keys()
        assert [tensor.name for tensor in model.values()] == model.keys()
        with pytest.raises(KeyError, match="nothing"):
            model["nothing"]
        assert "small" in repr(model) and "float32" in repr(model["embed"])
        assert len(model["embed"]) == 4 and model["embed"].ndim == 2
        assert model.nbytes == 128 + 300_000
        with pytest.raises(TypeError):
            vram.Tensor()
        with pytest.raises(TypeError):
            type(model)()


def test_encrypted_weights_have_no_views_and_can_be_read(manager, example):
    with manager.load(example, protection="encrypted") as model:
        with pytest.raises(vram.StateError) as caught:
            model["blob"]
        assert caught.value.code == "encrypted" and not caught.value.retryable
        assert model.read("blob", 10, 20) == noise(300_000)[10:30]
        assert model.verify()


def test_a_file_several_files_and_a_folder(manager, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    one = write_file(folder / "m-00001-of-00002.safetensors", [("one", "U8", [3], b"abc")])
    two = write_file(folder / "m-00002-of-00002.safetensors", [("two", "U8", [3], b"def")])
    (folder / "config.json").write_text("{}")
    for path in (folder, [one, two], [str(one), str(two)]):
        with manager.load(path) as model:
            assert model.name == "model" and model.keys() == ["one", "two"]
            assert bytes(model["two"]) == b"def"
    gc.collect()
    assert manager.memory() == (0, 64 << 20)
    assert ml_dtypes.bfloat16 is not None
