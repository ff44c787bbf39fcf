"""Conversations: their prompts and turns, what is found in folders, and the terminal around them."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medtune import chat, cli
from medtune.chat import ChatSession, open_session
from medtune.commands.chat import Talk
from medtune.data.encode import encode_prompt
from medtune.data.records import Message, to_conversation
from medtune.data.templates import SYSTEM_TEMPLATE, resolve_template
from medtune.errors import ConfigError, DataError, EnvironmentFault, ModelError
from medtune.generate import Completion, Sampling, generate
from medtune.models.identity import fingerprint
from medtune.models.load import load_llm

GREEDY = Sampling(max_new_tokens=8, temperature=0)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def model():
    return load_llm("med-llama-tiny", device="cpu")


@pytest.fixture(scope="module")
def template(tiny_tokenizer):
    return resolve_template(None, tiny_tokenizer)


class Echo:
    """Stands for `generate`: answers "A1", "A2", ... and keeps the prompts it was given, as text."""

    def __init__(self, tokenizer, answers=None):
        self.tokenizer = tokenizer
        self.prompts = []
        self.answers = answers

    def __call__(self, model, tokenizer, prompts, sampling, *, on_text, should_stop):
        self.prompts.append(tokenizer.decode(prompts[0]))
        text = self.answers.pop(0) if self.answers else f"A{len(self.prompts)}"
        if on_text is not None and text:
            on_text(0, text[:1])
            on_text(0, text[1:])
        return [Completion([1], text, "stop", [0.0])]


@pytest.fixture
def echo(monkeypatch, tiny_tokenizer):
    echo = Echo(tiny_tokenizer)
    monkeypatch.setattr(chat, "generate", echo)
    return echo


@pytest.fixture
def make_session(tiny_tokenizer, template, echo):
    def make(context=2048, **arguments):
        config = SimpleNamespace(max_position_embeddings=context)
        config.get_text_config = lambda decoder: config
        return ChatSession(SimpleNamespace(config=config), tiny_tokenizer, template, **arguments)

    return make


# the conversation


def test_an_answer_is_what_generate_gives_for_the_prompt_of_all_turns(model, tiny_tokenizer, template):
    session = ChatSession(model, tiny_tokenizer, template, "Be brief.", GREEDY)
    pieces = []
    session.answer("What is aspirin?", pieces.append)
    first = session.messages[1]
    answer = session.answer("阿司匹林呢？")
    messages = [Message("system", "Be brief."), Message("user", "What is aspirin?"), first]
    prompt = encode_prompt([*messages, Message("user", "阿司匹林呢？")], template, tiny_tokenizer)
    assert "".join(pieces) == first.content
    assert answer.token_ids == generate(model, tiny_tokenizer, [prompt], session.sampling)[0].token_ids
    assert [m.role for m in session.messages] == ["user", "assistant"] * 2
    assert {0, 2} <= session.sampling.stop_token_ids


def test_an_interrupted_answer_stays_in_the_conversation(model, tiny_tokenizer, template):
    session = ChatSession(model, tiny_tokenizer, template, sampling=GREEDY)
    whole = session.answer("Name a medicine.").text
    session.reset()
    asked = []
    answer = session.answer("Name a medicine.", should_stop=lambda: asked.append(1) or len(asked) > 4)
    assert answer.finish_reason == "interrupted"
    assert answer.text and whole.startswith(answer.text) and answer.text != whole
    assert session.messages[1].content == answer.text


def test_reset_forgets_the_turns_and_keeps_the_system_text(make_session, echo):
    session = make_session(system="S")
    session.answer("one")
    session.reset()
    session.answer("two")
    assert "one" not in echo.prompts[1] and "S" in echo.prompts[1]


def test_an_empty_answer_leaves_no_turn(make_session, echo):
    echo.answers = [""]
    session = make_session()
    session.answer("one")
    assert session.messages == []


def test_the_oldest_turns_go_when_the_context_is_full_and_it_is_said(make_session, echo):
    notices = []
    session = make_session(context=120, system="SYS", on_notice=notices.append, sampling=Sampling(max_new_tokens=64))
    for i in range(12):
        session.answer(f"question {i}")
    last = echo.prompts[-1]
    assert "question 0" not in last and "SYS" in last and "question 10" in last and "question 11" in last
    assert last.index("user") < last.index("assistant")
    assert len(session.tokenizer(last).input_ids) + 30 <= 120
    assert notices and "120 tokens" in notices[0] and "first 1 turn." in notices[0]
    assert len(session.messages) == 24  # nothing is lost for /save
    session.reset()
    session.answer("a new question")
    session.answer("another")
    assert "a new question" in echo.prompts[-1]


def test_a_message_longer_than_the_context_leaves_the_conversation_as_it_was(tiny_tokenizer, template):
    config = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    from transformers import LlamaConfig, LlamaForCausalLM

    little = LlamaForCausalLM(LlamaConfig(vocab_size=12288, max_position_embeddings=64, **config))
    session = ChatSession(little, tiny_tokenizer, template, sampling=Sampling(4, temperature=0))
    session.messages = [Message("user", "hello"), Message("assistant", "hi")]
    with pytest.raises(DataError, match="64"):
        session.answer("aspirin " * 80)
    assert len(session.messages) == 2
    assert session._prompt(Message("user", "x"))[1] == 0


def test_a_saved_conversation_is_private_training_data(make_session, tmp_path):
    session = make_session(system="系统")
    session.answer("问题")
    session.answer("two")
    old = os.umask(0)
    try:
        session.save(tmp_path / "c.jsonl")
    finally:
        os.umask(old)
    (line,) = (tmp_path / "c.jsonl").read_text(encoding="utf-8").splitlines()
    roles = [(m.role, m.content) for m in to_conversation(json.loads(line)).messages]
    assert roles[:3] == [("system", "系统"), ("user", "问题"), ("assistant", "A1")] and len(roles) == 5
    assert stat.S_IMODE((tmp_path / "c.jsonl").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["c.jsonl"]


# opening one from folders


@pytest.fixture
def make_folder(tmp_path, tiny_model_path):
    def make(name="model", without=(), record=None):
        folder = tmp_path / name
        folder.mkdir()
        for file in tiny_model_path.iterdir():
            if file.name not in without:
                (folder / file.name).symlink_to(file)
        if record is not None:
            (folder / "medtune.json").write_text(json.dumps(record))
        return folder

    return make


@pytest.fixture(scope="module")
def adapter_source(tmp_path_factory):
    """A LoRA adapter for med-llama-tiny, as PEFT saves it."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(load_llm("med-llama-tiny", device="cpu"), config).save_pretrained(folder)
    return folder


