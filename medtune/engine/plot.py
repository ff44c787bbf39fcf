"""Where scalars go, and `loss.png`: the curves of a run, from the scalars it wrote, over all its restarts."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medtune.build import checked_by
from medtune.errors import ConfigError


def _precheck_tensorboard(tensorboard: bool = False) -> None:
    if tensorboard and find_spec("tensorboard") is None:
        raise ConfigError("tensorboard=True: the package is not installed. Run: pip install tensorboard")


@checked_by(_precheck_tensorboard)
def scalar_backends(tensorboard: bool = False) -> dict[str, Any]:
    """A config's `visualizer` in mmengine's form: JSON lines always, TensorBoard events on request."""
    from mmengine.visualization import LocalVisBackend, TensorboardVisBackend

    kinds = [LocalVisBackend, *([TensorboardVisBackend] if tensorboard else [])]
    return {"vis_backends": [{"type": kind} for kind in kinds]}


def read_scalars(work_dir: Path) -> dict[str, dict[int, float]]:
    """Scalar name -> step -> value, from every `<timestamp>/vis_data/scalars.json` of a run; later restarts win."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # the process was killed while it wrote the line
                continue
            for name, value in record.items():
                found.setdefault(name, {})[record["step"]] = value
    return found


def plot_loss(work_dir: Path, file: Path) -> None:
    """Draw training and validation loss (nats per trained token) and the learning rate over optimizer steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scalars = read_scalars(work_dir)
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    losses = figure.add_subplot()
    for name, label, style in (("loss", "training loss", "-"), ("val_loss", "validation loss", "o-")):
        if name in scalars:
            steps = sorted(scalars[name])
            losses.plot(steps, [scalars[name][s] for s in steps], style, label=label, markersize=4)
    losses.set(xlabel="optimizer step", ylabel="loss (nats per trained token)", title=work_dir.name)
    losses.grid(alpha=0.3)
    rates = losses.twinx()
    steps = sorted(scalars.get("lr", {}))
    rates.plot(steps, [scalars["lr"][s] for s in steps], ":", color="gray", label="learning rate")
    rates.set_ylabel("learning rate")
    lines = [*losses.get_lines(), *rates.get_lines()]
    losses.legend(lines, [str(line.get_label()) for line in lines], loc="upper right")
    file.unlink(missing_ok=True)  # a link in a folder from elsewhere would lead the writing out of it
    figure.savefig(file, dpi=120)
