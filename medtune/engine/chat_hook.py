"""A look at what the model answers, while it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmengine.hooks import Hook

from medtune.build import Count
from medtune.data.encode import encode_prompt
from medtune.data.records import Message
from medtune.data.templates import Template, resolve_template
from medtune.engine import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from medtune.engine.runner import MedtuneRunner


class EvaluateChatHook(Hook):
    """Lets the model answer fixed questions before, during and after training, into a private file.

    Args:
        tokenizer: of the model.
        evaluation_inputs: the questions.
        every_n_iters: optimizer steps between two rounds; None is only before and after training.
        system: system text of each question.
        prompt_template: as for the data.
        max_new_tokens: of each answer.
    """

    priority = "LOW"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        evaluation_inputs: Sequence[str] = (),
        every_n_iters: Count | None = None,
        system: str = "",
        prompt_template: str | Mapping[str, Any] | Template | None = None,
        max_new_tokens: Count = 128,
    ) -> None:
        self.tokenizer = tokenizer
        self.questions = [evaluation_inputs] if isinstance(evaluation_inputs, str) else list(evaluation_inputs)
        self.every_n_iters = every_n_iters
        self.system = system
        self.template = resolve_template(prompt_template, tokenizer)
        self.max_new_tokens = max_new_tokens
        self.last_step = -1

    def before_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Ask before the first step."""
        self.ask(runner)

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Ask at the interval."""
        if self.every_n_iters and runner.loop.iter % self.every_n_iters == 0:
            self.ask(runner)

    def after_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Ask after the last step."""
        self.ask(runner)

    def ask(self, runner: MedtuneRunner) -> None:
        """Answer all questions in one batch, greedily, and write them to `vis_data/eval_outputs_iter_N.txt`."""
        from medtune.generate import Sampling, add_stops, generate

        if not self.questions or self.last_step == runner.loop.iter or not distributed.is_main():
            return
        self.last_step = runner.loop.iter
        system = [Message("system", self.system)] if self.system else []
        prompts = [encode_prompt([*system, Message("user", q)], self.template, self.tokenizer) for q in self.questions]
        model = runner.model
        greedy = Sampling(max_new_tokens=self.max_new_tokens, temperature=0.0)
        sampling = add_stops(greedy, model.llm, self.tokenizer, self.template)
        with model.autocast():
            answers = generate(model.llm, self.tokenizer, prompts, sampling)
        file = runner.vis_dir / f"eval_outputs_iter_{runner.loop.iter}.txt"
        pairs = zip(self.questions, answers, strict=True)
        text = "\n\n".join(f"Question: {q}\nAnswer: {a.text}\n[{a.finish_reason}]" for q, a in pairs)
        file.touch(mode=0o600)
        file.write_text(text + "\n", encoding="utf-8")
        ended = sum(a.finish_reason == "stop" for a in answers)
        num_tokens = sum(len(a.token_ids) for a in answers)
        runner.logger.info(
            f"Iter(chat) [{runner.loop.iter}/{runner.loop.num_steps}]  {len(answers)} answers, {ended} ended by "
            f"themselves, {num_tokens} tokens: {file.relative_to(runner.folder)}"
        )
