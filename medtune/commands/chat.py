"""Chat with a model, or with a base model and an adapter, in the terminal or through a pipe.

Enter sends; \"\"\" begins and ends a text of several lines; Ctrl-C stops an answer, Ctrl-D leaves.
From a pipe, each line is a question, and standard output gets the answers alone.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.errors import CONTROLS, DataError, nearest, printable

if TYPE_CHECKING:
    from medtune.chat import ChatSession

EXAMPLES = """\
  medtune chat ./merged
  medtune chat ./merged --prompt-template internlm_chat --system-template medical
  medtune chat med-llama-tiny --adapter ./hf --bits 4
  medtune chat med-llama-tiny --adapter work_dirs/NAME/epoch_3.pth --temperature 0
  medtune chat ./merged < questions.txt > answers.txt"""

HELP = {
    "/help": "this list",
    "/reset": "forget the conversation (also: RESET)",
    "/system TEXT": 'set the system text ("" is none); without TEXT, show it',
    "/save FILE": "write the conversation to FILE, as a line of training data",
    "/exit": "leave (also: EXIT, Ctrl-D)",
}
XTUNER_WORDS = {"RESET": "/reset", "EXIT": "/exit"}
QUOTES = '"""'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of XTuner's chat, and a few more."""
    parser.add_argument("llm", metavar="LLM", help="model folder, embedded name or hub id")
    parser.add_argument("--adapter", metavar="DIR", help="adapter folder, or a checkpoint that holds one")
    parser.add_argument("--any-base", action="store_true", help="take the adapter although it is for another base")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="load the weights in 4 or 8 bits")
    parser.add_argument("--prompt-template", metavar="NAME", help="default: the one in the folder")
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument("--system", metavar="TEXT", help='default: the one in the folder; "" is none')
    texts.add_argument("--system-template", metavar="NAME", help="a system text by name, for example medical")
    parser.add_argument("--bot-name", default="BOT", help="what the terminal calls it (default %(default)s)")
    parser.add_argument("--no-streamer", action="store_true", help="show an answer when it is complete")
    parser.add_argument(
        "--max-new-tokens", type=int, default=2048, metavar="N", help="per answer (default %(default)s)"
    )
    parser.add_argument("--temperature", type=float, default=0.1, metavar="T", help="0 is greedy (default %(default)s)")
    parser.add_argument("--top-k", type=int, default=40, metavar="K", help="0 is off (default %(default)s)")
    parser.add_argument("--top-p", type=float, default=0.75, metavar="P", help="1 is off (default %(default)s)")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R", help="1 is off (default 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random draws (default %(default)s)")
    parser.add_argument(
        "--stop-words", nargs="+", action="extend", default=[], metavar="W", help="more ends of answers"
    )
    parser.add_argument(
        "--torch-dtype", choices=("auto", "fp16", "bf16", "fp32"), default="auto", help="of the weights"
    )
    parser.add_argument("--offload-folder", metavar="DIR", help="for what fits neither the GPU nor the memory")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run")


def main(args: argparse.Namespace) -> int:
    """Load the model and talk until the user leaves or the input ends."""
    from transformers.utils.logging import disable_progress_bar

    from medtune.chat import open_session
    from medtune.generate import Sampling

    if not sys.stderr.isatty():
        disable_progress_bar()
    sampling = Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        stop_strings=tuple(args.stop_words),
    )
    session = open_session(
        args.llm,
        sampling,
        adapter=args.adapter,
        any_base=args.any_base,
        bits=args.bits,
        prompt_template=args.prompt_template,
        system=args.system,
        system_template=args.system_template,
        torch_dtype=args.torch_dtype,
        device=args.device,
        offload_folder=args.offload_folder,
        on_notice=_notice,
    )
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    adapter = f" with the adapter {args.adapter}" if args.adapter else ""
    _notice(f"{args.llm}{adapter}; template: {session.template.name}")
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  (gives input() line editing, and a history that stays in memory)

        _notice("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves.")
    Talk(session, args.bot_name, stream=not args.no_streamer, interactive=interactive).run()
    return 0


def _notice(text: str) -> None:
    print(f"[{printable(text)}]", file=sys.stderr, flush=True)


class Talk:
    """Questions from standard input, answers to standard output, everything else to standard error."""

    def __init__(self, session: ChatSession, bot_name: str, stream: bool, interactive: bool) -> None:
        self.session = session
        self.bot_name = bot_name
        self.stream = stream
        self.interactive = interactive
        self.on_screen = sys.stdout.isatty()
        self._saved: set[Path] = set()  # files of this session's own, which /save may write again

    def run(self) -> None:
        """Until the input ends, /exit, or Ctrl-C twice."""
        warned = False
        while True:
            try:
                if not self._turn():
                    return
                warned = False
            except EOFError:
                break
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                if warned:
                    break
                warned = True
                print(file=sys.stderr)
                _notice("Ctrl-C again, or Ctrl-D, leaves")
        if self.interactive:
            print(file=sys.stderr)

    def _turn(self) -> bool:
        """One line, or a block between triple quotes, and what it asks for; False means leave."""
        line = self._read("USER: ")
        if line.startswith(QUOTES):
            self._answer(self._block(line))
        elif line in XTUNER_WORDS or line.startswith("/"):
            return self._command(XTUNER_WORDS.get(line, line))
        elif line.strip():
            self._answer(line.strip())
        return True

    def _block(self, line: str) -> str:
        lines = [line[len(QUOTES) :]]
        while not lines[-1].rstrip().endswith(QUOTES):
            try:
                lines.append(self._read("... "))
            except EOFError:
                if self.interactive:
                    raise
                raise DataError(
                    f"standard input ends inside a text that {QUOTES} began; close it with {QUOTES}."
                ) from None
        lines[-1] = lines[-1].rstrip()[: -len(QUOTES)]
        return "\n".join(lines).strip("\n")

    def _read(self, prompt: str) -> str:
        try:
            if self.interactive and self.on_screen:
                return input(prompt)
            if self.interactive:
                print(prompt, end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            raise DataError(f"standard input is not {sys.stdin.encoding} text; convert it first, with iconv.") from None
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def _answer(self, question: str) -> None:
        if self.on_screen:
            self._write(f"{self.bot_name}: ")
        try:
            with _ctrl_c(self.interactive) as should_stop:
                completion = self.session.answer(question, self._write if self.stream else None, should_stop)
        except DataError as fault:
            if not self.interactive:
                raise
            print(file=sys.stderr)
            _notice(str(fault))
            return
        self._write("\n" if self.stream else f"{completion.text}\n")
        if completion.finish_reason == "interrupted":
            _notice("stopped")
        elif completion.finish_reason == "length":
            _notice(
                f"cut after {len(completion.token_ids)} tokens; --max-new-tokens or the model's context allow no more"
            )

    def _write(self, text: str) -> None:
        print(CONTROLS.sub("", text) if self.on_screen else text, end="", flush=True)

    def _command(self, line: str) -> bool:
        """Obey a slash command; False means leave."""
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "/exit":
            return False
        if word == "/help":
            print("".join(f"  {name:<14} {text}\n" for name, text in HELP.items()), end="", file=sys.stderr)
        elif word == "/reset":
            self.session.reset()
            _notice("the conversation is forgotten")
        elif word == "/system":
            if rest:
                self.session.system = "" if rest == '""' else rest
            _notice(f"system text: {self.session.system or 'none'}")
        elif word == "/save":
            self._save(rest)
        else:
            known = [name.split()[0] for name in HELP]
            _notice(f"{word} is no command.{nearest(word, known)} To send it as it is, begin with a space.")
        return True

    def _save(self, name: str) -> None:
        path = Path(name).expanduser().absolute()
        if not name:
            _notice("/save wants a file name")
        elif not self.session.messages:
            _notice("nothing to save yet")
        elif path.exists() and path not in self._saved:
            _notice(f"{path} is there already; choose another name")
        else:
            try:
                self.session.save(path)
            except OSError as fault:
                _notice(f"{path} was not written: {fault.strerror}")
            else:
                self._saved.add(path)
                _notice(f"saved to {path}")


@contextmanager
def _ctrl_c(active: bool) -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C raises nothing; the function that is given says whether it was pressed."""
    if not active:
        yield lambda: False
        return
    pressed: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, previous)
