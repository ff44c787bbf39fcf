"""Merge an adapter into its base model, shard by shard.

Peak memory is about one tensor, never the model. Every written tensor is read back and compared; --verify also runs
both models on a short probe. The result loads in plain transformers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """\
  medtune convert merge med-llama-tiny ./hf ./merged --max-shard-size 2GB
  medtune convert merge ./internlm-chat-7b ./hf ./merged --device cuda --verify"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """BASE ADAPTER OUT, in XTuner's order."""
    parser.add_argument("base", metavar="BASE", help="base model: a folder, med-llama-tiny, or a hub id")
    parser.add_argument("adapter", metavar="ADAPTER", type=Path, help="adapter folder, from convert pth_to_hf")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; must be new or empty")
    parser.add_argument("--max-shard-size", default="2GB", metavar="SIZE", help="limit of one weight file (2GB)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    parser.add_argument("--dtype", choices=["bf16", "fp16", "fp32"], help="of the result (default: the base's)")
    parser.add_argument("--verify", action="store_true", help="compare logits too; loads both models in fp32")
    parser.add_argument(
        "--save-format",
        choices=["huggingface", "original"],
        default="huggingface",
        help="of a base that came with code of its own: for plain transformers (huggingface), or as it was published",
    )
    parser.add_argument("--any-base", action="store_true", help="merge into another base than was trained on")


def main(args: argparse.Namespace) -> int:
    """Merge, then say what was done."""
    from medtune.merge import merge

    def show(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\rmerging: {done} of {total} tensors", end=end, file=sys.stderr, flush=True)

    report = merge(
        args.base,
        args.adapter,
        args.out,
        max_shard_size=args.max_shard_size,
        device=args.device,
        dtype=args.dtype,
        verify=args.verify,
        any_base=args.any_base,
        save_format=args.save_format,
        on_progress=show if sys.stderr.isatty() else None,
    )
    shards = sum(file.suffix == ".safetensors" for file in report.files)
    print(
        f"wrote {report.out}: {report.tensors} tensors, {report.changed} of them changed by the adapter, in {shards} "
        f"file{'s' if shards > 1 else ''}, {report.nbytes / 1e6:,.1f} MB of {report.dtype}, {report.seconds:.1f} s"
    )
    print("every tensor was read back and is as it was written")
    if report.untied:
        print("lm_head and the embedding share a weight in the base; the adapter parts them, so both were written")
    if report.logits_difference is not None:
        print(f"logits differ from base + adapter by at most {report.logits_difference:.2e}: rounding")
    return 0
