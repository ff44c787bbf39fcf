"""Loss per trained token of a base model, with and without an adapter, on a test file: transformers and PEFT alone.

Nothing of medtune is imported, so that the figure is independent of it: one conversation at a time, the tokenizer's
own chat template, and its assistant mask as the tokens that count.

    python benchmarks/held_out_loss.py BASE TEST.jsonl [--adapter ./hf] [--max-length 1024]

TEST holds XTuner conversations, as JSON lines or as one JSON array.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def read(path: Path) -> list[list[dict[str, str]]]:
    """Conversations as OpenAI messages."""
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    conversations = []
    for row in rows:
        messages = []
        for turn in row["conversation"]:
            if turn.get("system"):
                messages.append({"role": "system", "content": turn["system"]})
            messages.append({"role": "user", "content": turn["input"]})
            messages.append({"role": "assistant", "content": turn["output"]})
        conversations.append(messages)
    return conversations


@torch.no_grad()
def loss_per_token(model, tokenizer, conversations, max_length: int, system: str | None) -> tuple[float, int, int]:
    """Mean cross entropy in nats over assistant tokens; also how many tokens, and how many rows were too long."""
    total, count, too_long = 0.0, 0, 0
    for messages in conversations:
        if system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        encoded = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        if encoded["input_ids"].shape[1] > max_length:
            too_long += 1
            continue
        logits = model(input_ids=encoded["input_ids"]).logits.float()[0, :-1]
        targets = encoded["input_ids"][0, 1:]
        mask = torch.as_tensor(encoded["assistant_masks"]).reshape(-1)[1:].bool()
        total += torch.nn.functional.cross_entropy(logits[mask], targets[mask], reduction="sum").item()
        count += int(mask.sum())
    return total / count, count, too_long


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("test", type=Path)
    parser.add_argument("--adapter")
    parser.add_argument("--tokenizer", help="where the chat template is, if the base has none (default: BASE)")
    parser.add_argument("--system", help="system text of conversations without one")
    parser.add_argument("--max-length", type=int, default=1024)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer or args.base)
    conversations = read(args.test)
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32).eval()
    names = ["base"]
    if args.adapter:
        names.append("tuned")
    for name in names:
        if name == "tuned":
            model = PeftModel.from_pretrained(model, args.adapter).eval()
        loss, count, too_long = loss_per_token(model, tokenizer, conversations, args.max_length, args.system)
        print(
            f"{name}: loss {loss:.4f} nats per token, perplexity {math.exp(loss):.2f}, {count} tokens, "
            f"{len(conversations) - too_long} rows ({too_long} too long)"
        )


if __name__ == "__main__":
    main()