@pytest.fixture
def make_adapter(tmp_path, adapter_source):
    def make(record=None, name="epoch_3.pth"):
        folder = tmp_path / name
        folder.mkdir()
        for file in ADAPTER_FILES:
            (folder / file).write_bytes((adapter_source / file).read_bytes())
        if record is not None:
            (folder / "medtune.json").write_text(json.dumps(record))
        return folder

    return make


@pytest.fixture
def opened(monkeypatch, model):
    """`open_session` without the cost of reading weights; returns the session and the notices."""

    def open_it(llm, **arguments):
        notices = []
        monkeypatch.setattr(chat, "load_llm", lambda name, **_: model)
        return open_session(str(llm), GREEDY, on_notice=notices.append, **arguments), notices

    return open_it


def prompt_of(session, text="Hi"):
    return session.tokenizer.decode(session._prompt(Message("user", text))[0])


def test_the_template_is_the_folders_own_or_the_one_named(make_folder, opened):
    folder = make_folder()
    assert "<|im_start|>user\nHi<|im_end|>" in prompt_of(opened(folder)[0])
    session, _ = opened(folder, prompt_template="internlm_chat", system="S")
    assert prompt_of(session).replace(" ", "") == "<|System|>:S\n<|User|>:Hi<eoh>\n<|Bot|>:"
    assert "<eoa>" in session.sampling.stop_strings
    with pytest.raises(ConfigError, match="internlm_chat"):
        opened(folder, prompt_template="internlm_chatt")


def test_a_trained_folder_brings_its_template_and_system_text_and_says_so(make_folder, opened):
    folder = make_folder(record={"prompt_template": "internlm_chat", "system": "你是医生"})
    session, notices = opened(folder)
    assert session.system == "你是医生" and any("medtune.json" in line and "你是医生" in line for line in notices)
    assert session.template.name == "internlm_chat" and "<eoa>" in session.sampling.stop_strings
    assert opened(folder, system="")[0].system == ""
    assert opened(folder, system="other")[0].system == "other"
    assert opened(folder, system_template="medical")[0].system == SYSTEM_TEMPLATE["medical"]
    with pytest.raises(ConfigError, match="medical"):
        opened(folder, system_template="medcal")


