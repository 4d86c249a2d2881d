"""The tokenizer guard: the base model's tokenizer passes under today's transformers, a mislabelled one is seen."""

import json
import shutil
import string
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from openrs.data.tokenizer import PAPER_CHAT, PROBES, ChatEncoder, check_tokenizer, load_tokenizer
from openrs.errors import UserError

pytestmark = pytest.mark.slow

QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "vocab_size": 512}


@pytest.fixture(scope="module")
def base(shared_data):
    return shared_data / "tokenizer"


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base, tmp_path / "copy", copy_function=shutil.copyfile)


def save(folder: Path, tokenizer, **config) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(QWEN2))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config}))
    return folder


def characters(folder: Path) -> Path:
    """A tokenizer of whole characters, as stack.md section 4 (v3) had it: right in itself, labelled as Qwen2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted({*string.printable, *"".join(PROBES)})
    vocabulary = {letter: number for number, letter in enumerate(["<unk>", *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return save(folder, tokenizer, unk_token="<unk>")


def test_the_base_models_tokenizer_passes_and_its_facts_are_the_papers(base):
    loaded = load_tokenizer(base)
    assert check_tokenizer(loaded, base) == 1
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (151646, 151643, 151643)
    assert len(loaded) == 151650


def test_transformers_and_the_files_alone_give_the_same_ids_and_chat_text(base):
    loaded, alone = load_tokenizer(base), ChatEncoder.from_folder(base)
    for probe in PROBES:
        text = loaded.apply_chat_template(
            [{"role": "user", "content": probe}], tokenize=False, add_generation_prompt=True
        )
        assert text == alone.text(probe) == PAPER_CHAT.format(prompt=probe)
        assert loaded(text)["input_ids"] == alone.ids(probe, double_bos=True)
        assert loaded(text, add_special_tokens=False)["input_ids"] == alone.ids(probe)
        spoken = [*alone.ids(probe), 151643, 151644]
        assert alone.decode(spoken) == loaded.decode(
            spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert probe in alone.decode(spoken)
        assert "sentence｜>" not in alone.decode(spoken)
        assert loaded(text, add_special_tokens=False)["input_ids"] == alone.ids(probe)
        assert alone.leading_bos(alone.ids(probe, double_bos=True)) == 2


def test_a_character_tokenizer_labelled_qwen2_is_seen(tmp_path):
    folder = characters(tmp_path / "characters")
    with pytest.raises(UserError) as refused:
        check_tokenizer(load_tokenizer(folder), folder)
    said = str(refused.value)
    assert "is not the one in tokenizer.json" in said
    assert repr(PROBES[0][:40]) in said
    assert "Qwen2Tokenizer" in said


def test_the_same_tokenizer_without_the_label_passes(tmp_path):
    folder = characters(tmp_path / "characters")
    (folder / "config.json").unlink()
    assert check_tokenizer(load_tokenizer(folder), folder) == 0


def test_a_tokenizer_that_loses_text_is_seen(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "Find": 1, "the": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = save(tmp_path / "words", tokenizer, unk_token="<unk>")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="comes back from the tokenizer as"):
        check_tokenizer(load_tokenizer(folder), folder)


def test_another_bos_rule_is_seen(base, copy):
    tree = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    assert tree["post_processor"]
    tree["post_processor"] = None
    (copy / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(UserError, match=r"gives \[151646, "):
        check_tokenizer(load_tokenizer(base), copy)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json\n  why: in it: "),
        (lambda f: (f / "tokenizer.json").write_text('{"version": "1.0", "trunc'), "tokenizer"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_a_folder_without_a_whole_tokenizer_is_refused(copy, break_it, said):
    break_it(copy)
    for load in (load_tokenizer, ChatEncoder.from_folder):
        with pytest.raises(UserError, match=said):
            load(copy)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template"),
        ("{% if %}", "its chat template is broken"),
        ("{{ raise_exception('no system message') }}", "refuses a single user message: no system message"),
        ("{{ ''.__class__.__mro__ }}{{ messages.append(1) }}", "chat template cannot be rendered"),
    ],
)
def test_chat_templates_that_do_not_work_are_refused(copy, template, said):
    (copy / "chat_template.jinja").unlink()
    if template is not None:
        (copy / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=said):
        ChatEncoder.from_folder(copy).text("x")


def test_a_template_in_the_config_is_found_too(copy):
    config = json.loads((copy / "tokenizer_config.json").read_text(encoding="utf-8"))
    text = (copy / "chat_template.jinja").read_text(encoding="utf-8")
    (copy / "chat_template.jinja").unlink()
    for template in (text, [{"name": "tools", "template": "no"}, {"name": "default", "template": text}]):
        config["chat_template"] = template
        config["bos_token"] = {"content": "<｜begin▁of▁sentence｜>", "lstrip": False}
        (copy / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        assert ChatEncoder.from_folder(copy).text("1+1?") == PAPER_CHAT.format(prompt="1+1?")


def test_a_tokenizer_without_bos_in_its_template_gets_the_one_it_adds(copy):
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}:")
    encoder = ChatEncoder.from_folder(copy / "tokenizer.json")
    assert encoder.text("x") == "x:"
    assert encoder.leading_bos(encoder.ids("x")) == encoder.leading_bos(encoder.ids("x", double_bos=True)) == 1


def test_what_was_saved_with_the_file_cuts_and_pads_nothing(base, tmp_path):
    """tokenizer.json keeps truncation and padding of whoever called it last; prompts must not feel it."""
    folder = shutil.copytree(base, tmp_path / "copy", copy_function=shutil.copyfile)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=64, pad_id=151643)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert ChatEncoder.from_folder(folder).encoded(PROBES[0]) == ChatEncoder.from_folder(base).encoded(PROBES[0])
