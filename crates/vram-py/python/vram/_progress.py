"""A progress bar for ``Manager.load(progress=True)``."""


def bar(name):
    """A callback that shows a bar of tqdm."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs the package tqdm; a callback does not") from error
    shown = None

    def show(done, total):
        nonlocal shown
        if shown is None:
            shown = tqdm(total=total, desc=name, unit="B", unit_scale=True, unit_divisor=1024)
        shown.update(done - shown.n)
        if done >= total:
            shown.close()

    return show