def test_without_any_template_text_is_continued_with_one_notice(make_folder, opened):
    session, notices = opened(make_folder(without=("chat_template.jinja",)))
    assert len(notices) == 1 and "--prompt-template" in notices[0]
    assert prompt_of(session, "Aspirin is") == "Aspirin is"


def test_a_template_without_a_place_for_a_system_text_is_refused_before_loading(make_folder, monkeypatch):
    monkeypatch.setattr(chat, "load_llm", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(DataError, match="system"):
        open_session(str(make_folder()), GREEDY, prompt_template="minicpm", system="S", on_notice=print)


def test_an_adapter_in_a_checkpoint_folder_is_used(make_folder, make_adapter, model):
    base = make_folder()
    adapter = make_adapter({"base_model": {"name_or_path": "m", "fingerprint": fingerprint(base)}, "system": "S"})
    session = open_session(str(base), GREEDY, adapter=str(adapter), device="cpu", on_notice=print)
    assert session.system == "S"
    plain = ChatSession(model, session.tokenizer, session.template, "S", GREEDY)
    assert session.answer("What is aspirin?").log_probs != plain.answer("What is aspirin?").log_probs


def test_an_adapter_for_another_base_is_refused_unless_told(make_folder, make_adapter, monkeypatch):
    base = make_folder()
    adapter = make_adapter({"base_model": {"name_or_path": "llama-x", "fingerprint": "ab" * 32}})
    with pytest.raises(ModelError, match=r"llama-x.*--any-base"):
        open_session(str(base), GREEDY, adapter=str(adapter), on_notice=print)
    session = open_session(str(base), GREEDY, adapter=str(adapter), any_base=True, device="cpu", on_notice=print)
    assert session.model.peft_config


@pytest.mark.parametrize(
    "change",
    [{"r": 4}, *({"target_modules": names} for names in (["q_proj"], ["nothing"], ["q_proj", "down_proj", "v_proj"]))],
)
def test_an_adapter_that_does_not_fit_the_model_is_refused(make_folder, make_adapter, change):
    adapter = make_adapter()
    config = json.loads((adapter / ADAPTER_FILES[0]).read_text())
    (adapter / ADAPTER_FILES[0]).write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match="does not fit") as fault:
        open_session(str(make_folder()), GREEDY, adapter=str(adapter), device="cpu", on_notice=print)
    assert "\n" not in str(fault.value)


def test_folders_that_are_no_adapter_are_named(make_folder, make_adapter, tmp_path):
    base = make_folder()
    empty = make_adapter(name="empty")
    (empty / ADAPTER_FILES[1]).unlink()
    for folder, words in ((tmp_path / "none", "no such folder"), (empty, "safetensors"), (base, "full model")):
        with pytest.raises(ModelError, match=words):
            open_session(str(base), GREEDY, adapter=str(folder), on_notice=print)


def test_the_adapters_tokenizer_comes_before_the_bases(make_folder, make_adapter, tiny_model_path, opened, monkeypatch):
    adapter = make_adapter()
    base = make_folder()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).symlink_to(tiny_model_path / name)
    monkeypatch.setattr(chat, "_with_adapter", lambda model, folder: model)
    session, _ = opened(base, adapter=str(adapter))
    assert session.tokenizer.name_or_path == str(adapter)
    assert "<|im_start|>user\nHi" in prompt_of(session)  # the base's chat template: the adapter has none
    (adapter / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}!")
    assert prompt_of(opened(base, adapter=str(adapter))[0]) == "Hi!"


def test_a_model_folder_without_a_tokenizer_is_refused(make_folder):
    folder = make_folder(without=("tokenizer.json", "tokenizer_config.json"))
    with pytest.raises(ModelError, match="tokenizer"):
        open_session(str(folder), GREEDY, on_notice=print)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_an_environment_fault(make_folder):
    with pytest.raises(EnvironmentFault, match="GPU"):
        open_session(str(make_folder()), GREEDY, device="cuda", on_notice=print)


