"""Turn a training checkpoint into an adapter or model folder that can be shared.

Copies what others need out of a checkpoint folder: the adapter (LoRA, QLoRA) or the model (full fine-tune), tokenizer,
chat template, a model card and the config it was trained with. No model is loaded; the training dtype is kept.
It reads XTuner's and mmengine's own .pth files and DeepSpeed folders (ZeRO-1, 2 and 3) too, adapters and full models,
without running what they hold; CONFIG then says LoRA's alpha and the base model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medtune.errors import printable

EXAMPLES = """\
  medtune convert pth_to_hf med_llama_tiny_lora_medqa_e3 work_dirs/med_llama_tiny_lora_medqa_e3/epoch_3.pth ./hf
  medtune convert pth_to_hf ./my_config.py work_dirs/my_config/iter_500.pth ./hf --fp32"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG PTH OUT, in XTuner's order."""
    parser.add_argument("config", metavar="CONFIG", help="config name or file it was trained with")
    parser.add_argument("checkpoint", metavar="PTH", type=Path, help="checkpoint folder, epoch_3.pth, or XTuner's file")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; must be new or empty")
    parser.add_argument("--fp32", action="store_true", help="write fp32 weights (default: the dtype of the training)")
    parser.add_argument(
        "--max-shard-size", default="2GB", metavar="SIZE", help="limit of one weight file of a full model (2GB)"
    )
    parser.add_argument(
        "--save-format",
        choices=["huggingface", "original"],
        default="huggingface",
        help="of a full model whose base came with code of its own: for plain transformers, or as it was published",
    )


def main(args: argparse.Namespace) -> int:
    """Convert, then list what was written."""
    from medtune import config
    from medtune.convert import pth_to_hf
    from medtune.import_folder import import_checkpoint, is_old_checkpoint

    path = config.find(args.config)  # the copy inside the checkpoint is the one that trained; this one must only exist
    if is_old_checkpoint(args.checkpoint):
        values = config.load(args.config).values
        files = import_checkpoint(args.checkpoint, values, args.out, args.fp32, args.max_shard_size)
    else:
        _note_other_method(path, args.checkpoint)
        files = pth_to_hf(
            args.checkpoint,
            args.out,
            fp32=args.fp32,
            max_shard_size=args.max_shard_size,
            save_format=args.save_format,
        )
    print(f"wrote {args.out}:")
    for file in files:
        print(f"  {printable(file.name):<32} {file.stat().st_size:>14,} bytes")
    return 0


def _note_other_method(path: Path, checkpoint: Path) -> None:
    """Say on stderr if CONFIG trains by another method than the checkpoint was trained by: perhaps the wrong one."""
    import ast
    import sys

    from medtune.config import compose
    from medtune.config_text import assignments
    from medtune.convert import read_record

    stated = assignments(compose(path)).get("method")
    trained = read_record(checkpoint).get("method")
    if stated and isinstance(stated.value, ast.Constant) and trained and stated.value.value != trained:
        print(
            f"note: {path.name} says method={stated.value.value!r}, the checkpoint was trained by {trained!r}; "
            "it is converted as it was trained.",
            file=sys.stderr,
        )
