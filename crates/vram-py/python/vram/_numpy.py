"""Views as numpy arrays: methods of ``vram.Tensor``."""


def dtype_of(name):
    """The type of numpy with this name; those that only the package ml_dtypes has as well."""
    import numpy

    try:
        return numpy.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes

        return numpy.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError) as error:
        raise TypeError(f"numpy has no {name}: install ml_dtypes, or use bytes() or DLPack") from error


def numpy(self):
    """The tensor as a read-only numpy array in place, on a host device. The package ``ml_dtypes`` gives
    numpy the types bfloat16 and float8."""
    import numpy as np

    if self.dtype.startswith(("float4_", "float6_")):
        raise TypeError(f"elements of {self.dtype} share bytes: use bytes()")
    flat = np.frombuffer(memoryview(self.bytes()), dtype=dtype_of(self.dtype))
    return flat.reshape(self.shape)


def __array__(self, dtype=None, copy=None):
    """What ``numpy.asarray`` asks for where the buffer protocol has no such type."""
    import numpy as np

    made = self.numpy()
    if dtype is not None and made.dtype != dtype:
        if copy is False:
            raise ValueError(f"{self.dtype} as {dtype} is a copy")
        return made.astype(dtype)
    return np.array(made) if copy else made