def test_bits_without_bitsandbytes_is_an_environment_fault(make_folder, monkeypatch):
    monkeypatch.setattr(chat, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="bitsandbytes"):
        open_session(str(make_folder()), GREEDY, bits=4, on_notice=print)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights_answer_with_an_adapter(bits, make_folder, make_adapter, model):
    session = open_session(
        str(make_folder()), GREEDY, adapter=str(make_adapter()), bits=bits, device="cpu", on_notice=print
    )
    assert session.model.get_memory_footprint() < 0.6 * model.get_memory_footprint()
    assert session.answer("What is aspirin?").token_ids


# the terminal


@pytest.fixture
def talk(make_session, monkeypatch, capsys):
    """Feed lines to a `Talk`; returns what stood on standard output and standard error, and the session."""

    def run(text, on_screen=False, stream=True, **arguments):
        session = make_session(**arguments)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        talk = Talk(session, "DOC", stream=stream, interactive=False)
        talk.on_screen = on_screen
        talk.run()
        return *capsys.readouterr(), session

    return run


def test_from_a_pipe_each_line_is_a_question_and_only_answers_come_out(talk, echo):
    out, err, _ = talk("one\n\n   \r\n  two \r\n")
    assert (out, err) == ("A1\nA2\n", "")
    assert "user\none<|im_end|>" in echo.prompts[0] and "user\ntwo<|im_end|>" in echo.prompts[1]
    assert "assistant\nA1<|im_end|>" in echo.prompts[1]


@pytest.mark.parametrize("word", ["EXIT", "/exit"])
def test_exit_leaves_at_once(talk, word):
    assert talk(f"one\n{word}\ntwo\n")[0] == "A1\n"


@pytest.mark.parametrize("word", ["RESET", "/reset"])
def test_reset_starts_anew(talk, echo, word):
    talk(f"one\n{word}\ntwo\n")
    assert "one" not in echo.prompts[1]


def test_system_sets_shows_and_clears_the_system_text(talk, echo):
    out, err, _ = talk('/system 你是医生\none\n/system\n/system ""\ntwo\n')
    assert err.count("你是医生") == 2 and "system text: none" in err
    assert "你是医生" in echo.prompts[0] and "你是医生" not in echo.prompts[1]
    assert out == "A1\nA2\n"


def test_help_lists_the_commands_and_an_unknown_one_is_no_question(talk, echo):
    out, err, _ = talk("/help\n/sav x\n /etc is a folder\n")
    assert all(word in err for word in ("/help", "/reset", "/system", "/save", "/exit", "RESET", "EXIT"))
    assert "'/save'" in err
    assert out == "A1\n" and "user\n/etc is a folder<|im_end|>" in echo.prompts[0]


def test_a_text_in_triple_quotes_is_one_question(talk, echo):
    talk('"""one\n/exit\n\ntwo"""\n"""three"""\n')
    assert "user\none\n/exit\n\ntwo<|im_end|>" in echo.prompts[0]
    assert "user\nthree<|im_end|>" in echo.prompts[1]


def test_an_unfinished_text_in_a_pipe_is_a_fault_and_not_lost(talk):
    with pytest.raises(DataError, match='"""'):
        talk('"""one\ntwo\n')


