"""Every workaround for a fault of another project, in one place.

Each entry says what it does, why, where the fault stands upstream, and when it can go.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from medtune.errors import EnvironmentFault


def require_cv2() -> None:
    """Check that `cv2` imports; call this before anything of mmengine's hooks or runner is imported.

    What: turns the ImportError into one line that says what to install.
    Why: `mmengine.hooks` imports cv2 for a visualisation hook that medtune never uses, and mmengine requires
        `opencv-python`, which is linked against libGL and so fails to import on a server without a desktop.
    Upstream: mmengine 0.10.7, `mmengine/hooks/naive_visualization_hook.py`; opencv-python's README, "headless".
    Remove when: mmengine imports cv2 lazily or requires the headless build.

    Raises:
        EnvironmentFault: cv2 is absent or cannot be loaded.
    """
    try:
        importlib.import_module("cv2")
    except ImportError as fault:
        reason = " ".join(str(fault).split())
        raise EnvironmentFault(
            f"mmengine needs cv2, which does not import here: {reason}. "
            "Run: pip uninstall -y opencv-python; pip install --force-reinstall --no-deps opencv-python-headless"
        ) from fault


def keep_4bit_weights_on_cpu(model: object) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in an evaluation on the CPU.

    What: switches off the avx512_bf16 path of every 4-bit linear layer of `model`.
    Why: on CPUs with avx512_bf16, an eval-mode forward without gradients repacks the weights in place; width 688
        then crashes, and elsewhere the next training step's gradient is wrong (relative error 0.85, measured).
    Upstream: bitsandbytes 0.50.2, `bitsandbytes/nn/modules.py`, `Linear4bit.forward`.
    Remove when: bitsandbytes unpacks the weights again, or keeps both, when training goes on.
    """
    for module in model.modules():  # type: ignore[attr-defined]
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep PEFT from setting off a deprecation warning of transformers' while it wraps a model.

    What: ignores that one FutureWarning.
    Why: PEFT asks a model for `is_gradient_checkpointing`, which transformers has renamed; the user can do nothing.
    Upstream: peft 0.21.2, `peft/peft_model.py`, `PeftModel.__init__`; transformers 5.23.
    Remove when: PEFT asks for `is_activation_checkpointing`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


@contextmanager
def quiet_missing_score() -> Iterator[None]:
    """Keep transformers from reporting, in a table, that a base has no score to load.

    What: raises its log level to errors meanwhile; whoever loads looks at the missing names himself.
    Why: a reward model begins with a score at random, so the table is no news.
    Upstream: transformers 5.23, `transformers/utils/loading_report.py`.
    Remove when: the report can be switched off by an argument.
    """
    from transformers.utils import logging as their_logging

    before = their_logging.get_verbosity()
    their_logging.set_verbosity_error()
    try:
        yield
    finally:
        their_logging.set_verbosity(before)


def quiet_bitsandbytes() -> None:
    """Keep bitsandbytes from warning at import that it fetched no kernel from a hub.

    What: its logger tells errors only.
    Why: without the package `kernels`, which would fetch code from a hub at import, it prints "Failed to load CPU
        gemm_4bit_forward from kernels-community" for every command; medtune wants it that way.
    Upstream: bitsandbytes 0.50.2, `bitsandbytes/backends/cpu/ops.py`.
    Remove when: the warning is given where a kernel is wanted, not at import.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def transformers_without_torch() -> None:
    """Let tokenizers load without torch, in a process that will not use a model.

    What: tells transformers that torch is not installed, unless it is imported already.
    Why: every tokenizer imports `transformers.modeling_rope_utils`, and that imports torch where it is installed: 2 s
        and 260 MB for functions that no tokenizer calls.
    Upstream: transformers 5.23, `configuration_utils.py`, which needs the rope functions for models' configs.
    Remove when: that import is lazy.
    """
    if "torch" in sys.modules:
        return
    from transformers import utils
    from transformers.utils import import_utils

    for module in (utils, import_utils):
        vars(module)["is_torch_available"] = lambda: False


@contextmanager
def logs_above_bar(logger: logging.Logger) -> Iterator[None]:
    """Inside, a logger's lines on the terminal scroll above a tqdm bar, and no others than before.

    What: tqdm's redirection, with the level of the handler that it replaces.
    Why: the handler that tqdm puts in has no level, so that mmengine's DEBUG lines, which its logger lets through for
        its file, come to the terminal.
    Upstream: tqdm 4.67, `tqdm/contrib/logging.py`, `logging_redirect_tqdm`.
    Remove when: tqdm copies the level as it copies the formatter and the filters.
    """
    from tqdm.contrib.logging import logging_redirect_tqdm

    before = list(logger.handlers)
    level = next((handler.level for handler in before if type(handler) is logging.StreamHandler), logger.level)
    with logging_redirect_tqdm([logger]):
        for handler in logger.handlers:
            if handler not in before:
                handler.setLevel(level)
        yield


def without_hook_list(logger: logging.Logger) -> None:
    """Keep mmengine from logging which hooks run at which of its 22 mount points.

    What: drops that one record.
    Why: it is the longest of a run's messages and says nothing that the config does not.
    Upstream: mmengine 0.10.7, `mmengine/runner/runner.py`, `Runner.__init__`.
    Remove when: mmengine logs it as DEBUG.
    """
    logger.addFilter(lambda record: not str(record.msg).startswith("Hooks will be executed in the following order"))


def brief_bars() -> None:
    """Let transformers' progress bars appear after a second only, and go when they are done.

    What: its hook for bars adds tqdm's `delay` and `leave`.
    Why: loading a small model, and saving one at every checkpoint, leaves a line each between those of the training.
    Upstream: transformers 5.23, `transformers/core_model_loading.py`, `transformers/modeling_utils.py`.
    Remove when: they are gone when they are done.
    """
    from transformers.utils import logging as bars

    set_hook = getattr(bars, "set_tqdm_hook", None)  # transformers 5 and later
    if set_hook is not None:
        set_hook(lambda factory, args, kwargs: factory(*args, **{**kwargs, "leave": False, "delay": 1}))
