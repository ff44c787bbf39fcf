"""A conversation with a model: opening one from folders, and its turns. `commands/chat.py` puts it in a terminal."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtune.convert import RECORD, read_record
from medtune.data.encode import encode_prompt
from medtune.data.records import Message
from medtune.data.templates import PROMPT_TEMPLATE, SYSTEM_TEMPLATE, Template, TokenizerTemplate, resolve_template
from medtune.errors import EnvironmentFault, ModelError
from medtune.generate import Completion, Sampling, add_stops, context_length, generate
from medtune.models.adapter import CONFIG, WEIGHTS
from medtune.models.checks import check_adapter
from medtune.models.identity import require_same_base
from medtune.models.load import DtypeName, has_tokenizer, load_llm, load_tokenizer, model_folder
from medtune.shards import read_header

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTINUATION = Template("continuation", instruction="{input}", system="{system}\n", suffix_as_eos=True, sep="\n")
Notice = Callable[[str], None]


class ChatSession:
    """A conversation of several turns with one model.

    Args:
        model: a causal language model, or a PEFT model around one.
        tokenizer: its tokenizer.
        template: how messages become a prompt (`data.templates.resolve_template`); it also says where answers stop.
        system: system text, or "" for none; may be changed between turns.
        sampling: how to answer; the stops of the model and the template are added.
        on_notice: told, in a line, when old turns no longer fit the model's context.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        template: Template | TokenizerTemplate,
        system: str = "",
        sampling: Sampling | None = None,
        on_notice: Notice | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.system = system
        self.sampling = add_stops(sampling or Sampling(), model, tokenizer, template)
        self.messages: list[Message] = []
        """All turns: user, assistant, user, ..., also those that no longer fit."""
        self._on_notice = on_notice
        self._first = 0  # where in `messages` begins what the model still gets to see

    def answer(
        self,
        text: str,
        on_text: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Completion:
        """Answer the next message of the user; both stay in the conversation, unless the answer is empty.

        Args:
            text: the message.
            on_text: called with the answer piece by piece.
            should_stop: True ends the answer; what there is of it is kept.

        Raises:
            DataError: the message alone fills the model's context; the conversation stays as it was.
        """
        question = Message("user", text)
        prompt, first = self._prompt(question)
        if first > self._first:
            self._first = first
            if self._on_notice is not None:
                self._on_notice(
                    f"the conversation has outgrown the model's context of {context_length(self.model)} tokens; "
                    f"it no longer sees the first {first // 2} turn{'s' if first > 2 else ''}."
                )
        (completion,) = generate(
            self.model,
            self.tokenizer,
            [prompt],
            self.sampling,
            on_text=None if on_text is None else lambda _, piece: on_text(piece),
            should_stop=should_stop,
        )
        if completion.text:
            self.messages += [question, Message("assistant", completion.text)]
        return completion

    def _prompt(self, question: Message) -> tuple[list[int], int]:
        """The prompt's ids, and the first message in it: the oldest turns go until a fair answer has room."""
        context = context_length(self.model)
        first = self._first
        system = [Message("system", self.system)] if self.system else []
        while True:
            prompt = encode_prompt([*system, *self.messages[first:], question], self.template, self.tokenizer)
            if context is None or len(prompt) + min(self.sampling.max_new_tokens, context // 4) <= context:
                return prompt, first
            if first == len(self.messages):
                return prompt, first if len(prompt) < context else self._first  # too long: `generate` says so
            first += 2

    def reset(self) -> None:
        """Forget all turns; the system text stays."""
        self.messages = []
        self._first = 0

    def save(self, path: Path) -> None:
        """Write the conversation as one JSON line in XTuner's `conversation` format, readable by its owner alone.

        Replaces a file that is there.
        """
        contents = [message.content for message in self.messages]
        turns: list[dict[str, str]] = [
            {"input": question, "output": answer}
            for question, answer in zip(contents[::2], contents[1::2], strict=True)
        ]
        if self.system and turns:
            turns[0] = {"system": self.system, **turns[0]}
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its mode is 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(json.dumps({"conversation": turns}, ensure_ascii=False) + "\n")
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def open_session(
    llm: str,
    sampling: Sampling,
    *,
    adapter: str | None = None,
    any_base: bool = False,
    bits: Literal[4, 8] | None = None,
    prompt_template: str | None = None,
    system: str | None = None,
    system_template: str | None = None,
    torch_dtype: DtypeName = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    offload_folder: str | None = None,
    on_notice: Notice,
) -> ChatSession:
    """Load what a conversation needs; everything cheap is checked before the weights are read.

    Args:
        llm: base or merged model: a folder, an embedded name or a hub id.
        sampling: how to answer.
        adapter: PEFT adapter folder, or a checkpoint folder that holds one.
        any_base: load the adapter even on a base it was not trained on.
        bits: quantise the weights.
        prompt_template: name of a template; None asks the folders.
        system: system text, "" for none; None asks the folders.
        system_template: name of a system text, in place of `system`.
        torch_dtype: of the weights.
        device: where to run.
        offload_folder: lets what fits neither the GPU nor the memory stay on disk, in this folder.
        on_notice: told in a line what was chosen.

    Raises:
        ModelError: a folder is no model or adapter, has no tokenizer, or the adapter is for another base.
        ConfigError: an unknown template name.
        DataError: the template has no place for the system text.
        EnvironmentFault: no GPU, or no bitsandbytes, where one was asked for.
    """
    base = model_folder(llm)
    source = base if adapter is None else Path(adapter).expanduser()
    record = read_record(source)
    if record.get("stage") == "rm":
        raise ModelError(f"{source}: a reward model gives a score, not an answer; its README.md says how to get one.")
    if adapter is not None:
        _check_adapter(source, base, {} if any_base else record)
    if bits is not None and find_spec("bitsandbytes") is None:
        raise EnvironmentFault(f"--bits {bits} needs bitsandbytes, which is not installed: pip install bitsandbytes.")
    tokenizer = load_tokenizer(str(source if has_tokenizer(source) else base))
    if not tokenizer.chat_template and source != base and has_tokenizer(base):
        tokenizer.chat_template = load_tokenizer(str(base)).chat_template
    template = _template(prompt_template, record, tokenizer, on_notice)
    text = _system_text(system, system_template, record, on_notice)
    if text:
        template.render([Message("system", text), Message("user", "?")], add_generation_prompt=True)
    model: Any = load_llm(
        str(base),
        torch_dtype=torch_dtype,
        bits=bits,
        device=device,
        device_map="auto" if offload_folder is not None and device != "cpu" else None,
        offload_folder=offload_folder,
    )
    if adapter is not None:
        model = _with_adapter(model, source)
    return ChatSession(model, tokenizer, template, text, sampling, on_notice)


def _check_adapter(adapter: Path, base: Path, record: dict[str, Any]) -> None:
    if not adapter.is_dir():
        raise ModelError(f"{adapter}: no such folder; --adapter wants what `medtune convert pth_to_hf` wrote.")
    missing = [name for name in (CONFIG, WEIGHTS) if not (adapter / name).is_file()]
    if missing:
        full = (
            " It is a full model: `medtune chat` it without --adapter." if (adapter / "config.json").is_file() else ""
        )
        raise ModelError(f"{adapter}: no {missing[0]}, so this is not an adapter.{full}")
    require_same_base(base, record, adapter)


def _template(
    name: str | None, record: dict[str, Any], tokenizer: PreTrainedTokenizerBase, on_notice: Notice
) -> Template | TokenizerTemplate:
    """The template asked for, or the one trained with, or the tokenizer's own, or none.

    A chat template that was made of a named one does not know its stop words, so the name goes first.
    """
    trained_with = record.get("prompt_template")
    if name is None and isinstance(trained_with, str) and trained_with in PROMPT_TEMPLATE:
        name = trained_with
    documents = record.get("stage") == "pt"
    if name is not None or (tokenizer.chat_template and not documents):
        return resolve_template(name, tokenizer)
    why = "pre-trained on documents" if documents else "no chat template here"
    on_notice(f"{why}: your text is simply continued. --prompt-template NAME sets one.")
    return resolve_template(CONTINUATION, tokenizer)


def _system_text(system: str | None, name: str | None, record: dict[str, Any], on_notice: Notice) -> str:
    """The system text asked for, or the one that the folder was trained with."""
    if name is not None:
        return SYSTEM_TEMPLATE[name]
    if system is None and (trained_with := record.get("system")):
        on_notice(f"system text from {RECORD}: {trained_with.strip()}")
        return trained_with
    return system or ""


def _with_adapter(model: PreTrainedModel, folder: Path) -> nn.Module:
    """Put a PEFT adapter on a model. Raises ModelError if they do not fit each other, tensor by tensor."""
    from peft import PeftModel, get_peft_model_state_dict

    check_adapter(folder, [name for name, _ in model.named_modules()])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tensors that are missing: below it is a fault
            tuned = PeftModel.from_pretrained(model, folder)
    except Exception as fault:  # PEFT raises nearly everything for a config it did not write
        if type(fault).__name__ == "OutOfMemoryError":
            raise
        raise ModelError(
            f"{folder}: the adapter does not fit this model: {' '.join(str(fault).split())[:300]}"
        ) from None
    stored = {tensor.name for tensor in read_header(folder / WEIGHTS)}
    wanted = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    # PEFT may store a resized embedding along with the adapter; it loads without being asked for.
    odd = sorted((wanted - stored) | {name for name in stored - wanted if ".lora_" in name})
    if odd:
        raise ModelError(f"{folder}: the adapter does not fit this model: {len(odd)} tensors differ, first {odd[0]!r}.")
    return tuned