def test_save_refuses_a_file_that_is_not_its_own(talk, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("precious")
    mine = tmp_path / "mine.jsonl"
    _, err, _ = talk(f"/save\n/save {mine}\none\n/save {other}\n/save {mine}\ntwo\n/save {mine}\n/save {mine}/x/y\n")
    assert other.read_text() == "precious" and "there already" in err
    assert "wants a file name" in err and "nothing to save yet" in err and "not written" in err
    assert len(json.loads(mine.read_text())["conversation"]) == 2


def test_on_a_screen_the_bot_has_its_name_and_control_characters_are_left_out(talk, echo):
    echo.answers = ["a\x1b[2Jb\x9bc\rd\n\te药"]
    assert talk("one\n", on_screen=True)[0] == "DOC: a[2Jbcd\n\te药\n"


def test_without_the_streamer_the_answer_comes_whole(talk, monkeypatch):
    writes = []
    monkeypatch.setattr(Talk, "_write", lambda self, text: writes.append(text))
    talk("one\n")
    talk("one\n", stream=False)
    assert writes == ["A", "1", "\n", "A2\n"]


def test_bytes_that_are_not_text_are_a_data_error(make_session, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO("你好\n".encode("gb18030")), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stream)
    with pytest.raises(DataError, match="utf-8"):
        Talk(make_session(), "BOT", stream=True, interactive=False).run()


def test_every_option_arrives(monkeypatch, capsys):
    seen = {}

    def fake(llm, sampling, **arguments):
        seen.update(arguments, llm=llm, sampling=sampling)
        return SimpleNamespace(template=SimpleNamespace(name="T"))

    monkeypatch.setattr(chat, "open_session", fake)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    line = "chat M --adapter A --any-base --bits 4 --prompt-template P --system S --bot-name B --no-streamer"
    line += " --max-new-tokens 7 --temperature 0.5 --top-k 3 --top-p 0.5 --repetition-penalty 1.1 --seed 9"
    line += " --stop-words x y --torch-dtype bf16 --offload-folder O --device cpu"
    assert cli.main(line.split()) == 0
    assert seen.pop("sampling") == Sampling(7, 0.5, 3, 0.5, 1.1, 9, stop_strings=("x", "y"))
    del seen["on_notice"]
    assert seen == {
        "llm": "M",
        "adapter": "A",
        "any_base": True,
        "bits": 4,
        "prompt_template": "P",
        "system": "S",
        "system_template": None,
        "torch_dtype": "bf16",
        "offload_folder": "O",
        "device": "cpu",
    }
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "code"), [("--top-p 2", 2), ("--temperature -1", 2), ("--adapter none", 2), ("--system-template x", 2)]
)
def test_a_wrong_option_is_one_line_and_exit_2(words, code, capsys, tiny_model_path):
    assert cli.main(["chat", str(tiny_model_path), *words.split()]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("medtune: ") and err.count("\n") == 1


# for real


def command(*options):
    return [sys.executable, "-m", "medtune", "chat", "med-llama-tiny", "--temperature", "0", *options]


ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parent.parent),
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


@pytest.mark.slow
def test_a_pipe_through_the_real_command():
    done = subprocess.run(
        command("--max-new-tokens", "9"),
        input="What is aspirin?\n\n阿司匹林？\nEXIT\nnever asked\n",
        capture_output=True,
        env=ENVIRONMENT,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    session = open_session("med-llama-tiny", Sampling(9, temperature=0), device="cpu", on_notice=print)
    wanted = [session.answer(text).text for text in ("What is aspirin?", "阿司匹林？")]
    assert done.stdout == "".join(f"{text}\n" for text in wanted)


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_in_a_real_terminal_and_not_the_program():
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(sys.executable, command("--max-new-tokens", "1500", "--stop-words", "@@never@@"), ENVIRONMENT)
    screen = ""

    def wait_for(text, after=0):
        nonlocal screen
        end = time.monotonic() + 90
        while text not in screen[after:]:
            assert time.monotonic() < end, screen
            if select.select([terminal], [], [], 1)[0]:
                screen += os.read(terminal, 4096).decode(errors="replace")
        return screen.index(text, after) + len(text)

    def say(text):
        os.write(terminal, text.encode())

    def interrupt_at_the_prompt(after):
        """Ctrl-C until it is seen: between showing its prompt and waiting for a key, Python's input() is deaf to it."""
        nonlocal screen
        while "Ctrl-C again" not in screen[after:]:
            time.sleep(0.5)
            say("\x03")
            end = time.monotonic() + 5
            while "Ctrl-C again" not in screen[after:] and time.monotonic() < end:
                if select.select([terminal], [], [], 0.2)[0]:
                    screen += os.read(terminal, 4096).decode(errors="replace")
        return wait_for("Ctrl-C again", after)

    try:
        at = wait_for("USER: ")
        say("List medicines.\r")
        at = wait_for("BOT: ", at)
        time.sleep(1)
        say("\x03")
        at = wait_for("[stopped]", at)
        at = wait_for("USER: ", at)
        say("/save /dev/null\r")  # it is there already: nothing is written
        at = wait_for("there already", at)
        at = wait_for("USER: ", at)
        at = interrupt_at_the_prompt(at)
        say("/help\r")  # the warning is for two in a row
        at = wait_for("/reset", at)
        at = wait_for("USER: ", at)
        at = interrupt_at_the_prompt(at)
        for press in range(80):  # the second press, again every ten seconds until it is heard
            if press % 20 == 0:
                say("\x03")
            time.sleep(0.5)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
        assert ended, screen
        pid = 0
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
