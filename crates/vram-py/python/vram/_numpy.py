"""Views as numpy arrays."""


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


def view(tensor):
    """A read-only array in place."""
    import numpy

    if tensor.dtype.startswith(("float4_", "float6_")):
        raise TypeError(f"elements of {tensor.dtype} share bytes: use bytes()")
    flat = numpy.frombuffer(memoryview(tensor.bytes()), dtype=dtype_of(tensor.dtype))
    return flat.reshape(tensor.shape)


def array(tensor, dtype=None, copy=None):
    """What ``numpy.asarray`` asks for where the buffer protocol has no such type."""
    import numpy

    made = view(tensor)
    if dtype is not None and made.dtype != dtype:
        if copy is False:
            raise ValueError(f"{tensor.dtype} as {dtype} is a copy")
        return made.astype(dtype)
    return numpy.array(made) if copy else made
